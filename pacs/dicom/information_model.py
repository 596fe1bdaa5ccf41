"""The Query/Retrieve information models (PS3.4 C.6)."""

from __future__ import annotations

from enum import Enum

from pacs.dicom.levels import Level


class InformationModel(Enum):
    """One of the three hierarchies that Identifiers are written against."""

    PATIENT_ROOT = "Patient Root"
    STUDY_ROOT = "Study Root"
    PATIENT_STUDY_ONLY = "Patient/Study Only"

    @property
    def levels(self) -> tuple[Level, ...]:
        """The Query/Retrieve Levels of this model, root first."""
        return _LEVELS[self]


_LEVELS = {
    InformationModel.PATIENT_ROOT: (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE),
    InformationModel.STUDY_ROOT: (Level.STUDY, Level.SERIES, Level.IMAGE),
    InformationModel.PATIENT_STUDY_ONLY: (Level.PATIENT, Level.STUDY),
}
