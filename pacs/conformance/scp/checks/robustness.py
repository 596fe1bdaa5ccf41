"""What an SCP does with what no SCU should send (PS3.8 9.2, 9.3; PS3.7 6.3, 9.3, Annex C).

Each check ends by asking whether the SCP still answers others.
"""

from __future__ import annotations

import struct
import time
from dataclasses import replace

from pacs.conformance.judgement import Requirement
from pacs.conformance.scp.check import IMPLICIT, UNCOMPRESSED, VERIFICATION, Run, check
from pacs.conformance.scp.operations import echo
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import (
    Aborted,
    Association,
    AssociationEnded,
    ConnectionClosed,
    NoAnswer,
    Rejected,
    Released,
    UnexpectedPDU,
)
from pacs.conformance.wire.command import NO_DATA_SET, CommandValue
from pacs.conformance.wire.message import CommandField, Message, request

_UNKNOWN_PDU_TYPE = 0x99
_UNKNOWN_COMMAND_FIELD = 0x0777
_HUGE_LENGTH = 0xFFFFFF00
_SUCCESS, _UNRECOGNISED_OPERATION = 0x0000, 0x0211
#: Error Comment's element number lies behind all that a C-ECHO-RQ has; a length that leads out of the command set.
_CUT_ELEMENT = struct.pack("<HHI", 0x0000, 0x0902, 64) + b"cut"


def _established(run: Run) -> Association:
    association = run.connect("the association that is disturbed")
    association.request(run.proposal([(VERIFICATION, UNCOMPRESSED)]))
    return association


def _still_answers(run: Run) -> None:
    with run.associate([(VERIFICATION, UNCOMPRESSED)], title="is it still there?") as association:
        answer = echo(association, association.contexts[1])
        run.expect(
            answer.status == _SUCCESS,
            "a C-ECHO on a new association is answered afterwards",
            f"status {answer.status}",
        )


def _expect_abort(run: Run, association: Association, why: str) -> None:
    """The SCP aborts, or at least ends the connection; anything else is an answer to nonsense."""
    expected = f"A-ABORT ({why})"
    try:
        received = association.receive_pdu()
    except ConnectionClosed:
        run.warn(expected, "the connection was closed without an A-ABORT")
        return
    except NoAnswer:
        run.fail(expected, f"nothing within {run.peer.timeout_seconds:g} s")
    except UnexpectedPDU as error:
        run.fail(expected, str(error))
    run.expect(isinstance(received, pdus.Abort), expected, f"PDU type {received.pdu_type:#04x}")


def _disturb(run: Run, data: bytes, why: str) -> None:
    with _established(run) as association:
        association.send_bytes(data)
        _expect_abort(run, association, why)
    _still_answers(run)


def _p_data(*values: pdus.PDV) -> bytes:
    return pdus.encode(pdus.PData(values))


def _echo_command(**elements: CommandValue | None) -> bytes:
    return request(CommandField.C_ECHO_RQ, 1, 1, VERIFICATION, None, **elements).encoded_command()


@check(
    "robustness.pdu-type-unknown",
    "PS3.8 9.2.3",
    "aborts when it gets a PDU of a type that does not exist",
)
def unknown_pdu(run: Run) -> None:
    """Event 19 in state 6 is action AA-8."""
    run.sent(f"a PDU of type {_UNKNOWN_PDU_TYPE:#04x} on an association")
    _disturb(
        run, pdus.encode(pdus.UnknownPDU(_UNKNOWN_PDU_TYPE, b"what?")), "Event 19, action AA-8"
    )


@check(
    "robustness.associate-twice",
    "PS3.8 9.2.3",
    "aborts when it gets A-ASSOCIATE-RQ on an association",
)
def second_request(run: Run) -> None:
    """Event 6 in state 6 is action AA-8."""
    run.sent("A-ASSOCIATE-RQ on an association that exists")
    again = run.proposal([(VERIFICATION, UNCOMPRESSED)])
    _disturb(run, pdus.encode(again), "Event 6, action AA-8")


@check(
    "robustness.p-data-first",
    "PS3.8 9.2.3",
    "aborts when P-DATA-TF comes before any A-ASSOCIATE-RQ",
)
def data_before_association(run: Run) -> None:
    """Event 10 in state 2 is action AA-1."""
    run.sent("C-ECHO-RQ in P-DATA-TF as the first PDU of a connection")
    with run.connect() as association:
        association.send_bytes(_p_data(pdus.PDV(1, 3, _echo_command())))
        _expect_abort(run, association, "Event 10, action AA-1")
    _still_answers(run)


@check(
    "robustness.release-first",
    "PS3.8 9.2.3",
    "aborts when A-RELEASE-RQ comes before any A-ASSOCIATE-RQ",
)
def release_before_association(run: Run) -> None:
    """Event 12 in state 2 is action AA-1."""
    run.sent("A-RELEASE-RQ as the first PDU of a connection")
    with run.connect() as association:
        association.send_pdu(pdus.ReleaseRequest())
        _expect_abort(run, association, "Event 12, action AA-1")
    _still_answers(run)


@check(
    "robustness.context-not-accepted",
    "PS3.8 9.3.5.1",
    "answers nothing on a presentation context that was not negotiated",
)
def unknown_context(run: Run) -> None:
    """A context that was not accepted has no meaning."""
    run.sent("C-ECHO-RQ on presentation context 99, which was not proposed")
    with _established(run) as association:
        association.send_bytes(_p_data(pdus.PDV(99, 3, _echo_command())))
        _expect_no_success(run, association)
    _still_answers(run)


def _expect_no_success(run: Run, association: Association) -> None:
    expected = "A-ABORT, or a response that is no success"
    try:
        answer = association.receive()
    except (Aborted, ConnectionClosed, Released):
        return
    except NoAnswer:
        run.warn(expected, "no answer and no A-ABORT: the SCU waits in vain")
        return
    except UnexpectedPDU as error:
        run.fail(expected, str(error))
    run.expect(answer.status != _SUCCESS, expected, f"{answer.name} with status 0x0000")


@check(
    "robustness.pdv-too-long",
    "PS3.8 9.3.5.1",
    "aborts when a PDV is longer than the PDU that holds it",
)
def lying_pdv(run: Run) -> None:
    """The length of the item leads out of the PDU."""
    run.sent("P-DATA-TF with a PDV item whose length is beyond the end of the PDU")
    command = _echo_command()
    value = struct.pack(">IBB", len(command) + 1000, 1, 3) + command
    _disturb(run, struct.pack(">BxI", 4, len(value)) + value, "an invalid parameter value")


@check(
    "robustness.command-cut",
    "PS3.7 6.3.1",
    "does not carry out a command set that ends inside an element",
    Requirement.SHOULD,
)
def cut_command(run: Run) -> None:
    """The last element announces more than there is."""
    run.sent("C-ECHO-RQ whose last element ends before its length does")
    with _established(run) as association:
        association.send_bytes(_p_data(pdus.PDV(1, 3, _echo_command() + _CUT_ELEMENT)))
        _expect_no_success(run, association)
    _still_answers(run)


@check(
    "robustness.command-field-unknown",
    "PS3.7 C.5",
    "answers an operation that does not exist with 0x0211, or aborts",
    Requirement.SHOULD,
)
def unknown_operation(run: Run) -> None:
    """Unrecognized operation."""
    run.sent(f"a request with Command Field 0x{_UNKNOWN_COMMAND_FIELD:04X}")
    values: dict[str, CommandValue] = {
        "AffectedSOPClassUID": VERIFICATION,
        "CommandField": _UNKNOWN_COMMAND_FIELD,
        "MessageID": 1,
        "CommandDataSetType": NO_DATA_SET,
    }
    with _established(run) as association:
        association.send(Message(1, values))
        try:
            answer = association.receive()
        except (Aborted, ConnectionClosed, Released):
            run.expect(True, "status 0x0211 or A-ABORT", "the association ended")
        else:
            run.expect(
                answer.status == _UNRECOGNISED_OPERATION,
                "status 0x0211 or A-ABORT",
                f"{answer.name} with status {answer.status!r}",
            )
    _still_answers(run)


@check(
    "robustness.message-id-missing",
    "PS3.7 9.3.5.1",
    "does not answer a request without Message ID with Success",
    Requirement.SHOULD,
)
def no_message_id(run: Run) -> None:
    """Message ID is mandatory: there is nothing that the response could refer to."""
    run.sent("C-ECHO-RQ without Message ID")
    with _established(run) as association:
        association.send_bytes(_p_data(pdus.PDV(1, 3, _echo_command(MessageID=None))))
        _expect_no_success(run, association)
    _still_answers(run)


@check(
    "robustness.fragmented-command",
    "PS3.8 9.3.5.1",
    "takes a command set in fragments of two bytes, one in each PDU",
)
def small_fragments(run: Run) -> None:
    """Nothing says how long a fragment has to be."""
    run.sent("C-ECHO-RQ in fragments of two bytes")
    command = _echo_command()
    pieces = [command[begin : begin + 2] for begin in range(0, len(command), 2)]
    with _established(run) as association:
        for number, piece in enumerate(pieces, start=1):
            control = 3 if number == len(pieces) else 1
            association.send_bytes(_p_data(pdus.PDV(1, control, piece)))
        answer = association.receive()
        run.expect(answer.status == _SUCCESS, "status 0x0000", f"status {answer.status!r}")
        association.release()


@check(
    "robustness.byte-by-byte",
    "PS3.8 9.1.1",
    "takes PDUs that TCP delivers a byte at a time",
)
def single_bytes(run: Run) -> None:
    """TCP is a stream: where a segment ends means nothing."""
    run.sent("C-ECHO-RQ, each byte in a TCP segment of its own")
    with _established(run) as association:
        for byte in _p_data(pdus.PDV(1, 3, _echo_command())):
            association.send_bytes(bytes((byte,)))
        answer = association.receive()
        run.expect(answer.status == _SUCCESS, "status 0x0000", f"status {answer.status!r}")
        association.release()


@check(
    "robustness.pdu-of-four-gigabytes",
    "PS3.8 D.1.1",
    "does not wait for the whole of a PDU longer than it announced",
    Requirement.SHOULD,
)
def huge_pdu(run: Run) -> None:
    """The length alone is enough to know."""
    run.sent(f"the header of a P-DATA-TF PDU of {_HUGE_LENGTH} bytes and a few of them")
    with _established(run) as association:
        association.send_bytes(struct.pack(">BxI", 4, _HUGE_LENGTH) + bytes(1000))
        _expect_abort(run, association, "more than the maximum length that was announced")
    _still_answers(run)


@check(
    "robustness.connection-lost",
    "PS3.8 9.2.3",
    "survives a connection that ends in the middle of a message",
)
def lost_connection(run: Run) -> None:
    """Event 17."""
    run.sent("half of a C-ECHO-RQ, and the end of the connection")
    with _established(run) as association:
        data = _p_data(pdus.PDV(1, 3, _echo_command()))
        association.send_bytes(data[: len(data) // 2])
    _still_answers(run)


@check(
    "robustness.abort",
    "PS3.8 7.3",
    "survives an A-ABORT in the middle of a message",
)
def aborted(run: Run) -> None:
    """The first fragment of a command set, and A-ABORT."""
    run.sent("the first fragment of a C-ECHO-RQ, then A-ABORT")
    with _established(run) as association:
        association.send_bytes(_p_data(pdus.PDV(1, 1, _echo_command()[:20])))
        association.abort()
    _still_answers(run)


@check(
    "robustness.silent-connections",
    "PS3.8 9.1.5",
    "answers others while connections stand open without a word",
    Requirement.SHOULD,
)
def silent_connections(run: Run) -> None:
    """ARTIM ends them in time; until then they must not be in the way."""
    run.sent("three connections without A-ASSOCIATE-RQ, then C-ECHO-RQ on another")
    silent = [run.connect(f"silent connection {number}") for number in range(3)]
    try:
        _still_answers(run)
    except AssociationEnded as error:
        run.fail("a C-ECHO on another connection is answered", str(error))
    finally:
        for association in silent:
            association.close()


@check(
    "robustness.protocol-version",
    "PS3.8 9.3.2",
    "accepts a protocol version field with more bits than bit 0",
)
def later_versions(run: Run) -> None:
    """A receiver tests bit 0 only: the others are for versions to come."""
    run.sent("A-ASSOCIATE-RQ with protocol version 0x8003")
    proposal = replace(run.proposal([(VERIFICATION, (IMPLICIT,))]), protocol_version=0x8003)
    with run.connect() as association:
        try:
            association.request(proposal)
        except Rejected as rejected:
            run.fail("A-ASSOCIATE-AC", str(rejected))
        association.release()


@check(
    "robustness.reaction-time",
    "PS3.7 9.1.5",
    "answers C-ECHO within a second after all that",
    Requirement.MAY,
)
def answers_soon(run: Run) -> None:
    """No clause says how fast; people wait, though."""
    run.sent("C-ECHO-RQ")
    with run.associate([(VERIFICATION, (IMPLICIT,))]) as association:
        started = time.monotonic()
        echo(association, association.contexts[1])
        seconds = time.monotonic() - started
        run.expect(seconds < 1.0, "a response within 1 s", f"one after {seconds:.1f} s")
        association.release()
