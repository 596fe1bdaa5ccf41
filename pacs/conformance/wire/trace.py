"""What passed over an association, in words: for the report of a check and for the people who debug an SCU."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import UID

from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.message import MalformedMessage, Message

_LONGEST_VALUE = 120
_MOST_LINES = 200
_MOST_ENTRIES = 5000


@dataclass(frozen=True)
class TraceEntry:
    """One PDU, DIMSE message or event: when, in seconds from the trace's start, which way, and what it held.

    ``direction`` is ``sent``, ``received`` or ``event``.
    """

    seconds: float
    direction: str
    title: str
    detail: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """The entry as text, its detail indented."""
        arrow = {"sent": "-->", "received": "<--"}.get(self.direction, " * ")
        yield f"{self.seconds:9.3f} s {arrow} {self.title}"
        for line in self.detail:
            yield f"{'':17}{line}"


@dataclass
class Trace:
    """The entries of one association, in order; safe to add to from several threads."""

    title: str = ""
    started: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds")
    )
    entries: list[TraceEntry] = field(default_factory=list)
    _origin: float = field(default_factory=time.monotonic, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def pdu(self, direction: str, value: pdus.PDU) -> None:
        """Record a PDU; P-DATA is recorded as messages instead."""
        if not isinstance(value, pdus.PData):
            self._add(direction, *_described(value))

    def message(self, direction: str, value: Message, transfer_syntax: str) -> None:
        """Record a DIMSE message with its command set and, unless it is an instance, its data set."""
        title = f"{value.name} on context {value.context_id}"
        if value.status is not None:
            title += f", status 0x{value.status:04X}"
        self._add(direction, title, tuple(_message_lines(value, transfer_syntax)))

    def event(self, title: str, *detail: str) -> None:
        """Record what is neither: the end of the connection, a time-out, bytes that are no PDU."""
        self._add("event", title, detail)

    def _add(self, direction: str, title: str, detail: tuple[str, ...] = ()) -> None:
        with self._lock:
            if len(self.entries) < _MOST_ENTRIES:
                seconds = round(time.monotonic() - self._origin, 6)
                self.entries.append(TraceEntry(seconds, direction, title, detail))

    def lines(self) -> Iterator[str]:
        """The whole trace as text."""
        yield f"{self.title}, {self.started}"
        for entry in list(self.entries):
            yield from entry.lines()

    def to_json(self) -> dict[str, Any]:
        """The trace as JSON values: title, started (ISO 8601, UTC) and entries."""
        with self._lock:
            entries = [asdict(entry) for entry in self.entries]
        return {"title": self.title, "started": self.started, "entries": entries}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The trace that ``to_json`` wrote.

        Raises:
            KeyError, TypeError: it is not such a document.
        """
        entries = [
            TraceEntry(
                float(one["seconds"]),
                str(one["direction"]),
                str(one["title"]),
                tuple(one["detail"]),
            )
            for one in values["entries"]
        ]
        return cls(str(values["title"]), str(values["started"]), entries)


def _described(value: pdus.PDU) -> tuple[str, tuple[str, ...]]:
    match value:
        case pdus.AssociateRequest() | pdus.AssociateAccept():
            return _NAMES[value.pdu_type], (*_associate_lines(value), *_context_lines(value))
        case pdus.AssociateReject():
            codes = f"result {value.result}, source {value.source}, reason {value.reason}"
            return _NAMES[value.pdu_type], (f"{codes}: {rejection(value)}",)
        case pdus.Abort():
            return _NAMES[value.pdu_type], (f"source {value.source}, reason {value.reason}",)
        case pdus.UnknownPDU():
            return f"PDU of unknown type {value.pdu_type:#04x}", (f"{len(value.content)} bytes",)
        case _:
            return _NAMES[value.pdu_type], ()


def _context_lines(value: pdus.AssociateRequest | pdus.AssociateAccept) -> Iterator[str]:
    for context in value.contexts:
        if isinstance(context, pdus.ProposedContext):
            syntaxes = ", ".join(_name(uid) for uid in context.transfer_syntaxes)
            yield f"context {context.context_id}: {_name(context.abstract_syntax)}: {syntaxes}"
        else:
            result = _RESULTS.get(context.result, f"result {context.result}")
            syntax = "" if context.result else f" with {_name(context.transfer_syntax)}"
            yield f"context {context.context_id}: {result}{syntax}"


_NAMES = {
    0x01: "A-ASSOCIATE-RQ",
    0x02: "A-ASSOCIATE-AC",
    0x03: "A-ASSOCIATE-RJ",
    0x04: "P-DATA-TF",
    0x05: "A-RELEASE-RQ",
    0x06: "A-RELEASE-RP",
    0x07: "A-ABORT",
}
_RESULTS = {
    pdus.ACCEPTANCE: "accepted",
    pdus.USER_REJECTION: "refused by the user",
    pdus.NO_REASON: "refused without a reason",
    pdus.ABSTRACT_SYNTAX_REFUSED: "refused, abstract syntax not supported",
    pdus.TRANSFER_SYNTAXES_REFUSED: "refused, transfer syntaxes not supported",
}


def rejection(value: pdus.AssociateReject) -> str:
    """The reason of a rejection in words (PS3.8 Table 9-21)."""
    permanence = {1: "permanent", 2: "transient"}.get(value.result, f"result {value.result}")
    return f"{permanence}, {pdus.REJECTIONS.get((value.source, value.reason), 'a reserved reason')}"


def _associate_lines(value: pdus.AssociateRequest | pdus.AssociateAccept) -> Iterator[str]:
    yield f"called {value.called_ae_title!r}, calling {value.calling_ae_title!r}"
    yield (
        f"maximum length {value.maximum_length}, implementation {value.implementation_class_uid}"
        f" {value.implementation_version_name}"
    )
    try:
        for uid, (scu, scp) in value.roles.items():
            yield f"roles of {_name(uid)}: SCU {int(scu)}, SCP {int(scp)}"
        for uid, information in value.extended_negotiation.items():
            yield f"extended negotiation of {_name(uid)}: {information.hex(' ')}"
    except pdus.MalformedPDU as error:
        yield f"user information: {error}"


def _message_lines(value: Message, transfer_syntax: str) -> Iterator[str]:
    for keyword, element in value.command.items():
        if keyword not in ("CommandField", "CommandDataSetType"):
            yield f"{keyword}: {_command_text(keyword, element)}"
    if value.data is None:
        return
    if value.name == "C-STORE-RQ":
        yield f"data set of {len(value.data)} bytes, {_name(transfer_syntax)}"
        return
    try:
        yield from data_set_lines(value.data_set(transfer_syntax))
    except MalformedMessage as error:
        yield f"data set of {len(value.data)} bytes: {error}"


def _command_text(keyword: str, value: object) -> str:
    if keyword == "Status" and isinstance(value, int):
        return f"0x{value:04X}"
    if isinstance(value, tuple):
        return ", ".join(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in value)
    if isinstance(value, str) and keyword.endswith("UID"):
        return f"{value} ({_name(value)})" if _name(value) != value else value
    return str(value)


def data_set_lines(data_set: Dataset, indent: str = "") -> Iterator[str]:
    """The elements of a data set, a line each, long values and long data sets cut with a note."""
    with config.disable_value_validation():
        for number, element in enumerate(data_set):
            if number >= _MOST_LINES:
                yield f"{indent}... {len(data_set) - number} elements more"
                return
            tag = f"({element.tag.group:04X},{element.tag.element:04X})"
            if element.VR == "SQ":
                yield f"{indent}{tag} SQ {element.keyword}: {len(element.value)} items"
                for item in element.value:
                    yield from data_set_lines(item, indent + "  > ")
                continue
            text = str(element.value) if element.value is not None else ""
            if len(text) > _LONGEST_VALUE:
                text = f"{text[:_LONGEST_VALUE]}... ({len(text)} characters)"
            yield f"{indent}{tag} {element.VR} {element.keyword}: {text}"


def _name(uid: str) -> str:
    return UID(uid, validation_mode=config.IGNORE).name if uid else "(none)"
