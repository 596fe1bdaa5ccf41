"""Protocol data units as values (PS3.8 9.3): what is decoded is what was sent, what is encoded need not be valid.

Nothing here corrects or refuses a value that the Standard forbids: judging is the work of the checks, and a
programmable peer has to be able to send what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
#: Command and last-fragment bits of a message control header (PS3.8 E.2).
COMMAND_BIT, LAST_BIT = 0x01, 0x02
#: Results of a presentation context (PS3.8 Table 9-18).
ACCEPTANCE, USER_REJECTION, NO_REASON, ABSTRACT_SYNTAX_REFUSED, TRANSFER_SYNTAXES_REFUSED = range(5)

_APPLICATION_ITEM, _USER_INFORMATION_ITEM = 0x10, 0x50
_PROPOSED_ITEM, _ANSWERED_ITEM = 0x20, 0x21
_ABSTRACT_SYNTAX_ITEM, _TRANSFER_SYNTAX_ITEM = 0x30, 0x40
_MAXIMUM_LENGTH_ITEM, _IMPLEMENTATION_UID_ITEM = 0x51, 0x52
_ASYNCHRONOUS_ITEM, _ROLE_ITEM, _IMPLEMENTATION_NAME_ITEM, _EXTENDED_ITEM = 0x53, 0x54, 0x55, 0x56
_FIXED_BYTES = 68  # of an A-ASSOCIATE PDU before its items
_TITLE_BYTES = 16

#: Source and reason of an A-ASSOCIATE-RJ (PS3.8 Table 9-21).
REJECTIONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 1): "no reason given by the ACSE provider",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


class MalformedPDU(ValueError):
    """The bytes cannot be taken apart as PS3.8 9.3 lays them out."""


@dataclass(frozen=True)
class ProposedContext:
    """A presentation context of an A-ASSOCIATE-RQ (PS3.8 9.3.2.2)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True)
class AnsweredContext:
    """A presentation context of an A-ASSOCIATE-AC (PS3.8 9.3.3.2)."""

    context_id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True)
class UserItem:
    """A sub-item of the user information item (PS3.8 D.3, PS3.7 D.3.3), its content as bytes."""

    item_type: int
    content: bytes


def maximum_length(length_bytes: int) -> UserItem:
    """The longest P-DATA-TF PDU that the sender takes; 0 for no limit (PS3.8 D.1)."""
    return UserItem(_MAXIMUM_LENGTH_ITEM, struct.pack(">I", length_bytes))


def implementation(class_uid: str, version_name: str) -> tuple[UserItem, UserItem]:
    """Implementation Class UID and Version Name (PS3.7 D.3.3.2)."""
    return (
        UserItem(_IMPLEMENTATION_UID_ITEM, class_uid.encode()),
        UserItem(_IMPLEMENTATION_NAME_ITEM, version_name.encode()),
    )


def asynchronous_operations(invoked: int, performed: int) -> UserItem:
    """The asynchronous operations window (PS3.7 D.3.3.3)."""
    return UserItem(_ASYNCHRONOUS_ITEM, struct.pack(">HH", invoked, performed))


def role_selection(sop_class_uid: str, *, scu: bool, scp: bool) -> UserItem:
    """SCP/SCU Role Selection (PS3.7 D.3.3.4)."""
    uid = sop_class_uid.encode()
    return UserItem(_ROLE_ITEM, struct.pack(">H", len(uid)) + uid + bytes((scu, scp)))


def extended_negotiation(sop_class_uid: str, information: bytes) -> UserItem:
    """SOP Class Extended Negotiation (PS3.7 D.3.3.5)."""
    uid = sop_class_uid.encode()
    return UserItem(_EXTENDED_ITEM, struct.pack(">H", len(uid)) + uid + information)


def uid_and_rest(item: UserItem) -> tuple[str, bytes]:
    """The SOP Class UID of a role selection or extended negotiation item, and the bytes after it."""
    if len(item.content) < 2:
        raise MalformedPDU("a user information sub-item ends inside its UID length")
    length = int.from_bytes(item.content[:2], "big")
    if 2 + length > len(item.content):
        raise MalformedPDU("a user information sub-item ends inside its UID")
    return _text(item.content[2 : 2 + length]), item.content[2 + length :]


@dataclass(frozen=True)
class _Associate:
    """What A-ASSOCIATE-RQ and A-ASSOCIATE-AC have in common."""

    called_ae_title: str
    calling_ae_title: str
    user_items: tuple[UserItem, ...] = ()
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1

    def items_of(self, item_type: int) -> list[UserItem]:
        """The user information sub-items of one type, in order."""
        return [item for item in self.user_items if item.item_type == item_type]

    @property
    def maximum_length(self) -> int:
        """The maximum length that was announced in bytes; 0 when there is no limit or it was not announced."""
        items = self.items_of(_MAXIMUM_LENGTH_ITEM)
        return int.from_bytes(items[0].content[:4], "big") if items else 0

    @property
    def implementation_class_uid(self) -> str:
        """The Implementation Class UID, empty when it is missing."""
        return "".join(_text(item.content) for item in self.items_of(_IMPLEMENTATION_UID_ITEM)[:1])

    @property
    def implementation_version_name(self) -> str:
        """The Implementation Version Name, empty when it is missing."""
        return "".join(_text(item.content) for item in self.items_of(_IMPLEMENTATION_NAME_ITEM)[:1])

    @property
    def extended_negotiation(self) -> dict[str, bytes]:
        """Service class application information by SOP Class UID (PS3.7 D.3.3.5)."""
        return dict(uid_and_rest(item) for item in self.items_of(_EXTENDED_ITEM))

    @property
    def roles(self) -> dict[str, tuple[bool, bool]]:
        """(SCU role, SCP role) by SOP Class UID (PS3.7 D.3.3.4)."""
        pairs = (uid_and_rest(item) for item in self.items_of(_ROLE_ITEM))
        return {uid: (bool(rest[0]), bool(rest[1])) for uid, rest in pairs if len(rest) >= 2}

    def _body(self, contexts: bytes) -> bytes:
        fixed = struct.pack(
            ">H2x16s16s32x",
            self.protocol_version,
            _title(self.called_ae_title),
            _title(self.calling_ae_title),
        )
        user = b"".join(_item(item.item_type, item.content) for item in self.user_items)
        return (
            fixed
            + _item(_APPLICATION_ITEM, self.application_context.encode())
            + contexts
            + _item(_USER_INFORMATION_ITEM, user)
        )


@dataclass(frozen=True)
class AssociateRequest(_Associate):
    """A-ASSOCIATE-RQ (PS3.8 9.3.2)."""

    pdu_type: ClassVar[int] = 0x01
    contexts: tuple[ProposedContext, ...] = ()

    def body(self) -> bytes:
        """The PDU behind its six byte header."""
        return self._body(b"".join(_item(_PROPOSED_ITEM, _proposed(one)) for one in self.contexts))


@dataclass(frozen=True)
class AssociateAccept(_Associate):
    """A-ASSOCIATE-AC (PS3.8 9.3.3)."""

    pdu_type: ClassVar[int] = 0x02
    contexts: tuple[AnsweredContext, ...] = ()

    def body(self) -> bytes:
        """The PDU behind its six byte header."""
        return self._body(b"".join(_item(_ANSWERED_ITEM, _answered(one)) for one in self.contexts))


@dataclass(frozen=True)
class AssociateReject:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    pdu_type: ClassVar[int] = 0x03
    result: int
    source: int
    reason: int

    def body(self) -> bytes:
        """The PDU behind its six byte header."""
        return bytes((0, self.result, self.source, self.reason))


@dataclass(frozen=True)
class PDV:
    """A presentation data value item (PS3.8 9.3.5.1)."""

    context_id: int
    control: int
    fragment: bytes

    @property
    def is_command(self) -> bool:
        """Whether it is a fragment of a command set."""
        return bool(self.control & COMMAND_BIT)

    @property
    def is_last(self) -> bool:
        """Whether it is the last fragment of a command set or data set."""
        return bool(self.control & LAST_BIT)


@dataclass(frozen=True)
class PData:
    """P-DATA-TF (PS3.8 9.3.5)."""

    pdu_type: ClassVar[int] = 0x04
    values: tuple[PDV, ...]

    def body(self) -> bytes:
        """The PDU behind its six byte header."""
        return b"".join(
            struct.pack(">IBB", len(value.fragment) + 2, value.context_id, value.control)
            + value.fragment
            for value in self.values
        )


@dataclass(frozen=True)
class ReleaseRequest:
    """A-RELEASE-RQ (PS3.8 9.3.6)."""

    pdu_type: ClassVar[int] = 0x05

    def body(self) -> bytes:
        """The PDU behind its six byte header."""
        return bytes(4)


@dataclass(frozen=True)
class ReleaseResponse:
    """A-RELEASE-RP (PS3.8 9.3.7)."""

    pdu_type: ClassVar[int] = 0x06

    def body(self) -> bytes:
        """The PDU behind its six byte header."""
        return bytes(4)


@dataclass(frozen=True)
class Abort:
    """A-ABORT (PS3.8 9.3.8)."""

    pdu_type: ClassVar[int] = 0x07
    source: int = 0
    reason: int = 0

    def body(self) -> bytes:
        """The PDU behind its six byte header."""
        return bytes((0, 0, self.source, self.reason))


@dataclass(frozen=True)
class UnknownPDU:
    """A PDU of a type that PS3.8 9.3.1 does not have."""

    pdu_type: int
    content: bytes = field(repr=False)

    def body(self) -> bytes:
        """The PDU behind its six byte header."""
        return self.content


PDU = (
    AssociateRequest
    | AssociateAccept
    | AssociateReject
    | PData
    | ReleaseRequest
    | ReleaseResponse
    | Abort
    | UnknownPDU
)


def encode(pdu: PDU) -> bytes:
    """The PDU with its header (PS3.8 9.3.1)."""
    body = pdu.body()
    return struct.pack(">BxI", pdu.pdu_type, len(body)) + body


def decode(pdu_type: int, body: bytes) -> PDU:
    """Take a PDU apart.

    Raises:
        MalformedPDU: a length in it leads beyond its end, or something that has to be there is missing.
    """
    match pdu_type:
        case AssociateRequest.pdu_type | AssociateAccept.pdu_type:
            return _decode_associate(pdu_type, body)
        case PData.pdu_type:
            return PData(tuple(_values(body)))
        case ReleaseRequest.pdu_type:
            return ReleaseRequest()
        case ReleaseResponse.pdu_type:
            return ReleaseResponse()
        case AssociateReject.pdu_type | Abort.pdu_type:
            if len(body) < 4:
                raise MalformedPDU(f"a PDU of type {pdu_type:#04x} of {len(body)} bytes")
            if pdu_type == Abort.pdu_type:
                return Abort(body[2], body[3])
            return AssociateReject(body[1], body[2], body[3])
        case _:
            return UnknownPDU(pdu_type, body)


def _decode_associate(pdu_type: int, body: bytes) -> AssociateRequest | AssociateAccept:
    if len(body) < _FIXED_BYTES:
        raise MalformedPDU("an A-ASSOCIATE PDU ends inside its fixed part")
    application, proposed, answered, user = "", [], [], []
    for item_type, content in _items(body[_FIXED_BYTES:]):
        if item_type == _APPLICATION_ITEM:
            application = _text(content)
        elif item_type == _PROPOSED_ITEM:
            proposed.append(_decode_proposed(content))
        elif item_type == _ANSWERED_ITEM:
            answered.append(_decode_answered(content))
        elif item_type == _USER_INFORMATION_ITEM:
            user += [UserItem(kind, value) for kind, value in _items(content)]
    common = (
        _text(body[4:20]).strip(" "),
        _text(body[20:36]).strip(" "),
        tuple(user),
        application,
        int.from_bytes(body[:2], "big"),
    )
    if pdu_type == AssociateRequest.pdu_type:
        return AssociateRequest(*common, tuple(proposed))
    return AssociateAccept(*common, tuple(answered))


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        if position + 4 > len(data):
            raise MalformedPDU("an item ends inside its header")
        end = position + 4 + int.from_bytes(data[position + 2 : position + 4], "big")
        if end > len(data):
            raise MalformedPDU(f"item {data[position]:#04x} is longer than what holds it")
        yield data[position], data[position + 4 : end]
        position = end


def _values(body: bytes) -> Iterator[PDV]:
    position = 0
    while position < len(body):
        if position + 6 > len(body):
            raise MalformedPDU("a PDV item ends inside its header")
        length = int.from_bytes(body[position : position + 4], "big")
        end = position + 4 + length
        if length < 2 or end > len(body):
            raise MalformedPDU("the length of a PDV item does not fit its PDU")
        yield PDV(body[position + 4], body[position + 5], body[position + 6 : end])
        position = end


def _decode_proposed(content: bytes) -> ProposedContext:
    if len(content) < 4:
        raise MalformedPDU("a presentation context item ends inside its header")
    abstract, transfer = "", []
    for kind, value in _items(content[4:]):
        if kind == _ABSTRACT_SYNTAX_ITEM:
            abstract = _text(value)
        elif kind == _TRANSFER_SYNTAX_ITEM:
            transfer.append(_text(value))
    return ProposedContext(content[0], abstract, tuple(transfer))


def _decode_answered(content: bytes) -> AnsweredContext:
    if len(content) < 4:
        raise MalformedPDU("a presentation context item ends inside its header")
    # The transfer syntax is not significant, and may be missing, unless the context is accepted.
    syntaxes = [_text(value) for _, value in _items(content[4:])] if len(content) > 4 else []
    return AnsweredContext(content[0], content[2], syntaxes[0] if syntaxes else "")


def _proposed(context: ProposedContext) -> bytes:
    syntaxes = [_item(_ABSTRACT_SYNTAX_ITEM, context.abstract_syntax.encode())] + [
        _item(_TRANSFER_SYNTAX_ITEM, syntax.encode()) for syntax in context.transfer_syntaxes
    ]
    return bytes((context.context_id, 0, 0, 0)) + b"".join(syntaxes)


def _answered(context: AnsweredContext) -> bytes:
    return bytes((context.context_id, 0, context.result, 0)) + _item(
        _TRANSFER_SYNTAX_ITEM, context.transfer_syntax.encode()
    )


def _item(item_type: int, content: bytes) -> bytes:
    return struct.pack(">BxH", item_type, len(content)) + content


def _title(text: str) -> bytes:
    return text.encode("latin-1", "replace").ljust(_TITLE_BYTES)[:_TITLE_BYTES]


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("latin-1")
