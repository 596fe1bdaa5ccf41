"""A report as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from pacs.conformance.judgement import CheckResult, Report, Verdict
from pacs.foreign_text import visible_lines


def as_junit(report: Report) -> bytes:
    """The document: a test case for each check, whose class is its service; a warning is a passed test that says so."""
    errors = int(not report.is_complete)
    suite = ET.Element(
        "testsuite",
        name=visible_lines(report.title),
        tests=str(len(report.results) + errors),
        failures=str(report.count(Verdict.FAIL)),
        errors=str(errors),
        skipped=str(report.count(Verdict.NOT_APPLICABLE)),
        time=f"{sum(result.seconds for result in report.results):.3f}",
        timestamp=report.started[:19],
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in report.subject.items():
        ET.SubElement(properties, "property", name=visible_lines(name), value=visible_lines(value))
    for result in report.results:
        _add(suite, result)
    if not report.is_complete:
        _add_interruption(suite)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _add(suite: ET.Element, result: CheckResult) -> None:
    service = result.name.partition(".")[0]
    case = ET.SubElement(
        suite,
        "testcase",
        classname=f"pacs.conformance.{service}",
        name=visible_lines(result.name),
        time=f"{result.seconds:.3f}",
    )
    if result.verdict is Verdict.NOT_APPLICABLE:
        ET.SubElement(case, "skipped", message=visible_lines(result.received))
    elif result.verdict is Verdict.FAIL:
        failure = ET.SubElement(
            case, "failure", type=result.clause, message=visible_lines(result.received)
        )
        failure.text = visible_lines(_told(result))
    elif result.verdict is Verdict.WARNING:
        ET.SubElement(case, "system-out").text = visible_lines(f"warning\n{_told(result)}")


def _add_interruption(suite: ET.Element) -> None:
    """A test in error: a CI system that keeps only this file must not take a part of the run for a good one."""
    case = ET.SubElement(suite, "testcase", classname="pacs.conformance", name="the whole run")
    ET.SubElement(case, "error", message="interrupted before the last check")


def _told(result: CheckResult) -> str:
    lines = [
        f"{result.clause} ({result.requirement.value}): {result.title}",
        f"sent: {result.sent}",
        f"expected: {result.expected}",
        f"received: {result.received}",
    ]
    for trace in result.traces:
        lines += ["", *trace.lines()]
    return "\n".join(lines)
