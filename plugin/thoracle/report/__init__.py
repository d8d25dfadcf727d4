"""Stage 5: the DICOM objects that carry the answer."""
