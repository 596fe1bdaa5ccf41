"""A SOP Class that is stored in several transfer syntaxes: what is proposed, and what a C-MOVE and its retry send."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)
from pynetdicom.presentation import PresentationContext

from pacs.archive.retry import plan_retry
from pacs.dimse.ae import Options, make_ae
from pacs.dimse.remote import RemoteAEs
from pacs.dimse.retry_scu import RetrySCU
from pacs.dimse.storage_scu import by_association, contexts_for
from tests.dimse.retrieving import SUCCESS, make_study, recorded, study_query, uids_of
from tests.peers import (
    STUDY_ROOT_MOVE,
    Destination,
    RunningArchive,
    association,
    data_set_bytes,
    deposit_bytes,
    register,
    responses,
)
from tests.serving import engine_on_sqlite

StartDestination = Callable[..., Destination]

SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
]
#: Every pair and every triple.
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
MIXTURES = [*combinations(SYNTAXES, 2), *combinations(SYNTAXES, 3)]


def _encoded(instance: Dataset, syntax: str) -> bytes:
    if syntax != RLELossless:
        return data_set_bytes(instance, syntax)
    compressed = Dataset()
    compressed.update({element.tag: element for element in instance})
    compressed.file_meta = instance.file_meta
    del compressed.PixelData
    pixels = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + encapsulate([bytes(64)])
    return data_set_bytes(compressed, ExplicitVRLittleEndian) + pixels + _SEQUENCE_END


def _proposed(contexts: list[PresentationContext]) -> list[tuple[str, list[str]]]:
    return [(str(one.abstract_syntax), list(one.transfer_syntax)) for one in contexts]


def test_no_context_is_proposed_without_a_transfer_syntax() -> None:
    both = {
        (CTImageStorage, ImplicitVRLittleEndian): 1,
        (CTImageStorage, ExplicitVRLittleEndian): 2,
    }

    assert _proposed(contexts_for(both)) == [
        (CTImageStorage, [ExplicitVRLittleEndian]),
        (CTImageStorage, [ImplicitVRLittleEndian]),
    ]


def test_no_context_is_proposed_for_what_cannot_be_in_one() -> None:
    make_ae(Options())  # from then on UIDs are taken as they are
    stored = {
        ("1." + "2" * 63, ExplicitVRLittleEndian): 3,
        ("1.2.3a", ExplicitVRLittleEndian): 3,
        (CTImageStorage, ""): 3,
        (MRImageStorage, ImplicitVRLittleEndian): 1,
    }

    assert _proposed(contexts_for(stored)) == [
        ("1.2.3a", [ExplicitVRLittleEndian]),  # there is room for it
        ("1.2.3a", [ImplicitVRLittleEndian]),
        (MRImageStorage, [ImplicitVRLittleEndian]),
        (MRImageStorage, [ExplicitVRLittleEndian]),
    ]


def test_the_contexts_of_a_sop_class_are_on_one_association() -> None:
    stored = {
        (f"1.2.{number}", syntax): 1
        for number in range(100)
        for syntax in (RLELossless, ExplicitVRBigEndian)
    }

    associations = by_association(contexts_for(stored))

    assert [len(contexts) for contexts in associations] == [126, 126, 48]
    classes = [{one.abstract_syntax for one in contexts} for contexts in associations]
    assert sum(map(len, classes)) == 100


@engine_on_sqlite
def test_every_pair_and_triple_of_syntaxes_of_one_class_is_moved_and_retried(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination(answer=0xA700)
    register(service.archive, "DEST", destination.port)
    expected: list[dict[str, tuple[str, bytes]]] = []
    for number, mixture in enumerate(MIXTURES):
        instances = make_study(len(mixture), f"1.2.276.27.{number}")
        expected.append({})
        for instance, syntax in zip(instances, mixture, strict=True):
            data = _encoded(instance, syntax)
            deposit_bytes(service.archive, instance, data, syntax)
            expected[-1][instance.SOPInstanceUID] = syntax, data

    def arrived() -> dict[str, tuple[str, bytes]]:
        found = {
            one.sop_instance_uid: (one.transfer_syntax_uid, one.data)
            for one in destination.received
        }
        destination.received.clear()
        return found

    remotes = RemoteAEs(service.archive.index, ())
    with association(service, STUDY_ROOT_MOVE) as assoc:
        for number, wanted in enumerate(expected):
            query = study_query(f"1.2.276.27.{number}")
            # Refused by the destination at first, so that there is something to retry.
            destination.answer = 0xA700
            failed = responses(assoc.send_c_move(query, "DEST", STUDY_ROOT_MOVE))[-1]
            assert failed.counts[1:] == (0, len(wanted), 0)
            assert arrived() == wanted
            destination.answer = 0x0000

            retry = RetrySCU(
                service.archive,
                Options(),
                remotes,
                plan_retry(service.archive, recorded(service)[0].key),
            )
            assert list(retry.run())
            assert (retry.status, retry.failures) == (SUCCESS, [])
            assert arrived() == wanted

            moved = responses(assoc.send_c_move(query, "DEST", STUDY_ROOT_MOVE))[-1]
            assert (moved.status, moved.counts[1:]) == (SUCCESS, (len(wanted), 0, 0))
            assert arrived() == wanted


@engine_on_sqlite
@pytest.mark.parametrize("accepted", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_mixture_is_converted_for_a_destination_that_takes_one_syntax(
    service: RunningArchive, start_destination: StartDestination, accepted: str
) -> None:
    destination = start_destination(accepts=lambda _class, syntax: syntax == accepted)
    register(service.archive, "DEST", destination.port)
    instances = make_study(4)
    for instance, syntax in zip(instances, SYNTAXES, strict=False):
        deposit_bytes(service.archive, instance, _encoded(instance, syntax), syntax)

    with association(service, STUDY_ROOT_MOVE) as assoc:
        final = responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))[-1]

    assert final.status == SUCCESS
    assert destination.uids == uids_of(instances)
    assert {one.transfer_syntax_uid for one in destination.received} == {accepted}
