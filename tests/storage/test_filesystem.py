from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pacs.errors import InvalidSetting, PacsError, StorageFull, StorageUnavailable
from pacs.storage import filesystem
from pacs.storage.base import Spooled, StoredFile
from pacs.storage.durability import can_sync_file_system
from pacs.storage.filesystem import FilesystemStorage, storage_from_url
from pacs.storage.storage import Storage

MINUTE_NS = 60 * 1_000_000_000
START = datetime(2024, 2, 29, 23, 58, 30, 123456, tzinfo=UTC)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[FilesystemStorage]:
    storage = FilesystemStorage(tmp_path / "storage")
    yield storage
    storage.spool.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    def set_to(moment: datetime) -> None:
        since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
        nanoseconds = since_epoch // timedelta(microseconds=1) * 1000
        monkeypatch.setattr(filesystem.time, "time_ns", lambda: nanoseconds)

    set_to(START)
    return set_to


def spool(storage: FilesystemStorage, data: bytes = b"data") -> Spooled:
    with storage.spool.create(b"meta") as writer:
        writer.write(data)
        return storage.spool.write(writer.finish())


def put(storage: FilesystemStorage, data: bytes = b"data") -> str:
    return storage.put(spool(storage, data))


def stored_paths(storage: FilesystemStorage) -> list[Path]:
    return list(storage.root.rglob("*.dcm"))


def test_file_that_cannot_be_looked_at_is_not_said_to_be_missing(
    storage: FilesystemStorage,
) -> None:
    """Nothing is lost where a folder is closed to the archive's user; a link to itself is closed to root as well."""
    location = put(storage)
    folder = storage.path(location).parent
    folder.rename(folder.with_name("aside"))
    missing = storage.has(location)
    folder.symlink_to(folder)

    with pytest.raises(StorageUnavailable) as caught:
        storage.has(location)

    assert not missing
    assert (
        caught.value.message == "Cannot look at the stored file: Too many levels of symbolic links"
    )
    folder.unlink()
    folder.with_name("aside").rename(folder)
    assert storage.has(location)


def test_filesystem_storage_is_a_storage(storage: FilesystemStorage) -> None:
    port: Storage = storage

    assert port.put(spool(storage))


def test_put_moves_the_spooled_file_to_its_minute(
    storage: FilesystemStorage, clock: Callable[[datetime], None]
) -> None:
    spooled = spool(storage, b"some data")

    location = storage.put(spooled)

    assert re.fullmatch(r"2024/02/29/2358/[0-9a-f]{32}\.dcm", location)
    assert (storage.root / location).read_bytes() == b"metasome data"
    assert not spooled.path.exists()


@pytest.mark.parametrize("way", ["put", "place"])
def test_small_data_set_in_memory_is_put_and_leaves_nothing_if_that_fails(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def fail(source: str, target: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with storage.spool.create(b"meta") as writer:
        writer.write(b"data")
        spooled = writer.finish()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(StorageUnavailable):
            getattr(storage, way)(spooled)
    assert list(storage.root.rglob("*.part")) == []

    location = getattr(storage, way)(spooled)

    assert storage.path(location).read_bytes() == b"metadata"
    assert list(storage.root.rglob("*.part")) == []


def test_content_is_placed_at_the_location_that_was_given(
    storage: FilesystemStorage, clock: Callable[[datetime], None]
) -> None:
    first, second = storage.new_location(), storage.new_location()

    storage.place_content(second, b"second")
    storage.place_content(first, b"first")

    assert re.fullmatch(r"2024/02/29/2358/[0-9a-f]{32}\.dcm", first)
    assert first < second
    assert [storage.path(one).read_bytes() for one in (first, second)] == [b"first", b"second"]
    found = storage.stored_file(first)
    assert found is not None
    assert [found] == list(storage.files())[:1]
    assert storage.settle([first, second]) == []


def test_content_that_cannot_be_placed_leaves_nothing(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    location, write = storage.new_location(), os.write

    def fail(descriptor: int, data: memoryview) -> int:
        if len(data) < 4:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data[:2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        with pytest.raises(StorageFull):
            storage.place_content(location, b"content")
    assert stored_paths(storage) == []
    assert storage.stored_file(location) is None

    storage.place_content(location, b"content")
    assert storage.path(location).read_bytes() == b"content"


def test_content_is_not_placed_where_the_volume_is_not_mounted(storage: FilesystemStorage) -> None:
    put(storage)
    storage.root.rename(storage.root.with_name("away"))
    storage.root.mkdir()

    with pytest.raises(StorageUnavailable):
        storage.place_content(storage.new_location(), b"content")

    assert list(storage.root.iterdir()) == []


def test_put_many_threads_keep_every_instance(storage: FilesystemStorage) -> None:
    def store(number: int) -> tuple[str, bytes]:
        data = f"instance {number}".encode()
        return put(storage, data), data

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(store, range(200)))

    assert len({location for location, _ in results}) == 200
    for location, data in results:
        with storage.open(location) as stream:
            assert stream.read() == b"meta" + data


def test_put_two_storages_on_one_root_do_not_disturb_each_other(tmp_path: Path) -> None:
    storages = [FilesystemStorage(tmp_path) for _ in range(2)]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: put(storages[number % 2]), range(60)))

    assert len(list(storages[0].files())) == 60
    for storage in storages:
        storage.spool.close()


def test_put_clock_set_back_keeps_the_order_of_names(
    storage: FilesystemStorage, clock: Callable[[datetime], None]
) -> None:
    first = put(storage)
    clock(START - timedelta(hours=1))
    second = put(storage)

    assert first < second


def test_put_into_a_removed_minute_makes_it_again(
    storage: FilesystemStorage, clock: Callable[[datetime], None]
) -> None:
    storage.remove(put(storage))
    (storage.root / "2024/02/29/2358").rmdir()

    location = put(storage)

    assert (storage.root / location).exists()


def test_put_same_name_twice_never_overwrites(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_next_name", lambda: ("2024/01/01/0000", "0" * 32 + ".dcm"))
    location = put(storage, b"first")

    with pytest.raises(StorageUnavailable):
        put(storage, b"second")

    assert storage.path(location).read_bytes() == b"metafirst"


def test_put_syncs_file_then_directories_then_renames_then_syncs_the_directory(
    storage: FilesystemStorage, clock: Callable[[datetime], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor: int) -> None:
        steps.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def record_rename(source: str, target: str) -> None:
        steps.append("rename")
        rename(source, target)

    spooled = spool(storage)
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    storage.put(spooled)
    first = list(steps)
    steps.clear()
    second = spool(storage)
    storage.put(second)

    root = str(storage.root)
    days = [root, f"{root}/2024", f"{root}/2024/02", f"{root}/2024/02/29"]
    minute = f"{root}/2024/02/29/2358"
    assert first == [str(spooled.path), *days, "rename", minute]
    assert steps == [str(second.path), "rename", minute]


def test_first_instance_syncs_the_directories_above_a_new_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def record_fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record_fsync)
    storage = FilesystemStorage(tmp_path / "a" / "b")
    put(storage)
    storage.spool.close()

    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= set(synced)


@pytest.mark.parametrize("name", ["fsync", "mkdir", "rename"])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageUnavailable),
        (errno.EROFS, StorageUnavailable),
    ],
)
def test_put_any_step_fails_leaves_nothing_at_a_location(
    storage: FilesystemStorage,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    number: int,
    expected: type[PacsError],
) -> None:
    # Fails at the first call of this kind, then at the second, and so on until none is left to fail.
    for failing_call in range(1, 20):
        fresh = FilesystemStorage(storage.root / f"run-{failing_call}")
        spooled = spool(fresh)
        raised, location = None, None
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing_at(failing_call, getattr(os, name), number))
            try:
                location = fresh.put(spooled)
            except PacsError as error:
                raised = error
        fresh.spool.close()
        if location is not None:
            assert stored_paths(fresh) == [fresh.path(location)]
            assert failing_call > 1
            return
        assert type(raised) is expected
        assert stored_paths(fresh) == []
    pytest.fail("put never came to its end")


def failing_at(
    failing_call: int, original: Callable[..., object], number: int
) -> Callable[..., object]:
    calls = 0

    def fail(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == failing_call:
            raise OSError(number, os.strerror(number))
        return original(*arguments, **options)

    return fail


@pytest.mark.parametrize("step", ["sync", "_rename_to_new", "sync_directory"])
def test_put_process_dies_at_any_step_shows_no_half_instance(tmp_path: Path, step: str) -> None:
    # Dies before the n-th call of the step; what is under a final name then must be whole.
    code = """
import os, pathlib, sys
from pacs.storage import filesystem
root, step, survived = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
storage = filesystem.FilesystemStorage(root)
with storage.spool.create(b"meta") as writer:
    writer.write(b"x" * 10000)
    spooled = writer.finish()
original, calls = getattr(filesystem, step), 0
def die(*arguments):
    global calls
    calls += 1
    if calls > survived:
        os._exit(9)
    return original(*arguments)
setattr(filesystem, step, die)
storage.put(spooled)
os._exit(0)
"""
    deaths = 0
    for survived in range(0, 12, 2):
        root = tmp_path / str(survived)
        arguments = [sys.executable, "-c", code, str(root), step, str(survived)]
        status = subprocess.run(arguments, timeout=60, check=False).returncode

        deaths += status == 9
        storage = FilesystemStorage(root)
        assert storage.spool.sweep() == 1
        assert [stored.size_bytes for stored in storage.files()] in ([], [10_004])
        assert len(stored_paths(storage)) == len(list(root.rglob("*.*")))
        if status == 0:
            break
    assert deaths


def test_put_spooled_file_missing_is_unavailable(storage: FilesystemStorage) -> None:
    spooled = spool(storage)
    spooled.path.unlink()

    with pytest.raises(StorageUnavailable):
        storage.put(spooled)


@pytest.mark.parametrize(
    "location",
    [
        "",
        "/etc/passwd",
        "../../../../etc/passwd",
        "2024/02/29/2358/../../../../../etc/passwd",
        "2024/02/29/2358/0005f0000000000000000000000000ab.dcm\n",
        "2024/02/29/2358/0005F0000000000000000000000000AB.dcm",
        "2024\x00/02/29/2358/0005f0000000000000000000000000ab.dcm",
        "spool/0123456789abcdef/file.part",
        "٢٠٢٤/02/29/2358/0005f0000000000000000000000000ab.dcm",
        "x" * 100_000,
    ],
)
def test_location_that_put_never_gave_is_refused(storage: FilesystemStorage, location: str) -> None:
    for act in (storage.open, storage.remove, storage.path):
        with pytest.raises(StorageUnavailable):
            act(location)


def test_open_missing_file_is_unavailable(storage: FilesystemStorage) -> None:
    location = put(storage)
    storage.remove(location)

    with pytest.raises(StorageUnavailable, match=location):
        storage.open(location)


def test_remove_twice_is_no_error(storage: FilesystemStorage) -> None:
    location = put(storage)

    storage.remove(location)
    storage.remove(location)

    assert stored_paths(storage) == []


def test_remove_from_a_read_only_directory_is_unavailable(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    location = put(storage)
    monkeypatch.setattr(os, "unlink", fail)

    with pytest.raises(StorageUnavailable):
        storage.remove(location)


def test_files_come_in_the_order_they_were_put(
    storage: FilesystemStorage, clock: Callable[[datetime], None]
) -> None:
    expected: list[StoredFile] = []
    for seconds in (0, 1, 1, 100, 90_000, 40_000_000):
        moment = START + timedelta(seconds=seconds)
        clock(moment)
        data = b"x" * seconds.bit_length()
        # Two in one microsecond: the second is named one later.
        stored_at = (
            max(moment, expected[-1].stored_at + timedelta(microseconds=1)) if expected else moment
        )
        expected.append(StoredFile(put(storage, data), 4 + len(data), stored_at))

    assert list(storage.files()) == expected


def test_files_passes_over_strangers(storage: FilesystemStorage) -> None:
    location = put(storage)
    minute = storage.path(location).parent
    (storage.root / "README").touch()
    (storage.root / "lost+found").mkdir()
    (storage.root / "2024").mkdir(exist_ok=True)
    (storage.root / "2024" / "13").mkdir()
    (storage.root / "2023").touch()
    (minute / "backup.dcm").touch()
    (minute / ("f" * 32 + ".dcm")).touch()
    (minute / ("0" * 32 + ".dcm")).mkdir()
    (minute / ("0" * 31 + "1.dcm")).symlink_to("/etc/passwd")
    spool(storage)

    assert [stored.location for stored in storage.files()] == [location]


def test_files_of_a_storage_without_directory_is_empty(tmp_path: Path) -> None:
    assert list(FilesystemStorage(tmp_path / "none").files()) == []


def test_files_removed_while_listed_are_passed_over(storage: FilesystemStorage) -> None:
    locations = [put(storage) for _ in range(3)]

    found = storage.files()
    first = next(found).location
    for location in locations[1:]:
        storage.remove(location)

    assert first == locations[0]
    assert list(found) == []


def test_put_while_another_thread_lists_disturbs_neither(storage: FilesystemStorage) -> None:
    done = threading.Event()

    def keep_putting() -> None:
        for _ in range(100):
            put(storage)
        done.set()

    thread = threading.Thread(target=keep_putting)
    thread.start()
    while not done.is_set():
        names = [stored.location for stored in storage.files()]
        assert names == sorted(names)
    thread.join()

    assert len(list(storage.files())) == 100


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("file:///srv/pacs", "/srv/pacs"),
        ("file://localhost/srv/pacs", "/srv/pacs"),
        ("file:/srv/pacs", "/srv/pacs"),
        ("file:///srv/with%20space/%C3%A4", "/srv/with space/ä"),
        ("/srv/pacs", "/srv/pacs"),
        ("/srv/50%25", "/srv/50%25"),
    ],
)
def test_storage_from_url_names_a_directory(url: str, root: str) -> None:
    assert storage_from_url(url).root == Path(root)


def test_storage_from_url_relative_path_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert storage_from_url("pacs-data/storage").root == tmp_path / "pacs-data/storage"


@pytest.mark.parametrize(
    "url",
    ["", " ", "s3://bucket/prefix", "http://host/path", "file://server/share", "file:relative"],
)
def test_storage_from_url_anything_else_names_what_is_supported(url: str) -> None:
    with pytest.raises(InvalidSetting, match="file:///absolute/path"):
        storage_from_url(url)


@pytest.mark.parametrize("together", [True, False])
def test_settle_many_or_few_files_leaves_them_as_they_are(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    locations = [storage.place(spool(storage, b"%d" % number)) for number in range(40)]
    if not together:
        monkeypatch.setattr(storage, "_file_system", None)
    storage.remove(locations[0])

    assert storage.settle(locations) == locations[:1]
    assert storage.settle(locations[:2]) == locations[:1]

    assert [stored.location for stored in storage.files()] == locations[1:]
    with storage.open(locations[-1]) as stream:
        assert stream.read() == b"meta39"


def test_settle_reports_a_file_system_that_cannot_be_synced(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    locations = [storage.place(spool(storage, b"%d" % number)) for number in range(40)]
    monkeypatch.setattr(storage, "_is_same_system", lambda: True)
    monkeypatch.setattr(storage, "_file_system", 0)
    monkeypatch.setattr(filesystem, "sync_file_system", fail)

    with pytest.raises(StorageUnavailable, match="Input/output error"):
        storage.settle(locations)


def test_settle_does_not_trust_the_file_system_that_the_storage_was_on_before(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    locations = [storage.place(spool(storage, b"%d" % number)) for number in range(40)]
    synced: list[Path] = []
    monkeypatch.setattr(filesystem, "sync", synced.append)
    with open("/proc/self/stat", "rb") as elsewhere:  # noqa: PTH123 - any other file system
        monkeypatch.setattr(storage, "_file_system", elsewhere.fileno())

        storage.settle(locations)

    assert synced == [storage.path(location) for location in locations]


def test_file_system_that_is_not_known_is_not_trusted() -> None:
    assert not can_sync_file_system(Path("/proc"))
