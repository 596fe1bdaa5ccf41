"""How data sets and files are encoded: bytes to elements and back (PS3.5, PS3.10)."""
