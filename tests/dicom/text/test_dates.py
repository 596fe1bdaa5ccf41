from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.dicom.text.dates import canonical, canonical_upper


@pytest.mark.parametrize(
    ("vr", "text", "lower", "upper"),
    [
        ("DA", "20240229", "20240229", "20240229"),
        ("DA", "2024.02.29", "20240229", "20240229"),
        ("DA", " 20240229 ", "20240229", "20240229"),
        ("TM", "10", "100000.000000", "105959.999999"),
        ("TM", "1015", "101500.000000", "101559.999999"),
        ("TM", "101530", "101530.000000", "101530.999999"),
        ("TM", "101530.5", "101530.500000", "101530.599999"),
        ("TM", "10:15:30", "101530.000000", "101530.999999"),
        ("TM", "101530.1234567", "101530.123456", "101530.123456"),
        ("TM", "235960", "235960.000000", "235960.999999"),
        ("DT", "2024", "20240101000000.000000", "20241231235959.999999"),
        ("DT", "202402", "20240201000000.000000", "20240229235959.999999"),
        ("DT", "20240229", "20240229000000.000000", "20240229235959.999999"),
        ("DT", "202402291015", "20240229101500.000000", "20240229101559.999999"),
        ("DT", "20240229101530.25", "20240229101530.250000", "20240229101530.259999"),
        ("DT", "20240101003000+0100", "20231231233000.000000", "20231231233000.999999"),
        ("DT", "19980128073000-0300", "19980128103000.000000", "19980128103000.999999"),
        ("DT", "0001", "00010101000000.000000", "00011231235959.999999"),
    ],
)
def test_canonical_valid_value_gives_its_first_and_last_moment(
    vr: str, text: str, lower: str, upper: str
) -> None:
    assert canonical(vr, text) == lower
    assert canonical_upper(vr, text) == upper


@pytest.mark.parametrize(
    ("vr", "text"),
    [
        ("DA", ""),
        ("DA", "20240230"),
        ("DA", "2024.0229"),
        ("DA", "202402"),
        ("DA", "20240229\n"),
        ("DA", "٢٠٢٤٠٢٢٩"),
        ("DA", "00000101"),
        ("TM", "24"),
        ("TM", "1060"),
        ("TM", "101561"),
        ("TM", "1015.5"),
        ("TM", "1"),
        ("TM", "101530."),
        ("DT", "20240230101530"),
        ("DT", "20240101+1500"),
        ("DT", "20240101-1230"),
        ("DT", "20240101+0160"),
        ("DT", "0001+1400"),
        ("DT", "9999-1200"),
        ("LO", "20240229"),
    ],
)
def test_canonical_invalid_value_gives_none(vr: str, text: str) -> None:
    assert canonical(vr, text) is None
    assert canonical_upper(vr, text) is None


@given(st.sampled_from(["DA", "TM", "DT"]), st.text(alphabet="0123456789.:+- \\", max_size=30))
def test_canonical_any_text_gives_a_sound_span_or_none(vr: str, text: str) -> None:
    lower, upper = canonical(vr, text), canonical_upper(vr, text)

    assert (lower is None) == (upper is None)
    if lower is not None and upper is not None:
        assert lower <= upper
        assert len(lower) == len(upper) == {"DA": 8, "TM": 13, "DT": 21}[vr]


@given(st.times(), st.times())
def test_canonical_text_order_of_times_is_their_order(one: object, other: object) -> None:
    first, second = (canonical("TM", f"{time:%H%M%S.%f}") for time in (one, other))

    assert first is not None
    assert second is not None
    assert (first < second) == (one < other)  # type: ignore[operator]  # both are datetime.time
