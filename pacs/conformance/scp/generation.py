"""The generated sample: patients, studies and series made to meet the corners of the Standard.

Nothing else in an archive has these UIDs (PS3.5 B.2) or Patient IDs: both hold a token that is new for each run.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from pacs.conformance.scp.sample import Sample, SampleInstance
from pacs.conformance.scp.sop_instances import KINDS, Kind

_PLAIN = "ISO_IR 100"
_Series = tuple[str, ...]  # names of kinds, one for each instance


@dataclass(frozen=True)
class _Study:
    date: str
    time: str
    accession_number: str
    series: tuple[_Series, ...]
    study_id: str = "1"
    description: str = ""


@dataclass(frozen=True)
class _Patient:
    """``name`` follows the token: ``CENT^Anna`` becomes ``K1F...CENT^Anna``."""

    name: str
    studies: tuple[_Study, ...]
    character_set: tuple[str, ...] = (_PLAIN,)
    birth_date: str = ""
    sex: str = ""
    other_groups: str = ""


_ONE_CT: tuple[_Series, ...] = (("CT",),)


def _literal(accession_number: str, date: str, time: str) -> _Study:
    return _Study(date, time, accession_number, _ONE_CT, study_id="L")


#: A study of many modalities; studies whose Accession Numbers differ where a wild card or an SQL pattern would
#: not see it, at the edges of dates and times; and one patient for each Specific Character Set.
_PATIENTS = (
    _Patient(
        "ADAMS^Anna Maria^Beth^Dr.^MD",
        (
            _Study(
                "20240229",
                "101530",
                "MANY1",
                (
                    ("CT", "CT", "CT, implicit", "CT, big endian", "CT, implicit"),
                    ("MR", "MR, implicit", "MR, deflated"),
                    ("SR",),
                    ("KO",),
                    ("enhanced CT",),
                ),
                description="Head and neck",
            ),
            _Study("19991231", "235959.999999", "MANY2", (("CR",), ("DX",), ("US, multi-frame",))),
            _Study("20000101", "000000", "MANY3", (("SC", "SC, JPEG", "SC, RLE"), ("PR",))),
        ),
        birth_date="19000101",
        sex="F",
    ),
    _Patient(
        "BAKER^Bob",
        (
            _literal("A%1", "20200101", "10"),
            _literal("AXX1", "20200102", "1015"),
            _literal("A_1", "20200103", "101530"),
            _literal("AX1", "20200104", "101530.5"),
            _literal("A*1", "20200105", "101531"),
            _literal("A?1", "20200106", "235959"),
        ),
        birth_date="20000229",
        sex="M",
    ),
    _Patient("", (_Study("", "", "", (("PDF",), ("RT plan",)), study_id=""),)),
    _Patient("GROSSMÜLLER^Jörg", (_Study("20210101", "120000", "LATIN1", _ONE_CT),)),
    _Patient("ŁUKASZEWSKI^Žofie", (_Study("20210102", "", "LATIN2", _ONE_CT),), ("ISO_IR 101",)),
    _Patient("ИВАНОВ^Пётр", (_Study("20210103", "", "CYRILLIC", _ONE_CT),), ("ISO_IR 144",)),
    _Patient("ΔΙΟΝΥΣΙΟΣ^Νίκος", (_Study("20210104", "", "GREEK", _ONE_CT),), ("ISO_IR 126",)),
    _Patient("قباني^لنزار", (_Study("20210105", "", "ARABIC", _ONE_CT),), ("ISO_IR 127",)),
    # pydicom encodes no component with both halves of JIS X 0201 in it, so the token stands alone.
    _Patient("^ﾔﾏﾀﾞ^ﾀﾛｳ", (_Study("20210106", "", "KATAKANA", _ONE_CT),), ("ISO_IR 13",)),
    _Patient(
        "YAMADA^Tarou",
        (_Study("20210107", "", "KANJI", _ONE_CT),),
        ("", "ISO 2022 IR 87"),
        other_groups="=山田^太郎=やまだ^たろう",
    ),
    _Patient(
        "HONG^Gildong",
        (_Study("20210108", "", "HANGUL", _ONE_CT),),
        ("", "ISO 2022 IR 149"),
        other_groups="=洪^吉洞=홍^길동",
    ),
    _Patient(
        "WANG^XiaoDong",
        (_Study("20210109", "", "UTF8", _ONE_CT, description="Ελλάδα, 中国, Россия"),),
        ("ISO_IR 192",),
        other_groups="=王^小东",
    ),
    _Patient(
        "ZHANG^Wei",
        (_Study("20210110", "", "GB18030", _ONE_CT),),
        ("GB18030",),
        other_groups="=张^伟",
    ),
)


def new_token() -> str:
    """A letter and seven digits that no other run has."""
    return f"K{secrets.token_hex(4)[1:].upper()}"


def generate(token: str = "") -> Sample:
    """Every instance of the sample, not stored anywhere yet."""
    token = token or new_token()
    instances = tuple(
        instance
        for number, patient in enumerate(_PATIENTS, start=1)
        for instance in _instances(token, number, patient)
    )
    return Sample(instances, is_generated=True, token=token)


def new_instance(token: str, kind_name: str = "CT", **keywords: object) -> SampleInstance:
    """An instance outside the sample, of the patient whom checks of storage may change as they like."""
    patient = _Patient("SCRATCH^Test", ())
    study = _Study("20240301", "080000", "SCRATCH", ())
    kind = KINDS[kind_name]
    base = _attributes(token, "STORE", patient)
    _add_study(base, study)
    instance = _instance(base, kind, 1, 1, str(generate_uid(prefix=None)))
    for keyword, value in keywords.items():
        if value is None:
            delattr(instance.attributes, keyword)
        else:
            setattr(instance.attributes, keyword, value)
    return instance


def _instances(token: str, number: int, patient: _Patient) -> Iterator[SampleInstance]:
    for study in patient.studies:
        base = _attributes(token, str(number), patient)
        _add_study(base, study)
        for series_number, series in enumerate(study.series, start=1):
            series_uid = str(generate_uid(prefix=None))
            for instance_number, kind in enumerate(series, start=1):
                yield _instance(base, KINDS[kind], series_number, instance_number, series_uid)


def _attributes(token: str, number: str, patient: _Patient) -> Dataset:
    data_set = Dataset()
    data_set.SpecificCharacterSet = list(patient.character_set)
    data_set.PatientName = f"{token}{patient.name}{patient.other_groups}"
    data_set.PatientID = f"{token}-{number}"
    data_set.PatientBirthDate = patient.birth_date
    data_set.PatientSex = patient.sex
    return data_set


def _add_study(data_set: Dataset, study: _Study) -> None:
    data_set.StudyInstanceUID = str(generate_uid(prefix=None))
    data_set.StudyDate, data_set.StudyTime = study.date, study.time
    data_set.AccessionNumber, data_set.StudyID = study.accession_number, study.study_id
    data_set.ReferringPhysicianName = ""
    if study.description:
        data_set.StudyDescription = study.description


def _instance(
    base: Dataset, kind: Kind, series_number: int, instance_number: int, series_uid: str
) -> SampleInstance:
    # Not Dataset(base), which shares its elements with the original.
    data_set = Dataset()
    data_set.update(base)
    data_set.SOPClassUID = kind.sop_class_uid
    data_set.SOPInstanceUID = str(generate_uid(prefix=None))
    data_set.SeriesInstanceUID = series_uid
    data_set.Modality = kind.modality
    data_set.SeriesNumber, data_set.InstanceNumber = series_number, instance_number
    data_set.Manufacturer = ""
    requested = Dataset()
    requested.RequestedProcedureID = f"RP{series_number}"
    requested.ScheduledProcedureStepID = f"SPS{series_number}"
    data_set.RequestAttributesSequence = [requested]
    kind.fill(data_set)
    return SampleInstance(data_set, kind.transfer_syntax)
