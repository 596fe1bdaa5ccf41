"""How much the archive holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How much the archive holds."""

    patients: int = 0
    studies: int = 0
    series: int = 0
    instances: int = 0
    #: Of all data sets, without File Meta Information.
    size_bytes: int = 0
