"""The bytes of a response are those that pydicom writes of the reference's data set."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from pacs.dicom.attributes import ATTRIBUTES, Attribute
from pacs.dicom.encoding.element_encoding import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Encoding,
)
from pacs.dicom.encoding.plain_values import CHARACTER_SET_VRS, character_set_terms
from pacs.dicom.information_model import InformationModel
from pacs.dicom.levels import Level
from pacs.dicom.query.identifier import Query
from pacs.dicom.query.response import encode_response
from pacs.dicom.query.response_writer import ResponseWriter
from pacs.dicom.text.code_elements import CHARACTER_SETS
from tests.factories import add

_ENCODINGS = [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG]
_IN_ENCODINGS = pytest.mark.parametrize(
    "encoding", _ENCODINGS, ids=["implicit", "explicit", "big endian"]
)
_TITLE = "PACS1"
_REQUESTED = [
    *((one.defined_term,) for one in CHARACTER_SETS if one.defined_term),
    *(("", one.extension_term) for one in CHARACTER_SETS if one.extension_term),
    *((one.extension_term,) for one in CHARACTER_SETS if one.extension_term),
    ("ISO 2022 IR 100", "ISO 2022 IR 126", "ISO 2022 IR 144"),
    ("ISO 2022 IR 13", "ISO 2022 IR 87", "ISO 2022 IR 159"),
    (),
]
#: Of each alphabet: so that one set may have all that a response says, or not.
_ALPHABETS = [
    "Doe^Jne= 019.,%*?",
    "äÖßéñ Muler^",
    "ŁódźŠéčaĄ",
    "Διονυσιος",
    "Люкceмбypг",  # noqa: RUF001 - a Russian name
    "قباني",
    "שרון",
    "ประเทศไทย",
    "ﾔﾏﾀﾞﾀﾛｳYamada",
    "山田太郎やまだたろう=^",
    "丂丄丅丌",
    "洪吉洞홍길동",
    "王小东张三",
    "😀𠀋",
    "\t\n\r\f\\ =^~‾¥",
    "€Š",
]
_WRITTEN = {
    "UI": st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,5}){0,8}( |\n)?", fullmatch=True),
    "IS": st.from_regex(r"[+-]?[0-9]{1,14}", fullmatch=True),
    "DS": st.from_regex(r"[+-]?[0-9]{0,6}\.?[0-9]{0,6}(e[0-9])?", fullmatch=True),
    "US": st.integers(-1, 70_000).map(str),
    "DA": st.from_regex(r"[0-9]{8}", fullmatch=True),
    "TM": st.from_regex(r"[0-9]{6}(\.[0-9]{1,6})?", fullmatch=True),
    "SQ": st.sampled_from(
        ["[]", "broken", '[{"00080100":{"vr":"SH","Value":["A"]}}]', '[{"00080100":{"vr":"SH"}}]']
    ),
}


def _query(returns: list[Attribute], character_sets: tuple[str, ...] = (), **more: object) -> Query:
    return Query(
        InformationModel.STUDY_ROOT,
        Level.IMAGE,
        conditions=(),
        returns=tuple(returns),
        character_sets=character_sets,
        **more,  # type: ignore[arg-type]
    )


def _reference(query: Query, record: dict[str, str | None], encoding: Encoding) -> bytes | None:
    response = encode_response(query, record, retrieve_ae_title=_TITLE)
    return encode(response, encoding.is_implicit, not encoding.is_big_endian)


def _written(query: Query, record: dict[str, str | None], encoding: Encoding) -> bytes | None:
    writer = ResponseWriter(query, list(record), encoding, retrieve_ae_title=_TITLE)
    return writer.write(list(record.values()))


@st.composite
def _texts(draw: st.DrawFn, attribute: Attribute) -> str | None:
    alphabet = draw(st.sampled_from(_ALPHABETS))
    foreign = st.text(alphabet, max_size=12)
    one = st.one_of(
        foreign,
        foreign,
        st.text(_ALPHABETS[0], max_size=80),
        _WRITTEN.get(attribute.vr, st.text(max_size=12)),
        st.text(max_size=12),
    )
    several = st.lists(one, min_size=1, max_size=3).map("\\".join)
    return draw(st.one_of(st.none(), one, several))


def _encodable(text: str) -> str:
    # As the index has it: see ``normalised``.
    return text.encode("utf-8", "replace").decode().replace("\0", "").replace("\x1b", "")


@given(st.data(), st.sampled_from(_ENCODINGS), st.sampled_from(_REQUESTED))
def test_response_is_what_pydicom_writes_of_the_reference(
    data: st.DataObject, encoding: Encoding, requested: tuple[str, ...]
) -> None:
    attributes = data.draw(
        st.lists(st.sampled_from(ATTRIBUTES), min_size=1, max_size=8, unique=True)
    )
    record: dict[str, str | None] = {}
    for attribute in attributes:
        text = data.draw(_texts(attribute))
        record[attribute.keyword] = None if text is None else _encodable(text)
    query = _query(attributes, requested)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = _written(query, record, encoding)
        if written is not None:
            assert written == _reference(query, record, encoding)


@pytest.mark.parametrize("requested", _REQUESTED, ids="-".join)
def test_response_in_each_character_set(requested: tuple[str, ...]) -> None:
    attributes = list({one.vr: one for one in ATTRIBUTES if one.vr in CHARACTER_SET_VRS}.values())
    query = _query(attributes, requested)
    for alphabet in _ALPHABETS:
        # One Attribute in ASCII beside the others.
        texts = ["Ascii", *[alphabet.replace("\\", "").replace("=", "")] * len(attributes)]
        record: dict[str, str | None] = {
            one.keyword: text for one, text in zip(attributes, texts, strict=False)
        }

        written = _written(query, record, EXPLICIT_LITTLE)

        assert written is not None
        assert written == _reference(query, record, EXPLICIT_LITTLE)


_PLAIN_TEXTS = {
    "AE": "STORE",
    "AS": "043Y",
    "CS": "ORIGINAL",
    "DA": "20240229",
    "DS": "-1.50",
    "DT": "20240229101530.5+0100",
    "IS": "-7",
    "LO": "Thorax 100 %",
    "LT": "a\\b\r\nc",
    "PN": "Doe^Jane^^Dr=x=y",
    "SH": "A-1",
    "ST": "Street 1",
    "TM": "101530",
    "UC": "long",
    "UI": "1.2.840.10008.1.1",
    "US": "65535",
}


@_IN_ENCODINGS
@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda one: one.keyword)
def test_response_with_each_attribute_is_written_here(
    attribute: Attribute, encoding: Encoding
) -> None:
    # A sequence has Items, which are data sets.
    texts = [None, "", *([] if attribute.vr == "SQ" else [_PLAIN_TEXTS[attribute.vr]])]
    if attribute.is_multi_valued and attribute.vr not in {"PN", "SQ"}:
        texts.append(f"{texts[-1]}\\{texts[-1]}")
    for text in texts:
        record = {attribute.keyword: text}
        query = _query([attribute])

        written = _written(query, record, encoding)

        assert written is not None
        assert written == _reference(query, record, encoding)


@_IN_ENCODINGS
def test_response_has_what_all_of_a_request_have_in_common(encoding: Encoding) -> None:
    query = _query(
        list(ATTRIBUTES), retrieval_keys=("InstanceAvailability",), timezone_offset="+0100"
    )
    record: dict[str, str | None] = {one.keyword: None for one in ATTRIBUTES}

    written = _written(query, record, encoding)

    assert written is not None
    assert written == _reference(query, record, encoding)


@pytest.mark.parametrize("length", [0xFFFE, 0xFFFF])
def test_response_with_a_text_that_explicit_vr_has_no_room_for_is_left_to_the_reference(
    length: int,
) -> None:
    [attribute] = [one for one in ATTRIBUTES if one.keyword == "PatientComments"]
    record: dict[str, str | None] = {attribute.keyword: "x" * length}
    query = _query([attribute])

    assert _written(query, record, IMPLICIT_LITTLE) == _reference(query, record, IMPLICIT_LITTLE)
    assert (_written(query, record, EXPLICIT_LITTLE) is not None) is (length == 0xFFFE)


def test_response_character_set_of_the_request_is_told_as_it_was_asked_for() -> None:
    request = Dataset()
    add(request, "SpecificCharacterSet", "ISO-IR 100")
    [attribute] = [one for one in ATTRIBUTES if one.keyword == "PatientName"]
    query = _query([attribute], character_set_terms(request))

    written = _written(query, {"PatientName": "Äneas"}, IMPLICIT_LITTLE)

    assert written is not None
    assert b"ISO_IR 100" in written
    assert "Äneas".encode("latin-1") in written
