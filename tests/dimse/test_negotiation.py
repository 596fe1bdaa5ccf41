"""Which presentation contexts are accepted, against both engines (PS3.8 7.1.1.14, PS3.7 D.3.3.4)."""

from __future__ import annotations

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
from pacs.dimse.negotiation import storage_contexts
from tests.peers import VERIFICATION, RunningArchive, associate, association, end
from tests.serving import engine_on_sqlite

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
