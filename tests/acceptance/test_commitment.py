"""Storage commitment of a ``pacs serve`` that is killed, has several workers, or is looked at from the command line."""

from __future__ import annotations

import json
import threading

from tests.acceptance import peers
from tests.acceptance.processes import (
    DEADLINE_SECONDS,
    Processes,
    Serving,
    failed,
    rows,
    succeeded,
)
from tests.dimse.committing import Report, ScriptedSCU, action_information, request_commitment
from tests.factories import make_instance
from tests.peers import wait_until


def _store(serving: Serving, count: int = 2) -> list[tuple[str, str]]:
    instances = [make_instance() for _ in range(count)]
    assert peers.store(serving.peer, *instances) == [0] * count
    return [(one.SOPClassUID, one.SOPInstanceUID) for one in instances]


def _listed(processes: Processes) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = json.loads(
        succeeded(processes.run("commitment", "list", "--json"))
    )
    return listed


def _next_on_other_association(scu: ScriptedSCU) -> Report:
    while not (report := scu.next()).on_other_association:
        pass
    return report


def test_report_comes_after_the_server_was_killed(processes: Processes) -> None:
    """PS3.4 J.3.3: what was accepted is reported, on a new association if need be."""
    serving = processes.serve()
    killed = threading.Event()

    def answer(event: object) -> int:
        if not event.assoc.is_acceptor:  # type: ignore[attr-defined]  # pynetdicom's events are untyped
            killed.wait(DEADLINE_SECONDS)
        return 0x0000

    scu = ScriptedSCU(answer=answer)
    stored = _store(serving)
    with scu.listening() as port:
        succeeded(processes.run("ae", "add", scu.title, "127.0.0.1", str(port)))
        information = action_information(stored)
        with scu.calling(serving) as assoc:
            assert request_commitment(assoc, information).Status == 0x0000
            serving.kill()
            killed.set()
            wait_until(lambda: not assoc.is_established, DEADLINE_SECONDS)
        assert _listed(processes)[0]["state"] in ("requested", "checked")

        processes.serve()
        report = _next_on_other_association(scu)
        wait_until(lambda: _listed(processes)[0]["state"] == "reported", DEADLINE_SECONDS)

    assert report.transaction_uid == information.TransactionUID
    assert (report.event_type, report.committed) == (1, [uid for _, uid in stored])


def test_workers_report_each_transaction_once(processes: Processes) -> None:
    serving = processes.serve("--workers", "3")
    # Refused on its own association, so that the threads of all workers look for it.
    scu = ScriptedSCU(answer=lambda event: 0x0000 if event.assoc.is_acceptor else 0x0110)
    stored = _store(serving)
    requests = [action_information(stored) for _ in range(6)]
    with scu.listening() as port:
        succeeded(processes.run("ae", "add", scu.title, "127.0.0.1", str(port)))
        for information in requests:
            with scu.calling(serving) as assoc:
                assert request_commitment(assoc, information).Status == 0x0000
        reported = [_next_on_other_association(scu).transaction_uid for _ in requests]
        wait_until(
            lambda: {one["state"] for one in _listed(processes)} == {"reported"}, DEADLINE_SECONDS
        )

    assert sorted(reported) == sorted(one.TransactionUID for one in requests)


def test_commitment_list_and_show(processes: Processes) -> None:
    serving = processes.serve()
    scu = ScriptedSCU()
    stored = _store(serving, 1)
    information = action_information([*stored, (stored[0][0], "1.2.3.999")])
    with scu.calling(serving) as assoc:
        request_commitment(assoc, information)
        scu.next()
    wait_until(lambda: _listed(processes)[0]["state"] == "reported", DEADLINE_SECONDS)

    (listed,) = _listed(processes)
    shown = json.loads(succeeded(processes.run("commitment", "show", "1", "--json")))
    printed = succeeded(processes.run("commitment", "show", "1", "--failed"))
    heading, row = rows(succeeded(processes.run("commitment", "list")))

    assert (listed["calling_ae"], listed["attempts"]) == (scu.title, 1)
    assert listed["transaction_uid"] == information.TransactionUID
    assert [one["committed"] for one in shown["references"]] == [True, False]
    assert shown["references"][1]["failure_reason"] == "0112"
    assert "1 (reported)" in printed
    assert "1.2.3.999" in printed
    assert stored[0][1] not in printed
    assert heading[:3] == ["no.", "requested (UTC)", "requested by"]
    assert row[2:4] == [f"{scu.title}@127.0.0.1", "reported"]
    assert "no storage commitment 99" in failed(processes.run("commitment", "show", "99"), 2)
