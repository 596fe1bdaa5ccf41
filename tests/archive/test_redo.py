"""Small files are durable through the index until the storage has them on its disk."""

from __future__ import annotations

import dataclasses
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from pacs.archive import settler
from pacs.archive.archive import Archive
from pacs.archive.check import Finding, Options, check
from pacs.archive.reindex import reindex
from pacs.archive.store import store
from pacs.errors import StorageUnavailable
from pacs.index.index import Index
from pacs.index.ingest import Ingest
from pacs.index.redo_rows import RedoRow, RedoRows
from pacs.model.instances import (
    DuplicatePolicy,
    IngestOutcome,
    IngestResult,
    InstanceRecord,
    Origin,
    StoreOutcome,
)
from pacs.storage import filesystem
from pacs.storage.durability import can_sync_file_system
from pacs.storage.filesystem import FilesystemStorage
from pacs.storage.spool import Spool, SpoolLimits, SpoolWriter
from tests.archive.holdings import (
    EXPLICIT,
    findings,
    location_of,
    make_slice,
    spool,
    stored_locations,
)
from tests.factories import part10


@pytest.fixture(autouse=True)
def long_gathering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is settled unless a test asks for it."""
    monkeypatch.setattr(settler, "_GATHER_SECONDS", 3600)


def keep(archive: Archive, number: int = 1, **values: object) -> StoreOutcome:
    instance = make_slice(number, **values)
    return store(archive, spool(archive, part10(instance)), Origin("CT1", EXPLICIT))


def rows(archive: Archive) -> list[RedoRow]:
    return archive.index.redo.read(archive.index.redo.locations()[:500])


def path_of(archive: Archive, number: int = 1) -> Path:
    return archive.storage.path(location_of(archive, f"1.2.3.1.{number}"))


def lose_power(archive: Archive, number: int, loss: str) -> None:
    """What a file that was not synced may look like afterwards."""
    path = path_of(archive, number)
    if loss == "name":
        path.unlink()
    elif loss == "bytes":
        path.write_bytes(bytes(path.stat().st_size))
    elif loss == "end":
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.unlink()
        path.parent.rmdir()


def test_store_small_instance_keeps_its_bytes_in_the_index(archive: Archive) -> None:
    keep(archive)

    assert rows(archive) == [
        RedoRow(location_of(archive, "1.2.3.1.1"), path_of(archive).read_bytes())
    ]


def test_archive_with_another_policy_settles_its_files_with_the_same_thread(
    archive: Archive,
) -> None:
    other = dataclasses.replace(archive, duplicates=DuplicatePolicy.REFUSE)
    keep(other)

    archive.redo.close()

    assert rows(other) == []
    assert [one.name for one in threading.enumerate() if one.name == "settler"] == []


def test_flush_removes_the_copies_and_leaves_the_files(archive: Archive) -> None:
    for number in range(1, 4):
        keep(archive, number)

    archive.redo.flush()

    assert rows(archive) == []
    assert findings(archive) == {Finding.SOUND: 3}


@pytest.mark.parametrize("loss", ["name", "bytes", "end", "directory"])
def test_recover_writes_again_what_a_power_loss_took(archive: Archive, loss: str) -> None:
    keep(archive, 1)
    content = path_of(archive).read_bytes()
    lose_power(archive, 1, loss)

    assert archive.redo.recover() == 1

    assert path_of(archive).read_bytes() == content
    assert rows(archive) == []
    assert findings(archive) == {Finding.SOUND: 1}


def test_recover_may_use_the_space_that_is_kept_free(archive: Archive) -> None:
    keep(archive)
    content = path_of(archive).read_bytes()
    lose_power(archive, 1, "name")
    archive.storage.spool.limit(SpoolLimits(free_bytes=1 << 60))

    assert archive.redo.recover() == 1

    assert path_of(archive).read_bytes() == content
    assert rows(archive) == []


def test_recover_that_fails_leaves_nothing_in_the_spool(archive: Archive) -> None:
    keep(archive)
    path_of(archive).unlink()
    path_of(archive).mkdir()

    with pytest.raises(StorageUnavailable, match=r"^Cannot restore .*: Is a directory"):
        archive.redo.recover()

    assert list(Path(archive.storage.spool.scratch_directory()).iterdir()) == []
    assert len(rows(archive)) == 1


def test_recover_writes_sound_files_again_and_says_nothing_of_it(archive: Archive) -> None:
    # They may be sound in memory only, after a failed sync.
    for number in range(1, 120):
        keep(archive, number)
    before, content = path_of(archive).stat(), path_of(archive).read_bytes()

    assert archive.redo.recover() == 0

    assert path_of(archive).stat().st_ino != before.st_ino
    assert path_of(archive).read_bytes() == content
    assert rows(archive) == []
    assert findings(archive) == {Finding.SOUND: 119}


def test_two_recoveries_at_once_keep_every_file(archive: Archive) -> None:
    for number in range(1, 80):
        keep(archive, number)
        lose_power(archive, number, "name")
    both = [threading.Thread(target=archive.redo.recover) for _ in range(2)]

    for one in both:
        one.start()
    for one in both:
        one.join(60)

    assert findings(archive) == {Finding.SOUND: 79}


def test_recover_after_a_lost_commit_answer_keeps_the_file(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The transaction is run again and finds its own work done.
    keep(archive)
    lose_power(archive, 1, "name")
    remove = RedoRows.remove
    monkeypatch.setattr(RedoRows, "remove", lambda *args: (remove(*args), remove(*args))[1])

    assert archive.redo.recover() == 1
    assert findings(archive) == {Finding.SOUND: 1}


def test_recover_without_the_volume_changes_nothing(archive: Archive, tmp_path: Path) -> None:
    keep(archive, 1)
    archive.redo.flush()
    keep(archive, 2)
    years = [path for path in archive.storage.root.iterdir() if path.name.isdigit()]
    for year in years:
        year.rename(tmp_path / year.name)

    with pytest.raises(StorageUnavailable, match="mounted"):
        archive.redo.recover()

    assert stored_locations(archive) == []
    assert len(rows(archive)) == 1


def test_copies_are_removed_after_files_and_directory_are_synced(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(archive)
    path = path_of(archive)
    steps: list[str] = []
    sync, sync_directory = filesystem.sync, filesystem.sync_directory
    remove = RedoRows.remove
    monkeypatch.setattr(filesystem, "sync", lambda p: (steps.append(p.name), sync(p)))
    monkeypatch.setattr(
        filesystem, "sync_directory", lambda p: (steps.append(p.name), sync_directory(p))
    )
    monkeypatch.setattr(RedoRows, "remove", lambda *a: (steps.append("remove"), remove(*a)))

    archive.redo.flush()

    assert steps == [path.name, path.parent.name, "remove"]


def test_copies_of_many_files_are_removed_after_their_file_system_is_synced(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_sync_file_system(archive.storage.root.parent):
        pytest.skip("this file system is not synced as a whole")
    for number in range(1, 40):
        keep(archive, number)
    steps: list[str] = []
    sync, remove = filesystem.sync_file_system, RedoRows.remove
    monkeypatch.setattr(
        filesystem, "sync_file_system", lambda fd: (steps.append("file system"), sync(fd))
    )
    monkeypatch.setattr(RedoRows, "remove", lambda *a: (steps.append("remove"), remove(*a)))

    archive.redo.flush()

    assert steps == ["file system", "remove"]


def test_replaced_instance_does_not_come_back(archive: Archive) -> None:
    keep(archive, PatientName="Old")
    keep(archive, PatientName="New")

    assert [row.location for row in rows(archive)] == [location_of(archive, "1.2.3.1.1")]
    archive.redo.recover()
    assert stored_locations(archive) == [location_of(archive, "1.2.3.1.1")]


def test_removed_instance_does_not_come_back(archive: Archive) -> None:
    keep(archive)
    path = path_of(archive)
    location = archive.index.remove("1.2.3.1.1")
    assert location is not None
    archive.storage.remove(location)

    assert archive.redo.recover() == 0
    assert not path.exists()


def test_recover_instance_removed_meanwhile_stays_removed(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(archive)
    path = path_of(archive)
    restore = FilesystemStorage.restore

    def remove_first(storage: FilesystemStorage, location: str, content: bytes) -> bool:
        archive.index.remove("1.2.3.1.1")
        storage.remove(location)
        return restore(storage, location, content)

    monkeypatch.setattr(FilesystemStorage, "restore", remove_first)

    archive.redo.recover()
    assert not path.exists()


def test_files_are_settled_by_themselves(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "_GATHER_SECONDS", 0.01)

    keep(archive)

    deadline = time.monotonic() + 10
    while rows(archive):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_close_settles_and_more_can_follow(archive: Archive) -> None:
    threads = threading.active_count()
    keep(archive, 1)
    archive.redo.close()
    assert rows(archive) == []

    keep(archive, 2)
    archive.redo.close()
    assert rows(archive) == []
    assert threads == threading.active_count()


def test_failed_sync_keeps_the_copies_and_the_files_are_written_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To sync them again would succeed: the kernel reports a failed write once.
    for number in range(1, 4):
        keep(archive, number)
    before = path_of(archive).stat().st_ino
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise StorageUnavailable("Input/output error")

        broken.setattr(FilesystemStorage, "settle", fail)
        with pytest.raises(StorageUnavailable):
            archive.redo.flush()
        assert len(rows(archive)) == 3

    archive.redo.flush()

    assert rows(archive) == []
    assert path_of(archive).stat().st_ino != before
    assert findings(archive) == {Finding.SOUND: 3}


def test_settler_that_cannot_start_is_tried_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as full:

        def fail(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        full.setattr(threading.Thread, "start", fail)
        assert keep(archive, 1).outcome is IngestOutcome.STORED
    assert "can't start new thread" in caplog.text

    keep(archive, 2)
    archive.redo.close()

    assert rows(archive) == []


def test_disk_that_falls_behind_makes_instances_synced_first(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settler, "_MOST_FILES", 2)
    for number in range(1, 5):
        keep(archive, number)
    assert len(rows(archive)) == 2

    archive.redo.flush()
    keep(archive, 5)

    assert len(rows(archive)) == 1
    assert findings(archive) == {Finding.SOUND: 5}


def test_large_instance_is_not_kept_twice(archive: Archive) -> None:
    keep(archive, TextValue="x" * 100_000)

    assert rows(archive) == []


def test_recover_brings_back_no_file_of_an_instance_that_is_removed_meanwhile(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(archive)
    create = Spool.create

    def removed_first(spool: Spool, meta: bytes, *, may_fill: bool) -> SpoolWriter:
        # By another process, once the file has been found sound and before it is written again.
        location = archive.index.remove("1.2.3.1.1")
        if location is not None:
            archive.storage.remove(location)
        return create(spool, meta, may_fill=may_fill)

    monkeypatch.setattr(Spool, "create", removed_first)

    archive.redo.recover()

    assert stored_locations(archive) == []
    assert rows(archive) == []


def test_file_that_is_gone_before_it_is_settled_is_written_again(archive: Archive) -> None:
    for number in range(1, 4):
        keep(archive, number)
    path_of(archive, 2).unlink()

    archive.redo.flush()

    assert rows(archive) == []
    assert findings(archive) == {Finding.SOUND: 3}


def test_copies_stay_while_the_storage_is_gone(archive: Archive, tmp_path: Path) -> None:
    keep(archive)
    storage, away = archive.storage.root, tmp_path / "away"
    storage.rename(away)

    with pytest.raises(StorageUnavailable):
        archive.redo.flush()

    assert len(rows(archive)) == 1
    assert not storage.exists()
    away.rename(storage)
    archive.redo.flush()
    assert findings(archive) == {Finding.SOUND: 1}


@pytest.mark.parametrize("adopter", ["check", "reindex"])
def test_file_that_is_adopted_before_its_commit_keeps_its_bytes_in_the_index(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, adopter: str
) -> None:
    # The row is there when the store comes to it, without the bytes: it must not take it for its own and be done.
    ingest = Index.ingest

    def adopt_first(index: Index, record: InstanceRecord, policy: DuplicatePolicy) -> IngestResult:
        with monkeypatch.context() as patch:
            patch.setattr(Index, "ingest", ingest)
            if adopter == "check":
                list(check(archive, Options(repair=True, grace=timedelta(0))))
            else:
                list(reindex(archive, grace=timedelta(0)))
        assert index.is_location_indexed(record.location)
        return ingest(index, record, policy)

    monkeypatch.setattr(Index, "ingest", adopt_first)

    assert keep(archive).outcome is IngestOutcome.STORED

    assert [row.content for row in rows(archive)] == [path_of(archive).read_bytes()]


@pytest.mark.parametrize("adopter", ["check", "reindex"])
def test_file_is_on_the_disk_before_its_adoption_is_committed(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, adopter: str
) -> None:
    location = archive.storage.place(spool(archive, part10(make_slice())))
    steps: list[str] = []
    sync, ingest = filesystem.sync, Ingest.__call__
    monkeypatch.setattr(filesystem, "sync", lambda p: (steps.append(p.name), sync(p)))
    monkeypatch.setattr(
        Ingest, "__call__", lambda *a, **k: (steps.append("commit"), ingest(*a, **k))[1]
    )

    if adopter == "check":
        list(check(archive, Options(repair=True, grace=timedelta(0))))
    else:
        list(reindex(archive, grace=timedelta(0)))

    assert location_of(archive, "1.2.3.1.1") == location
    assert steps.index(location.rpartition("/")[2]) < steps.index("commit")
