"""Layer 1: what the DICOM Standard says, as data and pure functions."""
