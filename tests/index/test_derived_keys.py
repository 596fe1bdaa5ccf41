"""Keys made from stored values: parsed, compiled and run, they select what the reference says (PS3.4 C.2.2.2).

Unlike in ``test_conditions`` the whole way from the element of a request is taken, for every VR. A tally makes sure
that the keys meet the values: a comparison of two empty sets tells nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from pacs.dicom.attributes import BY_KEYWORD
from pacs.dicom.levels import Level
from pacs.dicom.query.identifier import Condition, _conditions
from pacs.dicom.query.matching import parse_match
from pacs.dicom.query.query_options import MatchingRules
from pacs.errors import InvalidIdentifier
from pacs.index.index import Index

_CODE = '{{"00080100":{{"vr":"SH","Value":["{}"]}},"00080104":{{"vr":"LO","Value":["{}"]}}}}'
_POOLS: dict[str, list[str]] = {
    "PatientName": [
        "Doe^Jane",
        "DOE^JANE^^Dr",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "Müller^Jürgen",
        "100%_sure",
        "=王^小东",
    ],
    "OtherPatientNames": ["Doe^Jane\\Roe^Ann", "roe^ann", "X\\=王^小东"],
    "PatientBirthDate": ["19500000", "UNKNOWN", "19491231", "19500101", "1950", "20240229"],
    "PatientComments": ["line\\one", "100% [a]_b", "100% [a]xb", "a*b?"],
    "OtherPatientIDs": ["A\\B%\\C_", "A", "B%", "a\\AB"],
    "StudyDate": ["20240229", "20240301", "20231231"],
    "StudyTime": ["10", "1015", "10:15:30", "101530.5", "235960", "noon"],
    "AccessionNumber": ["A-1", "a-1", "A_1", "A%1", "A[1]", '""', "01", "1"],
    "PatientWeight": ["70", "70.0", "7E1", "70.5", "heavy"],
    "ProcedureCodeSequence": [
        f"[{_CODE.format('CT1', 'Head')}]",
        f"[{_CODE.format('CT1', 'Chest')},{_CODE.format('CT%', 'Head')}]",
        '[{"00080100":{"vr":"SH","Value":["CT1"]},"00080104":{"vr":"LO"}}]',
        "[{}]",
    ],
    "Modality": ["CT", "MR", "SR"],
    "SeriesNumber": ["1", "10", "-1"],
    "BodyPartExamined": ["HEAD", "CHEST"],
    "RequestAttributesSequence": [
        '[{"00400009":{"vr":"SH","Value":["S1"]},"0040A170":{"vr":"SQ","Value":['
        + _CODE.format("R1", "why")
        + "]}}]",
    ],
    "AcquisitionDateTime": ["20240229101530+0100", "20240229", "2024", "20240229091530.25"],
    "ImageType": ["ORIGINAL\\PRIMARY", "PRIMARY\\ORIGINAL\\AXIAL", "DERIVED"],
    "SliceLocation": ["-1.5", "-1.50", "3"],
    "Rows": ["512", "64"],
    "FrameOfReferenceUID": ["1.2.3", "1.2.30"],
}
_COMPUTED = ["ModalitiesInStudy", "NumberOfStudyRelatedSeries", "SOPInstanceUID"]
_NEGOTIATED = MatchingRules(empty_values=True, multiple_values=True)
_RULES = [MatchingRules(), _NEGOTIATED, MatchingRules(unknown_matches=True)]
_ROWS = 40

_Row = dict[str, str | None]
_Key = tuple[str, Any, MatchingRules]


def _values_of(number: int) -> dict[str, str]:
    """The n-th value of each pool; every pool has rows without one."""
    chosen = {}
    for keyword, pool in _POOLS.items():
        place = number % (len(pool) + 1)
        if place < len(pool):
            chosen[keyword] = pool[place]
    return chosen


@pytest.fixture
def search(index: Index, make_record: Any, make_query: Any) -> Callable[..., list[_Row]]:
    """Stores the rows; searches at IMAGE level with conditions."""
    index.ingest_batch(
        [
            make_record(
                f"1.{number // 3}.{number % 2}",
                f"1.{number}.1",
                f"1.{number}.1.1",
                **(
                    {"PatientID": f"P{number // 3}", "Modality": ""}
                    | _values_of(number)
                    # One study, one patient: its first instance says what it is.
                    | {
                        k: v
                        for k, v in _values_of(number - number % 3 + number % 2).items()
                        if BY_KEYWORD[k].level <= Level.STUDY
                    }
                    | {"IssuerOfPatientID": f"{number // 3}.{number % 2}"}
                ),
            )
            for number in range(_ROWS)
        ]
    )

    def run(keyword: str, conditions: tuple[Condition, ...]) -> list[_Row]:
        query = make_query(Level.IMAGE, returns=[keyword])
        return [dict(row) for row in index.search(replace(query, conditions=conditions))]

    return run


def _at(draw: st.DrawFn, text: str) -> int:
    return draw(st.integers(0, max(len(text) - 1, 0)))


def _text(draw: st.DrawFn, value: str, pool: list[str]) -> str:
    """A text as it is, with wild cards, with one character off, in another case, in a list."""
    at = _at(draw, value)
    off = chr(ord(value[at]) ^ 1) if value[at].isalnum() else value[at]
    return draw(
        st.sampled_from(
            [
                value,
                value,
                value[:at] + "*",
                "*" + value[at:],
                value[:at] + "*" + value[at + 1 :],
                value[:at] + "?" + value[at + 1 :],
                value[:at] + off + value[at + 1 :],
                value[:at] + "_" + value[at + 1 :] + "*",
                "%" + value[at:] + "*",
                # Behind a wild card, where no range of a literal prefix hides what it means.
                "*" + value[:at] + "_" + value[at + 1 :],
                "*%" + value[at + 1 :],
                value.swapcase(),
                "*" + value[at:].swapcase(),
                value + " ",
                value + "?",
                f"{value}\\{draw(st.sampled_from(pool))}",
                f"{value}\\nobody",
                '""',
            ]
        )
    )


def _moment(draw: st.DrawFn, value: str, pool: list[str]) -> str:
    """A date or time as it is, cut short, as either end of a range, one digit off."""
    other = draw(st.sampled_from(pool))
    at = _at(draw, value)
    off = chr(ord(value[at]) ^ 1) if value[at].isdigit() else value[at]
    return draw(
        st.sampled_from(
            [
                value,
                value[:4],
                value[:2],
                f"{value}-",
                f"-{value}",
                "-".join(sorted((value, other))),
                value[:at] + off + value[at + 1 :],
                f"{value[:at] + off + value[at + 1 :]}-",
                '""',
            ]
        )
    )


def _number(draw: st.DrawFn, value: str, _pool: list[str]) -> str:
    return draw(st.sampled_from([value, value, f"0{value}", f"{value}.0", f"{value}1", '""']))


def _uid(draw: st.DrawFn, value: str, pool: list[str]) -> str:
    return draw(st.sampled_from([value, value[:-1], "\\".join(pool), f"{value}\\1.9", '""']))


_MAKERS = {"DA": _moment, "TM": _moment, "DT": _moment, "UI": _uid} | dict.fromkeys(
    ("DS", "IS", "US"), _number
)


def _item(draw: st.DrawFn, item: dict[str, Any]) -> Dataset:
    """An Item with some of the Attributes of a stored one as keys."""
    key = Dataset()
    for tag in draw(st.lists(st.sampled_from(sorted(item)), unique=True) if item else st.just([])):
        vr, value = item[tag]["vr"], item[tag].get("Value", [""])[0]
        wanted: Any = [_item(draw, value)] if vr == "SQ" else ""
        if vr != "SQ" and value:
            wanted = _text(draw, value, ["CT1", "Head"])
        key.add(DataElement(int(tag, 16), vr, wanted, validation_mode=config.IGNORE))
    return key


@st.composite
def _keys(draw: st.DrawFn) -> _Key:
    keyword = draw(st.sampled_from([*sorted(_POOLS), *_COMPUTED]))
    rules = draw(st.sampled_from(_RULES))
    vr = BY_KEYWORD[keyword].vr
    if keyword in _COMPUTED:
        pool = {"CS": ["CT", "MR"], "IS": ["1", "2"], "UI": ["1.1.1.1", "1.2.1.1"]}[vr]
    else:
        pool = _POOLS[keyword]
    value = draw(st.sampled_from(pool))
    if vr == "SQ":
        return keyword, [_item(draw, draw(st.sampled_from(json.loads(value))))], rules
    if vr != "LT" and draw(st.booleans()):
        value = draw(st.sampled_from(value.split("\\")))
    key = _MAKERS.get(vr, _text)(draw, value, pool)
    if key == '""' or "\\" in key:  # they mean the most where that is negotiated
        rules = draw(st.sampled_from([_NEGOTIATED, rules]))
    return keyword, key, rules


def test_search_and_reference_agree_on_keys_derived_from_stored_values(
    search: Callable[..., list[_Row]],
) -> None:
    everything: dict[str, list[_Row]] = {}
    tally: Counter[str] = Counter()

    @settings(
        max_examples=500,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(key=_keys())
    @example(key=("ModalitiesInStudy", "CT\\SR", _NEGOTIATED))
    @example(key=("OtherPatientNames", "doe^jane\\roe^ann", _NEGOTIATED))
    def compare(key: _Key) -> None:
        keyword, value, rules = key
        attribute = BY_KEYWORD[keyword]
        element = DataElement(
            attribute.tag,
            attribute.vr,
            value,
            validation_mode=config.IGNORE,
            already_converted=True,
        )
        try:
            match = parse_match(attribute.vr, element, rules=rules)
        except InvalidIdentifier:
            tally["refused"] += 1
            return
        conditions = _conditions({attribute: match}, rules)
        rows = everything.setdefault(keyword, search(keyword, ()))
        expected = {
            row["SOPInstanceUID"]
            for row in rows
            if all(condition.holds_for(row[keyword]) for condition in conditions)
        }

        found = [row["SOPInstanceUID"] for row in search(keyword, conditions)]

        assert set(found) == expected, (keyword, match)
        assert len(found) == len(set(found))
        tally["some" if 0 < len(expected) < len(rows) else "all or none"] += 1
        tally[type(match).__name__] += bool(expected)

    compare()

    assert tally["some"] > 0.5 * (tally["some"] + tally["all or none"]), tally
    assert tally["refused"] < 0.25 * tally.total(), tally
    for kind in ("SingleValue", "WildCard", "Range", "SequenceMatch", "EmptyValue", "ValueList"):
        assert tally[kind] > 1, tally
