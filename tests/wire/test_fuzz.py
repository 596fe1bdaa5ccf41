"""Hostile bytes: the kept corpus, and seeded mutations of it (``PACSTEST_FUZZ_INPUTS`` sets how many).

After any input the association is over, its socket closed and its data set sink finished or dropped; nothing
was raised that nobody foresaw; it took bounded work; and the next peer is served.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import psutil
import pytest
from pydicom.uid import CTImageStorage
from pynetdicom.presentation import build_context

from pacs.archive.archive import Archive
from pacs.dimse.ae import Options, make_ae
from pacs.wire import command
from pacs.wire.ae import EngineAE
from pacs.wire.association import EngineAssociation
from tests.peers import STUDY_ROOT_FIND, VERIFICATION, identifier, spool_files
from tests.wire.fuzzing import corpus, mutate
from tests.wire.inline import InlineServer, Recorder, archive_server, recording_server
from tests.wire.wire import (
    IMPLICIT,
    RELEASE_PDU,
    associate_pdu,
    echo_command,
    item,
    message,
    pdu,
    pdv,
)

_INPUTS = int(os.environ.get("PACSTEST_FUZZ_INPUTS", "1500"))
#: The archive and the requestor take several times as long for each input.
_FEWER = _INPUTS // 6
_SEED = int(os.environ.get("PACSTEST_FUZZ_SEED", "1"))
_PEAK_BYTES = 3 << 20
#: Of one input of at most 1 MiB, CPU time; the heaviest of those below takes a fifth.
_CPU_SECONDS = 1.0
_ECHO = associate_pdu({1: (VERIFICATION, IMPLICIT)}) + message(1, echo_command(1)) + RELEASE_PDU
ACCEPTOR_CORPUS = {
    name: data for name, data in corpus().items() if not name.startswith("acceptor-")
}
#: What an acceptor sends to us as requestor.
REQUESTOR_CORPUS = {name: data for name, data in corpus().items() if name.startswith("acceptor-")}

pytestmark = pytest.mark.timeout(60 + _INPUTS)


@pytest.fixture(scope="module")
def bench() -> Iterator[tuple[InlineServer, Recorder]]:
    """A server whose handlers only record."""
    with recording_server() as running:
        running[1].looks_for_cancel = True
        yield running


@pytest.fixture
def fuzzed_archive(tmp_path: Path, sqlite_template: Path) -> Iterator[tuple[InlineServer, Archive]]:
    """A server in front of a real archive."""
    with archive_server(tmp_path, sqlite_template) as running:
        yield running


def _is_served(server: InlineServer) -> bool:
    answer = server.converse(_ECHO)
    return answer[:1] == b"\x02" and answer[-10:-9] == b"\x06"


def _unforeseen(caplog: pytest.LogCaptureFixture) -> list[str]:
    # pynetdicom logs a traceback of its own for text that is not ASCII, and goes on.
    ours = [one for one in caplog.records if one.exc_info and one.name.startswith("pacs")]
    raised = [repr(one.exc_info and one.exc_info[1]) for one in ours]
    caplog.clear()
    return raised


class _Work:
    """Asserts that a block took bounded work in this thread, in which the association runs as well."""

    def __init__(self, name: object) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._before = time.thread_time()

    def __exit__(self, *_: object) -> None:
        seconds = time.thread_time() - self._before
        assert seconds < _CPU_SECONDS, (self._name, seconds)


def _request(items: bytes) -> bytes:
    """An A-ASSOCIATE-RQ of these items."""
    fixed = struct.pack(">HH16s16s32x", 1, 0, b"PACS".ljust(16), b"PEER".ljust(16))
    return pdu(0x01, fixed + item(0x10, b"1.2.840.10008.3.1.1.1") + items)


def _context(number: int, transfer_syntaxes: Iterable[str]) -> bytes:
    syntaxes = b"".join(item(0x40, one.encode()) for one in transfer_syntaxes)
    abstract = item(0x30, str(CTImageStorage).encode())
    return item(0x20, bytes((number & 0xFF, 0, 0, 0)) + abstract + syntaxes)


_USER = item(0x50, item(0x51, struct.pack(">I", 16_384)))
_ROLE = item(0x54, struct.pack(">H", 25) + b"1.2.840.10008.5.1.4.1.1.2" + b"\1\1")
#: What costs work that grows with the square of its length, if one is not careful.
SWOLLEN = {
    "a quarter of a million items without content": _request(item(0x50, b"") * 239_000),
    "as many of an unknown type": _request(item(0x99, b"") * 239_000),
    "items within items": _request(
        item(
            0x50, b"".join(struct.pack(">BBH", 0x50, 0, 4 * left) for left in range(15_000, 0, -1))
        )
    ),
    "5,000 transfer syntaxes in one context": _request(
        _context(1, (f"1.2.{n}" for n in range(5_000))) + _USER
    ),
    "128 contexts of 70 transfer syntaxes, all of one SOP Class": _request(
        b"".join(_context(2 * n + 1, (f"1.2.{n}.{k}" for k in range(70))) for n in range(128))
        + _USER
    ),
    "one context 3,000 times": _request(_context(1, [IMPLICIT]) * 3_000 + _USER),
    "one role 1,500 times": _request(_context(1, [IMPLICIT]) + item(0x50, _ROLE * 1_500)),
    "a command set of 6,000 elements": associate_pdu({1: (VERIFICATION, IMPLICIT)})
    + message(1, struct.pack("<HHIH", 0, 0x0110, 2, 1) * 6_000),
    "a hundred thousand fragments without content": associate_pdu({1: (VERIFICATION, IMPLICIT)})
    + pdu(0x04, pdv(1, 0x01, b"") * 20_000) * 5,
}


@pytest.mark.parametrize("name", SWOLLEN)
def test_swollen_input_takes_bounded_work(
    bench: tuple[InlineServer, Recorder], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    server, _ = bench

    with _Work(name):
        server.converse(SWOLLEN[name])

    assert not _unforeseen(caplog)
    assert _is_served(server)


def test_corpus_is_there() -> None:
    assert len(ACCEPTOR_CORPUS) > 20
    assert len(REQUESTOR_CORPUS) > 3


@pytest.mark.parametrize("name", ACCEPTOR_CORPUS)
def test_kept_input_ends_the_association_in_bounded_memory(
    bench: tuple[InlineServer, Recorder], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    server, recorder = bench
    recorder.sinks.clear()

    tracemalloc.start()
    server.converse(ACCEPTOR_CORPUS[name])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert not _unforeseen(caplog)
    assert all(sink.ending == "discarded" for sink in recorder.sinks)
    assert peak < _PEAK_BYTES
    assert _is_served(server)


def test_kept_inputs_leave_nothing_in_the_archive_s_spool(
    fuzzed_archive: tuple[InlineServer, Archive], caplog: pytest.LogCaptureFixture
) -> None:
    server, archive = fuzzed_archive
    for name, data in ACCEPTOR_CORPUS.items():
        server.converse(data)
        assert not _unforeseen(caplog), name
        assert spool_files(archive) == [], name

    assert _is_served(server)


def test_mutated_streams_end_their_association_and_nothing_else(
    bench: tuple[InlineServer, Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    server, recorder = bench
    random, seeds = Random(_SEED), list(ACCEPTOR_CORPUS.values())
    before = threading.active_count(), psutil.Process().num_fds()

    for number in range(_INPUTS):
        data = mutate(random, seeds)
        recorder.sinks.clear()
        recorder.seen.clear()
        with _Work((number, data.hex()[:2_000])):
            server.converse(data)
        assert not _unforeseen(caplog), (number, data.hex())
        assert all(sink.ending == "discarded" for sink in recorder.sinks), (number, data.hex())
        assert server.ae.active_associations == []

    # Less, if the collector has closed what an earlier test left behind.
    assert threading.active_count() <= before[0]
    assert psutil.Process().num_fds() <= before[1]
    assert _is_served(server)


def test_mutated_streams_leave_nothing_in_the_archive_s_spool(
    fuzzed_archive: tuple[InlineServer, Archive], caplog: pytest.LogCaptureFixture
) -> None:
    server, archive = fuzzed_archive
    random, seeds = Random(_SEED + 1), list(ACCEPTOR_CORPUS.values())

    for number in range(_FEWER):
        data = mutate(random, seeds)
        with _Work((number, data.hex()[:2_000])):
            server.converse(data)
        assert not _unforeseen(caplog), (number, data.hex())
        assert spool_files(archive) == [], (number, data.hex())

    assert _is_served(server)


def test_mutated_command_sets_are_a_value_or_invalid_command() -> None:
    random = Random(_SEED + 2)
    seeds = [echo_command(), command.encode({"OffendingElement": (1, 2), "ErrorComment": "x"})]

    for _ in range(10 * _INPUTS):
        data = mutate(random, seeds)
        try:
            values, ill_typed = command.decode(data)
        except command.InvalidCommand:
            continue
        known = {keyword for keyword, _ in command.ELEMENTS.values()}
        assert set(values) | set(ill_typed) <= known


# As requestor


class _Acceptor:
    """A peer that answers whoever connects with the next bytes of its list, and closes."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def answer_with(self, data: bytes) -> threading.Thread:
        """Serve one connection in a thread."""
        thread = threading.Thread(target=self._serve, args=(data,))
        thread.start()
        return thread

    def _serve(self, data: bytes) -> None:
        connection, _ = self._listener.accept()
        with connection:
            try:
                connection.settimeout(5)
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
            except OSError:
                return  # the requestor has hung up, as it may

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


def _ask_everything(ae: EngineAE, port: int) -> EngineAssociation:
    contexts = [build_context(VERIFICATION, IMPLICIT), build_context(STUDY_ROOT_FIND, IMPLICIT)]
    assoc = ae.associate("127.0.0.1", port, contexts=contexts)
    as_scu = {str(one.abstract_syntax) for one in assoc.accepted_contexts if one.as_scu}
    if assoc.is_usable and VERIFICATION in as_scu:
        assoc.send_c_echo()
    if assoc.is_usable and STUDY_ROOT_FIND in as_scu:
        for _ in assoc.send_c_find(identifier("STUDY"), STUDY_ROOT_FIND):
            pass
    assoc.release()
    return assoc


@pytest.mark.parametrize("number_of_inputs", [0, _FEWER], ids=["kept", "mutated"])
def test_hostile_acceptor_costs_one_association(
    caplog: pytest.LogCaptureFixture, number_of_inputs: int
) -> None:
    random, seeds = Random(_SEED + 3), list(REQUESTOR_CORPUS.values())
    inputs = [mutate(random, seeds) for _ in range(number_of_inputs)] or seeds
    ae = make_ae(Options(acse_timeout_seconds=2, dimse_timeout_seconds=2))

    with closing(_Acceptor()) as acceptor:
        for number, data in enumerate(inputs):
            thread = acceptor.answer_with(data)
            with _Work((number, data.hex()[:2_000])):
                assoc = _ask_everything(ae, acceptor.port)
            thread.join(10)
            assert not thread.is_alive()
            assert not assoc.dul.is_connected, (number, data.hex())
            assert not _unforeseen(caplog), (number, data.hex())
