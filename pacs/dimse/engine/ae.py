"""The application entity whose associations are ours, and its server."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.transport import (
    AddressInformation,
    RequestHandler,
    ThreadedAssociationServer,
)

from pacs.dimse.engine.association import EngineAssociation
from pacs.dimse.engine.dimse import DataSetSink
from pacs.dimse.engine.services import Destination
from pacs.dimse.engine.transport import Connection
from pacs.errors import DestinationUnreachable

LOGGER = logging.getLogger(__name__)

_LISTEN_BACKLOG = 128
#: Connections beyond twice ``maximum_associations`` are closed at once. Up to there, those over the limit
#: get their rejection (PS3.8 9.3.4, local limit exceeded).
_SPARE_CONNECTIONS = 16
#: The longest that ``EngineServer.stop`` waits for the accept loop to notice.
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class PendingCadence:
    """How often a retrieve answers Pending: after so many sub-operations or so much time."""

    sub_operations: int = 1
    seconds: float = 1.0


class EngineAE(ApplicationEntity):
    """A ``pynetdicom.AE`` that makes :class:`EngineAssociation` s."""

    #: Opens the destination of a C-MOVE (``address`` as its handler yielded it) or C-GET (None).
    open_destination: Callable[[EngineAssociation, Any, Any], Destination]
    pending_cadence = PendingCadence()

    def __init__(self, ae_title: str) -> None:
        super().__init__(ae_title)
        # The stock log handlers format every PDU; our log lines are written where an operation ends.
        _config.LOG_HANDLER_LEVEL = "none"
        self._live: set[EngineAssociation] = set()
        self._live_lock = threading.Condition()
        self._is_draining = False

    # As acceptor

    def listen(
        self,
        address: tuple[str, int],
        handlers: Sequence[Any],
        *,
        open_sink: Any = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> EngineServer:
        """Bind ``address`` and serve associations in threads until ``EngineServer.stop``.

        Raises:
            OSError: the address cannot be bound.
        """
        server = EngineServer(
            self,
            address,
            self.ae_title,
            self.supported_contexts,
            ssl_context,
            evt_handlers=list(handlers),
            request_handler=EngineRequestHandler,
            open_sink=open_sink,
        )
        thread = threading.Thread(
            target=server.serve_forever,
            kwargs={"poll_interval": _POLL_SECONDS},
            name="listener",
            daemon=True,
        )
        thread.start()
        self._servers.append(server)
        return server

    def association_started(self, assoc: EngineAssociation) -> None:
        """Count an acceptor association."""
        with self._live_lock:
            self._live.add(assoc)
            is_late = self._is_draining
        if is_late:
            # Its connection was accepted just before the listener stopped: nobody else will end it.
            assoc.stop()

    def association_ended(self, assoc: EngineAssociation) -> None:
        """Stop counting it."""
        with self._live_lock:
            self._live.discard(assoc)
            self._live_lock.notify_all()

    @property
    def active_associations(self) -> list[Any]:
        """The acceptor associations that are alive.

        Stock pynetdicom walks all threads for this, for every association that is requested.
        """
        with self._live_lock:
            return list(self._live)

    def drain(self, timeout_seconds: float) -> int:
        """Let running operations finish, end idle associations; return how many did not end in time."""
        with self._live_lock:
            self._is_draining = True
        for assoc in self.active_associations:
            assoc.stop()
        # Not join(): the thread of an association may not have been started yet.
        with self._live_lock:
            self._live_lock.wait_for(lambda: not self._live, timeout_seconds)
            return len(self._live)

    # As requestor

    def associate(
        self,
        addr: Any,
        port: int,
        contexts: Any = None,
        ae_title: str = "ANY-SCP",
        max_pdu: int = 131_072,
        ext_neg: Any = None,
        bind_address: Any = None,
        tls_args: Any = None,
        evt_handlers: Any = None,
    ) -> EngineAssociation:
        """Request an association; see ``pynetdicom.AE.associate``. The result has no thread.

        Raises:
            DestinationUnreachable: ``addr`` is a host name that cannot be resolved.
        """
        try:
            remote = AddressInformation.from_addr_port(addr, port)
        except (OSError, UnicodeError) as error:  # the latter: no host name can be like that (IDNA)
            raise DestinationUnreachable(f"Unknown host of {ae_title}: {addr}") from error
        if bind_address is None:
            bind_address = ("::0", 0) if remote.address_family == socket.AF_INET6 else ("", 0)
        local = AddressInformation.from_tuple(bind_address)
        assoc = EngineAssociation(self, "requestor")
        assoc.label = f"to {ae_title}"
        sock = Connection(assoc, address=local)
        sock.tls_args = tls_args
        assoc.set_socket(sock)
        assoc.acceptor.ae_title = ae_title
        assoc.acceptor.address_info = remote
        requestor = assoc.requestor
        requestor.address_info = local
        requestor.ae_title = self.ae_title
        requestor.maximum_length = max_pdu
        requestor.implementation_class_uid = self.implementation_class_uid
        requestor.implementation_version_name = self.implementation_version_name
        for item in ext_neg or []:
            requestor.add_negotiation_item(item)
        requested = deepcopy(contexts or self.requested_contexts)
        self._validate_requested_contexts(requested)
        for number, context in enumerate(requested):
            context.context_id = 2 * number + 1
        requestor.requested_contexts = requested
        for handler in evt_handlers or []:
            assoc.bind(*handler)
        assoc.request()
        return assoc


class EngineRequestHandler(RequestHandler):
    """Makes our association for a new connection."""

    server: EngineServer
    ae: EngineAE

    def _create_association(self) -> EngineAssociation:
        assoc = EngineAssociation(self.ae, "acceptor")
        assoc._server = self.server
        host, port = self.client_address[:2]
        assoc.label = f"{host}:{port}"
        assoc.name = f"association {host}:{port}"
        assoc.set_socket(Connection(assoc, client_socket=self.request))
        acceptor = assoc.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        acceptor.supported_contexts = deepcopy(self.server.contexts)
        assoc.requestor.address_info = self.remote
        bound: Any
        for event, bound in self.server._handlers.items():
            if event.is_intervention and bound:
                assoc.bind(event, *bound)
            elif isinstance(event, evt.NotificationEvent):
                for handler, args in bound:
                    assoc.bind(event, handler, args)
        if self.server.open_sink is not None:
            assoc.dimse.open_sink = self.server.sink_opener(assoc)
        return assoc


class EngineServer(ThreadedAssociationServer):
    """Accepts connections; a TLS handshake happens in the connection's thread, never in the accept loop."""

    request_queue_size = _LISTEN_BACKLOG
    daemon_threads = True

    def __init__(self, *args: Any, open_sink: Any = None, **kwargs: Any) -> None:
        #: ``open_sink(association, request, context_id)`` makes the sink of a C-STORE data set.
        self.open_sink = open_sink
        super().__init__(*args, **kwargs)

    def sink_opener(self, assoc: EngineAssociation) -> Any:
        """Bind the association to ``open_sink``."""

        def open_for(request: Any, context_id: int) -> DataSetSink:
            sink: DataSetSink = self.open_sink(assoc, request, context_id)
            return sink

        return open_for

    @property
    def port(self) -> int:
        """The TCP port that was bound."""
        return int(self.server_address[1])

    @property
    def active_associations(self) -> list[Any]:
        """The associations accepted by this server."""
        return [assoc for assoc in self.ae.active_associations if assoc._server is self]

    def get_request(self) -> Any:
        """Accept a connection without waiting for its TLS handshake."""
        assert self.socket is not None
        return self.socket.accept()

    def verify_request(self, _: Any, client_address: Any) -> bool:
        """Refuse connections far beyond the limit before they cost a thread each."""
        if len(self.ae.active_associations) < 2 * self.ae.maximum_associations + _SPARE_CONNECTIONS:
            return True
        LOGGER.warning("connection from %s dropped: too many connections", client_address[0])
        return False

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands if TLS is on, then start the association."""
        if self.ssl_context is not None:
            request.settimeout(self.ae.acse_timeout)
            try:
                request = self.ssl_context.wrap_socket(request, server_side=True)
            except (OSError, ssl.SSLError) as error:
                LOGGER.warning("TLS handshake with %s failed: %s", client_address[0], error)
                self.shutdown_request(request)
                return
        super().finish_request(request, client_address)

    def handle_error(self, _: Any, client_address: Any) -> None:
        """Log what went wrong while a connection was set up (called while the exception is handled)."""
        LOGGER.error(
            "connection from %s could not be served", client_address[0], exc_info=sys.exception()
        )

    def service_actions(self) -> None:
        """Nothing: stock pynetdicom collects garbage here, which stops the process for a while."""

    def stop(self) -> None:
        """Stop accepting connections; running associations go on."""
        self.shutdown()
