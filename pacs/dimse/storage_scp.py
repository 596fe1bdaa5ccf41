"""Storage SCP (PS3.4 Annex B): a data set goes to the spool while it is received, then to the archive."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from pydicom.dataset import Dataset

from pacs.archive.archive import Archive
from pacs.archive.receive import Reception, open_reception
from pacs.dicom.uids import shown_uid
from pacs.dimse.negotiation import rights_of
from pacs.dimse.status import DimseService, Status, status_dataset, status_of
from pacs.errors import PacsError
from pacs.model.instances import IngestOutcome, Origin, StoreOutcome

LOGGER = logging.getLogger(__name__)


class StoreSink:
    """Takes the fragments of one data set into the archive; a failure is kept for the handler.

    After a failure the rest of the message is received and dropped, so that the peer gets its response.
    """

    def __init__(self, begin: Callable[[], Reception]) -> None:
        """Begin as told; what that raises is a failure like any other."""
        self._reception: Reception | None = None
        self._error: PacsError | None = None
        try:
            self._reception = begin()
        except PacsError as error:
            self._error = error

    def write(self, fragment: memoryview | bytes) -> None:
        """Append a fragment."""
        if self._reception is None:
            return
        try:
            self._reception.write(fragment)
        except PacsError as error:
            self._fail(error)

    def finish(self) -> None:
        """The data set is complete."""
        if self._reception is None:
            return
        try:
            self._reception.finish()
        except PacsError as error:
            self._fail(error)

    def _fail(self, error: PacsError) -> None:
        self._error = error
        self.discard()

    def discard(self) -> None:
        """Remove what was written; harmless when it was committed already."""
        reception, self._reception = self._reception, None
        if reception is not None:
            reception.discard()

    def commit(self) -> StoreOutcome:
        """Make the instance durable and findable.

        Raises:
            PacsError: what went wrong while it was received, or does now.
        """
        if self._error is not None:
            raise self._error
        assert self._reception is not None
        return self._reception.commit()


def open_sink(archive: Archive, assoc: Any, request: Any, context_id: int) -> StoreSink:
    """Open the sink of a C-STORE request's data set (the wire calls this when the command is in)."""
    context = assoc._accepted_cx[context_id]

    def begin() -> Reception:
        origin = Origin(
            source_ae=assoc.rights.calling_ae,
            transfer_syntax_uid=str(context.transfer_syntax[0]),
            sop_class_uid=str(request.AffectedSOPClassUID or ""),
            sop_instance_uid=str(request.AffectedSOPInstanceUID or ""),
            is_announced=True,
        )
        return open_reception(archive, origin, assoc.rights)

    # Begun inside the sink, which keeps the error for the handler: what the peer calls a UID may be none.
    return StoreSink(begin)


def handle_store(event: Any) -> int | Dataset:
    """Handle ``evt.EVT_C_STORE``: Success means that the instance is durable and findable.

    The data set is in the sink that the engine opened for it.
    """
    started = time.monotonic()
    rights = rights_of(event)
    shown = shown_uid(str(event.request.AffectedSOPInstanceUID))
    sink: StoreSink = event.request.received
    try:
        outcome = sink.commit()
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


def _status(outcome: StoreOutcome) -> int | Dataset:
    if outcome.outcome is IngestOutcome.KEPT:
        # Success would let the sender delete its only copy of bytes that are not here.
        return status_dataset(
            Status.ELEMENTS_DISCARDED, "A different instance with this UID is kept"
        )
    return Status.SUCCESS
