"""Reports of storage commitment on associations of the archive's own (PS3.4 J.3.3)."""

from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydicom.uid import CTImageStorage

from pacs.dimse.commitment_delivery import RetryPolicy
from pacs.index.records import CommitmentRecord, CommitmentState
from tests.certificates import Authority, server_context
from tests.dimse.committing import ScriptedSCU, action_information, request_commitment
from tests.factories import make_instance
from tests.peers import RunningArchive, deposit, register, wait_until
from tests.serving import Serve, engine_on_sqlite, engine_only


def _record(running: RunningArchive) -> CommitmentRecord:
    return running.archive.index.commitments.all()[0]


def _refuse_here(scu: ScriptedSCU, *, then: int = 0x0000) -> ScriptedSCU:
    """An SCU that takes no report on its own association."""
    scu.answer = lambda event: then if event.assoc.is_acceptor else 0x0110
    return scu


def _ask(running: RunningArchive, scu: ScriptedSCU, count: int = 1) -> None:
    instances = [make_instance() for _ in range(count)]
    deposit(running.archive, *instances)
    with scu.calling(running) as assoc:
        status = request_commitment(
            assoc, action_information([(one.SOPClassUID, one.SOPInstanceUID) for one in instances])
        )
        assert status.Status == 0x0000


def test_ae_that_is_not_registered_gets_no_association(service: RunningArchive) -> None:
    scu = _refuse_here(ScriptedSCU(title="STRANGER"))

    _ask(service, scu)
    wait_until(lambda: _record(service).state is CommitmentState.UNDELIVERABLE)

    assert _record(service).comment == "STRANGER is not a registered AE"


@engine_only
def test_report_is_repeated_until_it_is_acknowledged(serve: Serve) -> None:
    service = serve(commitment_retry_seconds=0.1)
    scu = ScriptedSCU()
    failures = [0x0110, 0x0213]
    scu.answer = lambda event: (
        0x0110 if not event.assoc.is_acceptor else failures.pop() if failures else 0x0000
    )

    with scu.listening() as port:
        register(service.archive, scu.title, port)
        _ask(service, scu)
        wait_until(lambda: _record(service).state is CommitmentState.REPORTED, 15)

    assert _record(service).attempts == 3


@engine_on_sqlite
def test_report_is_given_up_after_the_last_retry(serve: Serve) -> None:
    service = serve(commitment_retry_seconds=0.1, commitment_retries=2)
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    register(service.archive, "TESTSCU", port)

    _ask(service, _refuse_here(ScriptedSCU()))
    wait_until(lambda: _record(service).state is CommitmentState.UNDELIVERABLE, 15)

    assert _record(service).attempts == 3
    assert "TESTSCU" in _record(service).comment


@engine_on_sqlite
def test_peer_that_does_not_accept_the_scp_role_is_not_reported_to(serve: Serve) -> None:
    """PS3.7 D.3.3.4: without the role the archive may not send the request."""
    service = serve(commitment_retries=0)
    scu = _refuse_here(ScriptedSCU(accepts_role=False))

    with scu.listening() as port:
        register(service.archive, scu.title, port)
        _ask(service, scu)
        wait_until(lambda: _record(service).state is CommitmentState.UNDELIVERABLE, 15)

    assert "SCP role" in _record(service).comment


@engine_on_sqlite
def test_peer_that_never_answers_costs_one_time_out(serve: Serve) -> None:
    service = serve(commitment_retries=0, acse_timeout_seconds=0.5)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        register(service.archive, "TESTSCU", silent.getsockname()[1])
        _ask(service, _refuse_here(ScriptedSCU()))
        wait_until(lambda: _record(service).state is CommitmentState.UNDELIVERABLE, 15)

    assert _record(service).attempts == 1


@engine_on_sqlite
def test_report_that_is_never_answered_costs_one_time_out(serve: Serve) -> None:
    service = serve(commitment_retries=0, dimse_timeout_seconds=0.5)
    over = threading.Event()
    scu = ScriptedSCU(answer=lambda event: 0x0110 if event.assoc.is_requestor else over.wait(15))

    with scu.listening() as port:
        register(service.archive, scu.title, port)
        _ask(service, scu)
        wait_until(lambda: _record(service).state is CommitmentState.UNDELIVERABLE, 10)
        over.set()

    assert "did not answer" in _record(service).comment


@engine_on_sqlite
def test_report_goes_out_with_tls(serve: Serve, authority: Authority) -> None:
    service = serve(tls_ca=authority.certificate, commitment_retry_seconds=0.1)
    scu = _refuse_here(ScriptedSCU())
    context = server_context(authority.issue("commitment-scu"))

    with scu.listening(context) as port:
        register(service.archive, scu.title, port)  # without TLS, to be let in without
        with scu.calling(service) as assoc:
            register(service.archive, scu.title, port, tls=True)
            instance = make_instance()
            deposit(service.archive, instance)
            reference = (instance.SOPClassUID, instance.SOPInstanceUID)
            assert request_commitment(assoc, action_information([reference])).Status == 0x0000
            scu.next()
        wait_until(lambda: _record(service).state is CommitmentState.REPORTED, 15)

    assert scu.next().on_other_association


@engine_only
def test_restart_goes_on_where_the_archive_was_stopped(serve: Serve) -> None:
    service = serve(commitment_retry_seconds=0.1)
    scu = _refuse_here(ScriptedSCU())
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        unused = reserved.getsockname()[1]
    register(service.archive, scu.title, unused)
    _ask(service, scu)
    wait_until(lambda: _record(service).attempts >= 1)
    service.stop()

    with scu.listening() as port:
        again = serve(commitment_retry_seconds=0.1)
        register(again.archive, scu.title, port)
        report = scu.next()
        while not report.on_other_association:
            report = scu.next()
        wait_until(lambda: _record(again).state is CommitmentState.REPORTED)

    assert report.event_type == 1


@engine_on_sqlite
def test_reports_that_wait_for_one_ae_share_an_association(serve: Serve) -> None:
    service = serve(commitment_retry_seconds=0.1)
    commitments = service.archive.index.commitments
    scu = _refuse_here(ScriptedSCU())
    associations: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        unused = reserved.getsockname()[1]
    register(service.archive, scu.title, unused)
    for _ in range(3):
        _ask(service, scu)
    wait_until(lambda: all(one.attempts for one in commitments.all()))

    def answer(event: Any) -> int:
        associations.append(event.assoc)
        return 0x0000

    scu.answer = answer
    with scu.listening() as port:
        due_at = datetime.now(UTC) + timedelta(seconds=1.5)
        wait_until(lambda: all(one.due_at < due_at for one in commitments.all()))
        for one in commitments.all():
            commitments.postpone(one.key, due_at, attempts=1, comment="")
        register(service.archive, scu.title, port)
        wait_until(
            lambda: all(one.state is CommitmentState.REPORTED for one in commitments.all()), 15
        )

    assert len(associations) == 3
    assert len({id(assoc) for assoc in associations}) == 1


@pytest.mark.parametrize(
    ("failed", "seconds"), [(1, 30), (2, 60), (5, 480), (12, 21_600), (1_000_000, 21_600)]
)
def test_interval_doubles_up_to_six_hours(failed: int, seconds: int) -> None:
    assert RetryPolicy().interval(failed) == timedelta(seconds=seconds)


@engine_on_sqlite
def test_many_references_are_checked_and_reported(service: RunningArchive) -> None:
    scu = ScriptedSCU()
    references = [(CTImageStorage, f"1.2.826.0.1.{number}") for number in range(5_000)]

    with scu.calling(service) as assoc:
        status = request_commitment(assoc, action_information(references))
        report = scu.next()

    assert status.Status == 0x0000
    assert report.event_type == 2
    assert list(report.failed) == [uid for _, uid in references]
