"""The four levels of the Query/Retrieve information models (PS3.4 C.6.1.1)."""

from __future__ import annotations

from enum import IntEnum


class Level(IntEnum):
    """A Query/Retrieve Level; a smaller value is closer to the root."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    IMAGE = 3

    @property
    def unique_key(self) -> str:
        """The keyword of the unique key Attribute of this level (PS3.4 C.6.1.1.2 to C.6.1.1.5)."""
        return _UNIQUE_KEYS[self]

    @property
    def above(self) -> tuple[Level, ...]:
        """The levels above this one, root first."""
        return tuple(level for level in Level if level < self)


_UNIQUE_KEYS = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}
