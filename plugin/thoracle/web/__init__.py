"""The pages and the interfaces for programs: worklist, study, dashboard, people, FHIR."""
