from __future__ import annotations

import pytest

from pacs.dicom.attributes import ATTRIBUTE_SET_VERSION
from pacs.errors import IndexUnavailable
from pacs.index.index import Index
from pacs.model.instances import DuplicatePolicy, IngestOutcome, InstanceLocation
from pacs.model.statistics import Stats


def test_open_new_database_makes_it_usable(empty_database_url: str, make_record) -> None:
    index = Index.open(empty_database_url)

    assert index.stats() == Stats()
    assert index.attribute_set_version() == ATTRIBUTE_SET_VERSION
    assert index.ingest(make_record()).outcome is IngestOutcome.STORED
    index.close()


def test_open_without_upgrade_refuses_a_database_without_tables(empty_database_url: str) -> None:
    with pytest.raises(IndexUnavailable, match="db upgrade"):
        Index.open(empty_database_url, upgrade=False)


def test_open_again_keeps_what_is_stored(index: Index, database_url: str, make_record) -> None:
    index.ingest(make_record())
    index.set_attribute_set_version(7)

    again = Index.open(database_url)

    assert again.stats().instances == 1
    assert again.attribute_set_version() == 7
    again.close()


def test_stats_count_everything(index: Index, make_record) -> None:
    index.ingest_batch([make_record("1.1", "1.1.1"), make_record("1.1", "1.1.2")])
    index.ingest(make_record("2.1", "2.1.1", PatientID="P-2"))

    assert index.stats() == Stats(patients=2, studies=2, series=3, instances=3, size_bytes=3000)


def test_locations_are_streamed_in_order(index: Index, make_record) -> None:
    records = [make_record(location=location) for location in ("b", "a", "C")]
    index.ingest_batch(records)

    found = list(index.locations())

    assert [entry.location for entry in found] == ["C", "a", "b"]
    assert found[1] == InstanceLocation(
        sop_instance_uid=records[1].header.sop_instance_uid,
        transfer_syntax_uid=records[1].header.transfer_syntax_uid,
        location="a",
        data_set_offset=344,
        data_set_size=1000,
        digest="d" * 64,
    )


def test_locations_left_early_give_the_connection_back(index: Index, make_record) -> None:
    index.ingest_batch([make_record() for _ in range(3)])

    locations = index.locations()
    next(locations)
    locations.close()

    assert index._engine._readers.pool.checkedout() == 0


def test_find_by_uid_unknown_is_none(index: Index) -> None:
    assert index.find_by_uid("1.2.3") is None


def test_ingest_applies_the_policy_of_each_call(index: Index, make_record) -> None:
    index.ingest(make_record(uid="1.2.9"))

    outcomes = [
        index.ingest(make_record(uid="1.2.9", digest=str(n) * 64), policy).outcome
        for n, policy in enumerate(
            (DuplicatePolicy.KEEP, DuplicatePolicy.REFUSE, DuplicatePolicy.REPLACE)
        )
    ]

    assert outcomes == [IngestOutcome.KEPT, IngestOutcome.REFUSED, IngestOutcome.REPLACED]
