"""When a worker that ended is due again; what processes do is in tests/acceptance/test_workers.py."""

from __future__ import annotations

import itertools
import time

import pytest

from pacs.workers.supervisor import _Slot


def test_workers_that_do_not_last_are_replaced_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    slot = _Slot(0)

    pauses = []
    for _ in range(10):
        slot.note_end()
        pauses.append(slot.due_at - 100.0)

    assert pauses[:5] == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert all(second >= first for first, second in itertools.pairwise(pauses))
    assert pauses[-1] == 30.0
