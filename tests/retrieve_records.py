"""Write records of retrieves step by step."""

from __future__ import annotations

from collections.abc import Sequence

from pacs.index.index import Index
from pacs.index.journal import RetrieveChange
from pacs.model.retrieves import RetrieveOutcome, RetrieveRequest, SubOperationRecord


def begin_retrieve(index: Index, request: RetrieveRequest) -> int:
    """Record that a retrieve began; the key of its record."""
    [key] = index.journal.write([RetrieveChange(request)])
    return key


def continue_retrieve(
    index: Index,
    key: int,
    batch: Sequence[SubOperationRecord] = (),
    outcome: RetrieveOutcome | None = None,
    *,
    may_be_there: bool = False,
) -> None:
    """Record sub-operations of a retrieve, and its end if there is an ``outcome``."""
    record = index.journal.retrieve(key)
    assert record is not None
    change = RetrieveChange(record.request, key, batch, outcome, may_be_there)
    assert index.journal.write([change]) == [key]
