from __future__ import annotations

from typing import Any

import pytest
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import IS, DSfloat, PersonName

from pacs.dicom.encoding.plain_values import (
    dictionary_facts,
    is_empty,
    items_of,
    json_items,
    text_of_json,
    texts_of,
)


def _raw(
    tag: int, vr: str, value: bytes | None, *, is_little_endian: bool = True
) -> RawDataElement:
    return RawDataElement(BaseTag(tag), vr, len(value or b""), value, 0, False, is_little_endian)


def _element(tag: int, vr: str, value: Any) -> DataElement:
    return DataElement(tag, vr, value, already_converted=True)


@pytest.mark.parametrize(
    ("tag", "facts"),
    [
        (0x00100020, ("LO", False)),
        (0x00080008, ("CS", True)),
        (0x00280106, ("US", False)),
        (0x00091001, None),
    ],
)
def test_dictionary_facts_are_vr_and_whether_vm_may_exceed_one(
    tag: int, facts: tuple[str, bool] | None
) -> None:
    assert dictionary_facts(tag) == facts


@pytest.mark.parametrize(
    ("element", "texts"),
    [
        (_element(0x00200011, "IS", IS("+07")), ["7"]),
        (_element(0x00101030, "DS", DSfloat("70.50")), ["70.50"]),
        (_element(0x00100010, "PN", PersonName("Doe^Jane")), ["Doe^Jane"]),
        (_element(0x00100010, "PN", PersonName(b"\xc4neas", ["latin_1"])), ["Äneas"]),
        (_element(0x00100020, "LO", None), []),
        (_element(0x00280010, "US", 512), ["512"]),
        (_element(0x00280009, "AT", BaseTag(0x00181063)), ["00181063"]),
        (_raw(0x00280010, "US", b"\x00\x02"), ["512"]),
        (_raw(0x00280010, "US", b"\x02\x00", is_little_endian=False), ["512"]),
        (_raw(0x00280010, "US", b"\x02"), []),
        (_raw(0x7FE00010, "OB", b"\x02"), []),
        (_raw(0x00080008, "CS", b"A \\B "), ["A", "B"]),
        (_raw(0x00104000, "LT", b"a\\b"), ["a\\b"]),
    ],
)
def test_texts_of_every_form_in_which_pydicom_holds_a_value(
    element: DataElement | RawDataElement, texts: list[str]
) -> None:
    assert texts_of(element) == texts


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, True),
        ("", True),
        ("  ", True),
        (b"\0 ", True),
        ([], True),
        ([Dataset()], True),
        ("x", False),
        (b"x", False),
        (0, False),
        ([1], False),
    ],
)
def test_is_empty_ignores_padding(value: object, expected: bool) -> None:
    assert is_empty(_element(0x00100020, "LO", value)) is expected


def test_items_of_what_is_no_sequence_are_none() -> None:
    assert items_of(_element(0x00081032, "SQ", "text")) is None
    assert items_of(_element(0x00081032, "SQ", [Dataset(), "text"])) is None
    assert items_of(_raw(0x00081032, "SQ", b"\xff" * 7)) is None
    assert items_of(_raw(0x00081032, "SQ", None)) == []


def test_json_items_number_of_attributes_is_bounded() -> None:
    item = Dataset()
    item.CodeValue = "x"

    assert json_items(_element(0x00081032, "SQ", [item] * 4_096)) is not None
    assert json_items(_element(0x00081032, "SQ", [item] * 4_097)) is None


def test_text_of_json_gives_back_the_index_text() -> None:
    item = Dataset()
    item.PatientName = "A=B"
    item.ImageType = ["X", "", "Y"]
    item.Rows = 3
    item.RecommendedDisplayFrameRateInFloat = float("nan")
    (plain,) = json_items(_element(0x00081032, "SQ", [item])) or []

    assert text_of_json(plain["00100010"]) == "A=B"
    assert text_of_json(plain["00080008"]) == "X\\\\Y"
    assert text_of_json(plain["00280010"]) == "3"
    assert text_of_json(plain["00089459"]) is None
    assert text_of_json(None) is None
