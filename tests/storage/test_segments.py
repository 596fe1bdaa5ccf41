from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pacs.errors import StorageFull, StorageUnavailable
from pacs.storage import segments
from pacs.storage.segments import LogEntry, SegmentWriter, read_segments

_SEGMENT_BYTES = 4096


@pytest.fixture
def writer(tmp_path: Path) -> SegmentWriter:
    return SegmentWriter(tmp_path, _SEGMENT_BYTES)


def _payload(sequence: int, size: int = 100) -> bytes:
    return (b"%08d" % sequence) + bytes([sequence % 256]) * (size - 8)


def _entries(first: int, last: int, size: int = 100) -> list[LogEntry]:
    return [LogEntry(one, _payload(one, size)) for one in range(first, last + 1)]


def _append(writer: SegmentWriter, first: int, last: int, size: int = 100) -> None:
    writer.append(first, [_payload(one, size) for one in range(first, last + 1)])


def test_what_was_appended_is_read_in_order_over_several_segments(
    writer: SegmentWriter, tmp_path: Path
) -> None:
    _append(writer, 1, 1)
    _append(writer, 2, 90)
    _append(writer, 91, 91)
    writer.close()

    assert list(read_segments(tmp_path)) == _entries(1, 91)
    assert len(list(tmp_path.iterdir())) == 3
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {_SEGMENT_BYTES}


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, _SEGMENT_BYTES - 96])
def test_payload_of_any_size_is_read_as_it_was(
    writer: SegmentWriter, tmp_path: Path, size: int
) -> None:
    payload = os.urandom(size)
    writer.append(1, [payload, b"next"])

    assert list(read_segments(tmp_path)) == [LogEntry(1, payload), LogEntry(2, b"next")]
    assert writer.longest_payload == _SEGMENT_BYTES - 96


def test_released_segment_is_used_again_and_what_is_left_in_it_is_no_entry(
    writer: SegmentWriter, tmp_path: Path
) -> None:
    _append(writer, 1, 60)  # two segments
    writer.release(59)
    assert len(list(tmp_path.iterdir())) == 2
    _append(writer, 61, 70)  # into the first again, not to its end

    assert [entry.sequence for entry in read_segments(tmp_path)] == list(range(32, 71))
    assert len(list(tmp_path.iterdir())) == 2


def test_segments_beyond_those_kept_for_use_go(writer: SegmentWriter, tmp_path: Path) -> None:
    _append(writer, 1, 300)
    assert len(list(tmp_path.iterdir())) == 10

    writer.release(300)

    assert len(list(tmp_path.iterdir())) == 3
    assert [entry.sequence for entry in read_segments(tmp_path)][-1] == 300


def test_segment_with_one_entry_that_is_needed_stays(writer: SegmentWriter, tmp_path: Path) -> None:
    _append(writer, 1, 60)
    writer.release(30)  # the first segment holds 31
    _append(writer, 61, 62)

    assert list(read_segments(tmp_path)) == _entries(1, 62)


def test_log_cut_at_any_byte_holds_the_entries_before(
    writer: SegmentWriter, tmp_path: Path
) -> None:
    _append(writer, 1, 3, size=21)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    ends = [64 + number * 48 - 3 for number in (1, 2, 3)]  # without the padding

    for cut in range(64, 64 + 3 * 48):
        path.write_bytes(whole[:cut] + bytes(_SEGMENT_BYTES - cut))
        found = list(read_segments(tmp_path))
        # The payload may end in zeros, which are there already.
        expected = sum(whole[64:end] == path.read_bytes()[64:end] for end in ends)
        assert found == _entries(1, expected, size=21), cut


def test_changed_bit_is_no_entry_and_loss_in_the_middle_is_logged(
    writer: SegmentWriter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _append(writer, 1, 60)
    first = min(tmp_path.iterdir())
    data = bytearray(first.read_bytes())
    data[64 + 29 * 128 + 40] ^= 1  # in entry 30 of 31
    first.write_bytes(data)

    assert [entry.sequence for entry in read_segments(tmp_path)] == [
        *range(1, 30),
        *range(32, 61),
    ]
    assert caplog.messages == [f"{first} is damaged: 2 entries of the log are lost"]


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
def test_failed_append_counts_for_nothing_and_its_numbers_are_used_again(
    writer: SegmentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    _append(writer, 1, 2)
    real = getattr(os, call)

    def fail(*arguments: object) -> int:
        if call == "fdatasync":
            real(*arguments)  # the bytes are there, nobody knows
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(segments.os, call, fail)
        with pytest.raises(StorageUnavailable, match="log"):
            writer.append(3, [b"never acknowledged", b"nor this", b"or this"])
    writer.append(3, [b"in its place"])

    assert list(read_segments(tmp_path)) == [*_entries(1, 2), LogEntry(3, b"in its place")]


def test_full_disk_leaves_no_half_segment(
    writer: SegmentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(segments.os, "pwritev", full)
        with pytest.raises(StorageFull):
            _append(writer, 1, 1)
    assert list(tmp_path.iterdir()) == []

    _append(writer, 1, 1)
    assert list(read_segments(tmp_path)) == _entries(1, 1)


def test_write_that_is_cut_short_is_completed(
    writer: SegmentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _append(writer, 1, 1)
    pwritev = os.pwritev
    monkeypatch.setattr(
        segments.os, "pwritev", lambda fd, buffers, at: pwritev(fd, [buffers[0][:5]], at)
    )

    _append(writer, 2, 3)

    assert list(read_segments(tmp_path)) == _entries(1, 3)


def test_strange_files_are_passed_over(writer: SegmentWriter, tmp_path: Path) -> None:
    _append(writer, 1, 1)
    (tmp_path / "7.segment").write_bytes(b"")
    (tmp_path / "8.segment").write_bytes(os.urandom(500))
    (tmp_path / "notes.txt").write_text("PACSLOG1")

    assert list(read_segments(tmp_path)) == _entries(1, 1)
