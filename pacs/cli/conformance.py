"""``pacs conformance``: test other AEs against the Standard."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from pacs.cli.conformance_reports import WantedReports, deliver, report_options
from pacs.cli.options import with_settings
from pacs.cli.output import errors, print_json, print_table
from pacs.cli.peers import PEER_SETTINGS, peer_named
from pacs.config import Settings
from pacs.conformance.judgement import CheckResult, Report
from pacs.conformance.scp.check import Check, PeerUnderTest
from pacs.conformance.scp.destination import Destination
from pacs.conformance.scp.preparation import Services, prepared
from pacs.conformance.scp.runner import (
    Bench,
    knows_destination,
    offer_of,
    run_checks,
    selected,
)
from pacs.conformance.scp.sample import Sample
from pacs.conformance.wire.association import AssociationEnded
from pacs.dicom.ae_titles import normalised_ae_title
from pacs.errors import DestinationUnreachable


class _Destination(click.ParamType[Destination]):
    name = "TITLE:PORT"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> Destination:
        title, _, port = value.rpartition(":")
        known = normalised_ae_title(title)
        if known is None or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65_536:
            self.fail(f"expected TITLE:PORT, got {value!r}", param, ctx)
        return Destination(known, port=int(port))


@click.command("scp")
@click.argument("peer", metavar="TITLE[@HOST:PORT]", required=False)
@click.option("--list", "list_only", is_flag=True, help="List the checks and end.")
@click.option(
    "-k", "--check", "names", multiple=True, help="Only checks of this name; * is a wild card."
)
@click.option(
    "--clause", "clauses", multiple=True, help="Only checks of this clause or one below it."
)
@click.option(
    "--destination",
    type=_Destination(),
    help="TITLE:PORT of a Move Destination that the SCP knows to be on this host; the tool is it.",
)
@click.option("--read-only", is_flag=True, help="Store nothing; work on what the archive has.")
@report_options
@with_settings(*PEER_SETTINGS, default_log_level="warning")
def scp_command(
    settings: Settings,
    peer: str | None,
    list_only: bool,
    names: tuple[str, ...],
    clauses: tuple[str, ...],
    destination: Destination | None,
    read_only: bool,
    wanted: WantedReports,
) -> int:
    """Test a remote SCP. Exit code 1 when a check failed. Ctrl-C or SIGTERM ends it with a report of what was checked.

    Without --read-only a data set of the tool's own is stored first; its Patient IDs are said at the end. C-MOVE
    needs a Move Destination: register TITLE with the SCP at this host and PORT, and name it with --destination.
    """
    checks = selected(names, clauses, read_only=read_only)
    if not checks:
        raise click.UsageError("no check has that name and clause; --list shows all")
    if list_only:
        return _list(checks, as_json=wanted.as_json)
    if peer is None:
        raise click.UsageError("say which SCP: TITLE@HOST:PORT, or a registered TITLE")
    called = peer_named(settings, peer)
    tested = PeerUnderTest(
        called.host, called.port, called.title, settings.ae_title, settings.dimse_timeout_seconds
    )
    try:
        report = _tested(tested, checks, destination, read_only=read_only)
    except AssociationEnded as error:
        raise DestinationUnreachable(f"{peer}: {error}") from error
    return deliver(report, wanted)


def _list(checks: Sequence[Check], *, as_json: bool) -> int:
    headings = ("check", "clause", "requirement", "title")
    rows = [(one.name, one.clause, one.requirement.value, one.title) for one in checks]
    if as_json:
        print_json([dict(zip(headings, row, strict=True)) for row in rows])
    else:
        print_table("", (*headings[:3], "the SCP ..."), rows)
    return 0


def _tested(
    peer: PeerUnderTest,
    checks: Sequence[Check],
    destination: Destination | None,
    *,
    read_only: bool,
) -> Report:
    offer, sample = offer_of(peer), Sample()
    with _ended_like_ctrl_c(), destination or nullcontext(), checking(len(checks)) as on_result:
        if any(one.uses_sample for one in checks):
            sample = _prepared(peer, offer.services, read_only=read_only)
        is_known = destination is None or knows_destination(peer, offer, destination.ae_title)
        if destination is not None and not is_known:
            errors.print(
                f"{peer.called_ae_title} does not know {destination.ae_title}: register it there at this "
                f"host and port {destination.port}, for the checks of C-MOVE",
            )
        bench = Bench(peer, offer, sample, destination, is_unregistered=not is_known)
        return run_checks(bench, checks, on_result=on_result)


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """SIGTERM, which CI systems send when time is up, does what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _prepared(peer: PeerUnderTest, services: Services, *, read_only: bool) -> Sample:
    generated: list[Sample] = []
    try:
        return prepared(peer, services, read_only=read_only, on_generated=generated.append)
    except KeyboardInterrupt:
        for sample in generated:  # there will be no report that says it
            what = f"patients whose Patient ID begins with {sample.token}-"
            errors.print(f"some of the sample may be stored: {what}")
        raise


@contextmanager
def checking(total: int) -> Iterator[Callable[[CheckResult], None]]:
    """A progress bar on a terminal; the function moves it on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=errors.rich, transient=True) as progress:
        task = progress.add_task("preparing", total=total)
        seen: set[str] = set()

        def on_result(result: CheckResult) -> None:
            seen.add(result.name.partition("[")[0])
            progress.update(task, completed=len(seen), description=result.name)

        yield on_result
