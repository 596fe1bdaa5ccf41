"""A retrieve while another program keeps all writers of the index out: its record comes later."""

from __future__ import annotations

import logging

import pytest

from pacs.index import journal_writer
from pacs.index.records import RetrieveState
from tests.dimse.retrieving import SUCCESS, Getter, recorded, store_study, study_query
from tests.outages import index_locked
from tests.peers import database_url_of, wait_until
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
        assert running.archive.index.retrieves() == []

    assert outcome.final.status == SUCCESS
    assert outcome.uids == uids
    wait_until(
        lambda: [one.state for one in running.archive.index.retrieves()] == [RetrieveState.FINISHED]
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

    assert running.archive.index.retrieves() == []
    said = (
        "retrieve by TESTSCU: 2 outcomes and its end are not recorded: The index cannot be reached"
    )
    assert [text[: len(said)] for text in caplog.messages if "not recorded:" in text] == [said]
