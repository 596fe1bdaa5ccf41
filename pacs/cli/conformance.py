"""``pacs conformance``: test other AEs against the Standard."""

from __future__ import annotations

from pathlib import Path

import click

from pacs.cli.options import SCU_SETTINGS, with_settings
from pacs.cli.output import console, print_json, print_table
from pacs.config import Settings
from pacs.conformance.judgement import Report
from pacs.conformance.report import json_document, text
from pacs.conformance.report.html import as_html
from pacs.conformance.report.junit import as_junit
from pacs.conformance.scp.check import PeerUnderTest
from pacs.conformance.scp.preparation import prepared
from pacs.conformance.scp.runner import Bench, offer_of, run_checks, selected
from pacs.conformance.scp.sample import Sample
from pacs.dimse.query_scu import Peer

_NEW_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group("conformance")
def conformance_group() -> None:
    """Test other AEs against the Standard, clause by clause."""


@conformance_group.command("scp")
@click.argument("peer", metavar="TITLE@HOST:PORT", required=False)
@click.option("--list", "list_only", is_flag=True, help="List the checks and end.")
@click.option(
    "-k", "--check", "names", multiple=True, help="Only checks of this name; * is a wild card."
)
@click.option(
    "--clause", "clauses", multiple=True, help="Only checks of this clause or one below it."
)
@click.option("--read-only", is_flag=True, help="Store nothing; work on what the archive has.")
@click.option(
    "--verbose", is_flag=True, help="Show the messages of each check that failed or warned."
)
@click.option("--junit", type=_NEW_FILE, help="Write the report as JUnit XML.")
@click.option("--html", type=_NEW_FILE, help="Write the report as one HTML page.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@with_settings(*SCU_SETTINGS, default_log_level="warning")
def scp_command(
    settings: Settings,
    peer: str | None,
    list_only: bool,
    names: tuple[str, ...],
    clauses: tuple[str, ...],
    read_only: bool,
    junit: Path | None,
    html: Path | None,
    verbose: bool,
    as_json: bool,
) -> int:
    """Test a remote SCP. Exit code 1 when a check failed."""
    checks = selected(names, clauses, read_only=read_only)
    if not checks:
        raise click.UsageError("no check has that name and clause; --list shows all")
    if list_only:
        rows = ((one.name, one.clause, one.requirement.value, one.title) for one in checks)
        print_table("", ("check", "clause", "requirement", "the SCP ..."), rows)
        return 0
    if peer is None:
        raise click.UsageError("say which SCP: TITLE@HOST:PORT")
    called = Peer.parse(peer)
    tested = PeerUnderTest(
        called.host, called.port, called.title, settings.ae_title, settings.dimse_timeout_seconds
    )
    offer, sample = offer_of(tested), Sample()
    if any(one.uses_sample for one in checks):
        sample = prepared(tested, offer.services, read_only=read_only)
    report = run_checks(Bench(tested, offer, sample), checks)
    _write(report, junit=junit, html=html)
    _print(report, as_json=as_json, verbose=verbose)
    return 0 if report.is_conformant else 1


def _write(report: Report, *, junit: Path | None, html: Path | None) -> None:
    try:
        if junit is not None:
            junit.write_bytes(as_junit(report))
        if html is not None:
            html.write_text(as_html(report), "utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write the report: {error}") from error


def _print(report: Report, *, as_json: bool, verbose: bool) -> None:
    if as_json:
        print_json(json_document.as_json(report))
        return
    print_table("", text.HEADINGS, (text.row(result) for result in report.results))
    for line in text.details(report, with_traces=verbose):
        console.print(line, markup=False)
    for name, value in report.subject.items():
        console.print(f"{name}: {value}", markup=False)
    console.print(report.summary, markup=False)
