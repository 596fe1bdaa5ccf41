"""Data sets that were cut off on their way here: refused, and known where an earlier release kept one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacs.archive.archive import Archive
from pacs.archive.check import Finding
from pacs.archive.commitment import failure_of
from pacs.archive.import_sources import Reason, scan
from pacs.archive.importing import Import
from pacs.archive.reindex import Finding as Reindexed
from pacs.archive.reindex import reindex
from pacs.archive.store import store
from pacs.dicom.storage_commitment import FailureReason, Reference
from pacs.errors import IncompleteInstance
from pacs.model.instances import IngestOutcome, Origin
from tests.archive.holdings import (
    EXPLICIT,
    contents,
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
JPEG = "1.2.840.10008.1.2.4.50"
DEFLATED = "1.2.840.10008.1.2.1.99"
#: What follows the fragments of encapsulated Pixel Data.
DELIMITER_BYTES = 8


@pytest.mark.parametrize("syntax", [EXPLICIT, JPEG, DEFLATED])
def test_store_cut_off_instance_is_refused_and_the_whole_one_stays(
    archive: Archive, syntax: str
) -> None:
    whole = part10(make_slice(), syntax)
    store(archive, spool(archive, whole), Origin("CT1", syntax))
    before, files = contents(archive.index), stored_locations(archive)

    with pytest.raises(IncompleteInstance):
        store(archive, spool(archive, whole[:-20]), Origin("CT1", syntax))

    assert contents(archive.index) == before
    assert stored_locations(archive) == files


def test_store_instance_that_lacks_its_last_delimiter_is_kept_with_a_warning(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    instance = make_slice()
    instance.PixelData = b"frame\xff\xd9"
    whole = part10(instance, JPEG)
    lacking = whole[:-DELIMITER_BYTES]

    first = store(archive, spool(archive, lacking), Origin("CT1", JPEG))

    assert first.outcome is IngestOutcome.STORED
    assert "PixelData (7FE0,0010) lacks its delimiter" in caplog.text


def test_store_instance_that_lacks_its_last_delimiter_does_not_replace_a_whole_one(
    archive: Archive,
) -> None:
    instance = make_slice()
    instance.PixelData = b"frame\xff\xd9"
    whole = part10(instance, JPEG)
    store(archive, spool(archive, whole), Origin("CT1", JPEG))
    before = contents(archive.index)

    again = store(archive, spool(archive, whole[:-DELIMITER_BYTES]), Origin("CT1", JPEG))

    assert again.outcome is IngestOutcome.KEPT
    assert contents(archive.index) == before


def test_import_of_a_cut_off_file_says_what_it_lacks(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "cut.dcm").write_bytes(part10(make_slice())[:-20])
    run = Import(archive, scan([tmp_path / "cut.dcm"]), source_ae="IMPORT")

    run.run(jobs=1)

    (refusal,) = run.summary.examples[Reason.INVALID]
    assert refusal.detail == "PixelData (7FE0,0010) lacks 20 of 64 bytes"
    assert stored_locations(archive) == []


def test_check_deep_finds_an_instance_damaged_that_was_kept_cut_off(archive: Archive) -> None:
    keep_cut_off(archive, part10(make_slice())[:-20])
    keep(archive, make_slice(2))

    cut_off, sound = look(archive)

    assert cut_off.finding is Finding.DAMAGED
    assert cut_off.sop_instance_uid == UID
    assert cut_off.detail == "PixelData (7FE0,0010) lacks 20 of 64 bytes"
    assert sound.finding is Finding.SOUND


def test_commitment_of_an_instance_that_was_kept_cut_off_fails(archive: Archive) -> None:
    keep_cut_off(archive, part10(make_slice())[:-20])
    reference = Reference("1.2.840.10008.5.1.4.1.1.2", UID)

    assert reason_of(archive, reference) is FailureReason.PROCESSING_FAILURE


def reason_of(archive: Archive, reference: Reference) -> FailureReason | None:
    steps = failure_of(archive, reference)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what a generator returns is untyped


def test_whole_instance_takes_the_place_of_one_that_was_kept_cut_off(archive: Archive) -> None:
    keep_cut_off(archive, part10(make_slice())[:-20])

    assert keep(archive, make_slice()).outcome is IngestOutcome.REPLACED
    assert [one.finding for one in look(archive)] == [Finding.SOUND]


def test_reindex_keeps_the_row_of_a_cut_off_instance_and_adopts_no_other(archive: Archive) -> None:
    keep_cut_off(archive, part10(make_slice())[:-20])
    location = location_of(archive, UID)
    before = contents(archive.index)
    orphan = put_orphan(archive, part10(make_slice(2))[:-20])

    found = {one.location: one for one in reindex(archive)}

    assert contents(archive.index) == before
    assert found[location].finding is Reindexed.REWRITTEN
    assert found[orphan].finding is Reindexed.UNREADABLE
    assert found[orphan].detail == "PixelData (7FE0,0010) lacks 20 of 64 bytes"
