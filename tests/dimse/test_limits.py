"""Limits that an operator sets end a request honestly: with a status and the reason, never with less (PS3.4 C.4)."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from pydicom.dataset import Dataset

from tests.dimse.retrieving import SUCCESS, Retriever, recorded, store_study, study_query
from tests.outages import index_standstill
from tests.peers import (
    STUDY_ROOT_FIND,
    Destination,
    Response,
    RunningArchive,
    association,
    database_url_of,
    identifier,
    responses,
)
from tests.serving import Serve, engine_only

OUT_OF_RESOURCES, MATCHES_NOT_CALCULATED = 0xA700, 0xA701


def _find(running: RunningArchive, query: Dataset) -> list[Response]:
    with association(running, STUDY_ROOT_FIND) as assoc:
        return responses(assoc.send_c_find(query, STUDY_ROOT_FIND))


@pytest.mark.parametrize(("limit", "is_refused"), [(3, False), (2, True)])
def test_retrieve_of_more_than_retrieve_limit_is_a701_and_sends_nothing(
    serve: Serve, retriever: Retriever, limit: int, is_refused: bool
) -> None:
    service = serve(retrieve_limit=limit)
    retriever.prepare(service)
    uids = store_study(service, 3)

    outcome = retriever.retrieve(service, study_query())

    if not is_refused:
        assert outcome.final.status == SUCCESS
        assert outcome.uids == uids
        return
    assert [one.status for one in outcome.responses] == [MATCHES_NOT_CALCULATED]
    assert outcome.final.comment == "More than 2 instances match: ask for less at a time"
    assert outcome.received == []
    record, operations = recorded(service)
    assert record.outcome is not None
    assert (record.outcome.status, operations) == (MATCHES_NOT_CALCULATED, [])


def test_retrieve_limit_counts_instances_not_studies(
    serve: Serve, start_destination: Callable[..., Destination], retriever: Retriever
) -> None:
    service = serve(retrieve_limit=1)
    retriever.prepare(service)
    uids = store_study(service, 2)
    one = identifier(
        "IMAGE",
        StudyInstanceUID=study_query().StudyInstanceUID,
        SeriesInstanceUID=uids[0].rpartition(".")[0],
        SOPInstanceUID=uids[0],
    )

    assert retriever.retrieve(service, one).final.status == SUCCESS


@engine_only
def test_query_that_takes_too_long_is_a700_with_the_reason_and_the_next_is_answered(
    serve: Serve,
) -> None:
    service = serve(query_timeout_seconds=0.3)
    store_study(service, 1)
    started = time.monotonic()

    with index_standstill(database_url_of(service.archive)):
        [refused] = _find(service, study_query())
    answered = _find(service, study_query())

    assert time.monotonic() - started < 15
    assert refused.status == OUT_OF_RESOURCES
    assert refused.comment == "No result within 0.3 s: narrow the query"
    assert [one.status for one in answered] == [0xFF00, SUCCESS]


@engine_only
def test_retrieve_that_takes_too_long_to_plan_is_a701_with_the_reason(
    serve: Serve, retriever: Retriever
) -> None:
    service = serve(query_timeout_seconds=0.3)
    retriever.prepare(service)
    uids = store_study(service, 2)

    with index_standstill(database_url_of(service.archive)):
        refused = retriever.retrieve(service, study_query())
    outcome = retriever.retrieve(service, study_query())

    assert [one.status for one in refused.responses] == [MATCHES_NOT_CALCULATED]
    assert refused.final.comment == "No result within 0.3 s: narrow the query"
    assert outcome.uids == uids


@engine_only
def test_query_timeout_does_not_count_what_the_peer_takes(serve: Serve) -> None:
    service = serve(query_timeout_seconds=0.1)
    store_study(service, 1200)
    query = identifier(
        "IMAGE",
        StudyInstanceUID=study_query().StudyInstanceUID,
        SeriesInstanceUID=f"{study_query().StudyInstanceUID}.1",
        SOPInstanceUID="",
    )

    with association(service, STUDY_ROOT_FIND) as assoc:
        answers = assoc.send_c_find(query, STUDY_ROOT_FIND)
        first = next(answers)
        time.sleep(0.3)
        rest = responses(answers)

    assert first[0].Status == 0xFF00
    assert len(rest) == 1200
    assert rest[-1].status == SUCCESS
