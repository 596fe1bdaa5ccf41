"""The server of a process that does not listen: another one accepts the connections and hands them over."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import Any, Protocol

from pacs.wire.ae import EngineAE, EngineRequestHandler, EngineServer

LOGGER = logging.getLogger(__name__)


class Census(Protocol):
    """The connections of all processes that serve one port, as one of them sees it."""

    @property
    def elsewhere(self) -> int:
        """How many the other processes serve."""

    @property
    def associations_elsewhere(self) -> int:
        """How many of these are associations."""

    @property
    def processes(self) -> int:
        """How many processes there are."""

    def associations(self, count: int) -> None:
        """Note how many associations this process has; called by any thread."""

    def ended(self) -> None:
        """Note that one of this process has ended; called by any thread."""


class HandedServer(EngineServer):
    """Serves what is given to ``serve``; each connection is reported to the census when it has ended."""

    def __init__(self, *args: Any, census: Census, **kwargs: Any) -> None:
        self._census = census
        super().__init__(*args, **kwargs)
        assert self.socket is not None
        self.socket.close()  # its base made it, to bind it

    def server_bind(self) -> None:
        """Bind nothing: ``server_address`` is what the other process has bound."""

    def server_activate(self) -> None:
        """Listen to nothing."""

    def serve(self, connection: socket.socket) -> None:
        """Serve a connection in threads of its own; from now on it is the server's to close."""
        try:
            address = connection.getpeername()
        except OSError:  # the peer has reset it meanwhile
            connection.close()
            self.connection_ended()
            return
        if not self.verify_request(connection, address):
            self.shutdown_request(connection)
            self.connection_ended()
            return
        try:
            self.process_request(connection, address)
        except Exception:  # noqa: BLE001 - no thread, for one; logged by handle_error
            self.handle_error(connection, address)
            self.shutdown_request(connection)

    @property
    def connections_elsewhere(self) -> int:
        """How many connections to this port other processes serve."""
        return self._census.elsewhere

    @property
    def associations_elsewhere(self) -> int:
        """How many of these are associations."""
        return self._census.associations_elsewhere

    @property
    def processes(self) -> int:
        """How many processes serve this port."""
        return self._census.processes

    def note_associations(self, count: int) -> None:
        """Tell the census."""
        self._census.associations(count)

    def connection_ended(self) -> None:
        """Tell the census."""
        self._census.ended()

    def stop(self) -> None:
        """Nothing is accepted here that could be stopped; running associations go on."""


def handed_server(
    ae: EngineAE,
    address: tuple[Any, ...],
    handlers: Sequence[Any],
    *,
    open_sink: Any,
    census: Census,
) -> HandedServer:
    """The server of ``ae`` for connections that another process accepts on ``address``."""
    server = HandedServer(
        ae,
        address,
        ae.ae_title,
        ae.supported_contexts,
        evt_handlers=list(handlers),
        request_handler=EngineRequestHandler,
        open_sink=open_sink,
        census=census,
    )
    ae._servers.append(server)
    return server
