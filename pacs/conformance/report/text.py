"""A report on the terminal: a table, then what went wrong in full."""

from __future__ import annotations

from collections.abc import Iterator

from pacs.conformance.judgement import CheckResult, Report, Verdict

HEADINGS = ("check", "clause", "requirement", "verdict", "received")


def row(result: CheckResult) -> tuple[str, ...]:
    """One line of the table."""
    received = "" if result.verdict is Verdict.PASS else result.received
    verdict = result.verdict.value
    return result.name, result.clause, result.requirement.value, verdict, received


def details(report: Report, *, with_traces: bool) -> Iterator[str]:
    """What each check that failed or warned sent, expected and received; its messages if asked for."""
    for result in report.results:
        if result.verdict not in (Verdict.FAIL, Verdict.WARNING):
            continue
        yield ""
        yield f"{result.verdict.value.upper()} {result.name} ({result.clause}): the SCP {result.title}"
        for label, text in (
            ("sent", result.sent),
            ("expected", result.expected),
            ("received", result.received),
        ):
            if text:
                yield f"  {label:9}{text}"
        if with_traces:
            for trace in result.traces:
                yield from (f"    {line}" for line in trace.lines())
