"""Reports for machines and for the file cabinet."""

from __future__ import annotations

from typing import Any

from pacs.conformance.judgement import Report, Verdict


def as_json(report: Report) -> dict[str, Any]:
    """The whole report as JSON values."""
    return {
        "title": report.title,
        "subject": report.subject,
        "started": report.started,
        "is_complete": report.is_complete,
        "summary": {verdict.value: report.count(verdict) for verdict in Verdict},
        "results": [result.to_json() for result in report.results],
    }
