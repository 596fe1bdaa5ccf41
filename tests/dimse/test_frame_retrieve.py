"""Composite Instance Root Retrieve and Retrieve Without Bulk Data (PS3.4 Annexes Y and Z), with real clients."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    TwelveLeadECGWaveformStorage,
)
from pynetdicom.presentation import build_context

from tests.dimse.retrieving import Getter, Mover, Outcome, Retriever, recorded
from tests.factories import add, make_instance
from tests.multiframe import (
    MULTI_FRAME,
    encapsulated_frame,
    make_encapsulated,
    make_multiframe,
    native_frames,
    read,
    wanted,
    with_functional_groups,
)
from tests.peers import (
    Destination,
    RunningArchive,
    data_set_of_file,
    deposit,
    deposit_bytes,
    identifier,
    settled_file,
)
from tests.serving import Serve, engine_on_sqlite

ROOT_MOVE, ROOT_GET = "1.2.840.10008.5.1.4.1.2.4.2", "1.2.840.10008.5.1.4.1.2.4.3"
WITHOUT_BULK_DATA = "1.2.840.10008.5.1.4.1.2.5.3"
SUCCESS, ALL_FAILED, IDENTIFIER = 0x0000, 0xA702, 0xA900
NOT_FOUND, NOT_CREATED, NOT_EXTRACTED, NOT_TIMED, INVALID = 0xAA00, 0xAA01, 0xAA02, 0xAA03, 0xAA04
SOP_INSTANCE, SIMPLE, CALCULATED, TIME = 0x00080018, 0x00081161, 0x00081162, 0x00081163
LEVEL = 0x00080052
FRAMES_CONTEXT = build_context(MULTI_FRAME, ExplicitVRLittleEndian)
RLE_CONTEXT = build_context(MULTI_FRAME, RLELossless)


def ask(
    retriever: Retriever,
    running: RunningArchive,
    query: Dataset,
    *contexts: object,
) -> Outcome:
    """Retrieve in Composite Instance Root by the service of ``retriever``."""
    model = ROOT_MOVE if isinstance(retriever, Mover) else ROOT_GET
    return retriever.retrieve(running, query, model=model, contexts=[*contexts] or [FRAMES_CONTEXT])


def frames_of(instance: Dataset, **keys: object) -> Dataset:
    """The Identifier of a request at level FRAME."""
    return identifier("FRAME", SOPInstanceUID=instance.SOPInstanceUID, **keys)


def only(outcome: Outcome) -> Dataset:
    """The one instance that was received."""
    assert outcome.final.status == SUCCESS, outcome.final
    [received] = outcome.received
    instance = read(received.data, received.sop_class_uid, received.transfer_syntax_uid)
    assert instance.SOPInstanceUID == received.sop_instance_uid
    return instance


# Level IMAGE (PS3.4 Y.6.1.1.2)


def test_image_level_takes_one_uid_or_a_list_and_no_other_key(
    service: RunningArchive, retriever: Retriever
) -> None:
    retriever.prepare(service)
    instances = [make_multiframe(2) for _ in range(3)]
    deposit(service.archive, *instances)
    uids = [str(one.SOPInstanceUID) for one in instances]

    one = ask(retriever, service, identifier("IMAGE", SOPInstanceUID=uids[1]))
    several = ask(retriever, service, identifier("IMAGE", SOPInstanceUID=uids[:2]))

    assert one.uids == uids[1:2]
    assert sorted(several.uids) == sorted(uids[:2])
    assert several.final.counts[1:] == (2, 0, 0)


@pytest.mark.parametrize("keys", [{}, {"SOPInstanceUID": ""}], ids=["absent", "empty"])
def test_image_level_without_a_uid_is_refused(
    service: RunningArchive, keys: dict[str, str]
) -> None:
    outcome = ask(Getter(), service, identifier("IMAGE", **keys))

    assert (outcome.final.status, outcome.final.offending) == (IDENTIFIER, (SOP_INSTANCE,))


@pytest.mark.parametrize("level", ["STUDY", "SERIES", "PATIENT", "frame"])
def test_other_levels_are_refused(service: RunningArchive, level: str) -> None:
    outcome = ask(Getter(), service, identifier(level, SOPInstanceUID="1.2"))

    assert (outcome.final.status, outcome.final.offending) == (IDENTIFIER, (LEVEL,))


def test_image_level_with_a_frame_list_is_refused(service: RunningArchive) -> None:
    query = identifier("IMAGE", SOPInstanceUID="1.2", SimpleFrameList=[1])

    outcome = ask(Getter(), service, query)

    assert (outcome.final.status, outcome.final.offending) == (IDENTIFIER, (SIMPLE,))


# Level FRAME (PS3.4 Y.3.2, Y.3.3)


@pytest.mark.parametrize(
    ("keys", "frames"),
    [
        ({"SimpleFrameList": [1, 3, 10]}, [1, 3, 10]),
        ({"SimpleFrameList": [4]}, [4]),
        ({"CalculatedFrameList": [2, 8, 3]}, [2, 5, 8]),
        ({"CalculatedFrameList": [1, 2, 1, 5, 0xFFFFFFFF, 2]}, [1, 2, 5, 7, 9]),
        ({"CalculatedFrameList": [9, 9, 1, 11, 20, 1]}, [9]),
        ({"TimeRange": [0.04, 0.12]}, [2, 3, 4]),
    ],
    ids=["simple", "simple of one", "calculated", "to the end", "sub-range beyond", "time"],
)
def test_frame_level_sends_one_new_instance_of_these_frames(
    service: RunningArchive, retriever: Retriever, keys: dict[str, list[float]], frames: list[int]
) -> None:
    retriever.prepare(service)
    source = make_multiframe(10)
    deposit(service.archive, source)

    outcome = ask(retriever, service, frames_of(source, **keys))

    new = only(outcome)
    assert outcome.final.counts[1:] == (1, 0, 0)
    assert native_frames(new) == wanted(frames)
    assert new.NumberOfFrames == len(frames)
    assert new.SOPClassUID == source.SOPClassUID
    assert new.SOPInstanceUID != source.SOPInstanceUID
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert new[keyword].value == source[keyword].value
    [extraction] = new.FrameExtractionSequence
    assert extraction.MultiFrameSourceSOPInstanceUID == source.SOPInstanceUID
    [(keyword, values)] = keys.items()
    found = extraction[keyword].value
    assert (list(found) if hasattr(found, "append") else [found]) == values
    purpose = new.ContributingEquipmentSequence[-1].PurposeOfReferenceCodeSequence[0]
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("109105", "DCM")
    assert service.archive.index.find_by_uid(new.SOPInstanceUID) is None


def test_frames_of_extracted_frames_append_to_the_provenance(service: RunningArchive) -> None:
    source = make_multiframe(10)
    deposit(service.archive, source)
    first = only(ask(Getter(), service, frames_of(source, SimpleFrameList=[2, 4, 6])))
    first.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    deposit(service.archive, first)

    second = only(ask(Getter(), service, frames_of(first, SimpleFrameList=[2])))

    assert native_frames(second) == wanted([4])
    uids = [item.MultiFrameSourceSOPInstanceUID for item in second.FrameExtractionSequence]
    assert uids == [source.SOPInstanceUID, first.SOPInstanceUID]
    assert len(second.ContributingEquipmentSequence) == 2


def test_functional_groups_follow_their_frames(service: RunningArchive) -> None:
    source = with_functional_groups(make_multiframe(10))
    deposit(service.archive, source)

    new = only(ask(Getter(), service, frames_of(source, SimpleFrameList=[3, 7])))

    groups = new.PerFrameFunctionalGroupsSequence
    assert [one.FrameContentSequence[0].DimensionIndexValues for one in groups] == [3, 7]
    assert new.SharedFunctionalGroupsSequence == source.SharedFunctionalGroupsSequence


def test_time_range_uses_the_times_of_functional_groups(service: RunningArchive) -> None:
    source = with_functional_groups(make_multiframe(10, FrameTime=None, FrameIncrementPointer=None))
    deposit(service.archive, source)

    new = only(ask(Getter(), service, frames_of(source, TimeRange=[2.0, 4.0])))

    assert native_frames(new) == wanted([3, 4, 5])


@pytest.mark.parametrize("tables", ["basic", "extended", "none"])
def test_encapsulated_frames_keep_their_bytes_and_get_new_tables(
    service: RunningArchive, tables: str
) -> None:
    file = make_encapsulated(5, tables)
    source = dcmread(BytesIO(file))
    deposit_bytes(service.archive, source, data_set_of_file(file), RLELossless)

    outcome = ask(Getter(), service, frames_of(source, SimpleFrameList=[2, 5]), RLE_CONTEXT)

    new = only(outcome)
    extended = None
    if tables == "extended":
        extended = (new.ExtendedOffsetTable, new.ExtendedOffsetTableLengths)
    found = list(generate_frames(new.PixelData, number_of_frames=2, extended_offsets=extended))
    assert found == [encapsulated_frame(2), encapsulated_frame(5)]
    assert outcome.received[0].transfer_syntax_uid == RLELossless


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_frames_of_other_uncompressed_transfer_syntaxes(
    service: RunningArchive, syntax: str
) -> None:
    source = make_multiframe(10)
    deposit(service.archive, source, transfer_syntax_uid=syntax)
    accepted = [
        build_context(MULTI_FRAME, one) for one in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
    ]

    outcome = ask(Getter(), service, frames_of(source, SimpleFrameList=[1, 9]), *accepted)

    assert native_frames(only(outcome)) == wanted([1, 9])


# Refusals: each status of PS3.4 Tables Y.4-1 and Y.4-2, and which element and why


@engine_on_sqlite
@pytest.mark.parametrize(
    ("keys", "status", "offending", "comment"),
    [
        ({}, INVALID, [SIMPLE, CALCULATED, TIME], "another Frame key is missing"),
        (
            {"SimpleFrameList": [1], "TimeRange": [0.0, 1.0]},
            INVALID,
            [SIMPLE, TIME],
            "beside another Frame level key",
        ),
        ({"SimpleFrameList": [0, 1]}, INVALID, [SIMPLE], "frame 0"),
        ({"SimpleFrameList": [2, 1]}, INVALID, [SIMPLE], "does not ascend"),
        ({"SimpleFrameList": [2, 2]}, INVALID, [SIMPLE], "does not ascend"),
        ({"SimpleFrameList": [9, 11]}, INVALID, [SIMPLE], "contains frame 11 of 10"),
        ({"SimpleFrameList": None}, INVALID, [SIMPLE], "has no value"),
        ({"CalculatedFrameList": [1, 2]}, INVALID, [CALCULATED], "triplets"),
        ({"CalculatedFrameList": [1, 2, 0]}, INVALID, [CALCULATED], "increment"),
        ({"CalculatedFrameList": [3, 2, 1]}, INVALID, [CALCULATED], "reversed"),
        ({"CalculatedFrameList": [0, 2, 1]}, INVALID, [CALCULATED], "frame 0"),
        ({"CalculatedFrameList": [1, 5, 2, 5, 6, 1]}, INVALID, [CALCULATED], "overlap"),
        ({"CalculatedFrameList": [11, 20, 1, 2, 3, 1]}, INVALID, [CALCULATED], "does not ascend"),
        ({"TimeRange": [2.0, 1.0]}, INVALID, [TIME], "reversed"),
        ({"TimeRange": [2.0]}, INVALID, [TIME], "a start and an end"),
        ({"TimeRange": [float("nan"), 1.0]}, INVALID, [TIME], "a start and an end"),
        ({"SimpleFrameList": [11]}, NOT_FOUND, [], "None of the frames"),
        ({"CalculatedFrameList": [11, 20, 1]}, NOT_FOUND, [], "None of the frames"),
        ({"TimeRange": [5.0, 6.0]}, NOT_FOUND, [], "None of the frames"),
    ],
)
def test_frame_keys_that_break_a_rule_are_refused(
    serve: Serve,
    retriever: Retriever,
    keys: dict[str, list[float]],
    status: int,
    offending: list[int],
    comment: str,
) -> None:
    running = serve()
    retriever.prepare(running)
    source = make_multiframe(10)
    deposit(running.archive, source)

    outcome = ask(retriever, running, frames_of(source, **keys))

    final = outcome.final
    assert (final.status, final.offending) == (status, tuple(offending))
    assert comment in final.comment
    assert final.counts[1:] == (0, 1, 0)
    assert final.failed_uids == [source.SOPInstanceUID]
    assert not outcome.received
    record, _ = recorded(running)
    assert record.outcome is not None
    assert (record.outcome.status, record.outcome.failed) == (status, 1)


def test_frame_level_of_several_instances_is_refused(service: RunningArchive) -> None:
    query = identifier("FRAME", SOPInstanceUID=["1.2", "1.3"], SimpleFrameList=[1])

    outcome = ask(Getter(), service, query)

    assert (outcome.final.status, outcome.final.offending) == (IDENTIFIER, (SOP_INSTANCE,))


def test_frame_level_of_an_instance_that_is_not_here_matches_nothing(
    service: RunningArchive,
) -> None:
    query = identifier("FRAME", SOPInstanceUID="1.2.3", SimpleFrameList=[1])

    assert ask(Getter(), service, query).final.status == SUCCESS


def _refused(running: RunningArchive, source: Dataset, **keys: object) -> tuple[int, str]:
    keys = keys or {"SimpleFrameList": [2]}
    final = ask(Getter(), running, frames_of(source, **keys)).final
    assert final.failed_uids == [source.SOPInstanceUID]
    return final.status, final.comment


def test_a_single_frame_image_has_no_frames_to_create_an_instance_of(
    service: RunningArchive,
) -> None:
    source = make_instance()
    deposit(service.archive, source)

    status, comment = _refused(service, source)

    assert (status, comment) == (NOT_CREATED, "The SOP Instance is not a multi-frame image")


def test_tiled_full_cannot_be_reduced(service: RunningArchive) -> None:
    source = make_multiframe(4, DimensionOrganizationType="TILED_FULL")
    deposit(service.archive, source)

    assert _refused(service, source)[0] == NOT_CREATED


def test_video_cannot_be_cut(service: RunningArchive) -> None:
    source = make_multiframe(4)
    source.file_meta.TransferSyntaxUID = MPEG2MPML
    deposit(service.archive, source)

    status, comment = _refused(service, source)

    assert (status, comment) == (NOT_EXTRACTED, "Frames cannot be cut out of this transfer syntax")


@pytest.mark.parametrize(
    ("keywords", "comment"),
    [
        ({"NumberOfFrames": 400}, "Pixel Data is too short for 400 frames"),
        ({"NumberOfFrames": 2_000_000_000}, "Number of Frames is over 1000000"),
        ({"NumberOfFrames": 0}, "Number of Frames of the SOP Instance is not a number"),
        ({"Rows": 0}, "Pixel Data is too short for 4 frames"),
        ({"SliceLocationVector": ["1", "2"]}, "(0018,2005) does not have a value for each frame"),
    ],
)
def test_an_instance_that_contradicts_itself_is_not_extracted(
    service: RunningArchive, keywords: dict[str, object], comment: str
) -> None:
    source = make_multiframe(4)
    for keyword, value in keywords.items():
        add(source, keyword, value)
    deposit(service.archive, source)

    assert _refused(service, source) == (NOT_EXTRACTED, comment)


def test_pixel_data_that_is_cut_off_is_not_extracted(service: RunningArchive) -> None:
    file = make_encapsulated(5, "none")
    source = dcmread(BytesIO(file))
    deposit_bytes(service.archive, source, data_set_of_file(file), RLELossless)
    # It is not taken like this any more, but may be there from before.
    path = settled_file(service.archive, source.SOPInstanceUID)
    path.write_bytes(path.read_bytes()[:-60])

    status, comment = _refused(service, source)

    assert (status, comment) == (NOT_EXTRACTED, "Pixel Data is cut off or damaged")


def test_time_range_of_an_instance_without_times_is_refused(service: RunningArchive) -> None:
    source = make_multiframe(4, FrameTime=None, FrameIncrementPointer=None)
    deposit(service.archive, source)

    status, _ = _refused(service, source, TimeRange=[0.0, 1.0])

    assert status == NOT_TIMED


@engine_on_sqlite
def test_a_new_instance_that_the_destination_refuses_is_a_failed_sub_operation(
    serve: Serve, start_destination: Callable[..., Destination]
) -> None:
    running = serve()
    mover = Mover(start_destination)
    mover.prepare(running)
    mover.destination.answer = 0xA700
    source = make_multiframe(4)
    deposit(running.archive, source)

    outcome = ask(mover, running, frames_of(source, SimpleFrameList=[2]))

    assert outcome.final.status == ALL_FAILED
    # PS3.4 C.4.2.1.4.2: the UIDs of the C-STORE sub-operations.
    assert outcome.final.failed_uids == outcome.uids
    record, [operation] = recorded(running)
    assert (record.request.level, record.request.model) == ("FRAME", "Composite Instance Root")
    assert operation.sop_instance_uid == outcome.uids[0]


def test_a_source_whose_file_is_gone_cannot_be_read(service: RunningArchive) -> None:
    source = make_multiframe(4)
    deposit(service.archive, source)
    settled_file(service.archive, source.SOPInstanceUID).unlink()

    assert _refused(service, source)[0] == ALL_FAILED


# Without bulk data (PS3.4 Z.1.3)


def stripped(running: RunningArchive, instance: Dataset, sop_class: str) -> Dataset:
    """What a C-GET without bulk data sends of an instance."""
    query = identifier("IMAGE", SOPInstanceUID=instance.SOPInstanceUID)
    context = build_context(sop_class, ExplicitVRLittleEndian)
    outcome = Getter().retrieve(running, query, model=WITHOUT_BULK_DATA, contexts=[context])
    assert outcome.final.counts[1:] == (1, 0, 0)
    assert outcome.uids == [instance.SOPInstanceUID]
    return only(outcome)


def test_pixels_overlays_and_curves_are_left_out_and_icons_kept(service: RunningArchive) -> None:
    source = make_instance()
    icon = Dataset()
    icon.Rows = icon.Columns = 2
    icon.add_new(0x7FE00010, "OB", b"1234")
    source.IconImageSequence = [icon]
    source.add_new(0x60000010, "US", 8)
    for tag in (0x60003000, 0x60023000, 0x50003000, 0x5000200C):
        source.add_new(tag, "OB", b"1234")
    source.add_new(0x56000020, "OF", b"12345678")
    source.add_new(0x00287FE0, "UR", "https://example.org")
    source.add_new(0x00091001, "LO", "private stays")
    deposit(service.archive, source)

    new = stripped(service, source, CTImageStorage)

    left_out = {int(tag) for tag in source.keys() - new.keys()}
    assert left_out == {
        0x7FE00010,
        0x60003000,
        0x60023000,
        0x50003000,
        0x5000200C,
        0x56000020,
        0x00287FE0,
    }
    assert new.IconImageSequence == source.IconImageSequence
    assert new.Rows == 8


@pytest.mark.parametrize("syntax", [RLELossless, DeflatedExplicitVRLittleEndian])
def test_encoded_pixels_leave_explicit_vr_little_endian(
    service: RunningArchive, syntax: str
) -> None:
    source = make_instance()
    deposit(service.archive, source, transfer_syntax_uid=syntax)

    new = stripped(service, source, CTImageStorage)

    assert "PixelData" not in new
    assert new.PatientName == source.PatientName


def test_waveforms_lose_their_samples_only(service: RunningArchive) -> None:
    source = make_instance(SOPClassUID=TwelveLeadECGWaveformStorage)
    del source.PixelData
    groups = []
    for number in range(2):
        group = Dataset()
        group.NumberOfWaveformSamples = 4
        group.add_new(0x54001010, "OW", b"12345678")
        group.add_new(0x54110010, "LO", f"after {number}")
        groups.append(group)
    source.WaveformSequence = groups
    deposit(service.archive, source)

    new = stripped(service, source, TwelveLeadECGWaveformStorage)

    assert [one.get("WaveformData") for one in new.WaveformSequence] == [None, None]
    assert [one[0x54110010].value for one in new.WaveformSequence] == ["after 0", "after 1"]
    assert new.WaveformSequence[0].NumberOfWaveformSamples == 4


def test_documents_are_left_out(service: RunningArchive) -> None:
    source = make_instance(SOPClassUID=EncapsulatedPDFStorage)
    del source.PixelData
    source.add_new(0x00420011, "OB", b"%PDF")
    source.MIMETypeOfEncapsulatedDocument = "application/pdf"
    deposit(service.archive, source)

    new = stripped(service, source, EncapsulatedPDFStorage)

    assert "EncapsulatedDocument" not in new
    assert new.MIMETypeOfEncapsulatedDocument == "application/pdf"


def test_without_bulk_data_has_no_level_frame_and_no_move(service: RunningArchive) -> None:
    query = identifier("FRAME", SOPInstanceUID="1.2", SimpleFrameList=[1])
    outcome = Getter().retrieve(service, query, model=WITHOUT_BULK_DATA, contexts=[FRAMES_CONTEXT])

    assert (outcome.final.status, outcome.final.offending) == (IDENTIFIER, (LEVEL,))


@engine_on_sqlite
def test_one_instance_that_cannot_be_read_fails_alone(serve: Serve) -> None:
    running = serve()
    good, lost = make_instance(), make_instance()
    deposit(running.archive, good, lost)
    settled_file(running.archive, lost.SOPInstanceUID).unlink()
    query = identifier("IMAGE", SOPInstanceUID=[good.SOPInstanceUID, lost.SOPInstanceUID])

    outcome = Getter().retrieve(running, query, model=WITHOUT_BULK_DATA)

    assert outcome.uids == [good.SOPInstanceUID]
    assert outcome.final.failed_uids == [lost.SOPInstanceUID]
    assert outcome.final.counts[1:] == (1, 1, 0)


@engine_on_sqlite
def test_frames_are_decompressed_for_a_destination_that_does_not_take_them_as_stored(
    serve: Serve, start_destination: Callable[..., Destination]
) -> None:
    pytest.importorskip("numpy", reason="NumPy decodes RLE")
    running = serve()
    mover = Mover(start_destination)
    mover.prepare(running)
    mover.destination.accepts = lambda _, syntax: syntax == ExplicitVRLittleEndian
    path = get_testdata_file("SC_rgb_rle_2frame.dcm", download=False)
    assert path is not None
    source = dcmread(str(path))
    file = Path(str(path)).read_bytes()
    deposit_bytes(running.archive, source, data_set_of_file(file), RLELossless)

    new = only(ask(mover, running, frames_of(source, SimpleFrameList=[2])))

    assert new.PixelData == source.pixel_array[1].tobytes()
