"""Storage SCP (PS3.4 Annex B): a data set goes to the spool while it is received, then to the archive."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from pydicom.dataset import Dataset

from pacs.archive.archive import Archive
from pacs.archive.store import Origin, StoreOutcome, store
from pacs.dicom.encoding.part10 import file_meta
from pacs.dicom.uids import shown_uid
from pacs.dimse.negotiation import rights_of
from pacs.dimse.status import DimseService, Status, status_dataset, status_of
from pacs.errors import PacsError
from pacs.model.instances import IngestOutcome
from pacs.model.remote_ae import Service
from pacs.storage.base import Spooled
from pacs.storage.spool import Spool, SpoolWriter

LOGGER = logging.getLogger(__name__)


class SpoolSink:
    """Takes the fragments of one data set into the spool; a failure is kept for the handler.

    After a failure the rest of the message is received and dropped, so that the peer gets its response.
    """

    def __init__(self, spool: Spool, make_meta: Callable[[], bytes]) -> None:
        """Begin with what ``make_meta`` returns; what it raises is a failure like any other."""
        self._writer: SpoolWriter | None = None
        self._spool = spool
        self._spooled: Spooled | None = None
        self._error: PacsError | None = None
        try:
            self._writer = spool.create(make_meta())
        except PacsError as error:
            self._error = error

    def write(self, fragment: memoryview | bytes) -> None:
        """Append a fragment."""
        if self._writer is None:
            return
        try:
            self._writer.write(fragment)
        except PacsError as error:
            self._fail(error)

    def finish(self) -> None:
        """Close the file: it is complete."""
        if self._writer is None:
            return
        try:
            self._spooled = self._writer.finish()
        except PacsError as error:
            self._fail(error)

    def _fail(self, error: PacsError) -> None:
        self._error = error
        self.discard()

    def discard(self) -> None:
        """Remove what was written; harmless when it was handed over already."""
        if self._spooled is not None:
            try:
                self._spool.discard(self._spooled)
            except PacsError as error:
                # The next sweep removes it. An answer, or the end of an association, does not fail for that.
                LOGGER.warning("%s stays in the spool: %s", self._spooled.path, error.message)
        elif self._writer is not None:
            self._writer.discard()
        self._writer = self._spooled = None

    def take(self) -> Spooled:
        """Hand over the complete file.

        Raises:
            PacsError: what went wrong while it was received.
        """
        if self._error is not None:
            raise self._error
        assert self._spooled is not None
        spooled, self._spooled, self._writer = self._spooled, None, None
        return spooled


def open_sink(archive: Archive, assoc: Any, request: Any, context_id: int) -> SpoolSink:
    """Open the sink of a C-STORE request's data set (the engine calls this when the command is in)."""
    context = assoc._accepted_cx[context_id]

    def make_meta() -> bytes:
        # Before anything is written: who may not store does not fill the disk.
        assoc.rights.require(Service.STORE)
        return file_meta(
            str(request.AffectedSOPClassUID or ""),
            str(request.AffectedSOPInstanceUID or ""),
            str(context.transfer_syntax[0]),
            source_ae=str(assoc.requestor.ae_title),
        )

    # Made inside the sink, which keeps the error for the handler: what the peer calls a UID may be none.
    return SpoolSink(archive.storage.spool, make_meta)


def handle_store(event: Any, archive: Archive) -> int | Dataset:
    """Handle ``evt.EVT_C_STORE``: Success means that the instance is durable and findable."""
    started = time.monotonic()
    rights = rights_of(event)
    request = event.request
    uid = str(request.AffectedSOPInstanceUID)
    shown = shown_uid(uid)
    sink = _received(event, archive)
    try:
        rights.require(Service.STORE)
        outcome = store(
            archive,
            sink.take(),
            Origin(
                source_ae=rights.calling_ae,
                transfer_syntax_uid=str(event.context.transfer_syntax),
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=uid,
            ),
        )
    except PacsError as error:
        sink.discard()
        LOGGER.log(error.log_level, "%s: C-STORE of %s refused: %s", rights, shown, error.message)
        return status_of(error, DimseService.STORE)
    LOGGER.info(
        "%s: C-STORE of %s %s: %d bytes in %.3f s",
        rights,
        shown,
        outcome.outcome.value,
        outcome.size_bytes,
        time.monotonic() - started,
    )
    return _status(outcome)


def _received(event: Any, archive: Archive) -> SpoolSink:
    """The data set as the engine spooled it; a stock AE collected it in memory."""
    sink = getattr(event.request, "received", None)
    if sink is None:
        sink = open_sink(archive, event.assoc, event.request, event.request._context_id)
        data = event.request.DataSet  # None if the command set announces none
        sink.write(b"" if data is None else data.getbuffer())
        sink.finish()
    assert isinstance(sink, SpoolSink)
    return sink


def _status(outcome: StoreOutcome) -> int | Dataset:
    if outcome.outcome is IngestOutcome.KEPT:
        # Success would let the sender delete its only copy of bytes that are not here.
        return status_dataset(
            Status.ELEMENTS_DISCARDED, "A different instance with this UID is kept"
        )
    return Status.SUCCESS
