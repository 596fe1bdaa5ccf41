"""What an association has been through, noted as it happens and recorded by somebody else once it is over.

The response of an operation is sent before anything is noted of it, and what goes well is a number. Of an Identifier
the level is kept and nothing else, so that neither patient values nor megabytes stay.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT

from pacs.dicom.encoding.byte_source import StreamBytes
from pacs.dicom.encoding.element_encoding import EXPLICIT_BIG, EXPLICIT_LITTLE
from pacs.dicom.encoding.element_reader import ElementReader
from pacs.dicom.encoding.plain_elements import value_of
from pacs.errors import InvalidInstance
from pacs.model.associations import AssociationEnding, OperationRecord

#: Of one association; further kinds of answers are not noted.
_MOST_ANSWERS = 100
_QUERY_RETRIEVE_LEVEL = 0x00080052
_LONGEST_LEVEL = 16
_COUNTS = (
    "NumberOfCompletedSuboperations",
    "NumberOfFailedSuboperations",
    "NumberOfWarningSuboperations",
    "NumberOfRemainingSuboperations",
)
_UNCOUNTED = (None,) * len(_COUNTS)
#: How much of an Identifier is looked at for its level, which is among the first elements.
_LEVEL_WITHIN_BYTES = 4096


@dataclass(slots=True)
class _Answers:
    """Operations that came to the same."""

    first: OperationRecord
    times: int = 1


@dataclass(slots=True)
class History:
    """One association's, written by its own thread."""

    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ending: AssociationEnding | None = None
    #: See ``AssociationEnding``.
    codes: tuple[int, ...] = ()
    #: Why we ended it, in words.
    detail: str = ""
    #: The request being served.
    request: Any = None
    #: Pending responses to it.
    pending: int = 0
    #: C-STORE requests answered with Success, by presentation context ID.
    stored: dict[int, int] = field(default_factory=dict)
    #: Other final responses, by what makes them alike.
    answers: dict[tuple[Any, ...], _Answers] = field(default_factory=dict)

    def serving(self, request: Any) -> None:
        """Note that a request is being served."""
        self.request, self.pending = request, 0

    def answered(self, response: Any, context: Any) -> None:
        """Note a final response that has been sent."""
        destination = str(getattr(self.request, "MoveDestination", None) or "").strip()
        likeness = (
            type(response),
            context.context_id,
            response.Status,
            response.ErrorComment,
            destination,
        )
        known = self.answers.get(likeness)
        if known is not None:
            known.times += 1
        elif len(self.answers) < _MOST_ANSWERS:
            record = _operation(response, self.request, context, destination, self.pending)
            self.answers[likeness] = _Answers(record)

    def sent(self, primitive: Any) -> None:
        """Note an ACSE primitive that we send: a rejection, or an abort."""
        if isinstance(primitive, A_ASSOCIATE) and primitive.result:
            codes = primitive.result, primitive.result_source, primitive.diagnostic
            self.conclude(AssociationEnding.REJECTED, codes=tuple(int(one or 0) for one in codes))
        elif isinstance(primitive, A_ABORT):
            self.conclude(AssociationEnding.ABORTED, codes=(int(primitive.abort_source or 0), 0))

    def aborted(self, primitive: Any) -> None:
        """Note the peer's abort."""
        is_provider = isinstance(primitive, A_P_ABORT)
        codes = (2, int(primitive.provider_reason or 0)) if is_provider else (0, 0)
        self.conclude(AssociationEnding.ABORTED_BY_PEER, codes=codes)

    def conclude(
        self, ending: AssociationEnding, detail: str = "", codes: tuple[int, ...] = ()
    ) -> None:
        """Note how the association ends; what follows from that changes nothing any more."""
        if self.ending is None:
            self.ending, self.detail, self.codes = ending, detail, codes


def _operation(
    response: Any, request: Any, context: Any, destination: str, pending: int
) -> OperationRecord:
    counts = tuple(getattr(response, name, None) for name in _COUNTS)
    return OperationRecord(
        service=type(response).__name__.replace("_", "-"),
        # The presentation context's: what a command set says may be anything.
        sop_class_uid=str(context.abstract_syntax),
        status=int(response.Status),
        level=_level(getattr(request, "Identifier", None), context.transfer_syntax[0]),
        destination=destination,
        message_id=response.MessageIDBeingRespondedTo,
        error_comment=str(response.ErrorComment or ""),
        offending=tuple(int(tag) for tag in getattr(response, "OffendingElement", None) or ()),
        matches=pending if isinstance(response, C_FIND) else 0,
        counts=() if counts == _UNCOUNTED else counts,
    )


def _level(identifier: BytesIO | None, transfer_syntax: Any) -> str:
    """The Query/Retrieve Level that the peer asked for; empty if it cannot be read."""
    if identifier is None or transfer_syntax.is_deflated:
        return ""
    declared = EXPLICIT_LITTLE if transfer_syntax.is_little_endian else EXPLICIT_BIG
    reader = ElementReader(StreamBytes(BytesIO(identifier.getvalue()[:_LEVEL_WITHIN_BYTES]), 0))
    with suppress(InvalidInstance):
        found = reader.wanted(
            reader.encoding_at(0, declared), {_QUERY_RETRIEVE_LEVEL}, _QUERY_RETRIEVE_LEVEL
        )
        value = value_of(found[_QUERY_RETRIEVE_LEVEL]) if found else b""
        if isinstance(value, bytes) and len(value) <= _LONGEST_LEVEL:
            text = value.decode("ascii", "replace").strip(" \0")
            return text if text.isprintable() else ""
    return ""
