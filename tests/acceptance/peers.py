"""Peers of the archive under test: a Storage SCU, and a storage SCP for it to move to."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from pacs.dimse.ae import Options, make_ae
from pacs.dimse.peer import Peer
from pacs.wire.association import EngineAssociation

DEADLINE_SECONDS = 60


@contextmanager
def association(peer: Peer) -> Iterator[EngineAssociation]:
    """An association for storing CT instances."""
    ae = make_ae(Options(ae_title="SENDER", dimse_timeout_seconds=DEADLINE_SECONDS))
    contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    assoc = ae.associate(peer.host, peer.port, contexts=contexts, ae_title=peer.title)
    assert assoc.is_established
    try:
        yield assoc
    finally:
        assoc.release()


def store(peer: Peer, *instances: Dataset) -> list[int]:
    """Send instances over one association; the statuses that came back."""
    with association(peer) as assoc:
        return [int(assoc.send_c_store(instance).Status) for instance in instances]


class Destination:
    """A storage SCP that keeps the digests of what it receives, and can be made to wait."""

    title = "DEST"

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        #: Set when an instance has arrived; cleared by nobody.
        self.arrived = threading.Event()
        #: While cleared, nothing is answered.
        self.may_answer = threading.Event()
        self.may_answer.set()
        ae = AE(self.title)
        ae.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
        handlers: list[Any] = [(evt.EVT_C_STORE, self._receive)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None
        self.port = int(server.server_address[1])
        self._ae = ae

    @property
    def remote_aes(self) -> str:
        """Its entry in the setting ``remote_aes``."""
        return f"{self.title}=127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop listening and end its associations."""
        self.may_answer.set()
        self._ae.shutdown()

    def _receive(self, event: Any) -> int:
        self.arrived.set()
        self.may_answer.wait(DEADLINE_SECONDS)
        data_set = event.request.DataSet.getvalue()
        uid = str(event.request.AffectedSOPInstanceUID)
        self.digests[uid] = hashlib.sha256(data_set).hexdigest()
        return 0x0000
