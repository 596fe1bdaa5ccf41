"""A Move Destination that goes away in the middle of a C-MOVE, and comes back on the same port (PS3.4 C.4.2.3.1)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pacs.conformance.scp.destination import Destination
from pacs.conformance.wire.message import Message
from pacs.dimse import destinations
from pacs.wire.association import EngineAssociation
from tests.dimse.retrieving import recorded
from tests.factories import make_instance
from tests.peers import (
    STUDY_ROOT_MOVE,
    Response,
    RunningArchive,
    association,
    deposit,
    identifier,
    register,
    responses,
)
from tests.serving import Serve, engine_only

pytestmark = engine_only
_STUDY = "1.2.3"
_COUNT = 12
_LOST_AT = 3
#: Attempts to call it while it is away.
_IN_VAIN = 3


class ReturningDestination:
    """Aborts at the fourth instance and stops listening; listens again on its port when it is told to."""

    def __init__(self, *, comes_back_at_once: bool) -> None:
        self._stack = ExitStack()
        self._back_at_once = comes_back_at_once
        self.first = Destination("DEST", host="127.0.0.1")
        self.first.behaviour = self._behave
        self._stack.enter_context(self.first)
        self.second = Destination("DEST", host="127.0.0.1", port=self.first.port)

    def _behave(self, number: int, _request: Message) -> int | None:
        if number < _LOST_AT:
            return 0x0000
        self.first._listening.shutdown(socket.SHUT_RDWR)
        self.first._listening.close()
        if self._back_at_once:
            self.come_back()
        return None

    def come_back(self) -> None:
        """Listen again."""
        self._stack.enter_context(self.second)

    def close(self) -> None:
        """Stop for good."""
        self._stack.close()

    @property
    def stored(self) -> set[str]:
        """The SOP Instance UIDs that were answered with Success."""
        received = [*self.first.received[:_LOST_AT], *self.second.received]
        return {str(one.request.command["AffectedSOPInstanceUID"]) for one in received}


@pytest.fixture
def start_returning() -> Iterator[list[ReturningDestination]]:
    """Closes what is put into it."""
    started: list[ReturningDestination] = []
    yield started
    for one in started:
        one.close()


def _archive(serve: Serve, destination: ReturningDestination) -> RunningArchive:
    running = serve()
    deposit(
        running.archive,
        *(
            make_instance(
                StudyInstanceUID=_STUDY,
                SeriesInstanceUID="1.2.3.1",
                SOPInstanceUID=f"1.2.3.1.{number}",
            )
            for number in range(1, _COUNT + 1)
        ),
    )
    register(running.archive, "DEST", destination.first.port)
    return running


def _move(running: RunningArchive) -> Response:
    """The final response."""
    with association(running, STUDY_ROOT_MOVE) as assoc:
        query = identifier("STUDY", StudyInstanceUID=_STUDY)
        return responses(assoc.send_c_move(query, "DEST", STUDY_ROOT_MOVE))[-1]


def test_destination_that_is_back_at_once_gets_every_instance(
    serve: Serve, start_returning: list[ReturningDestination]
) -> None:
    destination = ReturningDestination(comes_back_at_once=True)
    start_returning.append(destination)

    final = _move(_archive(serve, destination))

    assert final.status == 0x0000
    assert len(destination.stored) == _COUNT


def test_what_failed_while_it_was_away_is_listed_and_the_rest_arrives(
    serve: Serve, start_returning: list[ReturningDestination], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destinations, "_REST_SECONDS", 0.0)
    destination = ReturningDestination(comes_back_at_once=False)
    start_returning.append(destination)
    running = _archive(serve, destination)
    explain, attempts = destinations._why_not, []

    def come_back_later(title: str, assoc: EngineAssociation) -> str:
        attempts.append(title)
        if len(attempts) == _IN_VAIN:
            destination.come_back()
        return explain(title, assoc)

    monkeypatch.setattr(destinations, "_why_not", come_back_later)

    final = _move(running)

    _, operations = recorded(running)
    failed = {one.sop_instance_uid for one in operations if one.status != 0}
    every = {f"1.2.3.1.{number}" for number in range(1, _COUNT + 1)}
    assert final.status == 0xB000
    assert 0 < len(failed) <= _IN_VAIN
    assert set(final.failed_uids) == failed
    assert destination.stored == every - failed
