"""C-FIND against both engines: levels, keys, matching, refusals, cancel and limit (PS3.4 C.4.1)."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.presentation import build_context

from pacs.dicom.query.response_writer import ResponseWriter
from pacs.dimse import find_scp
from pacs.model.remote_ae import Service
from tests.factories import make_instance
from tests.outages import index_outage
from tests.peers import (
    PATIENT_ROOT_FIND,
    PATIENT_STUDY_ONLY_FIND,
    STUDY_ROOT_FIND,
    Response,
    RunningArchive,
    association,
    database_url_of,
    deposit,
    fill_index,
    identifier,
    is_stock,
    register,
    response,
    responses,
)
from tests.serving import Serve

PENDING, PENDING_NOT_SUPPORTED, CANCELLED = 0xFF00, 0xFF01, 0xFE00
STUDY_A, STUDY_B, STUDY_C, STUDY_D = (f"1.2.276.1.{number}" for number in (1, 2, 3, 4))
CT_SERIES, SR_SERIES = f"{STUDY_A}.1", f"{STUDY_A}.2"
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
LATIN_1, JAPANESE, GREEK, UTF_8 = "ISO_IR 100", "ISO 2022 IR 87", "ISO_IR 126", "ISO_IR 192"
TAROU = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def _library() -> list[Dataset]:
    jane = {
        "PatientID": "P-1",
        "PatientName": "Doe^Jane",
        "StudyInstanceUID": STUDY_A,
        "StudyDate": "20240229",
        "StudyTime": "101530",
        "AccessionNumber": "A-1",
        "StudyDescription": "Thorax 100%",
    }
    images = [
        make_instance(
            **jane,
            SeriesInstanceUID=CT_SERIES,
            SOPInstanceUID=f"{CT_SERIES}.{number}",
            SeriesNumber=1,
            InstanceNumber=number,
            SeriesDescription="Lung",
        )
        for number in (1, 2, 3)
    ]
    report = make_instance(
        **jane,
        SOPClassUID=ENHANCED_SR,
        Modality="SR",
        SeriesInstanceUID=SR_SERIES,
        SOPInstanceUID=f"{SR_SERIES}.1",
        SeriesNumber=2,
    )
    return [
        *images,
        report,
        make_instance(
            SpecificCharacterSet=LATIN_1,
            PatientID="P-2",
            PatientName="Müller^Jürgen",
            StudyInstanceUID=STUDY_B,
            StudyDate="20230115",
            StudyTime="2359",
            AccessionNumber="A%1",
            Modality="MR",
            StudyDescription="Thorax 100 mm",
        ),
        make_instance(
            SpecificCharacterSet=["", JAPANESE],
            PatientID="P-3",
            PatientName=TAROU,
            StudyInstanceUID=STUDY_C,
            StudyDate="20230630",
            StudyTime="080000.5",
            AccessionNumber="A_1",
            Modality="US",
        ),
        make_instance(
            SpecificCharacterSet=GREEK,
            PatientID="P-4",
            PatientName="Διονυσιος",
            StudyInstanceUID=STUDY_D,
            StudyDate="",
            StudyTime="",
            AccessionNumber="",
        ),
    ]


@pytest.fixture(scope="module")
def library(serve_module: Serve) -> RunningArchive:
    """A running archive with four patients in it, for tests that only read."""
    running = serve_module()
    register(running.archive, "SENDER", 104, services=frozenset({Service.STORE}))
    deposit(running.archive, *_library())
    return running


def _find(
    running: RunningArchive, query: Dataset, model: str = STUDY_ROOT_FIND
) -> tuple[list[Dataset], Response]:
    """The Identifiers of the matches and the final response."""
    with association(running, model) as assoc:
        found = responses(assoc.send_c_find(query, model))
    *pending, final = found
    assert all(one.status == PENDING for one in pending), [hex(one.status) for one in pending]
    return [one.identifier for one in pending if one.identifier is not None], final


def _values(found: Iterable[Dataset], keyword: str) -> list[str]:
    return sorted(str(one[keyword].value) for one in found)


# Levels and models (PS3.4 C.6.1, C.6.2)


@pytest.mark.parametrize(
    ("model", "level", "parents", "unique_key", "expected"),
    [
        (PATIENT_ROOT_FIND, "PATIENT", {}, "PatientID", ["P-1", "P-2", "P-3", "P-4"]),
        (PATIENT_ROOT_FIND, "STUDY", {"PatientID": "P-1"}, "StudyInstanceUID", [STUDY_A]),
        (
            PATIENT_ROOT_FIND,
            "SERIES",
            {"PatientID": "P-1", "StudyInstanceUID": STUDY_A},
            "SeriesInstanceUID",
            [CT_SERIES, SR_SERIES],
        ),
        (
            PATIENT_ROOT_FIND,
            "IMAGE",
            {"PatientID": "P-1", "StudyInstanceUID": STUDY_A, "SeriesInstanceUID": CT_SERIES},
            "SOPInstanceUID",
            [f"{CT_SERIES}.{number}" for number in (1, 2, 3)],
        ),
        (STUDY_ROOT_FIND, "STUDY", {}, "StudyInstanceUID", [STUDY_A, STUDY_B, STUDY_C, STUDY_D]),
        (
            STUDY_ROOT_FIND,
            "SERIES",
            {"StudyInstanceUID": STUDY_A},
            "SeriesInstanceUID",
            [CT_SERIES, SR_SERIES],
        ),
        (
            STUDY_ROOT_FIND,
            "IMAGE",
            {"StudyInstanceUID": STUDY_A, "SeriesInstanceUID": SR_SERIES},
            "SOPInstanceUID",
            [f"{SR_SERIES}.1"],
        ),
        (PATIENT_STUDY_ONLY_FIND, "PATIENT", {}, "PatientID", ["P-1", "P-2", "P-3", "P-4"]),
        (PATIENT_STUDY_ONLY_FIND, "STUDY", {"PatientID": "P-2"}, "StudyInstanceUID", [STUDY_B]),
    ],
)
def test_find_at_each_level_of_each_model_returns_the_unique_key_once(
    library: RunningArchive,
    model: str,
    level: str,
    parents: dict[str, str],
    unique_key: str,
    expected: list[str],
) -> None:
    found, final = _find(library, identifier(level, **{unique_key: ""} | parents), model)

    assert _values(found, unique_key) == expected
    assert final.status == 0x0000
    assert final.identifier is None
    assert {one.QueryRetrieveLevel for one in found} == {level}
    assert {one.RetrieveAETitle for one in found} == {"PACS"}


@pytest.mark.parametrize(
    ("model", "query", "offending", "named"),
    [
        pytest.param(
            PATIENT_STUDY_ONLY_FIND,
            identifier("SERIES", PatientID="P-1", StudyInstanceUID=STUDY_A, SeriesInstanceUID=""),
            [0x00080052],
            "QueryRetrieveLevel",
            id="level the model has not",
        ),
        pytest.param(
            STUDY_ROOT_FIND,
            identifier("PATIENT", PatientID=""),
            [0x00080052],
            "QueryRetrieveLevel",
            id="PATIENT in Study Root",
        ),
        pytest.param(
            STUDY_ROOT_FIND,
            identifier("SERIES", SeriesInstanceUID=""),
            [0x0020000D],
            "StudyInstanceUID",
            id="parent missing",
        ),
        pytest.param(
            STUDY_ROOT_FIND,
            identifier("SERIES", StudyInstanceUID=[STUDY_A, STUDY_B], SeriesInstanceUID=""),
            [0x0020000D],
            "StudyInstanceUID",
            id="list of parents",
        ),
        pytest.param(
            PATIENT_ROOT_FIND,
            identifier("STUDY", PatientID="P-*", StudyInstanceUID=""),
            [0x00100020],
            "PatientID",
            id="wild card in parent",
        ),
        pytest.param(
            STUDY_ROOT_FIND,
            identifier("STUDY", SeriesInstanceUID="1.2"),
            [0x0020000E],
            "SeriesInstanceUID",
            id="key below the level",
        ),
        pytest.param(
            STUDY_ROOT_FIND,
            identifier("SERIES", StudyInstanceUID=STUDY_A, AccessionNumber="A-1"),
            [0x00080050],
            "AccessionNumber",
            id="key above the level",
        ),
    ],
)
def test_find_against_the_hierarchy_is_a900_naming_the_element(
    library: RunningArchive, model: str, query: Dataset, offending: Sequence[int], named: str
) -> None:
    found, final = _find(library, query, model)

    assert found == []
    assert final.status == 0xA900
    assert list(final.offending) == offending
    assert named in final.comment.replace(" ", "")


def test_find_without_query_retrieve_level_is_a900(library: RunningArchive) -> None:
    query = Dataset()
    query.PatientName = ""

    _, final = _find(library, query)

    assert final.status == 0xA900
    assert final.offending == (0x00080052,)


# Keys


def test_find_returns_required_keys_with_their_values(library: RunningArchive) -> None:
    query = identifier(
        "STUDY",
        StudyInstanceUID=STUDY_A,
        StudyDate="",
        StudyTime="",
        AccessionNumber="",
        StudyID="",
        PatientID="",
        PatientName="",
    )

    [found], _ = _find(library, query)

    assert (found.StudyDate, found.StudyTime, found.AccessionNumber, found.StudyID) == (
        "20240229",
        "101530",
        "A-1",
        "1",
    )
    assert (found.PatientID, found.PatientName) == ("P-1", "Doe^Jane")


def test_find_returns_optional_keys_and_empty_ones_with_zero_length(
    library: RunningArchive,
) -> None:
    query = identifier(
        "SERIES",
        StudyInstanceUID=STUDY_A,
        SeriesInstanceUID=CT_SERIES,
        SeriesDescription="",
        BodyPartExamined="",
        Modality="",
        SeriesNumber=None,
    )

    [found], _ = _find(library, query)

    assert (found.SeriesDescription, found.Modality, found.SeriesNumber) == ("Lung", "CT", 1)
    assert "BodyPartExamined" in found
    assert not found.BodyPartExamined


def test_find_computes_counts_and_modalities(library: RunningArchive) -> None:
    query = identifier(
        "STUDY",
        StudyInstanceUID=STUDY_A,
        NumberOfStudyRelatedSeries=None,
        NumberOfStudyRelatedInstances=None,
        ModalitiesInStudy="",
        SOPClassesInStudy="",
        InstanceAvailability="",
    )

    [found], _ = _find(library, query)

    assert (found.NumberOfStudyRelatedSeries, found.NumberOfStudyRelatedInstances) == (2, 4)
    assert sorted(found.ModalitiesInStudy) == ["CT", "SR"]
    assert sorted(found.SOPClassesInStudy) == sorted([CTImageStorage, ENHANCED_SR])
    assert found.InstanceAvailability == "ONLINE"


def test_find_counts_at_patient_and_series_level(library: RunningArchive) -> None:
    patient, _ = _find(
        library,
        identifier(
            "PATIENT",
            PatientID="P-1",
            NumberOfPatientRelatedStudies=None,
            NumberOfPatientRelatedSeries=None,
            NumberOfPatientRelatedInstances=None,
        ),
        PATIENT_ROOT_FIND,
    )
    series, _ = _find(
        library,
        identifier(
            "SERIES",
            StudyInstanceUID=STUDY_A,
            SeriesInstanceUID=CT_SERIES,
            NumberOfSeriesRelatedInstances=None,
        ),
    )

    assert patient[0].NumberOfPatientRelatedStudies == 1
    assert patient[0].NumberOfPatientRelatedSeries == 2
    assert patient[0].NumberOfPatientRelatedInstances == 4
    assert series[0].NumberOfSeriesRelatedInstances == 3


def test_find_with_unsupported_optional_key_answers_ff01(library: RunningArchive) -> None:
    query = identifier("STUDY", StudyInstanceUID=STUDY_A, SliceThickness="")

    with association(library, STUDY_ROOT_FIND) as assoc:
        pending, final = responses(assoc.send_c_find(query, STUDY_ROOT_FIND))

    assert pending.status == PENDING_NOT_SUPPORTED
    assert pending.identifier is not None
    assert "SliceThickness" not in pending.identifier
    assert final.status == 0x0000


# Matching (PS3.4 C.2.2.2)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param({"AccessionNumber": "A-1"}, [STUDY_A], id="single value"),
        pytest.param({"AccessionNumber": "a-1"}, [], id="single value is case sensitive"),
        pytest.param({"AccessionNumber": "A?1"}, [STUDY_A, STUDY_B, STUDY_C], id="question mark"),
        pytest.param({"AccessionNumber": "A%1"}, [STUDY_B], id="percent is literal"),
        pytest.param({"AccessionNumber": "A_1"}, [STUDY_C], id="underscore is literal"),
        pytest.param({"StudyDescription": "*100%*"}, [STUDY_A], id="percent in a wild card"),
        pytest.param({"StudyDescription": "Thorax*"}, [STUDY_A, STUDY_B], id="asterisk"),
        pytest.param(
            {"AccessionNumber": ""}, [STUDY_A, STUDY_B, STUDY_C, STUDY_D], id="empty is universal"
        ),
        pytest.param(
            {"AccessionNumber": "*"},
            [STUDY_A, STUDY_B, STUDY_C, STUDY_D],
            id="asterisk is universal too",
        ),
        pytest.param({"StudyDate": "20230101-20231231"}, [STUDY_B, STUDY_C], id="date range"),
        pytest.param({"StudyDate": "20230630-"}, [STUDY_A, STUDY_C], id="from a date on"),
        pytest.param({"StudyDate": "-20230115"}, [STUDY_B], id="up to a date"),
        pytest.param({"StudyDate": "20240229"}, [STUDY_A], id="one date"),
        pytest.param({"StudyTime": "0800-1016"}, [STUDY_A, STUDY_C], id="time range"),
        pytest.param({"StudyTime": "2359"}, [STUDY_B], id="one minute"),
        pytest.param(
            {"StudyInstanceUID": [STUDY_D, STUDY_A, "1.2.3"]}, [STUDY_A, STUDY_D], id="UID list"
        ),
        pytest.param({"ModalitiesInStudy": "SR"}, [STUDY_A], id="a modality in the study"),
        pytest.param({"PatientName": "doe^jane"}, [STUDY_A], id="name in small letters"),
        pytest.param({"PatientName": "DOE*"}, [STUDY_A], id="name in capitals"),
        pytest.param({"PatientName": "Muller*"}, [STUDY_B], id="name without accent"),
        pytest.param({"PatientName": "yamada*"}, [STUDY_C], id="alphabetic group"),
    ],
)
def test_find_matches(
    library: RunningArchive, keys: dict[str, object], expected: list[str]
) -> None:
    query = identifier("STUDY", **{"StudyInstanceUID": ""} | keys)

    found, final = _find(library, query)

    assert _values(found, "StudyInstanceUID") == expected
    assert final.status == 0x0000


# Character sets (PS3.5 6.1.2.5, PS3.4 C.4.1.1.3.2)


@pytest.mark.parametrize(
    ("character_set", "name", "expected"),
    [
        (LATIN_1, "Müller*", STUDY_B),
        (UTF_8, "MÜLLER*", STUDY_B),
        (UTF_8, "山田*", STUDY_C),
        (UTF_8, "やまだ^たろう", STUDY_C),
        (["", JAPANESE], "*=山田^太郎", STUDY_C),
        (["", JAPANESE], "Yamada*=山田*=", STUDY_C),
        (GREEK, "Διονυσιος", STUDY_D),
        (UTF_8, "ΔΙΟΝ*", STUDY_D),
    ],
)
def test_find_by_name_in_any_character_set(
    library: RunningArchive, character_set: str | list[str], name: str, expected: str
) -> None:
    query = identifier("STUDY", SpecificCharacterSet=character_set, PatientName=name)

    found, _ = _find(library, query)

    assert _values(found, "StudyInstanceUID") == [expected]


@pytest.mark.parametrize(
    ("asked", "patient", "answered", "name"),
    [
        (LATIN_1, "P-2", LATIN_1, "Müller^Jürgen"),
        (UTF_8, "P-2", UTF_8, "Müller^Jürgen"),
        (["", JAPANESE], "P-3", ["", JAPANESE], TAROU),
        (GREEK, "P-4", GREEK, "Διονυσιος"),
        # What the request's character set cannot say is answered in UTF-8.
        (LATIN_1, "P-4", UTF_8, "Διονυσιος"),
        (None, "P-3", UTF_8, TAROU),
        (None, "P-1", None, "Doe^Jane"),
    ],
)
def test_find_answers_in_the_character_set_of_the_request(
    library: RunningArchive,
    asked: str | list[str] | None,
    patient: str,
    answered: str | list[str] | None,
    name: str,
) -> None:
    query = identifier("PATIENT", PatientID=patient, PatientName="")
    if asked is not None:
        query.SpecificCharacterSet = asked

    [found], _ = _find(library, query, PATIENT_ROOT_FIND)

    assert found.get("SpecificCharacterSet") == answered
    assert str(found.PatientName) == name


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"],
)
def test_find_in_every_transfer_syntax_of_messages(library: RunningArchive, syntax: str) -> None:
    query = identifier("STUDY", StudyInstanceUID=STUDY_A, PatientName="")

    with association(library, build_context(STUDY_ROOT_FIND, syntax)) as assoc:
        pending, final = responses(assoc.send_c_find(query, STUDY_ROOT_FIND))

    assert pending.identifier is not None
    assert str(pending.identifier.PatientName) == "Doe^Jane"
    assert final.status == 0x0000


# Refusals, cancel, limit, outage


def test_find_without_the_right_is_0124(library: RunningArchive) -> None:
    with association(library, STUDY_ROOT_FIND, calling="SENDER") as assoc:
        [final] = responses(assoc.send_c_find(identifier("STUDY"), STUDY_ROOT_FIND))

    assert final.status == 0x0124
    assert "SENDER" in final.comment


@pytest.mark.parametrize("data", [b"\x08\x00\x52\x00CS\x06\x00ST", b"garbage!"])
def test_find_with_undecodable_identifier_is_a900(library: RunningArchive, data: bytes) -> None:
    request = C_FIND()
    request.MessageID = 1
    request.AffectedSOPClassUID = STUDY_ROOT_FIND
    request.Identifier = BytesIO(data)

    with association(library, build_context(STUDY_ROOT_FIND, ExplicitVRLittleEndian)) as assoc:
        assoc._reactor_checkpoint.clear()
        assoc.dimse.send_msg(request, 1)
        _, answer = assoc.dimse.get_msg(block=True)
        assoc._reactor_checkpoint.set()

    assert answer.Status in (0xA900, 0xC000)
    assert answer.ErrorComment


def test_find_cancelled_between_responses_ends_with_fe00(
    service: RunningArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_index(service.archive, 30)
    statuses: list[int] = []
    is_cancelled = threading.Event()
    encoded = itertools.count()

    def after_the_cancel(encode: Callable[..., Any]) -> Callable[..., Any]:
        def wait_and_encode(*arguments: Any, **options: Any) -> Any:
            if next(encoded):
                assert is_cancelled.wait(5)
                # A stock AE takes the C-CANCEL in with another thread.
                time.sleep(0.1 if is_stock(service) else 0)
            return encode(*arguments, **options)

        return wait_and_encode

    monkeypatch.setattr(find_scp, "encode_response", after_the_cancel(find_scp.encode_response))
    monkeypatch.setattr(ResponseWriter, "write", after_the_cancel(ResponseWriter.write))

    with association(service, STUDY_ROOT_FIND) as assoc:
        answers = assoc.send_c_find(identifier("STUDY"), STUDY_ROOT_FIND, msg_id=7)
        for status, _ in answers:
            statuses.append(status.Status)
            if len(statuses) == 1:
                assoc.send_c_cancel(7, query_model=STUDY_ROOT_FIND)
                is_cancelled.set()
        again = responses(
            assoc.send_c_find(identifier("STUDY", StudyInstanceUID="1.9.3"), STUDY_ROOT_FIND)
        )

    assert statuses[-1] == CANCELLED
    assert 1 <= statuses.count(PENDING) < 30
    assert [one.status for one in again] == [PENDING, 0x0000]


def test_find_ignores_a_cancel_of_another_message(service: RunningArchive) -> None:
    fill_index(service.archive, 30)
    statuses = []

    with association(service, STUDY_ROOT_FIND) as assoc:
        for status, _ in assoc.send_c_find(identifier("STUDY"), STUDY_ROOT_FIND, msg_id=7):
            statuses.append(status.Status)
            if len(statuses) == 1:
                assoc.send_c_cancel(8, query_model=STUDY_ROOT_FIND)

    assert statuses == [PENDING] * 30 + [0x0000]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(4, [PENDING] * 4 + [0xA700]), (5, [PENDING] * 5 + [0x0000]), (0, [PENDING] * 5 + [0x0000])],
)
def test_find_limit_ends_honestly(serve: Serve, limit: int, expected: list[int]) -> None:
    service = serve(find_limit=limit)
    fill_index(service.archive, 5)

    with association(service, STUDY_ROOT_FIND) as assoc:
        found = responses(assoc.send_c_find(identifier("STUDY"), STUDY_ROOT_FIND))

    assert [one.status for one in found] == expected
    assert ("4" in found[-1].comment) is (limit == 4)


def test_find_without_index_is_a700_and_recovers_by_itself(service: RunningArchive) -> None:
    fill_index(service.archive, 1)

    with association(service, STUDY_ROOT_FIND) as assoc:
        with index_outage(database_url_of(service.archive)):
            [refused] = responses(assoc.send_c_find(identifier("STUDY"), STUDY_ROOT_FIND))
        found = responses(assoc.send_c_find(identifier("STUDY"), STUDY_ROOT_FIND))

    assert refused.status == 0xA700
    assert refused.comment
    assert [one.status for one in found] == [PENDING, 0x0000]


def test_find_final_response_has_no_comment_when_all_is_well(library: RunningArchive) -> None:
    with association(library, STUDY_ROOT_FIND) as assoc:
        *_, (status, found) = assoc.send_c_find(identifier("STUDY"), STUDY_ROOT_FIND)

    assert response(status, found).comment == ""
