"""Records associations once they are over, for those who ask later what went wrong (``pacs explain``).

A thread of its own writes them, many in one transaction: no association waits for it, and of a flood that it cannot
keep up with the rest is dropped.
"""

from __future__ import annotations

import logging
import queue
import ssl
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pacs.dimse.status import Status
from pacs.errors import PacsError
from pacs.foreign_text import visible
from pacs.index.index import Index
from pacs.last_resort import LastingThread
from pacs.model.associations import (
    AssociationEnding,
    AssociationRecord,
    OperationRecord,
    ProposedContext,
)
from pacs.wire.association import EngineAssociation
from pacs.wire.history import History
from pacs.wire.repeated import RepeatedLine

LOGGER = logging.getLogger(__name__)

_MOST_WAITING = 500
_BATCH = 100
_STOP_SECONDS = 5.0
#: Statuses after which nobody has to ask; the peer itself wanted the last one.
_IN_ORDER = (Status.SUCCESS, Status.CANCEL)
_GOOD_ENDINGS = (AssociationEnding.RELEASED, AssociationEnding.STOPPED)
#: Many AEs just hold an association until they need it.
_IDLE = "idle"
#: What a peer sends is cut to what it could mean.
_LONGEST_TITLE, _LONGEST_UID, _LONGEST_TEXT, _MOST_SYNTAXES, _MOST_CONTEXTS = 16, 64, 64, 40, 128


class AssociationRecorder:
    """Writes records to an index; ``note`` may be called from any thread."""

    def __init__(self, index: Index, *, only_problems: bool, keep: int) -> None:
        """Keep the newest ``keep`` records, with ``only_problems`` of those in which something went wrong."""
        self._index = index
        self._only_problems = only_problems
        self._keep = keep
        self._waiting: queue.Queue[AssociationRecord | None] = queue.Queue(_MOST_WAITING)
        self._dropped = RepeatedLine(LOGGER, logging.WARNING)
        self._failed = RepeatedLine(LOGGER, logging.ERROR)
        self._thread = LastingThread("recorder", self._work)

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def note(self, assoc: EngineAssociation) -> None:
        """Record an association that is over, soon; never raises."""
        try:
            # Of most nothing is recorded: to lay out what happened would cost more than all else at their end.
            if self._only_problems and not is_problem(assoc):
                return
            record = record_of(assoc)
            if record is not None:
                self._waiting.put_nowait(record)
        except queue.Full:
            self._dropped("the record of an association is dropped: there are too many at once")
        except Exception:
            LOGGER.exception("%s: the association cannot be recorded", assoc.label)

    def stop(self) -> None:
        """Write what waits, and end the thread; waits for that, but not for long."""
        try:
            self._waiting.put(None, timeout=_STOP_SECONDS)
        except queue.Full:  # the index is stuck, and what waits is lost with it
            return
        self._thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < _BATCH and not self._waiting.empty():
                batch.append(self._waiting.get())
            records = [record for record in batch if record is not None]
            try:
                self._index.associations.add(records, keep=self._keep)
            except PacsError as error:
                self._failed("associations cannot be recorded: %s", error)
            if len(records) < len(batch):
                return


def record_of(assoc: EngineAssociation) -> AssociationRecord | None:
    """What is recorded of an association; None if the peer never requested one."""
    request: Any = assoc.requestor.primitive
    if request is None:
        return None
    history, address = assoc.history, assoc.requestor.address_info
    contexts = tuple(_contexts(assoc, request))
    operations = tuple(_operations(assoc, history))
    ending = history.ending or AssociationEnding.CONNECTION_LOST
    return AssociationRecord(
        calling_ae=_plain(request.calling_ae_title, _LONGEST_TITLE),
        called_ae=_plain(request.called_ae_title, _LONGEST_TITLE),
        calling_host="" if address is None else str(address.address),
        tls=isinstance(getattr(assoc.dul.socket, "socket", None), ssl.SSLSocket),
        started_at=history.started_at,
        finished_at=datetime.now(UTC),
        ending=ending,
        codes=history.codes,
        detail=_plain(history.detail, _LONGEST_TEXT * 2),
        contexts=contexts,
        operations=operations,
        is_problem=is_problem(assoc),
    )


def is_problem(assoc: EngineAssociation) -> bool:
    """Whether something went wrong: in how it ended, in an operation, or because contexts were refused."""
    history = assoc.history
    if any(one.first.status not in _IN_ORDER for one in history.answers.values()):
        return True
    has_operations = bool(history.stored or history.answers)
    if history.ending is AssociationEnding.TIMED_OUT and history.detail.startswith(_IDLE):
        return not has_operations
    if history.ending not in _GOOD_ENDINGS:
        return True
    # It asked for something, was refused, and went away without asking for anything else.
    return not has_operations and any(one.result for one in assoc.rejected_contexts)


def _contexts(assoc: EngineAssociation, request: Any) -> list[ProposedContext]:
    answered = [*assoc.rejected_contexts, *assoc.accepted_contexts]
    results = {one.context_id: one.result for one in answered}
    return [
        ProposedContext(
            abstract_syntax=_plain(one.abstract_syntax, _LONGEST_UID),
            transfer_syntaxes=tuple(
                _plain(uid, _LONGEST_UID) for uid in one.transfer_syntax[:_MOST_SYNTAXES]
            ),
            result=results.get(one.context_id),
        )
        for one in request.presentation_context_definition_list[:_MOST_CONTEXTS]
    ]


def _operations(assoc: EngineAssociation, history: History) -> list[OperationRecord]:
    syntaxes = {one.context_id: one.abstract_syntax for one in assoc.accepted_contexts}
    stored = [
        OperationRecord(
            service="C-STORE",
            sop_class_uid=_plain(syntaxes[context_id], _LONGEST_UID),
            status=Status.SUCCESS,
            times=times,
        )
        for context_id, times in history.stored.items()
    ]
    others = [
        replace(
            one.first,
            times=one.times,
            sop_class_uid=_plain(one.first.sop_class_uid, _LONGEST_UID),
            destination=_plain(one.first.destination, _LONGEST_TITLE),
            error_comment=_plain(one.first.error_comment, _LONGEST_TEXT),
        )
        for one in history.answers.values()
    ]
    return stored + others


def _plain(text: object, longest: int) -> str:
    return visible(str(text or "").strip(), longest)
