"""Stage 1: the DICOM listener and the durable file store behind it."""
