"""Texts, names, dates and times as values (PS3.5 6)."""
