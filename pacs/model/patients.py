"""Patients whose studies disagree about them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConflictingStudy:
    """What one study of a patient says; empty where it says nothing."""

    study_instance_uid: str
    study_date: str
    accession_number: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientConflict:
    """A patient whose studies disagree in who that is."""

    patient_id: str
    issuer: str
    #: In what they disagree.
    keywords: tuple[str, ...]
    studies: tuple[ConflictingStudy, ...]
