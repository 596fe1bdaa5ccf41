"""Explanations of a trace file: the associations that ``pacs.conformance.wire`` recorded, as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pacs.conformance.wire.trace import Trace, TraceEntry
from pacs.errors import InvalidSetting
from pacs.explain.cases import explain_status
from pacs.explain.endings import explain_ending
from pacs.explain.explanation import Case, Explanation, Site
from pacs.model.associations import AssociationEnding, AssociationRecord

_RESPONSE = re.compile(
    r"(?P<service>[CN]-[A-Z-]+)-RSP on context .*, status 0x(?P<status>[0-9A-F]{4})"
)
_REQUEST = re.compile(r"[CN]-[A-Z-]+-RQ on context ")
_TAG = re.compile(r"\(([0-9A-F]{4}),([0-9A-F]{4})\)")
_NUMBER = re.compile(r"\d+")
_TITLES = re.compile(r"called '(?P<called>[^']*)', calling '(?P<calling>[^']*)'")
_COUNTS = (
    "NumberOfCompletedSuboperations",
    "NumberOfFailedSuboperations",
    "NumberOfWarningSuboperations",
    "NumberOfRemainingSuboperations",
)
_IN_ORDER = (0x0000, 0xFF00, 0xFF01, 0xFE00)
_MOST_BYTES = 256 << 20


def read_traces(path: Path) -> list[Trace]:
    """The traces in a file: one, a list of them, or a document that has such anywhere within.

    Raises:
        InvalidSetting: the file cannot be read, or has none.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidSetting(f"{path} is too large for a trace")
        traces = list(_within(json.loads(path.read_text("utf-8"))))
    except OSError as error:
        raise InvalidSetting(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidSetting(f"{path} is not JSON: {error}") from error
    except (KeyError, TypeError) as error:
        raise InvalidSetting(f"{path} has a trace that is incomplete: {error}") from error
    if not traces:
        raise InvalidSetting(f"{path} has no trace of an association")
    return traces


def _within(value: Any) -> Iterator[Trace]:
    if isinstance(value, dict):
        if isinstance(value.get("entries"), list):
            yield Trace.from_json(value)
            return
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _within(one)


def explain_trace(trace: Trace, site: Site) -> list[Explanation]:
    """What in a trace needs explaining: responses, rejection, abort."""
    found: list[Explanation] = []
    titles = _TITLES.search("")
    values: dict[str, str] = {}
    requestors_way = ""
    for entry in trace.entries:
        detail = " ".join(entry.detail)
        titles = _TITLES.search(detail) or titles
        calling = titles["calling"].strip() if titles else ""
        called = titles["called"].strip() if titles else ""
        if _REQUEST.match(entry.title):
            values = _values(entry)
        elif answer := _RESPONSE.match(entry.title):
            case = _case(answer, values, _values(entry), calling)
            if case.status not in _IN_ORDER:
                found.append(explain_status(case, site))
        elif entry.title == "A-ASSOCIATE-RQ":
            requestors_way = entry.direction
        elif record := _ending(entry, calling, called):
            explained = explain_ending(record, site)
            if entry.title == "A-ABORT" and entry.direction != requestors_way:
                explained = replace(
                    explained, what=f"{called} aborted the association of {calling}"
                )
            found.append(explained)
    return list(dict.fromkeys(found))


def _values(entry: TraceEntry) -> dict[str, str]:
    pairs = (line.split(": ", 1) for line in entry.detail if ": " in line)
    # A line of the Identifier begins with its tag: "(0008,0052) CS QueryRetrieveLevel".
    return {name.split(" ")[-1]: value for name, value in pairs}


def _case(
    answer: re.Match[str], request: dict[str, str], response: dict[str, str], calling: str
) -> Case:
    counts = tuple(int(response[name]) if name in response else None for name in _COUNTS)
    tags = _TAG.findall(response.get("OffendingElement", ""))
    return Case(
        service=answer["service"],
        status=int(answer["status"], 16),
        calling_ae=calling,
        level=request.get("QueryRetrieveLevel", ""),
        sop_class_uid=request.get("AffectedSOPClassUID", "").split(" ")[0],
        destination=request.get("MoveDestination", "").strip(),
        error_comment=response.get("ErrorComment", ""),
        offending=tuple(int(group + element, 16) for group, element in tags),
        counts=counts,
    )


def _ending(entry: TraceEntry, calling: str, called: str) -> AssociationRecord | None:
    if entry.title == "A-ASSOCIATE-RJ":
        ending = AssociationEnding.REJECTED
    elif entry.title == "A-ABORT":
        ending = AssociationEnding.ABORTED_BY_PEER
    else:
        return None
    numbers = tuple(int(number) for number in _NUMBER.findall(" ".join(entry.detail)))
    now = datetime.now(UTC)
    return AssociationRecord(
        calling_ae=calling,
        called_ae=called,
        calling_host="HOST",
        tls=False,
        started_at=now,
        finished_at=now,
        ending=ending,
        codes=numbers[:3] if ending is AssociationEnding.REJECTED else numbers[:2],
    )
