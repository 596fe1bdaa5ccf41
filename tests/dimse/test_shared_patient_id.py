"""Two people share a Patient ID: a study is answered with the one its own images name (PS3.4 C.4.1)."""

from __future__ import annotations

import logging

import pytest
from pydicom.dataset import Dataset

from tests.dimse.retrieving import CT_CONTEXT
from tests.factories import make_instance
from tests.peers import (
    PATIENT_ROOT_FIND,
    STUDY_ROOT_FIND,
    RunningArchive,
    association,
    identifier,
    responses,
    send,
)
from tests.serving import Serve, engine_only


def _instance(number: int, name: str, **values: object) -> Dataset:
    uid = f"1.2.13.{number}"
    return make_instance(
        StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1", PatientName=name, **values
    )


def _names(running: RunningArchive, model: str, level: str, **keys: str) -> list[str]:
    query = identifier(level, **({"PatientName": ""} | keys))
    with association(running, model) as assoc:
        *pending, final = responses(assoc.send_c_find(query, model))
    assert final.status == 0x0000, final.comment
    return sorted(str(one.identifier.PatientName) for one in pending if one.identifier)


@engine_only
def test_study_is_answered_with_its_own_patient(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve()
    instances = [
        _instance(1, "Alpha^A"),
        _instance(2, "Beta^B", PatientSex="M"),
        _instance(1, "Alpha^A"),
        _instance(2, "Beta^B", PatientSex="M"),
    ]
    with caplog.at_level(logging.WARNING, "pacs"):
        for instance in instances:
            with association(running, CT_CONTEXT) as assoc:
                assert send(assoc, instance).Status == 0x0000

    study = {"StudyInstanceUID": "1.2.13.1"}
    series = study | {"SeriesInstanceUID": "1.2.13.1.1"}
    assert _names(running, STUDY_ROOT_FIND, "STUDY") == ["Alpha^A", "Beta^B"]
    assert _names(running, STUDY_ROOT_FIND, "STUDY", PatientName="alpha*") == ["Alpha^A"]
    assert _names(running, STUDY_ROOT_FIND, "SERIES", **study) == ["Alpha^A"]
    assert _names(running, STUDY_ROOT_FIND, "IMAGE", **series) == ["Alpha^A", "Alpha^A"]
    # In Patient Root, the patient is the latest, and what is below is as in Study Root.
    assert _names(running, PATIENT_ROOT_FIND, "PATIENT", PatientID="P-1") == ["Beta^B"]
    assert _names(running, PATIENT_ROOT_FIND, "PATIENT", PatientName="Alpha^A") == []
    below = {"PatientID": "P-1", "StudyInstanceUID": ""}
    assert _names(running, PATIENT_ROOT_FIND, "STUDY", **below) == ["Alpha^A", "Beta^B"]
    told = [one.getMessage() for one in caplog.records if "pacs patient conflicts" in one.message]
    assert [line.split(" of study ")[0].split()[-1] for line in told] == [
        "PatientName",
        "PatientSex",
    ]
    assert not any("Beta" in line or "Alpha" in line for line in told)
