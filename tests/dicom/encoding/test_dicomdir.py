from __future__ import annotations

import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from struct import pack

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from pacs.dicom.encoding.dicomdir import MEDIA_STORAGE_DIRECTORY, referenced_files
from pacs.dicom.encoding.part10 import read_file_meta
from pacs.errors import InvalidInstance
from tests.factories import make_instance, part10
from tests.media import make_dicomdir, make_record


def files_of(data: bytes) -> list[tuple[str, ...]]:
    stream = BytesIO(data)
    meta = read_file_meta(stream)
    return list(referenced_files(stream, meta.transfer_syntax_uid, meta.data_set_offset))


RECORDS = [["IMAGES", "CT1"], None, ["ROOT"], ["A", "B", "C", "D", "E", "F", "G", "H"]]


def test_media_storage_directory_is_the_class_of_a_dicomdir() -> None:
    assert MediaStorageDirectoryStorage == MEDIA_STORAGE_DIRECTORY


@pytest.mark.parametrize("undefined_items", [False, True])
@pytest.mark.parametrize("undefined_sequence", [False, True])
@pytest.mark.parametrize(
    "transfer_syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_referenced_files_in_any_encoding_are_those_of_the_records(
    transfer_syntax: str, undefined_sequence: bool, undefined_items: bool
) -> None:
    data = make_dicomdir(
        [make_record(file_id) for file_id in RECORDS],
        transfer_syntax,
        undefined_sequence=undefined_sequence,
        undefined_items=undefined_items,
    )

    assert files_of(data) == [tuple(file_id) for file_id in RECORDS if file_id]


DIRECTORIES = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"


@pytest.mark.parametrize("name", ["DICOMDIR-bigEnd", "DICOMDIR-nooffset", "DICOMDIR-implicit"])
def test_referenced_files_of_edited_dicomdirs_are_those_of_the_original(name: str) -> None:
    original = files_of((DIRECTORIES / "DICOMDIR").read_bytes())

    assert len(original) == 31
    assert files_of((DIRECTORIES / name).read_bytes()) == original


def test_referenced_files_record_that_is_shorter_than_it_claims_hides_no_other() -> None:
    data = make_dicomdir([make_record([name]) for name in "ABC"])
    flag = pack("<HH2sH", 4, 0x1410, b"US", 2) + b"\xff\xff"

    for number in range(3):
        # Without a byte of one record, and as long as before by all that its lengths say.
        parts = data.split(flag)
        parts[number : number + 2] = [parts[number] + parts[number + 1]]
        assert files_of(flag.join(parts)) == [("A",), ("B",), ("C",)]


def test_referenced_files_records_that_are_cut_off_are_missed() -> None:
    data = make_dicomdir([make_record([name]) for name in "ABC"])
    one = len(make_dicomdir([make_record(["A"])] * 2)) - len(make_dicomdir([make_record(["A"])]))

    with pytest.raises(InvalidInstance):
        files_of(data[:-one])


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS:UserWarning")
@pytest.mark.parametrize(
    ("file_id", "components"),
    [
        ("IMAGES/CT1", ("IMAGES", "CT1")),
        ("/IMAGES/CT1", ("IMAGES", "CT1")),
        ("\\IMAGES\\CT1", ("IMAGES", "CT1")),
        (".\\IMAGES\\CT1", ("IMAGES", "CT1")),
        ("IMAGES\\\\CT1 ", ("IMAGES", "CT1")),
        ("../CT1", ("..", "CT1")),
    ],
)
def test_referenced_files_paths_of_tools_are_taken_apart(
    file_id: str, components: tuple[str, ...]
) -> None:
    assert files_of(make_dicomdir([make_record(file_id.split("\\"))])) == [components]


def test_referenced_files_records_not_in_use_are_left_out() -> None:
    data = make_dicomdir([make_record(["GONE"], in_use=False), make_record(["HERE"])])

    assert files_of(data) == [("HERE",)]


@pytest.mark.parametrize("undefined_length", [False, True])
def test_referenced_files_names_within_an_icon_are_not_records(undefined_length: bool) -> None:
    record = make_record(["IMAGE"])
    record.IconImageSequence = [make_record(["ICON"])]
    record["IconImageSequence"].is_undefined_length = undefined_length

    assert files_of(make_dicomdir([record, make_record(["NEXT"])])) == [("IMAGE",), ("NEXT",)]


@pytest.mark.parametrize("length", range(16_700, 16_712, 2))
def test_referenced_files_record_whose_length_looks_like_a_vr_is_read(length: int) -> None:
    # 0x4140 and around: in an Item's header the length stands where an element has its VR.
    record = make_record(["IMAGE"])
    record.PatientName = None
    record.TextValue = "x"
    empty = len(make_dicomdir([record])) - len(make_dicomdir([]))
    record.TextValue = "x" * (length - empty + 8)

    assert files_of(make_dicomdir([record, make_record(["NEXT"])])) == [("IMAGE",), ("NEXT",)]


def test_referenced_files_of_no_records_is_empty() -> None:
    assert files_of(make_dicomdir([])) == []


def test_referenced_files_more_elements_than_one_header_may_have_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pacs.dicom.encoding.element_headers.MAX_ELEMENTS", 20)

    assert len(files_of(make_dicomdir([make_record(["A"])] * 50))) == 50


def test_referenced_files_every_cut_gives_all_names_or_invalid_instance() -> None:
    data = make_dicomdir([make_record(file_id) for file_id in RECORDS])
    offset = read_file_meta(BytesIO(data)).data_set_offset

    for end in range(offset, len(data)):
        try:
            found = files_of(data[:end])
        except InvalidInstance:
            continue
        # What is cut off follows the last name.
        assert found == files_of(data)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_referenced_files_of_any_bytes_end_in_names_or_invalid_instance(
    changes: list[tuple[int, int]],
) -> None:
    data = bytearray(make_dicomdir([make_record(file_id) for file_id in RECORDS]))
    offset = read_file_meta(BytesIO(bytes(data))).data_set_offset
    for position, value in changes:
        data[offset + position % (len(data) - offset)] = value

    try:
        found = list(referenced_files(BytesIO(bytes(data)), ExplicitVRLittleEndian, offset))
    except InvalidInstance:
        return

    assert all(isinstance(component, str) for file_id in found for component in file_id)


@pytest.mark.interop
def test_referenced_files_of_another_tool_are_the_files_it_was_given(tmp_path: Path) -> None:
    dcmmkdir = shutil.which("dcmmkdir")
    if dcmmkdir is None:
        pytest.skip("dcmmkdir of DCMTK is not installed")
    for number in range(3):
        (tmp_path / f"IM{number}").write_bytes(part10(make_instance(InstanceNumber=number)))

    subprocess.run(
        [dcmmkdir, "--general-purpose", "--invent", "IM0", "IM1", "IM2"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=60,
    )

    assert sorted(files_of((tmp_path / "DICOMDIR").read_bytes())) == [("IM0",), ("IM1",), ("IM2",)]
