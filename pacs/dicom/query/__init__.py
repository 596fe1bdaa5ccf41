"""Identifiers: what is asked for, how it matches, what is returned (PS3.4 C.2)."""
