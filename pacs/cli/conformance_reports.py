"""What the commands of ``pacs conformance`` do with a report: the same options for all."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from pacs.cli.output import INTERRUPTED, console, print_json, print_table
from pacs.conformance.judgement import Report
from pacs.conformance.report import json_document, text
from pacs.conformance.report.html import as_html
from pacs.conformance.report.junit import as_junit

_NEW_FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class WantedReports:
    """Which reports the user asked for."""

    junit: Path | None
    html: Path | None
    as_json: bool
    verbose: bool


_OPTIONS = (
    click.option(
        "--verbose", is_flag=True, help="Show the messages of each check that failed or warned."
    ),
    click.option("--junit", type=_NEW_FILE, help="Write the report as JUnit XML."),
    click.option("--html", type=_NEW_FILE, help="Write the report as one HTML page."),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
)


def report_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of reports; it is called with ``wanted=``."""

    @functools.wraps(function)
    def wrapper(**arguments: Any) -> Any:
        chosen = {field.name: arguments.pop(field.name) for field in fields(WantedReports)}
        return function(**arguments, wanted=WantedReports(**chosen))

    decorated: Callable[..., Any] = wrapper
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def deliver(report: Report, wanted: WantedReports) -> int:
    """Write and print the report; the exit code: 1 when a check failed, another when the run was interrupted.

    Raises:
        click.ClickException: a file cannot be written.
    """
    try:
        if wanted.junit is not None:
            wanted.junit.write_bytes(as_junit(report))
        if wanted.html is not None:
            wanted.html.write_text(as_html(report), "utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write the report: {error}") from error
    if wanted.as_json:
        print_json(json_document.as_json(report))
    else:
        _print(report, with_traces=wanted.verbose)
    if not report.is_complete:
        return INTERRUPTED
    return 0 if report.is_conformant else 1


def _print(report: Report, *, with_traces: bool) -> None:
    print_table("", text.HEADINGS, (text.row(result) for result in report.results))
    for line in text.details(report, with_traces=with_traces):
        console.print(line)
    for name, value in report.subject.items():
        console.print(f"{name}: {value}")
    console.print(report.summary)
