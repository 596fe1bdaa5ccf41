"""C-FIND: Identifiers that break the rules of the hierarchy (PS3.4 C.4.1.2.1, C.4.1.3.1)."""

from __future__ import annotations

from collections.abc import Mapping

from pacs.conformance.judgement import Requirement
from pacs.conformance.scp.check import Run
from pacs.conformance.scp.operations import PENDING_STATUSES, identifier, responses, start
from pacs.conformance.scp.queries import (
    answers,
    ask,
    described,
    entities,
    entity,
    expect_values,
    find_check,
    hexadecimal,
    lowest_level,
    unique_keys,
)
from pacs.conformance.wire.message import Message
from pacs.dicom.information_model import InformationModel, Operation
from pacs.dicom.levels import Level

_A900 = 0xA900
_NO_SUCH_LEVEL = "SHELF"


def _is_failure(status: int | None) -> bool:
    """A failure of C-FIND: PS3.4 Table C.4-1, or one of PS3.7 C.5 that any service may answer."""
    return status is not None and (
        status in (0xA700, _A900) or 0xC000 <= status <= 0xCFFF or 0x0100 <= status <= 0x02FF
    )


def _expect_refusal(run: Run, received: list[Message]) -> None:
    """No match is made of a query whose level says nothing; Success without a match is doubtful."""
    final = received[-1].status
    came = f"{len(received) - 1} matches, final status {hexadecimal(final)}"
    expected = "a failure status, 0xA900 for one, and no match"
    run.expect(len(received) == 1, expected, came)
    if final == 0x0000:
        run.warn(expected, "status 0x0000, as if the query had been processed, and no match")
        return
    run.expect(_is_failure(final), expected, came)
    run.expect(received[0].data is None, "no Identifier with a failure", "an Identifier with it")


@find_check(
    "level-unknown", "PS3.4 C.4.1.3.1", "fails a query at a level that no information model has"
)
def level_unknown(run: Run) -> None:
    """It is unable to process it."""
    received, _found = answers(run, _NO_SUCH_LEVEL, unique_keys(run, Level.STUDY, entity(run)))
    _expect_refusal(run, received)


@find_check("level-missing", "PS3.4 C.4.1.1.3.1", "fails a query without Query/Retrieve Level")
def level_missing(run: Run) -> None:
    """The Attribute defines what a match is."""
    _expect_refusal(run, _without_level(run, unique_keys(run, Level.STUDY, entity(run))))


def _without_level(run: Run, keys: Mapping[str, object]) -> list[Message]:
    asked = identifier(Level.STUDY, keys)
    del asked.QueryRetrieveLevel
    run.sent(described("(none)", keys))
    with run.query() as (association, context):
        start(association, context, Operation.FIND, asked)
        return responses(association)


@find_check(
    "level-of-another-model",
    "PS3.4 C.4.1.3.1.1",
    "fails a query at a level that its information model does not have",
    models=(InformationModel.STUDY_ROOT, InformationModel.PATIENT_STUDY_ONLY),
)
def level_of_another_model(run: Run) -> None:
    """PATIENT in Study Root, SERIES in Patient/Study Only (PS3.4 C.3.2, C.3.3)."""
    known = entity(run)
    absent = next(level for level in Level if level not in run.model.levels)
    keys: dict[str, object] = {
        level.unique_key: str(known[level.unique_key].value) for level in Level if level <= absent
    }
    received, _found = answers(run, absent, keys)
    _expect_refusal(run, received)


@find_check(
    "unique-key-above-missing",
    "PS3.4 C.4.1.2.1",
    "makes no match without the unique keys above, unless relational queries are negotiated",
    Requirement.SHOULD,
)
def unique_key_above_missing(run: Run) -> None:
    """The request breaks a rule for SCUs; that an SCP may not do more than that is nowhere said outright."""
    level = lowest_level(run)
    known = entity(run)
    received, found = answers(run, level, {level.unique_key: known[level.unique_key].value})
    run.expect(
        not found,
        "0xA900, or no match: relational queries are extended behaviour (PS3.4 C.4.1.3.2)",
        f"{len(found)} matches, final status {hexadecimal(received[-1].status)}",
    )


@find_check(
    "other-parent",
    "PS3.4 C.4.1.3.1.1",
    "finds nothing below an entity that belongs to another one",
)
def other_parent(run: Run) -> None:
    """A unique key of the lowest level, beside that of a parent that is not its own."""
    level = lowest_level(run)
    above = run.model.levels_above(level)[0]
    known = entity(run)
    other = next(
        (
            one
            for one in entities(run, above)
            if one[above.unique_key].value != known[above.unique_key].value
        ),
        None,
    )
    if other is None:
        run.not_applicable("two entities of the top level are needed")
    keys = unique_keys(run, level, known) | {above.unique_key: other[above.unique_key].value}
    expect_values(run, ask(run, level, keys), level.unique_key, [])


@find_check(
    "error-comment", "PS3.7 C.5", "keeps an Error Comment, if it sends one, within 64 characters"
)
def error_comment(run: Run) -> None:
    """It is an LO (PS3.7 E.1)."""
    received, _found = answers(run, _NO_SUCH_LEVEL, unique_keys(run, Level.STUDY, entity(run)))
    final = received[-1]
    if final.status in (0x0000, *PENDING_STATUSES):
        run.not_applicable("the query was not failed")
    if not final.comment:
        run.not_applicable("no Error Comment was sent")
    length = len(final.comment)
    run.expect(length <= 64, "64 characters at most", f"{length} characters")
