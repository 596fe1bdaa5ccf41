"""A text of VM 1 is one value, backslashes and all: two Patient IDs that differ behind one are two patients."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from tests.dimse.retrieving import Retriever
from tests.factories import make_instance
from tests.peers import (
    PATIENT_ROOT_FIND,
    STUDY_ROOT_FIND,
    RunningArchive,
    association,
    deposit,
    identifier,
    responses,
)
from tests.serving import Serve

_STUDIES: dict[str, dict[str, Any]] = {
    "1.2.12.1": {
        "PatientID": "AB\\1",
        "IssuerOfPatientID": "H\\1",
        "PatientName": "Alpha^A",
        "AccessionNumber": "2024\\1",
        "StudyID": "S\\1",
        "StudyDescription": "C-SPINE W\\O CONTRAST",
    },
    "1.2.12.2": {"PatientID": "AB\\2", "IssuerOfPatientID": "H\\1", "PatientName": "Beta^B"},
    "1.2.12.3": {"PatientID": "AB", "PatientName": "Gamma^C", "AccessionNumber": "2024"},
    "1.2.12.4": {"PatientID": "1", "PatientName": "Delta\\D", "StudyDescription": "C-SPINE"},
}


@pytest.fixture(scope="module")
def library(serve_module: Serve) -> RunningArchive:
    """An archive with the four studies, for tests that only read."""
    running = serve_module()
    deposit(running.archive, *_instances())
    return running


def _instances() -> list[Dataset]:
    return [
        make_instance(
            **{"StudyInstanceUID": uid, "SOPInstanceUID": f"{uid}.1.1", "StudyID": "7"} | values
        )
        for uid, values in _STUDIES.items()
    ]


def _query(level: str, **keys: object) -> Dataset:
    query = identifier(level)
    for keyword, value in keys.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        query.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE))
    return query


def _text(element: DataElement) -> str:
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    return "\\".join(map(str, values))


def _find(running: RunningArchive, model: str, query: Dataset) -> list[dict[str, str]]:
    with association(running, model) as assoc:
        *pending, final = responses(assoc.send_c_find(query, model))
    assert final.status == 0x0000, final.comment
    return [
        {one.keyword: _text(one) for one in found.identifier if one.keyword in query}
        for found in pending
        if found.identifier is not None
    ]


def _studies(running: RunningArchive, **keys: object) -> list[str]:
    query = _query("STUDY", **{"StudyInstanceUID": ""} | keys)
    return sorted(one["StudyInstanceUID"] for one in _find(running, STUDY_ROOT_FIND, query))


def test_patients_whose_ids_differ_behind_a_backslash_are_two(library: RunningArchive) -> None:
    found = _find(library, PATIENT_ROOT_FIND, _query("PATIENT", PatientID="", PatientName=""))

    assert sorted((one["PatientID"], one["PatientName"]) for one in found) == [
        ("1", "Delta\\D"),
        ("AB", "Gamma^C"),
        ("AB\\1", "Alpha^A"),
        ("AB\\2", "Beta^B"),
    ]


def test_patient_id_with_a_backslash_finds_that_patient_only(library: RunningArchive) -> None:
    found = _find(library, PATIENT_ROOT_FIND, _query("PATIENT", PatientID="AB\\1", PatientName=""))
    studies = _find(
        library, PATIENT_ROOT_FIND, _query("STUDY", PatientID="AB\\1", StudyInstanceUID="")
    )

    assert [one["PatientName"] for one in found] == ["Alpha^A"]
    assert [one["StudyInstanceUID"] for one in studies] == ["1.2.12.1"]
    assert _studies(library, PatientID="AB\\1") == ["1.2.12.1"]
    assert _studies(library, PatientID="AB\\*") == ["1.2.12.1", "1.2.12.2"]


@pytest.mark.parametrize(
    "keyword", ["AccessionNumber", "StudyID", "StudyDescription", "IssuerOfPatientID"]
)
def test_text_of_vm_1_is_returned_whole(library: RunningArchive, keyword: str) -> None:
    wanted = _STUDIES["1.2.12.1"][keyword]

    found = _find(
        library,
        STUDY_ROOT_FIND,
        _query("STUDY", StudyInstanceUID="1.2.12.1", **{keyword: ""}),
    )

    assert [one[keyword] for one in found] == [wanted]


@pytest.mark.parametrize(
    ("keyword", "key", "found"),
    [
        ("StudyDescription", "C-SPINE W\\O CONTRAST", "1"),
        ("StudyDescription", "C-SPINE W\\*", "1"),
        ("StudyDescription", "C-SPINE W", ""),
        # It may be meant for a list, too, each value of which is asked for.
        ("AccessionNumber", "2024\\1", "13"),
        ("StudyID", "S\\1", "1"),
        ("IssuerOfPatientID", "H\\1", "12"),
        ("PatientName", "delta\\d", "4"),
        ("AccessionNumber", "2024\\2025", "3"),
        ("PatientName", "Beta^B\\Gamma^C", "23"),
    ],
)
def test_text_of_vm_1_is_found_whole(
    library: RunningArchive, keyword: str, key: str, found: str
) -> None:
    assert _studies(library, **{keyword: key}) == [f"1.2.12.{number}" for number in found]


@pytest.mark.parametrize("patient_id", ["AB\\1", "AB\\2", "AB"])
def test_retrieve_of_a_patient_sends_nothing_of_another(
    serve: Serve, retriever: Retriever, patient_id: str
) -> None:
    running = serve()
    retriever.prepare(running)
    deposit(running.archive, *_instances())

    outcome = retriever.retrieve(
        running, _query("PATIENT", PatientID=patient_id), model=retriever.patient_root
    )

    wanted = [uid for uid, values in _STUDIES.items() if values["PatientID"] == patient_id]
    assert outcome.final.status == 0x0000
    assert outcome.uids == [f"{uid}.1.1" for uid in wanted]
