"""Import DICOM files from elsewhere: each is copied into the spool and stored like a received instance.

The data set is kept byte for byte; the File Meta Information is written anew, as for C-STORE, so that all stored
files look alike whatever tool wrote the original. The file outside is only read. Importing again what is stored
already changes nothing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO

from pacs.archive.archive import Archive
from pacs.archive.import_head import read_head
from pacs.archive.import_sources import SOURCE_ERRORS, Candidate, Found, Reason, Refusal, Source
from pacs.archive.receive import OPERATOR, Reception, open_reception
from pacs.dicom.encoding.dicomdir import MEDIA_STORAGE_DIRECTORY
from pacs.dicom.encoding.part10 import FileMeta, read_file_meta, read_identity
from pacs.dicom.sop_classes import is_storage_sop_class
from pacs.errors import (
    DuplicateInstance,
    IndexUnavailable,
    InvalidInstance,
    NotDicom,
    PacsError,
    StorageFull,
    StorageUnavailable,
)
from pacs.model.instances import IngestOutcome, Origin, StoreOutcome

_CHUNK_BYTES = 1024 * 1024
#: Files of one reason, or with one note, that a summary shows.
_SHOWN_FILES = 3


@dataclass(slots=True)
class Summary:
    """What an import has done so far."""

    outcomes: Counter[IngestOutcome] = field(default_factory=Counter)
    #: What nobody expected to be stored.
    skipped: Counter[Reason] = field(default_factory=Counter)
    refused: Counter[Reason] = field(default_factory=Counter)
    #: The first few of each reason.
    examples: dict[Reason, list[Refusal]] = field(default_factory=dict)
    #: What is irregular about instances that were accepted, each with the first few files.
    notes: Counter[str] = field(default_factory=Counter)
    noted: dict[str, list[str]] = field(default_factory=dict)
    #: Of the data sets that were read and accepted, stored before or not.
    size_bytes: int = 0

    @property
    def instances(self) -> int:
        """Instances that are in the archive now, stored before or not."""
        return self.outcomes.total()

    @property
    def done(self) -> int:
        """Everything that was dealt with."""
        return self.instances + self.skipped.total() + self.refused.total()

    def add(self, name: str, result: StoreOutcome | Refusal) -> None:
        """Count what became of one file."""
        if isinstance(result, StoreOutcome):
            self.outcomes[result.outcome] += 1
            self.size_bytes += result.size_bytes
            for note in result.notes:
                self.notes[note] += 1
                names = self.noted.setdefault(note, [])
                if len(names) < _SHOWN_FILES:
                    names.append(name)
        elif result.is_harmless:
            self.skipped[result.reason] += 1
        else:
            self.refused[result.reason] += 1
            examples = self.examples.setdefault(result.reason, [])
            if len(examples) < _SHOWN_FILES:
                examples.append(result)


class Import:
    """One run over what ``import_sources.scan`` finds, with several threads.

    The threads take turns at the scan and then read, store and wait for the disk side by side; the index commits
    for all that wait. So the scan is never ahead by more than the threads, and nothing queues up.
    """

    def __init__(
        self,
        archive: Archive,
        found: Iterator[Found],
        *,
        source_ae: str,
        on_refused: Callable[[Refusal], None] | None = None,
    ) -> None:
        """Prepare a run; ``on_refused`` is called for each refusal, by one thread at a time."""
        self.summary = Summary()
        self._archive = archive
        self._found = found
        self._source_ae = source_ae
        self._on_refused = on_refused
        self._scan_turn = threading.Lock()
        self._summary_turn = threading.Lock()
        self._is_stopping = threading.Event()

    def run(
        self,
        jobs: int,
        on_tick: Callable[[Summary], None] = lambda _: None,
        tick_seconds: float = 0.1,
    ) -> None:
        """Import everything, and call ``on_tick`` at intervals, in this thread.

        An exception in this thread, KeyboardInterrupt included, ends the run cleanly: what is being stored is
        stored, nothing else is begun. ``summary`` is complete either way.

        Raises:
            StorageFull, StorageUnavailable, IndexUnavailable: the archive cannot store anything any more.
        """
        with ThreadPoolExecutor(jobs, "import") as pool:
            workers = [pool.submit(self._work) for _ in range(jobs)]
            try:
                while wait(workers, tick_seconds).not_done:
                    on_tick(self.summary)
            finally:
                self._is_stopping.set()
        for worker in workers:
            worker.result()

    def _work(self) -> None:
        try:
            while not self._is_stopping.is_set() and (found := self._next()) is not None:
                if isinstance(found, Candidate):
                    result = import_candidate(self._archive, found, self._source_ae)
                    self._add(found.name, result)
                else:
                    self._add(found.name, found)
        finally:
            # Whatever ended this thread ends the run.
            self._is_stopping.set()

    def _next(self) -> Found | None:
        with self._scan_turn:
            return next(self._found, None)

    def _add(self, name: str, result: StoreOutcome | Refusal) -> None:
        with self._summary_turn:
            self.summary.add(name, result)
            if self._on_refused and isinstance(result, Refusal) and not result.is_harmless:
                self._on_refused(result)


def import_candidate(
    archive: Archive, candidate: Candidate, source_ae: str
) -> StoreOutcome | Refusal:
    """Store one file, or say why not.

    Raises:
        StorageFull, StorageUnavailable, IndexUnavailable: as for ``store``.
    """
    name = candidate.name
    try:
        with _readable():
            stream = candidate.open()
        with closing(stream):
            received = _receive(archive, candidate, stream, source_ae)
        return received if isinstance(received, Refusal) else received.commit()
    except _Unreadable as error:
        return Refusal(name, Reason.UNREADABLE, str(error))
    except DuplicateInstance:
        return Refusal(name, Reason.DIFFERENT)
    except (StorageFull, StorageUnavailable, IndexUnavailable):
        # The archive's own trouble: the next file would meet it too.
        raise
    except PacsError as error:
        return Refusal(name, Reason.INVALID, error.message)


class _Unreadable(Exception):
    """The file outside cannot be read; the archive is not to blame."""


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except SOURCE_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise _Unreadable(reason or str(error) or type(error).__name__) from error


def _read(stream: Source, size: int) -> bytes:
    with _readable():
        return stream.read(size)


def _receive(
    archive: Archive, candidate: Candidate, stream: Source, source_ae: str
) -> Reception | Refusal:
    head = read_head(partial(_read, stream))
    try:
        meta = read_file_meta(BytesIO(head))
    except NotDicom as error:
        is_harmless = not candidate.is_named
        return Refusal(candidate.name, Reason.NOT_DICOM, error.message, is_harmless=is_harmless)
    if meta.sop_class_uid == MEDIA_STORAGE_DIRECTORY:
        # In a folder its files are found anyway; one that was named is taken apart by the scan.
        return Refusal(candidate.name, Reason.DICOMDIR, is_harmless=True)
    sop_class_uid, sop_instance_uid = _identity(head, meta)
    if not is_storage_sop_class(sop_class_uid):
        return Refusal(candidate.name, Reason.NOT_STORAGE, sop_class_uid)
    origin = Origin(source_ae, meta.transfer_syntax_uid, sop_class_uid, sop_instance_uid)
    reception = open_reception(archive, origin, OPERATOR)
    try:
        reception.write(memoryview(head)[meta.data_set_offset :])
        while chunk := _read(stream, _CHUNK_BYTES):
            reception.write(chunk)
        reception.finish()
    except BaseException:
        reception.discard()
        raise
    return reception


def _identity(head: bytes, meta: FileMeta) -> tuple[str, str]:
    # Tools that give a data set new UIDs often leave the File Meta Information as it was: the data set is right.
    try:
        found = read_identity(BytesIO(head), meta.transfer_syntax_uid, meta.data_set_offset)
    except InvalidInstance:
        found = ("", "")
    return found[0] or meta.sop_class_uid, found[1] or meta.sop_instance_uid
