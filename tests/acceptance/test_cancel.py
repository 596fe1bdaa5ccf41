"""Ctrl-C during ``pacs move``: the first asks the remote AE to stop, the second does not wait for it."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import peers
from tests.acceptance.processes import DEADLINE_SECONDS, Processes
from tests.dimse.retrieving import STUDY, store_study
from tests.peers import RunningArchive, engine_associations, register, wait_until
from tests.serving import engine_on_sqlite

pytestmark = engine_on_sqlite


@pytest.fixture
def may_answer() -> Iterator[threading.Event]:
    """Until it is set the destination answers nothing."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def moving(
    service: RunningArchive,
    processes: Processes,
    start_destination: Callable[..., peers.Destination],
    may_answer: threading.Event,
) -> tuple[subprocess.Popen[str], Path]:
    """A ``pacs move`` of 50 instances whose destination has got the first, and the file of its messages."""
    held = start_destination(answer=lambda _: 0x0000 if may_answer.wait(20) else 0xA700)
    register(service.archive, "DEST", held.port)
    store_study(service, 50)
    arguments = (f"PACS@127.0.0.1:{service.port}", "--to", "DEST", f"StudyInstanceUID={STUDY}")
    process, log = processes.spawn("move", *arguments)
    wait_until(lambda: held.received, DEADLINE_SECONDS)
    process.send_signal(signal.SIGINT)
    wait_until(lambda: "cancelling" in log.read_text("utf-8"), DEADLINE_SECONDS)
    return process, log


def test_ctrl_c_during_a_move_cancels_it_and_shows_how_it_ended(
    moving: tuple[subprocess.Popen[str], Path], may_answer: threading.Event
) -> None:
    process, log = moving

    may_answer.set()
    printed, _ = process.communicate(timeout=DEADLINE_SECONDS)

    assert process.returncode == 130
    assert printed.startswith("status 0xFE00: "), printed
    assert log.read_text("utf-8").count("\n") == 1


def test_second_ctrl_c_ends_the_association_at_once(
    moving: tuple[subprocess.Popen[str], Path],
    service: RunningArchive,
    may_answer: threading.Event,
) -> None:
    process, log = moving

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_SECONDS)
    may_answer.set()

    assert process.returncode == 130
    assert log.read_text("utf-8").splitlines()[-1] == "pacs: interrupted"
    wait_until(lambda: not engine_associations(service))
