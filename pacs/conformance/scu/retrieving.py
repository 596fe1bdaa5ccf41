"""The sub-operations of a C-MOVE or C-GET, and what is said of them (PS3.4 C.4.2.3, C.4.3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from pydicom.dataset import Dataset

from pacs.conformance.scu.holdings import HeldInstance
from pacs.conformance.scu.inbox import Inbox
from pacs.conformance.scu.responding import Answer
from pacs.conformance.scu.rules import Rule
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import (
    Association,
    AssociationEnded,
    NegotiatedContext,
    proposed_contexts,
)
from pacs.conformance.wire.message import (
    CommandField,
    Message,
    decode_data_set,
    encode_data_set,
    request,
    response,
)
from pacs.conformance.wire.trace import Trace
from pacs.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.dicom.sop_classes import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

_SUCCESS, _PENDING, _WARNING, _ALL_FAILED = 0x0000, 0xFF00, 0xB000, 0xA702
_TIMEOUT_SECONDS = 30.0
#: Explicit and Implicit VR Little Endian, which one can be made of the other.
_UNCOMPRESSED = frozenset({EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN})
_MAXIMUM_LENGTH_BYTES = 1 << 16


class SubOperations:
    """Sends instances on an association: the destination's, or the SCU's own for C-GET.

    ``association`` is None when there is none: then every sub-operation fails. ``inbox`` is for C-GET: it takes what
    else the SCU sends meanwhile.
    """

    def __init__(
        self,
        association: Association | None,
        originator: tuple[str, int] | None = None,
        inbox: Inbox | None = None,
    ) -> None:
        self._association = association
        self._originator = originator
        self._inbox = inbox

    def send(self, instance: HeldInstance) -> int | None:
        """C-STORE one instance: its status, None if it could not be sent or was not answered."""
        association = self._association
        if association is None or not association.is_open:
            return None
        context = _context_for(association, instance)
        if context is None:
            return None
        title, message_id = self._originator or (None, None)
        message = request(
            CommandField.C_STORE_RQ,
            context.context_id,
            association.next_message_id(),
            instance.sop_class_uid,
            _encoded_for(context, instance),
            AffectedSOPInstanceUID=instance.sop_instance_uid,
            MoveOriginatorApplicationEntityTitle=title,
            MoveOriginatorMessageID=message_id,
        )
        try:
            association.send(message)
            return self._answer(association, message).status
        except AssociationEnded:
            if self._inbox is not None:
                raise  # the association of the C-GET itself
            return None

    def _answer(self, association: Association, sub_operation: Message) -> Message:
        if self._inbox is not None:
            return self._inbox.response_to(sub_operation)
        while True:
            received = association.receive()
            if received.is_response and received.responds_to == sub_operation.message_id:
                return received


def _context_for(association: Association, instance: HeldInstance) -> NegotiatedContext | None:
    """The context with the instance's own transfer syntax, else one that both can be written in."""
    fitting = [
        one
        for one in association.contexts.values()
        if one.abstract_syntax == instance.sop_class_uid
        and (
            one.transfer_syntax == instance.transfer_syntax
            or {one.transfer_syntax, instance.transfer_syntax} <= _UNCOMPRESSED
        )
    ]
    return min(
        fitting, key=lambda one: one.transfer_syntax != instance.transfer_syntax, default=None
    )


def _encoded_for(context: NegotiatedContext, instance: HeldInstance) -> bytes:
    if context.transfer_syntax == instance.transfer_syntax:
        return instance.data
    data_set = decode_data_set(instance.data, instance.transfer_syntax)
    return encode_data_set(data_set, context.transfer_syntax)


@contextmanager
def to_destination(
    address: tuple[str, int],
    title: str,
    own_title: str,
    originator: tuple[str, int],
    *,
    instances: Sequence[HeldInstance],
    rules: Sequence[Rule],
) -> Iterator[SubOperations]:
    """An association with the Move Destination; where there is none, every sub-operation fails."""
    named = next((rule.originator for rule in rules if rule.originator is not None), None)
    origin = None if named == "none" else (named or originator[0], originator[1])
    association = _associate(address, title, own_title, instances)
    try:
        yield SubOperations(association, origin)
    finally:
        if association is not None:
            with suppress(AssociationEnded):
                if association.is_open:
                    association.release()
            association.close()


def _associate(
    address: tuple[str, int], title: str, own_title: str, instances: Sequence[HeldInstance]
) -> Association | None:
    pairs = dict.fromkeys((one.sop_class_uid, one.transfer_syntax) for one in instances)
    if not pairs:
        return None
    proposal = pdus.AssociateRequest(
        title,
        own_title,
        (
            pdus.maximum_length(_MAXIMUM_LENGTH_BYTES),
            *pdus.implementation(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME),
        ),
        contexts=proposed_contexts([(uid, (syntax,)) for uid, syntax in list(pairs)[:128]]),
    )
    try:
        association = Association.connect(address, Trace(f"to {title}"), _TIMEOUT_SECONDS)
        association.request(proposal)
    except AssociationEnded:
        return None
    return association


class Retrieval:
    """Counts the sub-operations of one request and makes its responses."""

    def __init__(self, asked: Message, total: int, rules: Sequence[Rule]) -> None:
        self._asked = asked
        self._rules = rules
        self._remaining = total
        self._completed = self._warning = 0
        self._failed: list[str] = []
        self._all: list[str] = []

    def is_over(self, number: int) -> bool:
        """Whether a rule stops it before this sub-operation, from 1."""
        return any(rule.stop_after is not None and number > rule.stop_after for rule in self._rules)

    def perform(self, number: int, instance: HeldInstance, send: SubOperations) -> None:
        """Do the sub-operation with this number, from 1, or what a rule has instead."""
        self._remaining -= 1
        self._all.append(instance.sop_instance_uid)
        if any(number in rule.fail for rule in self._rules):
            self._failed.append(instance.sop_instance_uid)
            return
        if any(number in rule.skip for rule in self._rules):
            self._completed += 1
            return
        if any(number in rule.repeat for rule in self._rules):
            send.send(instance)
        status = send.send(instance)
        if status == _SUCCESS:
            self._completed += 1
        elif status is not None and (status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116)):
            self._warning += 1
        else:
            self._failed.append(instance.sop_instance_uid)

    def pending(self) -> Answer:
        """The pending response after the last sub-operation."""
        return Answer(self._response(_PENDING, remaining=self._remaining))

    def final(self, status: int | None = None) -> Answer:
        """The final response; without a status, with the one that the outcomes call for."""
        if status is None:
            failed, done = len(self._failed), self._completed + self._warning
            status = _SUCCESS if not failed and not self._warning else _WARNING
            if failed and not done:
                status = _ALL_FAILED
            return Answer(self._response(status), self._failed_list())
        return Answer(self._response(status, remaining=self._remaining), self._failed_list())

    def _response(self, status: int, remaining: int | None = None) -> Message:
        return response(
            self._asked,
            status,
            AffectedSOPInstanceUID=None,
            NumberOfRemainingSuboperations=remaining,
            NumberOfCompletedSuboperations=self._completed,
            NumberOfFailedSuboperations=len(self._failed),
            NumberOfWarningSuboperations=self._warning,
        )

    def _failed_list(self) -> Dataset | None:
        wanted = next((rule.failed_list for rule in self._rules if rule.failed_list), "")
        uids = {"none": [], "all": self._all}.get(wanted, self._failed)
        if not uids:
            return None
        identifier = Dataset()
        identifier.FailedSOPInstanceUIDList = list(uids)
        return identifier
