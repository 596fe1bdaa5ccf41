from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from pacs.archive import store as store_module
from pacs.archive.archive import Archive
from pacs.archive.check import Finding
from pacs.archive.store import store
from pacs.errors import (
    DuplicateInstance,
    IndexUnavailable,
    InstanceMismatch,
    InvalidInstance,
    StorageFull,
    StorageUnavailable,
)
from pacs.index.index import Index
from pacs.model.instances import DuplicatePolicy, IngestOutcome, Origin
from pacs.storage import filesystem
from pacs.storage.filesystem import FilesystemStorage
from pacs.storage.spool import SMALL_BYTES
from tests.archive.holdings import (
    EXPLICIT,
    contents,
    findings,
    keep,
    location_of,
    look,
    make_slice,
    spool,
    stored_locations,
)
from tests.factories import part10
from tests.outages import index_outage
from tests.peers import spool_files


def spooled_files(archive: Archive) -> list[object]:
    return list((archive.storage.root / "spool").rglob("*.part"))


def bytes_of(archive: Archive, uid: str) -> bytes:
    found = archive.index.find_by_uid(uid)
    assert found is not None
    with archive.storage.open(found.location) as stream:
        stream.seek(found.data_set_offset)
        return stream.read()


def data_set(data: bytes) -> bytes:
    offset = data.index(b"\x08\x00\x08\x00CS", 132)
    return data[offset:]


def test_store_new_instance_is_findable_with_its_bytes(archive: Archive) -> None:
    instance = make_slice(PatientName="Doe^John")

    outcome = keep(archive, instance)

    assert outcome.outcome is IngestOutcome.STORED
    assert outcome.header.values["PatientName"] == "Doe^John"
    assert bytes_of(archive, "1.2.3.1.1") == data_set(part10(instance))
    assert outcome.size_bytes == len(bytes_of(archive, "1.2.3.1.1"))
    assert spooled_files(archive) == []


def test_store_syncs_the_bytes_before_the_row_is_committed(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, ingest = filesystem.os.fsync, Index.ingest
    monkeypatch.setattr(filesystem.os, "fsync", lambda fd: (steps.append("sync"), sync(fd))[1])
    monkeypatch.setattr(Index, "ingest", lambda *args: (steps.append("commit"), ingest(*args))[1])

    keep(archive, make_slice(TextValue="x" * 100_000))

    assert steps[0] == "sync"
    assert steps[-1] == "commit"
    assert archive.index.redo.locations() == []


def test_store_identical_instance_again_changes_nothing(archive: Archive) -> None:
    keep(archive, make_slice())
    before, location = contents(archive.index), location_of(archive, "1.2.3.1.1")

    outcome = keep(archive, make_slice())

    assert outcome.outcome is IngestOutcome.IDENTICAL
    assert contents(archive.index) == before
    assert stored_locations(archive) == [location]


def test_store_different_instance_replaces_the_old_one_and_its_bytes(archive: Archive) -> None:
    keep(archive, make_slice(PatientName="Old"))

    outcome = keep(archive, make_slice(PatientName="New"))

    assert outcome.outcome is IngestOutcome.REPLACED
    assert b"New" in bytes_of(archive, "1.2.3.1.1")
    assert stored_locations(archive) == [location_of(archive, "1.2.3.1.1")]


@pytest.mark.parametrize(
    ("policy", "told"), [(DuplicatePolicy.KEEP, False), (DuplicatePolicy.REFUSE, True)]
)
def test_store_different_instance_under_keep_and_refuse_leaves_the_old_one(
    archive: Archive, policy: DuplicatePolicy, told: bool
) -> None:
    archive = dataclasses.replace(archive, duplicates=policy)
    keep(archive, make_slice(PatientName="Old"))
    before = contents(archive.index)

    if told:
        with pytest.raises(DuplicateInstance):
            keep(archive, make_slice(PatientName="New"))
    else:
        assert keep(archive, make_slice(PatientName="New")).outcome is IngestOutcome.KEPT

    assert contents(archive.index) == before
    assert findings(archive) == {Finding.SOUND: 1}


def test_store_instance_announced_as_another_is_a_mismatch(archive: Archive) -> None:
    origin = Origin("CT1", EXPLICIT, "1.2.840.10008.5.1.4.1.1.2", "9.9.9", is_announced=True)

    with pytest.raises(InstanceMismatch) as caught:
        store(archive, spool(archive, part10(make_slice())), origin)

    assert caught.value.offending == (0x00080018,)
    assert (stored_locations(archive), spooled_files(archive)) == ([], [])


@pytest.mark.parametrize("kept", [400, 500])
def test_store_truncated_instance_is_invalid_and_leaves_nothing(
    archive: Archive, kept: int
) -> None:
    data = part10(make_slice())[:kept]

    with pytest.raises(InvalidInstance):
        store(archive, spool(archive, data), Origin("CT1", EXPLICIT))

    assert (stored_locations(archive), spooled_files(archive)) == ([], [])


def test_store_on_a_full_disk_leaves_nothing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(filesystem.os, "fsync", full)

    with pytest.raises(StorageFull):
        keep(archive, make_slice())

    assert (stored_locations(archive), spooled_files(archive)) == ([], [])
    assert contents(archive.index) == []


def test_store_while_the_index_is_down_leaves_nothing_and_works_again_after(
    archive: Archive, database_url: str
) -> None:
    with index_outage(database_url), pytest.raises(IndexUnavailable):
        keep(archive, make_slice())

    assert (stored_locations(archive), spooled_files(archive)) == ([], [])
    assert keep(archive, make_slice()).outcome is IngestOutcome.STORED


@pytest.mark.parametrize("has_committed", [True, False])
def test_store_connection_lost_during_the_commit_keeps_the_bytes(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, has_committed: bool
) -> None:
    ingest = Index.ingest

    def lose_connection(index: Index, *args: Any) -> None:
        if has_committed:
            ingest(index, *args)
        raise IndexUnavailable(may_have_committed=True)

    with monkeypatch.context() as patch:
        patch.setattr(Index, "ingest", lose_connection)
        with pytest.raises(IndexUnavailable):
            keep(archive, make_slice())

    assert len(stored_locations(archive)) == 1
    assert findings(archive) == {Finding.SOUND if has_committed else Finding.ORPHAN: 1}
    look(archive, repair=True)
    assert findings(archive) == {Finding.SOUND: 1}


def test_store_superseded_bytes_that_cannot_be_removed_are_no_failure(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StorageUnavailable

    keep(archive, make_slice(PatientName="Old"))
    with monkeypatch.context() as patch:
        patch.setattr(FilesystemStorage, "remove", refuse)

        outcome = keep(archive, make_slice(PatientName="New"))

    assert outcome.outcome is IngestOutcome.REPLACED
    assert findings(archive) == {Finding.SOUND: 1, Finding.ORPHAN: 1}


class Crash(BaseException):
    """The process is gone: no handler of the code under test runs."""


def _crash_after(target: Any, name: str, patch: pytest.MonkeyPatch) -> None:
    step: Callable[..., Any] = getattr(target, name)

    def crash(*args: Any, **kwargs: Any) -> None:
        step(*args, **kwargs)
        raise Crash

    patch.setattr(target, name, crash)


def _crash_before(target: Any, name: str, patch: pytest.MonkeyPatch) -> None:
    def crash(*args: Any, **kwargs: Any) -> None:
        raise Crash

    patch.setattr(target, name, crash)


STEPS = [
    pytest.param(_crash_before, store_module, "read_header", id="spooled"),
    pytest.param(_crash_after, store_module, "read_header", id="read"),
    pytest.param(_crash_after, filesystem, "sync", id="synced"),
    pytest.param(_crash_after, filesystem, "_rename_to_new", id="renamed"),
    pytest.param(_crash_after, FilesystemStorage, "put", id="put"),
    pytest.param(_crash_after, FilesystemStorage, "place", id="placed"),
    pytest.param(_crash_after, Index, "ingest", id="committed"),
    pytest.param(_crash_before, FilesystemStorage, "remove", id="before-removal"),
    pytest.param(_crash_after, FilesystemStorage, "remove", id="removed"),
]


#: Below and above the size up to which the bytes go into the index as well, and the file is synced later.
SIZES = [pytest.param(10, id="small"), pytest.param(2 * SMALL_BYTES, id="large")]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("again", ["new", "identical", "different"])
@pytest.mark.parametrize(("crash", "target", "name"), STEPS)
def test_store_crash_after_any_step_loses_nothing_and_is_mended(
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    crash: Callable[..., None],
    target: Any,
    name: str,
    again: str,
    size: int,
) -> None:
    values: dict[str, Any] = {"EncapsulatedDocument": bytes(size)}
    keep(archive, make_slice(1, **values))
    number = 2 if again == "new" else 1
    if again == "different":
        values["ImageComments"] = "different"
    received = spool(archive, part10(make_slice(number, **values)))
    assert (received.content is None) == (size > SMALL_BYTES)

    with monkeypatch.context() as patch:
        crash(target, name, patch)
        with contextlib.suppress(Crash):
            store(archive, received, Origin("CT1", EXPLICIT))

    # The instance that was acknowledged before is there, and no row points at missing bytes.
    assert archive.index.find_by_uid("1.2.3.1.1") is not None
    assert set(findings(archive)) <= {Finding.SOUND, Finding.ORPHAN}
    look(archive, repair=True)
    assert set(findings(archive)) == {Finding.SOUND}
    # The sender had no answer and sends again.
    keep(archive, make_slice(number, **values))
    assert findings(archive) == {Finding.SOUND: 2 if again == "new" else 1}


@pytest.mark.parametrize("seed", range(3))
def test_store_any_order_and_twice_gives_the_same_index(archive: Archive, seed: int) -> None:
    numbers = range(1, 6)
    for number in numbers:
        keep(archive, make_slice(number))
    expected = contents(archive.index)
    for number in numbers:
        archive.storage.remove(archive.index.remove(f"1.2.3.1.{number}") or "")
    assert contents(archive.index) == []
    order = [*numbers, *numbers]
    random.Random(seed).shuffle(order)

    for number in order:
        keep(archive, make_slice(number))

    assert contents(archive.index) == expected
    assert findings(archive) == {Finding.SOUND: 5}


def test_store_every_outcome_removes_the_spooled_file(archive: Archive) -> None:
    archive = dataclasses.replace(archive, duplicates=DuplicatePolicy.REFUSE)
    refused = 0
    for number, rows in itertools.product((1, 2), (8, 8, 9)):
        # Of either size: a small one has no file until it is placed.
        for comment in ("small", "large" * 13_000):
            instance = make_slice(number, Rows=rows, ImageComments=comment)
            try:
                store(archive, spool(archive, part10(instance)), Origin("CT1", EXPLICIT))
            except DuplicateInstance:
                refused += 1

    assert refused == 8
    assert spool_files(archive) == []
