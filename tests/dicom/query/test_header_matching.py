"""A sequence key matched in an encoded header agrees with a plain reading of PS3.4 C.2.2.2.6."""

from __future__ import annotations

import re
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from pacs.dicom.information_model import InformationModel
from pacs.dicom.query.header_values import read_header_values
from pacs.dicom.query.identifier import Query, parse_find
from pacs.errors import InvalidIdentifier
from tests.factories import make_instance

_TEXTS = ["T-1", "T-2", "t-1", "A_B", "A%B", "Ä b", "T"]
_KEYWORDS = ["CodeValue", "CodeMeaning", "CodingSchemeDesignator"]
_NESTED = "AnatomicRegionModifierSequence"
_SEQUENCE = "AnatomicRegionSequence"
_Item = dict[str, object]


def _items(texts: st.SearchStrategy[str], depth: int = 1) -> st.SearchStrategy[_Item]:
    """Items with some Attributes, and Items in them."""
    keys: dict[str, st.SearchStrategy[object]] = dict.fromkeys(_KEYWORDS, texts)
    if depth:
        keys[_NESTED] = st.lists(_items(texts, depth - 1), min_size=1, max_size=2)
    return st.fixed_dictionaries({}, optional=keys)


@st.composite
def _stored_and_key(draw: st.DrawFn) -> tuple[list[_Item], _Item]:
    """Items, and a key derived from one of them: kept, emptied, with wild cards, in another case."""
    stored = draw(st.lists(_items(st.sampled_from(_TEXTS)), min_size=1, max_size=3))
    return stored, draw(_derived(draw(st.sampled_from(stored))))


@st.composite
def _derived(draw: st.DrawFn, item: _Item) -> _Item:
    key: _Item = {}
    for keyword, value in item.items():
        if isinstance(value, list):
            key[keyword] = [draw(_derived(draw(st.sampled_from(value))))]
        elif isinstance(value, str):
            changes = [value, value, "", value.swapcase(), value[:1] + "*", "?" + value[1:], "*"]
            key[keyword] = draw(st.sampled_from(changes))
    return key


def _matches(key: _Item, item: _Item) -> bool:
    """One Item, read as the clause says it."""
    return all(_value_matches(wanted, item.get(keyword)) for keyword, wanted in key.items())


def _value_matches(wanted: object, value: object) -> bool:
    if isinstance(wanted, list):
        [nested] = wanted
        found = value if isinstance(value, list) else []
        return any(_matches(nested, one) for one in found) or _matches(nested, {})
    assert isinstance(wanted, str)
    if not wanted.strip("*"):
        return True
    pattern = re.escape(wanted).replace(r"\*", ".*").replace(r"\?", ".")
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _data_set(item: _Item) -> Dataset:
    data_set = Dataset()
    for keyword, value in item.items():
        plain = [_data_set(one) for one in value] if isinstance(value, list) else value
        data_set[keyword] = DataElement(
            keyword, dictionary_VR(keyword), plain, validation_mode=IGNORE
        )
    return data_set


def _query(key: _Item) -> Query:
    identifier = _data_set({"QueryRetrieveLevel": "IMAGE", "SpecificCharacterSet": "ISO_IR 192"})
    identifier.StudyInstanceUID, identifier.SeriesInstanceUID = "1.2", "1.2.3"
    identifier.update(_data_set(key))
    return parse_find(identifier, InformationModel.STUDY_ROOT)


@settings(max_examples=150, deadline=None)
@given(
    pair=_stored_and_key(),
    syntax=st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]),
)
def test_sequence_key_matches_an_encoded_header_as_the_clause_says(
    pair: tuple[list[_Item], _Item], syntax: str
) -> None:
    stored, key = pair
    instance = make_instance(SpecificCharacterSet="ISO_IR 192")
    instance.update(_data_set({_SEQUENCE: stored}))
    encoded = encode(
        instance,
        is_implicit_vr=syntax == ImplicitVRLittleEndian,
        is_little_endian=syntax != ExplicitVRBigEndian,
    )
    assert encoded is not None
    query = _query({_SEQUENCE: [key]})

    found = read_header_values(BytesIO(encoded), syntax, 0, query.header_keys)

    expected = [one for one in stored if _matches(key, one)]
    assert query.unsupported == ()
    assert found.is_match == (bool(expected) or _matches(key, {}))
    if found.is_match:
        assert len(found.data_set[_SEQUENCE].value) == len(expected)


@pytest.mark.parametrize(
    "keyword", ["SmallestImagePixelValue", "FrameIncrementPointer", "ICCProfile"]
)
def test_key_of_a_vr_that_cannot_be_matched_is_no_condition(keyword: str) -> None:
    """PS3.4 C.2.2.1.3."""
    vr = dictionary_VR(keyword)
    query = _query({keyword: b"\0\0" if vr == "OB" else 1})

    assert query.header_conditions == ()
    assert len(query.unsupported) == 1


def test_key_in_items_nested_too_deeply_is_refused() -> None:
    """PS3.4 C.2.2.2.6, in bounded time."""
    key: _Item = {"CodeValue": "T-1"}
    for _ in range(40):
        key = {_NESTED: [key]}

    with pytest.raises(InvalidIdentifier, match="not a readable sequence"):
        _query({_SEQUENCE: [key]})
