r"""``pacs move`` at level FRAME (PS3.4 Y.4.1)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from pacs.conformance.scp.destination import Destination
from tests.multiframe import make_multiframe, native_frames
from tests.peers import RunningArchive, deposit, register
from tests.serving import Serve, engine_on_sqlite


@pytest.fixture
def destination() -> Iterator[Destination]:
    """A Move Destination that keeps what it gets."""
    with Destination("DEST", host="127.0.0.1") as listening:
        yield listening


def _move(running: RunningArchive, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "pacs", "move", f"PACS@127.0.0.1:{running.port}"),
            *("--to", "DEST", "-L", "FRAME", *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@engine_on_sqlite
@pytest.mark.parametrize(
    ("key", "frames"),
    [
        (r"SimpleFrameList=1\3", (1, 3)),
        (r"CalculatedFrameList=2\8\3", (2, 5, 8)),
        (r"TimeRange=0\0.1", (1, 2, 3)),
    ],
)
def test_frames_of_an_instance(
    serve: Serve, destination: Destination, key: str, frames: tuple[int, ...]
) -> None:
    service = serve()
    instance = make_multiframe(10)
    deposit(service.archive, instance)
    register(service.archive, "DEST", destination.port)

    done = _move(service, f"SOPInstanceUID={instance.SOPInstanceUID}", key)

    assert done.returncode == 0, done.stdout + done.stderr
    [received] = destination.received
    assert native_frames(received.data_set) == [native_frames(instance)[one - 1] for one in frames]


@engine_on_sqlite
def test_frames_that_are_not_there_are_said(serve: Serve, destination: Destination) -> None:
    service = serve()
    instance = make_multiframe(10)
    deposit(service.archive, instance)
    register(service.archive, "DEST", destination.port)

    done = _move(service, f"SOPInstanceUID={instance.SOPInstanceUID}", "SimpleFrameList=11")

    assert done.returncode == 1
    assert "status 0xAA00" in done.stdout
    assert destination.received == []
