"""Stopping the server: running operations finish, idle associations are aborted, and it takes a bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydicom.uid import CTImageStorage

from pacs.index.index import Index
from pacs.model.retrieves import RetrieveState
from pacs.storage.filesystem import FilesystemStorage
from tests.dimse.retrieving import recorded, store_study, study_query
from tests.factories import make_instance
from tests.peers import (
    STUDY_ROOT_MOVE,
    Destination,
    RunningArchive,
    association,
    data_set_bytes,
    register,
    responses,
    wait_until,
)
from tests.serving import Serve, engine_on_sqlite
from tests.wire.wire import ABORT, EXPLICIT, Wire, message, store_command

pytestmark = pytest.mark.timeout(60)


@engine_on_sqlite
def test_stop_lets_a_running_store_finish(
    service: RunningArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_storing, go_on = threading.Event(), threading.Event()
    place = FilesystemStorage.place

    def slow_place(storage: FilesystemStorage, spooled: Any) -> str:
        is_storing.set()
        assert go_on.wait(5)
        return place(storage, spooled)

    monkeypatch.setattr(FilesystemStorage, "place", slow_place)
    instance = make_instance()
    uid = str(instance.SOPInstanceUID)
    url = service.archive.index._engine._url.render_as_string(hide_password=False)
    cut_off: list[int] = []

    with Wire(service.port) as peer:
        peer.associate({1: (str(CTImageStorage), EXPLICIT)})
        peer.send(message(1, store_command(str(CTImageStorage), uid), data_set_bytes(instance)))
        assert is_storing.wait(5)
        stopping = threading.Thread(target=lambda: cut_off.append(service.stop()))
        stopping.start()
        time.sleep(0.1)
        go_on.set()
        answer = peer.answer()
        ending = peer.ends()
    stopping.join(5)

    assert answer["Status"] == 0x0000
    assert ending == ABORT
    assert cut_off == [0]
    assert _is_indexed(url, uid)


def _is_indexed(url: str, uid: str) -> bool:
    index = Index.open(url, upgrade=False)
    try:
        return index.find_by_uid(uid) is not None
    finally:
        index.close()


@engine_on_sqlite
def test_stop_lets_a_running_move_finish(
    service: RunningArchive, start_destination: Callable[..., Destination]
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 5)
    stopping = threading.Thread(target=service.stop)

    def stop_server(_event: Any) -> int:
        stopping.start()
        time.sleep(0.1)
        return 0x0000

    destination.answers = {uids[1]: stop_server}

    with association(service, STUDY_ROOT_MOVE) as assoc:
        found = responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))
        wait_until(lambda: assoc.is_aborted)
    stopping.join(5)

    assert found[-1].status == 0x0000
    assert destination.uids == uids
    assert not stopping.is_alive()


@engine_on_sqlite
def test_stop_aborts_idle_associations_at_once(service: RunningArchive) -> None:
    with Wire(service.port) as first, Wire(service.port) as second:
        first.associate()
        second.associate()
        started = time.monotonic()
        stopping = threading.Thread(target=service.stop)
        stopping.start()

        assert (first.ends(), second.ends()) == (ABORT, ABORT)
        first.sock.close()
        second.sock.close()
        stopping.join(5)

    assert time.monotonic() - started < 2


@engine_on_sqlite
def test_stop_does_not_wait_for_ever_for_an_operation(
    serve: Serve, start_destination: Callable[..., Destination]
) -> None:
    service = serve(drain_timeout_seconds=0.3)
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 2)
    go_on = threading.Event()
    destination.answers = {uids[0]: lambda _event: 0x0000 if go_on.wait(5) else 0xC000}

    with association(service, STUDY_ROOT_MOVE) as assoc:
        generator = assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE)
        next(generator)
        wait_until(lambda: destination.received)
        started = time.monotonic()
        cut_off = service.stop()
        took = time.monotonic() - started
        go_on.set()
        assoc.abort()

    assert cut_off == 1
    assert took < 2


@engine_on_sqlite
def test_stopped_server_refuses_connections(service: RunningArchive) -> None:
    port = service.port
    service.stop()

    with pytest.raises(ConnectionRefusedError):
        Wire(port)


@engine_on_sqlite
def test_retrieve_that_was_running_at_stop_is_recorded_as_finished(
    serve: Serve, start_destination: Callable[..., Destination]
) -> None:
    service = serve()
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 3)
    stopping = threading.Thread(target=service.stop)

    def stop_server(_event: Any) -> int:
        stopping.start()
        return 0x0000

    destination.answers = {uids[0]: stop_server}
    with association(service, STUDY_ROOT_MOVE) as assoc:
        responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))
    stopping.join(5)

    again = serve()
    record, operations = recorded(again)

    assert record.state is RetrieveState.FINISHED
    assert len(operations) == 3
