from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pacs.errors import LimitExceeded, PacsError, StorageFull, StorageUnavailable
from pacs.storage.base import Spooled
from pacs.storage.spool import SMALL_BYTES, Spool, SpoolLimits, SpoolWriter

META = b"m" * 132
FRAGMENTS = [b"first", bytearray(b"second"), memoryview(b"third")]
#: More than stays in memory.
LARGE = bytes(SMALL_BYTES) + b"the end"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


def files_under(root: Path) -> list[Path]:
    return [path for path in root.rglob("*.part") if path.is_file()]


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def received(spool: Spool, data_set: bytes = LARGE) -> Spooled:
    with spool.create(META) as writer:
        writer.write(data_set)
        return writer.finish()


@pytest.mark.parametrize(
    "extra", [0, SMALL_BYTES - len(META) - 16, SMALL_BYTES - len(META) - 15, 200_000]
)
def test_writer_fragments_become_one_file_with_size_and_digest(
    spool: Spool, tmp_path: Path, extra: int
) -> None:
    with spool.create(META) as writer:
        for fragment in (*FRAGMENTS, bytes(extra)):
            writer.write(fragment)
        spooled = writer.finish()

    data_set = b"firstsecondthird" + bytes(extra)
    with spooled.open() as stream:
        assert stream.read() == META + data_set
    assert spooled.data_set_offset == len(META)
    assert spooled.data_set_size == len(data_set)
    assert spooled.digest == hashlib.sha256(data_set).hexdigest()
    is_small = len(META + data_set) <= SMALL_BYTES
    assert spooled.content == (META + data_set if is_small else None)
    assert [path.read_bytes() for path in files_under(tmp_path)] == (
        [] if is_small else [META + data_set]
    )


def test_small_data_set_gets_a_file_when_one_is_asked_for(spool: Spool, tmp_path: Path) -> None:
    small, large = received(spool, b"small"), received(spool)
    assert files_under(tmp_path) == [large.path]

    written = spool.write(small)

    assert written.path.read_bytes() == META + b"small"
    assert (written.content, written.is_synced) == (META + b"small", False)
    assert spool.write(written) is written
    assert spool.write(large) is large


def test_small_data_set_that_cannot_be_written_leaves_nothing(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    small = received(spool, b"small")
    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(StorageFull):
        spool.write(small)

    assert files_under(tmp_path) == []


def test_writer_memoryview_of_numbers_counts_bytes(spool: Spool) -> None:
    with spool.create(b"") as writer:
        writer.write(memoryview(b"12345678").cast("I"))
        spooled = writer.finish()

    assert spooled.data_set_size == 8
    assert spooled.digest == hashlib.sha256(b"12345678").hexdigest()


def test_writer_left_without_finish_removes_the_file(spool: Spool, tmp_path: Path) -> None:
    with spool.create(META) as writer:
        writer.write(LARGE)
        assert len(files_under(tmp_path)) == 1

    assert files_under(tmp_path) == []


def test_writer_left_by_an_error_removes_the_file(spool: Spool, tmp_path: Path) -> None:
    def receive_and_fail() -> None:
        with spool.create(META) as writer:
            writer.write(LARGE)
            raise KeyError

    with pytest.raises(KeyError):
        receive_and_fail()

    assert files_under(tmp_path) == []


def test_writer_discard_twice_is_harmless(spool: Spool, tmp_path: Path) -> None:
    writer = spool.create(META)
    writer.write(LARGE)

    writer.discard()
    writer.discard()

    assert files_under(tmp_path) == []


def test_writer_discard_after_finish_keeps_the_file(spool: Spool) -> None:
    writer = spool.create(META)
    writer.write(LARGE)
    spooled = writer.finish()

    writer.discard()

    assert spooled.path.exists()


def test_writer_short_writes_are_continued(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:9999])))

    spooled = received(spool)

    assert spooled.path.read_bytes() == META + LARGE


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, StorageUnavailable)],
)
def test_writer_failed_write_raises_and_discard_leaves_nothing(
    spool: Spool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    expected: type[PacsError],
) -> None:
    def fail(descriptor: int, data: object) -> int:
        raise OSError(number, os.strerror(number))

    writer = spool.create(META)
    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(expected):
        writer.write(LARGE)
    writer.discard()

    assert files_under(tmp_path) == []


def test_writer_failed_close_raises_and_leaves_nothing(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close

    def fail(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EIO, "delayed write failed")

    writer = spool.create(META)
    writer.write(LARGE)
    monkeypatch.setattr(os, "close", fail)
    with pytest.raises(StorageUnavailable):
        writer.finish()

    assert files_under(tmp_path) == []


def test_writer_limit_on_the_file_size_is_a_full_storage(tmp_path: Path) -> None:
    code = """
import pathlib, resource, sys
from pacs.errors import StorageFull
from pacs.storage.spool import Spool
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
root = pathlib.Path(sys.argv[1])
try:
    with Spool(root).create(b"m") as writer:
        writer.write(bytes(100000))
except StorageFull:
    print(len(list(root.rglob("*.part"))))
"""

    result = run(code, str(tmp_path))

    assert result.stdout.strip() == "0", result.stderr


def test_create_root_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageUnavailable):
        Spool(tmp_path / "file" / "spool").create(META)


def test_discard_removes_and_accepts_a_file_that_is_gone(spool: Spool) -> None:
    spooled = received(spool)

    spool.discard(spooled)
    spool.discard(spooled)

    assert not spooled.path.exists()


def test_sweep_removes_what_a_killed_process_left(spool: Spool, tmp_path: Path) -> None:
    code = """
import os, pathlib, signal, sys
from pacs.storage.spool import Spool
writer = Spool(pathlib.Path(sys.argv[1])).create(b"meta")
writer.write(b"never acknowledged" + bytes(100000))
os.kill(os.getpid(), signal.SIGKILL)
"""
    own = received(spool)
    assert run(code, str(tmp_path / "spool")).returncode == -9
    assert len(files_under(tmp_path)) == 2

    removed = spool.sweep()

    assert removed == 1
    assert files_under(tmp_path) == [own.path]
    assert len(list((tmp_path / "spool").iterdir())) == 2


def test_sweep_leaves_a_live_process_alone(tmp_path: Path) -> None:
    code = """
import pathlib, sys
from pacs.storage.spool import Spool
spool = Spool(pathlib.Path(sys.argv[1]))
spooled = spool.write(spool.create(b"meta").finish())
print("ready", flush=True)
sys.stdin.readline()
print(spooled.path.exists())
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        removed = Spool(tmp_path).sweep()

        answer, _ = process.communicate("\n", timeout=60)
    assert removed == 0
    assert answer == "True\n"


def test_sweep_without_a_spool_directory_finds_nothing(tmp_path: Path) -> None:
    assert Spool(tmp_path / "none").sweep() == 0


def test_sweep_leaves_strangers_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.lock").touch()
    (tmp_path / "notes").mkdir()

    assert Spool(tmp_path).sweep() == 0
    assert (tmp_path / "notes").is_dir()


def test_sweep_racing_with_new_spools_never_takes_a_live_one(tmp_path: Path) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def sweep() -> None:
        while not stop.is_set():
            Spool(tmp_path).sweep()

    def make() -> None:
        try:
            for _ in range(40):
                spool = Spool(tmp_path)
                spooled = received(spool)
                assert spooled.path.exists()
                spool.close()
        except BaseException as error:
            failures.append(error)

    sweepers = [threading.Thread(target=sweep) for _ in range(2)]
    makers = [threading.Thread(target=make) for _ in range(4)]
    for thread in sweepers + makers:
        thread.start()
    for thread in makers:
        thread.join()
    stop.set()
    for thread in sweepers:
        thread.join()

    assert failures == []
    assert list(tmp_path.iterdir()) == []


def test_sweep_between_open_and_lock_makes_the_process_take_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pacs.storage import process_directory as module

    flock = module.fcntl.flock
    removed: list[int] = []

    def flock_after_a_sweep(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(0)
            removed[0] = Spool(tmp_path).sweep()
        flock(descriptor, operation)

    monkeypatch.setattr(module.fcntl, "flock", flock_after_a_sweep)
    spool = Spool(tmp_path)
    spooled = received(spool)

    assert removed == [1]
    assert spooled.path.exists()
    # Without its lock file no later sweep would ever find the directory.
    assert spooled.path.parent.with_suffix(".lock").exists()
    assert Spool(tmp_path).sweep() == 0
    spool.close()


def test_close_removes_the_directory_and_the_spool_can_be_used_again(
    spool: Spool, tmp_path: Path
) -> None:
    received(spool)

    spool.close()
    spool.close()

    assert list((tmp_path / "spool").iterdir()) == []
    assert received(spool).path.exists()


def test_create_from_many_threads_uses_one_directory(spool: Spool, tmp_path: Path) -> None:
    threads = [threading.Thread(target=lambda: received(spool)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(files_under(tmp_path)) == 16
    assert len({path.parent for path in files_under(tmp_path)}) == 1


def test_spool_that_was_replaced_is_used_and_one_that_is_gone_is_not_made_again(
    spool: Spool, tmp_path: Path
) -> None:
    before = received(spool).path.parent
    (tmp_path / "spool").rename(tmp_path / "away")
    for use in (lambda: received(spool), spool.require_there):
        with pytest.raises(StorageUnavailable):
            use()
    assert not (tmp_path / "spool").exists()

    (tmp_path / "spool").mkdir()

    spool.require_there()
    directories = {received(spool).path.parent for _ in range(3)}
    assert len(directories) == 1
    assert before not in directories
    assert Spool(tmp_path / "spool").sweep() == 0


def test_spool_that_has_to_be_there_is_not_made(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.require()

    with pytest.raises(StorageUnavailable):
        spool.create(META)

    assert list(tmp_path.iterdir()) == []


def _write(writer: SpoolWriter, fragments: list[bytes]) -> None:
    for fragment in fragments:
        writer.write(fragment)


def test_space_is_kept_free_also_in_the_middle_of_a_data_set(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, free = bytes(1 << 20), [100 << 20]
    asked: list[Path] = []

    def statvfs(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(f_bavail=free[0] >> 12, f_frsize=1 << 12)

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr("pacs.storage.spool._SPACE_SECONDS", 3600.0)
    spool.limit(SpoolLimits(free_bytes=64 << 20))

    with spool.create(META) as writer:
        for _ in range(20):
            writer.write(block)
        assert len(asked) == 2, "not for each fragment"
        free[0] = 64 << 20
        with pytest.raises(
            StorageFull, match=r"^Disk full: minimum_free_bytes keeps 64 MiB free\Z"
        ):
            _write(writer, [block] * 20)
    assert files_under(tmp_path) == []

    free[0] = 65 << 20
    with spool.create(META) as writer:
        writer.write(block[:1000])
        assert writer.finish().data_set_size == 1000


def test_data_set_over_the_limit_is_refused_and_one_of_the_limit_is_not(spool: Spool) -> None:
    spool.limit(SpoolLimits(instance_bytes=16))

    with spool.create(META) as writer:
        for fragment in FRAGMENTS:
            writer.write(fragment)
        assert writer.finish().data_set_size == 16
    with spool.create(META) as writer:
        writer.write(bytes(10))
        with pytest.raises(LimitExceeded, match="longer than 16 bytes"):
            writer.write(bytes(7))
