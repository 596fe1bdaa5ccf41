"""What supervisor and worker say to each other, over real sockets."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator

import pytest

from pacs.errors import InvalidInstance, InvalidSetting, PacsError, StorageFull
from pacs.workers.channel import (
    Failed,
    Ready,
    Report,
    Stopped,
    SupervisorEnd,
    SupervisorGone,
    WorkerEnd,
)


@pytest.fixture
def ends() -> Iterator[tuple[SupervisorEnd, WorkerEnd, socket.socket]]:
    supervisor, sock = SupervisorEnd.pair()
    with sock:
        yield supervisor, WorkerEnd(sock), sock
    supervisor.close()


Ends = tuple[SupervisorEnd, WorkerEnd, socket.socket]


def test_connections_arrive_in_order_and_work(ends: Ends) -> None:
    supervisor, worker, _ = ends
    pairs = [socket.socketpair() for _ in range(3)]
    for number, (ours, handed) in enumerate(pairs):
        with ours, handed:
            ours.sendall(bytes((number,)))
            assert supervisor.hand(handed)
    supervisor.stop()

    said = []
    for connection in worker.connections(lambda: None):
        assert connection is not None
        with connection:
            assert connection.getblocking()
            said.append(connection.recv(1))

    assert said == [b"\x00", b"\x01", b"\x02"]


def test_connection_that_finds_no_free_descriptor_is_reported_as_lost(ends: Ends) -> None:
    supervisor, worker, sock = ends
    ours, handed = socket.socketpair()
    with ours, handed:
        supervisor.hand(handed)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # What is open stays open; nothing can be opened.
        resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno(), hard))
        try:
            lost = next(worker.connections(lambda: None))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert lost is None


@pytest.mark.parametrize(
    "report",
    [Ready(), Stopped(3), Failed(InvalidSetting("line\nfeed")), Failed(StorageFull())],
    ids=repr,
)
def test_report_arrives_as_it_was_made(ends: Ends, report: Report) -> None:
    supervisor, worker, _ = ends

    worker.report(report)
    (heard,) = supervisor.reports()

    if isinstance(report, Failed):
        assert isinstance(heard, Failed)
        assert type(heard.error) is type(report.error)
        assert heard.error.message == report.error.message
    else:
        assert heard == report


def test_failure_without_an_exit_code_of_its_own_arrives_as_the_general_one(ends: Ends) -> None:
    supervisor, worker, _ = ends

    worker.report(Failed(InvalidInstance("odd")))
    (heard,) = supervisor.reports()

    assert isinstance(heard, Failed)
    assert (type(heard.error), heard.error.message) == (PacsError, "odd")


def test_report_in_pieces_is_read_when_it_is_whole(ends: Ends) -> None:
    supervisor, _, sock = ends

    sock.sendall(b'{"ready": true}\n{"cut_')
    first = supervisor.reports()
    sock.sendall(b'off": 2}\n')

    assert (first, supervisor.reports()) == ([Ready()], [Stopped(2)])


def test_supervisor_hears_the_end_of_a_worker_after_its_last_report(ends: Ends) -> None:
    supervisor, worker, sock = ends
    supervisor.stop()  # never read by the worker
    worker.report(Stopped(0))
    sock.close()

    heard = supervisor.reports()
    assert (heard, supervisor.is_ended) == ([Stopped(0)], False)
    assert supervisor.reports() == []
    assert supervisor.is_ended


def test_supervisor_without_news_does_not_wait(ends: Ends) -> None:
    supervisor, _, _ = ends

    assert supervisor.reports() == []
    assert not supervisor.is_ended


def test_worker_that_has_ended_takes_no_connection(ends: Ends) -> None:
    supervisor, _, sock = ends
    sock.close()

    with socket.socket() as connection:
        assert not supervisor.hand(connection)
    supervisor.stop()


def test_worker_that_does_not_read_takes_no_connection_at_last(ends: Ends) -> None:
    supervisor, _, _ = ends

    with socket.socket() as connection:
        assert any(not supervisor.hand(connection) for _ in range(100_000))


def test_worker_learns_that_the_supervisor_is_gone(ends: Ends) -> None:
    supervisor, worker, _ = ends
    supervisor.close()

    with pytest.raises(SupervisorGone):
        next(worker.connections(lambda: None))
    with pytest.raises(SupervisorGone):
        worker.report(Ready())
    worker.wait_until_gone()
