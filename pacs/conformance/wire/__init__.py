"""Associations whose every byte can be chosen and is recorded; independent of ``pacs.wire``."""
