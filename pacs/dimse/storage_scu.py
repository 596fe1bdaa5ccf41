"""Storage SCU (PS3.4 Annex B): what to propose to a peer, and sending it instances over one association."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import BinaryIO, NamedTuple

from pydicom import config
from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext, build_context

from pacs.archive.cut_off import refuse_cut_off
from pacs.archive.retrieve import OutgoingInstance
from pacs.dicom.error_comment import attribute_name
from pacs.dicom.uids import command_uid, is_regular_uid, shown_uid
from pacs.dimse.transcode import FALLBACK_TRANSFER_SYNTAXES, Conversions, NotTranscodable
from pacs.errors import PacsError
from pacs.model.retrieves import SubOperationOutcome
from pacs.model.sub_operations import Outcome
from pacs.wire.association import EngineAssociation
from pacs.wire.command import StoreRequests
from pacs.wire.store_message import StoreMessage

LOGGER = logging.getLogger(__name__)

#: A request for an association has room for so many presentation contexts (PS3.8 7.1.1.13).
MAX_CONTEXTS = 128
_DEFAULT_CONVERSIONS = Conversions()


def _never() -> bool:
    return False


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
    """What to propose for instances stored as (SOP Class, transfer syntax) pairs, the most frequent SOP Class first.

    One context for each pair, so that each can be accepted or refused alone, and one for each SOP Class with
    the uncompressed syntaxes that are not proposed alone, in case the stored one is refused. A context without any
    transfer syntax, or with a UID that there is no room for, would break the whole request (PS3.8 9.3.2.2): there is
    none.
    """
    syntaxes: dict[str, list[str]] = {}
    for sop_class, syntax in sorted(stored, key=lambda pair: -stored[pair]):
        # DCMTK and pynetdicom take any SOP Class of up to 64 characters, so an irregular one that came can go.
        has_room = command_uid(sop_class) == sop_class
        if has_room and is_regular_uid(syntax):
            syntaxes.setdefault(sop_class, []).append(syntax)
    contexts: list[PresentationContext] = []
    for sop_class, alone in syntaxes.items():
        contexts += [build_context(sop_class, syntax) for syntax in alone]
        if fallback := [uid for uid in FALLBACK_TRANSFER_SYNTAXES if uid not in alone]:
            contexts.append(build_context(sop_class, fallback))
    return contexts


def by_association(contexts: Sequence[PresentationContext]) -> list[list[PresentationContext]]:
    """Spread contexts over as few associations as have room for them, those of one SOP Class together.

    An instance whose stored transfer syntax is refused needs the other contexts of its SOP Class.
    """
    associations: list[list[PresentationContext]] = []
    for _, grouped in groupby(contexts, key=lambda context: context.abstract_syntax):
        of_class = list(grouped)
        for first in range(0, len(of_class), MAX_CONTEXTS):
            some = of_class[first : first + MAX_CONTEXTS]
            if not associations or len(associations[-1]) + len(some) > MAX_CONTEXTS:
                associations.append([])
            associations[-1] += some
    return associations


class MoveOriginator(NamedTuple):
    """Who asked for a C-MOVE: its AE title and Message ID (PS3.7 9.1.1.1.6, 9.1.1.1.7)."""

    ae_title: str
    message_id: int


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


class StorageLink:
    """One association over which instances are sent, one at a time.

    The next instance may be prepared while the response to the one before is still to come.
    """

    def __init__(
        self,
        assoc: EngineAssociation,
        who: str,
        priority: int,
        originator: MoveOriginator | None = None,
        reserved_message_id: int | None = None,
        conversions: Conversions = _DEFAULT_CONVERSIONS,
        is_cancelled: Callable[[], bool] = _never,
    ) -> None:
        """Send over ``assoc`` to ``who``; ``reserved_message_id`` is that of the operation it serves.

        ``is_cancelled`` is asked while an instance is converted: then nobody waits for it.
        """
        self._assoc = assoc
        self._who = who
        # The priority of a sub-operation is that of the retrieve (PS3.4 C.4.2.1.2, C.4.3.1.2).
        self._requests = StoreRequests(priority, originator)
        self._reserved_message_id = reserved_message_id
        self._conversions = conversions
        self._is_cancelled = is_cancelled
        self._message = StoreMessage(assoc)
        if assoc.dul.socket is not None:
            assoc.dul.socket.enlarge_send_buffer()
        self._accepted = assoc.accepted_contexts
        self._contexts: dict[tuple[str, str], PresentationContext | None] = {}
        self._message_id = 0
        self._prepared_bytes = 0
        self._sent_message_id = 0
        self._sent_bytes = 0
        self._sent_at = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether the association is still there."""
        return self._assoc.is_usable

    @property
    def waited_seconds(self) -> float:
        """How long ago the last instance was sent."""
        return time.monotonic() - self._sent_at

    def prepare(self, instance: OutgoingInstance) -> Outcome | None:
        """Lay out the request for ``instance``; the outcome if that cannot be: nothing was sent then."""
        # First what costs nothing: of thousands that cannot be sent no file is looked at.
        if self._context_for(instance) is None:
            return Outcome.failed(_not_accepted(instance, self._who))
        try:
            instance.make_current()
        except PacsError as error:
            return Outcome.failed(error.message)
        context = self._context_for(
            instance
        )  # it may have been replaced in another transfer syntax
        if context is None or context.context_id is None:
            return Outcome.failed(_not_accepted(instance, self._who))
        request = self._requests.encode(
            instance.sop_class_uid, command_uid(instance.sop_instance_uid), self._next_message_id()
        )
        try:
            stream, size_bytes = self._data_set(instance, str(context.transfer_syntax[0]))
            self._message.prepare(request, context.context_id, stream, size_bytes)
        except (PacsError, NotTranscodable) as error:
            return Outcome.failed(str(error))
        except (OSError, EOFError) as error:
            return _broken_off(error)
        self._prepared_bytes = size_bytes
        return None

    def forget(self) -> None:
        """What was prepared is not sent."""
        self._message.discard()

    def send(self) -> Outcome | None:
        """Send what was prepared; the outcome if its file broke off, which ends the association."""
        self._sent_bytes, self._sent_at = self._prepared_bytes, time.monotonic()
        self._sent_message_id = self._message_id
        try:
            self._message.send()
        except (OSError, EOFError, PacsError) as error:
            self._assoc.abort()
            return _broken_off(error)
        return None

    def receive(self) -> Outcome | None:
        """Wait for the response to what was sent; None if there was none."""
        response = self._assoc.dimse.take_response(self._sent_message_id)
        if response is None or response.Status is None:
            return None
        return outcome_of_status(
            int(response.Status),
            str(response.ErrorComment or ""),
            size_bytes=self._sent_bytes,
            duration_seconds=self.waited_seconds,
        )

    def release(self) -> None:
        """Release the association."""
        self._message.discard()
        self._assoc.release()

    def abort(self) -> None:
        """Abort the association."""
        self._message.discard()
        self._assoc.abort()

    def _data_set(self, instance: OutgoingInstance, transfer_syntax: str) -> tuple[BinaryIO, int]:
        stream = instance.open_file()
        try:
            refuse_cut_off(instance, stream)
        except BaseException:
            stream.close()
            raise
        if transfer_syntax == instance.transfer_syntax_uid:
            stream.seek(instance.stored.data_set_offset)
            return stream, instance.data_set_size

        def leaves_out(tag: int) -> None:
            LOGGER.info(
                "%s: SOP Instance %s goes without %s, which is compressed",
                self._assoc.label,
                shown_uid(instance.sop_instance_uid),
                attribute_name(tag),
            )

        return self._conversions.open(
            stream,
            instance.stored.data_set_offset,
            instance.transfer_syntax_uid,
            transfer_syntax,
            self._is_wanted,
            leaves_out,
        )

    def _is_wanted(self) -> bool:
        # An abort is noticed by reading; the response to the instance before stays in the queue.
        self._assoc.poll_peer()
        return self._assoc.is_usable and not self._is_cancelled()

    def _context_for(self, instance: OutgoingInstance) -> PresentationContext | None:
        pair = (instance.sop_class_uid, instance.transfer_syntax_uid)
        if pair not in self._contexts:
            self._contexts[pair] = choose_context(self._accepted, instance)
        return self._contexts[pair]

    def _next_message_id(self) -> int:
        # Message IDs 1 to 65,535, over again.
        self._message_id = self._message_id % 0xFFFF + 1
        if self._message_id == self._reserved_message_id:
            return self._next_message_id()
        return self._message_id


def _not_accepted(instance: OutgoingInstance, who: str) -> str:
    sop_class = _name(instance.sop_class_uid)
    syntax = _name(instance.transfer_syntax_uid)
    return f"{sop_class} in {syntax}: {who} accepts no presentation context"


def _name(uid: str) -> str:
    # pydicom's name of a UID that it does not know is the UID.
    name = UID(uid, validation_mode=config.IGNORE).name
    return shown_uid(uid) if name == uid else name


def _broken_off(error: Exception) -> Outcome:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return Outcome.failed(f"The stored file broke off: {reason}")
