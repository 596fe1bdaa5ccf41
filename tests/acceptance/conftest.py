"""Processes and peers that end with the test, however it ends."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.peers import Destination
from tests.acceptance.processes import Processes


@pytest.fixture(scope="session", autouse=True)
def interrupts_are_heard() -> None:
    """A shell starts a background job, and so our processes, with SIGINT ignored: undo that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts ``pacs`` in processes of its own, in an empty directory; none outlives the test."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    started = Processes(cwd)
    yield started
    started.close()


@pytest.fixture
def destination() -> Iterator[Destination]:
    """A storage SCP on stock pynetdicom, AE title DEST."""
    started = Destination()
    yield started
    started.close()


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port on which nobody listens, and nobody will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])
