"""The records of associations: bounded by number and by age, on both backends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pacs.index.index import Index
from pacs.model.associations import (
    AssociationEnding,
    AssociationRecord,
    OperationRecord,
    ProposedContext,
)

_NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def make_record(calling_ae: str = "CT1", **fields: Any) -> AssociationRecord:
    defaults = {
        "called_ae": "PACS",
        "calling_host": "10.0.0.7",
        "tls": False,
        "started_at": _NOON,
        "finished_at": _NOON,
        "ending": AssociationEnding.RELEASED,
    }
    return AssociationRecord(calling_ae=calling_ae, **(defaults | fields))


def _titles(index: Index, **filters: Any) -> list[str]:
    return [one.calling_ae for one in index.associations.newest(100, **filters)]


def test_a_record_comes_back_as_it_was(index: Index) -> None:
    record = make_record(
        ending=AssociationEnding.REJECTED,
        codes=(1, 1, 3),
        detail="why",
        tls=True,
        is_problem=True,
        contexts=(
            ProposedContext(abstract_syntax="1.2", transfer_syntaxes=("1", "2"), result=4),
            ProposedContext(abstract_syntax="1.3", transfer_syntaxes=(), result=None),
        ),
        operations=(
            OperationRecord(
                service="C-MOVE",
                sop_class_uid="1.2",
                status=0xB000,
                level="STUDY",
                destination="DEST",
                message_id=7,
                error_comment="é",
                offending=(0x00080052,),
                matches=3,
                counts=(1, 2, None, 0),
                times=9,
            ),
        ),
    )

    index.associations.add([record], keep=10)

    (found,) = index.associations.newest()
    assert found.key is not None
    assert index.associations.get(found.key) == found

    assert found.operations == record.operations
    assert found.contexts == record.contexts
    assert (found.codes, found.ending, found.tls) == (record.codes, record.ending, True)


def test_the_oldest_go_when_there_are_too_many(index: Index) -> None:
    for number in range(4):
        index.associations.add([make_record(f"A{number}"), make_record(f"B{number}")], keep=3)

    assert _titles(index) == ["B3", "A3", "B2"]


def test_those_that_fit_stay(index: Index) -> None:
    index.associations.add([make_record(), make_record()], keep=2)

    assert len(_titles(index)) == 2


def test_records_of_one_ae_and_of_problems_are_found(index: Index) -> None:
    index.associations.add(
        [make_record("A", is_problem=True), make_record("A"), make_record("B", is_problem=True)],
        keep=9,
    )

    assert _titles(index, calling_ae="A") == ["A", "A"]
    assert _titles(index, only_problems=True) == ["B", "A"]
    assert _titles(index, calling_ae="A", only_problems=True) == ["A"]


def test_old_records_are_removed(index: Index) -> None:
    old = make_record("OLD", started_at=_NOON - timedelta(days=2))
    index.associations.add([old, make_record("NEW")], keep=9)

    assert index.associations.prune(_NOON - timedelta(days=1)) == 1
    assert _titles(index) == ["NEW"]


def test_an_unknown_record_is_none(index: Index) -> None:
    assert index.associations.get(1) is None
