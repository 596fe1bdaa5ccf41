"""Requests against the synthetic archive, each with the number of matches it must have.

A date range or a name prefix is chosen so that about ``TARGET_MATCHES`` entities match whatever the size of the
archive: what then grows is the cost of finding them. Keys differ from request to request. Queries that reach below the
level of their keys are relational ones (PS3.4 C.4.1.2.2.1).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO

from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

from benchmarks.synthetic import INSTANCES_PER_STUDY, Study
from pacs.dicom.information_model import InformationModel
from pacs.dicom.levels import Level
from pacs.dicom.text.names import fold

TARGET_MATCHES = 100
#: A name prefix counts as having 100 matches if it has between 70 and 130; dates are counted out exactly.
_TOLERANCE = 30

_PATIENT_RETURNS = "PatientName PatientID PatientBirthDate PatientSex"
_STUDY_RETURNS = (
    "StudyInstanceUID StudyDate StudyTime AccessionNumber StudyID StudyDescription ReferringPhysicianName "
    "ModalitiesInStudy NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances"
)
#: What viewers ask for at each level, computed Attributes included.
_RETURNS = {
    Level.PATIENT: f"{_PATIENT_RETURNS} NumberOfPatientRelatedStudies",
    Level.STUDY: f"{_PATIENT_RETURNS} {_STUDY_RETURNS}",
    Level.SERIES: (
        "PatientID StudyInstanceUID SeriesInstanceUID Modality SeriesNumber SeriesDescription BodyPartExamined "
        "SeriesDate SeriesTime NumberOfSeriesRelatedInstances"
    ),
    Level.IMAGE: (
        "PatientID StudyInstanceUID SeriesInstanceUID SOPInstanceUID SOPClassUID InstanceNumber ImageType Rows Columns"
    ),
}


@dataclass(frozen=True, slots=True)
class Request:
    """One C-FIND or C-MOVE Identifier and the number of its matches."""

    identifier: Dataset
    matches: int
    model: InformationModel = InformationModel.PATIENT_ROOT
    relational: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """Requests of one kind, with other keys each time."""

    name: str
    level: Level
    make: Callable[[random.Random], Request]
    is_retrieve: bool = False


class Archive:
    """What the archive holds at one size, for choosing keys."""

    def __init__(self, studies: Sequence[Study]) -> None:
        """Choose keys from ``studies``."""
        self.studies = studies
        self._by_date = sorted(studies, key=lambda study: study.date)

    @cached_property
    def _studies_of_patient(self) -> Counter[str]:
        return Counter(study.patient.patient_id for study in self.studies)

    @cached_property
    def _series_of_patient(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for study in self.studies:
            found[study.patient.patient_id] += len(study.series)
        return found

    def entities_of_patient(self, patient_id: str, level: Level) -> int:
        """How many entities of a level a patient has."""
        match level:
            case Level.PATIENT:
                return 1
            case Level.STUDY:
                return self._studies_of_patient[patient_id]
            case Level.SERIES:
                return self._series_of_patient[patient_id]
            case _:
                return self._studies_of_patient[patient_id] * INSTANCES_PER_STUDY

    def name_prefixes(self, level: Level) -> list[tuple[str, int]]:
        """Name prefixes with about the wanted number of matches; the nearest one if none has."""
        counts: Counter[str] = Counter()
        patients = {study.patient.patient_id: fold(study.patient.name) for study in self.studies}
        for patient_id, name in patients.items():
            entities = self.entities_of_patient(patient_id, level)
            family = name.split("^")[0]
            for length in range(1, len(family) + 1):
                counts[family[:length]] += entities
        ranked = sorted((abs(n - TARGET_MATCHES), prefix, n) for prefix, n in counts.items())
        near = [(prefix, n) for distance, prefix, n in ranked if distance <= _TOLERANCE]
        return near or [(prefix, n) for _, prefix, n in ranked[:1]]

    def date_range(
        self, rng: random.Random, level: Level, modality: str | None = None
    ) -> tuple[str, str, int]:
        """Dates between which about the wanted number of entities lies: first, last, number."""
        candidates = self._by_date
        if modality is not None:
            candidates = self._of_modality[modality]
        wanted_studies = TARGET_MATCHES // _entities(candidates[0], level)
        start = rng.randrange(max(1, len(candidates) - wanted_studies))
        first, last, count = candidates[start].date, candidates[start].date, 0
        # From the first study of a day, and days are whole: all of the last day counts.
        while start and candidates[start - 1].date == first:
            start -= 1
        for study in candidates[start:]:
            if count >= TARGET_MATCHES and study.date != last:
                break
            last = study.date
            count += _entities(study, level)
        return first, last, count

    @cached_property
    def _of_modality(self) -> dict[str, list[Study]]:
        found: dict[str, list[Study]] = {}
        for study in self._by_date:
            found.setdefault(study.kind.modality, []).append(study)
        return found


def _entities(study: Study, level: Level) -> int:
    match level:
        case Level.STUDY:
            return 1
        case Level.SERIES:
            return len(study.series)
        case _:
            return INSTANCES_PER_STUDY


def make_kinds(archive: Archive) -> list[Kind]:
    """Everything that is measured, for an archive of one size."""
    below_patient = [Level.STUDY, Level.SERIES, Level.IMAGE]
    return [
        *(Kind("unique key", level, _by_unique_key(archive, level)) for level in Level),
        *(
            Kind("children of one parent", level, _children(archive, level))
            for level in below_patient[1:]
        ),
        *(Kind("Patient ID", level, _by_patient_id(archive, level)) for level in Level),
        *(Kind("name prefix", level, _by_name_prefix(archive, level)) for level in Level),
        *(Kind("date range", level, _by_date(archive, level, None)) for level in below_patient),
        *(
            Kind("modality and date", level, _by_date(archive, level, "MR"))
            for level in below_patient
        ),
        Kind("C-MOVE plan of a study", Level.STUDY, _retrieve(archive), is_retrieve=True),
    ]


def universal(archive: Archive) -> Request:
    """All studies at once."""
    identifier = _identifier(Level.STUDY, _RETURNS[Level.STUDY])
    return Request(identifier, len(archive.studies), InformationModel.STUDY_ROOT)


def _identifier(level: Level, returns: str, **keys: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level.name
    for keyword in returns.split():
        setattr(identifier, keyword, None)
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    # As a peer's arrives: decoded from bytes, with elements not yet looked at.
    encoded = encode(identifier, is_implicit_vr=True, is_little_endian=True)
    assert encoded is not None
    return decode(BytesIO(encoded), is_implicit_vr=True, is_little_endian=True)


def _by_unique_key(archive: Archive, level: Level) -> Callable[[random.Random], Request]:
    def make(rng: random.Random) -> Request:
        keys = dict(zip(_UNIQUE_KEYS, _path(archive, rng), strict=True))
        wanted = {word: keys[word] for word in _UNIQUE_KEYS[: list(Level).index(level) + 1]}
        return Request(_identifier(level, _RETURNS[level], **wanted), 1)

    return make


def _children(archive: Archive, level: Level) -> Callable[[random.Random], Request]:
    def make(rng: random.Random) -> Request:
        study = rng.choice(archive.studies)
        series = rng.choice(study.series)
        keys = {"PatientID": study.patient.patient_id, "StudyInstanceUID": study.uid}
        matches = len(study.series)
        if level is Level.IMAGE:
            keys["SeriesInstanceUID"], matches = series.uid, series.instances
        return Request(_identifier(level, _RETURNS[level], **keys), matches)

    return make


_UNIQUE_KEYS = tuple(level.unique_key for level in Level)


def _path(archive: Archive, rng: random.Random) -> Iterator[str]:
    study = rng.choice(archive.studies)
    series = rng.choice(study.series)
    yield study.patient.patient_id
    yield study.uid
    yield series.uid
    yield study.instance_uid(series, rng.randint(1, series.instances))


def _by_patient_id(archive: Archive, level: Level) -> Callable[[random.Random], Request]:
    def make(rng: random.Random) -> Request:
        patient_id = rng.choice(archive.studies).patient.patient_id
        return Request(
            _identifier(level, _RETURNS[level], PatientID=patient_id),
            archive.entities_of_patient(patient_id, level),
            relational=True,
        )

    return make


def _by_name_prefix(archive: Archive, level: Level) -> Callable[[random.Random], Request]:
    prefixes = archive.name_prefixes(level)

    def make(rng: random.Random) -> Request:
        prefix, matches = rng.choice(prefixes)
        return Request(
            _identifier(level, _RETURNS[level], PatientName=f"{prefix}*"), matches, relational=True
        )

    return make


def _by_date(
    archive: Archive, level: Level, modality: str | None
) -> Callable[[random.Random], Request]:
    modality_key = "ModalitiesInStudy" if level is Level.STUDY else "Modality"

    def make(rng: random.Random) -> Request:
        first, last, matches = archive.date_range(rng, level, modality)
        keys = {"StudyDate": f"{first}-{last}"}
        if modality is not None:
            keys[modality_key] = modality
        return Request(
            _identifier(level, _RETURNS[level], **keys),
            matches,
            InformationModel.STUDY_ROOT,
            relational=True,
        )

    return make


def _retrieve(archive: Archive) -> Callable[[random.Random], Request]:
    def make(rng: random.Random) -> Request:
        study = rng.choice(archive.studies)
        identifier = _identifier(Level.STUDY, "", StudyInstanceUID=study.uid)
        return Request(identifier, INSTANCES_PER_STUDY, InformationModel.STUDY_ROOT)

    return make
