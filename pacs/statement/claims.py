"""Which check proves what the Conformance Statement says."""

from __future__ import annotations

import fnmatch

import pacs.conformance.scp.checks as _checks  # registers them
from pacs.conformance.scp.check import CHECKS

assert _checks


def proved_by(*patterns: str) -> str:
    """Links to the checks with these names, ``*`` being a wild card; says so when there is none.

    Raises:
        LookupError: a pattern fits no check, so the claim has lost its proof.
    """
    names: list[str] = []
    for pattern in patterns:
        found = [one.name for one in CHECKS if fnmatch.fnmatch(one.name, pattern)]
        if not found:
            raise LookupError(f"no check is called {pattern}")
        names += found
    links = (f"[{name}](#check-{name})" for name in dict.fromkeys(names))
    return ", ".join(links) or "no check; our own tests"


def rows() -> list[tuple[str, ...]]:
    """Every check, with the target of the links to it."""
    return [
        (
            f"#check-{one.name}#`{one.name}`",
            one.clause,
            one.requirement.value,
            f"the SCP {one.title}",
        )
        for one in CHECKS
    ]
