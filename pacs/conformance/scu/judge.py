"""What the SCU under test did, judged from what it sent: the same results as the checks of an SCP have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydicom.dataset import Dataset

from pacs.conformance.judgement import CheckResult, Report, Requirement, Verdict
from pacs.conformance.scu import negotiation
from pacs.conformance.scu.session import Session
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.message import CommandField, MalformedMessage, Message
from pacs.dicom.ae_titles import normalised_ae_title
from pacs.dicom.information_model import QUERY_RETRIEVE_SOP_CLASSES, Operation, model_of
from pacs.dicom.query.identifier import parse_find, parse_retrieve
from pacs.dicom.sop_classes import is_storage_sop_class
from pacs.errors import InvalidIdentifier

_IDENTIFIED = (CommandField.C_FIND_RQ, CommandField.C_MOVE_RQ, CommandField.C_GET_RQ)
#: Without a data set (PS3.7 9.3.2.3, 9.3.5.1).
_BARE = (CommandField.C_CANCEL_RQ, CommandField.C_ECHO_RQ)
_PRIORITIES = (0, 1, 2)
_PENDING = (0xFF00, 0xFF01)
#: A finding: what is wrong, None if nothing is.
Finding = str | None


@dataclass(frozen=True)
class _Check:
    name: str
    clause: str
    title: str
    requirement: Requirement
    #: What each thing judged has against it; nothing at all when there was nothing to judge.
    findings: Callable[[Session], Iterator[Finding]]


def judge(sessions: Sequence[Session]) -> Report:
    """What all associations of an SCU together show: each check once, its traces those of the associations at fault."""
    callers = sorted({session.calling for session in sessions if session.calling})
    report = Report(
        "Conformance of an SCU",
        {"SCU": ", ".join(callers) or "nobody called", "associations": str(len(sessions))},
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    for check in _CHECKS:
        report.results.append(_judged(check, sessions))
    return report


def _judged(check: _Check, sessions: Sequence[Session]) -> CheckResult:
    judged, wrong, traces = 0, [], []
    for session in sessions:
        found = list(check.findings(session))
        judged += len(found)
        bad = [text for text in found if text is not None]
        if bad:
            wrong += [f"{session.association.trace.title}: {text}" for text in bad]
            traces.append(session.association.trace)
    verdict = Verdict.PASS if judged else Verdict.NOT_APPLICABLE
    if wrong:
        is_shall = check.requirement is Requirement.SHALL
        verdict = Verdict.FAIL if is_shall else Verdict.WARNING
    received = "; ".join(dict.fromkeys(wrong)) if wrong else f"{judged} of {judged} as it should be"
    if not judged:
        received = "the SCU sent nothing of the kind"
    return CheckResult(
        check.name,
        check.title,
        check.clause,
        check.requirement,
        verdict,
        received=received,
        traces=tuple(traces),
    )


# Association


def _context_ids(session: Session) -> Iterator[Finding]:
    asked = session.association.requested
    if asked is None:
        return
    ids = [context.context_id for context in asked.contexts]
    if len(set(ids)) != len(ids):
        yield "a presentation context ID is used twice"
    elif any(number % 2 == 0 for number in ids):
        yield "a presentation context ID is even"
    else:
        yield None if ids else "no presentation context"


def _context_syntaxes(session: Session) -> Iterator[Finding]:
    asked = session.association.requested
    for context in asked.contexts if asked else ():
        lacks = [
            name
            for name, value in (
                ("abstract syntax", context.abstract_syntax),
                ("transfer syntax", context.transfer_syntaxes),
            )
            if not value
        ]
        yield f"context {context.context_id} has no {lacks[0]}" if lacks else None


def _default_syntax(session: Session) -> Iterator[Finding]:
    asked = session.association.requested
    if asked is None:
        return
    offered: dict[str, set[str]] = {}
    for context in asked.contexts:
        offered.setdefault(context.abstract_syntax, set()).update(context.transfer_syntaxes)
    for abstract, syntaxes in offered.items():
        is_missing = "1.2.840.10008.1.2" not in syntaxes and not is_storage_sop_class(abstract)
        yield f"{abstract} without Implicit VR Little Endian" if is_missing else None


def _application_context(session: Session) -> Iterator[Finding]:
    asked = session.association.requested
    if asked is not None:
        is_right = asked.application_context == pdus.APPLICATION_CONTEXT
        yield None if is_right else repr(asked.application_context)


def _user_items(item_type: int) -> Callable[[Session], Iterator[Finding]]:
    def findings(session: Session) -> Iterator[Finding]:
        asked = session.association.requested
        if asked is not None:
            count = len(asked.items_of(item_type))
            yield None if count == 1 else f"{count} of them"

    return findings


def _titles(session: Session) -> Iterator[Finding]:
    asked = session.association.requested
    if asked is None:
        return
    for title in (asked.calling_ae_title, asked.called_ae_title):
        is_title = normalised_ae_title(title) is not None
        yield None if is_title else f"{title!r} is no AE title"


def _ending(session: Session) -> Iterator[Finding]:
    if session.association.accepted is not None and not session.ended_by_rule:
        yield None if session.ending == "released" else session.ending


# Messages


def _requests(session: Session) -> Iterator[Message]:
    """The requests, C-CANCELs apart."""
    return (one for one in session.requests if not _is_cancel(one))


def _is_cancel(request: Message) -> bool:
    return request.command.get("CommandField") == CommandField.C_CANCEL_RQ


def _message_ids(session: Session) -> Iterator[Finding]:
    for request in _requests(session):
        yield None if request.message_id is not None else f"{request.name} without Message ID"


def _command_sets(session: Session) -> Iterator[Finding]:
    for message in session.requests + [answer for _, answer in session.inbox.answered]:
        wrong = "; ".join(message.irregularities)
        yield f"{message.name}: {wrong}" if wrong else None


def _outstanding(session: Session) -> Iterator[Finding]:
    yield from session.inbox.too_early
    if session.requests and not session.inbox.too_early:
        yield None


def _sop_classes(session: Session) -> Iterator[Finding]:
    for request in _requests(session):
        context = session.association.contexts.get(request.context_id)
        named = ("AffectedSOPClassUID", "RequestedSOPClassUID")  # the second in N-ACTION and others
        said = next((request.command[name] for name in named if name in request.command), None)
        if context is None:
            yield f"{request.name} on context {request.context_id}, which was not accepted"
        else:
            is_same = said == context.abstract_syntax
            yield None if is_same else f"{request.name} of {said} on {context.abstract_syntax}"


def _priorities(session: Session) -> Iterator[Finding]:
    for request in _requests(session):
        if request.command.get("CommandField") in (*_IDENTIFIED, CommandField.C_STORE_RQ):
            value = request.command.get("Priority")
            yield None if value in _PRIORITIES else f"{request.name} with Priority {value!r}"


def _data_sets(session: Session) -> Iterator[Finding]:
    for request in session.requests:
        field = request.command.get("CommandField")
        if field in (*_IDENTIFIED, CommandField.C_STORE_RQ):
            yield None if request.data is not None else f"{request.name} without a data set"
        elif field in _BARE:
            yield None if request.data is None else f"{request.name} with a data set"


def _identifiers(session: Session) -> Iterator[Finding]:
    for request, data_set in _identified(session):
        if data_set is None:
            yield f"the Identifier of a {request.name} cannot be decoded"
            continue
        context = session.association.contexts[request.context_id]
        asked = session.association.requested
        assert asked is not None
        model, operation = QUERY_RETRIEVE_SOP_CLASSES[context.abstract_syntax]
        options = negotiation.options_of(asked, context.abstract_syntax)
        try:
            if operation is Operation.FIND:
                parse_find(data_set, model_of(context.abstract_syntax), options)
            else:
                parse_retrieve(data_set, model, options)
        except InvalidIdentifier as error:
            yield f"{request.name}: {error.message}"
        else:
            yield None


def _identified(session: Session) -> Iterator[tuple[Message, Dataset | None]]:
    for request in _requests(session):
        context = session.association.contexts.get(request.context_id)
        if request.command.get("CommandField") not in _IDENTIFIED or context is None:
            continue
        if context.abstract_syntax not in QUERY_RETRIEVE_SOP_CLASSES:
            continue
        try:
            yield request, request.data_set(context.transfer_syntax)
        except MalformedMessage:
            yield request, None


def _destinations(session: Session) -> Iterator[Finding]:
    for request in _requests(session):
        if request.command.get("CommandField") == CommandField.C_MOVE_RQ:
            title = request.command.get("MoveDestination")
            is_title = isinstance(title, str) and normalised_ae_title(title) is not None
            yield None if is_title else f"Move Destination {title!r}"


def _stored_uids(session: Session) -> Iterator[Finding]:
    for request in _requests(session):
        if request.command.get("CommandField") != CommandField.C_STORE_RQ:
            continue
        syntax = session.association.transfer_syntax_of(request.context_id)
        try:
            data_set = request.data_set(syntax)
        except MalformedMessage as error:
            yield f"C-STORE-RQ: {error}"
            continue
        said = (
            request.command.get("AffectedSOPClassUID"),
            request.command.get("AffectedSOPInstanceUID"),
        )
        has = (data_set.get("SOPClassUID"), data_set.get("SOPInstanceUID"))
        yield None if said == has else f"C-STORE-RQ of {said} with the data set of {has}"


def _cancels(session: Session) -> Iterator[Finding]:
    known = {request.message_id for request in _requests(session)}
    for cancel in filter(_is_cancel, session.requests):
        number = cancel.responds_to
        yield None if number in known else f"C-CANCEL of Message ID {number}, which was not used"


def _roles(session: Session) -> Iterator[Finding]:
    asked = session.association.requested
    gets = any(
        request.command.get("CommandField") == CommandField.C_GET_RQ for request in session.requests
    )
    if asked is None or not gets:
        return
    # One is enough: what has no SCP role may be there to be stored on the same association.
    stored = {one.abstract_syntax for one in asked.contexts} - set(QUERY_RETRIEVE_SOP_CLASSES)
    classes = [uid for uid in stored if is_storage_sop_class(uid)]
    is_scp = any(asked.roles.get(uid, (True, False))[1] for uid in classes)
    yield None if is_scp else "no storage SOP Class with the SCP role"


def _responses(session: Session) -> Iterator[Finding]:
    """The two elements that name the instance may be left out, but not be wrong (PS3.7 Table 9.1-1)."""
    for asked, answer in session.inbox.answered:
        wrong = [
            f"{keyword} {answer.command[keyword]}"
            for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID")
            if answer.command.get(keyword, asked.command[keyword]) != asked.command[keyword]
        ]
        if answer.command.get("CommandField") != CommandField.C_STORE_RSP:
            wrong.append(answer.name)
        if answer.status is None:
            wrong.append("no Status")
        elif answer.status in _PENDING:
            wrong.append("a pending Status")
        if answer.data is not None:
            wrong.append("a data set")
        said = f"C-STORE-RQ of {asked.command['AffectedSOPInstanceUID']} answered with "
        yield said + ", ".join(wrong) if wrong else None
    yield from session.inbox.unasked


def _lengths(session: Session) -> Iterator[Finding]:
    association = session.association
    limit = association.accepted.maximum_length if association.accepted else 0
    if association.longest_p_data and limit:
        length = association.longest_p_data
        yield None if length <= limit else f"a P-DATA-TF PDU of {length} bytes, {limit} are allowed"


_SHALL, _SHOULD = Requirement.SHALL, Requirement.SHOULD
_CHECKS = (
    _Check(
        "association.context-ids",
        "PS3.8 9.3.2.2",
        "numbers its presentation contexts with odd numbers, each once",
        _SHALL,
        _context_ids,
    ),
    _Check(
        "association.context-syntaxes",
        "PS3.8 9.3.2.2",
        "proposes an abstract syntax and a transfer syntax in each presentation context",
        _SHALL,
        _context_syntaxes,
    ),
    _Check(
        "association.default-transfer-syntax",
        "PS3.5 10.1",
        "proposes Implicit VR Little Endian for each abstract syntax",
        _SHALL,
        _default_syntax,
    ),
    _Check(
        "association.application-context",
        "PS3.7 A.2.1",
        "names the DICOM Application Context",
        _SHALL,
        _application_context,
    ),
    _Check(
        "association.maximum-length",
        "PS3.8 D.1.1",
        "sends the maximum length item",
        _SHALL,
        _user_items(0x51),
    ),
    _Check(
        "association.implementation",
        "PS3.7 D.3.3.2.1",
        "sends its Implementation Class UID",
        _SHALL,
        _user_items(0x52),
    ),
    _Check(
        "association.ae-titles",
        "PS3.8 9.3.2",
        "calls, and is called, by an AE title",
        _SHALL,
        _titles,
    ),
    _Check(
        "association.released", "PS3.8 7.2", "ends an association by a release", _SHOULD, _ending
    ),
    _Check(
        "message.pdu-length",
        "PS3.8 D.1.1",
        "sends no P-DATA-TF PDU longer than what was announced",
        _SHALL,
        _lengths,
    ),
    _Check(
        "message.message-id",
        "PS3.7 9.1",
        "sends a Message ID in each request",
        _SHALL,
        _message_ids,
    ),
    _Check(
        "message.command-set",
        "PS3.7 6.3.1",
        "encodes command sets as their table has them: order, length, padding, values",
        _SHALL,
        _command_sets,
    ),
    _Check(
        "message.outstanding",
        "PS3.7 D.3.3.3",
        "waits for the final response before its next request",
        _SHALL,
        _outstanding,
    ),
    _Check(
        "message.sop-class",
        "PS3.7 9.1",
        "names the SOP Class of the presentation context in each request",
        _SHALL,
        _sop_classes,
    ),
    _Check("message.priority", "PS3.7 9.3", "sends a Priority that exists", _SHALL, _priorities),
    _Check(
        "message.data-set",
        "PS3.7 9.3",
        "sends a data set where one is due, and nowhere else",
        _SHALL,
        _data_sets,
    ),
    _Check(
        "identifier.valid",
        "PS3.4 C.4.1.2.1",
        "sends Identifiers that fit the information model: level, unique keys, values",
        _SHALL,
        _identifiers,
    ),
    _Check(
        "move.destination",
        "PS3.7 9.3.4.1",
        "names a Move Destination that is an AE title",
        _SHALL,
        _destinations,
    ),
    _Check(
        "store.uids",
        "PS3.7 9.1.1.1.4",
        "names the SOP Class and Instance of the data set it sends",
        _SHALL,
        _stored_uids,
    ),
    _Check(
        "cancel.message-id", "PS3.7 9.3.2.3", "cancels a request that it has sent", _SHALL, _cancels
    ),
    _Check(
        "get.roles",
        "PS3.4 C.5.3",
        "proposes the SCP role for the storage SOP Classes of a C-GET",
        _SHALL,
        _roles,
    ),
    _Check(
        "message.responses",
        "PS3.7 9.3.1.2",
        "answers what it was asked: the C-STORE of a C-GET, once and by its names",
        _SHALL,
        _responses,
    ),
)
