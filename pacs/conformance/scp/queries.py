"""What the checks of C-FIND have in common: entities of the sample to ask for, and answers compared with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pacs.conformance.judgement import Requirement
from pacs.conformance.scp.check import Run, check
from pacs.conformance.scp.operations import PENDING_STATUSES, find
from pacs.conformance.wire.association import Association, NegotiatedContext
from pacs.conformance.wire.message import Message
from pacs.conformance.wire.pdu import extended_negotiation
from pacs.dicom.attributes import ATTRIBUTES, KeyType
from pacs.dicom.information_model import InformationModel, Operation
from pacs.dicom.levels import Level

FIND_MODELS = (
    InformationModel.PATIENT_ROOT,
    InformationModel.STUDY_ROOT,
    InformationModel.PATIENT_STUDY_ONLY,
)
#: A Patient ID and a UID that no archive has: the UID is a random UUID (PS3.5 B.2).
NO_PATIENT, NO_UID = "K7D1C0F2-NOBODY", "2.25.261593340287120430943160470418925632087"
_MOST_NAMED = 6


def find_check(
    name: str,
    clause: str,
    title: str,
    requirement: Requirement = Requirement.SHALL,
    *,
    models: tuple[InformationModel, ...] = FIND_MODELS,
    needs_sample: bool = False,
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register a check of C-FIND, for each information model that has it."""
    return check(
        f"find.{name}",
        clause,
        title,
        requirement,
        operation=Operation.FIND,
        models=models,
        needs_sample=needs_sample,
    )


def lowest_level(run: Run) -> Level:
    """The last level of the check's information model."""
    return run.model.levels[-1]


def entity(run: Run, **keys: str) -> Dataset:
    """The Attributes of a known instance; the check is not applicable where there is none."""
    return entities(run, Level.IMAGE, **keys)[0]


def entities(run: Run, level: Level, **keys: str) -> list[Dataset]:
    """The Attributes of one instance of each known entity, of those whose Attributes equal ``keys``."""
    found = [instances[0].attributes for instances in run.sample.entities(level, **keys)]
    if not found:
        run.not_applicable("no instance is known to ask for")
    return found


def unique_keys(run: Run, level: Level, known: Dataset, *, own: bool = True) -> dict[str, object]:
    """The unique keys down to a level with an entity's values; ``own``: that of the level too (PS3.4 C.4.1.2.1)."""
    above = {one.unique_key: known[one.unique_key].value for one in run.model.levels_above(level)}
    return above | {level.unique_key: known[level.unique_key].value if own else None}


def keys_of(run: Run, level: Level, *key_types: KeyType) -> list[str]:
    """The keys that the check's information model has at a level (PS3.4 Tables C.6-1 to C.6-5)."""
    return [
        attribute.keyword
        for attribute in ATTRIBUTES
        if attribute.key_type in key_types and run.model.key_level(attribute) == level
    ]


def answers(
    run: Run,
    level: Level | str,
    keys: Mapping[str, object],
    *,
    on: tuple[Association, NegotiatedContext] | None = None,
) -> tuple[list[Message], list[Dataset]]:
    """C-FIND: the responses, whatever their status, and the Identifiers among them.

    ``on``: an association that is there; else one is made.
    """
    run.sent(described(level, keys))
    if on is not None:
        association, context = on
        received = find(association, context, level, keys)
        return received, identifiers(received, context)
    with run.query() as (association, context):
        received = find(association, context, level, keys)
        return received, identifiers(received, context)


def ask(run: Run, level: Level, keys: Mapping[str, object]) -> list[Dataset]:
    """C-FIND on an association of its own: the matches, of a query that has to end with Success."""
    received, found = answers(run, level, keys)
    expect_success(run, received)
    return found


@contextmanager
def negotiated_options(
    run: Run, *, relational: bool = False, combined: bool = False
) -> Iterator[tuple[Association, NegotiatedContext]]:
    """An association with these options agreed; not applicable where the peer does not (PS3.4 C.5.1.1)."""
    options = bytes((relational, combined))
    with run.query((extended_negotiation(run.sop_class, options),)) as (association, context):
        assert association.accepted is not None
        answer = association.accepted.extended_negotiation.get(run.sop_class, b"")
        if any(
            wanted and answer[index : index + 1] != b"\1" for index, wanted in enumerate(options)
        ):
            run.not_applicable("the option is not agreed in the extended negotiation")
        yield association, context


def described(level: Level | str, keys: Mapping[str, object]) -> str:
    """A C-FIND request in words."""
    name = level if isinstance(level, str) else level.name
    asked = ", ".join(
        f"{keyword}={'' if value is None else value}" for keyword, value in keys.items()
    )
    return f"C-FIND-RQ, level {name}: {asked}"


def identifiers(received: Iterable[Message], context: NegotiatedContext) -> list[Dataset]:
    """The Identifiers of the pending responses."""
    return [
        message.data_set(context.transfer_syntax)
        for message in received
        if message.status in PENDING_STATUSES
    ]


def expect_success(run: Run, received: Sequence[Message]) -> None:
    """A query that can be processed ends with Success (PS3.4 C.4.1.3.1)."""
    final = received[-1]
    run.expect(
        final.status == 0x0000,
        "final status 0x0000, Success",
        f"final status {hexadecimal(final.status)} {final.comment}".rstrip(),
    )


def hexadecimal(status: int | None) -> str:
    """A status as the Standard writes it."""
    return "missing" if status is None else f"{status:#06x}"


def text(data_set: Dataset, keyword: str) -> str:
    """An Attribute as text without padding; empty where it is missing or has no value."""
    value = data_set.get(keyword)
    if value is None:
        return ""
    if isinstance(value, MultiValue):
        return "\\".join(str(one).strip(" \0") for one in value)
    return str(value).strip(" \0")


def expect_values(
    run: Run,
    matches: Sequence[Dataset],
    keyword: str,
    wanted: Iterable[str],
    *,
    allowed: Collection[str] = (),
    once: bool = False,
) -> None:
    """Each wanted value comes, ``once`` if so said, and nothing else does but what is ``allowed``."""
    expected = sorted(wanted)
    came = sorted(text(one, keyword) for one in matches)
    if not once:
        came = sorted(set(came))
    run.expect(
        [value for value in came if value not in allowed] == expected,
        f"{keyword}: {_listed(expected)}",
        f"{keyword}: {_listed(came)}",
    )


def _listed(values: Sequence[str]) -> str:
    if not values:
        return "no match"
    more = f" and {len(values) - _MOST_NAMED} more" if len(values) > _MOST_NAMED else ""
    return ", ".join(repr(value) for value in values[:_MOST_NAMED]) + more
