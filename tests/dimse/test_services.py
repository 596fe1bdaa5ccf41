"""The service loops with handlers of the test's own: what they owe to handlers and peers (PS3.7 9.1, PS3.4 C.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt

from pacs.archive.retrieving import Journal
from pacs.dimse.access import Rights
from pacs.dimse.ae import Options, make_ae
from pacs.dimse.retrieve_scp import Accepted, Refused
from pacs.dimse.status import DimseService, status_dataset
from pacs.errors import StorageUnavailable
from pacs.model.retrieves import RetrieveOutcome, SubOperationRecord
from pacs.model.sub_operations import SubOperations
from pacs.wire.ae import EngineAE
from tests.peers import (
    PATIENT_ROOT_GET,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    Response,
    association,
    identifier,
    responses,
    wait_until,
)

Handler = Callable[[Any], Any]


@dataclass
class _Bench:
    """Our engine with one handler."""

    port: int


@contextmanager
def _engine(event: Any, handler: Handler) -> Iterator[_Bench]:
    ae: EngineAE = make_ae(Options(acse_timeout_seconds=5, dimse_timeout_seconds=5))
    server = ae.listen(("127.0.0.1", 0), [(event, handler)])
    try:
        yield _Bench(server.port)
    finally:
        server.stop()
        assert ae.drain(5) == 0


def _ask(event: Any, handler: Handler, model: str) -> list[Response]:
    with _engine(event, handler) as bench, association(bench, model) as assoc:  # type: ignore[arg-type]
        if model == STUDY_ROOT_FIND:
            return responses(assoc.send_c_find(identifier("STUDY"), model))
        if model == STUDY_ROOT_MOVE:
            return responses(assoc.send_c_move(identifier("STUDY"), "DEST", model))
        return responses(assoc.send_c_get(identifier("STUDY"), model))


class _Records:
    """In place of an archive: what is recorded of retrieves."""

    key = None

    def __init__(self) -> None:
        self.index = self.journal_writer = self
        self.outcomes: list[SubOperationRecord] = []
        self.ending: RetrieveOutcome | None = None

    def begin(self, _request: Any) -> _Records:
        return self

    def finish(
        self, _entry: Any, outcome: RetrieveOutcome, batch: list[SubOperationRecord]
    ) -> None:
        self.ending = outcome
        self.outcomes += batch


def _accepted(records: _Records, total: int, instances: Iterator[Any]) -> Accepted:
    archive: Any = records
    request: Any = None
    return Accepted(
        rights=Rights("TESTSCU", "127.0.0.1"),
        service=DimseService.GET,
        title="",
        address=None,
        journal=Journal(archive, request, total),
        instances=instances,
    )


def test_counters_over_65535_saturate() -> None:
    def handler(_event: Any) -> Refused:
        return Refused(status_dataset(0xFE00), SubOperations(70_000))

    [final] = _ask(evt.EVT_C_GET, handler, STUDY_ROOT_GET)

    assert final.status == 0xFE00
    assert final.counts == (65_535, 0, 0, 0)


def test_retrieve_of_fewer_than_were_planned_ends_in_failure() -> None:
    def handler(_event: Any) -> Accepted:
        return _accepted(_Records(), 3, iter(()))

    [final] = _ask(evt.EVT_C_GET, handler, PATIENT_ROOT_GET)

    assert final.status == 0xA702
    assert final.counts == (None, 0, 3, 0)


def test_find_handler_that_raises_is_unable_to_process_without_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(_event: Any) -> Iterator[Any]:
        yield from ()
        raise RuntimeError("secret of the implementation")

    [final] = _ask(evt.EVT_C_FIND, handler, STUDY_ROOT_FIND)

    assert final.status == 0xC000
    assert final.comment == "Processing failure"
    wait_until(lambda: "secret of the implementation" in caplog.text)


@pytest.mark.parametrize(
    ("event", "model", "parameters"),
    [
        (evt.EVT_C_GET, STUDY_ROOT_GET, {}),
        (
            evt.EVT_C_MOVE,
            STUDY_ROOT_MOVE,
            {"title": "DEST", "address": ("127.0.0.1", 9, {"ae_title": "DEST"})},
        ),
    ],
)
def test_retrieve_that_raises_on_its_way_is_unable_to_process_and_recorded(
    event: Any, model: str, parameters: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    records = _Records()

    def instances() -> Iterator[Any]:
        yield from ()
        raise RuntimeError("secret of the implementation")

    def handler(_event: Any) -> Accepted:
        return replace(_accepted(records, 2, instances()), **parameters)

    [final] = _ask(event, handler, model)

    assert records.ending is not None
    assert (records.ending.status, records.ending.remaining) == (0xC000, 2)
    assert records.ending.error_comment == "Processing failure"

    assert final.status & 0xF000 == 0xC000
    assert final.comment == "Processing failure"
    wait_until(lambda: "secret of the implementation" in caplog.text)


@pytest.mark.parametrize(
    ("event", "model"),
    [
        (evt.EVT_C_FIND, STUDY_ROOT_FIND),
        (evt.EVT_C_GET, STUDY_ROOT_GET),
        (evt.EVT_C_MOVE, STUDY_ROOT_MOVE),
    ],
)
def test_handler_that_raises_before_it_yields_is_unable_to_process(event: Any, model: str) -> None:
    def handler(_event: Any) -> Iterator[Any]:
        raise RuntimeError("no generator")

    [final] = _ask(event, handler, model)

    assert final.status == 0xC000


@pytest.mark.parametrize("answer", [None, "Failure", Dataset()])
def test_echo_handler_that_returns_no_status_is_unable_to_process(answer: object) -> None:
    with (
        _engine(evt.EVT_C_ECHO, lambda _: answer) as bench,
        association(bench, VERIFICATION) as assoc,  # type: ignore[arg-type]
    ):
        assert assoc.send_c_echo().Status == 0xC000


def test_handler_that_raises_a_domain_error_is_unable_to_process_with_the_reason() -> None:
    def handler(_event: Any) -> Accepted:
        raise StorageUnavailable("The tape robot is on fire")

    [final] = _ask(evt.EVT_C_GET, handler, STUDY_ROOT_GET)

    assert final.status == 0xC000
    assert final.comment == "The tape robot is on fire"


def test_echo_handler_that_raises_is_unable_to_process() -> None:
    def handler(_event: Any) -> int:
        raise RuntimeError("no")

    with (
        _engine(evt.EVT_C_ECHO, handler) as bench,
        association(bench, VERIFICATION) as assoc,  # type: ignore[arg-type]
    ):
        assert assoc.send_c_echo().Status == 0xC000
        assert assoc.send_c_echo().Status == 0xC000


def test_failure_that_the_handler_returns_is_sent_as_it_is() -> None:
    def handler(_event: Any) -> Refused:
        status = Dataset()
        status.Status = 0xA900
        status.ErrorComment = "no"
        status.OffendingElement = [0x00100010, 0x00100020]
        return Refused(status, SubOperations(1))

    [final] = _ask(evt.EVT_C_GET, handler, STUDY_ROOT_GET)

    assert (final.status, final.comment) == (0xA900, "no")
    assert final.offending == (0x00100010, 0x00100020)


@pytest.mark.parametrize("ending", ["release", "abort"])
def test_find_generator_is_closed_when_the_peer_goes(ending: str) -> None:
    closed = []

    def handler(event: Any) -> Iterator[Any]:
        try:
            while not event.is_cancelled:
                yield 0xFF00, identifier("STUDY")
        finally:
            closed.append(True)

    with (
        _engine(evt.EVT_C_FIND, handler) as bench,
        association(bench, STUDY_ROOT_FIND) as assoc,  # type: ignore[arg-type]
    ):
        generator = assoc.send_c_find(identifier("STUDY"), STUDY_ROOT_FIND)
        next(generator)
        assoc.abort() if ending == "abort" else assoc.release()

    assert closed == [True]


@pytest.mark.parametrize(
    ("event", "model"), [(evt.EVT_C_GET, STUDY_ROOT_GET), (evt.EVT_C_MOVE, STUDY_ROOT_MOVE)]
)
def test_retrieve_handler_of_pynetdicoms_contract_is_answered_and_the_log_says_what_to_do(
    event: Any, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(_event: Any) -> Iterator[Any]:
        yield 0

    [final] = _ask(event, handler, model)

    assert (final.status, final.comment) == (0xC000, "Processing failure")
    wait_until(
        lambda: "pynetdicom's contract holds on its own AE (pacs.dimse.stock)" in caplog.text
    )


def test_responses_and_record_count_the_same() -> None:
    # Nothing can be sent to this requester, which proposed no storage context.
    records = _Records()

    class _Instance:
        sop_class_uid, sop_instance_uid = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
        transfer_syntax_uid, data_set_size = "1.2.840.10008.1.2.1", 0

    def handler(_event: Any) -> Accepted:
        return _accepted(records, 1, iter([_Instance()]))

    pending, final = _ask(evt.EVT_C_GET, handler, STUDY_ROOT_GET)

    assert pending.counts == (1, 0, 0, 0)
    assert final.status == 0xA702
    assert final.counts[1:] == (0, 1, 0)
    assert final.failed_uids == ["1.2.3"]
    assert [one.sop_instance_uid for one in records.outcomes] == ["1.2.3"]
    assert "no presentation context" in records.outcomes[0].error_comment
    assert records.ending is not None
    assert (records.ending.status, records.ending.failed) == (0xA702, 1)
