"""Text in every character set, stored by storescu and asked for by findscu, byte for byte (PS3.5 Annexes H to K)."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from pacs.dicom.encoding.part10 import file_meta, read_file_meta, read_identifier
from pacs.dicom.encoding.plain_elements import value_of
from pacs.dicom.sop_classes import EXPLICIT_VR_LITTLE_ENDIAN
from pacs.dicom.text.code_elements import CHARACTER_SETS
from tests.interop.test_dcmtk import MISSING, PATHS
from tests.peers import CALLED, RunningArchive

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(bool(MISSING), reason=f"DCMTK is not installed: no {', '.join(MISSING)}"),
]

CHARACTER_SET, LEVEL, PATIENT_NAME = 0x00080005, 0x00080052, 0x00100010
ADDITIONAL_HISTORY, STUDY_UID = 0x001021B0, 0x0020000D
_LONG_VRS = {"SQ", "UT", "UN"}


@dataclass(frozen=True)
class Example:
    """A name as an Annex of PS3.5 encodes it."""

    character_set: str
    encoded: bytes
    text: str


EXAMPLES = {
    "H.3-1": Example(
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    "H.3-2": Example(
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J="
        b"\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    "I.2-1": Example(
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    "J.1-1": Example(
        "ISO_IR 192",
        b"Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1=",
        "Wang^XiaoDong=王^小東=",
    ),
    "J.3-1": Example(
        "GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东="
    ),
    "J.3-1 as GBK": Example(
        "GBK", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东="
    ),
    "K.2-1": Example(
        "\\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
        "Zhang^XiaoDong=张^小东=",
    ),
}
# Names in the sets that the Annexes have no example of, as their tables of ISO 8859 code them.
SINGLE_BYTE = {
    100: (b"\xc4neas^R\xfcdiger", "Äneas^Rüdiger"),
    101: (b"Dvo\xf8\xe1k^Anton\xedn", "Dvořák^Antonín"),
    109: (b"\xa6amrun^\xb6al", "Ĥamrun^ĥal"),
    110: (b"B\xebrzi\xf2\xb9^J\xe2nis", "Bërziōš^Jânis"),
    148: (b"\xd6z\xfdl^I\xdd\xf0", "Özıl^Iİğ"),  # noqa: RUF001 - Turkish
    203: (b"\xbcuvre^\xa4uro", "Œuvre^€uro"),
    144: (b"\xbb\xee\xda^\xdf\xe3", "Люк^пу"),
    127: (b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
    126: (b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
    138: (b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", "שרון^דבורה"),
    166: (b"\xca\xc1\xaa\xd2\xc2^\xe3\xa8", "สมชาย^ใจ"),
    13: (b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
}
EXAMPLES |= {
    f"ISO_IR {number}": Example(f"ISO_IR {number}", encoded, text)
    for number, (encoded, text) in SINGLE_BYTE.items()
}
_HIGH = re.compile(rb"[\x80-\xff]")
# By an escape sequence in each component, as value 2 (PS3.3 Table C.12-3).
EXAMPLES |= {
    f"ISO 2022 IR {number}": Example(
        f"\\ISO 2022 IR {number}",
        b"^".join(_HIGH.sub(_escaped + rb"\g<0>", part, count=1) for part in encoded.split(b"^")),
        text,
    )
    for number, (encoded, text) in SINGLE_BYTE.items()
    for _escaped in [
        one.elements[-1].escape
        for one in CHARACTER_SETS
        if one.extension_term == f"ISO 2022 IR {number}"
    ]
}
EXAMPLES["ISO 2022 IR 159"] = Example(
    "\\ISO 2022 IR 87\\ISO 2022 IR 159",
    b"Sakai=\x1b$(D\x22\x71\x1b(B^\x1b$B;3\x1b$(D\x30\x21\x1b(B",
    "Sakai=№^山丂",
)


def _file(elements: dict[int, tuple[str, bytes]], instance: str) -> bytes:
    encoded = file_meta(CTImageStorage, instance, ExplicitVRLittleEndian, source_ae="TEST")
    for tag, (vr, value) in sorted(elements.items()):
        padding = b"\0" if vr == "UI" else b" "
        padded = value + padding * (len(value) % 2)
        encoded += struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(padded)) + padded
    return encoded


def _store(server: RunningArchive, folder: Path, elements: dict[int, tuple[str, bytes]]) -> None:
    instance = generate_uid()
    common = {
        0x00080016: ("UI", CTImageStorage.encode()),
        0x00080018: ("UI", instance.encode()),
        0x00080060: ("CS", b"CT"),
        STUDY_UID: ("UI", generate_uid().encode()),
        0x0020000E: ("UI", generate_uid().encode()),
    }
    file = folder / "stored.dcm"
    file.write_bytes(_file(common | elements, instance))
    _run("storescu", server, file)


def _query(
    server: RunningArchive, folder: Path, elements: dict[int, tuple[str, bytes]]
) -> list[dict[int, bytes]]:
    """The elements of each response, as they were on the wire."""
    query = folder / "query.dcm"
    keys = {LEVEL: ("CS", b"STUDY"), STUDY_UID: ("UI", b"")} | elements
    query.write_bytes(_file(keys, generate_uid()))
    for old in folder.glob("rsp*.dcm"):
        old.unlink()
    _run("findscu", server, "-S", "-X", query, cwd=folder)
    return [_elements(path) for path in sorted(folder.glob("rsp*.dcm"))]


def _elements(path: Path) -> dict[int, bytes]:
    with path.open("rb") as stream:
        offset = read_file_meta(stream).data_set_offset
    data_set = read_identifier(path.read_bytes()[offset:], EXPLICIT_VR_LITTLE_ENDIAN)
    found = {int(tag): value_of(data_set.get_item(tag)) for tag in data_set.keys()}  # noqa: SIM118
    return {tag: value for tag, value in found.items() if isinstance(value, bytes)}


def _run(name: str, server: RunningArchive, *options: str | Path, cwd: Path | None = None) -> str:
    path = PATHS[name]
    assert path is not None
    *options_before, file = options
    shown = subprocess.run(
        [
            path,
            "-v",
            *map(str, options_before),
            "-aec",
            CALLED,
            "127.0.0.1",
            str(server.port),
            file,
        ],
        cwd=cwd,
        env=os.environ | {"TCP_NODELAY": "1"},
        capture_output=True,
        encoding="latin-1",
        timeout=30,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    return shown.stdout + shown.stderr


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_name_is_found_by_each_component_group_and_returned_as_it_was_encoded(
    archive_server: RunningArchive, tmp_path: Path, example: Example
) -> None:
    # PS3.3 C.12.1.1.2, PS3.5 6.1.2.5 and 6.2.1, PS3.4 C.4.1.1.3.2
    stated = ("CS", example.character_set.encode())
    _store(
        archive_server,
        tmp_path,
        {CHARACTER_SET: stated, PATIENT_NAME: ("PN", example.encoded)},
    )
    _store(archive_server, tmp_path, {PATIENT_NAME: ("PN", b"Other^Name")})

    # "=" is a byte of a two-byte character nowhere in the examples.
    groups = [group for group in example.encoded.split(b"=") if group]
    for key in dict.fromkeys([example.encoded, *groups]):
        (found,) = _query(
            archive_server, tmp_path, {CHARACTER_SET: stated, PATIENT_NAME: ("PN", key)}
        )
        if "203" in example.character_set:  # read, but not written (docs/conformance.md)
            _is_utf_8(found, example.text)
        else:
            # A delimiter behind which nothing comes may be left out (PS3.5 6.2.1.1).
            assert found[PATIENT_NAME].rstrip(b" ") == example.encoded.rstrip(b"=")
            assert found[CHARACTER_SET].rstrip(b" ") == example.character_set.encode()

    in_utf_8 = {CHARACTER_SET: ("CS", b"ISO_IR 192")}
    (found,) = _query(
        archive_server, tmp_path, in_utf_8 | {PATIENT_NAME: ("PN", example.text.encode())}
    )
    _is_utf_8(found, example.text)


def _is_utf_8(found: dict[int, bytes], text: str) -> None:
    assert found[PATIENT_NAME].rstrip(b" ").decode() == text.rstrip("=")
    assert found[CHARACTER_SET] == b"ISO_IR 192"


_KOREAN = b"1) \x1b$)C\xb0\xa1\xb3\xaa\r\n2) \x1b$)C\xc8\xab abc \xb1\xe6\r\n"
_J_2 = (
    b"The first line includes \xe4\xb8\xad\xe6\x96\x87.\r\n"
    b"The second line includes \xe4\xb8\xad\xe6\x96\x87, too.\r\nThe third line.\r\n"
)
_J_4 = (
    b"The first line includes \xd6\xd0\xce\xc4.\r\n"
    b"The second line includes \xd6\xd0\xce\xc4, too.\r\nThe third line.\r\n"
)
_CHINESE = (
    "The first line includes 中文.\r\nThe second line includes 中文, too.\r\nThe third line.\r\n"
)
_K_3 = (
    b"1.\x1b$)A\xb5\xda\xd2\xbb\xd0\xd0\xce\xc4\xd7\xd6\xa1\xa3\r\n"
    b"2.\x1b$)A\xb5\xda\xb6\xfe\xd0\xd0\xce\xc4\xd7\xd6\xa1\xa3\r\n"
    b"3.\x1b$)A\xb5\xda\xc8\xfd\xd0\xd0\xce\xc4\xd7\xd6\xa1\xa3\r\n"
)
_JAPANESE = b"a \x1b$B;3ED\x1b(B b\r\n\x1b$BB@O:\x1b(B\r\n"


@pytest.mark.parametrize(
    ("character_set", "encoded", "text"),
    [
        ("\\ISO 2022 IR 149", _KOREAN, "1) 가나\r\n2) 홍 abc 길\r\n"),
        ("ISO_IR 192", _J_2, _CHINESE),
        ("GB18030", _J_4, _CHINESE),
        ("GBK", _J_4, _CHINESE),
        ("\\ISO 2022 IR 58", _K_3, "1.第一行文字。\r\n2.第二行文字。\r\n3.第三行文字。\r\n"),
        ("\\ISO 2022 IR 87", _JAPANESE, "a 山田 b\r\n太郎\r\n"),
    ],
    ids=["korean", "J.2-1", "J.4-1", "J.4-1 as GBK", "K.3-1", "kanji"],
)
def test_lines_of_text_begin_in_the_default_repertoire(
    archive_server: RunningArchive, tmp_path: Path, character_set: str, encoded: bytes, text: str
) -> None:
    # PS3.5 6.1.2.5.3
    stated = ("CS", character_set.encode())
    _store(archive_server, tmp_path, {CHARACTER_SET: stated, ADDITIONAL_HISTORY: ("LT", encoded)})

    asked_alike = _query(
        archive_server,
        tmp_path,
        {CHARACTER_SET: stated, ADDITIONAL_HISTORY: ("LT", b"")},
    )
    asked_in_utf_8 = _query(
        archive_server,
        tmp_path,
        {CHARACTER_SET: ("CS", b"ISO_IR 192"), ADDITIONAL_HISTORY: ("LT", b"")},
    )

    assert [one[ADDITIONAL_HISTORY].rstrip(b" ") for one in asked_alike] == [encoded]
    assert [one[ADDITIONAL_HISTORY].decode().rstrip(" ") for one in asked_in_utf_8] == [text]


@pytest.mark.parametrize("name", [b"M\xfcller", b"Doe"])
def test_instance_with_an_unknown_character_set_is_stored_and_found(
    archive_server: RunningArchive, tmp_path: Path, name: bytes
) -> None:
    stated = ("CS", b"ISO_IR 999\\KLINGON")
    _store(archive_server, tmp_path, {CHARACTER_SET: stated, PATIENT_NAME: ("PN", name)})

    (found,) = _query(archive_server, tmp_path, {PATIENT_NAME: ("PN", name[:1] + b"*")})

    assert found[PATIENT_NAME].rstrip(b" ").decode() == name.decode("latin-1")
    assert found.get(CHARACTER_SET) == (None if name.isascii() else b"ISO_IR 192")


def test_text_in_an_unknown_character_set_is_refused_and_ascii_is_not(
    archive_server: RunningArchive, tmp_path: Path
) -> None:
    # PS3.4 C.4.1.1.3.1: what the set is cannot be known, so neither what the key means.
    _store(archive_server, tmp_path, {PATIENT_NAME: ("PN", b"Doe")})
    stated = ("CS", b"KLINGON")

    found = _query(archive_server, tmp_path, {CHARACTER_SET: stated, PATIENT_NAME: ("PN", b"D*")})
    refused = _query(
        archive_server, tmp_path, {CHARACTER_SET: stated, PATIENT_NAME: ("PN", b"D\xfc*")}
    )

    assert len(found) == 1
    assert not refused
    shown = _run("findscu", archive_server, "-S", "-d", tmp_path / "query.dcm")
    assert "A900" in shown.upper()
    assert "(0008,0005)" in shown
