"""The DICOM Conformance Statement, written from the settings and the tables in the code (PS3.2 Annex A)."""
