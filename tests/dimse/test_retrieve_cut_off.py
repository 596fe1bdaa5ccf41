"""Instances that an earlier release stored although they were cut off: a retrieve says what they lack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pytest
from pydicom.uid import JPEGBaseline8Bit

from pacs.archive import cut_off
from pacs.archive.condition import missing_end
from pacs.conformance.scp.destination import Destination
from pacs.conformance.wire.message import Message
from pacs.model.instances import StoredInstance
from tests.archive.holdings import keep_cut_off, make_slice
from tests.dimse.retrieving import Getter, recorded
from tests.factories import part10
from tests.peers import (
    STUDY_ROOT_MOVE,
    RunningArchive,
    association,
    deposit,
    identifier,
    register,
    responses,
)
from tests.serving import Serve, engine_only

pytestmark = engine_only
CUT_OFF = "1.2.3.1.2"


@pytest.fixture
def destination() -> Iterator[Destination]:
    with Destination("DEST", host="127.0.0.1") as started:
        yield started


def move(running: RunningArchive, destination: Destination) -> dict[str, str]:
    """Move the study; the comment of each sub-operation."""
    register(running.archive, "DEST", destination.port)
    query = identifier("STUDY", StudyInstanceUID="1.2.3")
    with association(running, STUDY_ROOT_MOVE) as assoc:
        responses(assoc.send_c_move(query, "DEST", STUDY_ROOT_MOVE))
    _, operations = recorded(running)
    return {one.sop_instance_uid: one.error_comment for one in operations}


def test_move_of_a_cut_off_instance_fails_with_what_it_lacks_and_the_others_arrive(
    serve: Serve, destination: Destination
) -> None:
    running = serve()
    deposit(running.archive, make_slice(1), make_slice(3))
    keep_cut_off(running.archive, part10(make_slice(2))[:-20])

    comments = move(running, destination)

    assert comments == {
        "1.2.3.1.1": "",
        CUT_OFF: "PixelData (7FE0,0010) lacks 20 of 64 bytes",
        "1.2.3.1.3": "",
    }
    assert len(destination.received) == 2


def test_what_is_known_to_be_whole_is_not_walked_again_before_it_is_sent(
    serve: Serve, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()
    deposit(running.archive, make_slice(1))
    # As if another process had stored it.
    keep_cut_off(running.archive, part10(make_slice(2)))
    walked: list[str] = []

    def noted(stream: BinaryIO, stored: StoredInstance, most_passed: int) -> str | None:
        walked.append(stored.sop_instance_uid)
        return missing_end(stream, stored, most_passed)

    monkeypatch.setattr(cut_off, "missing_end", noted)

    assert move(running, destination) == {"1.2.3.1.1": "", CUT_OFF: ""}
    assert walked == [CUT_OFF]
    assert move(running, destination) == {"1.2.3.1.1": "", CUT_OFF: ""}
    assert walked == [CUT_OFF]

    keep_cut_off(running.archive, part10(make_slice(1))[:-20])
    keep_cut_off(running.archive, part10(make_slice(2))[:-20])
    lacking = "PixelData (7FE0,0010) lacks 20 of 64 bytes"
    for _ in range(2):
        assert move(running, destination) == {"1.2.3.1.1": lacking, CUT_OFF: lacking}


def test_move_of_a_cut_off_instance_that_ends_the_association_says_what_it_lacks(
    serve: Serve, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As many fragments are not looked at before it is sent.
    monkeypatch.setattr(cut_off, "_CHEAP_ELEMENTS", 2)
    running = serve()
    whole = part10(make_slice(2), JPEGBaseline8Bit)
    delimiter = whole[-8:]
    more = b"\xfe\xff\x00\xe0\x06\x00\x00\x00frame " * 3
    keep_cut_off(running.archive, (whole[:-8] + more + delimiter)[:-10])

    def abort(_number: int, _request: Message) -> int | None:
        return None

    destination.behaviour = abort

    comments = move(running, destination)

    assert comments == {CUT_OFF: "PixelData (7FE0,0010) lacks 2 bytes and its end"}


def test_get_of_a_cut_off_instance_fails_with_what_it_lacks(serve: Serve) -> None:
    running = serve()
    keep_cut_off(running.archive, part10(make_slice(2))[:-20])
    query = identifier("STUDY", StudyInstanceUID="1.2.3")

    Getter().retrieve(running, query)

    _, operations = recorded(running)
    assert [one.error_comment for one in operations] == [
        "PixelData (7FE0,0010) lacks 20 of 64 bytes"
    ]
