from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from pacs.archive.archive import Archive
from pacs.archive.receive import OPERATOR, open_reception
from pacs.dicom.sop_classes import EXPLICIT_VR_LITTLE_ENDIAN
from pacs.dimse.access import Rights
from pacs.errors import (
    IncompleteInstance,
    InstanceMismatch,
    InvalidInstance,
    LimitExceeded,
    NotAuthorised,
)
from pacs.model.instances import IngestOutcome, Origin
from pacs.model.remote_ae import Service
from pacs.storage.spool import SpoolLimits
from tests.archive.holdings import contents, make_slice
from tests.peers import data_set_bytes, spool_files, stored_bytes

SLICE = make_slice(1)
DATA = data_set_bytes(SLICE, EXPLICIT_VR_LITTLE_ENDIAN)
ORIGIN = Origin(
    "CT1", EXPLICIT_VR_LITTLE_ENDIAN, SLICE.SOPClassUID, SLICE.SOPInstanceUID, is_announced=True
)


@pytest.fixture(autouse=True)
def spool_is_empty_afterwards(archive: Archive) -> Iterator[None]:
    yield
    assert spool_files(archive) == []


def test_what_is_committed_is_stored_with_the_bytes_that_were_written(archive: Archive) -> None:
    with open_reception(archive, ORIGIN, OPERATOR) as reception:
        for begin in range(0, len(DATA), 100):
            reception.write(memoryview(DATA)[begin : begin + 100])
        outcome = reception.commit()

    assert (outcome.outcome, outcome.size_bytes) == (IngestOutcome.STORED, len(DATA))
    assert stored_bytes(archive, SLICE.SOPInstanceUID) == DATA


def test_who_may_not_store_writes_nothing(archive: Archive) -> None:
    rights = Rights("CT1", "127.0.0.1", frozenset({Service.FIND}))

    with pytest.raises(NotAuthorised, match="CT1 may not store here"):
        open_reception(archive, ORIGIN, rights)

    assert contents(archive.index) == []


def test_what_is_not_committed_leaves_nothing(archive: Archive) -> None:
    with open_reception(archive, ORIGIN, OPERATOR) as reception:
        reception.write(DATA)
        reception.finish()

    reception.discard()
    assert contents(archive.index) == []


def test_longest_instance_holds_for_every_reception(archive: Archive) -> None:
    archive.storage.spool.limit(SpoolLimits(instance_bytes=len(DATA) - 1))

    with (
        open_reception(archive, ORIGIN, OPERATOR) as reception,
        pytest.raises(LimitExceeded, match=f"longer than {len(DATA) - 1} bytes"),
    ):
        reception.write(DATA)

    assert contents(archive.index) == []


@pytest.mark.parametrize(
    ("data", "origin", "error"),
    [
        (DATA[:-3], ORIGIN, IncompleteInstance),
        (DATA, dataclasses.replace(ORIGIN, sop_instance_uid="9.9"), InstanceMismatch),
        (b"no data set", ORIGIN, InvalidInstance),
    ],
    ids=["cut off", "another instance", "no data set"],
)
def test_what_is_refused_leaves_nothing(
    archive: Archive, data: bytes, origin: Origin, error: type[Exception]
) -> None:
    with open_reception(archive, origin, OPERATOR) as reception:
        reception.write(data)
        with pytest.raises(error):
            reception.commit()

    assert contents(archive.index) == []


def test_what_nobody_announced_is_known_by_its_own_uids(archive: Archive) -> None:
    origin = dataclasses.replace(ORIGIN, sop_instance_uid="9.9", is_announced=False)

    with open_reception(archive, origin, OPERATOR) as reception:
        reception.write(DATA)
        reception.commit()

    assert stored_bytes(archive, SLICE.SOPInstanceUID) == DATA
