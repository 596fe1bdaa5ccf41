"""Which frames of a multi-frame instance a request wants (PS3.4 Y.3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pacs.dicom.error_comment import about
from pacs.errors import FramesNotFound, InvalidFrameRequest

#: The Frame level keys (PS3.4 Table Y.6-2); exactly one of them is present.
FRAME_KEYS = ("SimpleFrameList", "CalculatedFrameList", "TimeRange")

# Times are floating point seconds: a frame that lies on the border is within.
_TOLERANCE_SECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class FrameSelection:
    """A Frame level key and its values, checked as far as that goes without the instance."""

    keyword: str
    values: tuple[int, ...] | tuple[float, ...]

    @property
    def is_by_time(self) -> bool:
        """Whether the times of the frames are needed."""
        return self.keyword == "TimeRange"

    def frames(self, count: int, times: Sequence[float] = ()) -> list[int]:
        """The numbers of the frames wanted of ``count``, ascending from one.

        ``times`` are those of all frames in seconds after Content Time, if they are needed.

        Raises:
            FramesNotFound: none of them is there.
            InvalidFrameRequest: the list does not fit the instance.
        """
        found = _EXPANSIONS[self.keyword](self, count, times)
        if not found:
            raise FramesNotFound(f"None of the frames requested is among the {count} there are")
        return found

    def refuse(self, why: str) -> NoReturn:
        """Refuse the request for what is wrong with this key."""
        _refuse(self.keyword, why)


def parse_frame_selection(identifier: Dataset) -> FrameSelection:
    """Read the Frame level key of an Identifier.

    Raises:
        InvalidFrameRequest: there is not exactly one, or its values break a rule of PS3.4 Y.3.2.1.
    """
    present = [keyword for keyword in FRAME_KEYS if keyword in identifier]
    if len(present) != 1:
        problem = (
            "stands beside another Frame level key"
            if present
            else "or another Frame key is missing"
        )
        offending = tuple(int(Tag(keyword)) for keyword in present or FRAME_KEYS)
        raise InvalidFrameRequest(about(offending[0], problem), offending=offending)
    [keyword] = present
    selection = FrameSelection(keyword, _values(identifier, keyword))
    _CHECKS[keyword](selection)
    return selection


def _values(identifier: Dataset, keyword: str) -> tuple[Any, ...]:
    expected: type = float if keyword == "TimeRange" else int
    try:
        value = identifier[keyword].value
        values = (
            tuple(value) if isinstance(value, (list, tuple)) or _is_multiple(value) else (value,)
        )
    except Exception:  # noqa: BLE001 - pydicom raises anything on what it cannot decode
        _refuse(keyword, "cannot be read")
    if not values or not all(type(one) is expected for one in values):
        _refuse(keyword, "has no value" if values in ((), (None,)) else "cannot be read")
    return values


def _is_multiple(value: object) -> bool:
    return hasattr(value, "append")


def _check_simple(selection: FrameSelection) -> None:
    values = selection.values
    if values[0] < 1:
        selection.refuse("has frame 0; the first is 1")
    if any(later <= earlier for earlier, later in pairwise(values)):
        selection.refuse("does not ascend")


def _check_calculated(selection: FrameSelection) -> None:
    values = selection.values
    if len(values) % 3:
        selection.refuse("is not made of triplets")
    for first, last, increment in zip(values[::3], values[1::3], values[2::3], strict=True):
        if first < 1:
            selection.refuse("has frame 0; the first is 1")
        if last < first:
            selection.refuse(f"has the reversed range {first} to {last}")
        if increment < 1:
            selection.refuse("has an increment of 0")


def _check_time(selection: FrameSelection) -> None:
    values = selection.values
    if len(values) != 2 or not all(math.isfinite(value) for value in values):
        selection.refuse("needs a start and an end")
    if values[1] < values[0]:
        selection.refuse("is reversed")


def _expand_simple(selection: FrameSelection, count: int, _: Sequence[float]) -> list[int]:
    wanted = [int(value) for value in selection.values]
    found = [frame for frame in wanted if frame <= count]
    if found and len(found) < len(wanted):
        selection.refuse(f"contains frame {wanted[len(found)]} of {count}")
    return found


def _expand_calculated(selection: FrameSelection, count: int, _: Sequence[float]) -> list[int]:
    values = [int(value) for value in selection.values]
    found: list[int] = []
    before = 0
    for first, last, increment in zip(values[::3], values[1::3], values[2::3], strict=True):
        if first <= before:
            selection.refuse("overlaps or does not ascend")
        # PS3.4 Y.3.2.1.2: a sub-range beyond the last frame is ignored, one that ends there is cut (FFFFFFFFH).
        within = range(first, min(last, count) + 1, increment)
        found.extend(within)
        before = within[-1] if within else first
    return found


def _expand_time(selection: FrameSelection, count: int, times: Sequence[float]) -> list[int]:
    begin, end = selection.values
    return [
        number
        for number, time in zip(range(1, count + 1), times, strict=True)
        if begin - _TOLERANCE_SECONDS <= time <= end + _TOLERANCE_SECONDS
    ]


def _refuse(keyword: str, why: str) -> NoReturn:
    tag = int(Tag(keyword))
    raise InvalidFrameRequest(about(tag, why), offending=(tag,))


_CHECKS: dict[str, Callable[[FrameSelection], None]] = {
    "SimpleFrameList": _check_simple,
    "CalculatedFrameList": _check_calculated,
    "TimeRange": _check_time,
}
_EXPANSIONS: dict[str, Callable[[FrameSelection, int, Sequence[float]], list[int]]] = {
    "SimpleFrameList": _expand_simple,
    "CalculatedFrameList": _expand_calculated,
    "TimeRange": _expand_time,
}
