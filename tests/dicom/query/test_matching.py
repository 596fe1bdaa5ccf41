"""The reference of matching. Requests are derived from the stored value: random pairs never match."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydicom import config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from pacs.dicom.encoding.plain_values import may_have_several
from pacs.dicom.query.matching import (
    EMPTY_VALUE_KEY,
    EmptyValue,
    Match,
    SequenceMatch,
    SingleValue,
    UidList,
    Universal,
    ValueList,
    WildCard,
    glob_matches,
    is_universal,
    matches,
    parse_match,
)
from pacs.dicom.query.query_options import MatchingRules
from pacs.dicom.query.ranges import Range
from pacs.dicom.text.names import fold
from pacs.dicom.text.values import index_value
from pacs.errors import InvalidIdentifier

# One Attribute of each VR that is matched.
_TAGS = {
    "AE": 0x00080055,
    "AS": 0x00101010,
    "CS": 0x00080060,
    "DA": 0x00080020,
    "DS": 0x00101030,
    "DT": 0x0008002A,
    "IS": 0x00200011,
    "LO": 0x00100020,
    "LT": 0x00104000,
    "PN": 0x00100010,
    "SH": 0x00080050,
    "SQ": 0x00081032,
    "ST": 0x00080081,
    "TM": 0x00080030,
    "UC": 0x00080119,
    "UI": 0x0020000D,
    "UR": 0x00080120,
    "US": 0x00280010,
}


def _element(vr: str, value: Any) -> DataElement:
    return DataElement(_TAGS[vr], vr, value, validation_mode=config.IGNORE, already_converted=True)


def _parse(vr: str, value: Any) -> Match:
    return parse_match(vr, _element(vr, value))


def _index(vr: str, value: Any) -> str | None:
    return index_value(_element(vr, value))


def _matches(vr: str, key: Any, stored: Any) -> bool:
    several = may_have_several(_TAGS[vr])
    return matches(vr, _parse(vr, key), _index(vr, stored), several=several)


@pytest.mark.parametrize(
    ("vr", "value", "match"),
    [
        ("LO", "", Universal()),
        ("LO", None, Universal()),
        ("LO", "  ", Universal()),
        ("LO", "*", Universal()),
        ("LO", "**", Universal()),
        ("LO", " P-1 ", SingleValue("P-1")),
        ("LO", "P-1\\", SingleValue("P-1\\")),
        ("LO", " AB\\1 ", SingleValue("AB\\1")),
        ("LO", ["AB", "1"], SingleValue("AB\\1")),
        ("LO", "AB\\*", WildCard("AB\\*")),
        ("LO", "\\", Universal()),
        ("LO", "P*", WildCard("P*")),
        ("SH", "100%_", SingleValue("100%_")),
        ("CS", "C?", WildCard("C?")),
        ("LT", "a\\b", SingleValue("a\\b")),
        ("LO", '""', SingleValue('""')),
        ("SH", "A\\B\\A", ValueList(("A\\B\\A", "A", "B"), every=False)),
        ("SH", "A\\*", WildCard("A\\*")),
        ("PN", "Doe\\Roe", ValueList(("Doe\\Roe", "Doe", "Roe"), every=False)),
        ("CS", "CT\\CT", ValueList(("CT",), every=False)),
        ("AS", "041Y\\042Y", ValueList(("041Y", "042Y"), every=False)),
        ("PN", "*=*", Universal()),
        ("PN", "^^", Universal()),
        ("PN", "=山*", WildCard("=山*")),
        ("UI", "1.2", SingleValue("1.2")),
        ("UI", "1.2\\1.3\\1.2", UidList(("1.2", "1.3"))),
        ("UI", ["1.2", "1.3"], UidList(("1.2", "1.3"))),
        ("IS", "+01 ", SingleValue("1")),
        ("AS", "041Y", SingleValue("041Y")),
        ("US", 512, SingleValue("512")),
        ("DA", "20240229", SingleValue("20240229")),
        ("DA", "2024.02.29", SingleValue("20240229")),
        ("DA", "20240101-20241231", Range("20240101", "20241231")),
        ("DA", "20240101 - 20241231", Range("20240101", "20241231")),
        ("DA", "-20241231", Range(None, "20241231")),
        ("DA", "20240101-", Range("20240101", None)),
        ("TM", "10", Range("100000.000000", "105959.999999")),
        ("TM", "10-11", Range("100000.000000", "115959.999999")),
        ("TM", "-10:30", Range(None, "103059.999999")),
        ("DT", "2024-2025", Range("20240101000000.000000", "20251231235959.999999")),
        ("DT", "20240101-0500", Range("20240101050000.000000", "20240102045959.999999")),
        ("DT", "20240101-0500-", Range("20240101050000.000000", None)),
        ("DT", "-20240101-0500", Range(None, "20240102045959.999999")),
        (
            "DT",
            "20240101-0500-20240102-0500",
            Range("20240101050000.000000", "20240103045959.999999"),
        ),
    ],
)
def test_parse_match_gives_the_type_of_matching_of_the_standard(
    vr: str, value: object, match: Match
) -> None:
    assert _parse(vr, value) == match


@pytest.mark.parametrize(
    ("vr", "value"),
    [
        ("CS", "CT\\?R"),
        ("SH", "\\".join(map(str, range(257)))),
        ("IS", "1\\2"),
        ("TM", "10\\11"),
        ("UI", "1.2.*"),
        ("UI", "1.2.?"),
        ("UI", "1" * 129),
        ("IS", "*"),
        ("IS", "1.5"),
        ("IS", "1-5"),
        ("DS", "abc"),
        ("AS", "04?Y"),
        ("DA", "*"),
        ("DA", "2024*"),
        ("DA", "20240230"),
        ("DA", "-"),
        ("DA", "20241231-20240101"),
        ("DA", "20240101-20240102-20240103"),
        ("DA", "20240101\\20240102"),
        ("TM", "10??"),
        ("TM", "18-06"),
        ("DT", "2024-2023"),
        ("US", [1, 2]),
        ("LO", "*" + "a" * 2000),
    ],
)
def test_parse_match_value_without_meaning_is_refused(vr: str, value: object) -> None:
    with pytest.raises(InvalidIdentifier) as caught:
        _parse(vr, value)

    assert caught.value.offending == (_TAGS[vr],)
    assert f"({_TAGS[vr] >> 16:04X},{_TAGS[vr] & 0xFFFF:04X})" in caught.value.message


def test_parse_match_sequence_as_a_text_key_is_refused() -> None:
    item = Dataset()
    item.PatientID = "x"

    for vr in ("LO", "UI", "US"):
        with pytest.raises(InvalidIdentifier):
            parse_match(vr, DataElement(_TAGS[vr], "SQ", [item]))


@given(st.sampled_from(sorted(_TAGS)), st.sampled_from([None, "UN", "own"]), st.binary(max_size=60))
def test_parse_match_any_bytes_give_a_match_or_invalid_identifier(
    vr: str, wire: str | None, value: bytes
) -> None:
    own = vr if wire == "own" else wire
    raw = RawDataElement(BaseTag(_TAGS[vr]), own, len(value), value, 0, own is None, True)

    with suppress(InvalidIdentifier):
        matches(vr, parse_match(vr, raw), "x")


_STORED = st.text(
    st.sampled_from("aAbB1 %_[]^-.äßΣς山ｱ")
    | st.characters(exclude_characters="\\*?=", exclude_categories=["C"]),
    min_size=1,
    max_size=20,
)
_TEXT_VRS = st.sampled_from(["AE", "CS", "LO", "LT", "SH", "ST", "UC", "UR"])


@given(_TEXT_VRS, _STORED)
def test_matches_the_stored_value_itself(vr: str, stored: str) -> None:
    assert _matches(vr, stored, stored) is True or _index(vr, stored) is None


@given(_TEXT_VRS, _STORED, st.data())
def test_matches_question_mark_for_one_character(vr: str, stored: str, data: st.DataObject) -> None:
    text = _index(vr, stored)
    assume(text)
    assert text is not None
    position = data.draw(st.integers(0, len(text) - 1))
    key = text[:position] + "?" + text[position + 1 :]

    assert matches(vr, WildCard(key), text)
    assert not matches(vr, WildCard(key + "?"), text)


@given(_TEXT_VRS, _STORED, st.data())
def test_matches_star_for_any_run_of_characters(vr: str, stored: str, data: st.DataObject) -> None:
    text = _index(vr, stored)
    assume(text)
    assert text is not None
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))

    assert matches(vr, WildCard(f"{text[:start]}*{text[end:]}"), text)


@given(_TEXT_VRS, _STORED)
def test_matches_case_counts_except_in_names(vr: str, stored: str) -> None:
    text = _index(vr, stored)
    assume(text and text.swapcase() != text)
    assert text is not None

    assert not matches(vr, SingleValue(text.swapcase()), text)


@given(_TEXT_VRS, _STORED, st.sampled_from("%_"), st.data())
def test_matches_sql_metacharacters_are_literal(
    vr: str, stored: str, metacharacter: str, data: st.DataObject
) -> None:
    text = _index(vr, stored)
    assume(text)
    assert text is not None
    position = data.draw(st.integers(0, len(text) - 1))
    key = text[:position] + metacharacter + text[position + 1 :]

    assert matches(vr, WildCard(key + "*"), text) == (text[position] == metacharacter)


@given(_STORED)
def test_matches_name_in_any_case(stored: str) -> None:
    text = _index("PN", stored)
    assume(text and fold(text).strip("^ "))
    assert text is not None

    for key in (text, text.upper(), text.lower(), text.casefold()):
        # Some letters lose a distinction when their case changes; those names are not one name.
        if fold(key) == fold(text):
            assert _matches("PN", key, text)


_YAMADA = "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.mark.parametrize(
    ("key", "stored", "expected"),
    [
        ("yamada^tarou", _YAMADA, True),
        ("山田*", _YAMADA, True),
        ("やまだ^たろう", _YAMADA, True),
        ("=山田*", _YAMADA, True),
        ("山田*=", _YAMADA, True),
        ("=Yamada*", _YAMADA, False),
        ("Yamada*=山田*", _YAMADA, True),
        ("Yamada*=山本*", _YAMADA, False),
        ("*=山田*", _YAMADA, True),
        ("==やまだ*", _YAMADA, True),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada^Tarou", False),
        ("aneas^rudiger", "Äneas^Rüdiger", True),
        ("ÄNEAS*", "Äneas^Rüdiger", True),
        ("*rüdiger", "Äneas^Rüdiger", True),
        ("ΔΙΟΝΥΣΙΟΣ", "Διονυσιος", True),
        ("люк*", "Люкceмбypг", True),  # noqa: RUF001 - a Russian name
        ("洪*", "Hong^Gildong=洪^吉洞=홍^길동", True),
        ("홍^길?", "Hong^Gildong=洪^吉洞=홍^길동", True),
        ("王^小东", "Wang^XiaoDong=王^小东", True),
        ("Doe^Jane^^", "Doe^Jane", True),
        ("Doe ^Jane", "DOE^JANE", True),
        ("Doe", "Doe^Jane", False),
        ("Doe*", "Doe^Jane", True),
        ("*", None, True),
        ("D*", None, False),
        ("D*", "^", False),
        ("OB^*", "OB", True),
        ("OB^*", "OB^^^^", True),
        ("OB^*", "OBER^A", False),
        ("OB^^*", "OB^A", False),
        ("OB^^*", "OB^^M", True),
        ("^^^*", "^^^^", True),
        ("^^^*", "OB", False),
        ("^^^*", "^^^Dr", True),
        ("*^*", "OB", True),
        ("OB^?", "OB", False),
        ("OB^*=山*", "OB=山田", True),
        ("OB^*=^*", "OB", True),
        ("Doe\\Roe", "Doe\\Roe", True),
        ("Roe", "Doe\\Roe", False),
    ],
)
def test_matches_names_by_component_group(key: str, stored: str | None, expected: bool) -> None:
    assert _matches("PN", key, stored) is expected


def test_matches_several_names_one_name_has_to_match_all_groups() -> None:
    stored = "Doe^Jane=X\\Roe^Rick=Y"

    assert matches("PN", SingleValue("roe^rick=y"), stored)
    assert matches("PN", WildCard("D*=X"), stored)
    assert not matches("PN", SingleValue("roe^rick=x"), stored)


@pytest.mark.parametrize(
    ("vr", "key", "stored", "expected"),
    [
        ("TM", "2230", "223000", True),
        ("TM", "223000", "2230", True),
        ("TM", "10", "101530.5", True),
        ("TM", "10", "11", False),
        ("TM", "1000-1030", "103059", True),
        ("TM", "1000-1030", "1031", False),
        ("TM", "-", "10", None),
        ("TM", "10-", "noon", False),
        ("DT", "19980128103000", "19980128073000-0300", True),
        ("DT", "19980128103000.0000", "19980128103000", True),
        ("DT", "1998-1999", "1998", True),
        ("DT", "1998", "19990101", False),
        ("DA", "20240101-20241231", "20240229", True),
        ("DA", "20240101-20241231", "2024.02.29", True),
        ("DA", "-20231231", "20240229", False),
        ("DA", "19500101-", "19500000", False),
        ("DA", "-19500101", "19500000", True),
        ("DA", "19500101-", "UNKNOWN", False),
        ("DA", "-19500101", "1949", False),
        ("TM", "235959-235960", "235960", True),
        ("TM", "235960", "235960.5", True),
        ("TM", "101530.5", "101530.500000", True),
        ("TM", "10:15:30", "101530", True),
        ("TM", "1015", "10:15:30", True),
        ("DT", "20240229101530+0100", "20240229091530", True),
        ("DT", "20240229101530+0100", "20240229101530", False),
        ("DT", "20240229101530+0100-", "20240229091529-0000", False),
        ("DA", "20240229", None, False),
    ],
)
def test_matches_dates_and_times_by_meaning(
    vr: str, key: str, stored: str | None, expected: bool | None
) -> None:
    if expected is None:
        with pytest.raises(InvalidIdentifier):
            _parse(vr, key)
    else:
        assert _matches(vr, key, stored) is expected


@given(st.times(), st.times(), st.times())
def test_matches_time_range_is_inclusive(one: Any, other: Any, stored: Any) -> None:
    low, high = sorted((one, other))
    texts = [f"{moment:%H%M%S.%f}" for moment in (low, high, stored)]

    assert _matches("TM", f"{texts[0]}-{texts[1]}", texts[2]) is (low <= stored <= high)


@pytest.mark.parametrize(
    ("vr", "match", "text", "expected"),
    [
        ("CS", SingleValue("PRIMARY"), "ORIGINAL\\PRIMARY", True),
        ("CS", SingleValue("ORIGINAL\\PRIMARY"), "ORIGINAL\\PRIMARY", False),
        ("CS", WildCard("PRIM*"), "ORIGINAL\\PRIMARY", True),
        ("CS", WildCard("O*Y"), "ORIGINAL\\PRIMARY", False),
        ("LT", SingleValue("a\\b"), "a\\b", True),
        ("LT", SingleValue("b"), "a\\b", False),
        ("UI", UidList(("1.2", "1.3")), "1.3", True),
        ("UI", UidList(("1.2", "1.3")), "1.30", False),
        ("IS", SingleValue("1"), "1", True),
        ("LO", Universal(), None, True),
        ("LO", SingleValue(""), None, False),
    ],
)
def test_matches_one_value_of_several_is_enough(
    vr: str, match: Match, text: str | None, expected: bool
) -> None:
    assert matches(vr, match, text) is expected


@pytest.mark.parametrize(
    ("key", "stored", "expected"),
    [
        ("1.5", "1.50", True),
        ("1.5", "+15E-1", True),
        ("1.5", "1.51", False),
        ("0", "-0.0", True),
        ("1e99999999999999999999", "1e99999999999999999999", True),
        ("1.5", "tall", False),
    ],
)
def test_matches_decimal_strings_as_numbers(key: str, stored: str, expected: bool) -> None:
    assert _matches("DS", key, stored) is expected


@pytest.mark.parametrize(
    ("values", "every", "text", "expected"),
    [
        (("A", "B"), False, "B", True),
        (("A", "B"), False, "AB", False),
        (("A", "B"), True, "B\\C\\A", True),
        (("A", "B"), True, "B\\C", False),
        (("A", "B"), True, None, False),
    ],
)
def test_matches_list_of_values(
    values: tuple[str, ...], every: bool, text: str | None, expected: bool
) -> None:
    assert matches("CS", ValueList(values, every), text) is expected


def test_matches_list_of_names_each_by_component_groups() -> None:
    assert matches("PN", ValueList(("DOE^JANE", "x"), every=False), "Doe^Jane")
    assert matches("PN", ValueList(("=山田^太郎", "roe"), every=True), f"Roe\\{_YAMADA}")


_NEGOTIATED = MatchingRules(empty_values=True, multiple_values=True)


def test_parse_match_list_asks_for_every_value_where_negotiated_and_vm_allows() -> None:
    image_type = DataElement(0x00080008, "CS", "A\\B", validation_mode=config.IGNORE)

    assert parse_match("CS", image_type) == ValueList(("A", "B"), every=False)
    assert parse_match("CS", image_type, rules=_NEGOTIATED) == ValueList(("A", "B"), every=True)
    assert parse_match("CS", _element("CS", "A\\B"), rules=_NEGOTIATED) == ValueList(
        ("A", "B"), every=False
    )


@pytest.mark.parametrize("vr", sorted(set(_TAGS) - {"SQ", "US"}))
def test_matches_empty_value_key_only_what_has_no_value(vr: str) -> None:
    match = parse_match(vr, _element(vr, EMPTY_VALUE_KEY), rules=_NEGOTIATED)

    assert match == EmptyValue()
    assert matches(vr, match, None)
    assert not matches(vr, match, "1")
    assert not is_universal(match)


def test_matches_empty_value_key_in_an_item() -> None:
    key = Dataset()
    key.CodeMeaning = EMPTY_VALUE_KEY
    match = parse_match("SQ", _element("SQ", [key]), rules=_NEGOTIATED)

    assert matches("SQ", match, _index("SQ", [_code("A", "one"), _code("B", None)]))
    assert not matches("SQ", match, _index("SQ", [_code("A", "one")]))
    assert not matches("SQ", match, None)


def test_matches_long_key_equal_to_a_value_that_the_index_cut() -> None:
    assert _matches("LO", "x" * 300, "x" * 300)
    assert _matches("LT", "y" * 20_000, "y" * 20_000)


def _code(value: str, meaning: str | None = "", scheme: str = "DCM") -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodeMeaning = meaning
    item.CodingSchemeDesignator = scheme
    return item


def test_matches_sequence_one_item_has_to_match_all_keys() -> None:
    stored = _index("SQ", [_code("A", "one"), _code("B", "two")])

    def found(*keys: Dataset) -> bool:
        return matches("SQ", _parse("SQ", list(keys)), stored)

    assert found(_code("A", "o*"))
    assert found(_code("B", "", ""))
    assert not found(_code("A", "two"))
    assert not found(_code("C"))
    assert found(_code("", "", ""))
    assert found()


def test_matches_sequence_nested_keys_and_absent_values() -> None:
    inner, outer, wanted, absent = _code("X"), Dataset(), Dataset(), Dataset()
    outer.ConceptNameCodeSequence = [inner]
    wanted.ConceptNameCodeSequence = [_code("X")]
    absent.ConceptNameCodeSequence = [_code("Y")]
    stored = _index("SQ", [outer])

    assert matches("SQ", _parse("SQ", [wanted]), stored)
    assert not matches("SQ", _parse("SQ", [absent]), stored)
    assert not matches("SQ", _parse("SQ", [wanted]), None)
    assert not matches("SQ", _parse("SQ", [wanted]), "not JSON")
    assert not matches("SQ", _parse("SQ", [wanted]), json.dumps([1, {"0040A043": 2}]))


def test_matches_sequence_names_in_items_are_folded() -> None:
    stored, key = Dataset(), Dataset()
    stored.PatientName = "Äneas^Rüdiger"
    key.PatientName = "aneas*"

    assert _matches("SQ", [key], [stored])


def test_parse_match_sequence_of_universal_keys_says_what_to_return() -> None:
    match = _parse("SQ", [_code("", "", "")])

    assert isinstance(match, SequenceMatch)
    assert [tag for tag, _, _ in match.keys] == [0x00080100, 0x00080102, 0x00080104]
    assert is_universal(match)
    assert is_universal(_parse("SQ", []))
    assert is_universal(_parse("SQ", [Dataset()]))


def test_parse_match_sequence_with_two_items_is_refused() -> None:
    with pytest.raises(InvalidIdentifier, match=r"ProcedureCodeSequence \(0008,1032\)"):
        _parse("SQ", [_code("A"), _code("B")])


def test_parse_match_sequence_with_private_or_bulk_value_is_refused() -> None:
    for tag, vr, value in ((0x00091001, "LO", "x"), (0x7FE00010, "OB", b"\1\1")):
        item = Dataset()
        item.add_new(tag, vr, value)
        with pytest.raises(InvalidIdentifier):
            _parse("SQ", [item])


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 500 + "b", "*" + "a?" * 511 + "b*", "*a?" * 300 + "b", "*" + "a" * 1_000 + "b*"],
)
def test_glob_matches_hostile_pattern_in_bounded_time(pattern: str) -> None:
    started = time.process_time()

    assert not glob_matches(pattern, "a" * 65_536)

    assert time.process_time() - started < 1


def test_glob_matches_as_a_regular_expression_does() -> None:
    random = Random(4)
    for _ in range(5_000):
        pattern = "".join(random.choices("ab*?\n.", (4, 4, 3, 2, 1, 1), k=random.randrange(8)))
        text = "".join(random.choices("ab\n.", (4, 4, 1, 1), k=random.randrange(10)))
        parts = {"*": ".*", "?": "."}
        expression = "".join(parts.get(one, re.escape(one)) for one in pattern)

        expected = re.fullmatch(expression, text, re.DOTALL) is not None
        assert glob_matches(pattern, text) is expected, (pattern, text)
