"""An acceptor's association run in the test's own thread on bytes that are all there before it starts.

Nothing waits: the peer's whole side of the conversation is in the socket, its end included, so an association
takes a millisecond and its answer is a value that can be compared.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt

from pacs.archive.archive import Archive
from pacs.dimse.access import AccessPolicy
from pacs.dimse.ae import Options, handlers, make_ae, sink_opener
from pacs.dimse.commitment_delivery import CommitmentDelivery
from pacs.dimse.negotiation import message_contexts, storage_contexts
from pacs.dimse.remote import RemoteAEs
from pacs.dimse.retrieve_scp import Refused
from pacs.dimse.status import status_dataset
from pacs.model.sub_operations import SubOperations
from pacs.remotes import configured_remotes
from pacs.server import open_archive
from pacs.wire.ae import EngineRequestHandler, EngineServer
from tests.peers import identifier
from tests.serving import settings

_RECEIVE_BYTES = 65_536
#: The peer's bytes have to fit in the socket before anybody reads.
_SOCKET_BUFFER_BYTES = 1 << 20


class CutSocket(socket.socket):
    """Delivers what was sent in pieces that end at certain offsets of the stream, however large the reads."""

    cuts: Sequence[int] = ()
    _delivered = 0

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Read up to the next cut."""
        cut = next((one for one in self.cuts if one > self._delivered), None)
        view = memoryview(buffer).cast("B")[: nbytes or None]
        if cut is not None:
            view = view[: cut - self._delivered]
        count = super().recv_into(view, 0, flags)
        self._delivered += count
        return count


class _InlineHandler(EngineRequestHandler):
    """Runs the association instead of starting a thread for it."""

    def handle(self) -> None:
        assoc = self._create_association()
        assert isinstance(self.server, InlineServer)
        self.server.last_association = assoc
        evt.trigger(assoc, evt.EVT_CONN_OPEN, {"address": self.client_address})
        assoc.run_reactor()


class InlineServer(EngineServer):
    """Our server without its accept loop."""

    last_association: Any = None

    def converse(self, stream: bytes, cuts: Sequence[int] = ()) -> bytes:
        """What the association answers to a peer that sends these bytes and then closes its side."""
        with _pair() as (ours, peer):
            peer.sendall(stream)
            peer.shutdown(socket.SHUT_WR)
            ours.cuts = cuts
            self.finish_request(ours, ("127.0.0.1", 50_000))
            assert ours.fileno() == -1, "the association left its socket open"
            return _until_closed(peer)


@contextmanager
def _pair() -> Iterator[tuple[CutSocket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
        peer = socket.create_connection(listener.getsockname())
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        accepted, _ = listener.accept()
    peer.settimeout(5)
    with peer, CutSocket(fileno=accepted.detach()) as ours:
        yield ours, peer


def _until_closed(peer: socket.socket) -> bytes:
    answer = bytearray()
    try:
        while chunk := peer.recv(_RECEIVE_BYTES):
            answer += chunk
    except ConnectionResetError:
        pass  # it closed without reading everything
    return bytes(answer)


@dataclass
class RecordingSink:
    """A storage sink in memory that knows how it ended."""

    data: bytearray = field(default_factory=bytearray)
    ending: str = ""

    def write(self, fragment: memoryview) -> None:
        """Append a fragment."""
        assert not self.ending, f"written to after it was {self.ending}"
        self.data += fragment

    def finish(self) -> None:
        """Note that all is in."""
        assert not self.ending
        self.ending = "finished"

    def discard(self) -> None:
        """Note that nobody wants it."""
        self.ending = "discarded"


@dataclass
class Recorder:
    """Handlers and sinks of the test's own: what reached them, and nothing on disk."""

    sinks: list[RecordingSink] = field(default_factory=list)
    seen: list[tuple[Any, ...]] = field(default_factory=list)
    #: Whether a C-FIND looks for C-CANCEL, and so also finds a release that was sent ahead.
    looks_for_cancel: bool = False

    def open_sink(self, _assoc: Any, _request: Any, _context_id: int) -> RecordingSink:
        """Open a sink."""
        self.sinks.append(RecordingSink())
        return self.sinks[-1]

    def handlers(self) -> list[Any]:
        """What to bind."""
        return [
            (evt.EVT_REQUESTED, _let_in),
            (evt.EVT_C_ECHO, self._on_echo),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_C_MOVE, self._on_retrieve),
            (evt.EVT_C_GET, self._on_retrieve),
        ]

    def _on_echo(self, event: Any) -> int:
        self.seen.append(("C-ECHO", event.request.MessageID))
        return 0x0000

    def _on_store(self, event: Any) -> int:
        request = event.request
        sink = getattr(request, "received", None)
        data = b"" if sink is None else bytes(sink.data)
        if sink is not None:
            sink.discard()
        self.seen.append(("C-STORE", request.MessageID, request.AffectedSOPInstanceUID, data))
        return 0x0000

    def _on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        data = event.request.Identifier
        self.seen.append(("C-FIND", event.request.MessageID, data and bytes(data.getvalue())))
        for number in range(3):
            if self.looks_for_cancel and event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, identifier("STUDY", PatientID=f"P-{number}")

    def _on_retrieve(self, event: Any) -> Refused:
        self.seen.append(("retrieve", event.request.MessageID))
        return Refused(status_dataset(0x0000), SubOperations(0))


def _let_in(event: Any) -> None:
    proposed = event.assoc.requestor.primitive.presentation_context_definition_list
    event.assoc.acceptor.supported_contexts = [*message_contexts(), *storage_contexts(proposed)]


@contextmanager
def recording_server(**options: Any) -> Iterator[tuple[InlineServer, Recorder]]:
    """An inline server with handlers of its own."""
    recorder = Recorder()
    with _server(recorder.handlers(), recorder.open_sink, Options(**options)) as server:
        yield server, recorder


@contextmanager
def archive_server(directory: Path, template: Path) -> Iterator[tuple[InlineServer, Archive]]:
    """An inline server in front of a real archive."""
    (directory / "index.sqlite").write_bytes(template.read_bytes())
    chosen = settings(directory, database_url=f"sqlite:///{directory / 'index.sqlite'}")
    archive = open_archive(chosen)
    try:
        remotes = RemoteAEs(archive.index, configured_remotes(chosen))
        access = AccessPolicy(remotes, allow_any=True, verify_calling_host=False)
        options = Options(connect_timeout_seconds=1, acse_timeout_seconds=5)
        # Not started: what has to be reported on another association stays in the index.
        commitments = CommitmentDelivery(archive, remotes, make_ae(options), options.commitment)
        bound = handlers(archive, remotes, access, options, commitments)
        with _server(bound, sink_opener(archive), options) as server:
            yield server, archive
    finally:
        archive.close()


@contextmanager
def _server(
    bound: list[Any], open_sink: Callable[..., Any], options: Options
) -> Iterator[InlineServer]:
    ae = make_ae(options)
    server = InlineServer(
        ae,
        ("127.0.0.1", 0),
        options.ae_title,
        ae.supported_contexts,
        None,
        evt_handlers=bound,
        request_handler=_InlineHandler,
        open_sink=open_sink,
    )
    try:
        yield server
    finally:
        server.server_close()
