"""What a check finds, and the report that collects it: the same for both sides of the instrument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pacs.conformance.wire.trace import Trace


class Requirement(Enum):
    """How strongly the Standard asks for something."""

    SHALL = "shall"
    SHOULD = "should"
    MAY = "may"


class Verdict(Enum):
    """What became of a check. ``WARNING``: a "should" is not met, or a "shall" is met in a doubtful way."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    WARNING = "warning"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class CheckResult:
    """One check and its verdict.

    ``sent``, ``expected`` and ``received`` are sentences for people; ``traces`` hold what passed over the wire.
    """

    name: str
    title: str
    clause: str
    requirement: Requirement
    verdict: Verdict
    sent: str = ""
    expected: str = ""
    received: str = ""
    seconds: float = 0.0
    traces: Sequence[Trace] = ()

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "name": self.name,
            "title": self.title,
            "clause": self.clause,
            "requirement": self.requirement.value,
            "verdict": self.verdict.value,
            "sent": self.sent,
            "expected": self.expected,
            "received": self.received,
            "seconds": round(self.seconds, 3),
            "traces": [trace.to_json() for trace in self.traces],
        }


@dataclass(frozen=True)
class Report:
    """The results of one run, and whom it judged (``subject``: name to text, in the order to be shown).

    ``is_complete``: nobody ended the run before its last check.
    """

    title: str
    subject: dict[str, str]
    started: str
    results: list[CheckResult] = field(default_factory=list)
    is_complete: bool = True

    def count(self, verdict: Verdict) -> int:
        """How many checks ended with that verdict."""
        return Counter(result.verdict for result in self.results)[verdict]

    @property
    def is_conformant(self) -> bool:
        """Whether no check failed."""
        return not self.count(Verdict.FAIL)

    @property
    def summary(self) -> str:
        """The number of checks by verdict, in words, and whether there should have been more."""
        counted = ", ".join(f"{self.count(verdict)} {verdict.value}" for verdict in Verdict)
        return counted if self.is_complete else f"{counted}; interrupted before the last check"
