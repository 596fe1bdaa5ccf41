"""The composition root: what it needs in order to start."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pacs.config import Settings
from pacs.errors import StorageFull, StorageUnavailable
from pacs.server import Server
from pacs.storage.spool import Spool, SpoolWriter


def settings(tmp_path: Path) -> Settings:
    options = {"host": "127.0.0.1", "port": 0, "data_dir": "data"}
    return Settings.load(options, environ={}, cwd=tmp_path)


def test_server_with_a_storage_that_cannot_be_written_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "storage").touch()

    with pytest.raises(StorageUnavailable, match=f"^{tmp_path}/data/storage: ") as caught:
        Server(settings(tmp_path)).start()

    assert "Not a directory" in caught.value.message


def test_server_with_a_full_storage_starts_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_spool: Spool, _meta: bytes) -> SpoolWriter:
        raise StorageFull

    monkeypatch.setattr(Spool, "create", full)
    server = Server(settings(tmp_path))

    with caplog.at_level(logging.ERROR, logger="pacs"):
        server.start()
    server.stop()

    assert "nothing can be stored" in caplog.text


def test_server_start_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    first = Server(settings(tmp_path))
    first.start()
    taken = Settings.load({"port": first.port, "host": "127.0.0.1"}, environ={}, cwd=tmp_path)

    with pytest.raises(Exception, match="Address already in use"):
        Server(taken).start()

    assert first.stop() == 0
    assert list((tmp_path / "data" / "storage" / "spool").iterdir()) == []
    assert list((tmp_path / "pacs-data" / "storage" / "spool").iterdir()) == []
