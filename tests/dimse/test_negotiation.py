"""Which presentation contexts are accepted, against both engines (PS3.8 7.1.1.14, PS3.7 D.3.3.4)."""

from __future__ import annotations

import struct

import pytest
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from pynetdicom.presentation import build_context

from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import Association, Rejected, proposed_contexts
from pacs.conformance.wire.trace import Trace
from pacs.dicom.information_model import QUERY_RETRIEVE_SOP_CLASSES
from pacs.dicom.sop_classes import STORAGE_SOP_CLASSES
from pacs.dimse import negotiation
from pacs.dimse.negotiation import storage_contexts
from pacs.model.associations import AssociationEnding
from tests.peers import (
    CALLED,
    CALLING,
    VERIFICATION,
    RunningArchive,
    associate,
    association,
    end,
    wait_until,
)
from tests.serving import engine_on_sqlite
from tests.wire.wire import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    Wire,
    associate_pdu,
    item,
    pdu,
)

PRINT_MANAGEMENT = "1.2.840.10008.5.1.1.9"
MODALITY_WORKLIST = "1.2.840.10008.5.1.4.31"


def test_every_query_retrieve_sop_class_is_accepted(service: RunningArchive) -> None:
    with association(service, VERIFICATION, *QUERY_RETRIEVE_SOP_CLASSES) as assoc:
        assert len(assoc.accepted_contexts) == 1 + len(QUERY_RETRIEVE_SOP_CLASSES)


def test_every_storage_sop_class_of_the_standard_is_accepted(service: RunningArchive) -> None:
    uids = sorted(STORAGE_SOP_CLASSES)

    for first in range(0, len(uids), 128):
        with association(service, *uids[first : first + 128]) as assoc:
            assert assoc.rejected_contexts == []


def test_each_pair_in_a_context_of_its_own_is_accepted_as_it_is(service: RunningArchive) -> None:
    syntaxes = [RLELossless, JPEG2000, ImplicitVRLittleEndian, "1.2.826.0.1.3680043.8.498.5.1"]

    with association(service, *(build_context(CTImageStorage, one) for one in syntaxes)) as assoc:
        accepted = [one.transfer_syntax for one in assoc.accepted_contexts]

    assert accepted == [[one] for one in syntaxes]


def test_of_several_transfer_syntaxes_the_first_is_accepted(service: RunningArchive) -> None:
    context = build_context(CTImageStorage, [JPEG2000, ExplicitVRLittleEndian])

    with association(service, context) as assoc:
        [accepted] = assoc.accepted_contexts

    assert accepted.transfer_syntax == [JPEG2000]


@pytest.mark.parametrize("other", [PRINT_MANAGEMENT, MODALITY_WORKLIST])
def test_service_that_is_not_offered_is_refused_alone(service: RunningArchive, other: str) -> None:
    with association(service, other, VERIFICATION) as assoc:
        assert [one.abstract_syntax for one in assoc.rejected_contexts] == [other]
        assert assoc.rejected_contexts[0].result == 0x03
        assert assoc.send_c_echo().Status == 0x0000


def test_association_without_any_accepted_context_is_ended_by_the_requestor(
    service: RunningArchive,
) -> None:
    assoc = associate(service, PRINT_MANAGEMENT)
    end(assoc)

    assert not assoc.is_established


def test_storage_role_of_scp_is_granted_for_get(service: RunningArchive) -> None:
    with association(service, CTImageStorage, get=True) as assoc:
        [accepted] = assoc.accepted_contexts

    assert accepted.as_scp


def test_storage_contexts_take_each_sop_class_once_and_leave_others_out() -> None:
    proposed = [
        build_context(CTImageStorage, RLELossless),
        build_context(CTImageStorage, [JPEG2000, RLELossless]),
        build_context(PRINT_MANAGEMENT),
    ]

    [supported] = storage_contexts(proposed)

    assert supported.abstract_syntax == CTImageStorage
    assert supported.transfer_syntax == [RLELossless, JPEG2000]


@engine_on_sqlite
def test_of_the_protocol_version_only_bit_0_is_tested(service: RunningArchive) -> None:
    """PS3.8 9.3.2: a receiver that knows version 1 alone tests that bit and no other."""
    proposal = pdus.AssociateRequest(
        "PACS",
        "PEER",
        (pdus.maximum_length(16384),),
        protocol_version=0x8003,
        contexts=proposed_contexts([(VERIFICATION, [ImplicitVRLittleEndian])]),
    )

    with Association.connect(("127.0.0.1", service.port), Trace(), 10) as assoc:
        accepted = assoc.request(proposal)
        assoc.release()

    assert accepted.contexts[0].result == 0


def test_another_application_context_is_rejected_with_its_reason(service: RunningArchive) -> None:
    """PS3.8 9.3.4: source 1, reason 2; PS3.7 A.2.1 has one application context."""
    proposal = pdus.AssociateRequest(
        "PACS",
        "PEER",
        (pdus.maximum_length(16384),),
        application_context="1.2.3",
        contexts=proposed_contexts([(VERIFICATION, [ImplicitVRLittleEndian])]),
    )

    with (
        Association.connect(("127.0.0.1", service.port), Trace(), 10) as assoc,
        pytest.raises(Rejected) as rejected,
    ):
        assoc.request(proposal)

    reject = rejected.value.reject
    assert (reject.result, reject.source, reject.reason) == (1, 1, 2)


# What pynetdicom cannot decode, and the Standard has a rejection for (PS3.8 9.3.4)

_NAME = b"1.2.840.10008.3.1.1.1"
_ITEMS = associate_pdu({1: (VERIFICATION, ImplicitVRLittleEndian)})[6 + 68 :]


def _raw(
    *,
    called: bytes = CALLED.encode(),
    calling: bytes = CALLING.encode(),
    version: int = 1,
    name: bytes = _NAME,
    items: bytes = _ITEMS,
) -> bytes:
    """An A-ASSOCIATE-RQ with whatever bytes."""
    fixed = struct.pack(">HH16s16s32x", version, 0, called.ljust(16), calling.ljust(16))
    return pdu(ASSOCIATE_RQ, fixed + items.replace(item(0x10, _NAME), item(0x10, name)))


@engine_on_sqlite
@pytest.mark.parametrize(
    ("request_pdu", "codes", "calling", "reason"),
    [
        pytest.param(
            _raw(calling=b"M\xfcller"),
            (1, 1, 3),
            "M\xfcller",
            'the calling AE title "M\xfcller" cannot be one (PS3.5 6.2)',
            id="calling Latin-1",
        ),
        pytest.param(
            _raw(calling="M\xfcller".encode()),
            (1, 1, 3),
            "M\xfcller",
            'the calling AE title "M\xfcller" cannot be one (PS3.5 6.2)',
            id="calling UTF-8",
        ),
        pytest.param(
            _raw(calling=b"A\x1b[2J\nB"),
            (1, 1, 3),
            r"A\x1b[2J\x0aB",
            r'the calling AE title "A\x1b[2J\x0aB" cannot be one (PS3.5 6.2)',
            id="calling escape",
        ),
        pytest.param(
            _raw(calling=b"A\\B"),
            (1, 1, 3),
            "A\\B",
            'the calling AE title "A\\B" cannot be one (PS3.5 6.2)',
            id="calling backslash",
        ),
        pytest.param(
            _raw(calling=bytes(16)), (1, 1, 3), "", "the calling AE title is blank", id="no calling"
        ),
        pytest.param(
            _raw(called=b"P\xc4CS"),
            (1, 1, 7),
            CALLING,
            'the called AE title "P\xc4CS" cannot be one (PS3.5 6.2)',
            id="called Latin-1",
        ),
        pytest.param(
            _raw(called=b" " * 16),
            (1, 1, 7),
            CALLING,
            "the called AE title is blank",
            id="no called",
        ),
        pytest.param(
            _raw(name=b"1.2\xff"),
            (1, 1, 2),
            CALLING,
            'application context "1.2\xff"',
            id="application context not ASCII",
        ),
        pytest.param(
            _raw(name=b"1." * 32 + b"1"),
            (1, 1, 2),
            CALLING,
            f'application context "{"1." * 31}1\N{HORIZONTAL ELLIPSIS}"',
            id="application context too long",
        ),
        pytest.param(
            _raw(version=0), (1, 2, 2), CALLING, "protocol version 0x0000", id="no version"
        ),
        pytest.param(
            _raw(version=2, items=b"\x01\x02\x03"),
            (1, 2, 2),
            CALLING,
            "protocol version 0x0002",
            id="another version with other items",
        ),
    ],
)
def test_what_has_a_rejection_of_its_own_is_rejected_with_one_line_in_the_log(
    service: RunningArchive,
    caplog: pytest.LogCaptureFixture,
    request_pdu: bytes,
    codes: tuple[int, int, int],
    calling: str,
    reason: str,
) -> None:
    with Wire(service.port) as wire:
        wire.send(request_pdu)
        answer = wire.receive()

    assert answer == (ASSOCIATE_RJ, bytes((0, *codes)))
    warnings = [
        one.getMessage()
        for one in caplog.records
        if one.levelname != "INFO" and one.name.startswith(("pynetdicom", "pacs.wire"))
    ]
    assert warnings == [f"association rejected: {calling}@127.0.0.1: {reason}"]
    stored = service.archive.index.associations
    wait_until(lambda: len(stored.newest(2)) == 1)
    [record] = stored.newest(2)
    assert (record.ending, record.codes) == (AssociationEnding.REJECTED, codes)
    assert (record.calling_ae, record.detail) == (calling, reason)


@engine_on_sqlite
@pytest.mark.parametrize(
    "request_pdu",
    [
        _raw(called=CALLED.encode().ljust(16, b"\0"), calling=CALLING.encode().ljust(16, b"\0")),
        # Of the version only bit 0 is looked at (PS3.8 9.3.2).
        _raw(version=0x8003),
        _raw(items=_ITEMS.replace(item(0x10, _NAME), b"")),
    ],
    ids=["titles with NUL", "version with more bits", "no application context"],
)
def test_what_is_meant_well_is_accepted(service: RunningArchive, request_pdu: bytes) -> None:
    with Wire(service.port) as wire:
        wire.send(request_pdu)
        pdu_type, body = wire.receive()

    assert pdu_type == ASSOCIATE_AC
    assert body[4:36] == CALLED.encode().ljust(16) + CALLING.encode().ljust(16)


@engine_on_sqlite
def test_rejection_is_not_remembered_for_who_comes_with_a_like_request(
    service: RunningArchive,
) -> None:
    answers = []
    for title in (b"?", b"\xff", b"?"):
        with Wire(service.port) as wire:
            wire.send(_raw(calling=title))
            answers.append(wire.receive()[0])

    assert answers == [ASSOCIATE_AC, ASSOCIATE_RJ, ASSOCIATE_AC]


@engine_on_sqlite
@pytest.mark.parametrize(
    "items",
    [
        item(0x20, bytes((1, 0, 0, 0)) + item(0x30, b"\xff") + item(0x40, b"1.2.840.10008.1.2")),
        item(0x20, bytes((2, 0, 0, 0)) + item(0x30, b"1.2") + item(0x40, b"1.2.840.10008.1.2")),
        item(0x10, _NAME)[:-4],
    ],
    ids=["abstract syntax not ASCII", "even context", "cut"],
)
def test_what_the_standard_has_no_rejection_for_is_aborted(
    service: RunningArchive, items: bytes
) -> None:
    with Wire(service.port) as wire:
        wire.send(_raw(items=item(0x10, _NAME) + items))
        pdu_type, _ = wire.receive()

    assert pdu_type == ABORT


def test_contexts_for_storage_are_made_once_and_negotiation_leaves_them_alone(
    service: RunningArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposed = [build_context(CTImageStorage, [ImplicitVRLittleEndian])]
    [context] = storage_contexts(proposed)

    for get in (False, True):
        with association(service, *proposed, get=get) as assoc:
            assert [one.as_scp for one in assoc.accepted_contexts] == [get]

    [after] = storage_contexts(proposed)
    assert after is context
    assert after.transfer_syntax == [ImplicitVRLittleEndian]
    assert (after.scu_role, after.scp_role, after.result) == (True, True, None)
    # What a peer could fill the memory with is not kept.
    monkeypatch.setattr(negotiation, "_LONGEST_REMEMBERED", 40)
    assert storage_contexts(proposed)[0] is not context
