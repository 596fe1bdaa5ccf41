from __future__ import annotations

import io
import time
from struct import pack

import pytest
from pydicom.dataset import Dataset

from pacs.dicom.encoding.byte_source import StreamBytes
from pacs.dicom.encoding.element_encoding import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Encoding,
)
from pacs.dicom.encoding.element_headers import MAX_ELEMENTS
from pacs.dicom.encoding.element_reader import (
    MAX_DEPTH,
    MAX_SEQUENCE_BYTES,
    MAX_VALUE_BYTES,
    ElementReader,
)
from pacs.dicom.encoding.plain_elements import Elements, value_of
from pacs.errors import InvalidInstance

PATIENT_ID = 0x00100020
COMMENTS = 0x00104000
REQUESTS = 0x00400275
UNWANTED = 0x00081140
WANTED = frozenset({PATIENT_ID, COMMENTS, REQUESTS})
UNDEFINED = 0xFFFFFFFF
LONG = {"OB", "OW", "SQ", "UN", "UT", "ZZ"}


def explicit(
    tag: int, vr: str, value: bytes, *, order: str = "<", length: int | None = None
) -> bytes:
    length = len(value) if length is None else length
    head = pack(order + "HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    return head + pack(order + ("HL" if vr in LONG else "H"), *([0] * (vr in LONG)), length) + value


def implicit(tag: int, value: bytes, *, order: str = "<", length: int | None = None) -> bytes:
    length = len(value) if length is None else length
    return pack(order + "HHL", tag >> 16, tag & 0xFFFF, length) + value


def item(content: bytes, *, order: str = "<", is_undefined: bool = False) -> bytes:
    if not is_undefined:
        return implicit(0xFFFEE000, content, order=order)
    end = implicit(0xFFFEE00D, b"", order=order)
    return implicit(0xFFFEE000, content + end, order=order, length=UNDEFINED)


def undefined(tag: int, items: bytes, *, vr: str = "SQ", order: str = "<") -> bytes:
    end = implicit(0xFFFEE0DD, b"", order=order)
    return explicit(tag, vr, items + end, order=order, length=UNDEFINED)


def read(data_set: bytes, encoding: Encoding = EXPLICIT_LITTLE) -> Elements:
    reader = ElementReader(StreamBytes(io.BytesIO(data_set), 0))
    declared = EXPLICIT_BIG if encoding.is_big_endian else EXPLICIT_LITTLE
    return reader.wanted(reader.encoding_at(0, declared), WANTED, max(WANTED))


def values(elements: Elements) -> dict[int, object]:
    return {int(tag): value_of(element) for tag, element in elements.items()}


def items_of(elements: Elements, tag: int = REQUESTS) -> list[dict[int, object]]:
    sequence = values(elements)[tag]
    assert all(isinstance(one, Dataset) for one in sequence)
    return [{int(key): one.get_item(key).value for key in sorted(one.keys())} for one in sequence]


ID = explicit(PATIENT_ID, "LO", b"P-1 ")
STATION = explicit(0x00081010, "SH", b"CT01")


@pytest.mark.parametrize(
    ("data_set", "encoding"),
    [
        pytest.param(STATION + ID, EXPLICIT_LITTLE, id="explicit"),
        pytest.param(implicit(PATIENT_ID, b"P-1 "), IMPLICIT_LITTLE, id="implicit"),
        pytest.param(explicit(PATIENT_ID, "LO", b"P-1 ", order=">"), EXPLICIT_BIG, id="big endian"),
        pytest.param(implicit(PATIENT_ID, b"P-1 "), EXPLICIT_LITTLE, id="implicit, not declared"),
        pytest.param(STATION + ID, IMPLICIT_LITTLE, id="explicit, not declared"),
        pytest.param(STATION + implicit(PATIENT_ID, b"P-1 "), EXPLICIT_LITTLE, id="switches"),
        pytest.param(explicit(PATIENT_ID, "UN", b"P-1 "), EXPLICIT_LITTLE, id="UN"),
        pytest.param(explicit(UNWANTED, "ZZ", b"zz") + ID, EXPLICIT_LITTLE, id="unknown VR"),
        pytest.param(ID + bytes(7), EXPLICIT_LITTLE, id="padded with NUL"),
        pytest.param(ID + bytes(64), EXPLICIT_LITTLE, id="padded with many NUL"),
        pytest.param(explicit(COMMENTS, "LT", b"") + ID, EXPLICIT_LITTLE, id="unsorted"),
        pytest.param(explicit(PATIENT_ID, "LO", b"old ") + ID, EXPLICIT_LITTLE, id="twice"),
    ],
)
def test_wanted_element_is_found(data_set: bytes, encoding: Encoding) -> None:
    assert values(read(data_set, encoding))[PATIENT_ID] == b"P-1 "


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_undefined", [False, True], ids=["defined item", "undefined item"])
@pytest.mark.parametrize("vr", ["SQ", "OB", "OW"])
def test_unwanted_of_undefined_length_is_skipped(vr: str, is_undefined: bool, order: str) -> None:
    content = STATION if order == "<" else explicit(0x00081010, "SH", b"CT01", order=">")
    nested = undefined(UNWANTED, item(content, order=order, is_undefined=True), order=order)
    # Fragments of bulk data are Items of defined length that contain no elements.
    inner = nested if is_undefined else b"\xff" * 20
    skipped = undefined(
        UNWANTED, item(inner, order=order, is_undefined=is_undefined), vr=vr, order=order
    )
    wanted = explicit(PATIENT_ID, "LO", b"P-1 ", order=order)

    elements = read(skipped + wanted, EXPLICIT_LITTLE if order == "<" else EXPLICIT_BIG)

    assert values(elements) == {PATIENT_ID: b"P-1 "}


@pytest.mark.parametrize("content", [implicit(0x00081010, b"CT01"), STATION], ids=["rule", "habit"])
def test_unwanted_un_of_undefined_length_is_skipped(content: bytes) -> None:
    skipped = undefined(0x00091010, item(content, is_undefined=True), vr="UN")

    assert values(read(skipped + ID)) == {PATIENT_ID: b"P-1 "}


@pytest.mark.parametrize(
    "sequence",
    [
        pytest.param(explicit(REQUESTS, "SQ", item(ID) + item(b"")), id="defined"),
        pytest.param(
            undefined(REQUESTS, item(ID, is_undefined=True) + item(b"", is_undefined=True)),
            id="undefined",
        ),
        pytest.param(undefined(REQUESTS, item(ID) + item(b"")), id="mixed"),
        pytest.param(
            explicit(REQUESTS, "UN", item(implicit(PATIENT_ID, b"P-1 ")) + item(b"")), id="UN"
        ),
        pytest.param(
            undefined(REQUESTS, item(implicit(PATIENT_ID, b"P-1 ")) + item(b""), vr="UN"),
            id="UN, undefined",
        ),
        pytest.param(
            explicit(REQUESTS, "UN", item(ID) + item(b"")), id="UN with explicit VR within"
        ),
    ],
)
def test_wanted_sequence_gives_its_items(sequence: bytes) -> None:
    assert items_of(read(sequence)) == [{PATIENT_ID: b"P-1 "}, {}]


@pytest.mark.parametrize("tag", [REQUESTS, UNWANTED])
def test_un_in_big_endian_is_little_endian_within(tag: int) -> None:
    # PS3.5 6.2.2: UN of undefined length is in implicit VR little endian, whatever surrounds it.
    items = item(implicit(PATIENT_ID, b"P-1 "), is_undefined=True) + implicit(0xFFFEE0DD, b"")
    sequence = explicit(tag, "UN", b"", order=">", length=UNDEFINED) + items
    after = explicit(COMMENTS, "LT", b"ok", order=">")
    reader = ElementReader(StreamBytes(io.BytesIO(sequence + after), 0))

    elements = reader.wanted(EXPLICIT_BIG, WANTED, 0xFFFF0000)

    assert values(elements)[COMMENTS] == b"ok"
    if tag == REQUESTS:
        assert items_of(elements) == [{PATIENT_ID: b"P-1 "}]


def test_wanted_sequence_at_the_very_end_of_the_data_set_is_complete() -> None:
    assert items_of(read(ID + undefined(REQUESTS, item(ID)))) == [{PATIENT_ID: b"P-1 "}]


def test_wanted_sequence_nested_gives_nested_items() -> None:
    sequence = explicit(REQUESTS, "SQ", item(explicit(0x00400008, "SQ", item(ID))))

    elements = read(sequence)

    (outer,) = elements.values()
    assert outer.value[0].get_item(0x00400008).value[0].get_item(PATIENT_ID).value == b"P-1 "


@pytest.mark.parametrize(
    "element",
    [
        pytest.param(explicit(REQUESTS, "LO", b"text"), id="text for a sequence"),
        pytest.param(undefined(PATIENT_ID, item(b"ab"), vr="OB"), id="fragments for a text"),
        pytest.param(
            explicit(REQUESTS, "SQ", item(explicit(COMMENTS, "UT", b"x" * MAX_SEQUENCE_BYTES))),
            id="sequence too large",
        ),
        pytest.param(
            undefined(REQUESTS, item(explicit(COMMENTS, "UT", b"x" * MAX_SEQUENCE_BYTES))),
            id="sequence of undefined length too large",
        ),
        pytest.param(
            undefined(REQUESTS, item(b"") * (MAX_SEQUENCE_BYTES // 8 + 1)), id="too many items"
        ),
    ],
)
def test_wanted_element_of_no_use_is_left_out_and_reading_goes_on(element: bytes) -> None:
    after = explicit(COMMENTS, "LT", b"ok")
    wanted = frozenset({PATIENT_ID, COMMENTS, REQUESTS})
    reader = ElementReader(StreamBytes(io.BytesIO(element + after), 0))

    assert values(reader.wanted(EXPLICIT_LITTLE, wanted, 0xFFFF0000)) == {COMMENTS: b"ok"}


def test_wanted_value_too_long_is_cut() -> None:
    elements = read(explicit(COMMENTS, "UT", b"x" * (MAX_VALUE_BYTES + 10)) + STATION)

    assert values(elements) == {COMMENTS: b"x" * MAX_VALUE_BYTES}


def test_wanted_stops_at_the_first_tag_after_the_last() -> None:
    rest = explicit(0x7FE00010, "OW", b"", length=0xFFFFFFF0)

    assert values(read(ID + rest)) == {PATIENT_ID: b"P-1 "}


@pytest.mark.parametrize(
    "data_set",
    [
        pytest.param(explicit(PATIENT_ID, "LO", b"P-1", length=5), id="wanted value"),
        pytest.param(explicit(0x00081010, "SH", b"CT01", length=5), id="unwanted value"),
        pytest.param(explicit(UNWANTED, "OB", b"", length=0xFFFFFFFE), id="4 GiB"),
        pytest.param(explicit(REQUESTS, "SQ", b"", length=0xFFFFFFFE), id="4 GiB sequence"),
        pytest.param(ID[:7], id="header"),
        pytest.param(explicit(UNWANTED, "UT", b"")[:10], id="long header"),
        pytest.param(ID + ID[:5], id="second header"),
        pytest.param(undefined(UNWANTED, item(ID))[:-1], id="undefined length"),
        pytest.param(undefined(UNWANTED, item(ID))[:-8], id="sequence delimiter"),
        pytest.param(undefined(UNWANTED, item(ID, is_undefined=True)[:-8]), id="item delimiter"),
        pytest.param(undefined(REQUESTS, item(ID))[:-8], id="wanted, sequence delimiter"),
        pytest.param(explicit(REQUESTS, "SQ", item(ID), length=99), id="wanted sequence too long"),
        pytest.param(explicit(REQUESTS, "SQ", item(ID), length=10), id="sequence too short"),
        pytest.param(
            explicit(REQUESTS, "SQ", implicit(0xFFFEE000, ID, length=6)), id="item too short"
        ),
        pytest.param(undefined(UNWANTED, ID), id="element in place of an item"),
        pytest.param(undefined(REQUESTS, ID), id="wanted, element in place of an item"),
    ],
)
def test_wanted_damaged_data_set_is_invalid(data_set: bytes) -> None:
    with pytest.raises(InvalidInstance):
        read(data_set)


def nested(tag: int, depth: int) -> bytes:
    start = explicit(tag, "SQ", implicit(0xFFFEE000, b"", length=UNDEFINED), length=UNDEFINED)
    end = implicit(0xFFFEE00D, b"") + implicit(0xFFFEE0DD, b"")
    return start * depth + end * depth


def test_unwanted_nested_very_deep_is_skipped() -> None:
    assert values(read(nested(UNWANTED, 20_000) + ID)) == {PATIENT_ID: b"P-1 "}


def test_wanted_nested_too_deep_is_invalid() -> None:
    assert read(nested(REQUESTS, MAX_DEPTH))
    with pytest.raises(InvalidInstance, match="deep"):
        read(nested(REQUESTS, 20_000))


@pytest.mark.parametrize(
    "data_set",
    [
        pytest.param(explicit(UNWANTED, "SH", b"") * (MAX_ELEMENTS + 1), id="elements"),
        pytest.param(undefined(REQUESTS, item(b"") * (MAX_ELEMENTS + 1)), id="wanted items"),
    ],
)
def test_wanted_too_many_elements_is_invalid_in_bounded_time(data_set: bytes) -> None:
    started = time.process_time()

    with pytest.raises(InvalidInstance, match="more than 500000 elements"):
        read(data_set)

    assert time.process_time() - started < 20


class CountedStream(io.BytesIO):
    """Counts the bytes that are read from it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def test_whole_with_padding_between_elements_reads_each_byte_a_few_times_at_most() -> None:
    data_set = (explicit(PATIENT_ID, "LO", b"A ") + b"\0" * 8) * 10_000
    stream = CountedStream(data_set)

    found = ElementReader(StreamBytes(stream, 0)).whole(EXPLICIT_LITTLE, {PATIENT_ID})

    assert values(found) == {PATIENT_ID: b"A "}
    assert stream.count < 2 * len(data_set)


def test_whole_reads_on_behind_more_padding_than_one_read_takes() -> None:
    data_set = (
        explicit(PATIENT_ID, "LO", b"A ") + b"\0" * 1_000_000 + explicit(COMMENTS, "LT", b"B ")
    )

    found = ElementReader(StreamBytes(io.BytesIO(data_set), 0)).whole(EXPLICIT_LITTLE, {COMMENTS})

    assert values(found) == {COMMENTS: b"B "}


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(explicit(COMMENTS, "LT", b"")[:6], id="cut header"),
        pytest.param(explicit(COMMENTS, "##", b"", length=5000), id="unreadable VR"),
    ],
)
def test_gathered_minds_what_is_wrong_before_the_last_wanted_tag_and_not_behind(
    wrong: bytes,
) -> None:
    data_set = explicit(PATIENT_ID, "LO", b"A ") + explicit(0x00101010, "AS", b"030Y")

    def gathered(last: int) -> Elements:
        source = StreamBytes(io.BytesIO(data_set + wrong), 0)
        return ElementReader(source).gathered(EXPLICIT_LITTLE, {PATIENT_ID}, last)

    assert values(gathered(PATIENT_ID)) == {PATIENT_ID: b"A "}
    with pytest.raises(InvalidInstance):
        gathered(COMMENTS)


@pytest.mark.parametrize("padding", [b"", b"\0", b"  ", b"\0" * 11, b"\xff" * 5])
def test_find_ends_where_padding_does(padding: bytes) -> None:
    data_set = implicit(PATIENT_ID, b"A ") + padding
    reader = ElementReader(StreamBytes(io.BytesIO(data_set), 0))

    assert list(reader.find({COMMENTS}, 0, len(data_set), IMPLICIT_LITTLE)) == []


@pytest.mark.parametrize(
    ("element", "encoding"),
    [
        pytest.param(explicit(UNWANTED, "ZZ", b""), EXPLICIT_LITTLE, id="VR that is none"),
        pytest.param(undefined(UNWANTED, b"", vr="UN"), EXPLICIT_LITTLE, id="UN"),
        pytest.param(explicit(UNWANTED, "SH", b"", order=">"), EXPLICIT_BIG, id="big endian"),
    ],
)
def test_unwanted_elements_that_take_a_second_look_are_bounded_within_items_too(
    element: bytes, encoding: Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs.dicom.encoding.element_headers.MAX_ELEMENTS", 100)
    order = ">" if encoding.is_big_endian else "<"
    first = explicit(0x00080005, "CS", b"", order=order)

    def with_elements(number: int) -> bytes:
        content = item(first + element * number + first, order=order, is_undefined=True)
        return first + undefined(UNWANTED, content, order=order)

    assert read(with_elements(90), encoding) == {}
    with pytest.raises(InvalidInstance, match="more than 100 elements"):
        read(with_elements(110), encoding)


def test_unwanted_empty_items_are_passed_over_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    items = item(b"", is_undefined=True) * 100

    def refuse(*_: object) -> int:
        raise AssertionError("took a second look")

    monkeypatch.setattr(ElementReader, "_step_in_sequence", refuse)
    after = explicit(PATIENT_ID, "LO", b"A ")

    assert values(read(undefined(UNWANTED, items) + after)) == {PATIENT_ID: b"A "}
