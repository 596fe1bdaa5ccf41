"""Where the sub-operations of a retrieve go: the association that asked (C-GET), or others (C-MOVE).

Both take the next instance while the one before is on its way: while the peer digests that, the next is read
and laid out, and whoever counts and records what has been done does so as well.

One Move Destination may need several associations: a request has room for 128 presentation contexts. They are
opened when an instance first needs one, and kept until the retrieve ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from functools import partial

from pynetdicom.presentation import PresentationContext

from pacs.archive.retrieve import Completed, OutgoingInstance
from pacs.dimse.storage_scu import MoveOriginator, StorageLink, by_association
from pacs.dimse.transcode import Conversions
from pacs.errors import DestinationUnreachable
from pacs.model.sub_operations import Outcome
from pacs.wire.association import EngineAssociation

#: After a destination was lost and could not be reached again, or was silent, sub-operations fail at once for
#: this long: each of thousands would otherwise wait for the time-outs.
_REST_SECONDS = 10.0
#: So many instances in a row without an answer are not the fault of one of them.
_SILENT_INSTANCES = 2


class GetDestination:
    """The sub-operations of a C-GET: on the association that asked (PS3.4 C.4.3)."""

    def __init__(
        self,
        assoc: EngineAssociation,
        request_message_id: int,
        priority: int,
        conversions: Conversions | None = None,
    ) -> None:
        """Send to the requester of the C-GET whose Message ID and priority these are."""
        self._assoc = assoc
        self._message_id = request_message_id
        self._link = StorageLink(
            assoc,
            "The requester",
            priority,
            reserved_message_id=request_message_id,
            conversions=conversions or Conversions(),
            is_cancelled=partial(assoc.is_cancelled, request_message_id),
        )
        self._sent: OutgoingInstance | None = None

    def submit(self, instance: OutgoingInstance) -> list[Completed]:
        """Send one instance when the one before is done, and return that."""
        refusal = self._link.prepare(instance)
        completed = self.drain()
        if self._assoc.is_cancelled(self._message_id):
            self._link.forget()
            return completed
        if refusal is None:
            refusal = self._link.send()
        if refusal is None:
            self._sent = instance
        else:
            completed.append(Completed(instance, refusal))
        return completed

    def drain(self) -> list[Completed]:
        """Wait for the instance that is under way."""
        instance, self._sent = self._sent, None
        if instance is None:
            return []
        outcome = self._link.receive()
        if outcome is None and self._assoc.is_usable:
            self._assoc.abort()
        return [Completed(instance, outcome or _unanswered(instance, "No C-STORE response"))]

    def withdraw(self) -> None:
        """What was taken is on its way."""

    def close(self) -> None:
        """Nothing was opened."""


def _never() -> bool:
    return False


@dataclass(slots=True)
class MoveDestination:
    """The sub-operations of a C-MOVE: on associations with the Move Destination, one instance at a time."""

    #: Requests an association with these contexts (``EngineAE.associate`` with the address filled in).
    associate: Callable[[list[PresentationContext]], EngineAssociation]
    title: str
    contexts: InitVar[list[PresentationContext]]
    originator: MoveOriginator | None
    priority: int
    #: How often an instance whose association was lost is sent again.
    retries: int
    #: Whether the C-MOVE is cancelled or its requester gone: what is not on its way then is not sent.
    is_cancelled: Callable[[], bool]
    #: Asked when the destination is lost for good: whether somebody else takes over what is under way.
    may_give_up: Callable[[], bool] = _never
    conversions: Conversions = field(default_factory=Conversions)
    _associations: list[list[PresentationContext]] = field(init=False)
    _links: dict[int, StorageLink] = field(default_factory=dict)
    _groups: dict[tuple[str, str], int] = field(default_factory=dict)
    _sent: tuple[OutgoingInstance, int] | None = None
    _completed: list[Completed] = field(default_factory=list)
    _reached: bool = False
    _silent_instances: int = 0
    _resting_until: float = 0.0

    def __post_init__(self, contexts: list[PresentationContext]) -> None:
        self._associations = by_association(contexts)

    def connect(self) -> None:
        """Open the association that most instances need.

        Raises:
            DestinationUnreachable: it cannot be established.
        """
        self._link(0)

    def submit(self, instance: OutgoingInstance) -> list[Completed]:
        """Send one instance when the one before is done, and return that.

        Raises:
            DestinationUnreachable: not one association with the destination could be established so far, or
                it is lost and ``may_give_up``; ``take_completed`` has what was done before.
        """
        group = self._group_of(instance)
        if self._sent is not None and not self._links[self._sent[1]].is_usable:
            self._wait()
        link, refusal = self._prepare(instance, group)
        self._wait()
        if self.is_cancelled():
            if link is not None:
                link.forget()
            return self.take_completed()
        if link is not None and not link.is_usable:
            link, refusal = self._prepare(instance, group)  # on the one that took its place
        if link is not None and refusal is None:
            refusal = self._transmit(link, group)
        if refusal is None:
            self._sent = instance, group
        else:
            self._completed.append(Completed(instance, refusal))
        return self.take_completed()

    def drain(self) -> list[Completed]:
        """Wait for the instance that is under way.

        Raises:
            DestinationUnreachable: as for ``submit``.
        """
        self._wait()
        return self.take_completed()

    def withdraw(self) -> None:
        """What was taken is on its way."""

    @property
    def is_busy(self) -> bool:
        """Whether an instance is under way."""
        return self._sent is not None

    def take_completed(self) -> list[Completed]:
        """What is done and was not returned yet."""
        completed, self._completed = self._completed, []
        return completed

    def close(self) -> None:
        """Release the associations."""
        for link in self._links.values():
            link.release()
        self._links.clear()

    def _wait(self) -> None:
        """Have the instance that is under way done."""
        if self._sent is None:
            return
        (instance, group), self._sent = self._sent, None
        outcome = self._links[group].receive()
        if outcome is None:
            outcome = self._try_again(instance, group)
        else:
            self._silent_instances = 0
        self._completed.append(Completed(instance, outcome))

    def _try_again(self, instance: OutgoingInstance, group: int) -> Outcome:
        """Send again what the destination did not answer."""
        was_silent = self._drop(group)
        for _ in range(self.retries):
            if self.is_cancelled():
                break
            link, refusal = self._prepare(instance, group)
            if link is not None and refusal is None:
                refusal = self._transmit(link, group)
            if link is None or refusal is not None:
                return refusal or Outcome.failed(f"{self.title} was lost")
            outcome = link.receive()
            if outcome is not None:
                self._silent_instances = 0
                return outcome
            was_silent = self._drop(group)
        self._silent_instances = self._silent_instances + 1 if was_silent else 0
        if self._silent_instances >= _SILENT_INSTANCES:
            self._rest()
        return _unanswered(instance, f"{self.title} did not answer the C-STORE request")

    def _prepare(
        self, instance: OutgoingInstance, group: int
    ) -> tuple[StorageLink | None, Outcome | None]:
        """Lay out the request; the link to send it over, or the outcome if it cannot be sent."""
        if time.monotonic() < self._resting_until:
            return None, Outcome.failed(f"Not tried: {self.title} was lost or silent just before")
        try:
            link = self._link(group)
        except DestinationUnreachable as error:
            if not self._reached or self.may_give_up():
                raise
            self._rest()
            return None, Outcome.failed(error.message)
        return link, link.prepare(instance)

    def _transmit(self, link: StorageLink, group: int) -> Outcome | None:
        refusal = link.send()
        if refusal is not None:
            self._drop(group)
        return refusal

    def _rest(self) -> None:
        self._resting_until = time.monotonic() + _REST_SECONDS

    def _group_of(self, instance: OutgoingInstance) -> int:
        """The number of the association whose contexts include those of the instance's SOP Class."""
        pair = (instance.sop_class_uid, instance.transfer_syntax_uid)
        if pair not in self._groups:
            numbers = (
                number
                for number, contexts in enumerate(self._associations)
                for context in contexts
                if context.abstract_syntax == pair[0] and pair[1] in context.transfer_syntax
            )
            # One that nothing could be proposed for fails on whichever there is.
            self._groups[pair] = next(numbers, 0)
        return self._groups[pair]

    def _link(self, group: int) -> StorageLink:
        link = self._links.get(group)
        if link is not None and link.is_usable:
            return link
        if not self._associations:
            raise DestinationUnreachable("No SOP Class of the instances can be proposed")
        assoc = self.associate(self._associations[group])
        if not assoc.is_established:
            raise DestinationUnreachable(_why_not(self.title, assoc))
        self._reached = True
        self._links[group] = StorageLink(
            assoc,
            self.title,
            self.priority,
            self.originator,
            conversions=self.conversions,
            is_cancelled=self.is_cancelled,
        )
        return self._links[group]

    def _drop(self, group: int) -> bool:
        """Abort an association that is of no more use; return whether its peer was silent."""
        link = self._links.pop(group)
        # One that aborts costs no time. One that stops reading is not usable any more, after a long wait.
        was_silent = link.is_usable or link.waited_seconds > _REST_SECONDS
        link.abort()
        return was_silent


def _unanswered(instance: OutgoingInstance, comment: str) -> Outcome:
    # A peer that meets the end of a data set too early often says nothing more.
    return Outcome.failed(instance.fault() or comment)


def _why_not(title: str, assoc: EngineAssociation) -> str:
    address = assoc.acceptor.address_info
    where = "" if address is None else f" at {address.address}:{address.port}"
    if assoc.is_rejected:
        return f"{title}{where} rejected the association: {assoc.rejection}"
    if assoc.accepted_contexts or assoc.rejected_contexts:
        return f"{title}{where} accepted no presentation context"
    if assoc.connect_error:
        # Error Comment has room for 64 characters: most of them for the reason.
        return f"{title}{where}: {assoc.connect_error}"
    return f"No association with {title}{where}"
