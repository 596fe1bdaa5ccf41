from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.errors import StorageUnavailable
from pacs.storage.filesystem import FilesystemStorage


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[FilesystemStorage]:
    storage = FilesystemStorage(tmp_path / "storage")
    yield storage
    storage.spool.close()


def put(storage: FilesystemStorage, data: bytes) -> str:
    with storage.spool.create(b"meta") as writer:
        writer.write(data)
        return storage.put(writer.finish())


def test_set_aside_moves_the_file_out_of_sight_and_keeps_its_bytes(
    storage: FilesystemStorage,
) -> None:
    first, second = put(storage, b"one"), put(storage, b"two")

    storage.set_aside(first)

    target = storage.root / "quarantine" / Path(first).name
    assert [file.location for file in storage.files()] == [second]
    assert target.read_bytes() == b"metaone"
    assert (storage.has(first), storage.size(first)) == (False, None)
    assert (storage.has(second), storage.size(second)) == (True, 7)


def test_several_files_are_set_aside(storage: FilesystemStorage) -> None:
    names = [Path(put(storage, b"data")).name for _ in range(2)]
    for file in list(storage.files()):
        storage.set_aside(file.location)

    assert sorted(path.name for path in (storage.root / "quarantine").iterdir()) == names


@pytest.mark.parametrize(
    "location", ["2024/01/01/0000/" + "0" * 32 + ".dcm", "../outside", "spool/x"]
)
def test_set_aside_what_is_not_there_is_unavailable(
    storage: FilesystemStorage, location: str
) -> None:
    put(storage, b"data")

    with pytest.raises(StorageUnavailable):
        storage.set_aside(location)
