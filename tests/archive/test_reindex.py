from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from struct import pack

import pytest
import sqlalchemy as sa

from pacs.archive import reindex as reindex_module
from pacs.archive.archive import Archive
from pacs.archive.check import Finding as CheckFinding
from pacs.archive.mounted import learn_storage
from pacs.archive.reindex import Finding, Reindexed, reindex
from pacs.archive.store import store
from pacs.dicom.attributes import ATTRIBUTE_SET_VERSION
from pacs.dicom.encoding.part10 import file_meta, read_file_meta
from pacs.errors import IndexUnavailable, PacsError
from pacs.index import tables
from pacs.index.index import Index
from pacs.model.instances import Origin
from pacs.storage.filesystem import FilesystemStorage
from pacs.storage.spool import Spool
from tests.archive.holdings import (
    EXPLICIT,
    NO_GRACE,
    contents,
    findings,
    keep,
    location_of,
    make_slice,
    put_orphan,
    stored_locations,
)
from tests.factories import part10

UID = "1.2.3.1.1"


def found(results: list[Reindexed]) -> Counter[Finding]:
    return Counter(result.finding for result in results)


def forget_everything(archive: Archive) -> None:
    """Lose the index."""
    with archive.index._engine.write() as connection:
        for table in (tables.instance, tables.series, tables.study, tables.patient):
            connection.execute(sa.delete(table))


def without_source(rows: list[tuple[object, ...]]) -> list[list[object]]:
    # The files of these tests do not name who sent them.
    return [[value for value in row if value not in {"CT1", ""}] for row in rows]


def spoil_columns(archive: Archive) -> None:
    """What the rows look like when a release adds Attributes: no values in their columns."""
    columns = {
        tables.patient: ("patient_birth_date",),
        tables.study: ("study_description", "study_date"),
        tables.series: ("modality",),
        tables.instance: ("instance_number", "rows"),
    }
    with archive.index._engine.write() as connection:
        for table, names in columns.items():
            connection.execute(
                sa.update(table).values(dict.fromkeys(names)).values(revision=table.c.revision + 1)
                if "revision" in table.c
                else sa.update(table).values(dict.fromkeys(names))
            )


def test_reindex_fills_columns_that_have_no_values_yet(archive: Archive) -> None:
    for number in range(5):
        keep(archive, make_slice(number, StudyDescription="Head"))
    expected = contents(archive.index)
    spoil_columns(archive)
    assert contents(archive.index) != expected

    results = list(reindex(archive))

    assert found(results) == {Finding.REWRITTEN: 5}
    assert contents(archive.index) == expected


def test_reindex_keeps_when_and_from_whom_an_instance_came(archive: Archive) -> None:
    keep(archive, make_slice())
    before = archive.index.find_by_uid(UID)

    list(reindex(archive))

    assert archive.index.find_by_uid(UID) == before
    assert any("CT1" in row for row in contents(archive.index))


def test_reindex_of_a_lost_index_gives_the_same_index(archive: Archive) -> None:
    for number in range(5):
        keep(archive, make_slice(number, PatientName=f"Doe^{number}"))
    keep(archive, make_slice(7, StudyInstanceUID="1.2.4", SeriesInstanceUID="1.2.4.1"))
    expected = contents(archive.index)
    forget_everything(archive)

    results = list(reindex(archive))

    assert found(results) == {Finding.ADOPTED: 6}
    assert without_source(contents(archive.index)) == without_source(expected)
    assert findings(archive) == {CheckFinding.SOUND: 6}


def test_reindex_parents_say_what_the_latest_instance_said(archive: Archive) -> None:
    keep(archive, make_slice(1, PatientName="Latest^Last", StudyDescription="Old"))
    keep(archive, make_slice(2, PatientName="Latest^Last", StudyDescription="New"))
    forget_everything(archive)

    list(reindex(archive))
    list(reindex(archive))

    assert all("New" in row for row in contents(archive.index))


def test_reindex_of_a_lost_index_lets_the_latest_file_of_an_instance_win(archive: Archive) -> None:
    put_orphan(archive, part10(make_slice(PatientName="Old")))
    latest = put_orphan(archive, part10(make_slice(PatientName="New")))

    list(reindex(archive, NO_GRACE))

    assert location_of(archive, UID) == latest
    assert len(stored_locations(archive)) == 2


def test_reindex_leaves_an_older_file_of_an_indexed_instance_alone(archive: Archive) -> None:
    put_orphan(archive, part10(make_slice(PatientName="Old")))
    keep(archive, make_slice(PatientName="New"))
    before = location_of(archive, UID)

    results = list(reindex(archive, NO_GRACE))

    assert found(results) == {Finding.SUPERFLUOUS: 1, Finding.REWRITTEN: 1}
    assert location_of(archive, UID) == before


def test_reindex_file_that_may_be_in_flight_replaces_nothing(archive: Archive) -> None:
    keep(archive, make_slice(PatientName="Old"))
    before = location_of(archive, UID)
    put_orphan(archive, part10(make_slice(PatientName="New")))

    results = list(reindex(archive))

    assert found(results) == {Finding.SUPERFLUOUS: 1, Finding.REWRITTEN: 1}
    assert location_of(archive, UID) == before


@pytest.fixture
def other_process(archive: Archive) -> Iterator[None]:
    """Another process receives instances into the same storage."""
    spool = Spool(archive.storage.root / "spool")
    with spool.create(b""):
        pass
    yield
    spool.close()


@pytest.mark.usefixtures("other_process")
def test_reindex_leaves_a_file_to_the_process_that_may_be_about_to_index_it(
    archive: Archive,
) -> None:
    keep(archive, make_slice(2))
    location = put_orphan(archive, part10(make_slice(1)))

    results = list(reindex(archive))

    assert found(results) == {Finding.IN_FLIGHT: 1, Finding.REWRITTEN: 1}
    assert archive.index.find_by_uid(UID) is None
    assert location in stored_locations(archive)
    assert found(list(reindex(archive, NO_GRACE))) == {Finding.ADOPTED: 1, Finding.REWRITTEN: 1}


def test_reindex_file_in_flight_whose_commit_fails_leaves_no_row_without_bytes(
    archive: Archive, other_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        list(reindex(archive))
        raise IndexUnavailable("no space")

    with monkeypatch.context() as patch:
        patch.setattr(Index, "ingest", fail)
        with pytest.raises(IndexUnavailable):
            keep(archive, make_slice())

    assert findings(archive) == {}


def test_reindex_reads_no_data_set_to_its_end_where_the_row_has_the_digest(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    keep(archive, make_slice())
    monkeypatch.setattr("pacs.archive.stored_files.digest_of", refuse)

    assert found(list(reindex(archive))) == {Finding.REWRITTEN: 1}


def test_reindex_file_of_another_size_than_its_row_says_stays_damaged(archive: Archive) -> None:
    keep(archive, make_slice())
    path = archive.storage.path(location_of(archive, UID))
    path.write_bytes(path.read_bytes()[:-8])
    before, size = contents(archive.index), path.stat().st_size

    (result,) = reindex(archive)

    assert (result.finding, result.sop_instance_uid) == (Finding.UNREADABLE, UID)
    assert result.detail == f"has {size} bytes, should have {size + 8}"
    assert contents(archive.index) == before
    assert findings(archive) == {CheckFinding.DAMAGED: 1}


def keep_bytes(archive: Archive, data_set: bytes, syntax: str) -> None:
    """Store a data set as it comes over the network."""
    uids = "1.2.840.10008.5.1.4.1.1.2", UID
    with archive.storage.spool.create(file_meta(*uids, syntax, source_ae="CT1")) as writer:
        writer.write(data_set)
        store(archive, writer.finish(), Origin("CT1", syntax, *uids, is_announced=True))
    archive.redo.flush()


def data_set_of(data: bytes) -> bytes:
    return data[read_file_meta(BytesIO(data)).data_set_offset :]


def in_group_2(number: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return pack("<HH2sH", 2, number, b"UI", len(value)) + value


# Each of them would be taken for File Meta Information by a reader that goes on as long as the group lasts; the last
# one also by one that goes on as long as the tags ascend.
GROUP_2 = {
    "another transfer syntax": in_group_2(0x10, b"1.2.840.10008.1.2") + in_group_2(0x12, b"1.2.3"),
    "another instance": in_group_2(0x02, b"1.2.3") + in_group_2(0x03, b"1.2.3.4"),
    "what follows the last": in_group_2(0x0100, b"1.2.3"),
}


@pytest.mark.parametrize("index_is_lost", [False, True])
@pytest.mark.parametrize("within", GROUP_2.values(), ids=GROUP_2)
def test_reindex_group_2_elements_of_the_data_set_stay_where_they_are(
    archive: Archive, within: bytes, index_is_lost: bool
) -> None:
    keep_bytes(archive, within + data_set_of(part10(make_slice())), EXPLICIT)
    before = without_source(contents(archive.index))
    if index_is_lost:
        forget_everything(archive)

    results = list(reindex(archive))

    assert found(results) == {Finding.ADOPTED if index_is_lost else Finding.REWRITTEN: 1}
    assert without_source(contents(archive.index)) == before
    assert findings(archive) == {CheckFinding.SOUND: 1}


def test_reindex_does_not_overrule_the_transfer_syntax_that_the_row_has(archive: Archive) -> None:
    keep(archive, make_slice())
    before = contents(archive.index)
    path = archive.storage.path(location_of(archive, UID))
    # As long as that of Explicit VR Little Endian, so that nothing but the name is another one.
    path.write_bytes(
        path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0", 1)
    )

    assert found(list(reindex(archive))) == {Finding.REWRITTEN: 1}
    assert contents(archive.index) == before


def test_reindex_missing_and_unreadable_files_keep_their_rows(archive: Archive) -> None:
    for number in (1, 2, 3):
        keep(archive, make_slice(number))
    archive.storage.path(location_of(archive, "1.2.3.1.1")).unlink()
    archive.storage.path(location_of(archive, "1.2.3.1.2")).write_bytes(b"no instance")

    results = list(reindex(archive))

    assert found(results) == {Finding.MISSING: 1, Finding.UNREADABLE: 1, Finding.REWRITTEN: 1}
    assert {result.sop_instance_uid for result in results} == {f"1.2.3.1.{n}" for n in (1, 2, 3)}
    assert len(contents(archive.index)) == 3


def test_reindex_file_that_holds_another_instance_changes_no_row(archive: Archive) -> None:
    keep(archive, make_slice(1))
    archive.storage.path(location_of(archive, UID)).write_bytes(part10(make_slice(2)))
    before = contents(archive.index)

    results = list(reindex(archive))

    assert found(results) == {Finding.UNREADABLE: 1}
    assert contents(archive.index) == before


def test_reindex_marks_the_index_as_written_with_this_release_when_done(archive: Archive) -> None:
    for number in range(3):
        keep(archive, make_slice(number))
    archive.index.set_attribute_set_version(0)

    results = reindex(archive)
    next(results)
    assert archive.index.attribute_set_version() == 0
    list(results)

    assert archive.index.attribute_set_version() == ATTRIBUTE_SET_VERSION


@pytest.mark.parametrize("done", [0, 1, 3, 5])
def test_reindex_interrupted_anywhere_can_be_run_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    for number in range(6):
        keep(archive, make_slice(number))
    expected = contents(archive.index)
    forget_everything(archive)
    monkeypatch.setattr(reindex_module, "_BATCH_INSTANCES", 2)

    list(itertools.islice(reindex(archive), done))
    list(reindex(archive))

    assert without_source(contents(archive.index)) == without_source(expected)


def test_reindex_one_instance_the_index_refuses_does_not_stop_the_others(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite = Index.rewrite

    def refuse_one(index: Index, records: list[object]) -> set[str]:
        if any(record.location == refused for record in records):  # type: ignore[attr-defined]
            raise PacsError("The index refused a value or a reference.")
        return rewrite(index, records)  # type: ignore[arg-type]

    for number in range(4):
        keep(archive, make_slice(number))
    refused = location_of(archive, "1.2.3.1.2")
    monkeypatch.setattr(Index, "rewrite", refuse_one)

    results = list(reindex(archive))

    assert found(results) == {Finding.REWRITTEN: 3, Finding.UNREADABLE: 1}


def test_reindex_of_nothing_is_nothing(archive: Archive) -> None:
    assert list(reindex(archive)) == []


def test_reindex_deletes_no_file(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    keep(archive, make_slice(1))
    put_orphan(archive, part10(make_slice(1)))
    put_orphan(archive, part10(make_slice(1, Rows=9)))
    learn_storage(archive.storage, archive.index)
    monkeypatch.setattr(FilesystemStorage, "remove", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)

    list(reindex(archive))

    assert len(stored_locations(archive)) == 3
