from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import convert_encodings, encode_string

from pacs.dicom.text.character_sets import (
    can_encode,
    codecs_of,
    decode,
    defined_terms,
    encode,
    response_terms,
)
from pacs.dicom.text.code_elements import BY_TERM, CHARACTER_SETS

_NAMES = {
    "default": ((), "Doe^Jane"),
    "latin": (("ISO_IR 100",), "Äneas^Rüdiger"),
    "greek": (("ISO_IR 126",), "Διονυσιος"),
    "cyrillic": (("ISO_IR 144",), "Люкceмбypг"),  # noqa: RUF001 - a Russian name
    "japanese": (("ISO 2022 IR 6", "ISO 2022 IR 87"), "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "katakana": (("ISO 2022 IR 13", "ISO 2022 IR 87"), "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    "korean": (("", "ISO 2022 IR 149"), "Hong^Gildong=洪^吉洞=홍^길동"),
    "chinese": (("GB18030",), "Wang^XiaoDong=王^小东"),
    "utf-8": (("ISO_IR 192",), "Äneas^Διονυσιος=山田^太郎"),
}


@pytest.mark.parametrize(("terms", "name"), _NAMES.values(), ids=_NAMES.keys())
def test_decode_what_pydicom_writes_gives_the_name(terms: tuple[str, ...], name: str) -> None:
    codecs = convert_encodings(list(terms))
    encoded = b"=".join(
        b"^".join(encode_string(part, codecs) if part else b"" for part in group)
        for group in (group.split("^") for group in name.split("="))
    )

    assert can_encode(name, terms)
    assert decode(encoded, codecs_of(terms), is_name=True) == name


def test_decode_korean_escape_not_repeated_after_delimiter_still_decodes() -> None:
    encoded = b"\x1b$)C" + "홍^길동".encode("euc_kr")

    assert decode(encoded, codecs_of(("", "ISO 2022 IR 149")), is_name=True) == "홍^길동"


def test_decode_an_escape_at_the_head_of_a_line_holds_to_its_end() -> None:
    """PS3.5 Example I.3-1: Hangul and ASCII in one line, invoked once."""
    encoded = (
        b"\x1b$)CThe first line includes \xc7\xd1\xb1\xdb.\r\n"
        b"\x1b$)CThe second line includes \xc7\xd1\xb1\xdb, too.\r\nThe third line"
    )

    text = decode(encoded, codecs_of(("", "ISO 2022 IR 149")))

    assert text == (
        "The first line includes 한글.\r\nThe second line includes 한글, too.\r\nThe third line"
    )


def test_decode_single_byte_extension_ends_at_the_delimiter() -> None:
    greek = "Δ".encode("iso_ir_126")

    text = decode(b"\x1b-F" + greek + b"^\xe4", codecs_of(("ISO 2022 IR 100", "ISO 2022 IR 126")))
    name = decode(
        b"\x1b-F" + greek + b"^\xe4",
        codecs_of(("ISO 2022 IR 100", "ISO 2022 IR 126")),
        is_name=True,
    )

    assert text == "Δ^δ"
    assert name == "Δ^ä"


def test_decode_gb18030_second_byte_like_a_backslash_is_part_of_the_character() -> None:
    encoded = "誠".encode("gb18030")

    assert b"\\" in encoded
    assert decode(encoded, codecs_of(("GB18030",))) == "誠"


@given(st.binary(), st.sampled_from([terms for terms, _ in _NAMES.values()]), st.booleans())
def test_decode_any_bytes_give_a_text(value: bytes, terms: tuple[str, ...], is_name: bool) -> None:
    assert isinstance(decode(value, codecs_of(terms), is_name=is_name), str)


@pytest.mark.parametrize(
    ("values", "terms"),
    [
        ([], ()),
        ([""], ()),
        (["ISO_IR 100"], ("ISO_IR 100",)),
        (["ISO-IR 100"], ("ISO_IR 100",)),
        (["iso_ir_100 "], ("ISO_IR 100",)),
        (["UTF-8"], ("ISO_IR 192",)),
        (["", "ISO 2022 IR 87"], ("", "ISO 2022 IR 87")),
        (["ISO2022IR6", "ISO_2022_IR_87"], ("ISO 2022 IR 6", "ISO 2022 IR 87")),
        (["ISO_IR 192", "ISO 2022 IR 87"], ("ISO_IR 192",)),
        (["ISO 2022 IR 6", "GB18030"], ("ISO 2022 IR 6",)),
        (["KLINGON"], ()),
        (["KLINGON", "ISO 2022 IR 87"], ("", "ISO 2022 IR 87")),
    ],
)
def test_defined_terms_are_corrected_and_unknown_ones_dropped(
    values: list[str], terms: tuple[str, ...]
) -> None:
    assert defined_terms(values) == terms


@pytest.mark.parametrize(
    ("texts", "requested", "chosen"),
    [
        (["Doe"], ("ISO_IR 100",), ()),
        (["Doe", "Äneas"], ("ISO_IR 100",), ("ISO_IR 100",)),
        (["Äneas", "Διονυσιος"], ("ISO_IR 100",), ("ISO_IR 192",)),
        (["Äneas"], (), ("ISO_IR 192",)),
        (["山田"], ("ISO 2022 IR 6", "ISO 2022 IR 87"), ("ISO 2022 IR 6", "ISO 2022 IR 87")),
        (["山田 ä"], ("", "ISO 2022 IR 87"), ("ISO_IR 192",)),
        (["山田"], ("ISO_IR 13",), ("ISO_IR 192",)),
        (["小东"], ("", "ISO 2022 IR 58"), ("", "ISO 2022 IR 58")),
        (["1 €"], ("ISO_IR 203",), ("ISO_IR 192",)),
    ],
)
def test_response_terms_fall_back_to_utf_8_only_when_needed(
    texts: list[str], requested: tuple[str, ...], chosen: tuple[str, ...]
) -> None:
    assert response_terms(texts, requested) == chosen


_SETS = [
    *((one.defined_term,) for one in CHARACTER_SETS if one.defined_term),
    *(("", one.extension_term) for one in CHARACTER_SETS if one.extension_term),
    ("ISO 2022 IR 13", "ISO 2022 IR 87", "ISO 2022 IR 159"),
    ("ISO 2022 IR 100", "ISO 2022 IR 126", "ISO 2022 IR 149", "ISO 2022 IR 58"),
]


_RANGES = ((0xA0, 0x600), (0xE01, 0xE5C), (0x3041, 0x3100), (0x4E00, 0x4F00), (0xAC00, 0xAD00))
_CHARACTERS = [
    chr(code) for first, end in (*_RANGES, (0xFF61, 0xFFA0)) for code in range(first, end)
]


def _some_characters(terms: tuple[str, ...]) -> list[str]:
    return [character for character in _CHARACTERS if can_encode(character, terms)]


@pytest.mark.parametrize("terms", _SETS, ids=repr)
@pytest.mark.parametrize("kind", [{"is_name": True}, {}, {"is_one_value": True}], ids=repr)
def test_decode_reads_what_encode_writes(terms: tuple[str, ...], kind: dict[str, bool]) -> None:
    # Delimiters, the ends of lines and ASCII between characters of all sets (PS3.5 6.1.2.5.3).
    generator = random.Random(repr(terms))
    characters = _some_characters(terms) + [*"aZ 1^=\\", "\r\n"] * 10
    for _ in range(30):
        text = "".join(generator.choices(characters, k=12))

        encoded = encode(text, terms, **kind)

        assert encoded is not None
        assert decode(encoded, codecs_of(terms), **kind) == text


def test_defined_terms_are_those_of_the_standard() -> None:
    # PS3.3 Tables C.12-2 to C.12-5, by hand.
    single = {6, 100, 101, 109, 110, 144, 127, 126, 138, 148, 203, 13, 166}
    assert set(BY_TERM) == (
        {f"ISO_IR {number}" for number in single | {192}}
        | {f"ISO 2022 IR {number}" for number in single | {87, 159, 149, 58}}
        | {"GB18030", "GBK"}
    )


@pytest.mark.parametrize(
    ("value", "terms", "text"),
    [
        (b"\x1b$B;3ED", ("", "ISO 2022 IR 87"), "山田"),
        (b"\x1b$B;3ED\r\n^a", ("", "ISO 2022 IR 87"), "山田\r\n^a"),
        (b"\x1b$B;3E", ("", "ISO 2022 IR 87"), "山\ufffd"),
        (b"\x1bZa", ("", "ISO 2022 IR 87"), "Za"),
        (b"\x1b", ("", "ISO 2022 IR 87"), ""),
        (b"\xc8\xab^\xb1\xe6", ("ISO 2022 IR 149",), "홍^길"),
        (b"M\xfcller", (), "Müller"),
        (b"\x8eR\x93c", ("ISO_IR 13",), "山田"),
    ],
    ids=[
        "no way back",
        "reset by the line's end only",
        "half a character",
        "escape of no set",
        "escape at the end",
        "two-byte set as first value",
        "undeclared Latin-1",
        "Shift JIS declared as JIS X 0201",
    ],
)
def test_decode_of_what_should_not_occur(value: bytes, terms: tuple[str, ...], text: str) -> None:
    assert decode(value, codecs_of(terms), is_name=True) == text


def test_encode_of_a_character_in_none_of_the_sets_gives_nothing() -> None:
    assert encode("ä山", ("", "ISO 2022 IR 87")) is None
    assert (
        encode("똠", ("", "ISO 2022 IR 149")) is None
    )  # not in KS X 1001; EUC-KR spells it in 8 bytes
    assert encode("ä", ()) is None
