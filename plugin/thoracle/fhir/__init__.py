"""Results as FHIR R4: resources, and the rows that a search asks."""
