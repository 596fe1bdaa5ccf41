"""How far a long command has come: a bar on a terminal, else a line every ten seconds; on standard error."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pacs.cli.output import errors, human_size
from pacs.errors import PacsError

_BAR_SECONDS = 0.1
_LINE_SECONDS = 10.0


class ProgressDisplay:
    """Shows progress while it is entered; quick enough to be told of every single file."""

    def __init__(self, what: str, unit: str, *, quiet: bool = False) -> None:
        """Say ``what`` is done, and what is counted; ``quiet`` shows nothing at all."""
        self.total: int | None = None
        self._what = what
        self._unit = unit
        self._quiet = quiet
        self._started = self._shown = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._counter: threading.Thread | None = None
        self._is_over = threading.Event()

    def __enter__(self) -> Self:
        self._started = self._shown = time.monotonic()
        if errors.is_terminal and not self._quiet:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[progress]}"),
                TimeRemainingColumn(),
                console=errors.rich,
                transient=True,
            )
            self._task = self._bar.add_task(self._what, total=None, progress="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        if self._bar is not None:
            self._bar.stop()
        if self._counter is not None:
            self._counter.join()

    def count(self, things: Iterable[object]) -> None:
        """Find out the total on the side, by going through ``things``; the work need not wait for it."""
        if self._quiet:
            return

        def work() -> None:
            count = 0
            try:
                for _ in things:
                    count += 1
                    if self._is_over.is_set():
                        return
            except (OSError, PacsError):
                # The work meets the same fault and says so; here it only means that nobody knows the total.
                return
            self.total = count

        self._counter = threading.Thread(target=work, name="count", daemon=True)
        self._counter.start()

    def show(self, done: int, size_bytes: int) -> None:
        """Tell how many of the units, and of how many bytes, are done."""
        now = time.monotonic()
        if self._quiet or now - self._shown < (
            _LINE_SECONDS if self._bar is None else _BAR_SECONDS
        ):
            return
        self._shown = now
        seconds = max(now - self._started, 0.001)
        of_total = "" if self.total is None else f" of {self.total:,}"
        rates = f"{human_size(round(size_bytes / seconds))}/s, {done / seconds:,.0f}/s"
        line = f"{done:,}{of_total} {self._unit}, {rates}"
        if self._bar is None:
            left = "" if not (self.total and done) else _left(seconds / done * (self.total - done))
            errors.print(f"{self._what}: {line}{left}")
        else:
            self._bar.update(self._task, completed=done, total=self.total, progress=line)


def _left(seconds: float) -> str:
    minutes, rest = divmod(max(round(seconds), 0), 60)
    return f", {minutes}:{rest:02} left"
