from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.errors import StorageUnavailable
from pacs.storage.filesystem import FilesystemStorage
from pacs.storage.quarantine import quarantine


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[FilesystemStorage]:
    storage = FilesystemStorage(tmp_path / "storage")
    yield storage
    storage.spool.close()


def put(storage: FilesystemStorage, data: bytes) -> str:
    with storage.spool.create(b"meta") as writer:
        writer.write(data)
        return storage.put(writer.finish())


def test_quarantine_moves_the_file_out_of_sight_and_keeps_its_bytes(
    storage: FilesystemStorage,
) -> None:
    first, second = put(storage, b"one"), put(storage, b"two")

    target = quarantine(storage, first)

    assert [file.location for file in storage.files()] == [second]
    assert target.read_bytes() == b"metaone"
    assert target.name == Path(first).name
    assert target.is_relative_to(storage.root)


def test_quarantine_takes_several_files(storage: FilesystemStorage) -> None:
    targets = {quarantine(storage, put(storage, b"data")) for _ in range(2)}

    assert all(target.exists() for target in targets)
    assert len(targets) == 2


@pytest.mark.parametrize(
    "location", ["2024/01/01/0000/" + "0" * 32 + ".dcm", "../outside", "spool/x"]
)
def test_quarantine_what_is_not_there_is_unavailable(
    storage: FilesystemStorage, location: str
) -> None:
    put(storage, b"data")

    with pytest.raises(StorageUnavailable):
        quarantine(storage, location)
