from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pacs.archive import check as check_module
from pacs.archive import settler, stored_files
from pacs.archive.archive import Archive
from pacs.archive.check import (
    DEFAULT_GRACE,
    Checked,
    Finding,
    Options,
    Repair,
    check,
    most_removed,
)
from pacs.archive.mounted import learn_storage
from pacs.archive.store import store
from pacs.errors import StorageUnavailable
from pacs.index.engine import Engine
from pacs.index.index import Index
from pacs.model.instances import InstanceLocation, Origin
from pacs.storage.base import StoredFile
from pacs.storage.filesystem import FilesystemStorage
from pacs.storage.spool import Spool
from tests.archive.holdings import (
    EXPLICIT,
    contents,
    findings,
    keep,
    keep_cut_off,
    location_of,
    look,
    make_slice,
    put_orphan,
    spool,
    stored_locations,
)
from tests.factories import part10

UID = "1.2.3.1.1"


def only(checked: list[Checked]) -> Checked:
    assert len(checked) == 1
    return checked[0]


def path_of(archive: Archive, uid: str = UID) -> Path:
    return archive.storage.path(location_of(archive, uid))


def quarantined(archive: Archive) -> list[Path]:
    return sorted((archive.storage.root / "quarantine").glob("*"))


def spoil(path: Path) -> None:
    """Change the last byte: same size, other digest."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 0xFF]))


def test_check_sound_archive_finds_every_instance_sound_in_order_of_receipt(
    archive: Archive,
) -> None:
    for number in range(5):
        keep(archive, make_slice(number))

    checked = look(archive)

    assert [one.finding for one in checked] == [Finding.SOUND] * 5
    assert [one.location for one in checked] == stored_locations(archive)
    assert [one.sop_instance_uid for one in checked] == [f"1.2.3.1.{n}" for n in range(5)]


def test_check_empty_archive_finds_nothing(archive: Archive) -> None:
    assert look(archive, repair=True) == []


def test_check_walks_pages_of_rows_and_misses_none(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        keep(archive, make_slice(number))
    archive.index.remove("1.2.3.1.3")
    path_of(archive, "1.2.3.1.5").unlink()
    monkeypatch.setattr(stored_files, "_PAGE_ROWS", 2)

    found = findings(archive)

    assert found == {Finding.SOUND: 5, Finding.ORPHAN: 1, Finding.MISSING: 1}


def test_check_missing_file_is_reported_and_nothing_is_changed(archive: Archive) -> None:
    keep(archive, make_slice())
    path_of(archive).unlink()
    before = contents(archive.index)

    checked = only(look(archive))

    assert (checked.finding, checked.sop_instance_uid) == (Finding.MISSING, UID)
    assert checked.repair is None
    assert contents(archive.index) == before


def test_check_repair_removes_the_row_of_a_missing_file(archive: Archive) -> None:
    keep(archive, make_slice(1))
    keep(archive, make_slice(2))
    path_of(archive).unlink()

    checked = look(archive, repair=True)

    # What is missing is decided when all of it is known.
    assert [one.repair for one in checked] == [None, Repair.ROW_REMOVED]
    assert archive.index.find_by_uid(UID) is None
    assert findings(archive) == {Finding.SOUND: 1}


def test_check_repair_of_an_empty_storage_refuses_to_empty_the_index(archive: Archive) -> None:
    keep(archive, make_slice())
    path_of(archive).unlink()

    with pytest.raises(StorageUnavailable, match="mounted"):
        look(archive, repair=True)

    assert archive.index.find_by_uid(UID) is not None


def test_check_orphan_is_reported_and_left_alone(archive: Archive) -> None:
    location = put_orphan(archive, part10(make_slice()))

    checked = only(look(archive))

    assert (checked.finding, checked.location) == (Finding.ORPHAN, location)
    assert contents(archive.index) == []
    assert stored_locations(archive) == [location]


def test_check_repair_adopts_an_orphan_as_if_it_had_been_stored(archive: Archive) -> None:
    keep(archive, make_slice(1, PatientName="Ünal^Élise"))
    expected = contents(archive.index)
    location = location_of(archive, UID)
    before = archive.index.find_by_uid(UID)
    archive.index.remove(UID)

    checked = only(look(archive, repair=True))

    assert (checked.repair, checked.sop_instance_uid) == (Repair.ADOPTED, UID)
    assert location_of(archive, UID) == location
    after = archive.index.find_by_uid(UID)
    assert before is not None
    assert after is not None
    assert abs(after.received_at - before.received_at) < timedelta(seconds=5)
    # The test wrote the file without a Source AE Title; everything else is as it was.
    columns = [{*row} - {"CT1", ""} for row in (*expected, *contents(archive.index))]
    assert columns[0] == columns[1]


def test_check_repair_learns_from_the_file_who_sent_it(archive: Archive) -> None:
    instance = make_slice()
    instance.file_meta.SourceApplicationEntityTitle = "MR7"
    put_orphan(archive, part10(instance))

    look(archive, repair=True)

    assert any("MR7" in row for row in contents(archive.index))


def test_check_repair_removes_an_orphan_that_is_indexed_elsewhere(archive: Archive) -> None:
    keep(archive, make_slice())
    location = location_of(archive, UID)
    put_orphan(archive, part10(make_slice()))

    checked = look(archive, repair=True)

    assert [one.repair for one in checked] == [None, Repair.DUPLICATE_REMOVED]
    assert stored_locations(archive) == [location]


@pytest.mark.parametrize("orphan_first", [True, False], ids=["older", "newer"])
def test_check_repair_sets_a_different_orphan_aside_and_deletes_no_bytes(
    archive: Archive, orphan_first: bool
) -> None:
    data = part10(make_slice(PatientName="Other"))
    if orphan_first:
        put_orphan(archive, data)
        keep(archive, make_slice())
    else:
        keep(archive, make_slice())
        put_orphan(archive, data)
    before = contents(archive.index)

    checked = look(archive, repair=True)

    assert {one.repair for one in checked} == {None, Repair.QUARANTINED}
    assert contents(archive.index) == before
    assert [path.read_bytes() for path in quarantined(archive)] == [data]
    assert findings(archive) == {Finding.SOUND: 1}


@pytest.mark.parametrize("orphan_first", [True, False], ids=["older", "newer"])
@pytest.mark.parametrize("values", [{}, {"PatientName": "Other"}], ids=["identical", "different"])
def test_check_repair_an_orphan_takes_the_place_of_lost_bytes(
    archive: Archive, orphan_first: bool, values: dict[str, str]
) -> None:
    data = part10(make_slice(**values))
    orphan = put_orphan(archive, data) if orphan_first else ""
    keep(archive, make_slice())
    path_of(archive).unlink()
    orphan = orphan or put_orphan(archive, data)

    look(archive, repair=True)

    assert location_of(archive, UID) == orphan
    assert findings(archive) == {Finding.SOUND: 1}


@pytest.mark.parametrize("orphan_first", [True, False], ids=["older", "newer"])
def test_check_repair_an_orphan_takes_the_place_of_damaged_bytes_which_are_kept(
    archive: Archive, orphan_first: bool
) -> None:
    data = part10(make_slice())
    orphan = put_orphan(archive, data) if orphan_first else ""
    keep(archive, make_slice())
    damaged = path_of(archive)
    spoil(damaged)
    bytes_left = damaged.read_bytes()
    orphan = orphan or put_orphan(archive, data)

    look(archive, repair=True)

    assert location_of(archive, UID) == orphan
    look(archive, repair=True)
    assert findings(archive) == {Finding.SOUND: 1}
    assert [path.read_bytes() for path in quarantined(archive)] == [bytes_left]


def test_check_repair_sets_an_unreadable_orphan_aside(archive: Archive) -> None:
    location = put_orphan(archive, part10(make_slice()))
    archive.storage.path(location).write_bytes(b"no instance")

    checked = only(look(archive, repair=True))

    assert checked.repair is Repair.QUARANTINED
    assert [path.read_bytes() for path in quarantined(archive)] == [b"no instance"]


def test_check_repair_of_many_orphans_gives_what_storing_them_gave(archive: Archive) -> None:
    for number in range(4):
        put_orphan(archive, part10(make_slice(number)))
    look(archive, repair=True)
    adopted = contents(archive.index)
    for number in range(4):
        archive.storage.remove(archive.index.remove(f"1.2.3.1.{number}") or "")

    for number in range(4):
        keep(archive, make_slice(number))

    # All but the source AE, which these files do not name.
    assert [[v for v in row if v != "CT1"] for row in contents(archive.index)] == [
        [v for v in row if v != ""] for row in adopted
    ]


@pytest.mark.parametrize("repair", [False, True])
def test_check_leaves_a_file_alone_that_may_be_in_flight(archive: Archive, repair: bool) -> None:
    location = put_orphan(archive, part10(make_slice()))

    checked = only(look(archive, repair=repair, grace=DEFAULT_GRACE))

    assert (checked.finding, checked.repair) == (Finding.IN_FLIGHT, None)
    assert stored_locations(archive) == [location]
    assert contents(archive.index) == []


def test_check_truncated_file_is_damaged_without_looking_deeply(archive: Archive) -> None:
    keep(archive, make_slice())
    os.truncate(path_of(archive), 700)

    checked = only(look(archive, deep=False))

    assert checked.finding is Finding.DAMAGED
    assert "700 bytes" in checked.detail


@pytest.mark.parametrize(("deep", "finding"), [(False, Finding.SOUND), (True, Finding.DAMAGED)])
def test_check_changed_byte_is_found_by_a_deep_look(
    archive: Archive, deep: bool, finding: Finding
) -> None:
    keep(archive, make_slice())
    spoil(path_of(archive))

    assert only(look(archive, deep=deep)).finding is finding


def test_check_deep_calls_bytes_that_changed_by_that_and_not_cut_off(archive: Archive) -> None:
    keep(archive, make_slice())
    path = path_of(archive)
    data = path.read_bytes()
    length_at = data.index(b"\xe0\x7f\x10\x00") + 8
    path.write_bytes(data[:length_at] + b"\xf0" + data[length_at + 1 :])

    checked = only(look(archive))

    assert checked.finding is Finding.DAMAGED
    assert checked.detail == "the SHA-256 is not the one it was stored with"


def test_check_repair_never_touches_a_damaged_file(archive: Archive) -> None:
    keep(archive, make_slice())
    spoil(path_of(archive))
    before = path_of(archive).read_bytes()

    checked = only(look(archive, repair=True))

    assert (checked.finding, checked.repair) == (Finding.DAMAGED, None)
    assert path_of(archive).read_bytes() == before


def test_check_ignores_what_is_not_an_instance_file(archive: Archive) -> None:
    keep(archive, make_slice())
    (path_of(archive).parent / "notes.txt").write_text("mine")
    (archive.storage.root / "lost+found").mkdir()

    assert findings(archive) == {Finding.SOUND: 1}


def test_check_instance_stored_after_its_rows_were_read_is_no_orphan(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FilesystemStorage.files

    def store_later(storage: FilesystemStorage) -> Iterator[StoredFile]:
        listed = list(files(storage))
        yield from listed
        # By now the last page of rows has been read.
        keep(archive, make_slice(2))
        yield from [file for file in files(storage) if file not in listed]

    keep(archive, make_slice(1))
    monkeypatch.setattr(FilesystemStorage, "files", store_later)

    assert {one.finding for one in check(archive, Options(grace=timedelta(0)))} == {Finding.SOUND}


def test_check_instance_replaced_after_its_row_was_read_is_not_missing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    locations = Index.locations

    def replace_later(
        index: Index, after: str = "", limit: int | None = None
    ) -> Iterator[InstanceLocation]:
        page = list(locations(index, after, limit))
        if not after:
            keep(archive, make_slice(1, PatientName="New"))
        yield from page

    keep(archive, make_slice(1))
    monkeypatch.setattr(Index, "locations", replace_later)

    checked = list(check(archive, Options(repair=True, grace=timedelta(0))))

    assert [one.finding for one in checked if one.finding is not Finding.SOUND] == []
    assert archive.index.find_by_uid(UID) is not None


def test_check_row_with_a_location_of_another_kind_is_damage_not_a_path(
    archive: Archive,
) -> None:
    keep(archive, make_slice())
    with archive.index._engine.write() as connection:
        connection.exec_driver_sql("UPDATE instance SET location = '../../etc/passwd'")

    found = [one for one in look(archive) if one.finding is not Finding.ORPHAN]

    assert only(found).finding is Finding.DAMAGED


def test_check_reads_no_bytes_unless_deep(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    keep(archive, make_slice())
    monkeypatch.setattr(FilesystemStorage, "open", refuse)

    assert only(look(archive, deep=False)).finding is Finding.SOUND


def test_check_unreadable_file_is_damage_and_the_rest_is_checked(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = FilesystemStorage.open

    def fail_once(storage: FilesystemStorage, location: str) -> object:
        if location == broken:
            raise StorageUnavailable("Input/output error")
        return opened(storage, location)

    keep(archive, make_slice(1))
    keep(archive, make_slice(2))
    broken = location_of(archive, UID)
    monkeypatch.setattr(FilesystemStorage, "open", fail_once)

    assert [one.finding for one in look(archive)] == [Finding.DAMAGED, Finding.SOUND]


@pytest.mark.parametrize("remove_many", [False, True])
def test_check_repair_removes_many_rows_only_if_told_to(
    archive: Archive, remove_many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 12 of 14: part of a volume is away, which the other files say nothing of.
    monkeypatch.setattr(check_module, "_REMOVED_AT_ONCE", 5)
    for number in range(14):
        keep(archive, make_slice(number))
    for number in range(12):
        path_of(archive, f"1.2.3.1.{number}").unlink()

    checked = look(archive, repair=True, remove_many=remove_many)

    missing = [one for one in checked if one.finding is Finding.MISSING]
    assert len(missing) == 12
    assert len(contents(archive.index)) == (2 if remove_many else 14)
    if remove_many:
        assert {one.repair for one in missing} == {Repair.ROW_REMOVED}
    else:
        assert {(one.repair, one.detail) for one in missing} == {
            (None, "the file is missing; its row stays, for too many are missing")
        }


@pytest.mark.parametrize(
    ("instances", "most"), [(0, 10), (14, 10), (1000, 10), (1100, 11), (1_000_000, 10_000)]
)
def test_check_repair_removes_one_percent_or_ten(instances: int, most: int) -> None:
    assert most_removed(instances) == most


@pytest.mark.parametrize("remove_many", [False, True])
def test_check_repair_removes_no_row_once_the_volume_is_away(
    archive: Archive, tmp_path: Path, remove_many: bool
) -> None:
    learn_storage(archive.storage, archive.index)
    for number in range(3):
        keep(archive, make_slice(number))
    path_of(archive).unlink()
    checking = check(archive, Options(repair=True, remove_many=remove_many))
    # In the middle: the first file was there, and what is missing has been found so.
    assert next(checking).finding is Finding.SOUND
    archive.storage.root.rename(tmp_path / "away")

    with pytest.raises(StorageUnavailable, match="mounted"):
        list(checking)

    (tmp_path / "away").rename(archive.storage.root)
    assert len(contents(archive.index)) == 3
    assert findings(archive) == {Finding.SOUND: 2, Finding.MISSING: 1}


def test_check_without_repair_writes_nothing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settler, "_GATHER_SECONDS", 3600)
    for number in (1, 2):
        instance = make_slice(number)
        store(archive, spool(archive, part10(instance)), Origin("CT1", EXPLICIT))
    lost, spoilt = path_of(archive, "1.2.3.1.1"), path_of(archive, "1.2.3.1.2")
    lost.unlink()
    spoil(spoilt)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "create", refuse)
        patch.setattr(Engine, "transact", refuse)
        found = look(archive)

    # Neither is lost: the index has the bytes.
    assert [one.finding for one in found] == [Finding.KEPT] * 2
    assert not lost.exists()
    assert {one.finding for one in look(archive, repair=True)} == {Finding.SOUND}


def test_check_deep_finds_what_was_cut_off_before_it_was_received(archive: Archive) -> None:
    location = keep_cut_off(archive, part10(make_slice())[:-20])

    assert [one.finding for one in look(archive, deep=False)] == [Finding.SOUND]
    checked = only(look(archive))

    assert (checked.finding, checked.location) == (Finding.DAMAGED, location)
    assert "(7FE0,0010)" in checked.detail
