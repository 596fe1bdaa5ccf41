"""The memory that an answer takes does not grow with the number of its matches."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.dicom.levels import Level
from pacs.dicom.query.matching import SingleValue
from pacs.dicom.query.response import encode_response
from pacs.index.index import Index

_STUDIES = 20_000
_STATUS = Path("/proc/self/status")
_RETURNS = [
    "PatientName",
    "StudyDate",
    "StudyTime",
    "AdditionalPatientHistory",
    "AccessionNumber",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedInstances",
]


@pytest.fixture
def large(index: Index, make_record) -> Index:
    """20,000 studies with one instance each."""
    for first in range(0, _STUDIES, 1000):
        index.ingest_batch(
            [
                make_record(
                    f"1.2.826.0.1.3680043.{n}",
                    f"1.2.826.0.1.3680043.{n}.1",
                    PatientID=f"P-{n}",
                    PatientName=f"Patient^Number {n}",
                    StudyDate="20240229",
                    StudyTime="101530",
                    # Long, so that a result held in full would show: 20 MB.
                    AdditionalPatientHistory=f"{n} " + "unremarkable " * 75,
                    AccessionNumber=f"A-{n}",
                )
                for n in range(first, first + 1000)
            ]
        )
    return index


def resident_bytes() -> int:
    """Memory of this process that belongs to no file: SQLite maps the index, which the system may drop."""
    lines = _STATUS.read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def sampled(index: Index, query) -> Iterator[int]:
    """The resident memory after each 500 responses, and the number of responses at the end."""
    count = 0
    for record in index.search(query):
        encode_response(query, record, retrieve_ae_title="PACS")
        count += 1
        if count % 500 == 0:
            yield resident_bytes()
    yield count


@pytest.mark.skipif(not _STATUS.exists(), reason="needs /proc")
def test_find_of_twenty_thousand_studies_stays_flat_in_memory(large: Index, make_query) -> None:
    query = make_query(Level.STUDY, {}, _RETURNS)
    # Compiled and cached, a connection made; not the query itself, whose memory would be there to be used again.
    one = make_query(Level.STUDY, {"AccessionNumber": SingleValue("A-1")}, _RETURNS)
    assert list(sampled(large, one)) == [1]
    gc.collect()
    before = resident_bytes()

    *samples, count = sampled(large, query)

    assert count == _STUDIES
    assert max(samples) - before < 4_000_000

    tracemalloc.start()
    try:
        count = sum(1 for _ in large.search(query))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == _STUDIES
    assert peak < 1_500_000
