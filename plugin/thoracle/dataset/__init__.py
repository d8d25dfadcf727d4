"""Sets of images: what leaks in them, a split without the leaks, and their way into DICOM."""
