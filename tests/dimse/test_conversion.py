"""Conversion for a destination that does not take what is stored, over real associations."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from struct import pack
from typing import Any

import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from pynetdicom.presentation import build_context

from pacs.dimse import transcode
from pacs.storage.spool import SpoolLimits
from tests.dimse.retrieving import (
    SUCCESS,
    Getter,
    make_study,
    recorded,
    study_query,
    uids_of,
)
from tests.factories import make_instance
from tests.peers import (
    STUDY_ROOT_MOVE,
    Destination,
    Received,
    Response,
    RunningArchive,
    association,
    data_set_bytes,
    data_set_of_file,
    deposit,
    deposit_bytes,
    register,
    responses,
    spool_files,
    wait_until,
)
from tests.serving import Serve, engine_on_sqlite

StartDestination = Callable[..., Destination]
ALL_FAILED, SOME_FAILED = 0xA702, 0xB000
_SEQUENCE_END = pack("<HHL", 0xFFFE, 0xE0DD, 0)
IMPLICIT_CT = build_context(CTImageStorage, ImplicitVRLittleEndian)


def _implicit_only(_sop_class: str, syntax: str) -> bool:
    return syntax == ImplicitVRLittleEndian


def _move(running: RunningArchive) -> Response:
    with association(running, STUDY_ROOT_MOVE) as assoc:
        return responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))[-1]


def _deposit_deflated(running: RunningArchive, instance: Dataset, zeros: int) -> None:
    """Store an instance whose Pixel Data are so many bytes of nothing."""
    del instance.PixelData
    plain = data_set_bytes(instance, ExplicitVRLittleEndian)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = deflater.compress(plain + b"\xe0\x7f\x10\x00OB\0\0" + pack("<L", zeros) + bytes(zeros))
    data += deflater.flush()
    deposit_bytes(running.archive, instance, data, DeflatedExplicitVRLittleEndian)


def _rle(instance: Dataset) -> bytes:
    """Compress its frames; the data set."""
    instance.compress(RLELossless, generate_instance_uid=False)
    file = BytesIO()
    dcmwrite(file, instance, enforce_file_format=True)
    return data_set_of_file(file.getvalue())


def _deposit_rle(running: RunningArchive, instance: Dataset) -> None:
    deposit_bytes(running.archive, instance, _rle(instance), RLELossless)


@engine_on_sqlite
@pytest.mark.parametrize("associations", [1, 2])
def test_text_of_another_character_set_than_declared_is_moved_as_stored(
    service: RunningArchive, start_destination: StartDestination, associations: int
) -> None:
    destination = start_destination(accepts=_implicit_only)
    register(service.archive, "DEST", destination.port, parallel_associations=associations)
    instances = make_study(3)
    for instance in instances:
        instance.SpecificCharacterSet = "ISO_IR 192"
        instance.StudyDescription = "0123456"
        data = data_set_bytes(instance, ExplicitVRLittleEndian)
        changed = data.replace(b"0123456 ", b"Sch\xe4del ")
        deposit_bytes(service.archive, instance, changed, ExplicitVRLittleEndian)

    final = _move(service)

    assert final.status == SUCCESS
    assert sorted(destination.uids) == uids_of(instances)
    for received in destination.received:
        assert b"\x08\x00\x30\x10\x08\x00\x00\x00Sch\xe4del " in received.data


@engine_on_sqlite
def test_deflate_bomb_is_refused_by_the_limit_and_the_requester_is_told(
    serve: Serve, start_destination: StartDestination
) -> None:
    service = serve(conversion_limit_bytes=1 << 20)
    destination = start_destination(accepts=_implicit_only)
    register(service.archive, "DEST", destination.port)
    instances = make_study(2)
    for instance in instances:
        _deposit_deflated(service, instance, 4 << 20)

    final = _move(service)

    assert final.status == ALL_FAILED
    assert final.comment == "More than 1048576 bytes (conversion_limit_bytes)"
    assert final.failed_uids == uids_of(instances)
    record, _ = recorded(service)
    assert record.outcome is not None
    assert record.outcome.error_comment == (
        "Cannot convert from Deflated Explicit VR Little Endian to Implicit VR Little Endian: "
        "More than 1048576 bytes (conversion_limit_bytes)"
    )


@engine_on_sqlite
def test_conversion_leaves_free_what_a_store_leaves_free(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination(accepts=_implicit_only)
    register(service.archive, "DEST", destination.port)
    [instance] = make_study(1)
    # More than is kept in memory.
    _deposit_deflated(service, instance, 3 << 20)
    service.archive.storage.spool.limit(SpoolLimits(free_bytes=1 << 60))

    final = _move(service)

    assert (final.status, final.comment) == (
        ALL_FAILED,
        f"Disk full: minimum_free_bytes keeps {1 << 40} MiB free",
    )
    assert spool_files(service.archive) == []


@engine_on_sqlite
def test_deflated_instance_is_inflated_in_the_spool_for_a_get(service: RunningArchive) -> None:
    [instance] = make_study(1)
    # More than is kept in memory.
    _deposit_deflated(service, instance, 3 << 20)
    getter = Getter()

    outcome = getter.retrieve(service, study_query(), contexts=[IMPLICIT_CT])

    assert outcome.final.status == SUCCESS
    [received] = outcome.received
    assert received.data.endswith(b"\xe0\x7f\x10\x00" + pack("<L", 3 << 20) + bytes(3 << 20))
    assert spool_files(service.archive) == []


@engine_on_sqlite
@pytest.mark.parametrize("syntax", [RLELossless, DeflatedExplicitVRLittleEndian])
def test_conversion_ends_when_its_requester_has_aborted(
    service: RunningArchive,
    start_destination: StartDestination,
    monkeypatch: pytest.MonkeyPatch,
    syntax: str,
) -> None:
    destination = start_destination(accepts=_implicit_only)
    register(service.archive, "DEST", destination.port)
    [instance] = make_study(1, Rows=8, Columns=8)
    if syntax == RLELossless:
        _deposit_rle(service, instance)
    else:
        _deposit_deflated(service, instance, 4 << 20)
    is_converting, may_go_on, ended = threading.Event(), threading.Event(), []
    check = transcode._Conversion._check

    def wait_and_check(conversion: Any) -> None:
        is_converting.set()
        assert may_go_on.wait(20)
        try:
            check(conversion)
        except transcode.NotTranscodable as error:
            ended.append(str(error))
            raise

    monkeypatch.setattr(transcode._Conversion, "_check", wait_and_check)
    with association(service, STUDY_ROOT_MOVE) as assoc:
        answers = assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE)
        next(answers)
        assert is_converting.wait(20)
        assoc.abort()
    may_go_on.set()

    wait_until(lambda: recorded(service)[0].outcome is not None)
    assert ended == ["The peer went away"]
    assert destination.received == []


@engine_on_sqlite
def test_conversion_for_a_get_ends_when_the_requester_has_aborted(
    service: RunningArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    [instance] = make_study(1)
    _deposit_deflated(service, instance, 4 << 20)
    is_converting, may_go_on, ended = threading.Event(), threading.Event(), []
    check = transcode._Conversion._check

    def wait_and_check(conversion: Any) -> None:
        is_converting.set()
        assert may_go_on.wait(20)
        try:
            check(conversion)
        except transcode.NotTranscodable as error:
            ended.append(str(error))
            raise

    monkeypatch.setattr(transcode._Conversion, "_check", wait_and_check)

    def abort(assoc: Any) -> None:
        assert is_converting.wait(20)
        assoc.dimse_timeout = 0.1  # for the response that does not come any more
        assoc.abort()
        may_go_on.set()

    with pytest.raises(AssertionError, match="without a final response"):
        Getter().retrieve(service, study_query(), contexts=[IMPLICIT_CT], on_pending=abort)

    wait_until(lambda: recorded(service)[0].outcome is not None)
    assert ended == ["The peer went away"]


# The reason reaches the requester


@engine_on_sqlite
def test_final_response_has_the_reason_if_it_is_the_same_for_all(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    answer = Dataset()
    answer.Status, answer.ErrorComment = 0xA700, "The disk is full"
    destination = start_destination(answer=lambda _event: answer)
    register(service.archive, "DEST", destination.port)
    deposit(service.archive, *make_study(3))

    final = _move(service)

    assert (final.status, final.comment) == (ALL_FAILED, "The disk is full")


@engine_on_sqlite
def test_final_response_says_how_many_failed_for_one_reason(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    instances = make_study(3)
    deposit(service.archive, *instances)
    destination.answers = dict.fromkeys(uids_of(instances)[1:], 0xA900)

    final = _move(service)

    assert (final.status, final.comment) == (SOME_FAILED, "2 of 3 failed: C-STORE status 0xA900")


@engine_on_sqlite
def test_final_response_counts_where_reasons_differ(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    first, second, third = uids_of(instances := make_study(3))
    deposit(service.archive, *instances)
    destination.answers = {first: 0xA900, second: 0xA700}

    some = _move(service)
    destination.answers[third] = 0xC001
    every = _move(service)

    assert (some.status, some.comment) == (SOME_FAILED, "2 failed, 0 warned, of 3")
    assert (every.status, every.comment) == (ALL_FAILED, "All sub-operations failed")


@engine_on_sqlite
def test_reason_is_not_cut_where_the_sop_class_has_a_long_name(service: RunningArchive) -> None:
    deposit(service.archive, *make_study(2, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.5.4"))

    final = Getter().retrieve(service, study_query(), contexts=[IMPLICIT_CT]).final

    assert final.status == ALL_FAILED
    assert final.comment == "The requester accepts no presentation context"


@engine_on_sqlite
@pytest.mark.parametrize("by", ["C-MOVE", "C-GET"])
@pytest.mark.parametrize("syntax", [RLELossless, ImplicitVRLittleEndian])
def test_frames_without_their_last_delimiter_are_sent_as_stored_and_converted(
    service: RunningArchive, start_destination: StartDestination, syntax: str, by: str
) -> None:
    [instance] = make_study(1)
    pixels = bytes(instance.PixelData)
    data = _rle(instance)
    stored = data.removesuffix(_SEQUENCE_END)
    assert len(stored) == len(data) - 8
    deposit_bytes(service.archive, instance, stored, RLELossless)

    received: Sequence[Received]
    if by == "C-MOVE":
        destination = start_destination(accepts=lambda _, proposed: proposed == syntax)
        register(service.archive, "DEST", destination.port)
        final, received = _move(service), destination.received
    else:
        outcome = Getter().retrieve(
            service, study_query(), contexts=[build_context(CTImageStorage, syntax)]
        )
        final, received = outcome.final, outcome.received

    assert (final.status, final.comment) == (SUCCESS, "")
    [only] = received
    assert (only.sop_instance_uid, only.transfer_syntax_uid) == (instance.SOPInstanceUID, syntax)
    if syntax == RLELossless:
        assert only.data == stored
    else:
        assert only.data.endswith(b"\xe0\x7f\x10\x00" + pack("<L", len(pixels)) + pixels)
    _, operations = recorded(service)
    assert [(one.status, one.error_comment) for one in operations] == [(SUCCESS, "")]


@engine_on_sqlite
def test_compressed_icon_is_left_out_of_what_is_converted_and_logged(
    service: RunningArchive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pacs.dimse.storage_scu")
    [instance] = make_study(1)
    pixels = bytes(instance.PixelData)
    icon = Dataset()
    icon.Rows = icon.Columns = 8
    icon.PixelData = encapsulate([b"frames"])
    icon["PixelData"].VR = "OB"
    icon["PixelData"].is_undefined_length = True
    instance.IconImageSequence = [icon]
    data = _rle(instance)
    assert data.count(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") == 2
    deposit_bytes(service.archive, instance, data, RLELossless)
    getter = Getter()

    both = [build_context(CTImageStorage, RLELossless), IMPLICIT_CT]
    as_stored = getter.retrieve(service, study_query(), contexts=both[:1])
    converted = getter.retrieve(service, study_query(), contexts=both[1:])

    assert [one.data for one in as_stored.received] == [data]
    assert (converted.final.status, converted.final.comment) == (SUCCESS, "")
    [received] = converted.received
    assert received.data.count(b"\x88\x00\x00\x02") == 0
    assert received.data.endswith(b"\xe0\x7f\x10\x00" + pack("<L", len(pixels)) + pixels)
    lines = [one.getMessage() for one in caplog.records if "goes without" in one.getMessage()]
    [line] = [one.split(": ", 1)[1] for one in lines]
    what = "IconImageSequence (0088,0200), which is compressed"
    assert line == f"SOP Instance {instance.SOPInstanceUID} goes without {what}"


@engine_on_sqlite
def test_answer_0122_leaves_a_line_in_the_log(
    service: RunningArchive, caplog: pytest.LogCaptureFixture
) -> None:
    with association(service, build_context(CTImageStorage, ExplicitVRLittleEndian)) as assoc:
        instance = make_instance(SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
        [context] = assoc.accepted_contexts
        assoc._accepted_cx[context.context_id].abstract_syntax = instance.SOPClassUID
        status = assoc.send_c_store(instance)

    assert status.Status == 0x0122
    [line] = [one.getMessage() for one in caplog.records if "0122" in one.getMessage()]
    assert "C-STORE answered 0122: Affected SOP Class is not that of the" in line
