from __future__ import annotations

import io
from pathlib import Path
from struct import pack

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacs.dicom.encoding.actual_syntax import HEAD_BYTES, actual_transfer_syntax, is_data_set
from pacs.dicom.encoding.part10 import read_file_meta
from pacs.errors import InvalidInstance
from tests.factories import make_instance, part10

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
PLAIN = [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED]
JPEG, PRIVATE = "1.2.840.10008.1.2.4.70", "1.2.840.113619.5.2"

SHIPPED = sorted(
    path
    for path in (Path(pydicom.__file__).parent / "data").rglob("*")
    if path.is_file() and path.suffix not in {".py", ".pyc", ".json"}
)


def head_of(data: bytes) -> bytes:
    begin = read_file_meta(io.BytesIO(data)).data_set_offset
    return data[begin : begin + HEAD_BYTES]


@pytest.mark.parametrize("actual", PLAIN)
@pytest.mark.parametrize("declared", PLAIN)
def test_actual_syntax_is_that_of_the_bytes(declared: str, actual: str) -> None:
    head = head_of(part10(make_instance(), actual))

    assert actual_transfer_syntax(head, declared) == actual


@pytest.mark.parametrize("declared", [JPEG, PRIVATE])
def test_actual_syntax_that_says_more_than_the_encoding_is_believed(declared: str) -> None:
    head = head_of(part10(make_instance(), IMPLICIT))

    assert actual_transfer_syntax(head, declared) == declared


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_actual_syntax_of_the_files_pydicom_ships_is_what_they_say(path: Path) -> None:
    data = path.read_bytes()
    try:
        meta = read_file_meta(io.BytesIO(data))
    except InvalidInstance:
        return

    assert actual_transfer_syntax(head_of(data), meta.transfer_syntax_uid) == (
        meta.transfer_syntax_uid
    )


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(pack("<HH2sH", 8, 5, b"??", 4) + b"ABCD" * 20, id="no VR"),
        pytest.param(pack("<HHL", 8, 5, 0x4355) + bytes(100), id="a length that spells UC"),
        pytest.param(pack("<HH2sH", 0x7FE0, 0x10, b"  ", 2) + bytes(100), id="not in order"),
        pytest.param(b"\xff" * 200, id="ones"),
        pytest.param(bytes(200), id="zeros"),
    ],
)
@pytest.mark.parametrize("declared", [IMPLICIT, EXPLICIT])
def test_actual_syntax_in_doubt_is_the_declared_one(head: bytes, declared: str) -> None:
    assert actual_transfer_syntax(head, declared) == declared


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([*PLAIN, JPEG]))
def test_actual_syntax_of_any_bytes_is_one_of_those(data: bytes, declared: str) -> None:
    assert actual_transfer_syntax(data, declared) in {*PLAIN, declared}
    assert is_data_set(data) in {True, False}
