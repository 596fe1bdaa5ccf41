"""A peer with one fault: it passes associations on to a real archive and spoils what goes through."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset

from pacs.conformance.wire.association import Association, AssociationEnded, Rejected
from pacs.conformance.wire.message import Message, decode_data_set, encode_data_set
from pacs.conformance.wire.pdu import Abort
from pacs.conformance.wire.trace import Trace

_SECONDS = 5.0
#: What becomes of a message on its way; the text is the transfer syntax of its context.
Fault = Callable[[Message, str], Iterable[Message]]


def unchanged(message: Message, _syntax: str) -> Iterable[Message]:
    """Pass it on."""
    return (message,)


def with_data(message: Message, syntax: str, change: Callable[[Dataset], None]) -> Message:
    """The message with a changed data set."""
    data_set = decode_data_set(message.data or b"", syntax)
    change(data_set)
    return replace(message, data=encode_data_set(data_set, syntax))


def with_command(message: Message, **elements: object) -> Message:
    """The message with other elements in its command set."""
    command = {**message.command, **elements}
    present = {keyword: value for keyword, value in command.items() if value is not None}
    return replace(message, command=present, raw_command=None)  # type: ignore[arg-type]  # any value may be sent


class FaultyPeer:
    """Listens on a port of its own. ``on_request`` spoils what the SCU sends, ``on_response`` what comes back."""

    def __init__(
        self, port: int, on_request: Fault = unchanged, on_response: Fault = unchanged
    ) -> None:
        self._behind = ("127.0.0.1", port)
        self._on_request, self._on_response = on_request, on_response
        self._threads: list[threading.Thread] = []
        self._open: list[Association] = []

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for association in list(self._open):
            _shut_down(association)
        for thread in list(self._threads):
            thread.join(_SECONDS)

    def _start(self, target: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                sock, _address = self._listening.accept()
            except OSError:
                return
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with (
            Association(sock, Trace("SCU"), _SECONDS) as scu,
            suppress(AssociationEnded),
            Association.connect(self._behind, Trace("archive"), _SECONDS) as archive,
        ):
            self._open += [scu, archive]
            asked = scu.receive_request()
            try:
                scu.accept(archive.request(asked))
            except Rejected as rejected:
                scu.send_pdu(rejected.reject)
                return
            back = self._start(self._pass_on, archive, scu, self._on_response)
            self._pass_on(scu, archive, self._on_request)
            back.join(_SECONDS)

    @staticmethod
    def _pass_on(source: Association, target: Association, fault: Fault) -> None:
        """Messages until one side ends it; then the other side is aborted."""
        try:
            while True:
                message = source.receive()
                syntax = source.transfer_syntax_of(message.context_id)
                for sent in fault(message, syntax):
                    target.send(sent)
        except AssociationEnded:
            if target.is_open:
                with suppress(AssociationEnded):
                    target.send_pdu(Abort())
            _shut_down(target)


def _shut_down(association: Association) -> None:
    """End the connection. Its socket is left to the thread that reads it: closed here, its number could be reused."""
    with suppress(OSError):
        association.socket.shutdown(socket.SHUT_RDWR)
