"""Data sets that were cut off: seen at every byte, in every encoding."""

from __future__ import annotations

import io
import zlib
from itertools import accumulate
from struct import pack

import pytest

from pacs.dicom.encoding.completeness import check_complete, read_whole
from pacs.dicom.encoding.plain_elements import value_of
from pacs.errors import IncompleteInstance, InvalidInstance

IMPLICIT, EXPLICIT, BIG = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
)
DEFLATED, JPEG, RLE = (
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.5",
)
UNDEFINED = 0xFFFFFFFF
LONG = {"OB", "OW", "SQ", "UN", "UT"}
OFFSET = 5


def element(
    syntax: str, tag: int, vr: str, value: bytes = b"", *, length: int | None = None
) -> bytes:
    length = len(value) if length is None else length
    order = ">" if syntax == BIG else "<"
    head = pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + pack("<L", length) + value
    head += vr.encode()
    return head + pack(order + ("HL" if vr in LONG else "H"), *([0] * (vr in LONG)), length) + value


def marker(syntax: str, number: int, length: int = 0) -> bytes:
    return pack((">" if syntax == BIG else "<") + "HHL", 0xFFFE, number, length)


def item(syntax: str, content: bytes, *, is_defined: bool = True) -> bytes:
    if is_defined:
        return marker(syntax, 0xE000, len(content)) + content
    return marker(syntax, 0xE000, UNDEFINED) + content + marker(syntax, 0xE00D)


def sequence(syntax: str, tag: int, items: bytes, vr: str = "SQ") -> bytes:
    return element(syntax, tag, vr, items, length=UNDEFINED) + marker(syntax, 0xE0DD)


def parts(syntax: str) -> list[bytes]:
    """The elements of a data set that has one of everything."""

    def one(tag: int, vr: str, value: bytes) -> bytes:
        return element(syntax, tag, vr, value)

    text = one(0x00080060, "CS", b"CT")
    icon = item(syntax, one(0x7FE00010, "OW", b"\x00\x20" * 8), is_defined=False)
    nested = item(syntax, sequence(syntax, 0x00081140, item(syntax, text)), is_defined=False)
    return [
        one(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.7\0"),
        one(0x00080018, "UI", b"1.2.3\0"),
        text,
        one(0x00081140, "SQ", item(syntax, text) + item(syntax, text, is_defined=False)),
        sequence(syntax, 0x00081199, nested + item(syntax, b"", is_defined=False)),
        one(0x00091010, "UN", b"private "),
        one(0x00280008, "IS", b"2 "),
        one(0x00880200, "SQ", icon),
    ]


def encapsulated(*fragments: bytes, table: bytes = b"") -> bytes:
    items = b"".join(item(EXPLICIT, one) for one in (table, *fragments))
    return sequence(EXPLICIT, 0x7FE00010, items, vr="OB")


def check(data_set: bytes, syntax: str) -> str | None:
    return check_complete(io.BytesIO(b"\xff" * OFFSET + data_set), syntax, OFFSET)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_data_set_cut_at_any_byte_but_between_two_elements_is_incomplete(syntax: str) -> None:
    whole = [*parts(syntax), element(syntax, 0x7FE00010, "OW", b"\0" * 40)]
    data_set = b"".join(whole)
    between = {0, *accumulate(len(one) for one in whole)}

    for size in range(len(data_set) + 1):
        if size in between:
            assert check(data_set[:size], syntax) is None
        else:
            with pytest.raises(IncompleteInstance):
                check(data_set[:size], syntax)


def test_deflated_data_set_is_walked_where_elements_are_looked_behind() -> None:
    first = element(EXPLICIT, 0x00080060, "CS", b"CT")
    elements = b"".join(element(EXPLICIT, 0x00091000 + one, "LO", b"") for one in range(10_000))
    content = item(EXPLICIT, first + elements.replace(b"LO", b"\0\0"), is_defined=False)
    data_set = first + sequence(EXPLICIT, 0x00081140, content)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)

    assert check(data_set, EXPLICIT) is None
    assert check(deflater.compress(data_set) + deflater.flush(), DEFLATED) is None


def test_deflated_data_set_cut_at_any_byte_is_incomplete() -> None:
    data_set = b"".join(parts(EXPLICIT)) + element(EXPLICIT, 0x7FE00010, "OW", bytes(range(200)))
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = deflater.compress(data_set) + deflater.flush()

    assert check(deflated, DEFLATED) is None
    assert check(deflated + b"\0", DEFLATED) is None
    for size in range(len(deflated)):
        with pytest.raises(IncompleteInstance):
            check(deflated[:size], DEFLATED)


@pytest.mark.parametrize(
    ("syntax", "fragments", "is_kept"),
    [
        pytest.param(JPEG, (b"one\xff\xd9\0", b"two\xff\xd9\0"), True, id="JPEG"),
        pytest.param(JPEG, (b"one\xff\xd9\0", b"two two "), False, id="JPEG without its end"),
        pytest.param(JPEG, (b"one\xff\xd9\0",), False, id="JPEG, one of two frames"),
        pytest.param(RLE, (b"one ", b"two "), True, id="RLE"),
        pytest.param(RLE, (b"one ",), False, id="RLE, one of two frames"),
        pytest.param(JPEG, (), False, id="no fragment"),
    ],
)
def test_encapsulated_cut_at_any_byte_is_incomplete_but_for_its_delimiter(
    syntax: str, fragments: tuple[bytes, ...], is_kept: bool
) -> None:
    header = b"".join(parts(EXPLICIT))
    data_set = header + encapsulated(*fragments)
    assert check(data_set, syntax) is None

    for size in range(len(header) + 1, len(data_set)):
        if is_kept and size == len(data_set) - 8:
            assert check(data_set[:size], syntax) == "PixelData (7FE0,0010) lacks its delimiter"
        else:
            with pytest.raises(IncompleteInstance):
                check(data_set[:size], syntax)


@pytest.mark.parametrize(
    ("syntax", "data_set", "comment"),
    [
        pytest.param(
            EXPLICIT,
            element(EXPLICIT, 0x7FE00010, "OW", b"\7" * 10, length=100),
            "PixelData (7FE0,0010) lacks 90 of 100 bytes",
            id="long length",
        ),
        pytest.param(
            EXPLICIT,
            element(EXPLICIT, 0x00104000, "LT", b"text", length=0xFFFE),
            "PatientComments (0010,4000) lacks 65530 of 65534 bytes",
            id="short length",
        ),
        pytest.param(
            IMPLICIT,
            element(IMPLICIT, 0x7FE00010, "OW", b"\7" * 10, length=0xFFFFFFFE),
            "PixelData (7FE0,0010) lacks 4294967284 of 4294967294 bytes",
            id="4 GiB",
        ),
        pytest.param(
            EXPLICIT,
            element(EXPLICIT, 0x00081140, "SQ", item(EXPLICIT, b""), length=50),
            "ReferencedImageSequence (0008,1140) lacks 42 of 50 bytes",
            id="sequence",
        ),
        pytest.param(
            EXPLICIT,
            element(EXPLICIT, 0x00081140, "SQ", item(EXPLICIT, b""), length=UNDEFINED),
            "ReferencedImageSequence (0008,1140) lacks its end",
            id="sequence without delimiter",
        ),
        pytest.param(
            EXPLICIT,
            encapsulated(b"abcd")[:-10],
            "PixelData (7FE0,0010) lacks 2 bytes and its end",
            id="fragment",
        ),
        pytest.param(
            EXPLICIT,
            element(EXPLICIT, 0x00080060, "CS", b"CT") + b"\x10\x00\x10\x00PN",
            "PatientName (0010,0010) is cut within its header",
            id="header",
        ),
        pytest.param(
            EXPLICIT,
            element(EXPLICIT, 0x00091010, "UN", marker(EXPLICIT, 0xE000), length=UNDEFINED),
            "(0009,1010) lacks its end",
            id="UN",
        ),
    ],
)
def test_incomplete_data_set_is_refused_with_what_it_lacks(
    syntax: str, data_set: bytes, comment: str
) -> None:
    with pytest.raises(IncompleteInstance) as refused:
        check(data_set, syntax)

    assert refused.value.message == comment


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
@pytest.mark.parametrize("filler", [b"\0", b" ", b"\xff"])
@pytest.mark.parametrize("size", [2, 7, 8, 13, 100_000])
def test_data_set_that_is_filled_up_is_complete(syntax: str, filler: bytes, size: int) -> None:
    assert check(b"".join(parts(syntax)) + filler * size, syntax) is None


def test_pixel_data_of_odd_length_with_a_byte_more_is_complete() -> None:
    pixels = element(EXPLICIT, 0x7FE00010, "OB", b"\7" * 9)

    assert check(pixels + b"\0", EXPLICIT) is None


def test_nested_deep_and_cut_off_is_incomplete() -> None:
    level = element(EXPLICIT, 0x00081140, "SQ", length=UNDEFINED) + marker(
        EXPLICIT, 0xE000, UNDEFINED
    )
    ends = marker(EXPLICIT, 0xE00D) + marker(EXPLICIT, 0xE0DD)

    assert check(level * 20_000 + ends * 20_000, EXPLICIT) is None
    with pytest.raises(IncompleteInstance):
        check(level * 20_000 + ends * 19_999, EXPLICIT)


def test_functional_groups_of_20000_frames_are_walked() -> None:
    inner = sequence(EXPLICIT, 0x00209113, item(EXPLICIT, b"", is_defined=False))
    groups = item(EXPLICIT, inner * 7, is_defined=False) * 20_000
    data_set = sequence(EXPLICIT, 0x52009230, groups)

    assert check(data_set, EXPLICIT) is None


def test_more_elements_than_any_instance_has_are_refused() -> None:
    data_set = sequence(EXPLICIT, 0x52009230, item(EXPLICIT, b"") * 50_000)

    with pytest.raises(InvalidInstance, match="has over 1000 elements"):
        check_complete(io.BytesIO(data_set), EXPLICIT, 0, most_passed=1_000)


@pytest.mark.parametrize("length", [0x4F4C, 0x5455, 0x5A5A, 0x00045455])
def test_item_in_implicit_vr_whose_first_length_spells_a_vr_is_read(length: int) -> None:
    # "LO", "UT", "ZZ" and, beside "UT", the 4 of a short explicit length.
    track = element(IMPLICIT, 0x00660016, "OF", b"\1" * length)
    inner = sequence(IMPLICIT, 0x00660102, item(IMPLICIT, track, is_defined=False))
    tracts = sequence(IMPLICIT, 0x00660101, item(IMPLICIT, inner, is_defined=False))
    uid = element(IMPLICIT, 0x00080018, "UI", b"1.2.3\0")

    assert check(uid + tracts, IMPLICIT) is None


@pytest.mark.parametrize("tag", [0x00660016, 0x00091010], ids=["standard", "private"])
@pytest.mark.parametrize("length", [0x4F4C, 0x5455])
def test_item_within_un_whose_first_length_spells_a_vr_is_read(tag: int, length: int) -> None:
    first = element(IMPLICIT, tag, "UN", b"\1" * length)
    second = element(IMPLICIT, tag + 1, "UN", b"ab")
    content = item(IMPLICIT, first + second, is_defined=False)

    assert check(sequence(EXPLICIT, 0x00091001, content, vr="UN"), EXPLICIT) is None


@pytest.mark.parametrize("vr", [b"  ", b"\0\0", b"??", b"pn", b"ZZ"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", [b"Doe^Jane", b""])
def test_element_with_a_vr_that_is_none_does_not_end_reading(
    vr: bytes, order: str, value: bytes
) -> None:
    syntax = EXPLICIT if order == "<" else BIG
    name = pack(order + "HH", 0x0010, 0x0010) + vr + pack(order + "H", len(value)) + value
    patient_id = element(syntax, 0x00100020, "LO", b"P1")
    before = element(syntax, 0x00080060, "CS", b"CT")

    elements, lacking = read_whole(
        io.BytesIO(before + name + patient_id), syntax, 0, {0x00100010, 0x00100020}
    )

    found = {tag: value_of(one) for tag, one in elements.items()}
    assert found == {0x00100010: value, 0x00100020: b"P1"}
    assert lacking is None


@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED])
@pytest.mark.parametrize("size", [0x80000, 0x42020, 70_000])
def test_implicit_element_within_explicit_vr_is_read(syntax: str, size: int) -> None:
    # 0x80000 bytes look like a VR of two NUL and 8 bytes, 0x42020 like a blank one and 4.
    pixels = element(IMPLICIT, 0x7FE00010, "OW", b"\xfe" * size)
    data_set = element(EXPLICIT, 0x00100020, "LO", b"P1") + pixels
    if syntax == DEFLATED:
        deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        data_set = deflater.compress(data_set) + deflater.flush()

    elements, _ = read_whole(io.BytesIO(data_set), syntax, 0, {0x00100020})

    assert value_of(elements[0x00100020]) == b"P1"


def test_element_without_vr_that_leads_nowhere_is_refused_by_its_name() -> None:
    series = pack("<HH", 0x0020, 0x000E) + b"??\xf0\x20" + b"1.2.3.4."
    rest = element(EXPLICIT, 0x00200013, "IS", b"1 ")

    with pytest.raises(
        InvalidInstance, match=r"SeriesInstanceUID \(0020,000E\) has an unreadable VR"
    ):
        check(element(EXPLICIT, 0x00080060, "CS", b"CT") + series + rest, EXPLICIT)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
@pytest.mark.parametrize("number", [0xE00D, 0xE0DD])
@pytest.mark.parametrize("where", [0, 1, 3])
def test_stray_delimiter_does_not_end_reading(syntax: str, number: int, where: int) -> None:
    elements = [
        element(syntax, 0x00080060, "CS", b"CT"),
        element(syntax, 0x00100020, "LO", b"P1"),
        element(syntax, 0x0020000E, "UI", b"1.2.3\0"),
    ]
    elements.insert(where, marker(syntax, number))

    found, lacking = read_whole(
        io.BytesIO(b"".join(elements)), syntax, 0, {0x00080060, 0x00100020, 0x0020000E}
    )

    assert [value_of(found[tag]) for tag in sorted(found)] == [b"CT", b"P1", b"1.2.3\0"]
    assert lacking is None


@pytest.mark.parametrize("syntax", [EXPLICIT, JPEG])
def test_patient_behind_pixel_data_is_found(syntax: str) -> None:
    native = element(EXPLICIT, 0x7FE00010, "OW", bytes(20_000))
    pixels = encapsulated(b"a" * 20_000, b"bb") if syntax == JPEG else native
    patient = element(EXPLICIT, 0x00100020, "LO", b"LATE")

    elements, _ = read_whole(
        io.BytesIO(element(EXPLICIT, 0x00080060, "CS", b"CT") + pixels + patient),
        syntax,
        0,
        {0x00100020},
    )

    assert value_of(elements[0x00100020]) == b"LATE"
