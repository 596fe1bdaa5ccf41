"""C-FIND: the types of matching (PS3.4 C.2.2.2), on studies whose keys were made for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pydicom.dataset import Dataset

from pacs.conformance.judgement import Requirement
from pacs.conformance.scp.check import Run
from pacs.conformance.scp.queries import (
    NO_UID,
    answers,
    ask,
    entities,
    entity,
    expect_success,
    expect_values,
    find_check,
    negotiated_options,
    text,
    unique_keys,
)
from pacs.dicom.information_model import InformationModel
from pacs.dicom.levels import Level

_sample_check = partial(find_check, needs_sample=True)
#: Accession Numbers: the studies of one patient, made to differ where a pattern might not see it.
_LITERALS = ("A%1", "AXX1", "A_1", "AX1", "A*1", "A?1")
#: The studies of a patient at the edges of days.
_EDGES = ("MANY1", "MANY2", "MANY3")
#: Times of hours or minutes alone, and one without a fraction: whether a range of finer times holds them is not said.
_IMPRECISE = ("A%1", "AXX1")
_NOT_SAID = (*_IMPRECISE, "A_1")


@dataclass(frozen=True)
class _Case:
    """Keys of a C-FIND for studies, the Accession Numbers that match, and those that may."""

    keys: dict[str, str]
    wanted: tuple[str, ...]
    allowed: tuple[str, ...] = ()


def _accession(value: str, *wanted: str) -> _Case:
    return _Case({"AccessionNumber": value}, wanted)


def _dates(value: str, *wanted: str) -> _Case:
    return _Case({"StudyDate": value}, wanted)


def _times(value: str, *wanted: str, allowed: tuple[str, ...] = _IMPRECISE) -> _Case:
    return _Case({"StudyTime": value}, wanted, allowed)


#: Name, clause, title, the studies among which is searched, and what is asked.
_TABLE: tuple[tuple[str, str, str, tuple[str, ...], tuple[_Case, ...]], ...] = (
    (
        "single-value",
        "PS3.4 C.2.2.2.1",
        "matches a single value as a whole",
        _LITERALS,
        (_accession("AX1", "AX1"), _accession("AX")),
    ),
    (
        "single-value-case",
        "PS3.4 C.2.2.2.1",
        "distinguishes case outside Patient's Name",
        _LITERALS,
        (_accession("ax1"),),
    ),
    (
        "single-value-percent",
        "PS3.4 C.2.2.2.1",
        "takes % as the character that it is",
        _LITERALS,
        (_accession("A%1", "A%1"),),
    ),
    (
        "single-value-underscore",
        "PS3.4 C.2.2.2.1",
        "takes _ as the character that it is",
        _LITERALS,
        (_accession("A_1", "A_1"),),
    ),
    (
        "wild-card-star",
        "PS3.4 C.2.2.2.4",
        "matches any characters, or none, with *",
        _LITERALS,
        (
            _accession("A*1", *_LITERALS),
            _accession("AX*", "AXX1", "AX1"),
            _accession("AX1*", "AX1"),
            _accession("*XX1", "AXX1"),
        ),
    ),
    (
        "wild-card-question-mark",
        "PS3.4 C.2.2.2.4",
        "matches one character with ?, neither none nor two",
        _LITERALS,
        (
            _accession("A?1", "A%1", "A_1", "AX1", "A*1", "A?1"),
            _accession("A??1", "AXX1"),
            _accession("AX1?"),
        ),
    ),
    (
        "wild-card-percent",
        "PS3.4 C.2.2.2.4",
        "takes % and _ literally beside a wild card",
        _LITERALS,
        (_accession("A%*", "A%1"), _accession("?_1", "A_1")),
    ),
    (
        "wild-card-case",
        "PS3.4 C.2.2.2.4",
        "distinguishes case in wild card matching",
        _LITERALS,
        (_accession("ax*"),),
    ),
    (
        "range-of-dates",
        "PS3.4 C.2.2.2.5.1",
        "matches the dates from one to another, both included",
        _LITERALS,
        (
            _dates("20200102-20200104", "AXX1", "A_1", "AX1"),
            _dates("20200103-20200103", "A_1"),
            _dates("20200107-20200131"),
        ),
    ),
    (
        "range-of-dates-until",
        "PS3.4 C.2.2.2.5.1",
        "matches dates up to one, this included",
        _LITERALS,
        (_dates("-20200102", "A%1", "AXX1"),),
    ),
    (
        "range-of-dates-from",
        "PS3.4 C.2.2.2.5.1",
        "matches dates from one on, this included",
        _LITERALS,
        (_dates("20200105-", "A*1", "A?1"),),
    ),
    (
        "range-of-dates-across-centuries",
        "PS3.4 C.2.2.2.5.1",
        "matches the last day of a century and the first of the next",
        _EDGES,
        (_dates("19991231-20000101", "MANY2", "MANY3"),),
    ),
    (
        "range-of-times",
        "PS3.4 C.2.2.2.5.2",
        "matches the times from one to another, both included, fractions of a second too",
        _LITERALS,
        (
            _times("101530-101531", "A_1", "AX1", "A*1"),
            _times("101530.25-101530.75", "AX1", allowed=_NOT_SAID),
            _times("110000-220000", allowed=()),
        ),
    ),
    (
        "range-of-times-until",
        "PS3.4 C.2.2.2.5.2",
        "matches times up to one, this included",
        _LITERALS,
        (_times("-101530", "A_1", allowed=(*_IMPRECISE, "AX1")),),
    ),
    (
        "range-of-times-from",
        "PS3.4 C.2.2.2.5.2",
        "matches times from one on, this included",
        _LITERALS,
        (_times("101531-", "A*1", "A?1"),),
    ),
    (
        "range-of-times-at-midnight",
        "PS3.4 C.2.2.2.5.2",
        "matches the first and the last moment of a day",
        _EDGES,
        (
            _times("-000000", "MANY3", allowed=()),
            _times("235959.5-", "MANY2", allowed=()),
            _times("000000-235959.999999", *_EDGES, allowed=()),
        ),
    ),
    (
        "ranges-apart",
        "PS3.4 C.2.2.2.5.4",
        "matches ranges of date and time each by itself, unless combined matching is negotiated",
        _LITERALS,
        (
            _Case(
                {"StudyDate": "20200103-20200107", "StudyTime": "101530.25-101531"},
                ("AX1", "A*1"),
                _NOT_SAID,
            ),
        ),
    ),
    (
        "keys-together",
        "PS3.4 C.4.1.3.1.1",
        "returns only what matches all keys",
        _LITERALS,
        (_Case({"AccessionNumber": "A*1", "StudyDate": "20200104", "StudyID": "L"}, ("AX1",)),),
    ),
)


def _studies_of(run: Run, accession_number: str) -> dict[str, object]:
    patient = entity(run, AccessionNumber=accession_number)
    return {
        "PatientID": str(patient.PatientID),
        "StudyInstanceUID": None,
        "AccessionNumber": None,
    }


def _matching(among: tuple[str, ...], cases: tuple[_Case, ...]) -> Callable[[Run], None]:
    def run_cases(run: Run) -> None:
        for case in cases:
            found = ask(run, Level.STUDY, _studies_of(run, among[0]) | case.keys)
            expect_values(run, found, "AccessionNumber", case.wanted, allowed=case.allowed)

    return run_cases


for _name, _clause, _title, _among, _cases in _TABLE:
    _sample_check(_name, _clause, _title)(_matching(_among, _cases))


@_sample_check("wild-card-alone", "PS3.4 C.2.2.2.4", "takes * alone as universal matching")
def star_alone(run: Run) -> None:
    """It matches an empty value, too."""
    patient = next(one for one in entities(run, Level.STUDY) if not text(one, "AccessionNumber"))
    keys = {"PatientID": str(patient.PatientID), "StudyInstanceUID": None, "AccessionNumber": "*"}
    found = ask(run, Level.STUDY, keys)
    expect_values(run, found, "StudyInstanceUID", [str(patient.StudyInstanceUID)])


@find_check(
    "wild-card-in-uid", "PS3.4 C.2.2.2.4", "takes no wild card in a UID", Requirement.SHOULD
)
def no_wild_card_in_uid(run: Run) -> None:
    """Not a valid request: a failure is as right as no match."""
    uid = str(entity(run).StudyInstanceUID)
    keys = unique_keys(run, Level.STUDY, entity(run)) | {"StudyInstanceUID": f"{uid[:-1]}*"}
    _received, found = answers(run, Level.STUDY, keys)
    run.expect(not found, "no match: * is no wild card in UI", f"{len(found)} matches")


@_sample_check(
    "wild-card-in-date", "PS3.4 C.2.2.2.4", "takes no wild card in a date", Requirement.SHOULD
)
def no_wild_card_in_date(run: Run) -> None:
    """Not a valid request: a failure is as right as no match."""
    keys = _studies_of(run, _LITERALS[0]) | {"StudyDate": "202001*"}
    _received, found = answers(run, Level.STUDY, keys)
    run.expect(not found, "no match: * is no wild card in DA", f"{len(found)} matches")


@_sample_check("list-of-uids", "PS3.4 C.2.2.2.2", "matches each UID of a list")
def list_of_uids(run: Run) -> None:
    """With a UID in it that does not exist."""
    known = entities(run, Level.STUDY, PatientID=str(entity(run).PatientID))
    wanted = [str(one.StudyInstanceUID) for one in known][:2]
    keys = unique_keys(run, Level.STUDY, known[0]) | {"StudyInstanceUID": [*wanted, NO_UID]}
    expect_values(run, ask(run, Level.STUDY, keys), "StudyInstanceUID", wanted)


@_sample_check(
    "list-of-uids-below",
    "PS3.4 C.2.2.2.2",
    "matches each UID of a list at the levels of series and instances",
    models=(InformationModel.PATIENT_ROOT, InformationModel.STUDY_ROOT),
)
def list_of_uids_below(run: Run) -> None:
    """Some of the entities below one parent."""
    for level in (Level.SERIES, Level.IMAGE):
        parent = entity(run)
        siblings = [
            one
            for one in entities(run, level)
            if unique_keys(run, level, one, own=False) == unique_keys(run, level, parent, own=False)
        ]
        wanted = [str(one[level.unique_key].value) for one in siblings][:2]
        keys = unique_keys(run, level, parent) | {level.unique_key: [*wanted, NO_UID]}
        expect_values(run, ask(run, level, keys), level.unique_key, wanted)


@_sample_check("patient-name", "PS3.4 C.2.2.2.1.1", "matches a Patient's Name written in full")
def patient_name(run: Run) -> None:
    """In the case in which it is stored, so that literal matching finds it."""
    known = entity(run)
    level = run.model.levels[0]
    keys = {"PatientName": str(known.PatientName), "PatientID": None, level.unique_key: None}
    found = ask(run, level, keys)
    wanted = [str(one[level.unique_key].value) for one in _of_patient(run, level, known)]
    expect_values(run, found, level.unique_key, wanted)


def _of_patient(run: Run, level: Level, known: Dataset) -> list[Dataset]:
    return entities(run, level, PatientID=str(known.PatientID))


def _ask_optional(run: Run, level: Level, keys: dict[str, object], keyword: str) -> list[Dataset]:
    """The matches by an Optional Key; not applicable where it is not returned, or not matched, as 0xFF01 says."""
    received, found = answers(run, level, keys)
    expect_success(run, received)
    if not all(keyword in one for one in found) or any(one.status == 0xFF01 for one in received):
        run.not_applicable(f"{keyword} is not supported for matching")
    return found


@_sample_check(
    "multiple-values",
    "PS3.4 C.2.2.3",
    "returns all values when one of several matches, if it supports Modalities in Study",
    Requirement.SHOULD,
)
def multiple_values(run: Run) -> None:
    """An Optional Key, whose matching may be left out, with 0xFF01 (PS3.4 C.2.2.1.3)."""
    keys = _studies_of(run, _EDGES[0]) | {"ModalitiesInStudy": "MR"}
    found = _ask_optional(run, Level.STUDY, keys, "ModalitiesInStudy")
    expect_values(run, found, "AccessionNumber", ["MANY1"])
    wanted = {str(one.Modality) for one in entities(run, Level.SERIES, AccessionNumber="MANY1")}
    came = set(text(found[0], "ModalitiesInStudy").split("\\"))
    run.expect(came == wanted, f"Modalities in Study {sorted(wanted)}", f"{sorted(came)}")


@_sample_check(
    "sequence",
    "PS3.4 C.2.2.2.6",
    "matches Items by their keys and returns these keys alone, if it supports the sequence",
    Requirement.SHOULD,
    models=(InformationModel.PATIENT_ROOT, InformationModel.STUDY_ROOT),
)
def sequence(run: Run) -> None:
    """An Optional Key of series, whose matching may be left out, with 0xFF01 (PS3.4 C.2.2.1.3)."""
    known = entity(run, AccessionNumber=_EDGES[0])
    item = Dataset()
    item.RequestedProcedureID = "RP2"
    keys = unique_keys(run, Level.SERIES, known, own=False)
    keys |= {"RequestAttributesSequence": [item], "SeriesNumber": None}
    found = _ask_optional(run, Level.SERIES, keys, "RequestAttributesSequence")
    expect_values(run, found, "SeriesNumber", ["2"])
    came = {one.keyword for item in found[0].RequestAttributesSequence for one in item}
    run.expect(
        came == {"RequestedProcedureID"},
        "Items with Requested Procedure ID alone",
        f"Items with {', '.join(sorted(came))}",
    )


@_sample_check(
    "combined-date-time",
    "PS3.4 C.2.2.2.5.4",
    "matches ranges of date and time as one, when combined matching is negotiated",
)
def combined_date_time(run: Run) -> None:
    """Byte 2 of the extended negotiation (PS3.4 C.5.1.1)."""
    with negotiated_options(run, combined=True) as (association, context):
        keys = _studies_of(run, _LITERALS[0]) | {
            "StudyDate": "20200103-20200107",
            "StudyTime": "101530.25-101531",
        }
        received, found = answers(run, Level.STUDY, keys, on=(association, context))
        expect_success(run, received)
    expect_values(run, found, "AccessionNumber", ["AX1", "A*1", "A?1"], allowed=_NOT_SAID)


@_sample_check(
    "relational",
    "PS3.4 C.4.1.3.2.1",
    "finds entities without the unique keys above, when relational queries are negotiated",
)
def relational(run: Run) -> None:
    """Byte 1 of the extended negotiation (PS3.4 C.5.1.1)."""
    level = run.model.levels[-1]
    known = entity(run)
    wanted = str(known[level.unique_key].value)
    with negotiated_options(run, relational=True) as (association, context):
        keys = {level.unique_key: wanted}
        received, found = answers(run, level, keys, on=(association, context))
        expect_success(run, received)
    expect_values(run, found, level.unique_key, [wanted])
