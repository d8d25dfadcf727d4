"""Thoracle: a DICOM node that reads chest radiographs for a hospital. Research software."""

__version__ = "0.1.0"

IMPLEMENTATION_CLASS_UID = "2.25.300678147982431453899527231772322221229"
"""Who made a file or an association (PS3.7 Section D.3.3.2): made once, and fixed."""
IMPLEMENTATION_VERSION_NAME = "THORACLE_0.1"
"""At most 16 characters (PS3.5 Table 6.2-1, VR SH)."""
