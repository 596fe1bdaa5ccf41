"""Times of frames by their functional groups (PS3.4 Y.3.2.1.3)."""

from __future__ import annotations

from io import BytesIO

import pytest

from pacs.dicom.encoding.layout import read_layout
from pacs.dicom.encoding.part10 import read_file_meta
from pacs.dicom.frames.frame_times import frame_times
from pacs.errors import NotTimeBased
from tests.factories import add, part10
from tests.multiframe import make_multiframe, with_functional_groups


def times(*date_times: str, **keywords: object) -> list[float]:
    """The times of frames with these Frame Acquisition DateTimes; Content Time is 10:15:30."""
    source = with_functional_groups(
        make_multiframe(len(date_times), FrameTime=None, FrameIncrementPointer=None, **keywords)
    )
    for group, text in zip(source.PerFrameFunctionalGroupsSequence, date_times, strict=True):
        add(group.FrameContentSequence[0], "FrameAcquisitionDateTime", text)
    stream = BytesIO(part10(source))
    meta = read_file_meta(stream)
    layout = read_layout(stream, meta.transfer_syntax_uid, meta.data_set_offset)
    entry = layout.entry(0x52009230)
    assert entry is not None
    items = layout.reader.items(entry.header, layout.encoding)
    groups = [(content, end) for _, content, end in items]
    return frame_times(layout, None, len(groups), groups)


def test_times_are_seconds_after_content_time() -> None:
    assert times("20240229101530", "20240229101530.25", "20240229101560") == [0, 0.25, 30]


def test_offsets_from_utc_are_heeded_where_both_are_known() -> None:
    zone = {"TimezoneOffsetFromUTC": "+0100"}

    assert times("20240229101531+0100", "20240229091532+0000", **zone) == [1, 2]
    assert times("20240229101531", **zone) == [1]
    assert times("20240229101531+0100") == [1]


def test_offset_beyond_all_time_zones_is_none() -> None:
    """PS3.3 C.12.1.1.8: -1200 to +1400."""
    assert times("20240229101531+1430", TimezoneOffsetFromUTC="+0100") == [1]
    assert times("20240229101531+0100", TimezoneOffsetFromUTC="-1230") == [1]


@pytest.mark.parametrize("text", ["", "20240229", "202402291015", "20241329101530", "yesterday"])
def test_a_time_that_does_not_tell_frames_apart_is_none(text: str) -> None:
    with pytest.raises(NotTimeBased):
        times("20240229101530", text)
