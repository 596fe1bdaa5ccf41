"""Two processes on one archive, each with its own memory of parents (``pacs.index.parents``), in any interleaving.

What is stored, removed and read again concerns the same few patients, studies and series, and contradicts itself.
In the end the archive is sound, and its rows are those that the stored files give in the order of receipt.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pacs.archive.archive import Archive
from pacs.archive.check import Finding
from pacs.archive.redo import Redo
from pacs.archive.reindex import reindex
from pacs.archive.store import store
from pacs.errors import IndexUnavailable
from pacs.index.index import Index
from pacs.model.instances import Origin
from pacs.storage.filesystem import FilesystemStorage
from tests.archive.holdings import EXPLICIT, contents, findings, make_slice, spool, stored_locations
from tests.factories import part10

#: As many runs as ``PACSTEST_INTERLEAVINGS`` asks for.
_RUNS = int(os.environ.get("PACSTEST_INTERLEAVINGS", "2"))
_STEPS = 60
_PATIENTS = ("P-1", "P-1", "P-1", "P-2", "")


@contextmanager
def _opened(url: str, root: Path) -> Iterator[Archive]:
    """The archive as a process of its own has it: nothing in memory is shared."""
    index, storage = Index.open(url, upgrade=False), FilesystemStorage(root)
    archive = Archive(storage, index, Redo(storage, index))
    try:
        yield archive
    finally:
        archive.close()


class _Writer:
    """What one process does, by a seed."""

    def __init__(self, archive: Archive, seed: int) -> None:
        self.archive = archive
        self.rng = random.Random(seed)

    def step(self) -> None:
        """Store, remove or read again."""
        kind = self.rng.choices(["store", "remove", "reindex"], [20, 3, 1])[0]
        if kind == "store":
            self._store()
        elif kind == "remove":
            self._remove()
        else:
            for _ in reindex(self.archive):
                pass

    def _store(self) -> None:
        # Mostly a new instance under parents that one of the two remembers, which is what the memory is for.
        study, series, number = (self.rng.randint(1, most) for most in (2, 2, 30))
        instance = make_slice(
            PatientID=self.rng.choice(_PATIENTS),
            PatientName=self.rng.choice(("A", "A", "B")),
            StudyInstanceUID=f"1.2.{study}",
            SeriesInstanceUID=f"1.2.{study}.{series}",
            SOPInstanceUID=f"1.2.{study}.{series}.{number}",
            StudyDescription=self.rng.choice(("one", "one", "two")),
        )
        store(self.archive, spool(self.archive, part10(instance)), Origin("CT1", EXPLICIT))

    def _remove(self) -> None:
        rows = list(self.archive.index.locations())
        if rows:
            row = self.rng.choice(rows)
            location = self.archive.index.remove(row.sop_instance_uid)
            if location is not None:
                self.archive.storage.remove(location)


def _assert_parents_are_used(archive: Archive) -> None:
    """No patient, study or series without an instance."""
    stats, rows = archive.index.stats(), contents(archive.index)
    uids = {row.sop_instance_uid for row in archive.index.locations()}
    assert stats.instances == len(rows) == len(uids)
    assert stats.series == len({uid.rsplit(".", 1)[0] for uid in uids})
    assert stats.studies == len({uid.rsplit(".", 2)[0] for uid in uids})
    assert stats.patients <= stats.studies


def _assert_sound(archive: Archive) -> None:
    archive.redo.flush()
    assert set(findings(archive)) <= {Finding.SOUND}
    assert len(stored_locations(archive)) == archive.index.stats().instances
    _assert_parents_are_used(archive)


@pytest.mark.parametrize("seed", range(_RUNS))
def test_two_processes_that_take_turns_leave_what_one_would(
    database_url: str, tmp_path: Path, seed: int
) -> None:
    # The same steps by one process that forgets every parent at once: nothing it does rests on a memory.
    rng = random.Random(seed)
    turns = [rng.randint(0, 1) for _ in range(_STEPS)]
    root = tmp_path / "storage"
    with _opened(database_url, root) as first, _opened(database_url, root) as second:
        writers = (_Writer(first, 2 * seed), _Writer(second, 2 * seed + 1))
        shared = []
        for turn in turns:
            writers[turn].step()
            shared.append(contents(first.index))
        _assert_sound(first)

    with _opened(_fresh(database_url, tmp_path), tmp_path / "alone") as alone:
        forgetful = [_Writer(alone, 2 * seed), _Writer(alone, 2 * seed + 1)]
        for turn, expected in zip(turns, shared, strict=True):
            alone.index._ingest._memory = type(alone.index._ingest._memory)()
            forgetful[turn].step()
            assert contents(alone.index) == expected
        _assert_sound(alone)


def _fresh(url: str, directory: Path) -> str:
    """An empty SQLite index: backends agree, which is for other tests to show."""
    path = directory / "alone.sqlite"
    Index.open(f"sqlite:///{path}").close()
    return f"sqlite:///{path}"


@pytest.mark.parametrize("seed", range(_RUNS))
def test_two_processes_at_once_leave_a_sound_archive(
    database_url: str, tmp_path: Path, seed: int
) -> None:
    root = tmp_path / "storage"
    errors: list[BaseException] = []

    def write(writer: _Writer) -> None:
        for _ in range(_STEPS):
            try:
                writer.step()
            except IndexUnavailable:  # lost ten races in a row: allowed, and nothing is half done
                continue
            except BaseException as error:
                errors.append(error)
                raise

    with _opened(database_url, root) as first, _opened(database_url, root) as second:
        writers = (_Writer(first, 2 * seed), _Writer(second, 2 * seed + 1))
        threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert errors == []
        _assert_sound(first)
        before = contents(first.index)
        assert all(one.finding.value == "rewritten" for one in reindex(second))
        _assert_sound(second)
        assert len(contents(second.index)) == len(before)
