"""Reports hold every result, whatever a peer has sent."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

from pacs.conformance.judgement import CheckResult, Report, Requirement, Verdict
from pacs.conformance.report.html import as_html
from pacs.conformance.report.junit import as_junit
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.trace import Trace

_HOSTILE = "</pre><script>alert(1)</script>&\0\x1b\ud800\"'"


def _result(verdict: Verdict) -> CheckResult:
    trace = Trace(_HOSTILE)
    trace.pdu("received", pdus.AssociateReject(1, 1, 7))
    return CheckResult(
        f"find.{verdict.name.lower()}",
        "does something",
        "PS3.4 C.4.1",
        Requirement.SHALL,
        verdict,
        "sent",
        "expected",
        _HOSTILE,
        1.25,
        (trace,),
    )


REPORT = Report(
    "Conformance of an SCP",
    {"peer": f"AE@host:104{_HOSTILE}"},
    "2026-01-02T03:04:05+00:00",
    [_result(verdict) for verdict in Verdict],
)


def test_junit_counts_and_quotes() -> None:
    suite = ET.fromstring(as_junit(REPORT)).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "1", "1")
    by_name = {case.get("name"): case for case in suite.findall("testcase")}
    assert by_name["find.fail"].find("failure") is not None
    assert "<script>" in by_name["find.fail"].find("failure").get("message")
    assert "called AE title not recognised" in by_name["find.fail"].find("failure").text
    assert len(by_name["find.pass"]) == 0
    assert by_name["find.not_applicable"].find("skipped") is not None
    assert by_name["find.warning"].find("system-out").text.startswith("warning")


def test_junit_of_an_interrupted_run_is_in_error() -> None:
    suite = ET.fromstring(as_junit(replace(REPORT, is_complete=False))).find("testsuite")

    assert suite is not None
    assert (suite.get("tests"), suite.get("errors"), suite.get("failures")) == ("5", "1", "1")
    assert len(suite.findall("testcase/error")) == 1


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.attributes: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_page_has_each_result_and_nothing_from_elsewhere() -> None:
    page = as_html(REPORT)
    page.encode("utf-8")
    tags = _Tags()
    tags.feed(page)
    assert tags.opened.count("details") == len(Verdict)
    assert not {"script", "link", "img", "iframe"} & set(tags.opened)
    assert not {"src", "href"} & set(tags.attributes)
    assert "alert(1)" in tags.text
    for result in REPORT.results:
        assert result.name in tags.text
