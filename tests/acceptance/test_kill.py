"""SIGKILL at random moments of a running ingest loses nothing acknowledged and shows nothing half-stored.

Each round: start the archive, hold it against the ledger, send over one or several associations at once,
kill it. ``PACSTEST_KILLS`` is the number of rounds on each backend with each way to store, ``PACSTEST_KILL_SEED``
repeats the choices of a run; the moments themselves remain a matter of scheduling.

A killed process does not lose what it has written without fsync; that those are in place and in
order is for tests/storage.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pacs.dicom.encoding.part10 import read_file_meta
from pacs.dicom.information_model import InformationModel
from pacs.dimse import query_scu
from pacs.dimse.ae import Options
from pacs.index.index import Index
from pacs.storage.filesystem import FilesystemStorage
from tests.acceptance.ledger import SUCCESS, Instance, Ledger, Sender
from tests.acceptance.processes import DEADLINE_SECONDS, Processes, Serving

KILLS = int(os.environ.get("PACSTEST_KILLS", "15"))
SENDERS = (1, 3, 4)
#: Of the series of one image, one in so many is looked at by itself after each kill.
_LOOKED_AT = 20


@dataclass
class Findings:
    """What the kills left behind; shows that they hit something."""

    spool_files: int = 0
    orphans: int = 0
    stored_unacknowledged: int = 0


@dataclass
class Verifier:
    """Holds a restarted archive against the ledger."""

    ledger: Ledger
    storage: FilesystemStorage
    database_url: str
    findings: Findings = field(default_factory=Findings)
    #: Locations whose bytes were compared in an earlier round; files are never changed.
    _compared: dict[str, str] = field(default_factory=dict)

    def verify(self, serving: Serving) -> None:
        """Compare index, storage and ledger, and ask the running archive."""
        locations: set[str] = set()
        indexed: dict[str, str] = {}
        with closing(Index.open(self.database_url, upgrade=False)) as index:
            for row in index.locations():
                locations.add(row.location)
                indexed[row.sop_instance_uid] = row.digest
                assert self._digest(row.location) == row.digest, f"{row} is half-stored"
        for instance in self.ledger.instances.values():
            self._verify_instance(instance, indexed.get(instance.uid))
        assert indexed.keys() <= self.ledger.instances.keys()
        for stored in self.storage.files():
            digest = self._digest(stored.location)
            assert digest in self.ledger.digests, f"{stored} is not what was sent"
            self.findings.orphans += stored.location not in locations
        self._verify_findable(serving, indexed)

    def forget_compared(self) -> None:
        """Have the next ``verify`` read every file again."""
        self._compared.clear()

    def _verify_instance(self, instance: Instance, digest: str | None) -> None:
        if digest is None:
            assert not instance.is_acknowledged, f"{instance} was acknowledged and is lost"
            return
        assert digest in instance.allowed_digests(), f"{instance} is stored in an old version"
        self.findings.stored_unacknowledged += not instance.is_acknowledged

    def _verify_findable(self, serving: Serving, indexed: dict[str, str]) -> None:
        """C-FIND at STUDY and IMAGE level finds what the index has, neither more nor less."""
        expected: dict[tuple[str, str], set[str]] = {}
        for uid in indexed:
            instance = self.ledger.instances[uid]
            expected.setdefault((instance.study_uid, instance.series_uid), set()).add(uid)
        studies = {"StudyInstanceUID": ""}
        assert self._find(serving, "STUDY", studies) == {study for study, _ in expected}
        for number, ((study_uid, series_uid), uids) in enumerate(expected.items()):
            if len(uids) == 1 and number % _LOOKED_AT:
                continue
            keys = {
                "StudyInstanceUID": study_uid,
                "SeriesInstanceUID": series_uid,
                "SOPInstanceUID": "",
            }
            assert self._find(serving, "IMAGE", keys) == uids

    def _find(self, serving: Serving, level: str, keys: dict[str, str]) -> set[str]:
        """The values of the last key."""
        matches = query_scu.find(
            Options(),
            serving.peer,
            InformationModel.STUDY_ROOT,
            query_scu.identifier(level, keys),
        )
        return {str(match[list(keys)[-1]].value) for match in matches}

    def _digest(self, location: str) -> str:
        """The digest of a stored file's data set, by way of its File Meta Information."""
        if location not in self._compared:
            with self.storage.open(location) as stream:
                meta = read_file_meta(stream)
                stream.seek(meta.data_set_offset)
                self._compared[location] = hashlib.sha256(stream.read()).hexdigest()
        else:
            assert self.storage.path(location).exists()
        return self._compared[location]


def received_files(storage: FilesystemStorage) -> list[Path]:
    return list((storage.root / "spool").glob("*/*"))


def verify_spool(storage: FilesystemStorage) -> None:
    """Start-up has swept what killed processes left: there is one directory with its lock file, empty."""
    assert received_files(storage) == []
    assert len(list((storage.root / "spool").iterdir())) == 2


def wait_for_a_moment(ledger: Ledger, rng: random.Random) -> None:
    """Return at a moment worth a kill: soon after a first success, after a burst of them, or at once."""
    before = ledger.acknowledged
    kind = rng.choice(["early", "first", "first", "burst", "burst"])
    if kind == "early":
        time.sleep(rng.uniform(0.0, 0.1))
        return
    wanted = 1 if kind == "first" else rng.randint(2, 40)
    assert ledger.wait_for(before + wanted, DEADLINE_SECONDS), "nothing is acknowledged"
    time.sleep(rng.uniform(0.005, 0.150) if kind == "first" else rng.uniform(0.0, 0.003))


def say(text: str) -> None:
    print(text)  # noqa: T201 - pytest shows it with a failure, which the seed may repeat


def check(processes: Processes, options: tuple[str, ...], *flags: str) -> dict[str, Any]:
    """The findings of ``pacs check``; a repair may leave something for a person to look at."""
    completed = processes.run("check", *options, "--deep", "--grace", "0", "--json", *flags)
    assert completed.returncode in (0, 1), completed
    found: dict[str, Any] = json.loads(completed.stdout)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("acknowledge_after", ["index", "log"])
def test_kill_during_ingest_loses_nothing_acknowledged(
    empty_database_url: str, processes: Processes, tmp_path: Path, acknowledge_after: str
) -> None:
    seed = int(os.environ.get("PACSTEST_KILL_SEED") or secrets.randbits(32))
    say(f"PACSTEST_KILL_SEED={seed}")
    rng = random.Random(seed)
    ledger = Ledger(seed)
    storage = FilesystemStorage(tmp_path / "data" / "storage")
    verifier = Verifier(ledger, storage, empty_database_url)
    options = ("--data-dir", str(tmp_path / "data"), "--database-url", empty_database_url)
    serve_options = (*options, "--acknowledge-after", acknowledge_after, "--log-level", "warning")

    def restart() -> Serving:
        serving = processes.serve(*serve_options)
        verify_spool(storage)
        ledger.end_unanswered()
        verifier.verify(serving)
        return serving

    for number in range(KILLS):
        serving = restart()
        senders = [
            Sender(ledger, serving.port, rng.getrandbits(32)) for _ in range(rng.choice(SENDERS))
        ]
        for sender in senders:
            sender.start()
        wait_for_a_moment(ledger, rng)
        serving.kill()
        for sender in senders:
            sender.join(DEADLINE_SECONDS)
            assert not sender.is_alive()
        verifier.findings.spool_files += len(received_files(storage))
        say(f"kill {number}: {ledger.acknowledged} acknowledged; {verifier.findings}")

    assert restart().stop() == 0
    assert ledger.statuses == {SUCCESS}
    assert ledger.acknowledged > 0

    repaired = check(processes, options, "--repair")
    assert {one["finding"] for one in repaired["findings"]} <= {"orphan"}
    assert check(processes, options)["counts"].keys() == {"sound"}
    verifier.forget_compared()
    assert restart().stop() == 0


def test_kill_during_start_leaves_an_archive_that_starts(
    empty_database_url: str, processes: Processes
) -> None:
    options = ("--port", "0", "--host", "127.0.0.1", "--database-url", empty_database_url)
    rng = random.Random()

    # From the imports by way of the migration to the first seconds of listening.
    for _ in range(5):
        process, _log = processes.spawn("serve", *options)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.3, 1.0))
        process.kill()
        process.wait(DEADLINE_SECONDS)

    serving = processes.serve(*options)
    assert "holds 0 studies, 0 instances" in serving.summary
    verify_spool(FilesystemStorage(processes.cwd / "pacs-data" / "storage"))
