"""From the responses that are right to those that a scenario wants."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset

from pacs.conformance.scu.rules import EVERY, FINAL, Rule
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import Association, AssociationEnded
from pacs.conformance.wire.command import (
    HAS_DATA_SET,
    NO_DATA_SET,
    CommandValue,
    as_comment,
)
from pacs.conformance.wire.message import Message, encode_data_set, fragments

_PENDING = (0xFF00, 0xFF01)
#: Longer than any data element that begins so: it cannot be decoded.
_GARBAGE = b"\x08\x00\x05\x00\xff\xff\xff\x7fgarbage!"
_COUNTERS = {
    "remaining": "NumberOfRemainingSuboperations",
    "completed": "NumberOfCompletedSuboperations",
    "failed": "NumberOfFailedSuboperations",
    "warning": "NumberOfWarningSuboperations",
}


class EndedByRule(AssociationEnded):
    """A rule ended the association."""


@dataclass(frozen=True)
class Answer:
    """A response before it is encoded: its message without data set, and the Identifier."""

    message: Message
    identifier: Dataset | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing follows it."""
        return self.message.status not in _PENDING


def respond(association: Association, answers: Iterable[Answer], rules: Sequence[Rule]) -> None:
    """Send the responses to one request as the rules have them.

    Raises:
        AssociationEnded: the peer, or a rule, ended the association.
    """
    held: list[Answer] = []
    for number, answer in enumerate(answers, start=1):
        chosen = [rule for rule in rules if _applies(rule, number, answer)]
        for rule in chosen:
            _before(association, rule)
        if any(rule.drop or rule.silence for rule in chosen):
            continue
        for rule in chosen:
            answer = _changed(answer, rule)  # noqa: PLW2901 - one change after the other
        if any(rule.swap for rule in chosen):
            held.append(answer)
            continue
        times = 2 if any(rule.duplicate for rule in chosen) else 1
        for one in [answer] * times + held:
            _send(association, one, chosen)
        held = []
    for one in held:
        _send(association, one, ())


def _applies(rule: Rule, number: int, answer: Answer) -> bool:
    return rule.response in (EVERY, number) or (rule.response == FINAL and answer.is_final)


def _before(association: Association, rule: Rule) -> None:
    """What happens instead of, or ahead of, the response."""
    if rule.delay_seconds:
        time.sleep(rule.delay_seconds)
    if rule.abort:
        association.send_pdu(pdus.Abort(0 if rule.abort == "user" else 2))
        association.close()
        raise EndedByRule("a rule aborted the association")
    if rule.close:
        association.trace.event("the connection is closed, as a rule says")
        association.close()
        raise EndedByRule("a rule closed the connection")


def _changed(answer: Answer, rule: Rule) -> Answer:
    values: dict[str, CommandValue | None] = dict(answer.message.command)
    changes: dict[str, CommandValue | None] = {
        "Status": rule.status,
        "ErrorComment": None if rule.comment is None else as_comment(rule.comment),
        "OffendingElement": rule.offending or None,
        "MessageIDBeingRespondedTo": rule.message_id,
        "AffectedSOPClassUID": rule.sop_class_uid,
    }
    values |= {keyword: value for keyword, value in changes.items() if value is not None}
    for name, number in rule.counters.items():
        values[_COUNTERS[name]] = None if number < 0 else number
    for keyword in rule.without:
        values[keyword] = None
    present = {keyword: value for keyword, value in values.items() if value is not None}
    message = replace(answer.message, command=present)
    return Answer(message, _identifier(answer.identifier, rule))


def _identifier(identifier: Dataset | None, rule: Rule) -> Dataset | None:
    if rule.identifier == "extra" and identifier is None:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "STUDY"
    if identifier is None or rule.identifier == "none":
        return None
    changed = Dataset()
    changed.update(identifier)
    for keyword, text in rule.set.items():
        setattr(changed, keyword, text)
    for keyword in rule.omit:
        if keyword in changed:
            delattr(changed, keyword)
    return changed


def _send(association: Association, answer: Answer, rules: Sequence[Rule]) -> None:
    syntax = association.transfer_syntax_of(answer.message.context_id)
    data = None if answer.identifier is None else encode_data_set(answer.identifier, syntax)
    for rule in rules:
        if rule.identifier == "garbage":
            data = _GARBAGE
        elif rule.character_set is not None and answer.identifier is not None:
            data = _claiming(answer.identifier, rule.character_set, syntax)
    command = dict(answer.message.command)
    command["CommandDataSetType"] = NO_DATA_SET if data is None else HAS_DATA_SET
    message = replace(answer.message, command=command, data=data)
    sizes = [rule.pdu_bytes for rule in rules if rule.pdu_bytes is not None]
    if not sizes:
        association.send(message)
        return
    association.trace.message("sent", message, syntax)
    for value in fragments(message, sizes[0]):
        association.send_bytes(pdus.encode(pdus.PData((value,))))


def _claiming(identifier: Dataset, character_set: str, syntax: str) -> bytes:
    """The Identifier encoded as it is, but claiming another Specific Character Set."""
    claimed = Dataset()
    claimed.SpecificCharacterSet = character_set
    rest = Dataset()
    rest.update(identifier)
    if "SpecificCharacterSet" in rest:
        encoded = encode_data_set(rest, syntax)
        own = Dataset()
        own.SpecificCharacterSet = rest.SpecificCharacterSet
        return encode_data_set(claimed, syntax) + encoded[len(encode_data_set(own, syntax)) :]
    return encode_data_set(claimed, syntax) + encode_data_set(rest, syntax)
