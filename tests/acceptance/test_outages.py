"""Disk, volume, index file and descriptors fail under a running ``pacs serve``.

What cannot be kept is answered Refused: Out of Resources (PS3.4 B.2.3: 0xA700) with the reason, what was acknowledged
is there afterwards, and the archive goes on by itself when the cause is gone.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from tests.acceptance.peers import association
from tests.acceptance.processes import SETTINGS, Processes, Serving, StartFailed, succeeded
from tests.factories import make_instance
from tests.outages import index_outage
from tests.volumes import Volume, small_volume

OUT_OF_RESOURCES = 0xA700
SUCCESS = 0x0000
FULL = "Cannot write to the spool: No space left on device"
GONE = "Cannot write to the spool: No such file or directory"

workers = pytest.mark.parametrize("workers", ["1", "2"])
#: For what a worker does as the only process does; starting them takes a second.
two_workers = pytest.mark.parametrize("workers", ["2"])


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Volume]:
    # It is smaller than what would be kept free.
    monkeypatch.setitem(SETTINGS, "PACS_MINIMUM_FREE_BYTES", "0")
    with small_volume(tmp_path) as mounted:
        yield mounted


def instances() -> list[Dataset]:
    """A small instance and one that does not go through the index."""
    small, large = make_instance(), make_instance()
    large.add_new(0x7FE00010, "OW", os.urandom(100 * 1024))
    return [small, large]


def store(serving: Serving, *sent: Dataset) -> list[tuple[int, str]]:
    """Status and Error Comment for each."""
    with association(serving.peer) as assoc:
        responses = [assoc.send_c_store(one) for one in sent or instances()]
    return [(int(one.Status), str(one.get("ErrorComment", ""))) for one in responses]


STORED = [(SUCCESS, "")] * 2


def held(processes: Processes, *options: str) -> int:
    """How many instances the archive has, each of them sound, and nothing else."""
    printed = json.loads(succeeded(processes.run("check", "--deep", "--json", *options)))
    counts = {name: count for name, count in printed["counts"].items() if count}
    assert counts.keys() == {"sound"}
    return int(counts["sound"])


@workers
@pytest.mark.parametrize("lack", ["space", "inodes"])
def test_full_volume_refuses_with_a700_and_takes_more_when_it_is_not(
    processes: Processes, volume: Volume, workers: str, lack: str
) -> None:
    options = ("--data-dir", str(volume.mount_point / "data"))
    serving = processes.serve(*options, "--workers", workers)
    assert store(serving) == STORED

    with volume.without_space() if lack == "space" else volume.without_inodes():
        refused = store(serving)
        left = volume.files("*.part")

    assert refused == [(OUT_OF_RESOURCES, FULL)] * 2
    assert left == []
    assert store(serving) == STORED
    assert serving.stop() == 0
    assert held(processes, *options) == 4
    assert len(volume.files("*.dcm")) == 4


@two_workers
def test_volume_that_fills_up_while_an_instance_comes_keeps_no_part_of_it(
    processes: Processes, volume: Volume, workers: str
) -> None:
    options = ("--data-dir", str(volume.mount_point / "data"))
    serving = processes.serve(*options, "--workers", workers)
    too_large = make_instance()
    too_large.add_new(0x7FE00010, "OW", bytes(5 * 1024 * 1024))

    assert store(serving, too_large, *instances()) == [(OUT_OF_RESOURCES, FULL), *STORED]

    assert volume.files("*.part") == []
    assert serving.stop() == 0
    assert held(processes, *options) == 2


@workers
def test_nothing_is_stored_below_a_volume_that_is_not_mounted(
    processes: Processes, volume: Volume, tmp_path: Path, workers: str
) -> None:
    options = (
        "--data-dir",
        str(tmp_path / "data"),
        "--storage-url",
        f"file://{volume.mount_point}",
    )
    serving = processes.serve(*options, "--workers", workers)
    assert store(serving) == STORED

    volume.unmount()
    refused = [store(serving) for _ in range(3)]
    below = list(volume.mount_point.iterdir())
    volume.mount()

    assert refused == [[(OUT_OF_RESOURCES, GONE)] * 2] * 3
    assert below == []
    assert store(serving) == STORED
    assert serving.stop() == 0
    assert held(processes, *options) == 4


@two_workers
def test_serve_does_not_start_without_the_volume_of_an_index_that_has_instances(
    processes: Processes, volume: Volume, tmp_path: Path, workers: str
) -> None:
    options = (
        "--data-dir",
        str(tmp_path / "data"),
        "--storage-url",
        f"file://{volume.mount_point}",
    )
    serving = processes.serve(*options, "--workers", workers)
    assert store(serving) == STORED
    assert serving.stop() == 0
    volume.unmount()

    with pytest.raises(StartFailed) as caught:
        processes.serve(*options, "--workers", workers)

    assert caught.value.status == 3
    assert "is the volume mounted?" in caught.value.logged
    assert list(volume.mount_point.iterdir()) == []


@two_workers
def test_storage_that_was_replaced_is_used_without_a_restart(
    processes: Processes, tmp_path: Path, workers: str
) -> None:
    options = ("--data-dir", str(tmp_path / "data"))
    serving = processes.serve(*options, "--workers", workers)
    assert store(serving) == STORED
    storage, away = tmp_path / "data" / "storage", tmp_path / "away"
    storage.rename(away)
    assert store(serving) == [(OUT_OF_RESOURCES, GONE)] * 2

    # As from a backup, which has no use for what is in the spool.
    shutil.copytree(away, storage, ignore=lambda path, names: names if "spool" in path else [])

    assert store(serving) == STORED
    assert serving.stop() == 0
    assert held(processes, *options) == 4


@workers
def test_index_file_that_is_gone_lets_nothing_be_acknowledged(
    processes: Processes, tmp_path: Path, workers: str
) -> None:
    options = ("--data-dir", str(tmp_path / "data"))
    serving = processes.serve(*options, "--workers", workers)
    assert store(serving) == STORED
    path, away = tmp_path / "data" / "index.sqlite", tmp_path / "away"
    path.rename(away)

    refused = store(serving)

    assert refused == [(OUT_OF_RESOURCES, "The index file is gone: put it back, or restart")] * 2
    assert not path.exists()
    away.rename(path)
    assert store(serving) == STORED
    assert serving.stop() == 0
    assert held(processes, *options) == 4


@pytest.mark.postgres
@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
@two_workers
def test_postgresql_that_goes_and_comes_back(
    processes: Processes, empty_database_url: str, tmp_path: Path, workers: str
) -> None:
    options = ("--data-dir", str(tmp_path / "data"), "--database-url", empty_database_url)
    serving = processes.serve(*options, "--workers", workers)
    assert store(serving) == STORED

    with index_outage(empty_database_url):
        refused = store(serving)

    assert [status for status, _ in refused] == [OUT_OF_RESOURCES] * 2
    assert [comment for _, comment in refused] == ["The index cannot be reached."] * 2
    assert store(serving) == STORED
    assert serving.stop() == 0
    assert held(processes, *options) == 4


@contextmanager
def open_files(maximum: int) -> Iterator[None]:
    """What is started meanwhile may have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@workers
def test_flood_of_connections_beyond_the_open_files_passes(
    processes: Processes, tmp_path: Path, workers: str
) -> None:
    with open_files(64):
        serving = processes.serve("--data-dir", str(tmp_path / "data"), "--workers", workers)
    assert store(serving) == STORED
    flood = []
    for _ in range(80):
        with suppress(OSError):
            flood.append(socket.create_connection(("127.0.0.1", serving.port), timeout=0.1))

    for connection in flood:
        connection.close()

    serving.echo()
    assert store(serving) == STORED
    assert "Traceback" not in serving.log
    assert serving.stop() == 0
    assert held(processes, "--data-dir", str(tmp_path / "data")) == 4
