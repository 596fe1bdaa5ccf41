"""``pacs conformance scu``: a programmable SCP for an SCU under test, and its live control."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from pacs.cli.conformance_reports import WantedReports, deliver, report_options
from pacs.cli.output import errors, print_json, print_table
from pacs.conformance.scu.control import Control
from pacs.conformance.scu.judge import judge
from pacs.conformance.scu.scenario import Scenario, load, ready_made
from pacs.conformance.scu.server import ProgrammableSCP
from pacs.conformance.scu.session import Session
from pacs.dimse.peer import Peer
from pacs.errors import DestinationUnreachable, InvalidSetting
from pacs.foreign_text import visible

_ANY = "0.0.0.0"  # noqa: S104 - SCUs call from wherever they are
_POLL_SECONDS = 0.1
_TIMEOUT_SECONDS = 10.0


@click.command("scu")
@click.option("--list", "list_only", is_flag=True, help="List the ready-made scenarios and end.")
@click.option("--scenario", help="A ready-made scenario or a TOML file; without one, all is right.")
@click.option("--host", default=_ANY, show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=11113, show_default=True, help="Port."
)
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of DICOM files to have.",
)
@click.option(
    "--to",
    "destinations",
    multiple=True,
    metavar="TITLE@HOST:PORT",
    help="A Move Destination to know.",
)
@click.option(
    "--trace-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write each association as text and JSON into this folder.",
)
@click.option("--associations", type=click.IntRange(1), help="End after so many associations.")
@click.option(
    "--until-idle",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End when nobody has called for so long, after the first association.",
)
@click.option(
    "--control", type=click.IntRange(0, 65_535), help="Port of the live control (HTTP, loopback)."
)
@report_options
def scu_command(
    list_only: bool,
    scenario: str | None,
    host: str,
    port: int,
    folders: tuple[Path, ...],
    destinations: tuple[str, ...],
    trace_dir: Path | None,
    associations: int | None,
    until_idle: float | None,
    control: int | None,
    wanted: WantedReports,
) -> int:
    """Be an SCP that does what a scenario says, and judge the SCU that calls.

    It answers to any AE title. Ctrl-C ends it, with the report; so do --associations and --until-idle. Exit code 1
    when a check failed. Example: pacs conformance scu --scenario move-destination-unknown
    """
    if list_only:
        rows = [(name, one.title) for name, one in ready_made().items()]
        if wanted.as_json:
            print_json([{"scenario": name, "title": title} for name, title in rows])
        else:
            print_table("", ("scenario", "what it does"), rows)
        return 0
    watch = _Watch(trace_dir)
    scp = ProgrammableSCP(
        load(scenario) if scenario else Scenario(),
        host=host,
        port=port,
        destinations={peer.title: (peer.host, peer.port) for peer in map(Peer.parse, destinations)},
        on_end=watch.ended,
    )
    try:
        with scp, nullcontext() if control is None else Control(scp, port=control) as controlled:
            for folder in folders:
                scp.store_folder(folder)
            errors.print(f"listening on {host}:{scp.port}, {scp.holdings.count()} instances")
            if controlled is not None:
                errors.print(f"control: http://127.0.0.1:{controlled.port}")
            watch.wait(associations, until_idle)
            report = judge(scp.sessions)
    except OSError as error:
        raise InvalidSetting(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return deliver(report, wanted)


class _Watch:
    """Sees associations end, says so, and knows when it is enough."""

    def __init__(self, trace_dir: Path | None) -> None:
        self._trace_dir = trace_dir
        self._lock = threading.Lock()
        self._count = 0
        self._last = 0.0
        self._stopped = threading.Event()
        if trace_dir is not None:
            # What peers sent is in the traces, names of patients too.
            trace_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

    def ended(self, session: Session) -> None:
        """One association is over."""
        with self._lock:
            self._count += 1
            self._last = time.monotonic()
        requests = ", ".join(one.name for one in session.requests) or "no request"
        errors.print(
            f"{session.number}: {session.calling or '?'}: {requests}: {session.ending}",
        )
        if self._trace_dir is not None:
            trace = session.association.trace
            path = self._trace_dir / f"association-{session.number:04}"
            lines = (visible(line) + "\n" for line in trace.lines())
            _write_private(path.with_suffix(".txt"), "".join(lines))
            _write_private(path.with_suffix(".json"), json.dumps(trace.to_json(), indent=2))

    def wait(self, associations: int | None, until_idle: float | None) -> None:
        """Until there were so many, nobody calls any more, or the user has enough."""
        before = {
            number: signal.signal(number, lambda *_: self._stopped.set())
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            while not self._stopped.wait(_POLL_SECONDS):
                with self._lock:
                    count, silent = self._count, time.monotonic() - self._last
                if associations is not None and count >= associations:
                    return
                if until_idle is not None and count and silent >= until_idle:
                    return
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whatever the umask is or an earlier file allowed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)


@click.command("control")
@click.argument("url", metavar="HTTP://HOST:PORT")
@click.argument(
    "what",
    type=click.Choice(["health", "associations", "report", "rules", "add", "clear", "scenario"]),
)
@click.argument("value", required=False)
def control_command(url: str, what: str, value: str | None) -> int:
    """Change a running `pacs conformance scu --control` from elsewhere.

    add takes a rule as JSON, scenario the name of a ready-made one, associations the number of one or nothing.
    """
    method, path, body = _asked(what, value)
    print_json(_call(url, method, path, body))
    return 0


def _asked(what: str, value: str | None) -> tuple[str, str, bytes]:
    if what in ("add", "scenario") and value is None:
        raise click.UsageError(f"{what} needs a value")
    match what:
        case "add":
            return "POST", "/rules", (value or "").encode()
        case "scenario":
            return "POST", "/scenario", json.dumps({"name": value}).encode()
        case "clear":
            return "DELETE", "/rules", b""
        case "associations" if value is not None:
            return "GET", f"/associations/{value}", b""
        case _:
            return "GET", f"/{what}", b""


def _call(url: str, method: str, path: str, body: bytes) -> Any:
    address = urlsplit(url if "//" in url else f"//{url}")
    try:
        connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=_TIMEOUT_SECONDS
        )
        connection.request(method, path, body)
        answer = connection.getresponse()
        content = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DestinationUnreachable(f"no control at {url}: {error}") from error
    if answer.status >= http.client.BAD_REQUEST:
        raise InvalidSetting(str(content.get("detail", content)))
    return content
