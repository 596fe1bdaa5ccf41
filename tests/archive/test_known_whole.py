"""What is remembered of data sets that were walked to their end."""

from __future__ import annotations

import pytest

from pacs.archive import known_whole
from pacs.archive.known_whole import KnownWhole


def test_no_more_is_remembered_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_whole, "_MOST", 2)
    whole = KnownWhole()

    for number in range(5):
        whole.add(str(number), "1.2")

    remembered = [number for number in range(5) if whole.has(str(number), "1.2")]
    assert remembered == [2, 3, 4]
    assert not whole.has("4", "1.3")
