"""Retrieves beyond what the counters can say, and over interruptions (PS3.4 C.4.2.1.6 to C.4.2.1.9, C.4.2.3.1)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from pacs.archive.archive import Archive
from pacs.dicom.information_model import InformationModel
from pacs.dicom.instance import InstanceHeader
from pacs.dimse import query_scu
from pacs.dimse.ae import Options
from pacs.dimse.peer import Peer
from pacs.model.instances import InstanceRecord
from tests.dimse.retrieving import STUDY, SUCCESS, WARNING, recorded, store_study, study_query
from tests.peers import (
    CALLED,
    STUDY_ROOT_MOVE,
    Destination,
    RunningArchive,
    association,
    register,
    responses,
)
from tests.serving import Serve, engine_on_sqlite

LARGEST_COUNT = 65_535
StartDestination = Callable[..., Destination]


def _index_only(archive: Archive, count: int) -> list[str]:
    """Index MR instances of the study without any file; return their SOP Instance UIDs."""
    uids = [f"{STUDY}.3.{number}" for number in range(1, count + 1)]
    records = [
        InstanceRecord(
            header=InstanceHeader(
                sop_class_uid=MRImageStorage,
                sop_instance_uid=uid,
                series_instance_uid=f"{STUDY}.3",
                study_instance_uid=STUDY,
                transfer_syntax_uid=ExplicitVRLittleEndian,
                values={"PatientID": "P-1", "InstanceNumber": str(number)},
            ),
            location=f"2020/01/01/0000/{number:032x}.dcm",
            data_set_offset=0,
            data_set_size=0,
            digest="0" * 64,
            received_at=datetime(2020, 1, 1, tzinfo=UTC),
            source_ae="TESTSCU",
        )
        for number, uid in enumerate(uids, 1)
    ]
    archive.index.ingest_batch(records)
    return uids


@pytest.mark.slow
@engine_on_sqlite
def test_move_of_more_instances_than_a_counter_can_say_is_carried_out_and_listed_whole(
    serve: Serve, start_destination: StartDestination
) -> None:
    service = serve(pending_interval_responses=20_000, pending_interval_seconds=3600)
    destination = start_destination(accepts=lambda sop_class, _syntax: sop_class == CTImageStorage)
    register(service.archive, "DEST", destination.port)
    accepted = store_study(service, 2)
    refused = _index_only(service.archive, LARGEST_COUNT + 3)

    with association(service, STUDY_ROOT_MOVE) as assoc:
        *pending, final = responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))

    assert destination.uids == accepted
    assert pending[0].counts == (LARGEST_COUNT, 0, 0, 0)
    assert final.status == WARNING
    assert final.counts[1:] == (2, LARGEST_COUNT, 0)
    assert final.failed_uids == refused
    record, operations = recorded(service)
    assert record.outcome is not None
    assert (record.outcome.completed, record.outcome.failed) == (2, LARGEST_COUNT + 3)
    assert len(operations) == LARGEST_COUNT + 5


@engine_on_sqlite
def test_move_originator_is_the_same_on_the_association_of_a_retry(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 6)
    tries: list[str] = []

    def abort_once(event: Any) -> int:
        tries.append("try")
        if len(tries) == 1:
            event.assoc.abort()
        return SUCCESS

    destination.answers = {uids[2]: abort_once}

    with association(service, STUDY_ROOT_MOVE, calling="ASKER") as assoc:
        answers = assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE, msg_id=21)
        *pending, final = responses(answers)

    assert final.status == SUCCESS
    assert final.counts[1:] == (6, 0, 0)
    assert destination.established == 2
    assert destination.uids == [*uids[:3], *uids[2:]]
    assert {(one.originator_ae, one.originator_id) for one in destination.received} == {
        ("ASKER", 21)
    }
    assert all(sum(count or 0 for count in one.counts) == 6 for one in pending)


@engine_on_sqlite
def test_failed_list_too_long_for_a_ui_in_explicit_vr_is_read_by_our_own_scu(
    serve: Serve, start_destination: StartDestination
) -> None:
    # PS3.5 6.2.2: it is written as UN then.
    service = serve()
    destination = start_destination(accepts=lambda sop_class, _syntax: sop_class == CTImageStorage)
    register(service.archive, "DEST", destination.port)
    store_study(service, 1)
    refused = _index_only(service.archive, 5_000)
    peer = Peer(CALLED, "127.0.0.1", service.port)

    *_, final = query_scu.move(Options(), peer, InformationModel.STUDY_ROOT, study_query(), "DEST")

    assert (final.status, final.completed, final.failed) == (WARNING, 1, 5_000)
    assert list(final.failed_uids) == refused
