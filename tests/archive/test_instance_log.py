"""The log in front of the index: what is acknowledged after one flush is found at once, and is at its place soon."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pacs.archive import instance_log, settler
from pacs.archive.archive import Archive
from pacs.archive.check import Finding
from pacs.archive.indexing import conclude
from pacs.archive.instance_log import InstanceLog
from pacs.archive.log_replay import recover, replay_abandoned
from pacs.archive.redo import Redo
from pacs.archive.store import store
from pacs.errors import (
    DuplicateInstance,
    IndexUnavailable,
    PacsError,
    StorageFull,
    StorageUnavailable,
)
from pacs.index import tables
from pacs.index.index import Index
from pacs.model.instances import DuplicatePolicy, IngestOutcome, InstanceRecord, Origin
from pacs.storage.filesystem import FilesystemStorage
from tests.archive.holdings import (
    EXPLICIT,
    contents,
    findings,
    location_of,
    make_slice,
    spool,
    stored_locations,
)
from tests.factories import make_instance, part10
from tests.outages import index_outage
from tests.peers import data_set_bytes, database_url_of, stored_bytes, wait_until

#: Together more than is kept with its entry in the log.
_LARGE = {"ImageComments": "x" * 64_000, "StudyComments": "y" * 4_000}


def with_log(archive: Archive) -> Archive:
    """As ``pacs.server.with_log``."""
    log = InstanceLog(
        archive.storage,
        archive.index,
        archive.storage.log_directory,
        lambda record, result: conclude(archive, record, instance_log.POLICY, result),
    )
    archive.index.before_reads(log.wait_until_indexed)
    return dataclasses.replace(archive, log=log)


@pytest.fixture
def logging_archive(archive: Archive) -> Iterator[Archive]:
    logging = with_log(archive)
    yield logging
    log_of(logging).close()


def log_of(archive: Archive) -> InstanceLog:
    assert archive.log is not None
    return archive.log


def send(archive: Archive, instance: Any, syntax: str = EXPLICIT) -> IngestOutcome:
    return store(archive, spool(archive, part10(instance)), Origin("CT1", syntax)).outcome


def logs(archive: Archive) -> list[Path]:
    root = archive.storage.log_directory
    return sorted(root.iterdir()) if root.exists() else []


def positions(archive: Archive) -> Sequence[Any]:
    with archive.index._engine.read() as connection:
        return connection.execute(sa.select(tables.log_position)).all()


def test_what_is_logged_ends_up_as_what_is_stored_directly(
    archive: Archive, tmp_path: Path
) -> None:
    instances = [make_slice(1), make_slice(2, PatientName="Other^Name"), make_instance()]
    instances += [make_slice(3), make_slice(1, Rows=9), make_slice(3)]
    for instance in instances:
        send(archive, instance)
    expected = contents(archive.index)
    for _, uid in [("", row.sop_instance_uid) for row in archive.index.locations()]:
        archive.storage.remove(archive.index.remove(uid) or "")

    logging = with_log(archive)
    outcomes = [send(logging, instance) for instance in instances]
    log_of(logging).close()

    assert outcomes == [IngestOutcome.ACCEPTED] * 6
    assert contents(archive.index) == expected
    assert findings(archive) == {Finding.SOUND: 4}
    assert stored_bytes(archive, "1.2.3.1.1") == data_set_bytes(instances[4])
    assert logs(archive) == []
    assert positions(archive) == []


def test_reader_of_the_process_finds_what_was_acknowledged(logging_archive: Archive) -> None:
    for number in range(1, 30):
        send(logging_archive, make_slice(number))

        assert logging_archive.index.stats().instances == number
        assert stored_bytes(logging_archive, f"1.2.3.1.{number}")


def test_other_process_finds_it_a_moment_later(logging_archive: Archive) -> None:
    other = Index.open(database_url_of(logging_archive), upgrade=False)
    try:
        send(logging_archive, make_slice(1))
        acknowledged = time.monotonic()
        while other.find_by_uid("1.2.3.1.1") is None:
            assert time.monotonic() - acknowledged < 5
            time.sleep(0.005)
    finally:
        other.close()


@pytest.mark.parametrize("large", [False, True])
def test_later_instance_stays_and_the_file_of_the_earlier_goes(
    logging_archive: Archive, large: bool
) -> None:
    size = _LARGE if large else {}
    for rows in (1, 2, 3, 4):
        send(logging_archive, make_slice(1, Rows=rows, **size))
    last = make_slice(1, Rows=5)
    send(logging_archive, last)
    log_of(logging_archive).flush()

    assert stored_bytes(logging_archive, "1.2.3.1.1") == data_set_bytes(last)
    assert stored_locations(logging_archive) == [location_of(logging_archive, "1.2.3.1.1")]


def test_instance_stored_while_the_clock_was_ahead_does_not_stay_for_ever(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        hour_later = time.time_ns() + 3600 * 10**9
        patch.setattr(time, "time_ns", lambda: hour_later)
        send(archive, make_slice(1, Rows=1))
    # A process that has not seen that clock.
    storage = FilesystemStorage(archive.storage.root)
    logging = with_log(dataclasses.replace(archive, storage=storage))
    last = make_slice(1, Rows=2)

    send(logging, last)
    log_of(logging).close()
    storage.spool.close()

    assert stored_bytes(archive, "1.2.3.1.1") == data_set_bytes(last)
    assert stored_locations(archive) == [location_of(archive, "1.2.3.1.1")]


def test_instance_that_another_process_stored_meanwhile_stays(
    logging_archive: Archive, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_log, "_GATHER_SECONDS", 0.5)
    archive.index.before_reads(lambda: None)  # as in another process
    send(logging_archive, make_slice(1, Rows=1))
    later = make_slice(1, Rows=2)
    send(archive, later)
    log_of(logging_archive).flush()
    archive.redo.flush()

    assert stored_bytes(archive, "1.2.3.1.1") == data_set_bytes(later)
    assert stored_locations(archive) == [location_of(archive, "1.2.3.1.1")]


def test_identical_instance_leaves_one_file_and_mends_a_damaged_one(
    logging_archive: Archive,
) -> None:
    instance = make_slice(1)
    send(logging_archive, instance)
    log_of(logging_archive).flush()
    first = location_of(logging_archive, "1.2.3.1.1")

    send(logging_archive, instance)
    log_of(logging_archive).flush()
    assert stored_locations(logging_archive) == [first]

    logging_archive.storage.path(first).write_bytes(b"damaged")
    send(logging_archive, instance)
    log_of(logging_archive).flush()
    assert stored_bytes(logging_archive, "1.2.3.1.1") == data_set_bytes(instance)
    assert stored_locations(logging_archive) == [location_of(logging_archive, "1.2.3.1.1")]
    assert location_of(logging_archive, "1.2.3.1.1") != first


@pytest.mark.parametrize("policy", [DuplicatePolicy.KEEP, DuplicatePolicy.REFUSE])
def test_policy_that_asks_what_is_stored_is_answered_by_the_index(
    logging_archive: Archive, policy: DuplicatePolicy
) -> None:
    send(logging_archive, make_slice(1))
    archive = dataclasses.replace(logging_archive, duplicates=policy)

    assert send(archive, make_slice(2)) is IngestOutcome.STORED
    if policy is DuplicatePolicy.REFUSE:
        with pytest.raises(DuplicateInstance):
            send(archive, make_slice(1, Rows=9))
    else:
        assert send(archive, make_slice(1, Rows=9)) is IngestOutcome.KEPT
    assert stored_bytes(archive, "1.2.3.1.1") == data_set_bytes(make_slice(1))


def test_instances_of_many_threads_are_all_there(logging_archive: Archive) -> None:
    before = threading.active_count()
    errors: list[BaseException] = []

    def run(thread: int) -> None:
        try:
            for number in range(60):
                send(logging_archive, make_slice(1000 * thread + number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert logging_archive.index.stats().instances == 240
    log_of(logging_archive).close()

    assert errors == []
    assert findings(logging_archive) == {Finding.SOUND: 240}
    assert logs(logging_archive) == []
    assert threading.active_count() == before


def test_log_is_used_again_after_it_was_closed(logging_archive: Archive) -> None:
    send(logging_archive, make_slice(1))
    log_of(logging_archive).close()
    send(logging_archive, make_slice(2))
    log_of(logging_archive).close()

    assert logging_archive.index.stats().instances == 2
    assert logs(logging_archive) == []


# When index or storage fail


def test_index_that_fails_refuses_what_comes_and_keeps_what_was_acknowledged(
    logging_archive: Archive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(instance_log, "_PAUSE_SECONDS", 3600)
    with index_outage(database_url_of(logging_archive)):
        send(logging_archive, make_slice(1))
        wait_until(lambda: "1 instances stay in the log" in caplog.text)
        for number in (2, 3):
            with pytest.raises(IndexUnavailable):
                send(logging_archive, make_slice(number))
        assert len(logs(logging_archive)) == 2
        assert caplog.text.count("stay in the log") == 1
    # The next one finds the index well again, without anybody's help.
    send(logging_archive, make_slice(4))

    assert [row.sop_instance_uid for row in logging_archive.index.locations()] == [
        "1.2.3.1.1",
        "1.2.3.1.4",
    ]
    assert findings(logging_archive) == {Finding.SOUND: 2}


def test_storage_that_is_full_refuses_what_comes_and_keeps_what_was_acknowledged(
    logging_archive: Archive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise StorageFull("Disk full")

    with monkeypatch.context() as patch:
        patch.setattr(FilesystemStorage, "place_content", full)
        send(logging_archive, make_slice(1))
        wait_until(lambda: "1 instances stay in the log" in caplog.text)
        with pytest.raises(StorageFull):
            send(logging_archive, make_slice(2))
    send(logging_archive, make_slice(3))

    assert logging_archive.index.stats().instances == 2
    assert findings(logging_archive) == {Finding.SOUND: 2}


def test_nothing_is_accepted_below_an_empty_mount_point(logging_archive: Archive) -> None:
    send(logging_archive, make_slice(1))
    log_of(logging_archive).close()
    root = logging_archive.storage.root
    root.rename(root.with_name("away"))
    root.mkdir()

    with pytest.raises(StorageUnavailable):
        send(logging_archive, make_slice(2))

    assert list(root.iterdir()) == []
    root.rmdir()
    root.with_name("away").rename(root)
    send(logging_archive, make_slice(3))
    assert logging_archive.index.stats().instances == 2
    assert findings(logging_archive) == {Finding.SOUND: 2}


def test_reader_does_not_wait_for_what_cannot_be_indexed(
    logging_archive: Archive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise StorageFull("Disk full")

    with monkeypatch.context() as patch:
        patch.setattr(FilesystemStorage, "place_content", full)
        send(logging_archive, make_slice(1))
        wait_until(lambda: "1 instances stay in the log" in caplog.text)
        began = time.monotonic()
        assert logging_archive.index.stats().instances == 0
        assert time.monotonic() - began < 4
    wait_until(lambda: logging_archive.index.stats().instances == 1)


def test_index_that_falls_behind_makes_senders_wait_then_refuses(
    logging_archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_log, "_MOST_PENDING", 3)
    monkeypatch.setattr(instance_log, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(instance_log, "_READER_SECONDS", 0.1)
    go_on, ingest_batch = threading.Event(), Index.ingest_batch

    def wait(index: Index, *arguments: Any) -> Any:
        assert go_on.wait(30)
        return ingest_batch(index, *arguments)

    monkeypatch.setattr(Index, "ingest_batch", wait)
    for number in (1, 2, 3):
        send(logging_archive, make_slice(number))
    with pytest.raises(IndexUnavailable, match="falls behind"):
        send(logging_archive, make_slice(4))
    go_on.set()
    wait_until(lambda: logging_archive.index.stats().instances == 3)

    send(logging_archive, make_slice(5))

    assert findings(logging_archive) == {Finding.SOUND: 4}


def test_more_bytes_than_may_wait_are_made_durable_first(
    logging_archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_log, "_MOST_BYTES", 0)
    put: list[str] = []
    real = FilesystemStorage.put

    def note(storage: FilesystemStorage, spooled: Any) -> str:
        put.append(real(storage, spooled))
        return put[-1]

    monkeypatch.setattr(FilesystemStorage, "put", note)
    send(logging_archive, make_slice(1))

    assert put == [location_of(logging_archive, "1.2.3.1.1")]


def test_instance_that_cannot_be_indexed_does_not_hold_up_the_others(
    logging_archive: Archive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ingest_batch = Index.ingest_batch

    def refuse(index: Index, records: Sequence[InstanceRecord], *arguments: Any) -> Any:
        if any(record.header.sop_instance_uid == "1.2.3.1.2" for record in records):
            raise ValueError("nobody foresaw this")
        return ingest_batch(index, records, *arguments)

    monkeypatch.setattr(Index, "ingest_batch", refuse)
    monkeypatch.setattr(instance_log, "_GATHER_SECONDS", 0.3)
    for number in (1, 2, 3):
        send(logging_archive, make_slice(number))
    log_of(logging_archive).flush()

    assert [row.sop_instance_uid for row in logging_archive.index.locations()] == [
        "1.2.3.1.1",
        "1.2.3.1.3",
    ]
    assert len(stored_locations(logging_archive)) == 3
    assert "cannot be indexed; its file stays" in caplog.text


# When the process ends

#: Runs in a process of its own, stores, and ends as if killed at a point between two steps.
_DYING = """
import os, sys
from pathlib import Path
from tests.archive import test_instance_log
test_instance_log.die(*sys.argv[1:])
"""


def _die() -> None:
    sys.stdout.flush()
    import os

    os._exit(9)


def _before(owner: Any, name: str, calls: int = 1) -> None:
    """Die before the call with this number."""
    real, count = getattr(owner, name), [0]

    def call(*arguments: Any, **keywords: Any) -> Any:
        count[0] += 1
        if count[0] == calls:
            _die()
        return real(*arguments, **keywords)

    setattr(owner, name, call)


def _after(owner: Any, name: str, calls: int = 1) -> None:
    """Die after the call with this number."""
    real, count = getattr(owner, name), [0]

    def call(*arguments: Any, **keywords: Any) -> Any:
        result = real(*arguments, **keywords)
        count[0] += 1
        if count[0] == calls:
            _die()
        return result

    setattr(owner, name, call)


def _steps() -> dict[str, Callable[[], None]]:
    import os

    from pacs.index.log_positions import LogPositions
    from pacs.storage.process_directory import ProcessDirectory
    from pacs.storage.segments import SegmentWriter

    return {
        "before the log is made": lambda: _before(
            ProcessDirectory, "make", 2
        ),  # the first is the spool's
        "before the log is written": lambda: _before(os, "pwritev", 20),
        "before the log is flushed": lambda: _before(os, "fdatasync", 3),
        "after the log is flushed": lambda: _after(os, "fdatasync", 3),
        "before a file is placed": lambda: _before(FilesystemStorage, "place_content", 3),
        "after a file is placed": lambda: _after(FilesystemStorage, "place_content", 3),
        "before the rows are written": lambda: _before(Index, "ingest_batch", 2),
        "after the rows are written": lambda: _after(Index, "ingest_batch", 2),
        "before a result is concluded": lambda: _before(InstanceLog, "_concluded", 4),
        "after a result is concluded": lambda: _after(InstanceLog, "_concluded", 4),
        "before files are settled": lambda: _before(FilesystemStorage, "settle"),
        "after files are settled": lambda: _after(FilesystemStorage, "settle"),
        "before segments are released": lambda: _before(SegmentWriter, "release", 5),
        "before the log is removed": lambda: _before(ProcessDirectory, "remove"),
        "before the position is removed": lambda: _before(LogPositions, "remove"),
        "after all": lambda: None,
    }


_POINTS = (
    "before the log is made",
    "before the log is written",
    "before the log is flushed",
    "after the log is flushed",
    "before a file is placed",
    "after a file is placed",
    "before the rows are written",
    "after the rows are written",
    "before a result is concluded",
    "after a result is concluded",
    "before files are settled",
    "after files are settled",
    "before segments are released",
    "before the log is removed",
    "before the position is removed",
    "after all",
)


def _dying_instance(number: int) -> Any:
    """New ones, large ones, replacements and ones sent again."""
    size = _LARGE if number % 5 == 4 else {}
    uid = number - 2 if number % 7 == 6 else number
    return make_slice(uid, Rows=number % 250 + 1, **size)


def die(url: str, root: str, point: str) -> None:
    """Store, say what was acknowledged, and end at a point."""
    storage, index = FilesystemStorage(Path(root)), Index.open(url, upgrade=False)
    settler._GATHER_SECONDS = 0.05
    _steps()[point]()
    archive = with_log(Archive(storage, index, Redo(storage, index)))
    for number in range(1, 31):
        send(archive, _dying_instance(number))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        time.sleep(0.004)
    time.sleep(0.3)
    archive.close()
    _die()


def _let_die(archive: Archive, point: str) -> list[int]:
    """What was acknowledged by a process that ended at a point."""
    arguments = [database_url_of(archive), str(archive.storage.root), point]
    done = subprocess.run(
        [sys.executable, "-c", _DYING, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 9, done.stderr
    return [int(line) for line in done.stdout.split()]


def _require_all(archive: Archive, acknowledged: Sequence[int]) -> None:
    """All that was acknowledged is there, in its latest version; nothing else is, but what was about to be."""
    latest = {str(_dying_instance(one).SOPInstanceUID): one for one in acknowledged}
    on_its_way = _dying_instance(len(acknowledged) + 1)
    rows = {row.sop_instance_uid: row for row in archive.index.locations()}
    assert rows.keys() - latest.keys() <= {str(on_its_way.SOPInstanceUID)}
    for uid, number in latest.items():
        allowed = [data_set_bytes(_dying_instance(number))]
        if uid == on_its_way.SOPInstanceUID:
            allowed.append(data_set_bytes(on_its_way))
        assert stored_bytes(archive, uid) in allowed, uid
    found = findings(archive)
    assert found.pop(Finding.SOUND, 0) == len(rows)
    # Of each of the four that were replaced, or of the one not yet acknowledged, a file may be left: as without a log.
    assert set(found) <= {Finding.ORPHAN}
    assert sum(found.values()) <= 4
    assert logs(archive) == []


@pytest.mark.parametrize("point", _POINTS)
def test_nothing_acknowledged_is_lost_wherever_the_process_ends(
    archive: Archive, point: str
) -> None:
    acknowledged = _let_die(archive, point)
    assert (len(acknowledged) == 30) == (point in _POINTS[-3:])

    recover(archive)

    _require_all(archive, acknowledged)
    recover(archive)
    _require_all(archive, acknowledged)
    if point != "before the position is removed":
        assert positions(archive) == []


@pytest.mark.parametrize(
    "point", ["after the log is flushed", "before the rows are written", "before files are settled"]
)
def test_power_loss_takes_what_was_not_flushed_and_nothing_that_was_acknowledged(
    archive: Archive, point: str
) -> None:
    acknowledged = _let_die(archive, point)
    # Files that were placed are not flushed. Some vanish, some are empty, some have lost their end.
    lost = 0
    for file in list(archive.storage.files()):
        path = archive.storage.path(file.location)
        if file.size_bytes > 60_000:
            continue  # large ones are flushed before they are acknowledged
        lost += 1
        if lost % 3 == 0:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: 200 if lost % 3 == 1 else 0])
    assert lost > 0 or point == "after the log is flushed"

    recover(archive)

    _require_all(archive, acknowledged)


def test_replay_that_ends_anywhere_is_done_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledged = _let_die(archive, "before the rows are written")

    class Ended(Exception):
        pass

    steps = [
        (FilesystemStorage, "restore", 1),
        (FilesystemStorage, "restore", 2),
        (Index, "ingest_batch", 1),
    ]
    monkeypatch.setattr("pacs.archive.log_replay._BATCH", 2)
    for owner, name, calls in steps:
        real, count = getattr(owner, name), [0]

        def call(*arguments: Any, real: Any = real, count: Any = count, calls: int = calls) -> Any:
            count[0] += 1
            if count[0] == calls:
                raise Ended
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, call)
            with pytest.raises(Ended):
                replay_abandoned(archive)
        assert logs(archive) != []
    recover(archive)

    _require_all(archive, acknowledged)


def test_what_was_removed_after_it_was_indexed_does_not_come_back(archive: Archive) -> None:
    acknowledged = _let_die(archive, "before files are settled")
    assert len(logs(archive)) == 2
    archive.storage.remove(archive.index.remove("1.2.3.1.1") or "")

    recover(archive)

    uids = {str(_dying_instance(one).SOPInstanceUID) for one in acknowledged} - {"1.2.3.1.1"}
    on_its_way = {str(_dying_instance(len(acknowledged) + 1).SOPInstanceUID)}
    found = {row.sop_instance_uid for row in archive.index.locations()}
    assert found | on_its_way == uids | on_its_way
    checked = findings(archive)
    assert checked.pop(Finding.SOUND) == len(found)
    # The process may have ended before it removed the file of an instance that was replaced.
    assert set(checked) <= {Finding.ORPHAN}


def test_log_of_a_living_process_is_left_alone(logging_archive: Archive) -> None:
    send(logging_archive, make_slice(1))

    assert replay_abandoned(logging_archive) == 0

    assert len(logs(logging_archive)) == 2


def test_log_of_another_archive_is_left_alone(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _let_die(archive, "before the rows are written")
    before = archive.index.stats()
    archive.index.set_storage_identity("another")

    with pytest.raises(PacsError, match="storage-id"):
        replay_abandoned(archive)

    assert len(logs(archive)) == 2
    assert archive.index.stats() == before
