"""The SQL of a condition and the reference in Python agree, on both backends.

Keys are derived from stored values: independent random texts would almost never meet a value, and a bug in escaping
or case would go unseen.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pacs.dicom.attributes import BY_KEYWORD
from pacs.dicom.levels import Level
from pacs.dicom.query.combined_datetime import CombinedRange
from pacs.dicom.query.matching import (
    UNIVERSAL,
    Match,
    SequenceMatch,
    SingleValue,
    UidList,
    ValueList,
    WildCard,
    fuzzy,
    is_universal,
    matches,
)
from pacs.dicom.query.ranges import Range
from pacs.dicom.text.dates import canonical, canonical_upper
from pacs.index.conditions import _successor
from pacs.index.index import Index

_NAMES = [
    "Äneas^Rüdiger",
    "ANEAS^Rudiger",
    "Διονυσιος",
    "Люкceмбypг",  # noqa: RUF001 - Cyrillic is the point
    "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "Hong^Gildong=洪^吉洞=홍^길동",
    "=王^小东",
    "Doe^Jane^^Dr",
    "doe^jane",
    "Groß",
    "100%_sure",
    "[a-z]^*?",
    "\U0010ffff\U0010ffff",
    "OB",
    "OB\\Roe^Ann",
    "^^^^",
    "=^=OB^^X",
]
_TEXTS = [
    "CT\\head",
    "ct\\HEAD\\",
    "CT head",
    "ct HEAD",
    "100% [sure]",
    "100x _sure_",
    "a_b",
    "axb",
    "]x[",
    "^ünïcode",
    "ÜNÏCODE",
    "*",
    "?",
    "x'; DROP TABLE study --",
    "\ud7ff\ue000",
    "a",
    "ab",
    "abc",
    "\U0010ffff",
    "1",
    "01",
]
_SEVERAL = ["ORIGINAL\\PRIMARY", "DERIVED", "A\\B%\\C_", "prim\\ary", "\\X", "PRIMARY\\ORIGINAL"]
_DATES = ["20240229", "19500000", "garbage", "20231231", "20240301", "2024", "UNKNOWN"]
_TIMES = ["10", "1015", "101530.5", "235960", "nonsense", "10:15:30", "0000"]
_MOMENTS = ["20240229101530+0100", "20240229", "2024", "nonsense", "20240229091530"]
_SEQUENCES = [
    '[{"00080100":{"vr":"SH","Value":["CT1"]}}]',
    '[{"00080100":{"vr":"SH","Value":["MR1"]}},{"00080100":{"vr":"SH","Value":["CT%"]}}]',
    '[{"00080100":{"vr":"SH","Value":["CT1"]},"00080104":{"vr":"LO","Value":["a \\"b\\" Ä"]}}]',
    '[{"00080100":{"vr":"SH","Value":["CT1","MR1"]},"00080104":{"vr":"LO","Value":["ct1"]}}]',
    (
        '[{"00080104":{"vr":"LO","Value":["CT1"]},"00080121":{"vr":"SQ","Value":[{"00080100":{"vr":"SH","Value":["MR1"]}},'
        '{"00080100":{"vr":"SH"},"00080119":{"vr":"UC","Value":["*?[CT1]"]}}]}}]'
    ),
    "[{}]",
    "no JSON",
]

_POOLS = {
    "PatientName": _NAMES,
    "OtherPatientNames": [*_NAMES, "Doe^Jane\\Roe^Ann", "X\\=王^小东"],
    "PatientID": _TEXTS,
    "PatientBirthDate": _DATES,
    "PatientBirthTime": _TIMES,
    "StudyTime": _TIMES,
    "StudyDate": _DATES,
    "AccessionNumber": _TEXTS,
    "PatientComments": [*_TEXTS, "line\\one"],
    "OtherPatientIDs": [*_SEVERAL, *_TEXTS],
    "ProcedureCodeSequence": _SEQUENCES,
}
_WITH_WILD_CARDS = sorted(
    set(_POOLS) - {"PatientBirthDate", "StudyDate", "PatientBirthTime", "StudyTime"}
)


def _rows() -> list[dict[str, str]]:
    """Studies in which each value of each pool occurs, and many without one."""
    chance = random.Random(20240229)
    rows: list[dict[str, str]] = []
    for number in range(60):
        row = {"PatientID": f"{number}"} if number % 3 else {}
        for keyword, pool in _POOLS.items():
            if number < len(pool):
                row[keyword] = pool[number]
            elif chance.random() < 0.4:
                row[keyword] = chance.choice(pool)
        rows.append(row)
    return rows


@pytest.fixture
def matched(index: Index, make_record, make_query) -> Callable[[str, Match], tuple[set, set]]:
    """Stores the rows; then compares: the studies that SQL finds, and those that the reference finds."""
    rows = _rows()
    index.ingest_batch(
        [
            # An issuer of its own keeps equal Patient IDs apart.
            make_record(
                f"1.{n}", f"1.{n}.1", **({"PatientID": ""} | row | {"IssuerOfPatientID": f"i{n}"})
            )
            for n, row in enumerate(rows)
        ]
    )

    def compare(keyword: str, match: Match) -> tuple[set[str], set[str]]:
        found = index.search(make_query(Level.STUDY, {keyword: match}))
        attribute = BY_KEYWORD[keyword]
        vr, several = attribute.vr, attribute.is_multi_valued
        expected = {
            f"1.{n}"
            for n, row in enumerate(rows)
            if matches(vr, match, row.get(keyword) or None, several=several)
        }
        return {str(record["StudyInstanceUID"]) for record in found}, expected

    return compare


@st.composite
def _derived(draw: st.DrawFn) -> tuple[str, Match]:
    """A key made from a stored value: kept, with wild cards, with the case of letters swapped, cut."""
    keyword = draw(st.sampled_from(sorted(set(_POOLS) - {"ProcedureCodeSequence"})))
    text = draw(st.sampled_from(_POOLS[keyword]))
    if draw(st.booleans()):
        text = draw(st.sampled_from(text.split("\\")))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        to = draw(st.integers(at, len(text)))
        middle = draw(
            st.sampled_from(
                ["", "*", "?", "%", "_", "[", "]", text[at:to].swapcase(), "\\", "^", "=", "**"]
            )
        )
        text = text[:at] + middle + text[to:]
    if keyword in _WITH_WILD_CARDS and ("*" in text or "?" in text or draw(st.booleans())):
        return keyword, WildCard(text)
    return keyword, SingleValue(text)


_SETTINGS = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@_SETTINGS
@given(key=_derived())
@example(key=("PatientName", WildCard("=*")))
@example(key=("PatientName", WildCard("*^*")))
@example(key=("PatientName", WildCard("o?^*^*")))
@example(key=("PatientName", WildCard("^^^*==ob*")))
@example(key=("OtherPatientNames", WildCard("^^^*")))
@example(key=("OtherPatientNames", WildCard("roe^ann^*")))
@example(key=("OtherPatientNames", WildCard("*=*=*")))
def test_search_and_reference_agree_on_derived_keys(matched, key: tuple[str, Match]) -> None:
    found, expected = matched(*key)

    assert found == expected


_VALUES_IN_ITEMS = ["CT1", "MR1", "CT%", "ct1", 'a "b" Ä', "*?[CT1]", "CT", "\\u0041", "", '"']


@st.composite
def _item_keys(draw: st.DrawFn, depth: int = 1) -> SequenceMatch:
    """Keys of an Item: stored values, in their own Attribute or another, and Items in it."""
    keys: list[tuple[int, str, Match]] = []
    for tag, vr in ((0x00080100, "SH"), (0x00080104, "LO"), (0x00080119, "UC")):
        text = draw(st.sampled_from([None, None, *_VALUES_IN_ITEMS]))
        if text is not None:
            kind = draw(st.sampled_from([SingleValue, SingleValue, WildCard]))
            keys.append((tag, vr, kind(text) if text else UNIVERSAL))
    if depth and draw(st.booleans()):
        keys.append((0x00080121, "SQ", draw(_item_keys(depth - 1))))
    return SequenceMatch(tuple(keys))


@_SETTINGS
@given(match=_item_keys())
def test_search_and_reference_agree_on_sequences(matched, match: SequenceMatch) -> None:
    """PS3.4 C.2.2.2.6."""
    assume(not is_universal(match))

    found, expected = matched("ProcedureCodeSequence", match)

    assert found == expected


@st.composite
def _ranges(draw: st.DrawFn) -> tuple[str, Match]:
    keyword, pool = draw(
        st.sampled_from(
            [
                ("StudyDate", _DATES),
                ("PatientBirthDate", _DATES),
                ("StudyTime", _TIMES),
                ("PatientBirthTime", _TIMES),
            ]
        )
    )
    vr = BY_KEYWORD[keyword].vr
    end = st.none() | st.sampled_from(pool)
    lower, upper = draw(end), draw(end)
    return keyword, Range(lower and canonical(vr, lower), upper and canonical_upper(vr, upper))


@_SETTINGS
@given(key=_ranges())
def test_search_and_reference_agree_on_ranges(matched, key: tuple[str, Match]) -> None:
    found, expected = matched(*key)

    assert found == expected


@st.composite
def _combined(draw: st.DrawFn) -> CombinedRange:
    ends = []
    for bound in (canonical, canonical_upper):
        date = draw(st.sampled_from(_DATES))
        time = bound("TM", draw(st.sampled_from(_TIMES)))
        ends.append(draw(st.none() | st.just((date, time))) if time else None)
    pair = draw(st.sampled_from(["Study", "PatientBirth"]))
    return CombinedRange(BY_KEYWORD[f"{pair}Date"], BY_KEYWORD[f"{pair}Time"], ends[0], ends[1])


@_SETTINGS
@given(combined=_combined())
def test_search_and_reference_agree_on_combined_ranges(
    matched, index: Index, make_query, combined: CombinedRange
) -> None:
    """PS3.4 C.2.2.2.5.4."""
    query = replace(make_query(Level.STUDY), combined=(combined,))
    expected = {
        f"1.{n}"
        for n, row in enumerate(_rows())
        if combined.matches(row.get(combined.date.keyword), row.get(combined.time.keyword))
    }

    assert {record["StudyInstanceUID"] for record in index.search(query)} == expected


@pytest.mark.parametrize("end", ["lower", "upper"])
def test_search_open_combined_range_does_not_find_what_is_no_date(
    matched, index: Index, make_query, end: str
) -> None:
    """PS3.4 C.2.2.2.5.4: text that is no date lies in no time, before or after."""
    ends = {"lower": None, "upper": None, end: {"lower": ("1800", "0"), "upper": ("~", "0")}[end]}
    combined = CombinedRange(BY_KEYWORD["StudyDate"], BY_KEYWORD["StudyTime"], **ends)
    query = replace(make_query(Level.STUDY), combined=(combined,), returns=(combined.date,))

    dates = {record["StudyDate"] for record in index.search(query)}

    assert dates == {"20240229", "19500000", "20231231", "20240301"}
    assert not combined.matches("UNKNOWN", "10")
    assert combined.matches("19500000", "10")


@st.composite
def _sounding(draw: st.DrawFn) -> tuple[str, Match]:
    """A fuzzy key made of words of a stored name, in another order, changed or cut."""
    keyword = draw(st.sampled_from(["PatientName", "OtherPatientNames"]))
    name = draw(st.sampled_from(_POOLS[keyword]))
    words = draw(st.permutations(re.split(r"[\^= \\]", name)))[: draw(st.integers(1, 3))]
    end = draw(st.sampled_from(["", "", "*", "e", "y"]))
    key = "^".join(words) + end
    if draw(st.booleans()):
        return keyword, fuzzy("PN", ValueList((key, "Nobody"), every=draw(st.booleans())))
    plain = WildCard(key) if "*" in key or "?" in key else SingleValue(key)
    return keyword, fuzzy("PN", plain)


@_SETTINGS
@given(key=_sounding())
@example(key=("PatientName", fuzzy("PN", SingleValue("jayne doh"))))
@example(key=("OtherPatientNames", fuzzy("PN", SingleValue("an rho"))))
@example(key=("PatientName", fuzzy("PN", ValueList(("jayne doh", "grose"), every=False))))
@example(key=("OtherPatientNames", fuzzy("PN", ValueList(("ann roe", "jayne doh"), every=True))))
@example(key=("PatientName", fuzzy("PN", WildCard("dionys*"))))
# Its code is not the beginning of that of Rudiger: only the plain match finds it.
@example(key=("PatientName", fuzzy("PN", WildCard("aneas^rudig*"))))
def test_search_and_reference_agree_on_fuzzy_names(matched, key: tuple[str, Match]) -> None:
    """PS3.4 C.2.2.2.1.1."""
    found, expected = matched(*key)

    assert found == expected


_TELLING: list[tuple[str, Match]] = [
    ("PatientName", fuzzy("PN", ValueList(("jayne doh", "grose"), every=False))),
    ("OtherPatientNames", fuzzy("PN", ValueList(("ann roe", "jayne doh"), every=True))),
    ("PatientName", WildCard("aneas*")),
    ("PatientName", WildCard("ob^*")),
    ("PatientName", WildCard("^^^*")),
    ("PatientName", SingleValue("OB\\roe^ann")),
    ("AccessionNumber", SingleValue("CT\\head")),
    ("AccessionNumber", WildCard("CT\\*")),
    ("PatientName", SingleValue("DOE^JANE")),
    ("PatientName", SingleValue("山田^太郎")),
    ("PatientName", WildCard("*=山田*=")),
    ("PatientName", WildCard("Hong^*=洪*=홍^길동")),
    ("PatientName", SingleValue("Yamada^Tarou==やまだ^たろう")),
    ("PatientName", SingleValue("GROSS")),
    ("PatientName", WildCard("100%_SURE*")),
    ("OtherPatientNames", SingleValue("roe^ann")),
    ("OtherPatientNames", WildCard("=王*")),
    ("AccessionNumber", WildCard("100%*")),
    ("AccessionNumber", WildCard("a_b*")),
    ("AccessionNumber", WildCard("*[*")),
    ("AccessionNumber", WildCard("*]*")),
    ("AccessionNumber", WildCard("\ud7ff*")),
    ("AccessionNumber", WildCard("\U0010ffff*")),
    ("AccessionNumber", WildCard("ct*")),
    ("AccessionNumber", WildCard("?")),
    ("OtherPatientIDs", SingleValue("PRIMARY")),
    ("OtherPatientIDs", SingleValue("B%")),
    ("OtherPatientIDs", WildCard("prim*")),
    ("ProcedureCodeSequence", SequenceMatch(((0x00080100, "SH", SingleValue("CT1")),))),
    ("ProcedureCodeSequence", SequenceMatch(((0x00080100, "SH", WildCard("CT%*")),))),
]


def test_search_and_reference_agree_on_telling_keys(matched) -> None:
    for keyword, match in _TELLING:
        found, expected = matched(keyword, match)

        assert expected, f"{match} matches nothing and so tells nothing"
        assert found == expected, (keyword, match)


_HOSTILE = ["a\0b", "\ud800", "*" * 1024 + "a", "*a" * 500, "[" * 1024, "\\" * 999]


def test_search_hostile_keys_match_what_the_reference_says(matched) -> None:
    for keyword in ("PatientName", "AccessionNumber", "OtherPatientIDs"):
        for hostile in _HOSTILE:
            for match in (SingleValue(hostile), WildCard(hostile), WildCard(hostile + "*")):
                found, expected = matched(keyword, match)
                assert found == expected, (keyword, match)
    for hostile in _HOSTILE:
        keys = tuple((0x00080100 + number, "SH", SingleValue(hostile)) for number in range(1000))
        assert matched("ProcedureCodeSequence", SequenceMatch(keys)) == (set(), set())


def test_search_uid_list_longer_than_the_parameters_of_a_statement(
    index: Index, make_record, make_query
) -> None:
    index.ingest_batch([make_record(f"1.{n}", f"1.{n}.1") for n in range(10)])
    uids = tuple(f"1.{n}" for n in range(5, 70_000))

    found = index.search(make_query(Level.STUDY, {"StudyInstanceUID": UidList(uids)}))

    assert {record["StudyInstanceUID"] for record in found} == {f"1.{n}" for n in range(5, 10)}


@pytest.mark.parametrize("keyword", ["PatientName", "OtherPatientNames", "OtherPatientIDs"])
@pytest.mark.parametrize("every", [False, True])
def test_search_longest_list_of_values_is_one_statement(
    index: Index, make_record, make_query, keyword: str, every: bool
) -> None:
    index.ingest_batch(
        [make_record("1.1", **{keyword: "Doe^Jane"}), make_record("1.2", PatientID="P-2")]
    )
    listed = ValueList((*(f"Doe^{number}" for number in range(255)), "Doe^Jane"), every)

    found = index.search(make_query(Level.STUDY, {keyword: listed}))

    assert [one["StudyInstanceUID"] for one in found] == ([] if every else ["1.1"])


@pytest.mark.parametrize(
    ("prefix", "successor"),
    [("", None), ("a", "b"), ("a\U0010ffff", "b"), ("\U0010ffff", None), ("\ud7ff", "\ue000")],
)
def test_successor_is_the_next_text_in_byte_order(prefix: str, successor: str | None) -> None:
    assert _successor(prefix) == successor
    if successor is not None:
        assert f"{prefix}\U0010ffff".encode() < successor.encode()
