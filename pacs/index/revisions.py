"""The schema revisions that this release knows, read from the names in its migrations.

Alembic could say it too, but it takes a third of a second to import and is needed only when there is something to
migrate.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

_ASSIGNED = re.compile(
    r"^(?P<name>revision|down_revision)(?::[^=]+)?\s*=\s*(?P<value>None|[\"'][^\"']+[\"'])",
    re.MULTILINE,
)


@lru_cache(maxsize=1)
def chain() -> tuple[str, ...]:
    """Every revision, the oldest first."""
    follows: dict[str | None, str] = {}
    for path in (scripts() / "versions").glob("*.py"):
        found = dict(_ASSIGNED.findall(path.read_text("utf-8")))
        before = found["down_revision"]
        follows[None if before == "None" else before[1:-1]] = found["revision"][1:-1]
    revisions: list[str] = []
    while (following := follows.get(revisions[-1] if revisions else None)) is not None:
        revisions.append(following)
    return tuple(revisions)


def newest() -> str:
    """The revision that this release needs."""
    return chain()[-1]


def scripts() -> Path:
    """The migrations: inside the installed package, or beside it in the source tree."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"
