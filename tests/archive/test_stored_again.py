"""An instance that is sent again: what was stored of it stays only if it is really there."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs.archive import condition as condition_module
from pacs.archive import settler
from pacs.archive.archive import Archive
from pacs.archive.check import Finding
from pacs.archive.store import store
from pacs.errors import DuplicateInstance, StorageUnavailable
from pacs.index.index import Index
from pacs.model.instances import DuplicatePolicy, IngestOutcome, IngestResult, Origin, StoreOutcome
from pacs.storage.filesystem import FilesystemStorage
from pacs.storage.spool import SMALL_BYTES
from tests.archive.holdings import (
    EXPLICIT,
    findings,
    keep_cut_off,
    location_of,
    make_slice,
    spool,
    stored_locations,
)
from tests.factories import part10

UID = "1.2.3.1.1"
JPEG = "1.2.840.10008.1.2.4.50"


def path_of(archive: Archive) -> Path:
    return archive.storage.path(location_of(archive, UID))


def quarantined(archive: Archive) -> list[bytes]:
    return [one.read_bytes() for one in sorted((archive.storage.root / "quarantine").glob("*"))]


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 0xFF]))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def overwrite(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES = [
    pytest.param(Path.unlink, id="lost"),
    pytest.param(flip, id="other-byte"),
    pytest.param(truncate, id="shorter"),
    pytest.param(overwrite, id="zeros"),
]
SIZES = [pytest.param(10, id="small"), pytest.param(2 * SMALL_BYTES, id="large")]


def send(archive: Archive, size: int = 10, **values: object) -> StoreOutcome:
    # Not keep(): what is acknowledged has to be safe at once.
    instance = make_slice(EncapsulatedDocument=bytes(size), **values)
    return store(archive, spool(archive, part10(instance)), Origin("CT1", EXPLICIT))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("policy", [DuplicatePolicy.REPLACE, DuplicatePolicy.KEEP])
def test_identical_instance_takes_the_place_of_a_stored_file_that_is_no_good(
    archive: Archive,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    size: int,
    policy: DuplicatePolicy,
) -> None:
    archive = dataclasses.replace(archive, duplicates=policy)
    send(archive, size)
    archive.redo.flush()
    before = path_of(archive)
    damage(before)
    bad = [before.read_bytes()] if before.exists() else []

    outcome = send(archive, size)

    assert outcome.outcome is IngestOutcome.REPLACED
    assert findings(archive) == {Finding.SOUND: 1}
    assert path_of(archive) != before
    assert quarantined(archive) == bad
    word = "damaged" if bad else "lost"
    assert f"the stored file of {UID} is {word}: what was received takes its place" in caplog.text
    archive.redo.flush()
    assert findings(archive) == {Finding.SOUND: 1}


@pytest.mark.parametrize("policy", [DuplicatePolicy.KEEP, DuplicatePolicy.REFUSE])
@pytest.mark.parametrize("damage", DAMAGES)
def test_different_instance_takes_the_place_of_a_bad_file_that_would_be_kept(
    archive: Archive, damage: Callable[[Path], None], policy: DuplicatePolicy
) -> None:
    archive = dataclasses.replace(archive, duplicates=policy)
    send(archive, PatientName="Old")
    archive.redo.flush()
    damage(path_of(archive))

    assert send(archive, PatientName="New").outcome is IngestOutcome.REPLACED

    assert findings(archive) == {Finding.SOUND: 1}
    assert b"New" in path_of(archive).read_bytes()


def test_identical_instance_leaves_a_sound_file_and_removes_its_own(archive: Archive) -> None:
    send(archive)
    before = path_of(archive)

    assert send(archive).outcome is IngestOutcome.IDENTICAL

    assert [archive.storage.path(one) for one in stored_locations(archive)] == [before]


@pytest.mark.parametrize("policy", [DuplicatePolicy.REPLACE, DuplicatePolicy.REFUSE])
@pytest.mark.parametrize("damage", DAMAGES)
def test_bytes_that_the_index_has_are_as_good_as_a_file(
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    policy: DuplicatePolicy,
) -> None:
    monkeypatch.setattr(settler, "_GATHER_SECONDS", 3600)
    archive = dataclasses.replace(archive, duplicates=policy)
    send(archive, PatientName="Old")
    before, content = path_of(archive), path_of(archive).read_bytes()
    damage(before)

    if policy is DuplicatePolicy.REFUSE:
        with pytest.raises(DuplicateInstance):
            send(archive, PatientName="New")
    else:
        assert send(archive, PatientName="Old").outcome is IngestOutcome.IDENTICAL

    assert (path_of(archive), before.read_bytes()) == (before, content)
    assert findings(archive) == {Finding.SOUND: 1}


def test_identical_instance_whose_row_goes_meanwhile_is_stored(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = Index.ingest

    def remove_after(index: Index, *args: object) -> IngestResult:
        result = ingest(index, *args)  # type: ignore[arg-type]
        if result.outcome is IngestOutcome.IDENTICAL:
            archive.storage.remove(index.remove(UID) or "")
        return result

    send(archive)
    monkeypatch.setattr(Index, "ingest", remove_after)

    assert send(archive).outcome is IngestOutcome.STORED
    assert findings(archive) == {Finding.SOUND: 1}


def test_identical_instance_that_is_replaced_while_it_is_looked_at_leaves_the_new_one(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = FilesystemStorage.open

    def replace_first(storage: FilesystemStorage, location: str) -> object:
        if location == before:
            with monkeypatch.context() as patch:
                patch.setattr(FilesystemStorage, "open", opened)
                send(archive, PatientName="Newer")
        return opened(storage, location)

    send(archive)
    before = location_of(archive, UID)
    monkeypatch.setattr(FilesystemStorage, "open", replace_first)

    assert send(archive).outcome is IngestOutcome.IDENTICAL
    assert b"Newer" in path_of(archive).read_bytes()
    assert findings(archive) == {Finding.SOUND: 1}


def test_process_that_can_open_no_file_judges_none(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(archive)
    before = path_of(archive)

    def exhausted(*_: object) -> None:
        raise StorageUnavailable("Too many open files") from OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(FilesystemStorage, "open", exhausted)
        with pytest.raises(StorageUnavailable, match="open files"):
            send(archive)

    assert path_of(archive) == before
    assert findings(archive) == {Finding.SOUND: 1}


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("target", "name"),
    [(condition_module, "digest_of"), (Index, "ingest"), (FilesystemStorage, "place")],
)
def test_crash_while_a_bad_file_is_replaced_leaves_what_a_repair_mends(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, size: int, target: object, name: str
) -> None:
    send(archive, size)
    archive.redo.flush()
    flip(path_of(archive))
    step = getattr(target, name)

    def crash(*args: object) -> None:
        step(*args)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(target, name, crash)
        with contextlib.suppress(Crash):
            send(archive, size)

    assert archive.index.find_by_uid(UID) is not None
    send(archive, size)
    assert findings(archive)[Finding.SOUND] == 1
    assert findings(archive)[Finding.DAMAGED] == 0


@pytest.mark.parametrize(
    "policy", [DuplicatePolicy.REPLACE, DuplicatePolicy.KEEP, DuplicatePolicy.REFUSE]
)
def test_complete_instance_takes_the_place_of_one_that_was_cut_off(
    archive: Archive, policy: DuplicatePolicy
) -> None:
    archive = dataclasses.replace(archive, duplicates=policy)
    keep_cut_off(archive, part10(make_slice())[:-20])
    assert findings(archive) == {Finding.DAMAGED: 1}

    assert send(archive).outcome is IngestOutcome.REPLACED

    assert findings(archive) == {Finding.SOUND: 1}
    assert len(stored_locations(archive)) == 1


def encapsulated(comment: str, *, whole: bool) -> bytes:
    instance = make_slice(ImageComments=comment)
    instance.PixelData = b"\xff\xd8" + bytes(300) + b"\xff\xd9"
    data = part10(instance, JPEG)
    return data if whole else data[:-8]


def send_encapsulated(archive: Archive, comment: str, *, whole: bool) -> IngestOutcome:
    spooled = spool(archive, encapsulated(comment, whole=whole))
    return store(archive, spooled, Origin("CT1", JPEG)).outcome


@pytest.mark.parametrize(
    ("policy", "first", "second", "outcome"),
    [
        (DuplicatePolicy.REPLACE, True, False, IngestOutcome.KEPT),
        (DuplicatePolicy.KEEP, True, False, IngestOutcome.KEPT),
        (DuplicatePolicy.REPLACE, False, True, IngestOutcome.REPLACED),
        (DuplicatePolicy.KEEP, False, True, IngestOutcome.REPLACED),
        (DuplicatePolicy.REFUSE, False, True, IngestOutcome.REPLACED),
        (DuplicatePolicy.REPLACE, False, False, IngestOutcome.REPLACED),
        (DuplicatePolicy.KEEP, False, False, IngestOutcome.KEPT),
    ],
)
def test_instance_without_its_last_delimiter_never_takes_the_place_of_a_whole_one(
    archive: Archive, policy: DuplicatePolicy, first: bool, second: bool, outcome: IngestOutcome
) -> None:
    archive = dataclasses.replace(archive, duplicates=policy)
    assert send_encapsulated(archive, "first", whole=first) is IngestOutcome.STORED

    assert send_encapsulated(archive, "second", whole=second) is outcome

    kept = "second" if outcome is IngestOutcome.REPLACED else "first"
    assert kept.encode() in path_of(archive).read_bytes()
    assert (
        send_encapsulated(archive, kept, whole=second if kept == "second" else first)
        is IngestOutcome.IDENTICAL
    )
    assert findings(archive) == {Finding.SOUND: 1}
