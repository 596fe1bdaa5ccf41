"""From a status, a recorded retrieve or a recorded association to its explanations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from pydicom import config
from pydicom.uid import UID

from pacs.explain.endings import explain_ending
from pacs.explain.explanation import Advice, Case, Explanation, Failure, Site
from pacs.explain.statuses import row_of
from pacs.model.associations import (
    AssociationEnding,
    AssociationRecord,
    OperationRecord,
    ProposedContext,
)
from pacs.model.retrieves import (
    RetrieveRecord,
    RetrieveState,
    SubOperationOutcome,
    SubOperationRecord,
)

_IN_ORDER = (0x0000, 0xFF00, 0xFE00)
_MOST_FAILURES = 10
#: PS3.8 Table 9-18.
_CONTEXT_RESULTS = {
    1: "refused by the user",
    2: "refused without a reason",
    3: "SOP Class not supported",
    4: "no transfer syntax supported",
}


def explain_status(case: Case, site: Site) -> Explanation:
    """What an answer means and what to change."""
    row = row_of(case.service, case.status)
    why = [row.why]
    if case.error_comment:
        why.append(f'The Error Comment was: "{case.error_comment}".')
    why.extend(_counted(case))
    why.extend(_failures(case.failures))
    advice = [one for rule in row.rules for one in rule(case, site)]
    for failure in case.failures:
        if failure.status is not None:
            advice.extend(_peers_status(failure, site))
    unique = tuple(dict.fromkeys(advice))
    asked = f": {_asked(case)}" if case.service else ""
    return Explanation(f"{case.status:04X} {row.name}{asked}", tuple(why), unique, row.clause)


def _asked(case: Case) -> str:
    who = case.calling_ae or "the calling AE"
    what = f"{case.service} {case.level}".strip()
    text = f"{who} asked for {what}"
    if case.destination:
        text = f"{who} asked by {what} to move to {case.destination}"
    if case.sop_class_uid and case.service == "C-STORE":
        text = f"{who} sent {_name(case.sop_class_uid)} by {what}"
    return text + (f", {case.times} times" if case.times > 1 else "")


def _counted(case: Case) -> Iterator[str]:
    names = ("completed", "failed", "with a warning", "not tried")
    counted = [
        f"{count} {name}"
        for count, name in zip(case.counts, names, strict=False)
        if count is not None
    ]
    if counted and any(case.counts):
        yield f"Sub-operations: {', '.join(counted)}."
    if case.matches:
        yield f"Matches sent before that: {case.matches}."


def _failures(failures: Iterable[Failure]) -> Iterator[str]:
    for failure in failures:
        status = "no answer" if failure.status is None else f"{failure.status:04X}"
        comment = f" ({failure.comment})" if failure.comment else ""
        yield f"{failure.times} of the instances: {status}{comment}."


def _peers_status(failure: Failure, _site: Site) -> Iterator[Advice]:
    assert failure.status is not None
    if failure.status:
        row = row_of("C-STORE", failure.status)
        yield Advice(
            f"The destination answered {failure.status:04X} ({row.name}): its log says why."
        )


def explain_retrieve(
    record: RetrieveRecord, operations: Iterable[SubOperationRecord], site: Site
) -> Explanation:
    """How a recorded retrieve went."""
    request = record.request
    who = f"{request.calling_ae}@{request.calling_host}"
    service = f"C-{request.service.value.upper()}"
    if record.outcome is None:
        return _unfinished(record, who, service)
    return explain_status(case_of_retrieve(record, operations), site)


def case_of_retrieve(record: RetrieveRecord, operations: Iterable[SubOperationRecord]) -> Case:
    """The answer that ended a recorded retrieve, which has ended."""
    request, outcome = record.request, record.outcome
    assert outcome is not None
    return Case(
        service=f"C-{request.service.value.upper()}",
        status=outcome.status,
        calling_ae=request.calling_ae,
        level=request.level,
        destination=request.destination,
        error_comment=outcome.error_comment,
        counts=(outcome.completed, outcome.failed, outcome.warning, outcome.remaining),
        retrieve=record.key,
        failures=_alike(operations),
    )


def _unfinished(record: RetrieveRecord, who: str, service: str) -> Explanation:
    number = str(record.key)
    show = Advice("What was sent until then:", ("pacs", "retrieve", "show", number))
    if record.state is RetrieveState.RUNNING:
        return Explanation(f"{service} of {who} is still running", (), (show,))
    retry = Advice("To send what is left:", ("pacs", "retrieve", "retry", number))
    return Explanation(
        f"{service} of {who} was interrupted",
        ("The process that carried it out ended first.",),
        (show, retry) if service == "C-MOVE" else (show,),
    )


def _alike(operations: Iterable[SubOperationRecord]) -> tuple[Failure, ...]:
    """The failed and warned sub-operations, those alike together, the most frequent first."""
    counter = Counter(
        (one.status, one.error_comment)
        for one in operations
        if one.outcome is not SubOperationOutcome.COMPLETED
    )
    found = counter.most_common(_MOST_FAILURES)
    return tuple(Failure(status, comment, times) for (status, comment), times in found)


def explain_association(
    record: AssociationRecord, site: Site, retrieves: Mapping[int, Case] | None = None
) -> list[Explanation]:
    """Everything about a recorded association that needs explaining; what went well is one sentence.

    ``retrieves`` are the recorded retrieves of the association by Message ID: more is known of those.
    """
    known = retrieves or {}
    found = [
        explain_status(_case_of(one, record.calling_ae, known.get(one.message_id or -1)), site)
        for one in record.operations
        if one.status not in _IN_ORDER
    ]
    refused = [one for one in record.contexts if one.result]
    if refused and not record.operations and record.ending is AssociationEnding.RELEASED:
        found.append(_explain_refused(record, refused))
    if record.ending is not AssociationEnding.RELEASED or not found:
        found.append(explain_ending(record, site))
    return found


def _case_of(one: OperationRecord, calling_ae: str, recorded: Case | None) -> Case:
    case = Case(
        service=one.service,
        status=one.status,
        calling_ae=calling_ae,
        level=one.level,
        sop_class_uid=one.sop_class_uid,
        destination=one.destination,
        error_comment=one.error_comment,
        offending=one.offending,
        matches=one.matches,
        counts=one.counts,
        times=one.times,
    )
    if recorded is None or (recorded.status, recorded.destination) != (one.status, one.destination):
        return case
    return replace(case, retrieve=recorded.retrieve, failures=recorded.failures)


def _explain_refused(record: AssociationRecord, refused: list[ProposedContext]) -> Explanation:
    lines = [
        f"{_name(one.abstract_syntax)}: {_CONTEXT_RESULTS.get(one.result or 0, 'refused')}"
        f" ({', '.join(_name(uid) for uid in one.transfer_syntaxes)})"
        for one in refused
    ]
    advice = [Advice("Queries and retrievals are messages: propose Implicit or Explicit VR.")]
    if any(one.result == 3 for one in refused):
        advice = [
            Advice("docs/conformance.md lists the SOP Classes that the archive has; propose those.")
        ]
    return Explanation(
        f"{record.calling_ae}@{record.calling_host} released the association without a request: "
        f"{len(refused)} of {len(record.contexts)} presentation contexts were refused",
        tuple(lines),
        tuple(advice),
        "PS3.8 9.3.3.2",
    )


def _name(uid: str) -> str:
    return str(UID(uid, validation_mode=config.IGNORE).name) if uid else "?"
