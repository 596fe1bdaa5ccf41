"""PDUs and messages of the conformance instrument survive the way there and back (PS3.8 9.3, PS3.7 6.3)."""

from __future__ import annotations

import pytest

from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.message import (
    CommandField,
    MalformedMessage,
    decode_command,
    decode_data_set,
    encode_data_set,
    fragments,
    request,
)
from pacs.conformance.wire.trace import Trace
from tests.factories import make_instance

STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
SYNTAXES = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)


@pytest.mark.parametrize(
    "pdu",
    [
        pdus.AssociateRequest(
            "CALLED",
            "CALLING",
            (
                pdus.maximum_length(0),
                pdus.role_selection(STUDY_FIND, scu=True, scp=False),
                pdus.extended_negotiation(STUDY_FIND, b"\1\0\1"),
            ),
            contexts=(pdus.ProposedContext(1, STUDY_FIND, SYNTAXES[:2]),),
        ),
        pdus.AssociateAccept(
            "CALLED", "CALLING", contexts=(pdus.AnsweredContext(1, 3, SYNTAXES[0]),)
        ),
        pdus.AssociateReject(1, 2, 3),
        pdus.PData((pdus.PDV(1, 3, b"ab"), pdus.PDV(3, 0, b""))),
        pdus.ReleaseRequest(),
        pdus.ReleaseResponse(),
        pdus.Abort(2, 6),
        pdus.UnknownPDU(0x99, b"?"),
    ],
    ids=lambda pdu: type(pdu).__name__,
)
def test_pdu_round_trip(pdu: pdus.PDU) -> None:
    encoded = pdus.encode(pdu)
    assert int.from_bytes(encoded[2:6], "big") == len(encoded) - 6
    assert pdus.decode(encoded[0], encoded[6:]) == pdu


def test_cut_pdus_are_malformed_and_nothing_else() -> None:
    encoded = pdus.AssociateRequest(
        "A", "B", (pdus.maximum_length(1),), contexts=(pdus.ProposedContext(1, "1.2", ("1.3",)),)
    ).body()
    for end in range(len(encoded)):
        try:
            pdus.decode(1, encoded[:end])
        except pdus.MalformedPDU:
            continue


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_data_set_round_trip(syntax: str) -> None:
    encoded = encode_data_set(make_instance(), syntax)
    decoded = decode_data_set(encoded, syntax)
    assert decoded.PatientName == make_instance().PatientName
    assert encode_data_set(decoded, syntax) == encoded


def test_fragments_fit_the_maximum_length() -> None:
    message = request(CommandField.C_FIND_RQ, 1, 1, STUDY_FIND, bytes(1001))
    values = list(fragments(message, 128))
    assert all(len(pdus.PData((value,)).body()) <= 128 for value in values)
    assert all(len(value.fragment) % 2 == 0 for value in values[:-1])
    command = b"".join(value.fragment for value in values if value.is_command)
    assert decode_command(command).values["MessageID"] == 1
    assert [value.is_last for value in values].count(True) == 2


def test_a_data_set_that_is_none_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        decode_data_set(b"\x08\x00\x05\x00\xff\xff\xff\x7f12", SYNTAXES[0])


def test_a_trace_survives_json() -> None:
    trace = Trace("title")
    trace.pdu("sent", pdus.AssociateReject(1, 1, 7))
    trace.message("received", request(CommandField.C_FIND_RQ, 1, 1, STUDY_FIND), SYNTAXES[0])
    again = Trace.from_json(trace.to_json())
    assert list(again.lines()) == list(trace.lines())
    assert "called AE title not recognised" in "\n".join(again.lines())
