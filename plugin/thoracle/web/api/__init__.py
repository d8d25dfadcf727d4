"""What programs read: JSON, FHIR and metrics."""
