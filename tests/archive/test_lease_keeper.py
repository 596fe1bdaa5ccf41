"""Only who has kept his own lease judges those of others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pacs.archive import lease_keeper
from pacs.archive.lease_keeper import LeaseKeeper

_SECONDS = 60.0


@pytest.mark.parametrize(
    ("renewals", "judges"),
    [
        # Our clock, the database's.
        ([(0, 1000), (15, 1015), (30, 1030)], False),
        ([(0, 1000), (15, 1015), (30, 1030), (45, 1045), (60.1, 1060)], True),
        # The database could not be reached, or this process was stopped.
        ([(0, 1000), (30, 1030), (90, 1090), (105, 1105)], False),
        # Its clock was put forward: all leases ran out at once.
        ([(0, 1000), (50, 1050), (65, 2065), (80, 2080)], False),
        ([(0, 1000), (50, 1050), (65, 2065), (110, 2110), (126, 2126)], True),
    ],
    ids=["new", "kept", "outage", "jump", "kept since the jump"],
)
def test_keeper_judges_by_lease_once_its_own_was_kept_for_one(
    monkeypatch: pytest.MonkeyPatch, renewals: list[tuple[float, float]], judges: bool
) -> None:
    ours, databases = (iter(times) for times in zip(*renewals, strict=True))
    index: Any = SimpleNamespace(leases=SimpleNamespace(renew=lambda _seconds: next(databases)))
    keeper = LeaseKeeper(index, _SECONDS, lambda _: None)

    for now in ours:
        monkeypatch.setattr(lease_keeper, "_now", lambda now=now: now)
        keeper._renew()

    assert keeper._may_judge() is judges
