"""Receive one SOP Instance: the only way into the archive, for C-STORE, an import and whoever comes next.

``open_reception`` asks whether the sender may store and opens a sink; the data set is written to it as it arrives, and
``commit`` makes it durable and findable (``pacs.archive.store``). The longest instance and the space that is kept free
hold for every write (``pacs.storage.spool``). What is not committed leaves nothing behind.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Protocol, Self

from pacs.archive.archive import Archive
from pacs.archive.store import store
from pacs.dicom.encoding.part10 import file_meta
from pacs.errors import PacsError
from pacs.model.instances import Origin, StoreOutcome
from pacs.model.remote_ae import Service
from pacs.storage.base import Spooled
from pacs.storage.spool import SpoolWriter

LOGGER = logging.getLogger(__name__)


class Rights(Protocol):
    """What a sender may ask for."""

    def require(self, service: Service) -> None:
        """Check that ``service`` is allowed.

        Raises:
            NotAuthorised: it is not.
        """
        ...


class _Operator:
    def require(self, service: Service) -> None:
        pass


#: Whoever has the archive's own files may store.
OPERATOR: Rights = _Operator()


class Reception:
    """One data set on its way into the archive; a context manager that discards what was not committed.

    Not for use by two threads at once.
    """

    def __init__(self, archive: Archive, origin: Origin, writer: SpoolWriter) -> None:
        self._archive = archive
        self._origin = origin
        self._writer = writer
        self._spooled: Spooled | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()

    def write(self, fragment: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the data set.

        Raises:
            LimitExceeded: it is longer than the longest that is taken.
            StorageFull, StorageUnavailable: it cannot be written.
        """
        self._writer.write(fragment)

    def finish(self) -> None:
        """The last byte is in: give up the open file. ``commit`` does so too.

        Raises:
            StorageFull, StorageUnavailable: not all of it could be written.
        """
        if self._spooled is None:
            self._spooled = self._writer.finish()

    def commit(self) -> StoreOutcome:
        """Make the instance durable and findable; afterwards the reception is over, whatever happened.

        Raises:
            PacsError: as ``pacs.archive.store.store`` says; nothing was stored.
        """
        self.finish()
        spooled, self._spooled = self._spooled, None
        assert spooled is not None
        return store(self._archive, spooled, self._origin)

    def discard(self) -> None:
        """Remove what was written; harmless when it was committed or discarded already."""
        spooled, self._spooled = self._spooled, None
        if spooled is None:
            self._writer.discard()
            return
        try:
            self._archive.storage.spool.discard(spooled)
        except PacsError as error:
            # The next sweep removes it. An answer, or the end of an association, does not fail for that.
            LOGGER.warning("%s stays in the spool: %s", spooled.file_name, error.message)


def open_reception(archive: Archive, origin: Origin, rights: Rights) -> Reception:
    """Begin to receive an instance.

    Raises:
        NotAuthorised: the sender may not store. Before anything is written: it does not fill the disk.
        InvalidInstance: what the instance is announced as cannot be written into a file.
        StorageFull, StorageUnavailable: it cannot be written.
    """
    rights.require(Service.STORE)
    meta = file_meta(
        origin.sop_class_uid,
        origin.sop_instance_uid,
        origin.transfer_syntax_uid,
        source_ae=origin.source_ae,
    )
    return Reception(archive, origin, archive.storage.spool.create(meta))
