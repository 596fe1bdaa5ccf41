"""Another program keeps all writers of the index out: a store waits once, the record of a retrieve comes later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.presentation import build_context

from pacs.index import engine, journal_writer
from pacs.index.engine import Engine
from pacs.model.retrieves import RetrieveState
from tests.dimse.retrieving import (
    SUCCESS,
    Getter,
    deposit,
    make_study,
    recorded,
    store_study,
    study_query,
)
from tests.outages import index_locked
from tests.peers import association, database_url_of, send, spool_files, wait_until
from tests.serving import Serve, engine_only


@engine_only
def test_retrieve_while_the_index_is_locked_is_carried_out_and_recorded_afterwards(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_writer, "_PATIENCE_SECONDS", 0.1)
    running, getter = serve(), Getter()
    uids = store_study(running, 3)
    running.archive.redo.flush()  # or the settler waits for the lock too, and keeps SQLite's only writer

    with index_locked(database_url_of(running.archive)):
        outcome = getter.retrieve(running, study_query())
        assert running.archive.index.journal.retrieves() == []

    assert outcome.final.status == SUCCESS
    assert outcome.uids == uids
    wait_until(
        lambda: (
            [one.state for one in running.archive.index.journal.retrieves()]
            == [RetrieveState.FINISHED]
        )
    )
    record, sub_operations = recorded(running)
    assert record.outcome is not None
    assert (record.outcome.status, record.outcome.completed) == (SUCCESS, 3)
    assert [one.sop_instance_uid for one in sub_operations] == uids


@engine_only
def test_records_that_cannot_be_written_are_told_of_when_the_archive_is_closed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal_writer, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("pacs.index.engine._LOCK_TIMEOUT_SECONDS", 0.2)
    running, getter = serve(), Getter()
    store_study(running, 2)
    running.archive.redo.flush()

    with index_locked(database_url_of(running.archive)), caplog.at_level(logging.ERROR, "pacs"):
        getter.retrieve(running, study_query())
        running.archive.index.journal_writer.close()

    assert running.archive.index.journal.retrieves() == []
    said = (
        "retrieve by TESTSCU: 2 outcomes and its end are not recorded: The index cannot be reached"
    )
    assert [text[: len(said)] for text in caplog.messages if "not recorded:" in text] == [said]


@engine_only
def test_store_while_the_index_is_locked_waits_once_and_keeps_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first waits for the lock, and is left what it has not waited yet."""
    monkeypatch.setattr(engine, "_LOCK_TIMEOUT_SECONDS", 2)
    monkeypatch.setattr(engine, "_UNNOTICED_SECONDS", 0)
    running = serve()
    known, *instances = make_study(3)
    deposit(running.archive, known)
    running.archive.redo.flush()
    waits: list[str] = []
    left: list[int] = []
    _record_calls(monkeypatch, "attempt", lambda work: waits.append(work.__module__))
    _record_calls(monkeypatch, "transact", lambda work: waits.append(work.__module__))
    _record_calls(monkeypatch, "_set_patience", lambda _, milliseconds: left.append(milliseconds))

    def stores() -> int:
        return waits.count("pacs.index.ingest")

    with ExitStack() as stack:
        first, second = (
            stack.enter_context(
                association(running, build_context(one.SOPClassUID, ExplicitVRLittleEndian))
            )
            for one in instances
        )
        stack.enter_context(index_locked(database_url_of(running.archive), "instance"))
        sender = stack.enter_context(ThreadPoolExecutor(2))
        sent = [sender.submit(send, first, instances[0])]
        wait_until(lambda: stores() == 1)
        sent.append(sender.submit(send, second, instances[1]))
        refused = [one.result() for one in sent]

    assert [(one.Status, one.ErrorComment) for one in refused] == [
        (0xA700, "The index cannot be reached.")
    ] * 2
    assert stores() == 2
    assert min(left) < 1000
    assert running.archive.index.stats().instances == 1
    assert len(list(running.archive.storage.files())) == 1
    assert spool_files(running.archive) == []


def _record_calls(
    monkeypatch: pytest.MonkeyPatch, name: str, record: Callable[..., object]
) -> None:
    method = getattr(Engine, name)

    def recording(engine: Engine, *arguments: Any, **keywords: Any) -> object:
        record(*arguments)
        return method(engine, *arguments, **keywords)

    monkeypatch.setattr(Engine, name, recording)
