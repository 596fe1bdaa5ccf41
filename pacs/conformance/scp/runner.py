"""Runs the checks against a peer: negotiates what it offers, prepares the sample, judges."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydicom.uid import generate_uid

import pacs.conformance.scp.checks as _checks  # registers them
from pacs.conformance.judgement import CheckResult, Report, Verdict
from pacs.conformance.scp.check import (
    CHECKS,
    UNCOMPRESSED,
    Check,
    CheckEnded,
    PeerUnderTest,
    Run,
    named_for,
    with_verdict,
)
from pacs.conformance.scp.destination import Destination
from pacs.conformance.scp.operations import TooManyResponses, identifier, responses, start
from pacs.conformance.scp.sample import Sample
from pacs.conformance.wire.association import AssociationEnded, Unreachable
from pacs.conformance.wire.message import MalformedMessage
from pacs.dicom.information_model import (
    QUERY_RETRIEVE_SOP_CLASSES,
    InformationModel,
    Operation,
)
from pacs.dicom.levels import Level

assert _checks

_DESTINATION_UNKNOWN = 0xA801


@dataclass(frozen=True)
class Offer:
    """What the peer accepts of Query/Retrieve, and who it says it is."""

    services: frozenset[tuple[InformationModel, Operation]]
    implementation_class_uid: str
    implementation_version_name: str


@dataclass(frozen=True)
class Bench:
    """What the checks of a run share. ``destination`` is a Move Destination that the peer knows, if there is one."""

    peer: PeerUnderTest
    offer: Offer
    sample: Sample
    destination: Destination | None = None
    #: Whether there is a destination, and the peer does not know it.
    is_unregistered: bool = False


def knows_destination(peer: PeerUnderTest, offer: Offer, title: str) -> bool:
    """Whether the peer does anything but say that it does not know the Move Destination.

    Raises:
        AssociationEnded: it does not answer.
    """
    models = [model for model, operation in offer.services if operation is Operation.MOVE]
    if not models:
        return True
    model = min(models, key=list(InformationModel).index)
    run = Run(peer, CHECKS[0].requirement, Sample(), None, model, Operation.MOVE)
    keys = {
        level.unique_key: str(generate_uid(None)) for level in model.levels if level <= Level.STUDY
    }
    with run.query() as (association, context):
        asked = identifier(Level.STUDY, keys)
        start(association, context, Operation.MOVE, asked, MoveDestination=title)
        return responses(association)[-1].status != _DESTINATION_UNKNOWN


def selected(patterns: Sequence[str], clauses: Sequence[str], *, read_only: bool) -> list[Check]:
    """The checks whose name fits one of the patterns (``find.*``) and whose clause begins with one given."""
    return [
        one
        for one in CHECKS
        if (not patterns or any(fnmatch.fnmatch(one.name, pattern) for pattern in patterns))
        and (not clauses or any(_covers(clause, one.clause) for clause in clauses))
        and (one.is_read_only or not read_only)
    ]


def _covers(asked: str, clause: str) -> bool:
    """Whether a clause is the one asked for or one below it: ``PS3.4 C.4`` covers ``PS3.4 C.4.1.2``."""
    wanted, words = asked.upper().split(), clause.upper().split()
    if len(wanted) > 1 and wanted[0] != words[0]:
        return False
    return wanted[-1] == words[0] or f"{words[-1]}.".startswith(f"{wanted[-1]}.")


def offer_of(peer: PeerUnderTest) -> Offer:
    """Ask the peer which Query/Retrieve SOP Classes it accepts.

    Raises:
        AssociationEnded: it accepts no association.
    """
    run = Run(peer, CHECKS[0].requirement, Sample())
    syntaxes = [(uid, UNCOMPRESSED) for uid in QUERY_RETRIEVE_SOP_CLASSES]
    with run.associate(syntaxes, title="what the peer offers") as association:
        accepted = association.accepted
        assert accepted is not None
        return Offer(
            frozenset(
                QUERY_RETRIEVE_SOP_CLASSES[context.abstract_syntax]
                for context in association.contexts.values()
            ),
            accepted.implementation_class_uid,
            accepted.implementation_version_name,
        )


def run_checks(
    bench: Bench,
    checks: Iterable[Check],
    *,
    on_result: Callable[[CheckResult], None] = lambda _: None,
) -> Report:
    """Run each check, once for each information model it is for, one after the other.

    Ctrl-C ends the run; the report has what came before.
    """
    peer, offer = bench.peer, bench.offer
    report = Report(
        "Conformance of an SCP",
        {
            "peer": f"{peer.called_ae_title}@{peer.host}:{peer.port}",
            "implementation": f"{offer.implementation_version_name} {offer.implementation_class_uid}",
            "sample": bench.sample.description,
        },
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    try:
        for one in checks:
            for model in one.models or (InformationModel.STUDY_ROOT,):
                result = _run(bench, one, model, is_blamed=not report.is_conformant)
                report.results.append(result)
                on_result(result)
    except KeyboardInterrupt:
        return replace(report, is_complete=False)
    return report


def _run(bench: Bench, one: Check, model: InformationModel, *, is_blamed: bool) -> CheckResult:
    destination = bench.destination
    sample = bench.sample.with_levels((Level.PATIENT,) if Level.PATIENT in model.levels else ())
    run = Run(bench.peer, one.requirement, sample, destination, model, one.operation)
    if destination is not None:
        destination.reset()
    started = time.monotonic()
    missing = next(_missing(bench, one, model), None)
    if missing is not None:
        verdict, run.what_was_received = Verdict.NOT_APPLICABLE, missing
    else:
        verdict, run = _judged(one, run, is_blamed=is_blamed)
    if destination is not None and one.needs_destination:
        run.traces.extend(destination.traces)
    return CheckResult(
        named_for(one, model),
        one.title,
        one.clause,
        one.requirement,
        verdict,
        run.what_was_sent,
        run.what_was_expected,
        run.what_was_received,
        time.monotonic() - started,
        tuple(run.traces),
    )


def _missing(bench: Bench, one: Check, model: InformationModel) -> Iterator[str]:
    """Why a check cannot run with this peer."""
    if one.operation is not None and (model, one.operation) not in bench.offer.services:
        yield f"{model.value} {one.operation.value} is not negotiated"
    if one.needs_sample and not bench.sample.is_generated:
        yield "the sample was not stored"
    if one.needs_destination and bench.destination is not None and bench.is_unregistered:
        yield f"the peer does not know the Move Destination {bench.destination.ae_title} (0xA801)"
    if one.needs_destination and bench.destination is None:
        yield "no Move Destination was given that the peer knows (--destination)"


def _judged(one: Check, run: Run, *, is_blamed: bool) -> tuple[Verdict, Run]:
    """The verdict. A peer that is gone is not blamed for it again: what brought it down has failed already."""
    try:
        one.function(run)
    except CheckEnded as ended:
        run.what_was_expected = ended.expected or run.what_was_expected
        run.what_was_received = ended.received
        return ended.verdict, run
    except Unreachable as error:
        verdict, run = _broken(run, str(error))
        return (Verdict.NOT_APPLICABLE if is_blamed else verdict), run
    except (AssociationEnded, MalformedMessage, TooManyResponses) as error:
        return _broken(run, str(error))
    return with_verdict(run)


def _broken(run: Run, received: str) -> tuple[Verdict, Run]:
    run.what_was_expected = run.what_was_expected or "an answer in DICOM"
    run.what_was_received = received
    return Verdict.FAIL, run
