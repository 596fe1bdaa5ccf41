"""One retrieve, by C-MOVE to the tool's destination or by C-GET, and all that is to be seen of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from pacs.conformance.judgement import Requirement
from pacs.conformance.scp.check import UNCOMPRESSED, Run, check
from pacs.conformance.scp.operations import PENDING_STATUSES, identifier, responses, start
from pacs.conformance.scp.sample import SampleInstance, unique
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import Association
from pacs.conformance.wire.message import Message
from pacs.dicom.information_model import InformationModel, Operation
from pacs.dicom.levels import Level

#: The status of the n-th C-STORE sub-operation, from 0; None aborts the association it is on.
Answers = Callable[[int, Message], int | None]
OnPending = Callable[[Association, int, Message], None]
_ROOTS = (InformationModel.PATIENT_ROOT, InformationModel.STUDY_ROOT)
#: The same clauses for C-MOVE and C-GET.
STATUS = {Operation.MOVE: "PS3.4 C.4.2.1.5", Operation.GET: "PS3.4 C.4.3.1.4"}
REMAINING = {Operation.MOVE: "PS3.4 C.4.2.1.6", Operation.GET: "PS3.4 C.4.3.1.5"}
FAILED = {Operation.MOVE: "PS3.4 C.4.2.1.8", Operation.GET: "PS3.4 C.4.3.1.7"}
IDENTIFIER = {Operation.MOVE: "PS3.4 C.4.2.1.4.1", Operation.GET: "PS3.4 C.4.3.1.3.1"}
RESPONSE_IDENTIFIER = {Operation.MOVE: "PS3.4 C.4.2.1.4.2", Operation.GET: "PS3.4 C.4.3.1.3.2"}
SCP_BEHAVIOUR = {Operation.MOVE: "PS3.4 C.4.2.3.1", Operation.GET: "PS3.4 C.4.3.3.1"}
#: A study of more would take long, and would tell no more.
_MOST_INSTANCES = 40


def retrieve_check(
    name: str,
    clauses: Mapping[Operation, str],
    title: str,
    requirement: Requirement = Requirement.SHALL,
    *,
    needs_sample: bool = False,
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register a check for each operation that ``clauses`` has: ``move.NAME`` and ``get.NAME``."""

    def register(function: Callable[[Run], None]) -> Callable[[Run], None]:
        for operation, clause in clauses.items():
            check(
                f"{operation.value.lower()}.{name}",
                clause,
                title,
                requirement,
                operation=operation,
                models=_ROOTS,
                needs_sample=needs_sample,
                needs_destination=operation is Operation.MOVE,
            )(function)
        return function

    return register


@dataclass(frozen=True)
class Retrieved:
    """The responses to one request, the final one apart, and the SOP Instance UIDs that came, in order."""

    pending: tuple[Message, ...]
    final: Message
    instance_uids: tuple[str, ...]
    transfer_syntax: str

    def counter(self, name: str, response: Message | None = None) -> int | None:
        """One of the four numbers of sub-operations of a response, the final one unless given."""
        value = (response or self.final).command.get(f"NumberOf{name}Suboperations")
        return value if isinstance(value, int) else None

    @property
    def failed_uids(self) -> list[str]:
        """The Failed SOP Instance UID List (0008,0058) of the final response; empty without one.

        Raises:
            MalformedMessage: the final response has an Identifier that cannot be decoded.
        """
        if self.final.data is None:
            return []
        listed = self.final.data_set(self.transfer_syntax).get("FailedSOPInstanceUIDList", None)
        if not listed:
            return []
        return [listed] if isinstance(listed, str) else [str(uid) for uid in listed]

    @property
    def status_text(self) -> str:
        """The final status with its counters, for the report."""
        names = ("Remaining", "Completed", "Failed", "Warning")
        counters = [f"{name.lower()} {self.counter(name)}" for name in names]
        comment = f", {self.final.comment!r}" if self.final.comment else ""
        return f"status {_hex(self.final.status)} ({', '.join(counters)}{comment})"


def _hex(status: int | None) -> str:
    return "missing" if status is None else f"0x{status:04X}"


def keys_of(run: Run, level: Level, instances: Sequence[SampleInstance]) -> dict[str, object]:
    """The unique keys of the model's levels down to ``level`` for what these instances have in common."""
    keys: dict[str, object] = {}
    for one in (*run.model.levels_above(level), level):
        values = unique(str(each.attributes.get(one.unique_key, "")) for each in instances)
        keys[one.unique_key] = values[0] if len(values) == 1 else values
    return keys


def target(
    run: Run, level: Level, instances: Sequence[SampleInstance]
) -> tuple[Level, dict[str, object]]:
    """Level and keys of a retrieve of exactly these instances.

    What a stranger's archive has besides those that were found is not known: there they are asked for one by one.
    """
    at = level if run.sample.is_generated else Level.IMAGE
    return at, keys_of(run, at, instances)


def some(run: Run, level: Level, at_least: int = 1) -> list[SampleInstance]:
    """The instances of a patient, study or series of the sample that has so many, and not too many.

    In a stranger's archive they are always of one series: see ``target``.

    Raises:
        CheckEnded: there is none.
    """
    whole = level if run.sample.is_generated else max(level, Level.SERIES)
    found = [
        group
        for group in run.sample.entities(whole)
        if at_least <= len(group) <= _MOST_INSTANCES and _is_known(group)
    ]
    if not found:
        run.not_applicable(f"no {level.name.lower()} with {at_least} instances is known")
    return min(found, key=len)


def _is_known(group: Sequence[SampleInstance]) -> bool:
    wanted = [level.unique_key for level in Level] + ["SOPClassUID"]
    return all(str(one.attributes.get(keyword, "")) for one in group for keyword in wanted)


def uids(instances: Sequence[SampleInstance]) -> list[str]:
    """Their SOP Instance UIDs, sorted."""
    return sorted(one.sop_instance_uid for one in instances)


def success(_number: int, _request: Message) -> int:
    """Each sub-operation succeeds."""
    return 0x0000


def retrieve(
    run: Run,
    level: Level | str,
    keys: Mapping[str, object],
    answers: Answers = success,
    *,
    instances: Sequence[SampleInstance] = (),
    destination: str = "",
    on_pending: OnPending = lambda *_: None,
) -> Retrieved:
    """One retrieve on an association of its own. ``instances``: those whose SOP Classes C-GET has to propose."""
    request = identifier(level, keys)
    if run.operation is Operation.MOVE:
        return _move(run, request, answers, destination, on_pending)
    return _get(run, request, answers, instances, on_pending)


def _move(
    run: Run, request: Dataset, answers: Answers, destination: str, on_pending: OnPending
) -> Retrieved:
    assert run.destination is not None
    run.destination.behaviour = answers
    title = destination or run.destination.ae_title
    with run.query() as (association, context):
        number = start(association, context, Operation.MOVE, request, MoveDestination=title)
        received = responses(
            association, on_response=lambda one: _pending(association, number, one, on_pending)
        )
    _check_ids(run, number, received)
    came = tuple(
        str(one.request.command.get("AffectedSOPInstanceUID", ""))
        for one in run.destination.received
    )
    return Retrieved(tuple(received[:-1]), received[-1], came, context.transfer_syntax)


def _get(
    run: Run,
    request: Dataset,
    answers: Answers,
    instances: Sequence[SampleInstance],
    on_pending: OnPending,
) -> Retrieved:
    storage = storage_contexts(instances)
    roles = [
        pdus.role_selection(uid, scu=False, scp=True) for uid in unique(one for one, _ in storage)
    ]
    came: list[str] = []

    def on_store(message: Message) -> int | None:
        came.append(str(message.command.get("AffectedSOPInstanceUID", "")))
        return answers(len(came) - 1, message)

    with run.query(roles, storage) as (association, context):
        number = start(association, context, Operation.GET, request)
        received = responses(
            association,
            on_store=on_store,
            on_response=lambda one: _pending(association, number, one, on_pending),
        )
    _check_ids(run, number, received)
    return Retrieved(tuple(received[:-1]), received[-1], tuple(came), context.transfer_syntax)


def storage_contexts(instances: Sequence[SampleInstance]) -> list[tuple[str, tuple[str, ...]]]:
    """A presentation context for each SOP Class and transfer syntax of the instances."""
    pairs = {(one.sop_class_uid, one.transfer_syntax) for one in instances}
    return [
        (sop_class, UNCOMPRESSED if syntax in ("", *UNCOMPRESSED) else (syntax,))
        for sop_class, syntax in sorted(pairs)
    ]


def _pending(
    association: Association, number: int, response: Message, on_pending: OnPending
) -> None:
    if response.status in PENDING_STATUSES:
        on_pending(association, number, response)


def _check_ids(run: Run, number: int, received: Sequence[Message]) -> None:
    for response in received:
        run.expect(
            response.responds_to == number,
            f"Message ID Being Responded To {number} (PS3.7 9.1.4.1.2)",
            f"Message ID Being Responded To {response.responds_to}",
        )
