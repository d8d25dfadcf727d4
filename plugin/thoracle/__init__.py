"""Thoracle: a DICOM node that reads chest radiographs for a hospital. Research software."""

__version__ = "0.1.0"
