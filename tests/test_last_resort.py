"""A process that is out of memory ends, whoever meets it; a thread in the background outlasts the rest."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading

import pytest

from pacs.last_resort import EXIT_OUT_OF_MEMORY, EXIT_STUCK, LastingThread

_PRELUDE = """
import errno, logging, mmap, os, threading
from pacs import last_resort
logging.basicConfig()
last_resort.end_when_out_of_memory()
log = logging.getLogger("pacs.wire")
def raise_(error):
    raise error
"""


def _run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PRELUDE + textwrap.dedent(script) + "\nprint('goes on')"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "script",
    [
        """
        try:
            raise_(MemoryError())
        except Exception:
            log.exception("the handler failed")
        """,
        'log.warning("cannot decode: %r", MemoryError())',
        """
        thread = threading.Thread(target=raise_, args=(MemoryError(),))
        thread.start()
        thread.join()
        """,
        """
        class Odd:
            def __del__(self):
                raise MemoryError
        Odd()
        """,
        """
        thread = last_resort.LastingThread("recorder", lambda: raise_(MemoryError()))
        thread.start()
        thread.join(60)
        """,
        """
        mmap.mmap = lambda *_: raise_(OSError(errno.ENOMEM, ""))
        try:
            raise_(RuntimeError("can't start new thread"))
        except Exception:
            log.exception("a connection could not be served")
        """,
    ],
    ids=["answered", "in a message", "thread", "not raised", "background", "no thread"],
)
def test_process_that_is_out_of_memory_ends_at_once(script: str) -> None:
    ended = _run(script)

    assert (ended.returncode, ended.stdout) == (EXIT_OUT_OF_MEMORY, "")
    assert "out of memory" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("error", ["ValueError()", 'RuntimeError("can\'t start new thread")'])
def test_process_that_meets_another_error_goes_on(error: str) -> None:
    ended = _run(f"""
        try:
            raise_({error})
        except Exception:
            log.exception("the handler failed")
        """)

    assert (ended.returncode, ended.stdout) == (0, "goes on\n")


def test_process_that_is_stuck_ends_with_a_code_of_its_own() -> None:
    ended = _run('last_resort.end_stuck("nothing is accepted")')

    assert (ended.returncode, ended.stdout) == (EXIT_STUCK, "")
    assert "nothing is accepted" in ended.stderr


def test_background_thread_goes_on_after_what_nobody_foresaw(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = 0
    works = threading.Event()

    def work() -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise KeyError("unforeseen")
        works.set()
        thread.stopping.wait()

    thread = LastingThread("recorder", work, pause_seconds=0.01)
    with caplog.at_level(logging.ERROR):
        thread.start()
        assert works.wait(30)
        thread.stop(30)

    assert calls == 3
    assert [one.getMessage() for one in caplog.records] == [
        "recorder failed and goes on in 0.01 s"
    ] * 2
