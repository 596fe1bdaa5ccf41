"""Layer 2: bytes. Knows no SQL and no DIMSE."""
