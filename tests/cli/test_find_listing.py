"""``pacs find`` lists matches by their numbers, and texts whole."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.factories import make_instance
from tests.peers import RunningArchive, deposit
from tests.serving import Serve, engine_on_sqlite


def _find(running: RunningArchive, *arguments: str) -> str:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pacs", "find", f"PACS@127.0.0.1:{running.port}"),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@engine_on_sqlite
def test_find_lists_instances_by_instance_number_and_texts_whole(serve: Serve) -> None:
    service = serve()
    numbers = ("10", "9", "", "100", "1", "2")
    deposit(
        service.archive,
        *(
            make_instance(
                PatientID="AB\\1",
                StudyInstanceUID="1.2",
                SeriesInstanceUID="1.2.3",
                SeriesDescription="W\\O",
                InstanceNumber=number,
            )
            for number in numbers
        ),
    )
    keys = ("StudyInstanceUID=1.2", "SeriesInstanceUID=1.2.3", "PatientID", "SeriesDescription")

    listed = json.loads(_find(service, "-L", "image", *keys, "--json"))
    table = _find(service, "-L", "image", *keys)

    found = [[one[tag].get("Value") for tag in ("00200013", "00100020")] for one in listed]
    assert found == [[number, ["AB\\1"]] for number in ([1], [2], [9], [10], [100], None)]
    assert "AB\\1" in table
    assert "W\\O" in table
