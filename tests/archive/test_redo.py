"""Small files are durable through the index until the storage has them on its disk."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pacs.archive import redo as redo_module
from pacs.archive.archive import Archive
from pacs.archive.check import Finding
from pacs.archive.store import Origin, StoreOutcome, store
from pacs.errors import StorageUnavailable
from pacs.index.redo_rows import RedoRow
from pacs.storage.filesystem import FilesystemStorage
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
    monkeypatch.setattr(redo_module, "_GATHER_SECONDS", 3600)


def keep(archive: Archive, number: int = 1, **values: object) -> StoreOutcome:
    instance = make_slice(number, **values)
    return store(archive, spool(archive, part10(instance)), Origin("CT1", EXPLICIT))


def rows(archive: Archive) -> list[RedoRow]:
    return archive.index.redo.after("", 100)


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


def test_recover_leaves_sound_files_alone(archive: Archive) -> None:
    for number in range(1, 120):
        keep(archive, number)
    before = path_of(archive).stat()

    assert archive.redo.recover() == 0

    after = path_of(archive).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert rows(archive) == []


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

    assert archive.redo.recover() == 0
    assert not path.exists()


def test_files_are_settled_by_themselves(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redo_module, "_GATHER_SECONDS", 0.01)

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


def test_failed_sync_keeps_the_copies_and_is_tried_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep(archive)
    with monkeypatch.context() as broken:

        def fail(*_: object) -> None:
            raise StorageUnavailable("Input/output error")

        broken.setattr(FilesystemStorage, "settle", fail)
        archive.redo.close()
        assert len(rows(archive)) == 1
    assert "1 stored files are not synced: Input/output error" in caplog.text

    archive.redo.flush()

    assert rows(archive) == []


def test_disk_that_falls_behind_makes_instances_synced_first(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redo_module, "_MOST_FILES", 2)
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
