"""The Move Destination: a Storage SCP of the tool's own, which does what a check asks of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset

from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import Association, AssociationEnded
from pacs.conformance.wire.message import CommandField, Message, response
from pacs.conformance.wire.trace import Trace
from pacs.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_MAXIMUM_LENGTH_BYTES = 1 << 16


@dataclass(frozen=True)
class ReceivedInstance:
    """A C-STORE request that came, and on what."""

    request: Message
    abstract_syntax: str
    transfer_syntax: str
    calling_ae_title: str
    called_ae_title: str

    @property
    def data_set(self) -> Dataset:
        """The instance, decoded.

        Raises:
            MalformedMessage: it cannot be.
        """
        return self.request.data_set(self.transfer_syntax)


#: The status for the n-th C-STORE request, from 0, since ``Destination.reset``; None aborts the association instead.
Behaviour = Callable[[int, Message], int | None]


def accept_all(_number: int, _request: Message) -> int:
    """Success for each instance."""
    return 0x0000


@dataclass
class Destination:
    """Listens on a port; one thread for each association. Use it as a context manager.

    ``refused_syntaxes``: abstract or transfer syntaxes that it does not accept. ``reject``: it rejects associations.
    """

    ae_title: str
    host: str = "0.0.0.0"  # noqa: S104 - the peer under test calls from wherever it is
    port: int = 0
    timeout_seconds: float = 30.0
    behaviour: Behaviour = accept_all
    refused_syntaxes: frozenset[str] = frozenset()
    reject: pdus.AssociateReject | None = None
    received: list[ReceivedInstance] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    _associations: list[Association] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop_listening()
        for association in self._associations:
            association.close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody listens on its port within the block."""
        self._stop_listening()
        try:
            yield
        finally:
            self._listen()

    def _listen(self) -> None:
        self._listening = socket.create_server((self.host, self.port))
        self.port = int(self._listening.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name="destination", daemon=True)
        self._thread.start()

    def _stop_listening(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(self.timeout_seconds)

    def reset(self) -> None:
        """Forget what was received, and accept everything again."""
        with self._lock:
            self.behaviour, self.refused_syntaxes, self.reject = accept_all, frozenset(), None
            self.received, self.traces = [], []

    def _accept(self) -> None:
        while True:
            try:
                sock, address = self._listening.accept()
            except OSError:
                return
            trace = Trace(f"destination {self.ae_title}, called from {address[0]}")
            with self._lock:
                self.traces.append(trace)
            association = Association(sock, trace, self.timeout_seconds)
            self._associations.append(association)
            threading.Thread(
                target=self._serve, args=(association,), name="sub-operations", daemon=True
            ).start()

    def _serve(self, association: Association) -> None:
        with association, suppress(AssociationEnded):
            asked = association.receive_request()
            if self.reject is not None:
                association.send_pdu(self.reject)
                return
            association.accept(self._answer(asked))
            while True:
                self._respond(association, association.receive())

    def _answer(self, asked: pdus.AssociateRequest) -> pdus.AssociateAccept:
        return pdus.AssociateAccept(
            asked.called_ae_title,
            asked.calling_ae_title,
            (
                pdus.maximum_length(_MAXIMUM_LENGTH_BYTES),
                *pdus.implementation(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME),
            ),
            contexts=tuple(self._answered(context) for context in asked.contexts),
        )

    def _answered(self, context: pdus.ProposedContext) -> pdus.AnsweredContext:
        if context.abstract_syntax in self.refused_syntaxes:
            return pdus.AnsweredContext(context.context_id, pdus.ABSTRACT_SYNTAX_REFUSED, "")
        for syntax in context.transfer_syntaxes:
            if syntax not in self.refused_syntaxes:
                return pdus.AnsweredContext(context.context_id, pdus.ACCEPTANCE, syntax)
        return pdus.AnsweredContext(context.context_id, pdus.TRANSFER_SYNTAXES_REFUSED, "")

    def _respond(self, association: Association, request: Message) -> None:
        if request.command.get("CommandField") != CommandField.C_STORE_RQ:
            association.send(response(request, 0x0000))
            return
        context = association.contexts.get(request.context_id)
        asked = association.requested
        assert asked is not None
        with self._lock:
            number = len(self.received)
            self.received.append(
                ReceivedInstance(
                    request,
                    context.abstract_syntax if context else "",
                    context.transfer_syntax if context else "",
                    asked.calling_ae_title,
                    asked.called_ae_title,
                )
            )
        status = self.behaviour(number, request)
        if status is None:
            association.abort()
            return
        association.send(response(request, status))
