"""Put instances into an archive, and look at what it then holds."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from io import BytesIO

import sqlalchemy as sa
from pydicom.dataset import Dataset

from pacs.archive.archive import Archive
from pacs.archive.check import Checked, Finding, Options, check
from pacs.archive.store import store
from pacs.dicom.encoding.part10 import read_file_meta, read_header
from pacs.index import tables
from pacs.index.index import Index
from pacs.model.instances import DuplicatePolicy, InstanceRecord, Origin, StoreOutcome
from pacs.storage.base import Spooled
from tests.factories import make_instance, part10

#: Nothing is in flight while a test looks.
NO_GRACE = timedelta(0)
EXPLICIT = "1.2.840.10008.1.2.1"


def make_slice(number: int = 1, **keywords: object) -> Dataset:
    """An instance of one study and series that all slices share and agree on."""
    return make_instance(
        **{
            "StudyInstanceUID": "1.2.3",
            "SeriesInstanceUID": "1.2.3.1",
            "SOPInstanceUID": f"1.2.3.1.{number}",
            "FrameOfReferenceUID": "1.2.3.9",
            "InstanceNumber": number,
            **keywords,
        }
    )


def spool(archive: Archive, data: bytes) -> Spooled:
    """A received DICOM file in the spool."""
    offset = read_file_meta(BytesIO(data)).data_set_offset
    with archive.storage.spool.create(data[:offset]) as writer:
        writer.write(data[offset:])
        return writer.finish()


def keep(archive: Archive, instance: Dataset) -> StoreOutcome:
    """Store an instance, and wait until nothing but its file has its bytes."""
    outcome = store(archive, spool(archive, part10(instance)), Origin("CT1", EXPLICIT))
    archive.redo.flush()
    return outcome


def keep_cut_off(archive: Archive, data: bytes) -> str:
    """Store what was cut off, as releases did that read a data set up to its last indexed Attribute; return where."""
    syntax = read_file_meta(BytesIO(data)).transfer_syntax_uid
    spooled = spool(archive, data)
    with spooled.open() as stream:
        header = read_header(stream, syntax, spooled.data_set_offset, may_be_cut=True)
    location = archive.storage.put(spooled)
    archive.index.ingest(
        InstanceRecord(
            header=header,
            location=location,
            data_set_offset=spooled.data_set_offset,
            data_set_size=spooled.data_set_size,
            digest=spooled.digest,
            received_at=datetime.now(UTC),
            source_ae="OLD",
        ),
        DuplicatePolicy.REPLACE,
    )
    return location


def put_orphan(archive: Archive, data: bytes) -> str:
    """Put a file into the storage and not into the index, as a crash between the two does."""
    return archive.storage.put(spool(archive, data))


def location_of(archive: Archive, uid: str) -> str:
    """Where the index says that an instance is."""
    found = archive.index.find_by_uid(uid)
    assert found is not None
    return found.location


def stored_locations(archive: Archive) -> list[str]:
    """The location of every stored file."""
    return [file.location for file in archive.storage.files()]


def contents(index: Index) -> list[tuple[object, ...]]:
    """Everything the index says of every instance and its parents, but for keys, revisions and where and when."""
    bookkeeping = {
        *("id", "revision", "patient_pk", "study_pk", "series_pk"),
        *("location", "received_at"),
    }
    columns = [
        column
        for table in (tables.patient, tables.study, tables.series, tables.instance)
        for column in table.c
        if column.name not in bookkeeping
    ]
    statement = sa.select(*columns).select_from(
        tables.instance.join(tables.series).join(tables.study).join(tables.patient)
    )
    with index._engine.read() as connection:
        return sorted((tuple(row) for row in connection.execute(statement)), key=str)


def look(archive: Archive, **options: object) -> list[Checked]:
    """Everything a deep check finds, in order."""
    chosen: dict[str, object] = {"deep": True, "grace": NO_GRACE} | options
    return list(check(archive, Options(**chosen)))  # type: ignore[arg-type]


def findings(archive: Archive) -> Counter[Finding]:
    """How often a deep check finds what."""
    return Counter(checked.finding for checked in look(archive))
