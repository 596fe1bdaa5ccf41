"""Instances that are replaced, deleted or lost between being looked up and being sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacs.storage.filesystem import FilesystemStorage
from tests.dimse.retrieving import (
    SERIES,
    STUDY,
    SUCCESS,
    Getter,
    Mover,
    Outcome,
    Retriever,
    make_study,
    recorded,
    store_study,
    study_query,
)
from tests.multiframe import make_multiframe, native_frames, read
from tests.peers import (
    STUDY_ROOT_FIND,
    Destination,
    RunningArchive,
    association,
    deposit,
    identifier,
    responses,
    settled_file,
)
from tests.serving import engine_only

ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.4.2"
WITHOUT_BULK_DATA = "1.2.840.10008.5.1.4.1.2.5.3"
COUNT = 6

pytestmark = engine_only


def retrieve_and_meanwhile(
    running: RunningArchive,
    retriever: Retriever,
    meanwhile: Callable[[], object],
    model: str = "",
    uids: Sequence[str] = (),
) -> Outcome:
    """Retrieve the study; when its first instance arrives all are looked up, and two of them are laid out."""
    first = make_study(1)[0].SOPInstanceUID

    def answer(_: Any) -> int:
        meanwhile()
        return SUCCESS

    query = identifier("IMAGE", SOPInstanceUID=[*uids]) if model else study_query()
    return retriever.retrieve(running, query, answers={str(first): answer}, model=model)


@pytest.fixture
def mover(service: RunningArchive, start_destination: Callable[..., Destination]) -> Mover:
    mover = Mover(start_destination)
    mover.prepare(service)
    return mover


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "without bulk data"])
def test_instances_replaced_meanwhile_are_sent_as_they_are_now(
    service: RunningArchive, mover: Mover, whole: bool
) -> None:
    uids = store_study(service, COUNT, ImageComments="old")
    new = make_study(COUNT, ImageComments="new, and longer")

    outcome = retrieve_and_meanwhile(
        service,
        mover if whole else Getter(),
        lambda: deposit(service.archive, *new),
        "" if whole else WITHOUT_BULK_DATA,
        uids,
    )

    assert outcome.final.status == SUCCESS
    assert outcome.final.counts[1:] == (COUNT, 0, 0)
    assert outcome.uids == uids
    comments = [
        read(one.data, one.sop_class_uid, one.transfer_syntax_uid).ImageComments
        for one in outcome.received
    ]
    assert comments[2:] == ["new, and longer"] * (COUNT - 2)
    _, operations = recorded(service)
    assert [one.sop_instance_uid for one in operations] == uids


def test_instances_replaced_in_another_transfer_syntax_are_sent_in_that(
    service: RunningArchive, mover: Mover
) -> None:
    uids = store_study(service, COUNT)
    new = make_study(COUNT, ImageComments="new")

    outcome = retrieve_and_meanwhile(
        service,
        mover,
        lambda: deposit(service.archive, *new, transfer_syntax_uid=ImplicitVRLittleEndian),
    )

    assert outcome.final.status == SUCCESS
    assert outcome.uids == uids
    # What is said is what is sent.
    for one in outcome.received[2:]:
        assert one.transfer_syntax_uid in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
        sent = read(one.data, one.sop_class_uid, one.transfer_syntax_uid)
        assert (sent.SOPInstanceUID, sent.ImageComments) == (one.sop_instance_uid, "new")
    assert outcome.received[-1].transfer_syntax_uid == ImplicitVRLittleEndian


def test_deleted_meanwhile_is_another_reason_than_lost(
    service: RunningArchive, mover: Mover
) -> None:
    uids = store_study(service, COUNT)
    archive = service.archive

    def lose_and_delete() -> None:
        settled_file(archive, uids[2]).unlink()
        location = archive.index.remove(uids[3])
        assert location is not None
        archive.storage.remove(location)

    outcome = retrieve_and_meanwhile(service, mover, lose_and_delete)

    assert outcome.final.counts[1:] == (COUNT - 2, 2, 0)
    _, operations = recorded(service)
    comments = {one.sop_instance_uid: one.error_comment for one in operations if one.error_comment}
    assert comments == {
        uids[2]: "Its stored file is lost",
        uids[3]: "Deleted after it was asked for",
    }


@pytest.mark.parametrize("frames", [8, 1], ids=["has them", "has not"])
def test_frames_of_an_image_replaced_before_they_are_sent_are_those_it_has_now(
    service: RunningArchive, mover: Mover, frames: int
) -> None:
    source = make_multiframe(4)
    deposit(service.archive, source)
    new = make_multiframe(frames, ImageComments="new, and longer")
    new.SOPInstanceUID = source.SOPInstanceUID
    is_replaced = False

    def accepts(*_: str) -> bool:
        # The frames are found by now, and nothing is sent.
        nonlocal is_replaced
        if not is_replaced:
            is_replaced = True
            deposit(service.archive, new)
        return True

    mover.destination.accepts = accepts
    query = identifier("FRAME", SOPInstanceUID=source.SOPInstanceUID, SimpleFrameList=[2, 4])

    outcome = mover.retrieve(service, query, model=ROOT_MOVE)

    if frames == 1:
        assert outcome.final.counts[1:] == (0, 1, 0)
        assert outcome.received == []
        return
    assert outcome.final.counts[1:] == (1, 0, 0)
    [received] = outcome.received
    sent = read(received.data, received.sop_class_uid, received.transfer_syntax_uid)
    assert sent.ImageComments == "new, and longer"
    assert native_frames(sent) == [native_frames(new)[number - 1] for number in (2, 4)]


def test_header_of_an_image_replaced_after_its_row_was_read_is_read_where_it_is_now(
    service: RunningArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    [old] = make_study(1, ScanOptions="OLD")
    deposit(service.archive, old)
    opened, before = FilesystemStorage.open, settled_file(service.archive, str(old.SOPInstanceUID))

    def replace_first(storage: FilesystemStorage, location: str) -> object:
        if storage.path(location) == before and before.exists():
            with monkeypatch.context() as patch:
                patch.setattr(FilesystemStorage, "open", opened)
                deposit(service.archive, *make_study(1, ScanOptions="NEW"))
        return opened(storage, location)

    monkeypatch.setattr(FilesystemStorage, "open", replace_first)
    query = identifier(
        "IMAGE",
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=SERIES,
        SOPInstanceUID=old.SOPInstanceUID,
        ScanOptions="",
    )

    with association(service, STUDY_ROOT_FIND) as assoc:
        found = responses(assoc.send_c_find(query, STUDY_ROOT_FIND))

    assert not before.exists()
    assert [one.status for one in found] == [0xFF00, SUCCESS]
    assert found[0].identifier is not None
    assert found[0].identifier.ScanOptions == "NEW"
