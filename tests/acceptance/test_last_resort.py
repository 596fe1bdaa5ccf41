"""A served process that is out of memory, or does not accept any more, ends with a code of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from pacs.dimse import query_scu
from pacs.dimse.ae import Options
from pacs.errors import PacsError
from pacs.last_resort import EXIT_OUT_OF_MEMORY, EXIT_STUCK
from tests.acceptance.processes import (
    DEADLINE_SECONDS,
    Processes,
    Serving,
    environment,
    wait_until_listening,
)
from tests.peers import wait_until

#: Serves with a fault for the AE of this title.
_SERVE = """
import sys, threading
from pacs.dimse import ae
from pacs.wire.ae import EngineServer
sys.argv = ["pacs", "serve", "--host", "127.0.0.1", "--port", "0", "--worker-timeout-seconds", "1", *sys.argv[1:]]
def fault(*_):
    {fault}
{place} = fault
from pacs.cli import main
main()
"""


@contextmanager
def _serving(processes: Processes, script: str, *arguments: str) -> Iterator[Serving]:
    log_path = processes.cwd / "log.txt"
    with (
        log_path.open("w", encoding="utf-8") as log,
        subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            env=environment(),
            cwd=processes.cwd,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield wait_until_listening(process, log_path)
        finally:
            process.kill()


def _echo(serving: Serving) -> None:
    with suppress(PacsError):
        query_scu.echo(Options(acse_timeout_seconds=5, dimse_timeout_seconds=5), serving.peer)


@pytest.mark.parametrize(
    ("place", "fault", "status", "said"),
    [
        pytest.param(
            "ae.handle_echo", "raise MemoryError", EXIT_OUT_OF_MEMORY, "out of memory", id="handler"
        ),
        pytest.param(
            "EngineServer._accepted",
            "raise KeyError",
            EXIT_STUCK,
            "nobody accepts",
            id="no listener",
        ),
        pytest.param(
            "EngineServer._accepted",
            "threading.Event().wait()",
            EXIT_STUCK,
            "no connection has been accepted for 1 s",
            id="stuck listener",
        ),
    ],
)
def test_process_without_a_supervisor_ends(
    processes: Processes, place: str, fault: str, status: int, said: str
) -> None:
    with _serving(processes, _SERVE.format(place=place, fault=fault)) as serving:
        _echo(serving)

        assert serving.process.wait(DEADLINE_SECONDS) == status
        assert said in serving.log


def test_worker_whose_handler_is_out_of_memory_is_replaced(processes: Processes) -> None:
    script = _SERVE.format(place="ae.handle_echo", fault="raise MemoryError")

    with _serving(processes, script, "--workers", "2") as serving:
        _echo(serving)

        wait_until(lambda: "serves again" in serving.log)
        assert "ran out of memory; it is replaced" in serving.log
        assert serving.stop() == 0
