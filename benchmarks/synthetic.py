"""A synthetic archive: what ``pacs.dicom.encoding.part10.read_header`` would find in its files, without the files.

Seeded, and study by study: a study's content depends on the seed and its number only, so an archive of 10,000
instances is the beginning of the one of 1,000,000. Per study 50 instances in about three series; about 6 patients to
10 studies; dates spread over ten years in no order, as in a migrated archive, which is the worst case for locality.

So that a name prefix can have 100 matches at every size, 100 of the studies up to number 200, 100 of those up to
2,000, and 100 of those up to 20,000 belong to the pseudonymised subjects of a research trial: ``Trial1-00^...``.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate

from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    MRImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
    UltrasoundImageStorage,
    XRayAngiographicImageStorage,
)

from pacs.dicom.instance import InstanceHeader
from pacs.model.instances import InstanceRecord

INSTANCES_PER_STUDY = 50
TRIAL_SUBJECTS = 100
_FIRST_DAY = date(2016, 1, 1)
_DAYS = 3652
_RECEIVED_FROM = datetime(2026, 1, 1, tzinfo=UTC)
_NEW_PATIENT = 0.59


@dataclass(frozen=True, slots=True)
class _Kind:
    """One modality: how often it occurs, what its instances are."""

    modality: str
    weight: int
    sop_class_uid: str
    body_parts: tuple[str, ...]
    manufacturer: str


_KINDS = (
    _Kind("CT", 30, CTImageStorage, ("HEAD", "CHEST", "ABDOMEN"), "Northlight Imaging"),
    _Kind("MR", 24, MRImageStorage, ("BRAIN", "LSPINE", "KNEE"), "Larmor Systems"),
    _Kind(
        "DX", 16, DigitalXRayImageStorageForPresentation, ("CHEST", "HAND", "FOOT"), "Kontrast AG"
    ),
    _Kind("US", 12, UltrasoundImageStorage, ("ABDOMEN", "THYROID"), "Echolot"),
    _Kind("CR", 7, ComputedRadiographyImageStorage, ("CHEST", "PELVIS"), "Kontrast AG"),
    _Kind(
        "MG",
        4,
        DigitalMammographyXRayImageStorageForPresentation,
        ("BREAST",),
        "Northlight Imaging",
    ),
    _Kind("PT", 3, PositronEmissionTomographyImageStorage, ("WHOLEBODY",), "Larmor Systems"),
    _Kind("XA", 2, XRayAngiographicImageStorage, ("HEART",), "Kontrast AG"),
    _Kind("NM", 2, NuclearMedicineImageStorage, ("BONE", "THYROID"), "Larmor Systems"),
)

# In the order of their frequency (Zipf's law below), from several languages and scripts.
_FAMILIES = (
    "Müller Smith Schmidt Johnson Schneider Williams Fischer Brown Weber Jones Meyer García Wagner Miller Becker "
    "Davis Schulz Rodríguez Hoffmann Martínez Schäfer Hernández Koch López Bauer González Richter Wilson Klein "
    "Anderson Wolf Thomas Schröder Taylor Neumann Moore Schwarz Jackson Zimmermann Martin Braun Lee Krüger Pérez "
    "Hofmann Thompson Hartmann White Lange Harris Schmitt Sánchez Werner Clark Schmitz Ramírez Krause Lewis Meier "
    "Robinson Lehmann Walker Schmid Young Schulze Allen Maier King Köhler Wright Herrmann Scott König Torres Walter "
    "Nguyen Mayer Hill Huber Flores Kaiser Green Fuchs Adams Peters Nelson Lang Baker Scholz Hall Möller Rivera Weiß "
    "Campbell Jung Mitchell Hahn Carter Schubert Roberts Vogel Kowalski Friedrich Nowak Keller Novák Günther Dvořák "
    "Frank Ivanov Berger Petrov Winkler Demir Roth Kaya Beck Papadopoulos Lorenz Rossi Baumann Russo Franke Ferrari "
    "Albrecht Dubois Schuster Moreau Simon Laurent Ludwig Andersson Böhm Johansson Winter Hansen Kraus Olsen Martens "
    "Jansen Schumacher Bakker Krämer Visser Vogt Silva Stein Santos Jäger Oliveira Otto Kim Sommer Park Groß Choi "
    "Seidel Tanaka Heinrich Suzuki Brandt Wang Haas Li Schreiber Zhang Graf Chen Schulte Singh Dietrich Kumar Ziegler "
    "Patel Kuhn Ali Kühn Ahmed Pohl Hussein Engel Haddad Horn O'Brien Busch Murphy Bergmann Kelly Thiel McCarthy"
)
_GIVEN = (
    "Anna Thomas Maria Michael Ursula Andreas Monika Peter Elisabeth Wolfgang Sabine Klaus Renate Jürgen Helga Günter "
    "Karin Stefan Ingrid Christian Petra Uwe Gisela Werner Susanne Horst Claudia Frank Birgit Dieter James Mary Robert "
    "Patricia John Jennifer David Linda William Barbara Emma Ben Mia Paul Sofia Leon Hannah Finn Olga Iwan Chiara Luca "
    "Aylin Mehmet Ming Mei Hiroshi Yuki"
)
_FAMILY_NAMES, _GIVEN_NAMES = tuple(_FAMILIES.split()), tuple(_GIVEN.split())
_CITIES = ("Nordheim", "Altstadt", "Seeburg")
_REFERRERS = ("Arzt^Helene^^Dr.", "Hausmann^Otto^^Dr.", "Lindqvist^Åsa", "Ortega^Luis", "")


def _zipf(count: int) -> list[float]:
    return list(accumulate(1 / (rank + 8) for rank in range(count)))


_FAMILY_WEIGHTS, _GIVEN_WEIGHTS = _zipf(len(_FAMILY_NAMES)), _zipf(len(_GIVEN_NAMES))
_KIND_WEIGHTS = list(accumulate(kind.weight for kind in _KINDS))


@dataclass(frozen=True, slots=True)
class Patient:
    """One synthetic patient."""

    patient_id: str
    name: str
    birth_date: str
    sex: str


@dataclass(frozen=True, slots=True)
class Series:
    """One synthetic series."""

    uid: str
    number: int
    instances: int


@dataclass(frozen=True, slots=True)
class Study:
    """One synthetic study: what queries are made of; ``records`` has the rest."""

    number: int
    uid: str
    patient: Patient
    date: str
    time: str
    kind: _Kind
    series: tuple[Series, ...]

    def instance_uid(self, series: Series, number: int) -> str:
        """The SOP Instance UID of one instance of a series; they count from one."""
        return f"{series.uid}.{number}"


def make_studies(count: int, seed: int) -> list[Study]:
    """The first ``count`` studies of the archive with this seed."""
    patients: list[Patient] = []
    studies: list[Study] = []
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        subject = _trial_subject(number)
        if subject is not None or not patients or rng.random() < _NEW_PATIENT:
            patients.append(_patient(rng, len(patients), subject))
            patient = patients[-1]
        else:
            patient = rng.choice(patients)
        studies.append(_study(rng, number, patient))
    return studies


def _trial_subject(number: int) -> str | None:
    """The pseudonym of a trial's subject, for 100 studies spread evenly over each decade of sizes."""
    first, last, trial = 0, 2 * TRIAL_SUBJECTS, 1
    while number >= last:
        first, last, trial = last, last * 10, trial + 1
    step = (last - first) // TRIAL_SUBJECTS
    subject, offset = divmod(number - first, step)
    return f"Trial{trial}-{subject:02}^Pseudonym" if offset == 0 else None


def _patient(rng: random.Random, number: int, subject: str | None) -> Patient:
    born = date(1930, 1, 1) + timedelta(days=rng.randrange(31_000))
    family = rng.choices(_FAMILY_NAMES, cum_weights=_FAMILY_WEIGHTS)[0]
    given = rng.choices(_GIVEN_NAMES, cum_weights=_GIVEN_WEIGHTS)[0]
    name = f"{family}^{given}"
    if family in {"Tanaka", "Suzuki"}:
        name = f"{name}=田中^弘=たなか^ひろし"
    return Patient(
        patient_id=f"{rng.randrange(10**8):08}-{number}",
        name=subject or name,
        birth_date=born.strftime("%Y%m%d"),
        sex=rng.choice("FM"),
    )


def _study(rng: random.Random, number: int, patient: Patient) -> Study:
    day = _FIRST_DAY + timedelta(days=rng.randrange(_DAYS))
    when = f"{rng.randrange(7, 20):02}{rng.randrange(60):02}{rng.randrange(60):02}"
    kind = rng.choices(_KINDS, cum_weights=_KIND_WEIGHTS)[0]
    root = f"1.3.12.2.1107.5.{rng.randrange(1, 9)}.{rng.randrange(10_000, 99_999)}"
    uid = f"{root}.{day:%Y%m%d}{when}{number:07}"
    cuts = sorted(rng.sample(range(1, INSTANCES_PER_STUDY), rng.choice((1, 2, 2, 3))))
    sizes = [b - a for a, b in zip([0, *cuts], [*cuts, INSTANCES_PER_STUDY], strict=True)]
    series = tuple(
        Series(uid=f"{uid}{rng.randrange(1000):03}.{n}", number=n, instances=size)
        for n, size in enumerate(sizes, start=1)
    )
    return Study(number, uid, patient, day.strftime("%Y%m%d"), when, kind, series)


def make_records(studies: Sequence[Study]) -> Iterator[InstanceRecord]:
    """The instances of some studies in the order in which a modality would send them."""
    for study in studies:
        for series in study.series:
            parents = _study_values(study) | _series_values(study, series)
            for number in range(1, series.instances + 1):
                yield _record(study, series, number, parents)


def _study_values(study: Study) -> dict[str, str]:
    patient, part = study.patient, study.kind.body_parts[0]
    return {
        "PatientID": patient.patient_id,
        "PatientName": patient.name,
        "PatientBirthDate": patient.birth_date,
        "PatientSex": patient.sex,
        "IssuerOfPatientID": "SYNTHETIC",
        "StudyInstanceUID": study.uid,
        "StudyDate": study.date,
        "StudyTime": study.time,
        "AccessionNumber": f"A{study.number:09}",
        "StudyID": str(study.number % 1000 + 1),
        "ReferringPhysicianName": _REFERRERS[study.number % len(_REFERRERS)],
        "StudyDescription": f"{study.kind.modality} {part} routine",
        "RequestedProcedureDescription": f"{study.kind.modality} {part}",
        "PatientAge": f"{max(0, int(study.date[:4]) - int(patient.birth_date[:4])):03}Y",
        "PatientWeight": "75",
    }


def _series_values(study: Study, series: Series) -> dict[str, str]:
    kind = study.kind
    part = kind.body_parts[study.number % len(kind.body_parts)]
    return {
        "SeriesInstanceUID": series.uid,
        "Modality": kind.modality,
        "SeriesNumber": str(series.number),
        "SeriesDescription": f"{part} {series.number}.0",
        "BodyPartExamined": part,
        "ProtocolName": f"{part} standard",
        "SeriesDate": study.date,
        "SeriesTime": f"{study.time}.{series.number:06}",
        "StationName": f"{kind.modality}{study.number % 4 + 1}",
        "InstitutionName": f"Hospital {_CITIES[study.number % len(_CITIES)]}",
        "Manufacturer": kind.manufacturer,
        "ManufacturerModelName": f"{kind.modality} 3000",
        "DeviceSerialNumber": f"{study.number % 4 + 40_000}",
        "SoftwareVersions": "7.1\\VB20",
        "PatientPosition": "HFS",
        "FrameOfReferenceUID": f"{study.uid}.9",
        "PerformedProcedureStepStartDate": study.date,
        "PerformedProcedureStepStartTime": study.time,
    }


def _record(study: Study, series: Series, number: int, parents: dict[str, str]) -> InstanceRecord:
    uid = study.instance_uid(series, number)
    digest = hashlib.sha256(uid.encode()).hexdigest()
    received = _RECEIVED_FROM + timedelta(
        milliseconds=100 * (study.number * INSTANCES_PER_STUDY + series.number * 15 + number)
    )
    time = f"{study.time}.{number:06}"
    values = parents | {
        "SOPInstanceUID": uid,
        "SOPClassUID": study.kind.sop_class_uid,
        "InstanceNumber": str(number),
        "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
        "AcquisitionNumber": "1",
        "AcquisitionDate": study.date,
        "AcquisitionTime": time,
        "ContentDate": study.date,
        "ContentTime": time,
        "Rows": "512",
        "Columns": "512",
        "BitsAllocated": "16",
        "PhotometricInterpretation": "MONOCHROME2",
        "SliceLocation": f"{number * 1.25:.2f}",
    }
    return InstanceRecord(
        header=InstanceHeader(
            sop_class_uid=study.kind.sop_class_uid,
            sop_instance_uid=uid,
            series_instance_uid=series.uid,
            study_instance_uid=study.uid,
            transfer_syntax_uid=(ExplicitVRLittleEndian if study.number % 3 else JPEGLosslessSV1),
            values=values,
        ),
        location=f"{received:%Y/%m/%d/%H%M}/{received:%S%f}{digest[:12]}.dcm",
        data_set_offset=344,
        data_set_size=525_000,
        digest=digest,
        received_at=received,
        source_ae=f"{study.kind.modality}{study.number % 4 + 1}",
    )
