"""``pacs move`` of what is not there: Success of nothing is said, and is no success for a script."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

from tests.dimse.retrieving import store_study
from tests.peers import Destination, RunningArchive, register
from tests.serving import engine_on_sqlite


@engine_on_sqlite
def test_move_that_matches_nothing_says_so_and_ends_with_1(
    service: RunningArchive, start_destination: Callable[..., Destination]
) -> None:
    register(service.archive, "DEST", start_destination().port)
    store_study(service, 1)

    def move(uid: str, *more: str) -> tuple[int, str]:
        peer = ("move", f"PACS@127.0.0.1:{service.port}", "--to", "DEST")
        done = subprocess.run(
            [sys.executable, "-m", "pacs", *peer, f"StudyInstanceUID={uid}", *more],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    said = (
        "status 0x0000: 0 completed, 0 failed, 0 warning, to DEST\n"
        "nothing matched, so nothing was sent\n"
    )
    assert move("1.2.3.4.404") == (1, said)
    code, document = move("1.2.276.9", "--json")
    assert (code, json.loads(document)["matched"]) == (0, True)
