"""What the parts of an association need of each other, so that none of them imports all the others.

An association (``association``) stands between its connection and the services of whoever made its application entity.
Transport, PDUs and messages (``transport``, ``dul``, ``dimse``) know it as an :class:`Upper`; the services are
:class:`Services` to it, and know it as a :class:`Served`. Nothing in ``pacs.wire`` knows what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pacs.wire.history import History


class PDataReceiver(Protocol):
    """What takes the content of P-DATA PDUs."""

    def receive_pdvs(self, body: memoryview) -> None:
        """Take the presentation data values of one PDU (PS3.8 9.3.5).

        Raises:
            ProtocolViolation: they are none, or not in message order.
        """
        ...


class Upper(Protocol):
    """What a connection needs of its association: how long it may take, and whom to tell what happened."""

    #: Short name for log lines.
    label: str
    #: Why there is no connection, in words; empty if there was one.
    connect_error: str
    history: History
    is_established: bool

    @property
    def is_requestor(self) -> bool:
        """Whether this side asked for the association."""
        ...

    @property
    def pdu_timeout(self) -> float | None:
        """How long one PDU may take, in seconds; None is for ever."""
        ...

    @property
    def local_maximum_length(self) -> int:
        """The maximum PDU length that was announced, in bytes; 0 is none."""
        ...

    @property
    def dimse(self) -> PDataReceiver:
        """Where P-DATA goes."""
        ...

    def on_connection_lost(self) -> None:
        """The connection broke."""
        ...

    def on_no_longer_established(self) -> None:
        """The peer released, aborted or vanished, or broke the protocol."""
        ...


class Messages(Protocol):
    """What a service needs of the DIMSE messages of its association."""

    #: By Message ID, those of operations in progress.
    cancel_req: dict[int, Any]

    @property
    def dimse_timeout(self) -> float | None:
        """How long to wait for a response, in seconds."""
        ...

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message whose data set, if any, is in memory."""
        ...

    @property
    def max_fragment_bytes(self) -> int:
        """The longest fragment that the peer takes, in bytes."""
        ...

    def send_block(self, block: memoryview) -> None:
        """Send whole P-DATA PDUs, laid out in order."""
        ...

    def confirm_store(self, request: Any, context_id: int) -> None:
        """Send the response with status Success to a C-STORE request (PS3.7 9.3.1.2)."""
        ...


class Served(Protocol):
    """What a service needs of the association that it serves."""

    label: str
    history: History

    @property
    def dimse(self) -> Messages:
        """Its messages."""
        ...

    @property
    def peer_is_gone(self) -> bool:
        """Whether the peer aborted, asked for release, or the connection is lost."""
        ...

    def poll_peer(self) -> None:
        """Take in what the peer has sent so far (C-CANCEL, release, abort) without waiting."""
        ...

    def trigger(self, event: Any, attributes: Mapping[str, Any]) -> Any:
        """Call the handler bound to an event of pynetdicom's, and return what it does."""
        ...

    def abort(self) -> None:
        """Abort the association (PS3.8 7.3)."""
        ...


class Services(Protocol):
    """What an association needs of the services that it has as acceptor; one for each association."""

    def serve(self, request: Any, context: Any) -> None:
        """Serve one message of the peer, to its last response; ``context`` is the accepted presentation context."""
        ...

    def step(self) -> bool:
        """Do a piece of what is to be done between requests; False if there is nothing to do now."""
        ...

    @property
    def seconds_left(self) -> float | None:
        """How long to wait for the peer's response to a request of ours, from now; None if none is awaited."""
        ...

    def close(self) -> None:
        """The association has ended."""
        ...


class NoServices:
    """Those of an application entity that only requests associations."""

    def __init__(self, assoc: Served) -> None:
        self._assoc = assoc

    def serve(self, request: Any, context: Any) -> None:  # noqa: ARG002 - the Protocol's signature
        """Abort: there is nothing that the peer may ask for."""
        self._assoc.abort()

    def step(self) -> bool:
        """There is nothing to do."""
        return False

    seconds_left = None

    def close(self) -> None:
        """There is nothing to end."""


class Owner(Protocol):
    """What an association needs of its application entity."""

    acse_timeout: float | None
    network_timeout: float | None
    #: Makes the services of one association.
    make_services: Callable[[Any], Services]

    def association_started(self, assoc: Any) -> None:
        """An acceptor association has a connection."""
        ...

    def association_requested(self) -> None:
        """A peer has asked for an association on it."""
        ...

    def association_established(self, assoc: Any) -> None:
        """It was agreed to."""
        ...

    def association_ended(self, assoc: Any) -> None:
        """Its connection is closed."""
        ...
