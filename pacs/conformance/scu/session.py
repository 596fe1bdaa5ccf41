"""One association with an SCU under test."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from pydicom.dataset import Dataset

from pacs.conformance.scu import negotiation
from pacs.conformance.scu.holdings import HeldInstance, Holdings, texts_of
from pacs.conformance.scu.inbox import Inbox
from pacs.conformance.scu.responding import Answer, EndedByRule, respond
from pacs.conformance.scu.retrieving import Retrieval, SubOperations, to_destination
from pacs.conformance.scu.rules import Rule, Rules
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import (
    Association,
    AssociationEnded,
    Released,
    UnexpectedPDU,
)
from pacs.conformance.wire.command import as_comment
from pacs.conformance.wire.message import CommandField, MalformedMessage, Message, response
from pacs.dicom.information_model import InformationModel, model_of
from pacs.dicom.query.query_options import QueryOptions
from pacs.errors import InvalidIdentifier, PacsError

_SUCCESS, _PENDING, _PENDING_OPTIONAL, _CANCEL = 0x0000, 0xFF00, 0xFF01, 0xFE00
_SOP_CLASS_NOT_SUPPORTED, _UNKNOWN_OPERATION = 0x0122, 0x0211
#: Of an A-ABORT (PS3.8 9.3.8).
_PROVIDER, _UNEXPECTED_PDU = 2, 2
#: Of an A-ASSOCIATE-RJ (PS3.8 9.3.4).
_APPLICATION_CONTEXT_NOT_SUPPORTED = (1, 1, 2)
#: Of a request's Identifier: Specific Character Set and Timezone Offset From UTC.
_NOT_RETURNED = (0x00080005, 0x00080201)
_NOT_OF_SOP_CLASS, _CANNOT_UNDERSTAND, _DESTINATION_UNKNOWN = 0xA900, 0xC000, 0xA801
_SERVICES = {
    CommandField.C_ECHO_RQ: "C-ECHO",
    CommandField.C_STORE_RQ: "C-STORE",
    CommandField.C_FIND_RQ: "C-FIND",
    CommandField.C_MOVE_RQ: "C-MOVE",
    CommandField.C_GET_RQ: "C-GET",
}
#: Statuses that end an operation before it has begun, when a rule gives one: failures and refusals.
_REFUSALS = (0x01, 0x02, 0xA, 0xC)
#: Pending responses of a rule that says ``endless``.
_MOST_ENDLESS = 10_000
Destinations = Mapping[str, tuple[str, int]]


class Session:
    """Serves one association until it ends."""

    def __init__(
        self,
        association: Association,
        holdings: Holdings,
        rules: Rules,
        destinations: Destinations,
        number: int,
    ) -> None:
        self.association = association
        #: Of the associations of this SCP, from 1.
        self.number = number
        self._holdings = holdings
        self._rules = rules
        self._destinations = destinations
        self._association_rules: list[Rule] = []
        self.calling = self.called = ""
        self.inbox = Inbox(association)
        #: How it ended, in words; empty while it lasts.
        self.ending = ""
        #: Whether a rule ended it.
        self.ended_by_rule = False

    @property
    def requests(self) -> list[Message]:
        """The requests and C-CANCELs that came, in order."""
        return self.inbox.requests

    def run(self) -> None:
        """Serve; never raises."""
        with self.association:
            try:
                if self._accept():
                    self._serve()
            except (UnexpectedPDU, MalformedMessage) as error:
                self.ending = f"aborted: {error}"
                self._abort()
            except EndedByRule as error:
                self.ending, self.ended_by_rule = str(error), True
            except AssociationEnded as error:
                self.ending = str(error)
        self.ending = self.ending or "the connection was closed"

    def _abort(self) -> None:
        with suppress(AssociationEnded):
            self.association.send_pdu(pdus.Abort(_PROVIDER, _UNEXPECTED_PDU))

    def _accept(self) -> bool:
        asked = self.association.receive_request()
        if asked.application_context != pdus.APPLICATION_CONTEXT:
            self.association.send_pdu(pdus.AssociateReject(*_APPLICATION_CONTEXT_NOT_SUPPORTED))
            self.ending = "rejected: the application context is not DICOM's"
            return False
        self.calling, self.called = asked.calling_ae_title, asked.called_ae_title
        rules = self._rules.selected(self.calling, self.called, "association")
        self._association_rules = rules
        for rule in rules:
            time.sleep(rule.delay_seconds)
            if rule.silence:
                self.association.receive_pdu()  # until the peer has enough of it
            if rule.reject:
                self.association.send_pdu(pdus.AssociateReject(*rule.reject))
                self.ending, self.ended_by_rule = "rejected, as a rule says", True
                return False
            if rule.abort:
                self.association.send_pdu(pdus.Abort(0 if rule.abort == "user" else 2))
                self.ending, self.ended_by_rule = "aborted, as a rule says", True
                return False
        self.association.answers_release = not any(rule.release for rule in rules)
        self.association.accept(negotiation.answer_to(asked, rules))
        return True

    def _serve(self) -> None:
        while True:
            try:
                request = self.inbox.next_request()
            except Released:
                self._end_released()
                return
            self._perform(request)

    def _end_released(self) -> None:
        self.ending = "released"
        rule = next((rule.release for rule in self._association_rules if rule.release), "")
        if rule == "abort":
            self.association.send_pdu(pdus.Abort())
        elif rule == "ignore":
            with suppress(AssociationEnded):  # it was released, whatever becomes of it
                self.association.receive_pdu()  # until the peer has enough of it

    def _perform(self, request: Message) -> None:
        field = request.command.get("CommandField")
        context = self.association.contexts.get(request.context_id)
        if context is None:
            raise UnexpectedPDU(f"presentation context {request.context_id} was not accepted")
        if request.message_id is None:
            raise UnexpectedPDU("a request without Message ID")
        service = _SERVICES.get(field)  # type: ignore[call-overload]  # any value may have come
        if service is None:
            self.association.send(response(request, _UNKNOWN_OPERATION))
            return
        identifier = self._identifier_of(request) if service not in ("C-ECHO", "C-STORE") else None
        keys = texts_of(identifier) if identifier is not None else _texts_of_command(request)
        level = keys.get("QueryRetrieveLevel", "")
        rules = self._rules.selected(self.calling, self.called, service, level, keys)
        with suppress(EndedByRule):
            answers = self._answers(service, request, identifier, rules)
            respond(self.association, self._in_their_turn(answers, rules), rules)
            return
        raise EndedByRule("a rule ended the association")

    def _in_their_turn(self, answers: Iterator[Answer], rules: Sequence[Rule]) -> Iterator[Answer]:
        """The answers; before the final one, what has come meanwhile is taken, for it came too early."""
        pending: list[Answer] = []
        for answer in answers:
            if answer.is_final:
                is_cancelled = answer.message.status == _CANCEL
                if pending and not is_cancelled and any(rule.endless for rule in rules):
                    is_cancelled = yield from self._without_end(pending, rules)
                    if not is_cancelled:
                        return  # there is no end
                self.inbox.take_all()
                yield _with_status(answer, _CANCEL) if is_cancelled else answer
            else:
                pending.append(answer)
                yield answer

    def _without_end(
        self, pending: list[Answer], rules: Sequence[Rule]
    ) -> Generator[Answer, None, bool]:
        """The pending responses again and again: until a C-CANCEL, whether it came is returned."""
        for number in range(_MOST_ENDLESS):
            if self._is_cancelled(rules):
                return True
            yield pending[number % len(pending)]
        return False

    def _is_cancelled(self, rules: Sequence[Rule]) -> bool:
        return not any(rule.ignore_cancel for rule in rules) and self.inbox.is_cancelled()

    def _identifier_of(self, request: Message) -> Dataset:
        syntax = self.association.transfer_syntax_of(request.context_id)
        try:
            return request.data_set(syntax)
        except MalformedMessage:
            return Dataset()  # without a level it is refused

    def _answers(
        self, service: str, request: Message, identifier: Dataset | None, rules: Sequence[Rule]
    ) -> Iterator[Answer]:
        refusal = next((rule.status for rule in rules if _is_refusal(rule)), None)
        if refusal is not None:
            yield Answer(response(request, refusal))
            return
        try:
            if request.command.get("AffectedSOPClassUID") != self._abstract_syntax(request):
                yield Answer(response(request, _SOP_CLASS_NOT_SUPPORTED))
            elif service == "C-ECHO":
                yield Answer(response(request, _SUCCESS))
            elif service == "C-STORE":
                yield self._store(request)
            elif identifier is not None:
                yield from self._query_retrieve(service)(request, identifier, rules)
        except InvalidIdentifier as error:
            yield self._refused(request, error, rules)

    def _query_retrieve(
        self, service: str
    ) -> Callable[[Message, Dataset, Sequence[Rule]], Iterator[Answer]]:
        return {"C-FIND": self._find, "C-MOVE": self._move, "C-GET": self._get}[service]

    def _refused(self, request: Message, error: InvalidIdentifier, rules: Sequence[Rule]) -> Answer:
        if any(rule.unchecked for rule in rules):
            return Answer(response(request, _SUCCESS))
        offending = error.offending or None
        refusal = response(
            request,
            _NOT_OF_SOP_CLASS,
            ErrorComment=as_comment(error.message),
            OffendingElement=offending,
        )
        return Answer(refusal)

    def _store(self, request: Message) -> Answer:
        held = HeldInstance(
            str(request.command.get("AffectedSOPClassUID", "")),
            str(request.command.get("AffectedSOPInstanceUID", "")),
            self.association.transfer_syntax_of(request.context_id),
            request.data or b"",
        )
        try:
            self._holdings.add_encoded(held)
        except PacsError as error:
            return Answer(
                response(request, _CANNOT_UNDERSTAND, ErrorComment=as_comment(error.message))
            )
        return Answer(response(request, _SUCCESS))

    def _find(
        self, request: Message, identifier: Dataset, rules: Sequence[Rule]
    ) -> Iterator[Answer]:
        model, options = self._model_of(request)
        found = self._holdings.find(
            _first_uids(identifier) if any(rule.first_uid_only for rule in rules) else identifier,
            model,
            self.called,
            options,
            [keyword for rule in rules for keyword in rule.ignore_keys],
        )
        pending = _PENDING
        if any(
            element.tag not in match
            for match in found[:1]
            for element in identifier
            if element.tag not in _NOT_RETURNED
        ):
            pending = _PENDING_OPTIONAL
        for match in found[: _limit(rules)]:
            if self._is_cancelled(rules):
                yield Answer(response(request, _CANCEL))
                return
            yield Answer(response(request, pending), match)
        yield Answer(response(request, _SUCCESS))

    def _move(
        self, request: Message, identifier: Dataset, rules: Sequence[Rule]
    ) -> Iterator[Answer]:
        title = str(request.command.get("MoveDestination", "")).strip()
        address = self._destinations.get(title)
        if address is None:
            comment = f"Move Destination {title} is not known"
            yield Answer(response(request, _DESTINATION_UNKNOWN, ErrorComment=as_comment(comment)))
            return
        instances = self._wanted(request, identifier, rules)
        originator = (self.calling, request.message_id or 0)
        with to_destination(
            address, title, self.called, originator, instances=instances, rules=rules
        ) as send:
            yield from self._sub_operations(request, instances, send, rules)

    def _get(
        self, request: Message, identifier: Dataset, rules: Sequence[Rule]
    ) -> Iterator[Answer]:
        instances = self._wanted(request, identifier, rules)
        send = SubOperations(self.association, inbox=self.inbox)
        yield from self._sub_operations(request, instances, send, rules)

    def _wanted(
        self, request: Message, identifier: Dataset, rules: Sequence[Rule]
    ) -> list[HeldInstance]:
        model, options = self._model_of(request)
        if any(rule.first_uid_only for rule in rules):
            identifier = _first_uids(identifier)
        return self._holdings.retrieve(identifier, model, options)[: _limit(rules)]

    def _sub_operations(
        self,
        request: Message,
        instances: list[HeldInstance],
        send: SubOperations,
        rules: Sequence[Rule],
    ) -> Iterator[Answer]:
        retrieval = Retrieval(request, len(instances), rules)
        for number, instance in enumerate(instances, start=1):
            if retrieval.is_over(number):
                break
            if self._is_cancelled(rules):
                yield retrieval.final(_CANCEL)
                return
            retrieval.perform(number, instance, send)
            if number < len(instances):
                yield retrieval.pending()
        yield retrieval.final()

    def _model_of(self, request: Message) -> tuple[InformationModel, QueryOptions]:
        uid = self._abstract_syntax(request)
        asked = self.association.requested
        assert asked is not None
        return model_of(uid), negotiation.options_of(asked, uid)

    def _abstract_syntax(self, request: Message) -> str:
        return self.association.contexts[request.context_id].abstract_syntax


def _is_refusal(rule: Rule) -> bool:
    if rule.status is None or rule.response != "final":
        return False
    return rule.status >> 8 in _REFUSALS or rule.status >> 12 in _REFUSALS


def _with_status(answer: Answer, status: int) -> Answer:
    command = {**answer.message.command, "Status": status}
    return replace(answer, message=replace(answer.message, command=command))


def _limit(rules: Sequence[Rule]) -> int | None:
    limits = [rule.limit for rule in rules if rule.limit is not None]
    return min(limits) if limits else None


def _first_uids(identifier: Dataset) -> Dataset:
    changed = Dataset()
    changed.update(identifier)
    for element in identifier:
        if element.VR == "UI" and element.VM > 1:
            setattr(changed, element.keyword, element.value[0])
    return changed


def _texts_of_command(request: Message) -> dict[str, str]:
    return {keyword: str(value) for keyword, value in request.command.items()}
