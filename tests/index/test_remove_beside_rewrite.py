"""``check --repair`` removes rows while ``reindex`` writes them again, into another series perhaps."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pacs.index.index import Index
from pacs.model.instances import DuplicatePolicy, InstanceRecord
from tests.index.conftest import MakeRecord

# On PostgreSQL each costs a second: the two deadlock, and are told so after that time, and run again.
ROUNDS = 3


def moved(record: InstanceRecord, series: str) -> InstanceRecord:
    """The same file, of which a later release says that it is of another series."""
    return replace(record, header=replace(record.header, series_instance_uid=series))


def test_rows_removed_while_they_are_rewritten_leave_no_empty_parent(
    index: Index, make_record: MakeRecord
) -> None:
    records = [make_record() for _ in range(4)]
    together = threading.Barrier(3)

    def rewrite() -> None:
        for number in range(ROUNDS):
            together.wait(20)
            index.rewrite([moved(record, f"1.2.3.{number % 2 + 1}") for record in records])
            together.wait(20)

    def remove() -> None:
        for _ in range(ROUNDS):
            together.wait(20)
            for record in reversed(records):
                index.remove(record.header.sop_instance_uid, location=record.location)
            together.wait(20)

    left = []
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(rewrite), threads.submit(remove)]
        try:
            for _ in range(ROUNDS):
                index.ingest_batch(records, DuplicatePolicy.KEEP)
                together.wait(20)
                together.wait(20)
                stats = index.stats()
                left.append((stats.patients, stats.studies, stats.series, stats.instances))
        except threading.BrokenBarrierError:
            pass
        finally:
            if len(left) < ROUNDS:
                together.abort()
        for one in running:
            one.result()

    assert left == [(0, 0, 0, 0)] * ROUNDS
