"""Every status of the conformance statement has a situation that produces it (PS3.7 C, PS3.4 B.2.3, C.4).

``SITUATIONS`` is the list: service and status to what makes a real client get it. A status in the statement
without a situation fails the test, and so does a situation that the statement does not tell of.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.presentation import build_context

from pacs.model.remote_ae import Service
from pacs.wire import command
from tests.dimse.retrieving import (
    STUDY,
    Getter,
    Mover,
    Outcome,
    Retriever,
    make_study,
    store_study,
    study_query,
)
from tests.factories import make_instance
from tests.outages import index_outage
from tests.peers import (
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    Destination,
    Response,
    RunningArchive,
    association,
    closed_port,
    data_set_bytes,
    database_url_of,
    deposit,
    identifier,
    register,
    response,
    responses,
    send,
    send_bytes,
)
from tests.serving import Serve, engine_on_sqlite
from tests.wire.wire import EXPLICIT, IMPLICIT, P_DATA, Wire, message, pdu

CONFORMANCE = Path(__file__).parents[2] / "docs" / "conformance.md"
#: Statuses of PS3.4 Y: tests/dimse has them with the Composite Instance Root Retrieve service.
COMPOSITE_INSTANCE_RETRIEVE = range(0xAA00, 0xAB00)
STORE, FIND, MOVE, GET = "C-STORE", "C-FIND", "C-MOVE", "C-GET"
#: (SOP Class, command field) of the requests that are written byte by byte.
REQUESTS = {
    STORE: (str(CTImageStorage), 0x0001),
    FIND: (STUDY_ROOT_FIND, 0x0020),
    MOVE: (STUDY_ROOT_MOVE, 0x0021),
    GET: (STUDY_ROOT_GET, 0x0010),
}
#: Where it is said that nothing is wrong, or the requester knows why.
WITHOUT_COMMENT = {0x0000, 0xFF00, 0xFF01, 0xFE00}
WITH_OFFENDING_ELEMENT = {0xA900, 0x0122, 0x0212}


@dataclass
class Bench:
    """What a situation is made of."""

    serve: Serve
    start_destination: Callable[..., Destination]
    monkeypatch: pytest.MonkeyPatch
    cleanup: ExitStack
    settings: dict[str, Any] = field(default_factory=dict)

    def find(
        self, running: RunningArchive, query: Dataset | None = None, calling: str = "TESTSCU"
    ) -> list[Response]:
        """Query by C-FIND."""
        with association(running, STUDY_ROOT_FIND, calling=calling) as assoc:
            return responses(assoc.send_c_find(query or study_query(), STUDY_ROOT_FIND))

    def retriever(self, service: str, running: RunningArchive) -> Retriever:
        """A client that retrieves from ``running``."""
        chosen = Mover(self.start_destination) if service == MOVE else Getter()
        chosen.prepare(running)
        return chosen

    def retrieve(self, service: str, running: RunningArchive, **kwargs: Any) -> Outcome:
        """Retrieve by C-MOVE or C-GET."""
        query = kwargs.pop("query", None) or study_query()
        return self.retriever(service, running).retrieve(running, query, **kwargs)


Situation = Callable[[Bench, str], Response]


def _request(service: str, **changes: Any) -> tuple[dict[int, tuple[str, str]], bytes]:
    """The presentation context and the message of a request with these command elements."""
    sop_class, command_field = REQUESTS[service]
    instance = make_study(1)[0]
    values: dict[str, Any] = {
        "AffectedSOPClassUID": sop_class,
        "CommandField": command_field,
        "MessageID": 7,
        "Priority": 0,
        "CommandDataSetType": command.HAS_DATA_SET,
        "AffectedSOPInstanceUID": str(instance.SOPInstanceUID) if service == STORE else None,
        "MoveDestination": "NOBODY" if service == MOVE else None,
    }
    data = data_set_bytes(instance if service == STORE else None) if service == STORE else _query()
    syntax = EXPLICIT if service == STORE else IMPLICIT
    return {1: (sop_class, syntax)}, message(1, command.encode(values | changes), data)


def _items(request: bytes) -> bytes:
    """The presentation data values of a message in one PDU for each part."""
    items, position = b"", 0
    while position < len(request):
        end = position + 6 + int.from_bytes(request[position + 2 : position + 6], "big")
        items += request[position + 6 : end]
        position = end
    return items


def _query() -> bytes:
    stream = BytesIO()
    dcmwrite(stream, study_query(), implicit_vr=True, little_endian=True)
    return stream.getvalue()


def _answers(running: RunningArchive, contexts: Any, data: bytes, count: int) -> list[Response]:
    with Wire(running.port) as peer:
        peer.associate(contexts)
        peer.send(data)
        return [_from_wire(peer.answer()) for _ in range(count)]


def _from_wire(answer: dict[str, Any]) -> Response:
    offending = answer.get("OffendingElement", ())
    tags = offending if isinstance(offending, tuple) else (offending,)
    return Response(answer["Status"], None, str(answer.get("ErrorComment", "")), tags, {})


# Of every service


def _other_sop_class(bench: Bench, service: str) -> Response:
    running = bench.serve()
    contexts, request = _request(service, AffectedSOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    return _answers(running, contexts, request, 1)[0]


def _message_id_in_progress(bench: Bench, service: str) -> Response:
    contexts, request = _request(service)
    # Both are in one PDU: the second is there before the first one is answered.
    items = _items(request)
    return _answers(bench.serve(), contexts, pdu(P_DATA, items * 2), 2)[-1]


def _no_such_operation(bench: Bench, service: str) -> Response:
    contexts, request = _request(service)
    other = STUDY_ROOT_GET if service != GET else STUDY_ROOT_FIND
    contexts = {1: (other, IMPLICIT)} if service != STORE else {1: (STUDY_ROOT_FIND, IMPLICIT)}
    return _answers(bench.serve(), contexts, request, 1)[0]


def _ill_typed_element(bench: Bench, service: str) -> Response:
    wrong = {
        STORE: {"AffectedSOPInstanceUID": None},
        FIND: {"AffectedSOPClassUID": None},
        MOVE: {"MoveDestination": "A" * 17},
        GET: {"AffectedSOPClassUID": None},
    }
    contexts, request = _request(service, **wrong[service])
    return _answers(bench.serve(), contexts, request, 1)[0]


def _not_allowed(bench: Bench, service: str) -> Response:
    running = bench.serve()
    register(running.archive, "GUEST", 104, services=frozenset({Service.ECHO}))
    if service == STORE:
        return _store(running, make_instance(), calling="GUEST")
    if service == FIND:
        return bench.find(running, calling="GUEST")[-1]
    return bench.retrieve(service, running, calling="GUEST").final


def _anything_else(bench: Bench, service: str) -> Response:
    running = bench.serve()
    # A search gives data sets to a stock AE, and rows to ours.
    names = {STORE: ["ingest"], FIND: ["search", "matches"]}.get(service, ["plan"])

    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise ZeroDivisionError

    for name in names:
        bench.monkeypatch.setattr(running.archive.index, name, fail)
    if service == STORE:
        return _store(running, make_instance())
    if service == FIND:
        return bench.find(running)[-1]
    return bench.retrieve(service, running).final


def _no_index(bench: Bench, service: str) -> Response:
    running = bench.serve()
    bench.cleanup.enter_context(index_outage(database_url_of(running.archive)))
    if service == STORE:
        return _store(running, make_instance())
    if service == FIND:
        return bench.find(running)[-1]
    return bench.retrieve(service, running).final


# C-STORE


def _store(running: RunningArchive, instance: Dataset, calling: str = "TESTSCU") -> Response:
    context = build_context(CTImageStorage, ExplicitVRLittleEndian)
    with association(running, context, calling=calling) as assoc:
        return response(send(assoc, instance), None)


def _stored(bench: Bench, _service: str) -> Response:
    return _store(bench.serve(), make_instance())


def _different_under_the_same_uid(policy: str) -> Situation:
    def situation(bench: Bench, _service: str) -> Response:
        running = bench.serve(duplicate_policy=policy)
        instance = make_instance()
        deposit(running.archive, instance)
        instance.PatientName = "Another"
        return _store(running, instance)

    return situation


def _other_instance_than_announced(bench: Bench, _service: str) -> Response:
    running, instance = bench.serve(), make_instance()
    context = build_context(CTImageStorage, ExplicitVRLittleEndian)
    with association(running, context) as assoc:
        status = send_bytes(assoc, data_set_bytes(instance), CTImageStorage, "1.2.3.4")
    return response(status, None)


def _unreadable_data_set(bench: Bench, _service: str) -> Response:
    running, instance = bench.serve(), make_instance()
    context = build_context(CTImageStorage, ExplicitVRLittleEndian)
    with association(running, context) as assoc:
        uid = str(instance.SOPInstanceUID)
        return response(
            send_bytes(assoc, data_set_bytes(instance)[:300], CTImageStorage, uid), None
        )


# C-FIND


def _match(bench: Bench, _service: str) -> Response:
    running = bench.serve()
    store_study(running, 1)
    return bench.find(running)[0]


def _match_with_an_unsupported_key(bench: Bench, _service: str) -> Response:
    running = bench.serve()
    store_study(running, 1)
    # Retired, and of another information model: nothing that a stored instance could have.
    query = identifier("STUDY", StudyInstanceUID=STUDY, ScheduledStationAETitle="X")
    return bench.find(running, query)[0]


def _no_match(bench: Bench, _service: str) -> Response:
    return bench.find(bench.serve())[-1]


def _find_cancelled(bench: Bench, _service: str) -> Response:
    contexts, request = _request(FIND)
    running = bench.serve()
    store_study(running, 1)
    return _answers(running, contexts, request + _cancel(7), 1)[0]


def _cancel(message_id: int) -> bytes:
    return message(
        1,
        command.encode(
            {
                "CommandField": 0x0FFF,
                "MessageIDBeingRespondedTo": message_id,
                "CommandDataSetType": command.NO_DATA_SET,
            }
        ),
    )


def _find_above_the_level(bench: Bench, _service: str) -> Response:
    return bench.find(bench.serve(), identifier("SERIES", SeriesInstanceUID="1.2"))[-1]


# C-MOVE and C-GET


def _pending(bench: Bench, service: str) -> Response:
    running = bench.serve()
    store_study(running, 2)
    return bench.retrieve(service, running).responses[0]


def _all_completed(bench: Bench, service: str) -> Response:
    running = bench.serve()
    store_study(running, 2)
    return bench.retrieve(service, running).final


def _one_refused(bench: Bench, service: str) -> Response:
    running = bench.serve()
    uids = store_study(running, 2)
    return bench.retrieve(service, running, answers={uids[0]: 0xA700}).final


def _all_refused(bench: Bench, service: str) -> Response:
    running = bench.serve()
    uids = store_study(running, 2)
    return bench.retrieve(service, running, answers=dict.fromkeys(uids, 0xA700)).final


def _retrieve_cancelled(bench: Bench, service: str) -> Response:
    running = bench.serve()
    uids = store_study(running, 3)
    retriever, is_cancelled = bench.retriever(service, running), threading.Event()

    def cancel(assoc: Any) -> None:
        assoc.send_c_cancel(1, query_model=retriever.study_root)
        is_cancelled.set()

    def wait(_event: Any) -> int:
        # On the association of a C-GET the client sends its C-CANCEL before it answers.
        return 0x0000 if service == GET or is_cancelled.wait(5) else 0xC000

    return retriever.retrieve(
        running, study_query(), answers={uids[0]: wait}, on_pending=cancel
    ).final


def _retrieve_without_unique_key(bench: Bench, service: str) -> Response:
    return bench.retrieve(service, bench.serve(), query=identifier("STUDY")).final


def _unknown_destination(bench: Bench, _service: str) -> Response:
    contexts, request = _request(MOVE)
    return _answers(bench.serve(), contexts, request, 1)[0]


_COMMON: dict[int, Situation] = {
    0x0122: _other_sop_class,
    0x0124: _not_allowed,
    0x0210: _message_id_in_progress,
    0x0211: _no_such_operation,
    0x0212: _ill_typed_element,
    0xC000: _anything_else,
}
_RETRIEVE: dict[int, Situation] = _COMMON | {
    0xFF00: _pending,
    0x0000: _all_completed,
    0xB000: _one_refused,
    0xFE00: _retrieve_cancelled,
    0xA701: _no_index,
    0xA702: _all_refused,
    0xA900: _retrieve_without_unique_key,
}
SITUATIONS: dict[str, dict[int, Situation]] = {
    STORE: _COMMON
    | {
        0x0000: _stored,
        0xB006: _different_under_the_same_uid("keep"),
        0xA700: _no_index,
        0xA900: _other_instance_than_announced,
        0xC010: _unreadable_data_set,
        0xC011: _different_under_the_same_uid("refuse"),
    },
    FIND: _COMMON
    | {
        0xFF00: _match,
        0xFF01: _match_with_an_unsupported_key,
        0x0000: _no_match,
        0xFE00: _find_cancelled,
        0xA700: _no_index,
        0xA900: _find_above_the_level,
    },
    MOVE: _RETRIEVE | {0xA801: _unknown_destination},
    GET: _RETRIEVE,
}


@engine_on_sqlite
@pytest.mark.parametrize(
    ("service", "status"),
    [
        pytest.param(service, status, id=f"{service}-{status:04X}")
        for service, statuses in SITUATIONS.items()
        for status in statuses
    ],
)
def test_situation_has_its_status_comment_and_offending_element(
    serve: Serve,
    start_destination: Callable[..., Destination],
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    status: int,
) -> None:
    with ExitStack() as cleanup:
        bench = Bench(serve, start_destination, monkeypatch, cleanup)
        answer = SITUATIONS[service][status](bench, service)

    assert f"{answer.status:04X}" == f"{status:04X}"
    assert bool(answer.comment) == (status not in WITHOUT_COMMENT), answer.comment
    assert bool(answer.offending) == (status in WITH_OFFENDING_ELEMENT)


@pytest.mark.parametrize(
    ("heading", "services"),
    [("### Storage", [STORE]), ("## Query", [FIND]), ("## Retrieve", [MOVE, GET])],
)
def test_every_status_of_the_conformance_statement_has_a_situation(
    heading: str, services: list[str]
) -> None:
    stated = _stated(heading)

    having = set[int]().union(*(SITUATIONS[service] for service in services))
    assert {f"{one:04X}" for one in stated} == {f"{one:04X}" for one in having}


def _stated(heading: str) -> set[int]:
    text = CONFORMANCE.read_text(encoding="utf-8")
    section = text.split(f"\n{heading} (", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| ([0-9A-F]{4}(?:, [0-9A-F]{4})*) \|", section, re.MULTILINE)
    codes = {int(code, 16) for row in rows for code in row.split(", ")}
    return codes - set(COMPOSITE_INSTANCE_RETRIEVE)


@engine_on_sqlite
def test_move_to_closed_port_is_a702_too(
    serve: Serve, start_destination: Callable[..., Destination]
) -> None:
    running = serve()
    store_study(running, 1)
    register(running.archive, "NOBODY", closed_port())
    contexts, request = _request(MOVE)

    *_, final = _answers(running, contexts, request, 2)

    assert final.status == 0xA702
    assert "NOBODY" in final.comment
