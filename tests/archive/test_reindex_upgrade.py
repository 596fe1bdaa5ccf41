"""Rows as the releases before ``ATTRIBUTE_SET_VERSION`` 3 wrote them: migrated, then written again by ``reindex``."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from pacs.archive.archive import Archive
from pacs.archive.redo import Redo
from pacs.archive.reindex import Finding, reindex
from pacs.dicom.attributes import BY_KEYWORD
from pacs.dicom.information_model import InformationModel
from pacs.dicom.levels import Level
from pacs.dicom.query.identifier import Query
from pacs.index.conflicts import conflict_note
from pacs.index.engine import create
from pacs.index.index import Index
from pacs.storage.filesystem import FilesystemStorage
from tests.archive.holdings import contents, keep, make_slice

ROOT = Path(__file__).resolve().parents[2]
_NAMES = ("PatientID", "PatientName", "PatientSex", "StudyDescription", "StudyInstanceUID")


@contextmanager
def opened(url: str, directory: Path) -> Iterator[Archive]:
    """The archive of this test, with the schema of this release."""
    storage = FilesystemStorage(directory / "storage")
    index = Index.open(url)
    archive = Archive(storage, index, Redo(storage, index))
    try:
        yield archive
    finally:
        archive.redo.close()
        storage.spool.close()
        index.close()


def write_as_before(url: str, *statements: str) -> None:
    """Take the schema back to the released one, and its rows to what that release wrote."""
    engine = create(url)
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    with engine.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0005")
        for statement in (
            *statements,
            "UPDATE archive_state SET value = '2' WHERE name = 'attribute_set_version'",
        ):
            connection.exec_driver_sql(statement)
    engine.close()


def studies(archive: Archive, level: Level = Level.STUDY) -> list[tuple[str | None, ...]]:
    query = Query(
        model=InformationModel.STUDY_ROOT,
        level=level,
        conditions=(),
        returns=tuple(BY_KEYWORD[name] for name in _NAMES),
    )
    found = archive.index.search(query)
    return sorted((tuple(one[name] for name in _NAMES) for one in found), key=str)


def one_study(number: int, **values: object):
    return make_slice(
        number, StudyInstanceUID=f"1.2.{number}", SeriesInstanceUID=f"1.2.{number}.1", **values
    )


def test_reindex_parts_patients_who_had_become_one(empty_database_url: str, tmp_path: Path) -> None:
    with opened(empty_database_url, tmp_path) as archive:
        keep(archive, one_study(1, PatientID="AB", PatientName="Gamma^C", PatientSex=""))
        keep(archive, one_study(2, PatientID="AB\\1", PatientName="Alpha^A", PatientSex="M"))
        keep(
            archive,
            one_study(3, PatientID="AB\\2", PatientName="Beta^B", StudyDescription="W\\O"),
        )
        expected, found = contents(archive.index), studies(archive)
    identity = hashlib.sha256(b"2:AB0:0:").hexdigest()
    # Before, all three were patient AB, who had the latest name and, from another one, a sex.
    write_as_before(
        empty_database_url,
        "UPDATE study SET patient_pk = (SELECT min(id) FROM patient)",
        "DELETE FROM patient WHERE id <> (SELECT min(id) FROM patient)",
        "UPDATE patient SET patient_id = 'AB', patient_name = 'Beta^B', patient_sex = 'M',"
        " patient_name_alphabetic = 'beta^b', patient_name_codes = ' BT B ',"
        f" identity = '{identity}', revision = 7",
        "UPDATE study SET study_description = 'W' WHERE study_description IS NOT NULL",
    )

    with opened(empty_database_url, tmp_path) as archive:
        upgraded = studies(archive)
        is_current = archive.index.attribute_set_version() == 3
        results = [one.finding for one in reindex(archive)]
        reindexed = contents(archive.index), studies(archive)
        again = [one.finding for one in reindex(archive)]
        once_more = contents(archive.index)

    assert [(one[0], one[1]) for one in upgraded] == [("AB", "Beta^B")] * 3
    assert not is_current
    assert results == again == [Finding.REWRITTEN] * 3
    assert reindexed == (expected, found)
    assert once_more == expected
    assert found == [
        ("AB", "Gamma^C", None, None, "1.2.1"),
        ("AB\\1", "Alpha^A", "M", None, "1.2.2"),
        ("AB\\2", "Beta^B", "F", "W\\O", "1.2.3"),
    ]


def test_reindex_gives_studies_their_own_patient_and_tells_of_the_conflict(
    empty_database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(empty_database_url, tmp_path) as archive:
        keep(archive, one_study(1, PatientName="Alpha^A", PatientSex="M"))
        keep(archive, one_study(2, PatientName="Beta^B", PatientSex=""))
        expected = contents(archive.index)
    write_as_before(empty_database_url)

    with opened(empty_database_url, tmp_path) as archive:
        upgraded = studies(archive)
        listed_before = list(archive.index.patient_conflicts())
        caplog.clear()
        with caplog.at_level(logging.WARNING, "pacs"):
            list(reindex(archive))
            list(reindex(archive))
        listed = [one.keywords for one in archive.index.patient_conflicts()]
        reindexed = contents(archive.index)

    assert [one[1:3] for one in upgraded] == [("Beta^B", "M")] * 2
    assert listed_before == []
    assert listed == [("PatientName",)]
    assert reindexed == expected
    told = [record.getMessage() for record in caplog.records]
    assert told == [conflict_note("PatientName", "1.2.2")]
