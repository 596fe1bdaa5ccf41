"""Frames of multi-frame instances and their pixels."""
