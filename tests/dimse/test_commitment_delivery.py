"""Reports of storage commitment on associations of the archive's own (PS3.4 J.3.3)."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import CTImageStorage

from pacs.dimse.commitment_delivery import RetryPolicy
from pacs.index.index import Index
from pacs.model.commitments import CommitmentRecord, CommitmentRequest, CommitmentState
from pacs.model.remote_ae import RemoteAE
from pacs.server import Server
from tests.certificates import Authority, server_context
from tests.dimse.committing import ScriptedSCU, action_information, request_commitment, wait_for
from tests.factories import make_instance
from tests.peers import RunningArchive, deposit, register
from tests.serving import Serve, engine_on_sqlite, engine_only, settings
from tests.wire.scripted import ScriptedAcceptor, accept


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


def test_ae_that_is_not_registered_gets_no_association(serve: Serve) -> None:
    service = serve(commitment_retries=0)
    scu = _refuse_here(ScriptedSCU(title="STRANGER"))

    _ask(service, scu)
    wait_for(lambda: _record(service).state is CommitmentState.UNDELIVERABLE)

    assert _record(service).comment == "STRANGER is not a registered AE"


@engine_only
def test_ae_that_is_registered_later_gets_its_report(serve: Serve) -> None:
    service = serve(commitment_retry_seconds=0.1)
    scu = _refuse_here(ScriptedSCU(title="LATECOMER"))

    _ask(service, scu)
    wait_for(lambda: _record(service).comment == "LATECOMER is not a registered AE")
    with scu.listening() as port:
        register(service.archive, scu.title, port)
        wait_for(lambda: _record(service).state is CommitmentState.REPORTED)


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
        wait_for(lambda: _record(service).state is CommitmentState.REPORTED)

    assert _record(service).attempts == 3


@engine_on_sqlite
def test_report_is_given_up_after_the_last_retry(serve: Serve) -> None:
    service = serve(commitment_retry_seconds=0.1, commitment_retries=2)
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    register(service.archive, "TESTSCU", port)

    _ask(service, _refuse_here(ScriptedSCU()))
    wait_for(lambda: _record(service).state is CommitmentState.UNDELIVERABLE)

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
        wait_for(lambda: _record(service).state is CommitmentState.UNDELIVERABLE)

    assert _record(service).comment == (
        "TESTSCU accepts Storage Commitment, but not with the archive as SCP (role selection: SCU 0, SCP 1)"
    )


@engine_on_sqlite
def test_peer_that_refuses_the_context_for_the_report_is_said_so(serve: Serve) -> None:
    """PS3.7 D.3.3.4: peers that are SCU only may refuse the context instead of the role."""
    service = serve(commitment_retries=0)
    scu = _refuse_here(ScriptedSCU())

    with ScriptedAcceptor(lambda wire, _: accept(wire, result=1)) as peer:
        register(service.archive, scu.title, peer.port)
        _ask(service, scu)
        wait_for(lambda: _record(service).state is CommitmentState.UNDELIVERABLE)

    assert _record(service).comment == (
        "TESTSCU: it refuses the context of Storage Commitment with the archive as SCP "
        "(role selection: SCU 0, SCP 1)"
    )


@engine_on_sqlite
def test_peer_that_never_answers_costs_one_time_out(serve: Serve) -> None:
    service = serve(commitment_retries=0, acse_timeout_seconds=0.5)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        register(service.archive, "TESTSCU", silent.getsockname()[1])
        _ask(service, _refuse_here(ScriptedSCU()))
        wait_for(lambda: _record(service).state is CommitmentState.UNDELIVERABLE)

    assert _record(service).attempts == 1


@engine_on_sqlite
def test_report_that_is_never_answered_costs_one_time_out(serve: Serve) -> None:
    service = serve(commitment_retries=0, dimse_timeout_seconds=0.5)
    over = threading.Event()
    scu = ScriptedSCU(answer=lambda event: 0x0110 if event.assoc.is_requestor else over.wait(15))

    with scu.listening() as port:
        register(service.archive, scu.title, port)
        _ask(service, scu)
        wait_for(lambda: _record(service).state is CommitmentState.UNDELIVERABLE)
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
        wait_for(lambda: _record(service).state is CommitmentState.REPORTED)

    assert scu.next().on_other_association


@engine_only
def test_restart_goes_on_where_the_archive_was_stopped(serve: Serve) -> None:
    service = serve(commitment_retry_seconds=0.1)
    scu = _refuse_here(ScriptedSCU())
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        unused = reserved.getsockname()[1]
    register(service.archive, scu.title, unused)
    _ask(service, scu)
    wait_for(lambda: _record(service).attempts >= 1)
    service.stop()

    with scu.listening() as port:
        again = serve(commitment_retry_seconds=0.1)
        register(again.archive, scu.title, port)
        report = scu.next()
        while not report.on_other_association:
            report = scu.next()
        wait_for(lambda: _record(again).state is CommitmentState.REPORTED)

    assert report.event_type == 1


def test_reports_that_wait_for_one_ae_share_an_association(
    database_url: str, tmp_path: Path
) -> None:
    scu, associations = ScriptedSCU(), []

    def answer(event: Any) -> int:
        associations.append(event.assoc)
        return 0x0000

    scu.answer = answer
    with scu.listening() as port:
        with closing(Index.open(database_url, upgrade=False)) as index:
            index.remote_aes.add(RemoteAE(title=scu.title, host="127.0.0.1", port=port))
            for number in range(3):
                request = CommitmentRequest(
                    transaction_uid=f"1.2.{number}",
                    calling_ae=scu.title,
                    calling_host="127.0.0.1",
                    requested_at=datetime.now(UTC),
                )
                key = index.commitments.begin(request, [(CTImageStorage, "1.2.3")], 0x0131)
                index.commitments.release(key)
        server = Server(settings(tmp_path, database_url=database_url))
        server.start()
        try:
            reported = {scu.next().transaction_uid for _ in range(3)}
            wait_for(
                lambda: all(
                    one.state is CommitmentState.REPORTED
                    for one in server.archive.index.commitments.all()
                )
            )
        finally:
            server.stop()

    assert reported == {"1.2.0", "1.2.1", "1.2.2"}
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
