"""Storage SCU (PS3.4 Annex B): the C-STORE sub-operations of C-MOVE and C-GET.

One destination may need several associations: a request has room for 128 presentation contexts. They are
opened when an instance first needs one, and kept until the retrieve ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext, build_context

from pacs.archive.retrieve import OutgoingInstance
from pacs.archive.sub_operations import Outcome
from pacs.dimse.engine.association import EngineAssociation
from pacs.dimse.engine.dimse import assign_uid
from pacs.dimse.transcode import FALLBACK_TRANSFER_SYNTAXES, NotTranscodable, transcode
from pacs.errors import DestinationUnreachable, PacsError
from pacs.index.records import SubOperationOutcome

LOGGER = logging.getLogger(__name__)

MAX_CONTEXTS = 128
#: After a destination was lost and could not be reached again, or was silent, sub-operations fail at once for
#: this long: each of thousands would otherwise wait for the time-outs.
_REST_SECONDS = 10.0
#: So many instances in a row without an answer are not the fault of one of them.
_SILENT_INSTANCES = 2


def outcome_of_status(
    status: int, comment: str, *, size_bytes: int = 0, duration_seconds: float = 0.0
) -> Outcome:
    """What a C-STORE response status means for the sub-operation (PS3.7 C: B-range and 0001, 0107, 0116 warn)."""
    if status == 0x0000:
        result = SubOperationOutcome.COMPLETED
    elif status & 0xF000 == 0xB000 or status in (0x0001, 0x0107, 0x0116):
        result = SubOperationOutcome.WARNING
    else:
        result = SubOperationOutcome.FAILED
    if status and not comment:
        comment = f"C-STORE status 0x{status:04X}"
    return Outcome(result, status, comment, size_bytes, duration_seconds)


def contexts_for(stored: Mapping[tuple[str, str], int]) -> list[PresentationContext]:
    """What to propose for instances stored as (SOP Class, transfer syntax) pairs, most frequent first.

    One context for each pair, so that each can be accepted or refused alone, and one for each SOP Class with
    the uncompressed syntaxes, in case the stored one is refused.
    """
    pairs = sorted(stored, key=lambda pair: -stored[pair])
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in pairs]
    for sop_class in dict.fromkeys(sop_class for sop_class, _ in pairs):
        offered = {syntax for other, syntax in pairs if other == sop_class}
        fallback = [uid for uid in FALLBACK_TRANSFER_SYNTAXES if uid not in offered]
        contexts.append(build_context(sop_class, fallback))
    return contexts


@dataclass(frozen=True, slots=True)
class MoveOriginator:
    """Who asked for a C-MOVE: its AE title and Message ID (PS3.7 9.1.1.1.6, 9.1.1.1.7)."""

    ae_title: str
    message_id: int


def make_request(
    message_id: int, priority: int, originator: MoveOriginator | None = None
) -> C_STORE:
    """The request of one sub-operation; its priority is that of the retrieve (PS3.4 C.4.2.1.2, C.4.3.1.2)."""
    request = C_STORE()
    request.MessageID = message_id
    request.Priority = priority
    if originator is not None:
        request.MoveOriginatorApplicationEntityTitle = originator.ae_title
        request.MoveOriginatorMessageID = originator.message_id
    return request


def send_instance(
    assoc: EngineAssociation,
    instance: OutgoingInstance,
    context: PresentationContext,
    request: C_STORE,
) -> Outcome | None:
    """Send one instance over an accepted context and wait for the response; None if there was none.

    Raises:
        StorageUnavailable: the stored file cannot be read; nothing was sent.
        NotTranscodable: it cannot be converted to the context's transfer syntax; nothing was sent.
        EOFError, OSError: the file broke off in the middle; the association is of no more use.
    """
    started = time.monotonic()
    assign_uid(request, "AffectedSOPClassUID", instance.sop_class_uid)
    assign_uid(request, "AffectedSOPInstanceUID", instance.sop_instance_uid)
    stream, size_bytes = _data_set(instance, str(context.transfer_syntax[0]))
    context_id, message_id = context.context_id, request.MessageID
    assert context_id is not None
    assert message_id is not None
    with stream:
        assoc.dimse.send_file(request, context_id, stream, size_bytes)
    response = assoc.dimse.take_response(message_id)
    if response is None or response.Status is None:
        return None
    return outcome_of_status(
        int(response.Status),
        str(response.ErrorComment or ""),
        size_bytes=size_bytes,
        duration_seconds=time.monotonic() - started,
    )


def _data_set(instance: OutgoingInstance, transfer_syntax: str) -> tuple[BinaryIO, int]:
    if transfer_syntax == instance.transfer_syntax_uid:
        return instance.open_data_set(), instance.data_set_size
    with instance.open_file() as stream:
        converted = transcode(stream, transfer_syntax)
    return BytesIO(converted), len(converted)


def choose_context(
    contexts: list[PresentationContext], instance: OutgoingInstance
) -> PresentationContext | None:
    """The accepted context to send ``instance`` over: the stored transfer syntax, else an uncompressed one."""
    fallback: PresentationContext | None = None
    for context in contexts:
        if context.abstract_syntax != instance.sop_class_uid or not context.as_scu:
            continue
        syntax = str(context.transfer_syntax[0])
        if syntax == instance.transfer_syntax_uid:
            return context
        if syntax in FALLBACK_TRANSFER_SYNTAXES and fallback is None:
            fallback = context
    return fallback


class _MessageIds:
    """Message IDs 1 to 65,535, over again."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        self._last = self._last % 0xFFFF + 1
        return self._last


class GetDestination:
    """The sub-operations of a C-GET: on the association that asked (PS3.4 C.4.3)."""

    def __init__(self, assoc: EngineAssociation, request_message_id: int, priority: int) -> None:
        self._assoc = assoc
        self._priority = priority
        self._ids = _MessageIds()
        self._request_message_id = request_message_id

    def send(self, instance: OutgoingInstance) -> Outcome:
        """Send one instance to the requester."""
        context = choose_context(self._assoc.accepted_contexts, instance)
        if context is None:
            return Outcome.failed(_not_accepted(instance, "The requester"))
        message_id = self._ids.next()
        if message_id == self._request_message_id:
            message_id = self._ids.next()
        try:
            request = make_request(message_id, self._priority)
            outcome = send_instance(self._assoc, instance, context, request)
        except (PacsError, NotTranscodable) as error:
            return Outcome.failed(str(error))
        except (OSError, EOFError) as error:
            self._assoc.abort()
            return Outcome.failed(f"The stored file broke off: {error}")
        if outcome is None and self._assoc.is_usable:
            self._assoc.abort()
        return outcome or Outcome.failed("No C-STORE response")

    def close(self) -> None:
        """Nothing was opened."""


def _not_accepted(instance: OutgoingInstance, who: str) -> str:
    sop_class = UID(instance.sop_class_uid).name
    syntax = UID(instance.transfer_syntax_uid).name
    return f"{who} accepts no presentation context for {sop_class} in {syntax}"


@dataclass(slots=True)
class MoveDestination:
    """The sub-operations of a C-MOVE: on associations with the Move Destination."""

    #: Requests an association with these contexts (``EngineAE.associate`` with the address filled in).
    associate: Callable[[list[PresentationContext]], EngineAssociation]
    title: str
    contexts: list[PresentationContext]
    originator: MoveOriginator
    priority: int
    #: How often an instance whose association was lost is sent again.
    retries: int
    _open: dict[int, EngineAssociation] = field(default_factory=dict)
    _ids: _MessageIds = field(default_factory=_MessageIds)
    _reached: bool = False
    _was_silent: bool = False
    _silent_instances: int = 0
    _resting_until: float = 0.0

    def send(self, instance: OutgoingInstance) -> Outcome:
        """Send one instance, again if the association is lost under it.

        Raises:
            DestinationUnreachable: not one association with the destination could be established so far.
        """
        outcome: Outcome | None = None
        for _ in range(self.retries + 1):
            if time.monotonic() < self._resting_until:
                return Outcome.failed(f"Not tried: {self.title} was lost or silent just before")
            try:
                outcome = self._send_once(instance)
            except DestinationUnreachable as error:
                if not self._reached:
                    raise
                self._rest()
                return Outcome.failed(error.message)
            if outcome is not None:
                self._silent_instances = 0
                return outcome
        self._silent_instances = self._silent_instances + 1 if self._was_silent else 0
        if self._silent_instances >= _SILENT_INSTANCES:
            self._rest()
        return Outcome.failed(f"{self.title} did not answer the C-STORE request")

    def _rest(self) -> None:
        self._resting_until = time.monotonic() + _REST_SECONDS

    def _send_once(self, instance: OutgoingInstance) -> Outcome | None:
        """Send once; None when the association was lost and trying again may help."""
        group = self._group_of(instance)
        assoc = self._association(group)
        context = choose_context(assoc.accepted_contexts, instance)
        if context is None:
            return Outcome.failed(_not_accepted(instance, self.title))
        started = time.monotonic()
        try:
            request = make_request(self._ids.next(), self.priority, self.originator)
            outcome = send_instance(assoc, instance, context, request)
        except (PacsError, NotTranscodable) as error:
            return Outcome.failed(str(error))
        except (OSError, EOFError) as error:
            self._drop(group)
            return Outcome.failed(f"The stored file broke off: {error}")
        if outcome is None:
            # One that aborts costs no time. One that stops reading is not usable any more, after a long wait.
            self._was_silent = assoc.is_usable or time.monotonic() - started > _REST_SECONDS
            self._drop(group)
        return outcome

    def _group_of(self, instance: OutgoingInstance) -> int:
        """The number of the association whose contexts include those of the instance's SOP Class."""
        for position, context in enumerate(self.contexts):
            if (
                context.abstract_syntax == instance.sop_class_uid
                and instance.transfer_syntax_uid in context.transfer_syntax
            ):
                return position // MAX_CONTEXTS
        return 0

    def _association(self, group: int) -> EngineAssociation:
        assoc = self._open.get(group)
        if assoc is not None and assoc.is_usable:
            return assoc
        first = group * MAX_CONTEXTS
        assoc = self.associate(self.contexts[first : first + MAX_CONTEXTS])
        if not assoc.is_established:
            raise DestinationUnreachable(_why_not(self.title, assoc))
        self._reached = True
        self._open[group] = assoc
        return assoc

    def _drop(self, group: int) -> None:
        assoc = self._open.pop(group, None)
        if assoc is not None:
            assoc.abort()

    def close(self) -> None:
        """Release the associations."""
        for assoc in self._open.values():
            assoc.release()
        self._open.clear()


def _why_not(title: str, assoc: EngineAssociation) -> str:
    address = assoc.acceptor.address_info
    where = "" if address is None else f" at {address.address}:{address.port}"
    if assoc.is_rejected:
        return f"{title}{where} rejected the association: {assoc.rejection}"
    if assoc.accepted_contexts or assoc.rejected_contexts:
        return f"{title}{where} accepted no presentation context"
    reason = f": {assoc.connect_error}" if assoc.connect_error else ""
    return f"No association with {title}{where}{reason}"
