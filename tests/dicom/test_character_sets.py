from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import encode_string

from pacs.dicom.character_sets import (
    can_encode,
    codecs_of,
    decode,
    defined_terms,
    response_terms,
)

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
    encoded = b"=".join(
        b"^".join(encode_string(part, list(codecs_of(terms))) if part else b"" for part in group)
        for group in (group.split("^") for group in name.split("="))
    )

    assert can_encode(name, terms)
    assert decode(encoded, codecs_of(terms), is_name=True) == name


def test_decode_korean_escape_not_repeated_after_delimiter_still_decodes() -> None:
    encoded = b"\x1b$)C" + "홍^길동".encode("euc_kr")

    assert decode(encoded, codecs_of(("", "ISO 2022 IR 149")), is_name=True) == "홍^길동"


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
        (["小东"], ("", "ISO 2022 IR 58"), ("ISO_IR 192",)),
    ],
)
def test_response_terms_fall_back_to_utf_8_only_when_needed(
    texts: list[str], requested: tuple[str, ...], chosen: tuple[str, ...]
) -> None:
    assert response_terms(texts, requested) == chosen
