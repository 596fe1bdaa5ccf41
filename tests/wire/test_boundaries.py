"""Wherever TCP or the peer cuts a message, the outcome is the same (PS3.8 9.3.1, Annex E)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage

from pacs.archive.archive import Archive
from pacs.wire import command
from tests.factories import make_instance
from tests.peers import STUDY_ROOT_FIND, VERIFICATION, data_set_bytes, stored_bytes
from tests.wire.inline import InlineServer, Recorder, archive_server, recording_server
from tests.wire.wire import (
    COMMAND,
    DATA,
    EXPLICIT,
    IMPLICIT,
    LAST,
    P_DATA,
    RELEASE_PDU,
    associate_pdu,
    echo_command,
    message,
    p_data,
    pdu,
    pdv,
    store_command,
)

SOP_CLASS = str(CTImageStorage)
#: An odd number of bytes: nothing in PS3.8 counts on the data set being even.
ODD = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDYS!"
FIND = command.encode(
    {
        "AffectedSOPClassUID": STUDY_ROOT_FIND,
        "CommandField": 0x0020,
        "MessageID": 4,
        "Priority": 0,
        "CommandDataSetType": command.HAS_DATA_SET,
    }
)
QUERY = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY " + b"\x10\x00\x20\x00\x00\x00\x00\x00"
ASSOCIATE = associate_pdu(
    {
        1: (VERIFICATION, IMPLICIT),
        3: (SOP_CLASS, EXPLICIT),
        5: (SOP_CLASS, IMPLICIT),
        7: (STUDY_ROOT_FIND, IMPLICIT),
    }
)


def _conversation(explicit: bytes, implicit: bytes, uids: Sequence[str]) -> bytes:
    """Everything a client sends: association, C-ECHO, two C-STORE, C-FIND, release."""
    return b"".join(
        (
            ASSOCIATE,
            message(1, echo_command(1)),
            message(3, store_command(SOP_CLASS, uids[0], 2), explicit),
            message(5, store_command(SOP_CLASS, uids[1], 3), implicit),
            message(7, FIND, QUERY),
            RELEASE_PDU,
        )
    )


@pytest.fixture(scope="module")
def bench() -> Iterator[tuple[InlineServer, Recorder]]:
    """A server that records what reaches its handlers."""
    with recording_server() as running:
        yield running


def _outcome(
    bench: tuple[InlineServer, Recorder], stream: bytes, cuts: Sequence[int] = ()
) -> tuple[bytes, object]:
    server, recorder = bench
    recorder.seen.clear()
    recorder.sinks.clear()
    answer = server.converse(stream, cuts)
    assert all(sink.ending == "discarded" for sink in recorder.sinks)
    return answer, list(recorder.seen)


STREAM = _conversation(ODD * 9, ODD * 10, ("1.2.3", "1.2.4"))


def test_conversation_reaches_every_handler(bench: tuple[InlineServer, Recorder]) -> None:
    answer, seen = _outcome(bench, STREAM)

    assert seen == [
        ("C-ECHO", 1),
        ("C-STORE", 2, "1.2.3", ODD * 9),
        ("C-STORE", 3, "1.2.4", ODD * 10),
        ("C-FIND", 4, QUERY),
    ]
    assert answer[:1] == b"\x02"  # A-ASSOCIATE-AC
    assert answer.count(b"P-1 ") == 1  # C-FIND responses
    assert answer[-10:-9] == b"\x06"  # A-RELEASE-RP


def test_stream_cut_in_two_at_every_byte_is_the_same_conversation(
    bench: tuple[InlineServer, Recorder],
) -> None:
    whole = _outcome(bench, STREAM)

    different = [at for at in range(1, len(STREAM)) if _outcome(bench, STREAM, (at,)) != whole]

    assert different == []


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 64])
def test_stream_in_pieces_of_one_size_is_the_same_conversation(
    bench: tuple[InlineServer, Recorder], size: int
) -> None:
    whole = _outcome(bench, STREAM)

    assert _outcome(bench, STREAM, range(size, len(STREAM), size)) == whole


def test_stream_that_ends_at_any_byte_leaves_no_sink_open(
    bench: tuple[InlineServer, Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    for end in range(len(STREAM)):
        _outcome(bench, STREAM[:end])

    assert not [record for record in caplog.records if record.exc_info]


# Presentation data values (PS3.8 9.3.5, Annex E)


def _packings(fragments: Sequence[bytes]) -> Iterator[bytes]:
    """PDV items as PDUs, in every way of putting neighbours into one."""
    for joins in itertools.product((True, False), repeat=len(fragments) - 1):
        packed = [fragments[0]]
        for join, fragment in zip(joins, fragments[1:], strict=True):
            if join:
                packed[-1] += fragment
            else:
                packed.append(fragment)
        yield b"".join(pdu(P_DATA, body) for body in packed)


def _fragments(context_id: int, kind: int, value: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *cuts, len(value)]
    last = len(edges) - 2
    return [
        pdv(context_id, kind | (LAST if number == last else 0), value[begin:end])
        for number, (begin, end) in enumerate(itertools.pairwise(edges))
    ]


def test_command_set_in_every_two_fragments_in_one_or_two_pdus_is_served(
    bench: tuple[InlineServer, Recorder],
) -> None:
    whole = echo_command()
    expected = _outcome(bench, ASSOCIATE + message(1, whole) + RELEASE_PDU)
    cuts = range(len(whole) + 1)

    for cut in cuts:
        for packed in _packings(_fragments(1, COMMAND, whole, (cut,))):
            assert _outcome(bench, ASSOCIATE + packed + RELEASE_PDU) == expected, cut


def test_command_set_in_three_fragments_is_served(bench: tuple[InlineServer, Recorder]) -> None:
    # All pairs of cuts would be 2,500 conversations times four packings; every third covers each residue.
    whole = echo_command()
    expected = _outcome(bench, ASSOCIATE + message(1, whole) + RELEASE_PDU)
    pairs = itertools.combinations_with_replacement(range(0, len(whole) + 1, 3), 2)

    for number, cuts in enumerate(pairs):
        packings = list(_packings(_fragments(1, COMMAND, whole, cuts)))
        packed = packings[number % len(packings)]
        assert _outcome(bench, ASSOCIATE + packed + RELEASE_PDU) == expected, cuts


def test_data_set_in_every_three_fragments_with_its_command_in_one_pdu_or_more_is_stored(
    bench: tuple[InlineServer, Recorder],
) -> None:
    expected = _outcome(
        bench, ASSOCIATE + message(3, store_command(SOP_CLASS, "1.2.3"), ODD) + RELEASE_PDU
    )
    head = pdv(3, COMMAND | LAST, store_command(SOP_CLASS, "1.2.3"))

    for cuts in itertools.combinations_with_replacement(range(len(ODD) + 1), 2):
        for packed in _packings([head, *_fragments(3, DATA, ODD, cuts)]):
            assert _outcome(bench, ASSOCIATE + packed + RELEASE_PDU) == expected, cuts


def test_command_and_data_set_byte_by_byte_are_stored(
    bench: tuple[InlineServer, Recorder],
) -> None:
    store = store_command(SOP_CLASS, "1.2.3")
    expected = _outcome(bench, ASSOCIATE + message(3, store, ODD) + RELEASE_PDU)
    items = [pdv(3, COMMAND, bytes((one,))) for one in store] + [pdv(3, COMMAND | LAST, b"")]
    items += [pdv(3, DATA, bytes((one,))) for one in ODD] + [pdv(3, DATA | LAST, b"")]

    packed = pdu(P_DATA, b"".join(items))
    apart = b"".join(pdu(P_DATA, item) for item in items)

    assert _outcome(bench, ASSOCIATE + packed + RELEASE_PDU) == expected
    assert _outcome(bench, ASSOCIATE + apart + RELEASE_PDU) == expected


def test_empty_fragments_between_others_change_nothing(
    bench: tuple[InlineServer, Recorder],
) -> None:
    store = store_command(SOP_CLASS, "1.2.3")
    expected = _outcome(bench, ASSOCIATE + message(3, store, ODD) + RELEASE_PDU)
    nothing, nothing_yet = pdv(3, DATA, b"") * 3, pdv(3, COMMAND, b"") * 3

    stream = pdu(P_DATA, nothing_yet + pdv(3, COMMAND | LAST, store) + nothing)
    stream += pdu(P_DATA, nothing) + p_data(3, DATA, ODD) + p_data(3, DATA | LAST, b"")

    assert _outcome(bench, ASSOCIATE + stream + RELEASE_PDU) == expected


def test_three_messages_in_one_pdu_are_served_in_order(
    bench: tuple[InlineServer, Recorder],
) -> None:
    body = (
        pdv(1, COMMAND | LAST, echo_command(1))
        + pdv(3, COMMAND | LAST, store_command(SOP_CLASS, "1.2.3", 2))
        + pdv(3, DATA | LAST, ODD)
        + pdv(1, COMMAND | LAST, echo_command(3))
    )

    _, seen = _outcome(bench, ASSOCIATE + pdu(P_DATA, body) + RELEASE_PDU)

    assert seen == [("C-ECHO", 1), ("C-STORE", 2, "1.2.3", ODD), ("C-ECHO", 3)]


@pytest.mark.parametrize("reserved", [0x04, 0x80, 0xFC])
def test_reserved_bits_of_the_message_control_header_are_not_looked_at(
    bench: tuple[InlineServer, Recorder], reserved: int
) -> None:
    expected = _outcome(bench, ASSOCIATE + message(1, echo_command()) + RELEASE_PDU)
    stream = p_data(1, COMMAND | LAST | reserved, echo_command())

    assert _outcome(bench, ASSOCIATE + stream + RELEASE_PDU) == expected


# The whole archive


def test_cut_conversation_with_the_archive_stores_the_same_bytes(
    tmp_path: Path, sqlite_template: Path
) -> None:
    instance = make_instance(SOPInstanceUID="1.2.3.1")
    other = make_instance(SOPInstanceUID="1.2.3.2")
    explicit, implicit = data_set_bytes(instance), data_set_bytes(other, IMPLICIT)
    stream = _conversation(explicit, implicit, ("1.2.3.1", "1.2.3.2"))

    with archive_server(tmp_path, sqlite_template) as (server, archive):
        whole = server.converse(stream)
        for cut in range(13, len(stream), 61):
            assert server.converse(stream, (cut,)) == whole, cut
            assert _kept(archive) == (explicit, implicit)


def _kept(archive: Archive) -> tuple[bytes, ...]:
    kept = tuple(stored_bytes(archive, uid) for uid in ("1.2.3.1", "1.2.3.2"))
    assert archive.index.stats().instances == 2
    return kept
