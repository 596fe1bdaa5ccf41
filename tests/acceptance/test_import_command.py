"""``pacs import``, ``pacs check`` and ``pacs reindex`` as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import time
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.processes import DEADLINE_SECONDS, Processes
from tests.factories import make_instance, part10
from tests.media import make_medium


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three instances of one study, and a file that is none."""
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    for number in range(3):
        instance = make_instance(
            StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.1", SOPInstanceUID=f"1.2.3.{number}"
        )
        path = source / ("deep" if number else "") / f"{number}.dcm"
        path.write_bytes(part10(instance))
    (source / "readme.txt").write_text("hello")
    return source


def stored_files(processes: Processes) -> list[Path]:
    return sorted((processes.cwd / "pacs-data" / "storage").glob("[0-9]*/**/*.dcm"))


def as_json(processes: Processes, *arguments: str, status: int = 0) -> dict[str, object]:
    done = processes.run(*arguments, "--json")
    assert done.returncode == status, done.stderr
    value: dict[str, object] = json.loads(done.stdout)
    return value


def test_import_folder_says_what_it_did_and_again_that_it_is_done(
    processes: Processes, folder: Path
) -> None:
    first = processes.run("import", str(folder))
    second = processes.run("import", str(folder))

    assert (first.returncode, second.returncode) == (0, 0)
    assert ["stored", "3"] in [line.split() for line in first.stdout.splitlines()]
    assert "skipped: not DICOM" in first.stdout
    assert ["already", "stored", "3"] in [line.split() for line in second.stdout.splitlines()]
    assert (first.stderr, second.stderr) == ("", "")
    assert len(stored_files(processes)) == 3


def test_import_summary_as_json_is_one_document(processes: Processes, folder: Path) -> None:
    (folder / "bad.dcm").write_bytes(part10(make_instance())[:400])

    summary = as_json(processes, "import", str(folder), status=1)

    assert summary["complete"] is True
    assert (summary["stored"], summary["skipped"]) == (3, {"not DICOM": 1})
    (reason,) = summary["refused"].items()  # type: ignore[attr-defined]
    assert reason[1]["count"] == 1
    assert reason[1]["first"][0]["path"] == str(folder / "bad.dcm")


def test_import_zip_and_medium_in_one_go(
    processes: Processes, folder: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(folder / "0.dcm", "anything")
    dicomdir = make_medium(tmp_path / "medium", 2)

    summary = as_json(processes, "import", str(tmp_path / "x.zip"), str(dicomdir))

    assert summary["stored"] == 3


def test_import_refusals_are_listed_in_the_file_asked_for(
    processes: Processes, folder: Path, tmp_path: Path
) -> None:
    strange = folder / "line\nbreak\udcff.dcm"
    strange.write_bytes(part10(make_instance())[:400])

    done = processes.run("import", str(folder), "--refused", str(tmp_path / "refused.tsv"))

    (line,) = (tmp_path / "refused.tsv").read_text("utf-8").splitlines()
    path, reason = line.split("\t")
    assert done.returncode == 1
    assert path == str(folder / r"line\x0abreak\udcff.dcm")
    assert reason.startswith("not a DICOM instance")


def test_import_named_file_that_is_no_instance_is_a_failure(
    processes: Processes, folder: Path
) -> None:
    assert processes.run("import", str(folder / "readme.txt")).returncode == 1


def test_import_names_its_archive_and_says_when_it_is_a_new_one(
    processes: Processes, folder: Path
) -> None:
    first = processes.run("import", str(folder)).stdout.splitlines()[0]
    second = processes.run("import", str(folder)).stdout.splitlines()[0]

    data = processes.cwd / "pacs-data"
    archive = f"{data}/storage, index sqlite:///{data}/index.sqlite"
    assert (first, second) == (f"into a new archive: {archive}", f"into {archive}")


def test_import_quiet_prints_nothing(processes: Processes, folder: Path) -> None:
    done = processes.run("import", str(folder), "--quiet")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-file"],
        ["--source-ae", "SEVENTEEN_LETTERS"],
        ["--duplicate-policy", "sometimes"],
    ],
)
def test_import_bad_arguments_are_one_usage_error(
    processes: Processes, folder: Path, arguments: list[str]
) -> None:
    done = processes.run("import", str(folder), *arguments)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert stored_files(processes) == []


def test_import_policy_of_the_command_line_wins(processes: Processes, folder: Path) -> None:
    processes.run("import", str(folder))
    (folder / "0.dcm").write_bytes(part10(make_instance(SOPInstanceUID="1.2.3.0", Rows=9)))

    kept = as_json(processes, "import", str(folder / "0.dcm"), "--duplicate-policy", "keep")
    refused = as_json(
        processes, "import", str(folder / "0.dcm"), "--duplicate-policy", "refuse", status=1
    )
    replaced = as_json(processes, "import", str(folder / "0.dcm"))

    assert (kept["kept"], replaced["replaced"]) == (1, 1)
    assert list(refused["refused"]) == ["a different instance with this UID is stored"]  # type: ignore[call-overload]


def test_import_of_the_directory_it_stores_into_leaves_the_storage_out(
    processes: Processes, folder: Path
) -> None:
    processes.run("import", str(folder))

    summary = as_json(processes, "import", ".")

    assert summary["stored"] == summary["identical"] == 0


def test_import_without_an_index_stops_with_one_line_and_the_summary(
    processes: Processes, folder: Path
) -> None:
    url = "postgresql+psycopg://nobody@127.0.0.1:1/none"

    done = processes.run("import", str(folder), "--database-url", url)

    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_import_interrupted_says_so_keeps_what_it_has_and_goes_on_when_run_again(
    processes: Processes, tmp_path: Path
) -> None:
    source = tmp_path / "many"
    source.mkdir()
    data = bytearray(part10(make_instance(SOPInstanceUID="1.2.3.10000")))
    at = [i for i in range(len(data)) if data[i : i + 11] == b"1.2.3.10000"]
    total = 700
    for number in range(total):
        for position in at:
            data[position : position + 11] = b"1.2.3.1%04d" % number
        (source / str(number)).write_bytes(bytes(data))
    process, log = processes.spawn("import", str(source), "--jobs", "1")
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not stored_files(processes) and time.monotonic() < deadline:
        time.sleep(0.01)

    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=DEADLINE_SECONDS)

    assert process.returncode == 130
    assert "Stopped before the end" in printed
    assert "Traceback" not in log.read_text("utf-8")
    stored = len(stored_files(processes))
    assert 0 < stored < total
    rest = as_json(processes, "import", str(source))
    assert (rest["stored"], rest["identical"]) == (total - stored, stored)


def test_check_finds_and_mends_and_says_so_by_its_exit_code(
    processes: Processes, folder: Path
) -> None:
    processes.run("import", str(folder))
    assert processes.run("check", "--deep").returncode == 0
    missing, damaged, _ = stored_files(processes)
    missing.unlink()
    os.truncate(damaged, 500)

    found = as_json(processes, "check", status=1)
    repaired = processes.run("check", "--repair")
    after = as_json(processes, "check", status=1)

    findings = [one["finding"] for one in found["findings"]]  # type: ignore[attr-defined]
    assert findings == ["missing", "damaged"]
    assert found["counts"] == {"missing": 1, "damaged": 1, "sound": 1}
    assert repaired.returncode == 1
    assert "removed from the index" in repaired.stdout
    assert "DATA LOSS" in repaired.stderr
    assert after["counts"] == {"damaged": 1, "sound": 1}


def test_check_repair_adopts_what_a_lost_row_left_and_is_then_content(
    processes: Processes, folder: Path
) -> None:
    processes.run("import", str(folder))
    for path in (processes.cwd / "pacs-data").glob("index.sqlite*"):
        path.unlink()

    in_flight = processes.run("check")
    reported = processes.run("check", "--grace", "0")
    repaired = processes.run("check", "--grace", "0", "--repair")

    assert (in_flight.returncode, reported.returncode, repaired.returncode) == (0, 1, 0)
    assert as_json(processes, "check")["counts"] == {"sound": 3}


def test_reindex_rebuilds_a_lost_index(processes: Processes, folder: Path) -> None:
    processes.run("import", str(folder))
    before = as_json(processes, "stats")
    for path in (processes.cwd / "pacs-data").glob("index.sqlite*"):
        path.unlink()

    rebuilt = as_json(processes, "reindex")
    again = processes.run("reindex")

    assert rebuilt == {
        "findings": [],
        "complete": True,
        "counts": {"indexed": 3},
        "bytes": rebuilt["bytes"],
    }
    assert as_json(processes, "stats") == before
    assert again.returncode == 0
    assert ["rewritten", "3"] in [line.split() for line in again.stdout.splitlines()]


def test_reindex_of_a_lost_file_says_so(processes: Processes, folder: Path) -> None:
    processes.run("import", str(folder))
    stored_files(processes)[0].unlink()

    done = processes.run("reindex")

    assert done.returncode == 1
    assert "missing" in done.stdout
    assert "DATA LOSS" in done.stderr
