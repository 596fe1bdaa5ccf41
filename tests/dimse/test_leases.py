"""What a killed process of another container had begun is released while the archive is served; on both backends."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pacs.archive.retry import plan_retry
from pacs.index.leases import Leases
from pacs.model.commitments import CommitmentState
from pacs.model.retrieves import RetrieveState
from tests.dimse.committing import ScriptedSCU
from tests.dimse.retrieving import study_query
from tests.factories import make_instance
from tests.peers import CALLING, RunningArchive, deposit, register, wait_until
from tests.serving import Serve, engine_only

_LEASE_SECONDS = 0.4
#: A process of a container that was made anew, which has a retrieve and a storage commitment transaction.
_ELSEWHERE = """
    import socket, sys
    from datetime import UTC, datetime
    socket.gethostname = lambda: "made-anew"
    from pacs.archive.lease_keeper import LeaseKeeper
    from pacs.index.index import Index
    from pacs.index.journal import RetrieveChange
    from pacs.model.commitments import CommitmentRequest
    from pacs.model.retrieves import RetrieveRequest
    from pacs.model.remote_ae import Service
    url, calling_ae, identifier, sop_class_uid, sop_instance_uid = sys.argv[1:]
    index = Index.open(url, upgrade=False)
    with LeaseKeeper(index, {seconds}, print):
        now = datetime.now(UTC)
        index.journal.write([RetrieveChange(RetrieveRequest(
            calling_ae=calling_ae, calling_host="h", service=Service.MOVE, model="Study Root", level="STUDY",
            identifier=identifier, destination="DEST", message_id=1, started_at=now))])
        index.commitments.begin(
            CommitmentRequest(transaction_uid="1.9", calling_ae=calling_ae, calling_host="h", requested_at=now),
            [(sop_class_uid, sop_instance_uid)], 0x0131)
        print("begun", flush=True)
        sys.stdin.read()
"""


@contextmanager
def _process_elsewhere(url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    script = textwrap.dedent(_ELSEWHERE).format(seconds=_LEASE_SECONDS)
    with subprocess.Popen(
        [sys.executable, "-c", script, url, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()


def _state(running: RunningArchive) -> RetrieveState:
    [record] = running.archive.index.journal.retrieves()
    return record.state


@engine_only
def test_what_a_killed_process_elsewhere_had_begun_is_released_at_run_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps = 0

    def counted(self: Leases, *, by_lease: bool = False) -> object:
        nonlocal sweeps
        sweeps += by_lease
        return sweep(self, by_lease=by_lease)

    sweep = Leases.sweep
    monkeypatch.setattr(Leases, "sweep", counted)
    running = serve(lease_seconds=_LEASE_SECONDS)
    instance = make_instance(StudyInstanceUID="1.2.3")
    deposit(running.archive, instance)
    scu = ScriptedSCU()
    url = running.archive.index._engine._url.render_as_string(hide_password=False)
    asked = json.dumps(study_query("1.2.3").to_json_dict())
    arguments = (CALLING, asked, instance.SOPClassUID, instance.SOPInstanceUID)

    with scu.listening() as port, _process_elsewhere(url, *arguments) as process:
        register(running.archive, CALLING, port)
        before = sweeps
        wait_until(lambda: sweeps > before + 2)
        while_it_lives = _state(running)
        process.kill()
        wait_until(lambda: _state(running) is RetrieveState.INTERRUPTED)
        report = scu.reports.get(timeout=15)

    assert while_it_lives is RetrieveState.RUNNING
    assert (report.transaction_uid, report.committed) == ("1.9", [instance.SOPInstanceUID])
    [commitment] = running.archive.index.commitments.all()
    wait_until(
        lambda: (
            running.archive.index.commitments.get(commitment.key).state is CommitmentState.REPORTED
        )
    )
    [record] = running.archive.index.journal.retrieves()
    assert len(plan_retry(running.archive, record.key).plan.keys) == 1
