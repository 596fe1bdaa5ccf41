"""What went wrong lately, from the index: recorded associations, and retrieves that none of those tells of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pacs.explain.cases import case_of_retrieve, explain_association, explain_retrieve
from pacs.explain.explanation import Case, Explanation, Site
from pacs.index.index import Index
from pacs.model.associations import AssociationRecord
from pacs.model.retrieves import RetrieveRecord

#: How many of the newest retrieves are looked at.
_RETRIEVES = 500
_IN_ORDER = (0x0000, 0xFE00)


@dataclass(frozen=True, slots=True)
class Problem:
    """A recorded association or retrieve and what is to be said of it."""

    #: ``association`` or ``retrieve``.
    kind: str
    number: int | None
    calling_ae: str
    calling_host: str
    started_at: datetime
    #: How it ended, in a word or two.
    ended: str
    explanations: tuple[Explanation, ...]

    def as_dict(self) -> dict[str, Any]:
        """The problem as JSON values."""
        return {
            "kind": self.kind,
            "number": self.number,
            "calling_ae": self.calling_ae,
            "calling_host": self.calling_host,
            "started_at": self.started_at.isoformat(),
            "ended": self.ended,
            "explanations": [one.as_dict() for one in self.explanations],
        }


class Problems:
    """Finds and explains them."""

    def __init__(self, index: Index, site: Site) -> None:
        """Read ``index``; advice is for ``site``."""
        self._index = index
        self._site = site

    def association(self, number: int) -> Problem | None:
        """A recorded association, whether or not something went wrong; None if there is none."""
        record = self._index.associations.get(number)
        if record is None:
            return None
        return self._of_association(record, self._index.journal.retrieves(_RETRIEVES))

    def retrieve(self, number: int) -> Problem | None:
        """A recorded retrieve, whether or not something went wrong; None if there is none."""
        record = self._index.journal.retrieve(number)
        return None if record is None else self._of_retrieve(record)

    def latest(self, count: int = 1, calling_ae: str | None = None) -> list[Problem]:
        """The latest problems, the newest first."""
        associations = self._index.associations.newest(
            count, calling_ae=calling_ae, only_problems=True
        )
        retrieves = self._index.journal.retrieves(_RETRIEVES)
        found: list[AssociationRecord | RetrieveRecord] = [*associations]
        found += [
            one
            for one in retrieves
            if _went_wrong(one)
            and calling_ae in (None, one.request.calling_ae)
            and not any(_is_within(one, record) for record in associations)
        ]
        found.sort(key=_began, reverse=True)
        return [
            self._of_association(one, retrieves)
            if isinstance(one, AssociationRecord)
            else self._of_retrieve(one)
            for one in found[:count]
        ]

    def _of_association(
        self, record: AssociationRecord, retrieves: Sequence[RetrieveRecord]
    ) -> Problem:
        cases = dict(self._cases(record, retrieves))
        return Problem(
            "association",
            record.key,
            record.calling_ae,
            record.calling_host,
            record.started_at,
            record.ending.value,
            tuple(explain_association(record, self._site, cases)),
        )

    def _cases(
        self, record: AssociationRecord, retrieves: Sequence[RetrieveRecord]
    ) -> Iterator[tuple[int, Case]]:
        for one in retrieves:
            if one.outcome is not None and _is_within(one, record):
                operations = self._index.journal.sub_operations(one.key)
                yield one.request.message_id, case_of_retrieve(one, operations)

    def _of_retrieve(self, record: RetrieveRecord) -> Problem:
        explanation = explain_retrieve(
            record, self._index.journal.sub_operations(record.key), self._site
        )
        request = record.request
        return Problem(
            "retrieve",
            record.key,
            request.calling_ae,
            request.calling_host,
            request.started_at,
            record.state.value,
            (explanation,),
        )


def _went_wrong(record: RetrieveRecord) -> bool:
    if record.outcome is None:
        return record.state.value == "interrupted"
    return record.outcome.status not in _IN_ORDER


def _is_within(retrieve: RetrieveRecord, association: AssociationRecord) -> bool:
    """Whether a retrieve was asked for on an association."""
    request = retrieve.request
    return (
        request.calling_ae == association.calling_ae
        and request.calling_host == association.calling_host
        and association.started_at <= request.started_at <= association.finished_at
    )


def _began(record: AssociationRecord | RetrieveRecord) -> datetime:
    if isinstance(record, AssociationRecord):
        return record.started_at
    return record.request.started_at
