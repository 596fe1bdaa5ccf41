"""The application entity whose associations are ours, and its server."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import pydicom.config
from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.transport import (
    AddressInformation,
    RequestHandler,
    ThreadedAssociationServer,
)

from pacs.errors import DestinationUnreachable
from pacs.wire import tls
from pacs.wire.admission import Admission, Entry
from pacs.wire.association import EngineAssociation
from pacs.wire.dimse import DataSetSink
from pacs.wire.interfaces import NoServices, Services
from pacs.wire.repeated import RepeatedLine
from pacs.wire.transport import Connection

LOGGER = logging.getLogger(__name__)

_LISTEN_BACKLOG = 128
#: Connections beyond twice ``maximum_associations`` are closed at once. Up to there, those over the limit
#: get their rejection (PS3.8 9.3.4, local limit exceeded).
_SPARE_CONNECTIONS = 16
#: How long to wait when no connection can be accepted.
_ACCEPT_PAUSE_SECONDS = 0.1
#: How long the accept loop may take to notice that it is to end, before it is given a connection to accept.
_WAKE_SECONDS = 0.5
#: How long a peer whose TLS handshake failed may take to close the connection (seconds).
_LINGER_SECONDS = 2.0
_SCRAP_BYTES = 16 * 1024


class EngineAE(ApplicationEntity):
    """A ``pynetdicom.AE`` that makes :class:`EngineAssociation` s."""

    #: Makes what the peer of one association may ask for.
    make_services: Callable[[EngineAssociation], Services] = NoServices
    #: Called in the thread of an acceptor association when its connection is closed; it never raises.
    on_association_over: Callable[[EngineAssociation], None] | None = None
    #: For the connections that are accepted; None is without TLS.
    ssl_context: ssl.SSLContext | None = None
    #: Whether peers without TLS are refused; else both kinds are served on one port.
    requires_tls = True

    def __init__(self, ae_title: str) -> None:
        super().__init__(ae_title)
        # The stock log handlers format every PDU; our log lines are written where an operation ends.
        _config.LOG_HANDLER_LEVEL = "none"
        # Each of the forty UIDs of a negotiation would be matched with a regular expression three times, to warn of
        # what peers send; what matters is checked where it is used.
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
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
            evt_handlers=list(handlers),
            request_handler=EngineRequestHandler,
            open_sink=open_sink,
        )
        server.listener = threading.Thread(
            target=server.serve_forever, name="listener", daemon=True
        )
        server.listener.start()
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

    def association_requested(self) -> None:
        """Tell the other processes that there is one more, or one less."""
        count = len(self.active_associations)
        servers: list[Any] = self._servers
        for server in servers:
            server.note_associations(count)

    def association_established(self, assoc: EngineAssociation) -> None:
        """Its connection has not to go any more for others."""
        if isinstance(assoc._server, EngineServer):
            assoc._server.connection_established()

    def association_ended(self, assoc: EngineAssociation) -> None:
        """Stop counting it."""
        if self.on_association_over is not None:
            self.on_association_over(assoc)
        with self._live_lock:
            self._live.discard(assoc)
            self._live_lock.notify_all()
        self.association_requested()
        if isinstance(assoc._server, EngineServer):
            assoc._server.connection_ended()

    @property
    def maximum_associations(self) -> int:
        """How many acceptor associations this process may have: those of other processes count as well."""
        servers: list[Any] = self._servers
        elsewhere: int = sum(server.associations_elsewhere for server in servers)
        return self._all_associations - elsewhere

    @maximum_associations.setter
    def maximum_associations(self, value: int) -> None:
        stock: Any = ApplicationEntity.maximum_associations
        stock.fset(self, value)

    @property
    def _all_associations(self) -> int:
        """Those of all processes."""
        return int(super().maximum_associations)

    @property
    def processes(self) -> int:
        """How many processes serve associations together."""
        servers: list[Any] = self._servers
        return max((server.processes for server in servers), default=1)

    @property
    def active_associations(self) -> list[Any]:
        """The acceptor associations that have been requested and are neither rejected nor over.

        Stock pynetdicom walks all threads for this, for every association that is requested. A connection whose peer
        is silent, or does not close after its rejection, is none: many of them would leave no association to others.
        """
        with self._live_lock:
            return [
                one
                for one in self._live
                if one.requestor.primitive is not None and not one.is_rejected
            ]

    def drain(self, timeout_seconds: float) -> int:
        """Let running operations finish, end idle associations; return how many did not end in time."""
        with self._live_lock:
            self._is_draining = True
            live = list(self._live)
        for assoc in live:
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


def connection_limit(maximum_associations: int) -> int:
    """How many connections are worth an answer, be it a rejection; further ones are closed at once."""
    return 2 * maximum_associations + _SPARE_CONNECTIONS


def listening_socket(address: tuple[str, int]) -> socket.socket:
    """Bind ``address`` for a process that accepts connections for others.

    Raises:
        OSError: the address cannot be bound.
    """
    family = AddressInformation.from_tuple(address).address_family
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_LISTEN_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


class EngineRequestHandler(RequestHandler):
    """Makes our association for a new connection."""

    server: EngineServer
    ae: EngineAE

    def handle(self) -> None:
        """Serve the association in this thread, which was started for the connection."""
        assoc = self._create_association()
        evt.trigger(assoc, evt.EVT_CONN_OPEN, {"address": self.client_address})
        threading.current_thread().name = assoc.name
        assoc.run_reactor()

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
        # Not copied, as stock does: negotiation only reads them, and copies of ten take 0.3 ms.
        acceptor.supported_contexts = self.server.contexts
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

    ae: EngineAE
    request_queue_size = _LISTEN_BACKLOG
    daemon_threads = True

    def __init__(self, *args: Any, open_sink: Any = None, **kwargs: Any) -> None:
        #: ``open_sink(association, request, context_id)`` makes the sink of a C-STORE data set.
        self.open_sink = open_sink
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        #: From their acceptance: the threads of a flood may not even have begun.
        self.admission = Admission()
        self._thread = threading.local()
        #: What accepts connections; None if another process does.
        self.listener: threading.Thread | None = None
        #: Since when the accept loop has been busy with one connection; None while it waits for one.
        self.accepting_since: float | None = None
        self._dropped = RepeatedLine(LOGGER, logging.WARNING)
        self._not_accepted = RepeatedLine(LOGGER, logging.ERROR)
        super().__init__(*args, **kwargs)
        self.ssl_context = self.ssl_context or self.ae.ssl_context

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
    def connections_elsewhere(self) -> int:
        """How many connections to this port other processes serve."""
        return 0

    @property
    def associations_elsewhere(self) -> int:
        """How many of these are associations."""
        return 0

    @property
    def processes(self) -> int:
        """How many processes serve this port."""
        return 1

    def note_associations(self, count: int) -> None:
        """Learn how many associations this process has; the others may want to know."""

    def connection_established(self) -> None:
        """The connection that this thread serves has become an association."""
        entry = getattr(self._thread, "entry", None)
        if entry is not None:
            self.admission.establish(entry)

    def connection_ended(self) -> None:
        """A connection has ended, with or without having been an association; nobody needs to know."""

    @property
    def active_associations(self) -> list[Any]:
        """The associations accepted by this server."""
        return [assoc for assoc in self.ae.active_associations if assoc._server is self]

    def get_request(self) -> Any:
        """Accept a connection without waiting for its TLS handshake."""
        assert self.socket is not None
        return self.socket.accept()

    def verify_request(self, _: Any, client_address: Any) -> bool:
        """Have room for a connection: far beyond the limit, another one goes, or this one before it costs a thread."""
        limit = connection_limit(self.ae._all_associations) - self.connections_elsewhere
        if len(self.admission) < limit:
            return True
        going = self.admission.make_room()
        if going is None:
            self._dropped("connection from %s dropped: too many connections", client_address[0])
            return False
        self._dropped(
            "connection from %s dropped after %.1f s of silence: too many connections",
            going.host,
            time.monotonic() - going.since,
        )
        going.close()
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        entry = self.admission.enter(str(client_address[0]), request)
        try:
            threading.Thread(
                target=self._serve_connection,
                args=(entry, request, client_address),
                name=f"connection {client_address[0]}",
                daemon=True,
            ).start()
        except BaseException:
            self.admission.leave(entry)
            raise

    def _serve_connection(self, entry: Entry, request: Any, client_address: Any) -> None:
        """Serve a connection, from its TLS handshake to its end."""
        self._thread.entry = entry
        try:
            self.process_request_thread(request, client_address)
        finally:
            self.admission.leave(entry)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands if TLS is on, then start the association."""
        if self.ssl_context is not None:
            secured = self._secure(self.ssl_context, request, client_address[0])
            if secured is None:
                self.connection_ended()
                return
            request = secured
        super().finish_request(request, client_address)

    def _entry_has(self, sock: Any) -> None:
        """The connection that this thread serves has another socket."""
        entry = getattr(self._thread, "entry", None)
        if entry is not None:
            entry.socket = sock

    def _secure(self, context: ssl.SSLContext, request: Any, host: str) -> Any:
        """The connection to go on with; None if there is none. The peer has as long as for its request (ARTIM)."""
        request.settimeout(self.ae.acse_timeout)
        try:
            first = request.recv(1, socket.MSG_PEEK)
            if first == bytes((tls.HANDSHAKE_RECORD,)):
                request = context.wrap_socket(
                    request, server_side=True, do_handshake_on_connect=False
                )
                # Before the handshake, which may take as long: the socket under TLS has taken the descriptor over.
                self._entry_has(request)
                request.do_handshake()
                return request
        except OSError as error:
            LOGGER.warning("TLS handshake with %s failed: %s", host, tls.explain(error))
            # Nobody is there to read our alert if the time is up.
            _close_after_alert(request, 0 if isinstance(error, TimeoutError) else _LINGER_SECONDS)
            return None
        if first and not self.ae.requires_tls:
            return request
        if first:
            LOGGER.warning("connection from %s refused: it is without TLS, which is required", host)
        else:
            LOGGER.debug("connection from %s: closed without a word", host)
        self.shutdown_request(request)
        return None

    def handle_error(self, _: Any, client_address: Any) -> None:
        """Log what went wrong while a connection was set up (called while the exception is handled)."""
        LOGGER.error(
            "connection from %s could not be served", client_address[0], exc_info=sys.exception()
        )
        self.connection_ended()

    def service_actions(self) -> None:
        """Nothing: stock pynetdicom collects garbage here, which stops the process for a while."""

    def serve_forever(self, poll_interval: float = 0.0) -> None:  # noqa: ARG002 - there is no polling
        """Accept connections until ``shutdown``; the base class looks twice a second whether it is to go on."""
        assert self.socket is not None
        self.socket.settimeout(None)
        while not self._stopping.is_set():
            try:
                request, address = self.get_request()
            except OSError as error:
                if not self._stopping.is_set():
                    # No descriptor left, for one; the next attempt would fail as fast.
                    self._not_accepted("cannot accept a connection: %s", error.strerror or error)
                    self._stopping.wait(_ACCEPT_PAUSE_SECONDS)
                continue
            # Starting a thread waits for it, for ever if it dies of MemoryError first.
            self.accepting_since = time.monotonic()
            self._accepted(request, address)
            self.accepting_since = None
        self._stopped.set()

    def _accepted(self, request: Any, address: Any) -> None:
        if self._stopping.is_set() or not self.verify_request(request, address):
            self.shutdown_request(request)
            return
        try:
            self.process_request(request, address)
        except Exception:  # noqa: BLE001 - no thread, for one; logged by handle_error
            self.handle_error(request, address)
            self.shutdown_request(request)

    def shutdown(self) -> None:
        """Stop accepting connections and close the socket; running associations go on."""
        self._stopping.set()
        assert self.socket is not None
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes up accept() on Linux
        if not self._stopped.wait(_WAKE_SECONDS):
            with contextlib.suppress(OSError):
                socket.create_connection(self.server_address[:2], timeout=_WAKE_SECONDS).close()
            self._stopped.wait(_WAKE_SECONDS)
        self.server_close()
        if self in self.ae._servers:
            self.ae._servers.remove(self)

    def stop(self) -> None:
        """Stop accepting connections; running associations go on."""
        self.shutdown()


def _close_after_alert(sock: socket.socket, linger_seconds: float) -> None:
    """Close once the peer has, so that it can read why; bytes left unread would make it a reset."""
    deadline = time.monotonic() + linger_seconds
    with sock, contextlib.suppress(OSError):
        # The methods of an SSLSocket would go on with the handshake.
        socket.socket.shutdown(sock, socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            if not socket.socket.recv(sock, _SCRAP_BYTES):
                return
