"""Data sets in another uncompressed encoding: the headers change, the values are the bytes that were there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from struct import pack

import pytest
from pydicom import dcmread
from pydicom.data import data_manager
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from pacs.dicom.encoding.element_encoding import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Encoding,
)
from pacs.dicom.encoding.layout import inflated
from pacs.dicom.encoding.part10 import file_meta, read_file_meta
from pacs.dicom.encoding.pieces import Range, Swapped, open_pieces, total_size
from pacs.dicom.encoding.reencoding import reencoded
from pacs.errors import InvalidInstance, PacsError

EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
TARGETS: dict[str, Encoding] = {
    EXPLICIT: EXPLICIT_LITTLE,
    IMPLICIT: IMPLICIT_LITTLE,
    BIG: EXPLICIT_BIG,
}
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = (
    pack("<HHL", 0xFFFE, number, length)
    for number, length in ((0xE000, UNDEFINED), (0xE00D, 0), (0xE0DD, 0))
)
#: What pydicom ships and cannot be told in another encoding: it is cut off.
CUT_OFF = {"rtplan_truncated.dcm", "MR_truncated.dcm", "DICOMDIR-nooffset"}


def explicit(tag: int, vr: str, value: bytes, length: int | None = None, order: str = "<") -> bytes:
    """An element of explicit VR."""
    size = len(value) if length is None else length
    head = pack(f"{order}HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    is_long = vr in ("OB", "OD", "OF", "OL", "OW", "OV", "SQ", "UC", "UN", "UR", "UT", "SV", "UV")
    return head + (pack(f"{order}HL", 0, size) if is_long else pack(f"{order}H", size)) + value


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    """An element of implicit VR."""
    return pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(content: bytes) -> bytes:
    """An Item of defined length."""
    return pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def converted(data: bytes, source: str, target: str) -> bytes:
    """The data set in another transfer syntax."""
    stream, syntax, offset = inflated(BytesIO(data), source, 0)
    pieces = reencoded(stream, syntax, offset, TARGETS[target])
    with open_pieces(stream, pieces) as opened:
        result = opened.read()
    assert len(result) == total_size(pieces)
    return result


# Against pydicom


def _shipped() -> Iterator[tuple[Path, str, bytes]]:
    for path in sorted((Path(data_manager.DATA_ROOT) / "test_files").rglob("*")):
        if not path.is_file() or path.name in CUT_OFF:
            continue
        content = path.read_bytes()
        try:
            meta = read_file_meta(BytesIO(content))
        except PacsError:
            continue
        if meta.transfer_syntax_uid in (*TARGETS, DEFLATED):
            yield path, meta.transfer_syntax_uid, content[meta.data_set_offset :]


def _read(data: bytes, syntax: str) -> Dataset:
    return dcmread(BytesIO(file_meta("1.2", "1.3", syntax, source_ae="") + data))


def _differences(one: Dataset, other: Dataset, path: str = "") -> list[str]:
    # Group Lengths go. Values are compared as bytes where pydicom has not looked at them yet.
    tags = {tag for tag in one.keys() | other.keys() if tag.element}
    found = [f"{path}{tag} is missing" for tag in tags if (tag in one) != (tag in other)]
    for tag in tags & one.keys() & other.keys():
        raw = one.get_item(tag), other.get_item(tag)
        if all(isinstance(element, RawDataElement) for element in raw):
            same = (raw[0].value or b"") == (raw[1].value or b"")
            is_sequence = "SQ" in {one[tag].VR, other[tag].VR}
            if not is_sequence:
                found += [] if same else [f"{path}{tag} is not the same bytes"]
                continue
        left, right = one[tag], other[tag]
        if left.VR == "SQ" and right.VR == "SQ" and len(left.value) == len(right.value):
            for number, (first, second) in enumerate(zip(left.value, right.value, strict=True)):
                found += _differences(first, second, f"{path}{tag}[{number}].")
        elif repr(left.value) != repr(right.value) and (left.value or right.value):
            found.append(f"{path}{left} became {right}")
    return found


@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT])
def test_values_of_every_uncompressed_file_that_pydicom_ships_are_equal(target: str) -> None:
    compared = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom finds much to say of these files
        for path, syntax, data in _shipped():
            if syntax == BIG:
                continue
            try:
                original = _read(data, syntax)
            except InvalidDicomError:
                continue
            changed = _differences(original, _read(converted(data, syntax, target), target))
            assert not changed, (path.name, syntax, changed)
            compared += 1
    assert compared > 60


def test_every_uncompressed_file_that_pydicom_ships_comes_back_from_big_endian() -> None:
    compared = 0
    for path, syntax, data in _shipped():
        there = converted(data, syntax, BIG)
        # As it was written at first, in explicit VR little endian.
        expected = converted(data, syntax, EXPLICIT)
        assert converted(there, BIG, EXPLICIT) == expected, path.name
        assert syntax != EXPLICIT or there != data, path.name
        compared += 1
    assert compared > 60


def test_big_endian_file_has_the_values_of_its_little_endian_twin() -> None:
    folder = Path(data_manager.DATA_ROOT) / "test_files"
    twins = {}
    for name in ("MR_small.dcm", "MR_small_bigendian.dcm"):
        content = (folder / name).read_bytes()
        meta = read_file_meta(BytesIO(content))
        data = content[meta.data_set_offset :]
        twins[name] = converted(data, meta.transfer_syntax_uid, EXPLICIT)
    little, big = (_read(data, EXPLICIT) for data in twins.values())
    for twin in (little, big):
        twin.remove_private_tags()
        twin.pop(0xFFFCFFFC, None)  # only one has padding

    changed = _differences(little, big)

    assert little.PixelData == big.PixelData
    assert not changed


# Bytes


@pytest.mark.parametrize(
    ("character_set", "tag", "vr", "value"),
    [
        ("ISO_IR 192", 0x00081030, "LO", b"Sch\xe4del"),
        ("ISO_IR 13", 0x00100010, "PN", "山田^太郎".encode("shift_jis")),
        ("ISO 2022 IR 87", 0x00100010, "PN", b"\x1b$B;3ED\x1b(B^\x1b$BB@O:"),
        ("no such set", 0x00102000, "LO", b"\xff\xfe\x80\x1b\\\x00"),
    ],
)
@pytest.mark.parametrize("source", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, BIG])
def test_text_is_copied_whatever_its_character_set(
    character_set: str, tag: int, vr: str, value: bytes, source: str, target: str
) -> None:
    elements = [(0x00080005, "CS", character_set.encode()), (tag, vr, value)]
    if source == EXPLICIT:
        data = b"".join(explicit(*one) for one in elements)
    else:
        data = b"".join(implicit(one[0], one[2]) for one in elements)

    result = converted(data, source, target)

    order = ">" if target == BIG else "<"
    assert result == b"".join(
        implicit(one[0], one[2]) if target == IMPLICIT else explicit(*one, order=order)
        for one in elements
    )


@pytest.mark.parametrize(
    ("vr", "little", "big"),
    [
        ("US", "0102 0304", "0201 0403"),
        ("SS", "0102", "0201"),
        ("AT", "0800 1600", "0008 0016"),
        ("UL", "01020304 05060708", "04030201 08070605"),
        ("SL", "01020304", "04030201"),
        ("FL", "01020304", "04030201"),
        ("FD", "0102030405060708", "0807060504030201"),
        ("OW", "0102 0304", "0201 0403"),
        ("OF", "01020304", "04030201"),
        ("OL", "01020304", "04030201"),
        ("OD", "0102030405060708", "0807060504030201"),
        ("OV", "0102030405060708", "0807060504030201"),
        ("SV", "0102030405060708", "0807060504030201"),
        ("UV", "0102030405060708", "0807060504030201"),
        ("OB", "0102 0304", "0102 0304"),
        ("UN", "0102 0304", "0102 0304"),
        ("LO", "0102 0304", "0102 0304"),
    ],
)
@pytest.mark.parametrize("copies", [1, 3000])
def test_numbers_are_swapped_by_the_unit_of_their_vr(
    vr: str, little: str, big: str, copies: int
) -> None:
    # Long values of short VRs do not fit, which the next test is about.
    copies = min(copies, 60_000 // len(bytes.fromhex(little)))
    tag = 0x00091010
    here = explicit(tag, vr, bytes.fromhex(little) * copies)
    there = explicit(tag, vr, bytes.fromhex(big) * copies, order=">")

    assert converted(here, EXPLICIT, BIG) == there
    assert converted(there, BIG, EXPLICIT) == here


def test_value_that_a_short_length_cannot_tell_becomes_un() -> None:
    value = b"A" * 70_000
    data = implicit(0x00104000, b"short ") + implicit(0x00104010, value)

    assert converted(data, IMPLICIT, EXPLICIT) == (
        explicit(0x00104000, "LT", b"short ") + explicit(0x00104010, "UN", value)
    )


def test_numbers_that_become_un_stay_little_endian() -> None:
    value = bytes(range(256)) * 300
    data = implicit(0x00280103, b"\0\0") + implicit(0x00189810, value)

    assert converted(data, IMPLICIT, BIG) == (
        explicit(0x00280103, "US", b"\0\0", order=">")
        + explicit(0x00189810, "UN", value, order=">")
    )


@pytest.mark.parametrize(("representation", "vr"), [(0, "US"), (1, "SS")])
def test_us_or_ss_follows_from_pixel_representation_even_behind_it(
    representation: int, vr: str
) -> None:
    inner = implicit(0x00280106, b"\1\0")
    data = (
        implicit(0x00189810, b"\1\0")
        + implicit(0x00280103, pack("<H", representation))
        + implicit(0x00280106, b"\1\0")
        + implicit(0x00283010, item(inner))
    )

    result = converted(data, IMPLICIT, EXPLICIT)

    assert result == (
        explicit(0x00189810, vr, b"\1\0")
        + explicit(0x00280103, "US", pack("<H", representation))
        + explicit(0x00280106, vr, b"\1\0")
        + explicit(0x00283010, "SQ", item(explicit(0x00280106, vr, b"\1\0")))
    )


def test_private_elements_have_the_vendors_vr_where_it_can_be_and_un_elsewhere() -> None:
    creator = b"SIEMENS MED NM"  # (0009,xx80) is LO in the private dictionary
    data = (
        implicit(0x00090010, creator)
        + implicit(0x00091080, b"1.2.3\0")
        + implicit(0x000910FE, b"\1\2")
        + implicit(0x000B1080, b"1.2.3\0")
    )

    assert converted(data, IMPLICIT, EXPLICIT) == (
        explicit(0x00090010, "LO", creator)
        + explicit(0x00091080, "LO", b"1.2.3\0")
        + explicit(0x000910FE, "UN", b"\1\2")
        + explicit(0x000B1080, "UN", b"1.2.3\0")
    )


def test_private_number_of_a_wrong_size_is_un() -> None:
    creator = b"SIEMENS MED SP DXMG WH AWS 1"
    data = implicit(0x00190010, creator) + implicit(0x00191001, b"\1\2\3\4\5\6")

    result = converted(data, IMPLICIT, EXPLICIT)

    # UL in the private dictionary, of which six bytes are none.
    assert result.endswith(explicit(0x00191001, "UN", b"\1\2\3\4\5\6"))


# Sequences


def test_sequences_keep_their_form_with_the_lengths_of_the_new_encoding() -> None:
    inner = explicit(0x00080100, "SH", b"C1"), explicit(0x00080104, "LO", b"One ")
    nested = explicit(0x0040A168, "SQ", item(b"".join(inner)))
    data = (
        explicit(0x0040A730, "SQ", item(nested) + item(b""))
        + explicit(0x00400555, "SQ", ITEM + nested + ITEM_END + SEQUENCE_END, UNDEFINED)
        + explicit(0x00401012, "SQ", b"")
    )
    implicit_inner = implicit(0x00080100, b"C1") + implicit(0x00080104, b"One ")
    implicit_nested = implicit(0x0040A168, item(implicit_inner))
    expected = (
        implicit(0x0040A730, item(implicit_nested) + item(b""))
        + implicit(0x00400555, ITEM + implicit_nested + ITEM_END + SEQUENCE_END, UNDEFINED)
        + implicit(0x00401012, b"")
    )

    assert converted(data, EXPLICIT, IMPLICIT) == expected
    assert converted(expected, IMPLICIT, EXPLICIT) == data


def test_group_lengths_go_at_every_level() -> None:
    data = (
        explicit(0x00080000, "UL", pack("<L", 99))
        + explicit(0x00080016, "UI", b"1.2\0")
        + explicit(
            0x00081140,
            "SQ",
            item(explicit(0x00080000, "UL", pack("<L", 9)) + explicit(0x00081150, "UI", b"1.2\0")),
        )
    )

    assert converted(data, EXPLICIT, IMPLICIT) == implicit(0x00080016, b"1.2\0") + implicit(
        0x00081140, item(implicit(0x00081150, b"1.2\0"))
    )


def test_un_of_undefined_length_is_implicit_inside_and_copied() -> None:
    content = ITEM + implicit(0x00100020, b"ID") + ITEM_END + SEQUENCE_END
    data = explicit(0x00091010, "UN", content, UNDEFINED) + explicit(0x00100040, "CS", b"F ")

    assert converted(data, EXPLICIT, IMPLICIT) == (
        implicit(0x00091010, content, UNDEFINED) + implicit(0x00100040, b"F ")
    )
    assert converted(data, EXPLICIT, EXPLICIT) == data


def test_un_of_undefined_length_that_is_explicit_inside_by_habit_becomes_implicit() -> None:
    content = ITEM + explicit(0x00100020, "LO", b"ID") + ITEM_END + SEQUENCE_END
    data = explicit(0x00091010, "UN", content, UNDEFINED)

    assert converted(data, EXPLICIT, IMPLICIT) == implicit(
        0x00091010, ITEM + implicit(0x00100020, b"ID") + ITEM_END + SEQUENCE_END, UNDEFINED
    )


#: A Request Attributes Sequence as it is, in explicit and in implicit VR.
_CODE = explicit(0x00080100, "SH", b"C1"), implicit(0x00080100, b"C1")
_REQUEST = (
    explicit(0x00400007, "LO", b"Head") + explicit(0x00400008, "SQ", item(_CODE[0])),
    implicit(0x00400007, b"Head") + implicit(0x00400008, item(_CODE[1])),
)


@pytest.mark.parametrize(
    ("content", "becomes"),
    [
        pytest.param(item(_REQUEST[0]), item(_REQUEST[1]), id="explicit"),
        pytest.param(item(_REQUEST[1]), item(_REQUEST[1]), id="implicit"),
        pytest.param(
            ITEM + ITEM_END + ITEM + _REQUEST[0] + ITEM_END,
            ITEM + ITEM_END + ITEM + _REQUEST[1] + ITEM_END,
            id="explicit in the second Item",
        ),
        pytest.param(
            # Neither the VR of the dictionary (LO) nor what an implicit length could be.
            item(explicit(0x00400007, "SH", b"Head")),
            item(implicit(0x00400007, b"Head")),
            id="explicit with another VR",
        ),
        pytest.param(
            item(explicit(0x00400275, "UN", item(_REQUEST[0]))),
            item(implicit(0x00400275, item(_REQUEST[1]))),
            id="explicit, another one within",
        ),
        pytest.param(b"", b"", id="empty"),
        pytest.param(b"no Items", b"no Items", id="no sequence"),
    ],
)
def test_sequence_as_un_of_defined_length_is_implicit_inside_where_all_is_implicit(
    content: bytes, becomes: bytes
) -> None:
    data = explicit(0x00400275, "UN", content) + explicit(0x00400280, "ST", b"last")

    assert converted(data, EXPLICIT, IMPLICIT) == (
        implicit(0x00400275, becomes) + implicit(0x00400280, b"last")
    )
    assert converted(data, EXPLICIT, EXPLICIT) == data


def test_sequence_as_un_is_little_endian_in_big_endian_too() -> None:
    data = explicit(0x00400275, "UN", item(_REQUEST[0]))
    big = explicit(0x00400275, "UN", item(_REQUEST[0]), order=">")

    assert converted(data, EXPLICIT, BIG) == big
    assert converted(big, BIG, IMPLICIT) == implicit(0x00400275, item(_REQUEST[1]))


def test_private_sequence_as_un_is_converted_if_the_vendors_dictionary_knows_it() -> None:
    creator = explicit(0x00710010, "LO", b"AGFA-AG_HPState ")
    known, unknown = (
        explicit(tag, "UN", item(explicit(0x00100020, "LO", b"ID")))
        for tag in (0x00711018, 0x007110FE)
    )

    result = converted(creator + known + unknown, EXPLICIT, IMPLICIT)

    assert result == (
        implicit(0x00710010, b"AGFA-AG_HPState ")
        + implicit(0x00711018, item(implicit(0x00100020, b"ID")))
        + implicit(0x007110FE, item(explicit(0x00100020, "LO", b"ID")))
    )


def test_sequence_as_un_that_is_damaged_is_refused_by_name() -> None:
    data = explicit(0x00400275, "UN", item(explicit(0x00400007, "LO", b"Head")) + b"\0" * 8)

    with pytest.raises(InvalidInstance, match=r"^\(0040,0275\) contains .* in place of an Item"):
        converted(data, EXPLICIT, IMPLICIT)


# Icons

_FRAGMENTS = explicit(0x7FE00010, "OB", item(b"") + item(b"frames") + SEQUENCE_END, UNDEFINED)
_ICON = explicit(0x00280010, "US", b"\x40\0") + _FRAGMENTS


@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize(
    "icon",
    [
        explicit(0x00880200, "SQ", item(_ICON)),
        explicit(0x00880200, "SQ", ITEM + _ICON + ITEM_END + SEQUENCE_END, UNDEFINED),
        explicit(0x00880200, "UN", ITEM + _ICON + ITEM_END + SEQUENCE_END, UNDEFINED),
    ],
    ids=["defined", "undefined", "UN"],
)
def test_icon_in_fragments_is_left_out_and_told_of(icon: bytes, target: str) -> None:
    before, after = explicit(0x00100020, "LO", b"ID"), explicit(0x20500020, "CS", b"IDENTITY")
    within = explicit(0x0040A730, "SQ", item(before + icon)) + after
    without = before + after, explicit(0x0040A730, "SQ", item(before)) + after
    told: list[int] = []

    for data in (before + icon + after, within):
        left = without[data is within]
        pieces = reencoded(BytesIO(data), EXPLICIT, 0, TARGETS[target], leaves_out=told.append)
        with open_pieces(BytesIO(data), pieces) as opened:
            assert opened.read() == converted(left, EXPLICIT, target)

    assert told == [0x00880200, 0x00880200]


def test_icon_without_fragments_stays() -> None:
    data = explicit(
        0x00880200, "SQ", item(b"") + item(explicit(0x7FE00010, "OW", bytes(8))) + item(b"")
    )

    assert converted(data, EXPLICIT, IMPLICIT) == implicit(
        0x00880200, item(b"") + item(implicit(0x7FE00010, bytes(8))) + item(b"")
    )


def test_other_sequence_with_fragments_is_refused_by_its_name() -> None:
    data = explicit(0x0040A730, "SQ", item(_FRAGMENTS))

    with pytest.raises(InvalidInstance, match=r"^\(0040,A730\) has \(7FE0,0010\) in fragments"):
        converted(data, EXPLICIT, IMPLICIT)


def test_sequences_a_thousand_deep_cost_no_stack() -> None:
    data, expected = b"", b""
    for _ in range(1500):
        data = explicit(0x0040A730, "SQ", ITEM + data + ITEM_END + SEQUENCE_END, UNDEFINED)
        expected = implicit(0x0040A730, ITEM + expected + ITEM_END + SEQUENCE_END, UNDEFINED)

    assert converted(data, EXPLICIT, IMPLICIT) == expected


# Bounds


def test_long_values_stay_in_the_source() -> None:
    pixels = bytes(1 << 20)
    data = explicit(0x00100020, "LO", b"ID") + explicit(0x7FE00010, "OW", pixels)

    same = reencoded(BytesIO(data), EXPLICIT, 0, IMPLICIT_LITTLE)
    turned = reencoded(BytesIO(data), EXPLICIT, 0, EXPLICIT_BIG)

    assert [type(piece) for piece in same[1:]] == [Range]
    assert [type(piece) for piece in turned[1:]] == [Swapped]
    assert same[0].size + turned[0].size < 100
    assert same[1].size == turned[1].size == len(pixels)


def test_swapped_bytes_are_the_same_from_any_position() -> None:
    source = BytesIO(bytes(range(200)) + b"end")
    piece = Swapped(3, 200, 8)
    whole = piece.read(source, 0, 200)

    for position in range(0, 200, 7):
        for size in (1, 2, 8, 13, 300):
            assert piece.read(source, position, size) == whole[position : position + size]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (explicit(0x7FE00010, "OW", bytes(10), 4096), r"\(7FE0,0010\) lacks 4086 of 4096 bytes"),
        (explicit(0x0040A730, "SQ", item(explicit(0x00100020, "LO", b"ID", 40))), "lacks 38 of 40"),
        (explicit(0x0040A730, "SQ", pack("<HHL", 0xFFFE, 0xE000, 90)), "lacks 90 of 90"),
        (explicit(0x00100020, "LO", b"ID") + b"\x10\x00\x30", "ends within a tag"),
        (explicit(0x0040A730, "SQ", b"", UNDEFINED), r"ends within \(0040,A730\)"),
        (explicit(0x7FE00010, "OB", ITEM, UNDEFINED), "in fragments"),
        (explicit(0x0040A730, "SQ", b"\x10\x00\x20\x00\0\0\0\0"), "in place of an Item"),
        (item(explicit(0x00100020, "LO", b"ID")), "no Item or sequence begins or ends"),
        (
            explicit(0x0040A730, "SQ", item(SEQUENCE_END + explicit(0x00100020, "LO", b"ID"))),
            "no Item or sequence begins or ends",
        ),
    ],
)
def test_what_is_not_a_data_set_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidInstance, match=reason):
        converted(data, EXPLICIT, IMPLICIT)


@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("number", [0xE000, 0xE00D, 0xE0DD])
def test_stray_delimiter_of_the_top_level_goes(number: int, target: str) -> None:
    stray = pack("<HHL", 0xFFFE, number, 0)
    patient = explicit(0x00100020, "LO", b"ID")
    study = explicit(0x00200010, "SH", b"S1")

    for data in (stray + patient + study, patient + stray + study, patient + study + stray):
        assert converted(data, EXPLICIT, target) == converted(patient + study, EXPLICIT, target)
    data = implicit(0x00100020, b"ID") + stray + implicit(0x00200010, b"S1") + stray
    assert converted(data, IMPLICIT, target) == converted(patient + study, EXPLICIT, target)


def test_padding_behind_the_data_set_goes() -> None:
    data = explicit(0x00100020, "LO", b"ID")

    assert converted(data + bytes(30), EXPLICIT, IMPLICIT) == implicit(0x00100020, b"ID")


def test_the_walk_asks_whether_to_go_on() -> None:
    class Enough(Exception):
        pass

    asked: list[str] = []

    def check() -> None:
        asked.append("asked")
        if len(asked) == 3:
            raise Enough

    data = explicit(0x00100020, "LO", b"ID") * 10_000

    with pytest.raises(Enough):
        reencoded(BytesIO(data), EXPLICIT, 0, IMPLICIT_LITTLE, check=check)
    assert len(asked) == 3
