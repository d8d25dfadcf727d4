"""Stage 9: HL7 v2 results (ORU^R01) for the RIS, sent by MLLP."""
