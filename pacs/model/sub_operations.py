"""Counting the C-STORE sub-operations of one retrieve (PS3.4 C.4.2.1.6 to C.4.2.1.9)."""

from __future__ import annotations

from dataclasses import dataclass, field

from pacs.model.retrieves import SubOperationOutcome


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one sub-operation."""

    result: SubOperationOutcome
    #: The status of the C-STORE response; None if there was none.
    status: int | None = None
    #: Why, in one sentence; empty when completed.
    comment: str = ""
    size_bytes: int = 0
    duration_seconds: float = 0.0

    @classmethod
    def failed(cls, comment: str, status: int | None = None) -> Outcome:
        """A failed sub-operation."""
        return cls(SubOperationOutcome.FAILED, status, comment)


@dataclass(slots=True)
class SubOperations:
    """The four counters; remaining + completed + failed + warning is always the total."""

    total: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    #: Failed SOP Instance UID List (0008,0058), in the order of failing.
    failed_uids: list[str] = field(default_factory=list)
    #: Why they failed, no more than two that differ: more than one is no reason for all.
    _reasons: set[str] = field(default_factory=set)

    @property
    def remaining(self) -> int:
        """How many sub-operations have not been tried."""
        return self.total - self.completed - self.failed - self.warning

    def add(self, sop_instance_uid: str, outcome: Outcome) -> None:
        """Count one outcome."""
        assert self.remaining > 0, "more outcomes than sub-operations"
        if outcome.result is SubOperationOutcome.COMPLETED:
            self.completed += 1
        elif outcome.result is SubOperationOutcome.WARNING:
            self.warning += 1
        else:
            self.failed += 1
            self._failed_because(outcome.comment)
            if sop_instance_uid:
                self.failed_uids.append(sop_instance_uid)

    def fail_remaining(self) -> None:
        """Count what was never tried as failed: their UIDs were never learned."""
        if self.remaining:
            self._failed_because("")
        self.failed += self.remaining

    @property
    def reason(self) -> str:
        """Why sub-operations failed, if it is the same for all that did; else empty."""
        return next(iter(self._reasons)) if len(self._reasons) == 1 else ""

    def _failed_because(self, reason: str) -> None:
        if len(self._reasons) < 2:
            self._reasons.add(reason)
