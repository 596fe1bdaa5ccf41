"""The archive as a running SCP, and the peers that talk to it: stock pynetdicom on both sides.

``StockServer`` binds the archive to a plain ``pynetdicom.AE`` (``pacs.dimse.stock``), the reference that the engine
is compared with. ``Destination`` is a storage SCP that does what the test tells it to.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import pynetdicom
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext, build_context, build_role
from pynetdicom.transport import ThreadedAssociationServer

from pacs.archive.archive import Archive
from pacs.archive.store import store
from pacs.config import Settings
from pacs.dicom.encoding.part10 import file_meta
from pacs.dicom.instance import InstanceHeader
from pacs.dimse.access import AccessPolicy
from pacs.dimse.ae import make_ae
from pacs.dimse.commitment_delivery import CommitmentDelivery
from pacs.dimse.negotiation import message_contexts
from pacs.dimse.remote import RemoteAEs
from pacs.dimse.stock import handlers
from pacs.model.instances import InstanceRecord, Origin
from pacs.model.remote_ae import RemoteAE, Service
from pacs.remotes import configured_remotes
from pacs.scp import options_of
from pacs.server import Server, open_archive
from pacs.wire.tls import acceptor_context
from tests.factories import part10

VERIFICATION = "1.2.840.10008.1.1"
PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
PATIENT_ROOT_GET = "1.2.840.10008.5.1.4.1.2.1.3"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
PATIENT_STUDY_ONLY_FIND = "1.2.840.10008.5.1.4.1.2.3.1"

CALLING = "TESTSCU"
CALLED = "PACS"
_TIMEOUT_SECONDS = 30


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for something that another thread does; fail when it does not happen.

    A peer has its answer before the thread that gave it has logged, counted and recorded it.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


# The archive as an SCP


class RunningArchive(Protocol):
    """A running SCP and the archive behind it."""

    @property
    def archive(self) -> Archive: ...

    @property
    def port(self) -> int: ...

    def start(self) -> None: ...

    def stop(self) -> int: ...


class StockServer:
    """The archive bound to a stock ``pynetdicom.AE``; starts and stops like ``pacs.server.Server``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def start(self) -> None:
        """Open the archive and listen."""
        settings, options = self._settings, options_of(self._settings)
        self.archive = open_archive(settings)
        remotes = RemoteAEs(self.archive.index, configured_remotes(settings), options.tls)
        access = AccessPolicy(
            remotes,
            allow_any=settings.allow_any,
            verify_calling_host=settings.verify_calling_host,
        )
        self._ae = stock_ae(settings.ae_title)
        self._ae.require_called_aet = options.require_called_ae_title
        self._ae.maximum_associations = options.maximum_associations
        self._ae.supported_contexts = list(message_contexts())
        self._commitments = CommitmentDelivery(
            self.archive, remotes, make_ae(options), options.commitment
        )
        bound = handlers(self.archive, remotes, access, options, self._commitments)
        context = None if settings.tls == "off" else acceptor_context(options.tls)
        self._server = listen(self._ae, bound, settings.ae_title, context=context)
        self.port = int(self._server.server_address[1])
        self._commitments.start()

    def stop(self) -> int:
        """Stop listening and end what is left."""
        stop_listening(self._ae, self._server)
        self._commitments.stop()
        self.archive.close()
        return 0


def is_stock(running: RunningArchive) -> bool:
    """Whether this is the reference and not our engine."""
    return isinstance(running, StockServer)


def engine_associations(server: RunningArchive) -> list[Any]:
    """The acceptor associations of our engine that are alive."""
    assert isinstance(server, Server)
    assert server._running is not None
    return server._running.scp.ae.active_associations


def deposit(archive: Archive, *instances: Dataset, transfer_syntax_uid: str | None = None) -> None:
    """Store instances without a network."""
    for instance in instances:
        syntax = str(transfer_syntax_uid or instance.file_meta.TransferSyntaxUID)
        deposit_bytes(archive, instance, data_set_bytes(instance, syntax), syntax)


def deposit_bytes(
    archive: Archive, instance: Dataset, data: bytes, transfer_syntax_uid: str
) -> None:
    """Store a data set that is already encoded."""
    meta = file_meta(
        instance.SOPClassUID, instance.SOPInstanceUID, transfer_syntax_uid, source_ae=CALLING
    )
    with archive.storage.spool.create(meta) as writer:
        writer.write(data)
        store(archive, writer.finish(), Origin(CALLING, transfer_syntax_uid))


def settled_file(archive: Archive, sop_instance_uid: str) -> Path:
    """The stored file of an instance, for a test that damages or removes it.

    A copy of a small file is in the index until the file has been synced, and the archive would mend it.
    """
    archive.redo.flush()
    stored = archive.index.find_by_uid(sop_instance_uid)
    assert stored is not None
    return archive.storage.path(stored.location)


def fill_index(archive: Archive, studies: int) -> None:
    """Index studies 1.9.0, 1.9.1 and so on, of one instance each, without any file: enough for C-FIND."""
    records = [
        InstanceRecord(
            header=InstanceHeader(
                sop_class_uid=CTImageStorage,
                sop_instance_uid=f"1.9.{number}.1.1",
                series_instance_uid=f"1.9.{number}.1",
                study_instance_uid=f"1.9.{number}",
                transfer_syntax_uid=ExplicitVRLittleEndian,
                values={"PatientID": f"Q-{number}", "Modality": "CT", "StudyDate": "20200101"},
            ),
            location=f"2020/01/01/0000/{number:032x}.dcm",
            data_set_offset=0,
            data_set_size=0,
            digest="0" * 64,
            received_at=datetime(2020, 1, 1, tzinfo=UTC),
            source_ae=CALLING,
        )
        for number in range(studies)
    ]
    archive.index.ingest_batch(records)


def data_set_bytes(instance: Dataset, transfer_syntax_uid: str | None = None) -> bytes:
    """The encoded data set of an instance, without File Meta Information."""
    syntax = str(transfer_syntax_uid or instance.file_meta.TransferSyntaxUID)
    return data_set_of_file(part10(instance, syntax))


def data_set_of_file(file: bytes) -> bytes:
    """What follows the File Meta Information of a DICOM file, which has a group length."""
    return file[144 + int.from_bytes(file[140:144], "little") :]


def stored_bytes(archive: Archive, sop_instance_uid: str) -> bytes:
    """The data set bytes that the archive keeps for an instance."""
    stored = archive.index.find_by_uid(sop_instance_uid)
    assert stored is not None
    with archive.storage.open(stored.location) as stream:
        stream.seek(stored.data_set_offset)
        return stream.read()


def database_url_of(archive: Archive) -> str:
    """The URL of the archive's index, with its password."""
    return archive.index._engine._url.render_as_string(hide_password=False)


def spool_files(archive: Archive) -> list[str]:
    """What is in the spool beside the lock of the running process."""
    return [path.name for path in archive.storage.root.glob("spool/*/*.part")]


def register(archive: Archive, title: str, port: int, **fields: Any) -> None:
    """Make a remote AE on the loopback interface known."""
    services = fields.pop("services", frozenset(Service))
    archive.index.remote_aes.add(
        RemoteAE(title=title, host="127.0.0.1", port=port, services=services, **fields)
    )


# Stock application entities


def stock_ae(title: str) -> pynetdicom.AE:
    """A stock AE whose time-outs suit a test."""
    ae = pynetdicom.AE(title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _TIMEOUT_SECONDS
    ae.connection_timeout = _TIMEOUT_SECONDS
    return ae


def listen(
    ae: pynetdicom.AE,
    bound: Sequence[Any],
    title: str,
    port: int = 0,
    context: ssl.SSLContext | None = None,
) -> ThreadedAssociationServer:
    """Serve on a free port of the loopback interface; quicker to stop than ``AE.start_server``."""
    server = ae.make_server(
        ("127.0.0.1", port),
        title,
        ae.supported_contexts,
        ssl_context=context,
        evt_handlers=list(bound),
        server_class=ThreadedAssociationServer,
    )
    ae._servers.append(server)
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    return server


def stop_listening(ae: pynetdicom.AE, server: ThreadedAssociationServer) -> None:
    """Stop serving; end the associations that are left."""
    with suppress(ValueError):
        server.shutdown()
    for assoc in server.active_associations:
        assoc.abort()
    for assoc in server.active_associations:
        assoc.join(_TIMEOUT_SECONDS)


@contextmanager
def association(
    running: RunningArchive,
    *contexts: str | PresentationContext,
    calling: str = CALLING,
    called: str = CALLED,
    bound: Sequence[Any] = (),
    get: bool = False,
    items: Sequence[Any] = (),
    context: ssl.SSLContext | None = None,
) -> Iterator[Association]:
    """An established association of a stock AE, released at the end unless it has ended.

    With ``get`` the storage contexts are proposed in the SCP role, as C-GET needs it (PS3.4 C.4.3.2).
    ``items`` are further negotiation items.
    """
    assoc = associate(
        running,
        *contexts,
        calling=calling,
        called=called,
        bound=bound,
        get=get,
        items=items,
        context=context,
    )
    assert assoc.is_established, "no association"
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()
        end(assoc)


def associate(
    running: RunningArchive,
    *contexts: str | PresentationContext,
    calling: str = CALLING,
    called: str = CALLED,
    bound: Sequence[Any] = (),
    get: bool = False,
    items: Sequence[Any] = (),
    context: ssl.SSLContext | None = None,
) -> Association:
    """Request an association as a stock AE; it may have been refused. With ``context`` it uses TLS."""
    requested = [build_context(one) if isinstance(one, str) else one for one in contexts]
    roles = []
    if get:
        syntaxes = {str(one.abstract_syntax) for one in requested}
        storage = [one for one in syntaxes if ".5.1.4.1.2." not in one]
        roles = [build_role(one, scp_role=True) for one in storage]
    ae = stock_ae(calling)
    return ae.associate(
        "127.0.0.1",
        running.port,
        contexts=requested,
        ae_title=called,
        ext_neg=[*roles, *items] or None,
        evt_handlers=list(bound) or None,
        tls_args=None if context is None else (context, "127.0.0.1"),
    )


def end(assoc: Association) -> None:
    """Wait for the threads of a requestor's association; close its socket if nobody else did."""
    for thread in (assoc, assoc.dul):
        if thread.ident is not None:  # that of a refused association was never started
            thread.join(_TIMEOUT_SECONDS)
    sock = assoc.dul.socket
    if sock is not None and sock.socket is not None:
        sock.close()


def send_bytes(
    assoc: Association,
    data: bytes,
    sop_class_uid: str,
    sop_instance_uid: str,
    message_id: int = 1,
) -> Dataset:
    """Send a C-STORE request whose data set is ``data`` as it is, on the SOP Class's first context."""
    context = next(one for one in assoc.accepted_contexts if one.abstract_syntax == sop_class_uid)
    return send_on_context(
        assoc, data, int(context.context_id or 0), sop_class_uid, sop_instance_uid, message_id
    )


def send_on_context(
    assoc: Association,
    data: bytes,
    context_id: int,
    sop_class_uid: str,
    sop_instance_uid: str,
    message_id: int = 1,
) -> Dataset:
    """Send a C-STORE request on a certain presentation context."""
    request = C_STORE()
    request.MessageID = message_id
    request.Priority = 2
    request.AffectedSOPClassUID = sop_class_uid
    request.AffectedSOPInstanceUID = sop_instance_uid
    request.DataSet = BytesIO(data)
    assoc._reactor_checkpoint.clear()
    while not assoc._is_paused:
        time.sleep(0.0001)
    try:
        assoc.dimse.send_msg(request, context_id)
        _, response = assoc.dimse.get_msg(block=True)
        return assoc._check_received_status(response)
    finally:
        assoc._reactor_checkpoint.set()


def send(assoc: Association, instance: Dataset, message_id: int = 1) -> Dataset:
    """Send an instance on a context of its own transfer syntax, byte for byte."""
    syntax = instance.file_meta.TransferSyntaxUID
    context_id = next(
        int(one.context_id or 0)
        for one in assoc.accepted_contexts
        if one.abstract_syntax == instance.SOPClassUID and one.transfer_syntax[0] == syntax
    )
    return send_on_context(
        assoc,
        data_set_bytes(instance),
        context_id,
        instance.SOPClassUID,
        instance.SOPInstanceUID,
        message_id,
    )


def identifier(level: str, **keys: object) -> Dataset:
    """A request Identifier."""
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


# Move Destinations


@dataclass(frozen=True, slots=True)
class Received:
    """One C-STORE request that a destination got."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: bytes
    originator_ae: str | None
    originator_id: int | None
    calling_ae: str


Answer = int | Dataset | Callable[[Any], int | Dataset]


@dataclass
class Destination:
    """A programmable storage SCP on a free port of the loopback interface."""

    title: str = "DEST"
    #: What it accepts: (SOP Class, transfer syntax) -> whether. By default everything.
    accepts: Callable[[str, str], bool] = lambda _class, _syntax: True
    #: The answer to every C-STORE without one of its own: a status, or what makes one from the event.
    answer: Answer = 0x0000
    answers: dict[str, Answer] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    established: int = 0
    released: int = 0
    aborted: int = 0
    #: How many contexts each association proposed.
    proposed: list[int] = field(default_factory=list)
    rejects: bool = False
    port: int = 0
    #: For a destination that is called with TLS.
    context: ssl.SSLContext | None = None

    def start(self) -> None:
        """Listen."""
        self._ae = stock_ae(self.title)
        self._ae.require_called_aet = True
        self._ae.supported_contexts = [build_context(VERIFICATION)]
        bound = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ESTABLISHED, self._count, ["established"]),
            (evt.EVT_RELEASED, self._count, ["released"]),
            (evt.EVT_ABORTED, self._count, ["aborted"]),
            (evt.EVT_C_STORE, self._on_store),
        ]
        self._server = listen(self._ae, bound, self.title, self.port, self.context)
        self.port = int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop listening; running associations are aborted."""
        stop_listening(self._ae, self._server)

    @property
    def uids(self) -> list[str]:
        """The SOP Instance UIDs received, in order."""
        return [one.sop_instance_uid for one in self.received]

    def _on_requested(self, event: Any) -> None:
        if self.rejects:
            event.assoc.acse.send_reject(0x01, 0x01, 0x03)
            event.assoc.kill()
            return
        proposed = event.assoc.requestor.primitive.presentation_context_definition_list
        self.proposed.append(len(proposed))
        supported: dict[str, list[str]] = {}
        for context in proposed:
            accepted = [
                str(one)
                for one in context.transfer_syntax
                if self.accepts(str(context.abstract_syntax), str(one))
            ]
            if accepted:
                supported.setdefault(str(context.abstract_syntax), []).extend(accepted)
        event.assoc.acceptor.supported_contexts = [
            build_context(abstract, list(dict.fromkeys(syntaxes)))
            for abstract, syntaxes in supported.items()
        ]

    def _count(self, _event: Any, name: str) -> None:
        setattr(self, name, getattr(self, name) + 1)

    def _on_store(self, event: Any) -> int | Dataset:
        request = event.request
        self.received.append(
            Received(
                str(request.AffectedSOPClassUID),
                str(request.AffectedSOPInstanceUID),
                str(event.context.transfer_syntax),
                request.DataSet.getvalue(),
                _text(request.MoveOriginatorApplicationEntityTitle),
                request.MoveOriginatorMessageID,
                _text(event.assoc.requestor.ae_title) or "",
            )
        )
        answer = self.answers.get(str(request.AffectedSOPInstanceUID), self.answer)
        return answer(event) if callable(answer) else answer


def _text(value: object) -> str | None:
    return None if value is None else str(value).strip()


def closed_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Responses


@dataclass(frozen=True, slots=True)
class Response:
    """One response of a C-FIND, C-MOVE or C-GET."""

    status: int
    identifier: Dataset | None
    comment: str
    offending: tuple[int, ...]
    counters: Mapping[str, int | None]

    @property
    def failed_uids(self) -> list[str]:
        """The Failed SOP Instance UID List."""
        listed = (
            None if self.identifier is None else self.identifier.get("FailedSOPInstanceUIDList")
        )
        if not listed:
            return []
        if isinstance(listed, bytes):  # UN: too long for a UI in explicit VR
            return listed.rstrip(b"\0").decode("ascii").split("\\")
        return [str(listed)] if isinstance(listed, str) else [str(uid) for uid in listed]

    @property
    def counts(self) -> tuple[int | None, ...]:
        """Remaining, completed, failed and warning sub-operations; None for an absent one."""
        return tuple(self.counters.values())


_COUNTERS = ("Remaining", "Completed", "Failed", "Warning")


def responses(answers: Iterator[tuple[Dataset, Dataset | None]]) -> list[Response]:
    """All responses of a pynetdicom ``send_c_*`` generator."""
    return [response(status, identifier) for status, identifier in answers]


def response(status: Dataset, found: Dataset | None) -> Response:
    """One response."""
    assert "Status" in status, "the association ended without a final response"
    offending = status.get("OffendingElement")
    tags = [] if offending is None else offending if _is_many(offending) else [offending]
    return Response(
        int(status.Status),
        found,
        str(status.get("ErrorComment") or ""),
        tuple(int(tag) for tag in tags),
        {name: status.get(f"NumberOf{name}Suboperations") for name in _COUNTERS},
    )


def _is_many(value: object) -> bool:
    return hasattr(value, "append")
