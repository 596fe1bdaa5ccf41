"""Old records are removed in small transactions, between which others write."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from pacs.index import associations as associations_module
from pacs.index import batches, tables
from pacs.index.index import Index
from tests.index.test_associations import make_record

NOW = datetime.now(UTC)
OLD, BEFORE = NOW - timedelta(days=40), NOW - timedelta(days=30)


def fill(index: Index, parts: list[tuple[datetime, int]]) -> None:
    """Retrieves, storage commitments and associations of these times, with so many parts each."""
    texts = (
        "calling_ae calling_host service model level identifier destination process error_comment"
    )
    retrieve: dict[str, Any] = dict.fromkeys(texts.split(), "")
    retrieve |= {"message_id": 1, "interrupted": False}
    commitment: dict[str, Any] = {
        "transaction_uid": "1.2",
        "calling_ae": "A",
        "calling_host": "h",
        "state": "reported",
        "attempts": 0,
        "comment": "",
    }
    association: dict[str, Any] = {
        "calling_ae": "A",
        "called_ae": "B",
        "calling_host": "h",
        "tls": False,
        "ending": "released",
        "codes": "[]",
        "detail": "",
        "is_problem": True,
        "contexts": "[]",
        "operations": "[]",
    }
    with index._engine.write() as connection:
        for at, count in parts:
            key = connection.execute(
                sa.insert(tables.retrieve).returning(tables.retrieve.c.id),
                retrieve | {"started_at": at, "active_at": at},
            ).scalar_one()
            rows = [
                {
                    "retrieve_pk": key,
                    "number": number,
                    "sop_class_uid": "1",
                    "sop_instance_uid": "2",
                    "outcome": "completed",
                    "error_comment": "",
                    "size_bytes": 0,
                    "duration_seconds": 0.0,
                }
                for number in range(1, count + 1)
            ]
            connection.execute(sa.insert(tables.sub_operation), rows)
            key = connection.execute(
                sa.insert(tables.commitment).returning(tables.commitment.c.id),
                commitment | {"requested_at": at, "active_at": at},
            ).scalar_one()
            references = [
                {
                    "commitment_pk": key,
                    "number": number,
                    "sop_class_uid": "1",
                    "sop_instance_uid": "2",
                }
                for number in range(1, count + 1)
            ]
            connection.execute(sa.insert(tables.commitment_reference), references)
            connection.execute(
                sa.insert(tables.association), association | {"started_at": at, "finished_at": at}
            )


def counts(index: Index) -> dict[str, int]:
    names = ("retrieve", "sub_operation", "commitment", "commitment_reference", "association")
    with index._engine.read() as connection:
        return {
            name: connection.scalar(
                sa.select(sa.func.count()).select_from(tables.metadata.tables[name])
            )
            or 0
            for name in names
        }


PRUNES: list[Callable[[Index], int]] = [
    lambda index: index.journal.prune(BEFORE),
    lambda index: index.commitments.prune(BEFORE),
    lambda index: index.associations.prune(BEFORE),
]
NAMES = ["retrieves", "commitments", "associations"]


@pytest.mark.parametrize("prune", PRUNES, ids=NAMES)
def test_prune_lets_others_write_between_its_transactions(
    index: Index,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    prune: Callable[[Index], int],
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(batches, "ROWS_AT_ONCE", 3)
    fill(index, [(OLD, 10), (OLD, 1), (OLD, 4), (OLD, 2), (OLD, 1), (NOW, 5)])
    before = counts(index)
    seen: list[dict[str, int]] = []
    # A process of its own, which does not wait for a lock.
    other = Index.open(database_url, upgrade=False)

    def write_between(_: float) -> None:
        with other._engine.write() as connection:
            if other._engine.is_sqlite:
                connection.exec_driver_sql("PRAGMA busy_timeout=0")
            connection.execute(
                sa.insert(tables.archive_state), {"name": f"turn {len(seen)}", "value": ""}
            )
        seen.append(counts(other))

    monkeypatch.setattr(batches, "pause", write_between)

    removed = prune(index)

    other.close()
    assert removed == 5
    assert len(seen) >= 2
    # Each time some are gone, and never more than a few at once.
    steps = [before, *seen, counts(index)]
    for one, next_one in itertools.pairwise(steps):
        assert all(0 <= one[name] - next_one[name] <= 3 for name in one)
    left = counts(index)
    expected = {
        "retrieves": {"retrieve": 1, "sub_operation": 5},
        "commitments": {"commitment": 1, "commitment_reference": 5},
        "associations": {"association": 1},
    }
    wanted = next(values for name, values in expected.items() if name in request.node.callspec.id)
    assert left == before | wanted


def test_fewer_associations_to_keep_are_reached_in_steps(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(associations_module, "ROWS_AT_ONCE", 3)
    for _ in range(8):
        index.associations.add([make_record()], keep=100)

    index.associations.add([make_record()], keep=2)
    assert counts(index)["association"] == 6
    for _ in range(3):
        index.associations.add([make_record()], keep=2)
    assert counts(index)["association"] == 2
