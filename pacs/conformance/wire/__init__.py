"""Associations whose every byte can be chosen and is recorded; independent of the archive's own engine."""
