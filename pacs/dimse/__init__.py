"""Layer 4: the DIMSE edge. pynetdicom lives here and nowhere else."""
