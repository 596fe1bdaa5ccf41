"""Builders of records and queries, and a recorder of SQL statements."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from pacs.dicom.attributes import BY_KEYWORD
from pacs.dicom.information_model import InformationModel
from pacs.dicom.instance import InstanceHeader
from pacs.dicom.levels import Level
from pacs.dicom.query.identifier import Condition, Query
from pacs.dicom.query.matching import Match
from pacs.index.index import Index
from pacs.model.instances import InstanceRecord

RECEIVED_AT = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)

MakeRecord = Callable[..., InstanceRecord]
MakeQuery = Callable[..., Query]
RecordStatements = Callable[[], AbstractContextManager[list[str]]]

_numbers = itertools.count(1)


def _make_record(
    study: str = "1.2.3",
    series: str = "1.2.3.1",
    uid: str | None = None,
    *,
    location: str | None = None,
    digest: str = "d" * 64,
    sop_class: str = CTImageStorage,
    transfer_syntax: str = ExplicitVRLittleEndian,
    **values: str,
) -> InstanceRecord:
    number = next(_numbers)
    return InstanceRecord(
        header=InstanceHeader(
            sop_class_uid=sop_class,
            sop_instance_uid=uid or f"{series}.{number}",
            series_instance_uid=series,
            study_instance_uid=study,
            transfer_syntax_uid=transfer_syntax,
            values={"PatientID": "P-1", "Modality": "CT"} | values,
        ),
        location=location or f"2026/03/29/0130/{number:016x}.dcm",
        data_set_offset=344,
        data_set_size=1000,
        digest=digest,
        received_at=RECEIVED_AT,
        source_ae="CT1",
    )


def _make_query(
    level: Level,
    conditions: dict[str, Match] | None = None,
    returns: Sequence[str] = (),
    model: InformationModel = InformationModel.PATIENT_ROOT,
) -> Query:
    return Query(
        model=model,
        level=level,
        conditions=tuple(
            Condition(BY_KEYWORD[keyword], match) for keyword, match in (conditions or {}).items()
        ),
        returns=tuple(BY_KEYWORD[keyword] for keyword in returns),
    )


@pytest.fixture(scope="session")
def make_record() -> MakeRecord:
    """A builder of valid records: each call a new instance of one study unless told otherwise."""
    return _make_record


@pytest.fixture(scope="session")
def make_query() -> MakeQuery:
    """A builder of queries from keywords."""
    return _make_query


@pytest.fixture
def record_statements(index: Index) -> RecordStatements:
    """A context that lists the SQL statements of ``index``, without transaction control."""

    @contextmanager
    def recording() -> Iterator[list[str]]:
        statements: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            if not statement.startswith("BEGIN"):
                statements.append(statement)

        engines = (index._engine._readers, index._engine._writers)
        for engine in engines:
            sa.event.listen(engine, "before_cursor_execute", note)
        try:
            yield statements
        finally:
            for engine in engines:
                sa.event.remove(engine, "before_cursor_execute", note)

    return recording
