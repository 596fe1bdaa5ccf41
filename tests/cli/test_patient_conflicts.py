"""``pacs patient conflicts`` and ``pacs stats`` tell of patients whose studies disagree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.factories import make_instance
from tests.peers import RunningArchive, database_url_of, deposit
from tests.serving import Serve, engine_only


def _pacs(running: RunningArchive, data_dir: Path, *arguments: str):
    return subprocess.run(
        [
            *(sys.executable, "-m", "pacs", *arguments, "--data-dir", str(data_dir)),
            *("--database-url", database_url_of(running.archive).replace("+pysqlite", "")),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _study(number: int, **values: object):
    return make_instance(
        StudyInstanceUID=f"1.2.{number}",
        SOPInstanceUID=f"1.2.{number}.1",
        PatientID="12345678",
        PatientBirthDate="",
        **values,
    )


@engine_only
def test_patient_conflicts_lists_studies_and_says_what_can_be_done(
    serve: Serve, tmp_path: Path
) -> None:
    service = serve()
    deposit(service.archive, _study(1, PatientName="Alpha^A"))
    none = _pacs(service, tmp_path / "data", "patient", "conflicts")
    deposit(service.archive, _study(2, PatientName="Beta^B\x1b[31m", StudyDate="20240301"))

    listed = _pacs(service, tmp_path / "data", "patient", "conflicts")
    document = _pacs(service, tmp_path / "data", "patient", "conflicts", "--json")
    stats = _pacs(service, tmp_path / "data", "stats")

    assert (none.returncode, none.stdout) == (0, ""), none.stderr
    assert (listed.returncode, document.returncode) == (1, 1)
    assert "Patient ID 12345678: PatientName\n" in listed.stdout
    assert [line.split()[-1] for line in listed.stdout.splitlines() if "^" in line] == [
        "1.2.1",
        "1.2.2",
    ]
    assert "\x1b" not in listed.stdout
    assert "send" in listed.stderr
    found = json.loads(document.stdout)
    assert found["count"] == 1
    [conflict] = found["conflicts"]
    assert {k: conflict[k] for k in ("patient_id", "issuer", "keywords")} == {
        "patient_id": "12345678",
        "issuer": "",
        "keywords": ["PatientName"],
    }
    assert [one["study_instance_uid"] for one in conflict["studies"]] == ["1.2.1", "1.2.2"]
    assert [line.split()[:2] for line in stats.stdout.splitlines()][-1] == ["conflicts", "1"]
