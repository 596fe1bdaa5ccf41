"""The archive over a storage that is no file system: what the ``Storage`` Protocol asks for is enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.presentation import build_context

from pacs import server
from pacs.archive.archive import Archive
from pacs.archive.check import Finding, Repair
from pacs.archive.reindex import Finding as Reread
from pacs.archive.reindex import reindex
from pacs.storage.spool import SMALL_BYTES
from tests.archive.holdings import contents, findings, location_of, look, put_orphan
from tests.dimse.retrieving import STUDY, Getter, Mover, make_study, study_query, uids_of
from tests.factories import part10
from tests.memory_storage import MemoryStorage
from tests.peers import (
    STUDY_ROOT_FIND,
    Destination,
    RunningArchive,
    association,
    data_set_bytes,
    identifier,
    responses,
    send,
    wait_until,
)
from tests.serving import Serve, engine_only

pytestmark = engine_only

SUCCESS = 0x0000
#: Beyond what is received in memory, so that it has a file in the spool.
LARGE = {"ImageComments": "x" * (SMALL_BYTES // 2), "PatientComments": "y" * (SMALL_BYTES // 2)}


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryStorage:
    """What archives are opened over from now on."""
    storage = MemoryStorage(tmp_path / "beside")
    monkeypatch.setattr(server, "storage_from_url", lambda _: storage)
    return storage


def study() -> list[Dataset]:
    """Two instances that are received in memory and one that is not."""
    return [*make_study(2), *make_study(3, **LARGE)[2:]]


def send_all(running: RunningArchive, instances: list[Dataset]) -> list[int]:
    with association(running, build_context(CTImageStorage, ExplicitVRLittleEndian)) as assoc:
        return [send(assoc, one).Status for one in instances]


def settle(archive: Archive) -> None:
    if archive.log is not None:
        archive.log.wait_until_indexed()
    archive.redo.flush()


@pytest.mark.parametrize("acknowledge_after", ["index", "log"])
def test_what_is_stored_is_found_and_retrieved_as_it_was_sent(
    serve: Serve,
    storage: MemoryStorage,
    start_destination: Callable[..., Destination],
    acknowledge_after: str,
) -> None:
    running, instances = serve(acknowledge_after=acknowledge_after), study()
    mover, getter = Mover(start_destination), Getter()
    mover.prepare(running)

    statuses = send_all(running, instances)
    with association(running, STUDY_ROOT_FIND) as assoc:
        query = identifier("IMAGE", StudyInstanceUID=STUDY, SOPInstanceUID="")
        query.SeriesInstanceUID = f"{STUDY}.1"
        found = responses(assoc.send_c_find(query, STUDY_ROOT_FIND))
    moved, got = (one.retrieve(running, study_query()) for one in (mover, getter))

    assert statuses == [SUCCESS] * 3
    assert sorted(str(one.identifier.SOPInstanceUID) for one in found[:-1]) == uids_of(instances)
    assert moved.uids == got.uids == uids_of(instances)
    assert [one.data for one in moved.received] == [data_set_bytes(one) for one in instances]
    assert [one.data for one in got.received] == [data_set_bytes(one) for one in instances]
    assert findings(running.archive) == {Finding.SOUND: 3}
    # What was placed is made durable a moment later, by the storage itself.
    wait_until(lambda: len(storage.objects) == 3 and not storage.unsettled)


@pytest.mark.parametrize("acknowledge_after", ["index", "log"])
def test_bytes_of_what_is_replaced_are_removed(
    serve: Serve, storage: MemoryStorage, acknowledge_after: str
) -> None:
    running, instances = serve(acknowledge_after=acknowledge_after), study()
    send_all(running, instances)
    settle(running.archive)
    before = set(storage.objects)

    send_all(running, make_study(1, PatientComments="sent again"))
    settle(running.archive)

    location = location_of(running.archive, f"{STUDY}.1.1")
    assert findings(running.archive) == {Finding.SOUND: 3}
    assert set(storage.objects) == before - {min(before)} | {location}
    assert location > max(before)


def test_check_finds_and_mends_what_became_of_the_objects(
    serve: Serve, storage: MemoryStorage
) -> None:
    running = serve()
    archive, instances = running.archive, study()
    send_all(running, instances[1:])
    settle(archive)
    lost, kept = (location_of(archive, uid) for uid in uids_of(instances[1:]))
    orphan = put_orphan(archive, part10(instances[0]))
    superfluous = put_orphan(archive, part10(instances[2]))
    other = put_orphan(archive, part10(make_study(3, ImageComments="another")[2]))
    unreadable = put_orphan(archive, part10(instances[0])[:400])
    del storage.objects[lost]

    looked = {one.location: one.finding for one in look(archive)}
    mended = {one.location: one.repair for one in look(archive, repair=True)}

    assert looked == {
        lost: Finding.MISSING,
        kept: Finding.SOUND,
        orphan: Finding.ORPHAN,
        superfluous: Finding.ORPHAN,
        other: Finding.ORPHAN,
        unreadable: Finding.ORPHAN,
    }
    assert mended == {
        lost: Repair.ROW_REMOVED,
        kept: None,
        orphan: Repair.ADOPTED,
        superfluous: Repair.DUPLICATE_REMOVED,
        other: Repair.QUARANTINED,
        unreadable: Repair.QUARANTINED,
    }
    assert set(storage.objects) == {kept, orphan}
    assert set(storage.aside) == {other, unreadable}
    assert findings(archive) == {Finding.SOUND: 2}


def test_index_is_written_again_from_the_objects(serve: Serve, storage: MemoryStorage) -> None:
    running = serve()
    archive = running.archive
    send_all(running, study())
    settle(archive)
    before = contents(archive.index)
    for uid in uids_of(study()):
        archive.index.remove(uid)

    reread = [one.finding for one in reindex(archive)]

    assert reread == [Reread.ADOPTED] * 3
    assert contents(archive.index) == before
    assert len(storage.objects) == 3
