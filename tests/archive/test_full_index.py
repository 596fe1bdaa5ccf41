"""An index whose volume has no space, or cannot be written at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pacs.archive.archive import Archive
from pacs.archive.check import Finding, Options, check
from pacs.archive.redo import Redo
from pacs.errors import IndexUnavailable
from pacs.index.index import Index
from pacs.server import Server, open_archive
from pacs.storage.filesystem import FilesystemStorage
from tests.archive.holdings import findings, keep, make_slice, stored_locations
from tests.dimse.retrieving import STUDY, Getter, store_study, study_query
from tests.serving import settings
from tests.volumes import Volume, small_volume


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    with small_volume(tmp_path) as volume:
        yield volume


def test_full_index_volume_leaves_no_file_for_an_instance_that_is_refused(
    volume: Volume, tmp_path: Path
) -> None:
    # One commit does not fit: SQLite says so at COMMIT, when it writes its log.
    storage = FilesystemStorage(tmp_path / "storage")
    with closing(Index.open(f"sqlite:///{volume.mount_point / 'index.sqlite'}")) as index:
        archive = Archive(storage, index, Redo(storage, index))
        keep(archive, make_slice(1))
        with volume.without_space():
            for number in range(2, 12):
                with pytest.raises(IndexUnavailable, match="full") as caught:
                    keep(archive, make_slice(number, ImageComments="x" * 9000))
                assert not caught.value.may_have_committed
            assert len(stored_locations(archive)) == 1
            assert findings(archive) == {Finding.SOUND: 1}

        keep(archive, make_slice(2, ImageComments="x" * 9000))
        assert findings(archive) == {Finding.SOUND: 2}
        archive.close()


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_start_on_a_volume_that_takes_nothing_serves_what_is_there(
    volume: Volume, tmp_path: Path, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = settings(tmp_path, data_dir=volume.mount_point / "data", minimum_free_bytes=0)
    server = Server(chosen)
    server.start()
    uids = store_study(server, 3)
    server.stop()
    # Nobody has it open: a reader would have to make its log.
    assert volume.files("index.sqlite-*") == []

    with volume.without_space() if state == "full" else volume.read_only():
        with closing(open_archive(chosen, make=False)) as archive:
            assert archive.index.stats().instances == 3
            found = list(check(archive, Options(deep=True)))
            assert [one.finding for one in found] == [Finding.SOUND] * 3
        server.start()
        outcome = Getter().retrieve(server, study_query(STUDY))
        assert outcome.uids == uids
        with pytest.raises(IndexUnavailable):
            server.archive.index.set_attribute_set_version(0)
        server.stop()

    assert "can only be read: its volume is full or read-only" in caplog.text
    server.start()
    # What others write is seen again.
    store_study(server, 4)
    assert server.archive.index.stats().instances == 4
    server.stop()


def test_index_is_read_and_written_again_as_soon_as_there_is_space(
    volume: Volume, tmp_path: Path
) -> None:
    url = f"sqlite:///{volume.mount_point / 'index.sqlite'}"
    Index.open(url).close()
    with volume.without_space():
        index = Index.open(url)
        assert index.stats().instances == 0

    storage = FilesystemStorage(tmp_path / "storage")
    archive = Archive(storage, index, Redo(storage, index))
    keep(archive, make_slice())
    assert index.stats().instances == 1
    archive.close()


def test_empty_index_beside_a_storage_that_is_not_is_said_at_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = settings(tmp_path)
    server = Server(chosen)
    server.start()
    store_study(server, 1)
    server.stop()
    assert "pacs reindex" not in caplog.text
    (chosen.data_dir / "index.sqlite").unlink()

    server.start()
    server.stop()

    [line] = [one for one in caplog.records if "pacs reindex" in one.getMessage()]
    assert line.levelno == logging.ERROR
    assert "is empty, but the storage holds instances" in line.getMessage()
