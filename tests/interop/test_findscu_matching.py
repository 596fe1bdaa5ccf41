"""Attribute matching as DCMTK's findscu asks for it (PS3.4 C.2.2.2)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.factories import make_instance
from tests.interop import test_dcmtk
from tests.interop.test_dcmtk import _peer, _run
from tests.peers import RunningArchive, deposit

pytestmark = test_dcmtk.pytestmark


def _instances() -> list[Dataset]:
    code, request = Dataset(), Dataset()
    code.CodeValue, code.CodeMeaning = "CT1", "Head"
    request.RequestedProcedureID = "RP1"
    request.RequestedProcedureCodeSequence = [code]
    return [
        make_instance(
            PatientID="P-1",
            StudyInstanceUID="1.2.276.5.1",
            StudyDate="20240229",
            StudyTime="101530",
            AccessionNumber="A%1",
            ProcedureCodeSequence=[code],
            RequestAttributesSequence=[request],
            RequestedProcedureCodeSequence=[code],
        ),
        make_instance(
            PatientID="P-2",
            StudyInstanceUID="1.2.276.5.2",
            StudyDate="20240301",
            StudyTime="2359",
            AccessionNumber="AX1",
            Modality="MR",
        ),
    ]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param("AccessionNumber=A%1", "1", id="C.2.2.2.1"),
        pytest.param("StudyInstanceUID=1.2.276.5.2\\1.9", "2", id="C.2.2.2.2"),
        pytest.param("AccessionNumber=", "12", id="C.2.2.2.3"),
        pytest.param("AccessionNumber=A%*", "1", id="C.2.2.2.4"),
        pytest.param("AccessionNumber=A?1", "12", id="C.2.2.2.4, one character"),
        pytest.param("StudyDate=20240229-20240229", "1", id="C.2.2.2.5.1"),
        pytest.param("StudyDate=20240301-", "2", id="C.2.2.2.5.1, open"),
        pytest.param("StudyTime=-1015", "1", id="C.2.2.2.5.2"),
        pytest.param("ProcedureCodeSequence[0].CodeValue=CT1", "1", id="C.2.2.2.6"),
        pytest.param("ProcedureCodeSequence[0].CodeMeaning=C*", "", id="C.2.2.2.6, no match"),
        pytest.param(
            "RequestedProcedureCodeSequence[0].CodeValue=CT1", "1", id="C.2.2.2.6, in the header"
        ),
        pytest.param("ModalitiesInStudy=CT\\MR", "12", id="C.2.2.2.8, not negotiated"),
    ],
)
def test_findscu_finds_by_key(
    archive_server: RunningArchive, tmp_path: Path, key: str, expected: str
) -> None:
    deposit(archive_server.archive, *_instances())
    responses = tmp_path / "responses"
    responses.mkdir()
    keys = [key] if key.startswith("StudyInstanceUID") else [key, "StudyInstanceUID"]

    shown = _run(
        "findscu",
        *("-S", "-X", "-k", "QueryRetrieveLevel=STUDY"),
        *(part for one in keys for part in ("-k", one)),
        *_peer(archive_server),
        cwd=responses,
    )

    assert shown.returncode == 0, shown.stderr
    found = [dcmread(file).StudyInstanceUID for file in responses.glob("rsp*.dcm")]
    assert "".join(sorted(uid[-1] for uid in found)) == expected


def test_findscu_finds_a_series_by_a_sequence_in_a_sequence(
    archive_server: RunningArchive, tmp_path: Path
) -> None:
    """PS3.4 C.2.2.2.6, recursive; the response has the matching Item with what was asked."""
    deposit(archive_server.archive, *_instances())

    shown = _run(
        "findscu",
        *("-S", "-X", "-k", "QueryRetrieveLevel=SERIES", "-k", "StudyInstanceUID=1.2.276.5.1"),
        *("-k", "SeriesInstanceUID", "-k", "RequestAttributesSequence[0].RequestedProcedureID"),
        "-k",
        "RequestAttributesSequence[0].RequestedProcedureCodeSequence[0].CodeValue=CT?",
        *_peer(archive_server),
        cwd=tmp_path,
    )

    assert shown.returncode == 0, shown.stderr
    [file] = tmp_path.glob("rsp*.dcm")
    [item] = dcmread(file).RequestAttributesSequence
    assert item.RequestedProcedureID == "RP1"
    assert [code.CodeValue for code in item.RequestedProcedureCodeSequence] == ["CT1"]


def test_findscu_is_told_that_a_time_range_crosses_midnight(archive_server: RunningArchive) -> None:
    """PS3.4 C.2.2.2.5.2 excludes it."""
    shown = _run(
        "findscu",
        *("-d", "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyTime=2200-0600"),
        *_peer(archive_server),
    )

    output = (shown.stdout + shown.stderr).lower()
    assert "0xa900" in output
    assert "studytime (0008,0030) is a range across midnight" in output
    assert "(0008,0030)" in output
