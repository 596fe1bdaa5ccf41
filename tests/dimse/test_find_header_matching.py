"""C-FIND by what only the stored header has, against both engines (PS3.4 C.2.2.1.3, C.2.2.2.6)."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from pacs.archive import find as archive_find
from pacs.dicom.query.header_values import HeaderValues, read_header_values
from tests.factories import make_instance
from tests.peers import (
    PATIENT_ROOT_FIND,
    STUDY_ROOT_FIND,
    Response,
    RunningArchive,
    association,
    deposit,
    identifier,
    responses,
    settled_file,
)
from tests.serving import Serve

PENDING, NOT_SUPPORTED = 0xFF00, 0xFF01
ROOT = "1.2.276.8"
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
RELATIONAL, FUZZY, EMPTY_VALUES = b"\1", b"\0\0\1", b"\0\0\0\0\0\1"  # PS3.4 Table C.5-1


def _item(**keywords: object) -> Dataset:
    item = Dataset()
    _add(item, keywords)
    return item


def _add(data_set: Dataset, keywords: dict[str, object]) -> None:
    # As it is: pydicom neither refuses nor reads it.
    for keyword, value in keywords.items():
        vr = dictionary_VR(keyword)
        data_set[keyword] = DataElement(
            keyword, vr, value, validation_mode=IGNORE, already_converted=vr in {"DS", "IS"}
        )


def _code(value: str | None, meaning: str = "", **keywords: object) -> Dataset:
    return _item(CodeValue=value, CodeMeaning=meaning, **keywords)


def _instance(name: str, **keywords: object) -> Dataset:
    """An instance of a patient, study and series of its own."""
    number = ord(name) - ord("A") + 1
    return make_instance(
        PatientID=f"P-{name}",
        StudyInstanceUID=f"{ROOT}.{number}",
        SeriesInstanceUID=f"{ROOT}.{number}.1",
        SOPInstanceUID=f"{ROOT}.{number}.1.1",
        StudyID=name,
        **keywords,
    )


def _store(service: RunningArchive) -> None:
    """Store A and B with values, each in another encoding, and C without any."""
    person = _item(PersonIdentificationCodeSequence=[_code("DR1", "Heart")], InstitutionName="X")
    other = _item(PersonIdentificationCodeSequence=[_code("DR2", "Lung")], InstitutionName="X")
    image = _item(ReferencedSOPClassUID="1.2.3", ReferencedSOPInstanceUID="1.2.3.1")
    images = _item(SeriesInstanceUID="1.2.3.9", ReferencedInstanceSequence=[image])
    observer = _item(VerifyingObserverName="Äneas^Rüdiger", VerificationDateTime="20240229101530")
    protocol = _code("P1", "Thorax", ProtocolContextSequence=[_code("C1")])
    a = _instance(
        "A",
        SpecificCharacterSet="ISO_IR 192",
        OtherPatientIDsSequence=[
            _item(PatientID="X1", IssuerOfPatientID="here"),
            _item(PatientID="X2", IssuerOfPatientID="there"),
        ],
        IssuerOfAccessionNumberSequence=[_item(LocalNamespaceEntityID="LAB%1")],
        ReferringPhysicianIdentificationSequence=[person, other],
        PerformedProtocolCodeSequence=[protocol],
        AnatomicRegionSequence=[_code("T-D4000", "Abdomen"), _code("T-A0100", "Brain")],
        ViewCodeSequence=[_code("R-10206", "AP", ViewModifierCodeSequence=[_code("R-1")])],
        ReferencedRequestSequence=[_item(AccessionNumber="A-1", RequestedProcedureID="RP1")],
        ContentTemplateSequence=[_item(MappingResource="DCMR", TemplateIdentifier="1500")],
        VerifyingObserverSequence=[observer],
        ReferencedSeriesSequence=[images],
        ReferencedImageSequence=[image],
        SliceThickness="1.50",
        KVP="120",
        ScanOptions=["HELIX", "FAST"],
        TableTopVerticalPosition=1.25,
        InstanceCreatorUID="1.2.3.4",
        InstitutionAddress="Am Stein 1",
        AdmissionID="ADM_1",
        ConsultingPhysicianName="Müller^Jörg",
        DateOfLastCalibration="20240229",
    )
    b = _instance(
        "B",
        OtherPatientIDsSequence=[_item(PatientID="X1", IssuerOfPatientID="there")],
        PerformedProtocolCodeSequence=[_code("P2", "Thorax")],
        AnatomicRegionSequence=[_code("T-D4000", "Brain")],
        SliceThickness="3",
        AdmissionID="ADM21",
        DateOfLastCalibration="20240301",
    )
    for instance, syntax in zip((a, b, _instance("C")), SYNTAXES, strict=True):
        deposit(service.archive, instance, transfer_syntax_uid=syntax)


@pytest.fixture(scope="module")
def stored(serve_module: Serve) -> RunningArchive:
    service = serve_module()
    _store(service)
    return service


def _query(level: str, **keys: object) -> Dataset:
    query = identifier(level, StudyID="")
    _add(query, keys)
    return query


def _find(
    running: RunningArchive,
    query: Dataset,
    options: bytes = RELATIONAL,
    model: str = STUDY_ROOT_FIND,
) -> list[Response]:
    proposal = SOPClassExtendedNegotiation()
    proposal.sop_class_uid = model
    proposal.service_class_application_information = options
    with association(running, model, items=[proposal] if options else []) as assoc:
        return responses(assoc.send_c_find(query, model))


def _names(found: list[Response]) -> str:
    return "".join(sorted(str(one.identifier.StudyID) for one in found if one.identifier))


@pytest.mark.parametrize(
    ("level", "keyword", "item", "expected"),
    [
        ("STUDY", "IssuerOfAccessionNumberSequence", _item(LocalNamespaceEntityID="LAB%1"), "A"),
        ("STUDY", "IssuerOfAccessionNumberSequence", _item(LocalNamespaceEntityID="LAB_1"), ""),
        (
            "STUDY",
            "ReferringPhysicianIdentificationSequence",
            _item(PersonIdentificationCodeSequence=[_code("DR2")]),
            "A",
        ),
        (
            "STUDY",
            "ReferringPhysicianIdentificationSequence",
            _item(InstitutionName="X", PersonIdentificationCodeSequence=[_code("DR1", "Lung")]),
            "",
        ),
        ("STUDY", "OtherPatientIDsSequence", _item(PatientID="X1"), "AB"),
        ("STUDY", "OtherPatientIDsSequence", _item(PatientID="X1", IssuerOfPatientID="here"), "A"),
        ("STUDY", "OtherPatientIDsSequence", _item(PatientID="X2", IssuerOfPatientID="here"), ""),
        ("SERIES", "PerformedProtocolCodeSequence", _code("P?"), "AB"),
        (
            "SERIES",
            "PerformedProtocolCodeSequence",
            _code("P?", ProtocolContextSequence=[_code("C1")]),
            "A",
        ),
        ("IMAGE", "AnatomicRegionSequence", _code("T-D4000"), "AB"),
        ("IMAGE", "AnatomicRegionSequence", _code("T-D4000", "Brain"), "B"),
        ("IMAGE", "AnatomicRegionSequence", _code("t-d4000"), ""),
        ("IMAGE", "AnatomicRegionSequence", _code(None, "B*"), "AB"),
        ("IMAGE", "AnatomicRegionSequence", _code(None), "ABC"),
        ("IMAGE", "AnatomicRegionSequence", Dataset(), "ABC"),
        ("IMAGE", "ViewCodeSequence", _code(None, ViewModifierCodeSequence=[_code("R-1")]), "A"),
        ("IMAGE", "ReferencedRequestSequence", _item(AccessionNumber="A-1"), "A"),
        ("IMAGE", "ContentTemplateSequence", _item(TemplateIdentifier="1500"), "A"),
        ("IMAGE", "VerifyingObserverSequence", _item(VerifyingObserverName="ANEAS^rudiger"), "A"),
        ("IMAGE", "VerifyingObserverSequence", _item(VerificationDateTime="20240301-"), ""),
        (
            "IMAGE",
            "ReferencedSeriesSequence",
            _item(
                ReferencedInstanceSequence=[_item(ReferencedSOPInstanceUID=["1.2.3.7", "1.2.3.1"])]
            ),
            "A",
        ),
        ("IMAGE", "ReferencedImageSequence", _item(ReferencedSOPInstanceUID="1.2.3.1"), "A"),
        ("IMAGE", "ReferencedImageSequence", _item(ReferencedSOPInstanceUID="1.2.3"), ""),
    ],
)
def test_find_by_any_sequence_at_its_level(
    stored: RunningArchive, level: str, keyword: str, item: Dataset, expected: str
) -> None:
    """PS3.4 C.2.2.2.6: one Item has to match all keys, in Items of Items too."""
    *pending, final = _find(stored, _query(level, **{keyword: [item]}))

    assert final.status == 0x0000, final.comment
    assert _names(pending) == expected
    assert {one.status for one in pending} <= {PENDING}


@pytest.mark.parametrize(
    ("level", "keyword", "value", "expected"),
    [
        # C.2.2.2.1: DS and IS as numbers; C.2.2.3: one value of several
        ("IMAGE", "SliceThickness", "1.5", "A"),
        ("IMAGE", "KVP", "1.2E2", "A"),
        ("IMAGE", "ScanOptions", "FAST", "A"),
        ("IMAGE", "TableTopVerticalPosition", 1.25, "A"),
        ("IMAGE", "TableTopVerticalPosition", 1.5, ""),
        # C.2.2.2.2, C.2.2.2.4, C.2.2.2.5
        ("IMAGE", "InstanceCreatorUID", ["1.2.3.9", "1.2.3.4"], "A"),
        ("STUDY", "AdmissionID", "ADM?1", "AB"),
        ("STUDY", "AdmissionID", "ADM_1", "A"),
        ("STUDY", "AdmissionID", "*", "ABC"),
        ("STUDY", "ConsultingPhysicianName", "MULLER^*", "A"),
        ("SERIES", "InstitutionAddress", "*stein*", ""),
        ("SERIES", "InstitutionAddress", "*Stein*", "A"),
        ("SERIES", "DateOfLastCalibration", "20240101-20240229", "A"),
        ("SERIES", "DateOfLastCalibration", "20240229-", "AB"),
        # C.2.2.2.8 note 4: not negotiated, any of the list
        ("IMAGE", "ScanOptions", ["AXIAL", "FAST"], "A"),
    ],
)
def test_find_by_any_attribute_at_its_level(
    stored: RunningArchive, level: str, keyword: str, value: Any, expected: str
) -> None:
    """PS3.4 C.2.2.1.3: an optional key supported for matching is processed as a required one."""
    *pending, final = _find(stored, _query(level, **{keyword: value}))

    assert final.status == 0x0000, final.comment
    assert _names(pending) == expected
    assert {one.status for one in pending} <= {PENDING}


def test_find_returns_the_matching_items_with_what_was_asked(stored: RunningArchive) -> None:
    """PS3.4 C.2.2.2.6, in Items of Items too."""
    person = _item(PersonIdentificationCodeSequence=[_code("DR?")])
    query = _query("STUDY", ReferringPhysicianIdentificationSequence=[person])
    region = _query("IMAGE", AnatomicRegionSequence=[_code(None, "Br*")])

    found, _ = _find(stored, query)
    images = _find(stored, region)[:-1]

    assert found.identifier is not None
    persons = found.identifier.ReferringPhysicianIdentificationSequence
    codes = [one.PersonIdentificationCodeSequence for one in persons]
    assert [[code.CodeValue for code in one] for one in codes] == [["DR1"], ["DR2"]]
    assert "InstitutionName" not in persons[0]
    returned = [one.identifier.AnatomicRegionSequence for one in images if one.identifier]
    values = sorted([code.CodeValue for code in one] for one in returned)
    assert values == [["T-A0100"], ["T-D4000"]]


@pytest.mark.parametrize(
    ("options", "keyword", "value", "expected"),
    [
        (b"", "ConsultingPhysicianName", "jorg mueler", ""),
        (FUZZY, "ConsultingPhysicianName", "jorg mueler", "A"),
        (EMPTY_VALUES, "AdmissionID", '""', "C"),
        (EMPTY_VALUES, "OtherPatientIDsSequence", [_item(IssuerOfPatientID='""')], ""),
        (b"", "AdmissionID", '""', ""),
    ],
)
def test_find_negotiated_matching_holds_in_the_header(
    stored: RunningArchive, options: bytes, keyword: str, value: Any, expected: str
) -> None:
    """PS3.4 C.2.2.2.1.1, C.2.2.2.7."""
    assert _names(_find(stored, _query("STUDY", **{keyword: value}), options)) == expected


def test_find_with_match_unknown_a_header_without_a_value_matches(serve: Serve) -> None:
    """PS3.4 C.2.2.1.2, C.2.2.1.3."""
    service = serve(match_unknown=True)
    _store(service)

    assert _names(_find(service, _query("STUDY", AdmissionID="ADM_1"))) == "AC"
    code = _query("IMAGE", AnatomicRegionSequence=[_code("T-A0100")])
    assert _names(_find(service, code)) == "AC"


@pytest.mark.parametrize(
    ("keyword", "value", "offending", "reason"),
    [
        ("AnatomicRegionSequence", [_code("A"), _code("B")], (0x00082218,), "several Items"),
        ("ReferencedImageSequence", [_item(ReferencedSOPInstanceUID="1.*")], (0x00081155,), "UID"),
        ("DateOfLastCalibration", "20240301-20240229", (0x00181200,), "is no DA"),
        ("SliceThickness", "thin", (0x00180050,), "not a valid value of VR DS"),
        ("SliceThickness", "1*", (0x00180050,), "wild card"),
    ],
)
def test_find_header_key_without_meaning_is_a900_with_element_and_reason(
    stored: RunningArchive, keyword: str, value: Any, offending: tuple[int, ...], reason: str
) -> None:
    """PS3.4 C.4.1.1.4, C.2.2.2."""
    [refused] = _find(stored, _query("IMAGE", **{keyword: value}))

    assert (refused.status, refused.offending) == (0xA900, offending)
    assert reason in refused.comment


def test_find_header_key_of_a_level_above_needs_relational_queries(stored: RunningArchive) -> None:
    """PS3.4 C.4.1.2.1, C.4.1.3.2.1."""
    query = _query("SERIES", StudyInstanceUID=f"{ROOT}.1", AdmissionID="ADM_1")

    [refused] = _find(stored, query, b"")
    assert (refused.status, refused.offending) == (0xA900, (0x00380010,))
    assert "above level SERIES" in refused.comment
    assert _names(_find(stored, query)) == "A"


def test_find_patient_by_a_sequence_of_the_patient(stored: RunningArchive) -> None:
    """PS3.4 Table C.6-1."""
    item = _item(PatientID="X2", IssuerOfPatientID="there")
    query = identifier("PATIENT", PatientID="", OtherPatientIDsSequence=[item])

    found, final = _find(stored, query, b"", PATIENT_ROOT_FIND)

    assert final.status == 0x0000
    assert found.identifier is not None
    assert found.identifier.PatientID == "P-A"


@pytest.mark.parametrize(
    ("limit", "statuses"), [(2, [0xA700]), (3, [PENDING, 0x0000]), (0, [PENDING, 0x0000])]
)
def test_find_that_needs_more_headers_than_the_limit_says_so(
    serve: Serve, limit: int, statuses: list[int]
) -> None:
    """PS3.4 C.4.1.1.4: never a silent cut."""
    service = serve(find_header_limit=limit)
    _store(service)
    deposit(service.archive, _instance("D", AdmissionID="D"))

    by_header = _find(service, _query("STUDY", AdmissionID="D", PatientID="P-[BD]"))
    found = _find(
        service,
        _query("STUDY", AdmissionID="D", StudyInstanceUID=[f"{ROOT}.{n}" for n in (1, 2, 4)]),
    )

    assert [one.status for one in by_header] == [0x0000]  # the index leaves no candidate
    assert [one.status for one in found] == statuses
    assert ("Limit of 2 headers" in found[-1].comment) is (limit == 2)


def test_find_cancelled_between_candidates_that_do_not_match_ends_with_fe00(
    service: RunningArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PS3.4 C.4.1.3.3: also before there is any match to answer with."""
    for name in "ABCDE":
        deposit(service.archive, _instance(name))
    has_begun, is_cancelled = threading.Event(), threading.Event()
    reads: list[object] = []

    def read_after_the_cancel(*arguments: Any, **options: Any) -> HeaderValues:
        has_begun.set()
        assert is_cancelled.wait(5)
        # Other threads send the C-CANCEL, and take it in at a stock AE; nobody tells when they have.
        time.sleep(0.1)
        reads.append(arguments)
        return read_header_values(*arguments, **options)

    monkeypatch.setattr(archive_find, "read_header_values", read_after_the_cancel)

    with association(service, STUDY_ROOT_FIND) as assoc:
        answers = assoc.send_c_find(_query("STUDY", AdmissionID="Z"), STUDY_ROOT_FIND, msg_id=7)
        assert has_begun.wait(5)
        assoc.send_c_cancel(7, query_model=STUDY_ROOT_FIND)
        is_cancelled.set()
        found = responses(answers)

    assert [one.status for one in found] == [0xFE00]
    assert len(reads) < 5


def test_find_limit_of_headers_does_not_count_what_is_only_returned(serve: Serve) -> None:
    service = serve(find_header_limit=1)
    _store(service)

    *pending, final = _find(service, _query("STUDY", AdmissionID=""))

    assert (final.status, _names(pending)) == (0x0000, "ABC")


def test_find_candidate_whose_file_cannot_be_read_is_returned_as_not_matched(
    service: RunningArchive,
) -> None:
    """PS3.4 C.2.2.1.3, C.4.1.1.4: nobody knows whether it matches, and 0xFF01 says that the key was not."""
    _store(service)
    settled_file(service.archive, f"{ROOT}.2.1.1").unlink()

    *pending, final = _find(service, _query("STUDY", AdmissionID="ADM_1"))

    statuses = {one.identifier.StudyID: one.status for one in pending if one.identifier}
    assert statuses == {"A": PENDING, "B": NOT_SUPPORTED}
    assert final.status == 0x0000


def test_find_sequence_too_large_to_match_is_returned_as_not_matched(
    service: RunningArchive,
) -> None:
    """PS3.4 C.2.2.1.3."""
    many = [_code(f"T-{number}", "x" * 60) for number in range(6_000)]
    deposit(service.archive, _instance("A", AnatomicRegionSequence=many))
    deposit(service.archive, _instance("B", AnatomicRegionSequence=[_code("T-7")]))
    deposit(service.archive, _instance("C", AnatomicRegionSequence=[_code("T-8")]))

    *pending, _ = _find(service, _query("IMAGE", AnatomicRegionSequence=[_code("T-7")]))

    statuses = {one.identifier.StudyID: one.status for one in pending if one.identifier}
    assert statuses == {"A": NOT_SUPPORTED, "B": PENDING}
