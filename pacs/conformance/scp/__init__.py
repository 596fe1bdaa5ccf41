"""Tests of a remote SCP: Verification, Storage, C-FIND, C-MOVE and C-GET."""
