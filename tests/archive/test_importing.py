from __future__ import annotations

import dataclasses
import itertools
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from struct import pack

import pydicom
import pytest
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    MediaStorageDirectoryStorage,
    generate_uid,
)

from pacs.archive.archive import Archive
from pacs.archive.check import Finding
from pacs.archive.import_sources import Found, Reason, Refusal, scan
from pacs.archive.importing import Import, Summary
from pacs.dicom.encoding.part10 import file_meta
from pacs.dicom.implementation import IMPLEMENTATION_CLASS_UID
from pacs.errors import IndexUnavailable, PacsError, StorageFull, StorageUnavailable
from pacs.index.index import Index
from pacs.model.instances import DuplicatePolicy, IngestOutcome
from pacs.storage.filesystem import FilesystemStorage
from tests.archive.holdings import contents, findings, make_slice, stored_locations
from tests.factories import make_instance, part10
from tests.media import make_medium
from tests.outages import index_outage, largest_file

UID = "1.2.3.1.1"


def run(archive: Archive, *paths: Path, jobs: int = 1) -> Summary:
    work = Import(archive, scan(paths), source_ae="IMPORT")
    work.run(jobs)
    return work.summary


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_slices(folder: Path, count: int) -> Path:
    for number in range(count):
        write(folder / f"{number}.dcm", part10(make_slice(number)))
    return folder


def stored_file(archive: Archive, uid: str) -> tuple[bytes, bytes]:
    """What stands before the data set, and the data set."""
    found = archive.index.find_by_uid(uid)
    assert found is not None
    data = archive.storage.path(found.location).read_bytes()
    return data[: found.data_set_offset], data[found.data_set_offset :]


def data_set_of(data: bytes) -> bytes:
    """The data set of a file of which it is known where that begins."""
    meta_length = int.from_bytes(data[140:144], "little")
    return data[144 + meta_length :]


def spooled_files(archive: Archive) -> list[Path]:
    return list((archive.storage.root / "spool").rglob("*.part"))


@pytest.mark.parametrize(
    "transfer_syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        JPEGLosslessSV1,
    ],
    ids=lambda uid: uid.name,
)
def test_import_keeps_the_data_set_and_the_transfer_syntax(
    archive: Archive, tmp_path: Path, transfer_syntax: str
) -> None:
    data = part10(make_slice(1), transfer_syntax)
    write(tmp_path / "in" / "a", data)

    summary = run(archive, tmp_path / "in")

    assert summary.outcomes == {IngestOutcome.STORED: 1}
    assert stored_file(archive, UID)[1] == data_set_of(data)
    found = archive.index.find_by_uid(UID)
    assert found is not None
    assert found.transfer_syntax_uid == transfer_syntax
    assert summary.size_bytes == len(data_set_of(data))


PLAIN_SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


@pytest.mark.parametrize(
    ("declared", "actual"),
    list(itertools.permutations(PLAIN_SYNTAXES, 2)),
    ids=lambda uid: uid.name.replace(" ", ""),
)
def test_import_records_the_transfer_syntax_that_the_data_set_is_in(
    archive: Archive, tmp_path: Path, declared: pydicom.uid.UID, actual: pydicom.uid.UID
) -> None:
    data_set = data_set_of(part10(make_slice(1), actual))
    meta = file_meta(CTImageStorage, UID, declared, source_ae="TOOL")
    path = write(tmp_path / "a", meta + data_set)

    summary = run(archive, path)

    before, stored = stored_file(archive, UID)
    found = archive.index.find_by_uid(UID)
    assert found is not None
    assert found.transfer_syntax_uid == actual
    assert stored == data_set
    read = pydicom.dcmread(BytesIO(before + stored))
    assert read.file_meta.TransferSyntaxUID == actual
    assert read.PatientName == "Doe^Jane"
    note = f"the data set is in {actual.name}, and was said to be in {declared.name}"
    assert (summary.notes, summary.noted) == ({note: 1}, {note: [str(path)]})
    assert (findings(archive), spooled_files(archive)) == ({Finding.SOUND: 1}, [])


@pytest.mark.parametrize("size", [1000, 120_000, 300_000, 3_000_000])
@pytest.mark.parametrize("is_counted", [True, False])
def test_import_private_information_of_any_length_in_the_meta_is_passed_over(
    archive: Archive, tmp_path: Path, size: int, is_counted: bool
) -> None:
    data = part10(make_slice(1))
    meta = data[144 : len(data) - len(data_set_of(data))]
    meta += pack("<HH2sH", 2, 0x100, b"UI", 6) + b"1.2.3\0"
    # What it holds looks like the end of the group.
    private = b"\x08\0\x16\0UI\0\0" * (size // 8)
    meta += pack("<HH2sHL", 2, 0x102, b"OB", 0, len(private)) + private
    length = pack("<HH2sHL", 2, 0, b"UL", 4, len(meta)) if is_counted else b""
    path = write(tmp_path / "a", bytes(128) + b"DICM" + length + meta + data_set_of(data))

    summary = run(archive, path)

    assert (summary.outcomes, summary.refused) == ({IngestOutcome.STORED: 1}, {})
    before, stored = stored_file(archive, UID)
    assert stored == data_set_of(data)
    assert len(before) < 500


def test_import_writes_the_file_meta_information_anew(archive: Archive, tmp_path: Path) -> None:
    instance = make_slice(1)
    instance.file_meta.ImplementationClassUID = "1.2.3.4"
    instance.file_meta.SourceApplicationEntityTitle = "SOMEONE"
    write(tmp_path / "a", b"x" * 128 + part10(instance)[128:])

    run(archive, tmp_path / "a")

    before, data_set = stored_file(archive, UID)
    meta = pydicom.dcmread(BytesIO(before + data_set)).file_meta
    assert before.startswith(bytes(128) + b"DICM")
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.SourceApplicationEntityTitle == "IMPORT"
    assert meta.MediaStorageSOPInstanceUID == UID


def test_import_leaves_the_file_outside_as_it_was(archive: Archive, tmp_path: Path) -> None:
    path = write(tmp_path / "a", part10(make_slice(1)))
    path.chmod(0o444)
    before = path.stat(), path.read_bytes()

    run(archive, path)

    after = path.stat(), path.read_bytes()
    assert (after[0].st_mtime_ns, after[0].st_ino) == (before[0].st_mtime_ns, before[0].st_ino)
    assert after[1] == before[1]


@pytest.mark.parametrize("transfer_syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_import_bare_data_set_is_stored(
    archive: Archive, tmp_path: Path, transfer_syntax: str
) -> None:
    bare = data_set_of(part10(make_slice(1), transfer_syntax))
    write(tmp_path / "in" / "bare", bare)

    run(archive, tmp_path / "in")

    assert stored_file(archive, UID)[1] == bare


def test_import_believes_the_data_set_when_its_file_meta_names_another_instance(
    archive: Archive, tmp_path: Path
) -> None:
    data = part10(make_slice(1)).replace(UID.encode(), b"9.9.9.9.9", 1)
    write(tmp_path / "a", data)
    assert pydicom.dcmread(BytesIO(data)).file_meta.MediaStorageSOPInstanceUID == "9.9.9.9.9"

    run(archive, tmp_path / "a")

    before, data_set = stored_file(archive, UID)
    stored = pydicom.dcmread(BytesIO(before + data_set))
    assert stored.file_meta.MediaStorageSOPInstanceUID == stored.SOPInstanceUID == UID


def test_import_again_finds_everything_already_stored(archive: Archive, tmp_path: Path) -> None:
    write_slices(tmp_path / "in", 3)
    run(archive, tmp_path / "in")
    before = contents(archive.index), stored_locations(archive)

    summary = run(archive, tmp_path / "in")

    assert summary.outcomes == {IngestOutcome.IDENTICAL: 3}
    assert (contents(archive.index), stored_locations(archive)) == before


@pytest.mark.parametrize(
    ("policy", "outcomes", "refused"),
    [
        (DuplicatePolicy.REPLACE, {IngestOutcome.REPLACED: 1}, {}),
        (DuplicatePolicy.KEEP, {IngestOutcome.KEPT: 1}, {}),
        (DuplicatePolicy.REFUSE, {}, {Reason.DIFFERENT: 1}),
    ],
)
def test_import_different_instance_is_treated_by_the_policy(
    archive: Archive,
    tmp_path: Path,
    policy: DuplicatePolicy,
    outcomes: dict[IngestOutcome, int],
    refused: dict[Reason, int],
) -> None:
    run(archive, write(tmp_path / "a", part10(make_slice(1))))
    archive = dataclasses.replace(archive, duplicates=policy)

    summary = run(archive, write(tmp_path / "b", part10(make_slice(1, Rows=9))))

    assert (summary.outcomes, summary.refused) == (outcomes, refused)
    assert findings(archive) == {Finding.SOUND: 1}


@pytest.mark.parametrize("data", [b"", b"hello", bytes(200), b"\xff\xd8\xff\xe0" * 100])
def test_import_other_files_are_skipped_in_folders_and_refused_when_named(
    archive: Archive, tmp_path: Path, data: bytes
) -> None:
    path = write(tmp_path / "in" / "other", data)

    in_folder, named = run(archive, tmp_path / "in"), run(archive, path)

    assert (in_folder.skipped, in_folder.refused) == ({Reason.NOT_DICOM: 1}, {})
    assert (named.skipped, named.refused) == ({}, {Reason.NOT_DICOM: 1})


def _truncated() -> bytes:
    return part10(make_slice(1))[:420]


def _no_study() -> bytes:
    return part10(make_slice(1, StudyInstanceUID=None))


def _bad_meta() -> bytes:
    return bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff\xff"


def _not_storage() -> bytes:
    return part10(make_slice(1, SOPClassUID="1.2.840.10008.1.1"))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_truncated, Reason.INVALID),
        (_no_study, Reason.INVALID),
        (_bad_meta, Reason.INVALID),
        (_not_storage, Reason.NOT_STORAGE),
    ],
)
def test_import_what_cannot_be_an_instance_is_refused_and_leaves_nothing(
    archive: Archive, tmp_path: Path, make: Callable[[], bytes], reason: Reason
) -> None:
    write(tmp_path / "in" / "bad", make())
    write(tmp_path / "in" / "good", part10(make_slice(2)))

    summary = run(archive, tmp_path / "in")

    assert summary.refused == {reason: 1}
    assert summary.outcomes == {IngestOutcome.STORED: 1}
    (example,) = summary.examples[reason]
    assert example.name.endswith("in/bad")
    assert len(stored_locations(archive)) == 1
    assert spooled_files(archive) == []


@pytest.mark.parametrize(
    ("keyword", "value", "detail"),
    [
        ("SOPClassUID", None, "The data set has no SOPClassUID"),
        ("SOPInstanceUID", None, "The data set has no SOPInstanceUID"),
        ("StudyInstanceUID", None, "The data set has no StudyInstanceUID"),
        ("SOPInstanceUID", "1.2\x7f", "SOPInstanceUID is not a UID, '1.2\\x7f'"),
        ("SeriesInstanceUID", "1" * 130, f"SeriesInstanceUID is not a UID, '{'1' * 64}'"),
    ],
)
@pytest.mark.parametrize("is_bare", [True, False])
@pytest.mark.filterwarnings("ignore:.*VR UI:UserWarning")
def test_import_names_the_uid_that_is_missing_or_wrong(
    archive: Archive, tmp_path: Path, keyword: str, value: str | None, detail: str, is_bare: bool
) -> None:
    data_set = data_set_of(part10(make_slice(1, **{keyword: value})))
    meta = pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    head = b"" if is_bare else bytes(128) + b"DICM" + meta
    write(tmp_path / "in" / "a", head + data_set)

    summary = run(archive, tmp_path / "in")

    assert summary.refused == {Reason.INVALID: 1}
    assert [one.detail for one in summary.examples[Reason.INVALID]] == [detail]
    assert spooled_files(archive) == []


def test_import_file_that_is_gone_by_then_is_refused(archive: Archive, tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "a", part10(make_slice(1)))
    found = list(scan([tmp_path / "in"]))
    path.unlink()

    work = Import(archive, iter(found), source_ae="IMPORT")
    work.run(1)

    assert work.summary.refused == {Reason.UNREADABLE: 1}


def test_import_zip_stores_its_members(archive: Archive, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive_file:
        for number in range(20):
            archive_file.writestr(f"a/{number}", part10(make_slice(number)))
        archive_file.writestr("readme.txt", "hello")
        archive_file.writestr("b/DICOMDIR", make_medium(tmp_path / "medium").read_bytes())

    summary = run(archive, tmp_path / "x.zip", jobs=4)

    assert summary.outcomes == {IngestOutcome.STORED: 20}
    assert summary.skipped == {Reason.NOT_DICOM: 1, Reason.DICOMDIR: 1}
    assert summary.refused == {}
    assert stored_file(archive, UID)[1] == data_set_of(part10(make_slice(1)))


def test_import_damaged_zip_member_is_refused_and_leaves_nothing(
    archive: Archive, tmp_path: Path
) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive_file:
        archive_file.writestr("a", part10(make_slice(1)))
    data = bytearray(path.read_bytes())
    data[600] ^= 0xFF
    path.write_bytes(bytes(data))

    summary = run(archive, path)

    assert summary.refused == {Reason.UNREADABLE: 1}
    assert (stored_locations(archive), spooled_files(archive)) == ([], [])


@pytest.mark.parametrize("named", [True, False], ids=["dicomdir", "folder"])
def test_import_medium_stores_its_instances_and_not_its_directory(
    archive: Archive, tmp_path: Path, named: bool
) -> None:
    dicomdir = make_medium(tmp_path / "medium", 4)

    summary = run(archive, dicomdir if named else dicomdir.parent)

    assert summary.outcomes == {IngestOutcome.STORED: 4}
    assert summary.skipped == ({} if named else {Reason.DICOMDIR: 1})
    classes = {row for instance in contents(archive.index) for row in instance}
    assert MediaStorageDirectoryStorage not in classes


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_import_by_several_threads_stores_each_instance_once(
    archive: Archive, tmp_path: Path, jobs: int
) -> None:
    for copy in "abc":
        write_slices(tmp_path / "in" / copy, 10)

    summary = run(archive, tmp_path / "in", jobs=jobs)

    assert summary.outcomes == {IngestOutcome.STORED: 10, IngestOutcome.IDENTICAL: 20}
    assert findings(archive) == {Finding.SOUND: 10}


def test_import_never_scans_ahead_of_its_threads(archive: Archive, tmp_path: Path) -> None:
    write_slices(tmp_path / "in", 20)
    ahead: list[int] = []

    def watched() -> Iterator[Found]:
        for taken, one in enumerate(scan([tmp_path / "in"])):
            ahead.append(taken - work.summary.done)
            yield one

    work = Import(archive, watched(), source_ae="IMPORT")
    work.run(3)

    assert max(ahead) < 3


def test_import_refusals_are_handed_out_one_by_one(archive: Archive, tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path / "in" / str(number), _truncated())
    write(tmp_path / "in" / "other", b"hello")
    refused: list[Refusal] = []

    work = Import(archive, scan([tmp_path / "in"]), source_ae="X", on_refused=refused.append)
    work.run(3)

    assert len(refused) == work.summary.refused.total() == 10
    assert len(work.summary.examples[Reason.INVALID]) == 3


def test_import_stops_when_the_index_is_gone_and_says_how_far_it_got(
    archive: Archive, tmp_path: Path, database_url: str
) -> None:
    write_slices(tmp_path / "in", 30)
    paused, resume = threading.Event(), threading.Event()

    def pausing() -> Iterator[Found]:
        for number, one in enumerate(scan([tmp_path / "in"])):
            if number == 5:
                paused.set()
                assert resume.wait(30)
            yield one

    work = Import(archive, pausing(), source_ae="IMPORT")
    caught: list[PacsError] = []

    def import_all() -> None:
        try:
            work.run(1)
        except PacsError as error:
            caught.append(error)

    thread = threading.Thread(target=import_all)
    thread.start()
    assert paused.wait(30)
    with index_outage(database_url):
        resume.set()
        thread.join(60)

    assert [type(error) for error in caught] == [IndexUnavailable]
    assert work.summary.outcomes == {IngestOutcome.STORED: 5}
    assert findings(archive) == {Finding.SOUND: 5}
    assert run(archive, tmp_path / "in").outcomes == {
        IngestOutcome.STORED: 25,
        IngestOutcome.IDENTICAL: 5,
    }


def test_import_stops_when_the_disk_is_full(archive: Archive, tmp_path: Path) -> None:
    large = make_slice(2)
    large.PixelData = bytes(8 * 1024 * 1024)
    write(tmp_path / "in" / "large", part10(large))
    # The index on SQLite needs some room of its own.
    with largest_file(6 * 1024 * 1024), pytest.raises(StorageFull):
        run(archive, tmp_path / "in")

    assert spooled_files(archive) == []
    assert stored_locations(archive) == []


@pytest.mark.parametrize("jobs", [1, 4])
def test_import_one_thread_in_trouble_stops_the_others(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    place = FilesystemStorage.place
    count = itertools.count(1)

    def fail_later(storage: FilesystemStorage, spooled: object) -> str:
        if next(count) == 10:
            raise StorageUnavailable("Input/output error")
        return place(storage, spooled)  # type: ignore[arg-type]

    write_slices(tmp_path / "in", 60)
    monkeypatch.setattr(FilesystemStorage, "place", fail_later)
    work = Import(archive, scan([tmp_path / "in"]), source_ae="IMPORT")

    with pytest.raises(StorageUnavailable):
        work.run(jobs)

    assert 9 <= work.summary.instances < 20
    assert findings(archive) == {Finding.SOUND: work.summary.instances}


def test_import_interrupted_finishes_what_it_has_begun_and_counts_it(
    archive: Archive, tmp_path: Path
) -> None:
    write_slices(tmp_path / "in", 300)

    def interrupt(summary: Summary) -> None:
        if summary.done > 5:
            raise KeyboardInterrupt

    work = Import(archive, scan([tmp_path / "in"]), source_ae="IMPORT")
    with pytest.raises(KeyboardInterrupt):
        work.run(2, interrupt, tick_seconds=0.001)

    assert 5 < work.summary.instances < 300
    assert findings(archive) == {Finding.SOUND: work.summary.instances}
    assert spooled_files(archive) == []


def test_import_instance_the_index_refuses_is_refused_and_the_rest_is_stored(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = Index.ingest

    def refuse_one(index: Index, record: object, *rest: object) -> object:
        if record.header.sop_instance_uid == UID:  # type: ignore[attr-defined]
            raise PacsError("The index refused a value or a reference.")
        return ingest(index, record, *rest)  # type: ignore[arg-type]

    write_slices(tmp_path / "in", 4)
    monkeypatch.setattr(Index, "ingest", refuse_one)

    summary = run(archive, tmp_path / "in")

    assert summary.refused == {Reason.INVALID: 1}
    assert summary.outcomes == {IngestOutcome.STORED: 3}


def test_import_of_a_large_file_takes_little_memory(archive: Archive, tmp_path: Path) -> None:
    large = make_instance(SOPInstanceUID=generate_uid())
    large.PixelData = bytes(48 * 1024 * 1024)
    path = write(tmp_path / "large", part10(large))
    run(archive, write(tmp_path / "small", part10(make_instance())))

    tracemalloc.start()
    try:
        run(archive, path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 8 * 1024 * 1024
