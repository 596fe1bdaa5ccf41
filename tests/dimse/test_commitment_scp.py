"""Storage Commitment Push Model SCP (PS3.4 J) with stock pynetdicom as the SCU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)
from pynetdicom.presentation import build_context

from pacs.archive.commitment import check
from pacs.dicom.storage_commitment import SOP_CLASS_UID
from pacs.model.commitments import CommitmentState
from pacs.model.remote_ae import Service
from tests.dimse.committing import ScriptedSCU, action_information, request_commitment, wait_for
from tests.factories import make_instance
from tests.peers import VERIFICATION, RunningArchive, association, deposit, register, settled_file
from tests.serving import Serve, engine_on_sqlite, engine_only

_UNKNOWN = "1.2.3.4.999"


def _deposit(running: RunningArchive, count: int = 1) -> list[tuple[str, str]]:
    instances = [make_instance() for _ in range(count)]
    deposit(running.archive, *instances)
    return [(one.SOPClassUID, one.SOPInstanceUID) for one in instances]


def _state(running: RunningArchive) -> CommitmentState:
    return running.archive.index.commitments.all()[0].state


@engine_only
def test_report_comes_on_the_association_of_the_request(service: RunningArchive) -> None:
    """PS3.4 J.3.3: Event Type 1, all references, the Retrieve AE Title."""
    scu = ScriptedSCU()
    stored = _deposit(service, 3)
    information = action_information(stored)

    with scu.calling(service) as assoc:
        status = request_commitment(assoc, information)
        report = scu.next()

    assert status.Status == 0x0000
    assert (report.event_type, report.failed) == (1, {})
    assert report.transaction_uid == information.TransactionUID
    assert report.committed == [uid for _, uid in stored]
    assert report.information.RetrieveAETitle == "PACS"
    assert "FailedSOPSequence" not in report.information
    assert not report.on_other_association
    wait_for(lambda: _state(service) is CommitmentState.REPORTED)


def test_report_comes_on_an_association_of_the_archive_once_the_scu_has_released(
    service: RunningArchive,
) -> None:
    """PS3.4 J.3.3, PS3.7 D.3.3.4: the archive proposes the SCP role."""
    # A report that crosses the release is not acknowledged, and comes again.
    scu = ScriptedSCU(answer=lambda event: 0x0000 if event.assoc.is_acceptor else 0x0110)
    stored = _deposit(service, 2)

    with scu.listening() as port:
        register(service.archive, scu.title, port)
        with scu.calling(service) as assoc:
            status = request_commitment(assoc, action_information(stored))
        report = scu.next()
        while not report.on_other_association:
            report = scu.next()
        wait_for(lambda: _state(service) is CommitmentState.REPORTED)

    assert status.Status == 0x0000
    assert report.event_type == 1
    assert report.committed == [uid for _, uid in stored]


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
    ids=["implicit", "explicit", "big endian", "deflated"],
)
@engine_on_sqlite
def test_every_transfer_syntax_of_the_context(service: RunningArchive, syntax: str) -> None:
    scu = ScriptedSCU()
    stored = _deposit(service)

    with association(service, build_context(SOP_CLASS_UID, syntax), bound=scu.bound) as assoc:
        status = request_commitment(
            assoc, action_information([*stored, (CTImageStorage, _UNKNOWN)])
        )
        report = scu.next()

    assert status.Status == 0x0000
    assert report.committed == [stored[0][1]]
    assert report.failed == {_UNKNOWN: 0x0112}


@engine_only
def test_each_failure_has_its_reason(service: RunningArchive) -> None:
    """PS3.3 C.14.1.1, PS3.4 J.3.3: Event Type 2; what is sound is committed all the same."""
    scu = ScriptedSCU()
    stored = _deposit(service, 5)
    sound, other_class, damaged, missing, longer = (uid for _, uid in stored)
    damaged_file = settled_file(service.archive, damaged)
    content = bytearray(damaged_file.read_bytes())
    content[-1] ^= 0x01
    damaged_file.write_bytes(bytes(content))
    settled_file(service.archive, missing).unlink()
    with settled_file(service.archive, longer).open("ab") as stream:
        stream.write(b"\0\0")
    references = [
        (CTImageStorage, sound),
        (MRImageStorage, other_class),
        (CTImageStorage, damaged),
        (CTImageStorage, missing),
        (CTImageStorage, longer),
        (CTImageStorage, _UNKNOWN),
        (SOP_CLASS_UID, "1.2.3.4.998"),
    ]

    with scu.calling(service) as assoc:
        request_commitment(assoc, action_information(references))
        report = scu.next()

    assert report.event_type == 2
    assert report.committed == [sound]
    assert report.failed == {
        other_class: 0x0119,
        damaged: 0x0110,
        missing: 0x0112,
        longer: 0x0110,
        _UNKNOWN: 0x0112,
        "1.2.3.4.998": 0x0122,
    }
    key = service.archive.index.commitments.all()[0].key
    recorded = service.archive.index.commitments.references(key)
    assert [one.failure_reason for one in recorded] == [
        None, 0x0119, 0x0110, 0x0112, 0x0110, 0x0112, 0x0122,
    ]  # fmt: skip


@engine_on_sqlite
def test_instance_whose_file_is_not_synced_yet_is_committed(service: RunningArchive) -> None:
    """It is durable: its bytes are in the index until its file is on the disk."""
    scu = ScriptedSCU()
    service.archive.redo.close()
    service.archive.redo._start = lambda: None
    stored = _deposit(service)
    waiting = service.archive.index.redo.locations()

    with scu.calling(service) as assoc:
        request_commitment(assoc, action_information(stored))
        report = scu.next()

    assert len(waiting) == 1
    assert report.committed == [stored[0][1]]


@engine_on_sqlite
def test_reference_that_occurs_twice_is_reported_once(service: RunningArchive) -> None:
    scu = ScriptedSCU()
    stored = _deposit(service)

    with scu.calling(service) as assoc:
        request_commitment(assoc, action_information(stored * 3))
        report = scu.next()

    assert report.committed == [stored[0][1]]


@engine_on_sqlite
def test_requests_and_reports_of_one_association_do_not_mix(service: RunningArchive) -> None:
    """Each request is answered and each report acknowledged, whatever crosses."""
    scu = ScriptedSCU()
    stored = _deposit(service, 60)
    uids = {f"1.2.826.{number}" for number in range(8)}

    with scu.calling(service) as assoc:
        statuses = [
            request_commitment(assoc, action_information(stored, uid), msg_id=number).Status
            for number, uid in enumerate(sorted(uids), 1)
        ]
        reports = [scu.next() for _ in uids]

    assert statuses == [0x0000] * 8
    assert {report.transaction_uid for report in reports} == uids
    assert all(len(report.committed) == 60 for report in reports)


@engine_on_sqlite
def test_peer_is_served_while_its_instances_are_checked(
    service: RunningArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    scu = ScriptedSCU()
    stored = _deposit(service)
    echoed = threading.Event()

    def slow_check(archive: Any, key: int) -> Iterator[None]:
        while not echoed.is_set():
            yield
        yield from check(archive, key)

    monkeypatch.setattr("pacs.dimse.commitment_scp.check", slow_check)
    with association(service, SOP_CLASS_UID, VERIFICATION, bound=scu.bound) as assoc:
        assoc.dimse_timeout = 5
        request_commitment(assoc, action_information(stored))
        status = assoc.send_c_echo()
        echoed.set()
        report = scu.next()

    assert status.Status == 0x0000
    assert report.committed == [stored[0][1]]


# What is refused (PS3.7 10.1.4.1.10)


@pytest.mark.parametrize(
    ("options", "status", "comment"),
    [
        ({"action_type": 2}, 0x0123, "No Action Type 2"),
        ({"instance_uid": "1.2.3"}, 0x0112, "well-known"),
    ],
    ids=["action type", "instance"],
)
def test_command_set_is_checked(
    service: RunningArchive, options: dict[str, Any], status: int, comment: str
) -> None:
    with ScriptedSCU().calling(service) as assoc:
        answer = request_commitment(
            assoc, action_information([(CTImageStorage, _UNKNOWN)]), **options
        )

    assert answer.Status == status
    assert comment in answer.ErrorComment
    assert service.archive.index.commitments.all() == []


@engine_on_sqlite
def test_requested_sop_class_that_is_not_that_of_the_context(service: RunningArchive) -> None:
    with ScriptedSCU().calling(service) as assoc:
        answer = request_commitment(
            assoc,
            action_information([(CTImageStorage, _UNKNOWN)]),
            class_uid=CTImageStorage,
            meta_uid=SOP_CLASS_UID,
        )

    assert (answer.Status, answer.ErrorComment) == (
        0x0118,
        "Requested SOP Class UID is another one",
    )


def _without(keyword: str) -> Dataset:
    information = action_information([(CTImageStorage, "1.2.3"), (CTImageStorage, "1.2.4")])
    if keyword in information:
        del information[keyword]
    else:
        del information.ReferencedSOPSequence[1][keyword]
    return information


def _with(keyword: str, value: Any) -> Dataset:
    information = action_information([(CTImageStorage, "1.2.3"), (CTImageStorage, "1.2.4")])
    target = information if keyword in information else information.ReferencedSOPSequence[1]
    setattr(target, keyword, value)
    return information


@pytest.mark.filterwarnings("ignore:.*UID.*:UserWarning")
@pytest.mark.parametrize(
    ("information", "comment"),
    [
        (None, "no Action Information"),
        (_without("TransactionUID"), "Transaction UID (0008,1195) is missing"),
        (_with("TransactionUID", ""), "Transaction UID (0008,1195) is missing"),
        (_without("ReferencedSOPSequence"), "Referenced SOP Sequence (0008,1199) has no Item"),
        (_with("ReferencedSOPSequence", []), "Referenced SOP Sequence (0008,1199) has no Item"),
        (_without("ReferencedSOPClassUID"), "Item 2: Referenced SOP Class UID missing"),
        (_without("ReferencedSOPInstanceUID"), "Item 2: Referenced SOP Instance UID missing"),
        (_with("ReferencedSOPInstanceUID", ""), "Item 2: Referenced SOP Instance UID missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_action_information_is_checked(
    service: RunningArchive, information: Dataset | None, comment: str
) -> None:
    """PS3.4 Table J.3-1: each Attribute of type 1; the answer says which one."""
    with ScriptedSCU().calling(service) as assoc:
        answer = request_commitment(assoc, information)

    assert answer.Status == 0x0115
    assert comment in answer.ErrorComment
    assert service.archive.index.commitments.all() == []


@engine_on_sqlite
def test_more_references_than_the_limit_are_refused(
    service: RunningArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs.dicom.storage_commitment.MAX_REFERENCES", 10)
    references = [(CTImageStorage, f"1.2.{number}") for number in range(11)]

    with ScriptedSCU().calling(service) as assoc:
        answer = request_commitment(assoc, action_information(references))

    assert answer.Status == 0x0213


def test_ae_without_the_right_is_refused(service: RunningArchive) -> None:
    register(service.archive, "TESTSCU", 104, services=frozenset({Service.STORE}))

    with ScriptedSCU().calling(service) as assoc:
        answer = request_commitment(assoc, action_information([(CTImageStorage, _UNKNOWN)]))

    assert (answer.Status, answer.ErrorComment) == (0x0124, "TESTSCU may not commit here")


@engine_only
def test_transaction_uid_in_use_fails_every_reference(serve: Serve) -> None:
    """PS3.3 C.14.1.1, 0x0131: in use as long as the first request is not reported on."""
    service = serve(commitment_retry_seconds=600)
    first, second = ScriptedSCU(answer=0x0110), ScriptedSCU()
    stored = _deposit(service)
    information = action_information(stored)
    register(service.archive, first.title, 1)  # nobody listens there
    with first.calling(service) as assoc:
        request_commitment(assoc, information)
        first.next()
    wait_for(lambda: service.archive.index.commitments.all()[0].attempts == 1)

    with second.calling(service) as assoc:
        status = request_commitment(assoc, information)
        report = second.next()

    assert status.Status == 0x0000
    assert report.failed == {stored[0][1]: 0x0131}
    assert report.committed == []


@engine_on_sqlite
def test_n_get_is_no_operation_of_this_sop_class(service: RunningArchive) -> None:
    with ScriptedSCU().calling(service) as assoc:
        status, _ = assoc.send_n_get([], SOP_CLASS_UID, "1.2.3")

    assert status.Status == 0x0211
