"""What a check is, and what it has to work with.

A check is a function that takes a ``Run`` and returns; it calls ``run.sent`` and ``run.expect`` on the way. To
add one, write it into a module of ``pacs.conformance.scp.checks`` with the decorator ``check``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NoReturn

from pacs.conformance.judgement import Requirement, Verdict
from pacs.conformance.scp.destination import Destination
from pacs.conformance.scp.sample import Sample
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import Association, NegotiatedContext, proposed_contexts
from pacs.conformance.wire.trace import Trace
from pacs.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.dicom.information_model import InformationModel, Operation, sop_class_uid

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
UNCOMPRESSED = (EXPLICIT, IMPLICIT)
VERIFICATION = "1.2.840.10008.1.1"
MAXIMUM_LENGTH_BYTES = 1 << 16


@dataclass(frozen=True)
class PeerUnderTest:
    """The SCP that is judged and how it is called."""

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str
    timeout_seconds: float

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port


class CheckEnded(Exception):
    """A check has its verdict before its end."""

    def __init__(self, verdict: Verdict, expected: str, received: str) -> None:
        super().__init__(received)
        self.verdict, self.expected, self.received = verdict, expected, received


@dataclass(frozen=True)
class Check:
    """One row of ``--list``.

    ``services`` says what the peer must have negotiated: an operation for each information model that the check
    runs with (``models``; empty for a check outside Query/Retrieve). ``needs_sample``: instances of which every
    Attribute is known, so it cannot run read-only. ``needs_destination``: a Move Destination that the peer knows.
    """

    name: str
    title: str
    clause: str
    requirement: Requirement
    function: Callable[[Run], None] = field(repr=False)
    operation: Operation | None = None
    models: tuple[InformationModel, ...] = ()
    needs_sample: bool = False
    needs_destination: bool = False

    @property
    def uses_sample(self) -> bool:
        """Whether it looks for instances, generated or not."""
        return self.needs_sample or self.operation is not None

    @property
    def is_read_only(self) -> bool:
        """Whether it stores nothing and works on whatever the peer has."""
        return not self.needs_sample


@dataclass
class Run:
    """What one check works with, and where it says what it found."""

    peer: PeerUnderTest
    requirement: Requirement
    sample: Sample
    destination: Destination | None = None
    model: InformationModel = InformationModel.STUDY_ROOT
    operation: Operation | None = None
    traces: list[Trace] = field(default_factory=list)
    what_was_sent: str = ""
    what_was_expected: str = ""
    what_was_received: str = ""
    #: What would have been better, and what came instead, where a warning is due.
    warning: tuple[str, str] | None = None

    @property
    def sop_class(self) -> str:
        """The Query/Retrieve SOP Class UID of the check's operation on its information model."""
        assert self.operation is not None
        return sop_class_uid(self.model, self.operation)

    def sent(self, text: str) -> None:
        """Say what is sent, for the report."""
        self.what_was_sent = text

    def expect(self, holds: bool, expected: str, received: str) -> None:
        """Note what the Standard asks for and what came; end the check unless it holds."""
        self.what_was_expected, self.what_was_received = expected, received
        if not holds:
            self.fail(expected, received)

    def fail(self, expected: str, received: str) -> NoReturn:
        """End the check: a "shall" that is not met fails, a "should" or "may" warns.

        Raises:
            CheckEnded: always.
        """
        verdict = Verdict.FAIL if self.requirement is Requirement.SHALL else Verdict.WARNING
        raise CheckEnded(verdict, expected, received)

    def warn(self, expected: str, received: str) -> None:
        """Go on, but end with a warning: it is allowed, and yet peers will stumble over it."""
        self.warning = (expected, received)

    def not_applicable(self, why: str) -> NoReturn:
        """End the check without a verdict on the peer.

        Raises:
            CheckEnded: always.
        """
        raise CheckEnded(Verdict.NOT_APPLICABLE, "", why)

    # Associations

    def connect(self, title: str = "association") -> Association:
        """A transport connection to the peer, recorded; no A-ASSOCIATE-RQ is sent."""
        trace = Trace(title)
        self.traces.append(trace)
        return Association.connect(self.peer.address, trace, self.peer.timeout_seconds)

    def proposal(
        self,
        syntaxes: Sequence[tuple[str, Sequence[str]]],
        user_items: Sequence[pdus.UserItem] = (),
    ) -> pdus.AssociateRequest:
        """The A-ASSOCIATE-RQ for presentation contexts 1, 3, 5 ...; change it with ``dataclasses.replace``."""
        return pdus.AssociateRequest(
            called_ae_title=self.peer.called_ae_title,
            calling_ae_title=self.peer.calling_ae_title,
            user_items=(
                pdus.maximum_length(MAXIMUM_LENGTH_BYTES),
                *pdus.implementation(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME),
                *user_items,
            ),
            contexts=proposed_contexts(syntaxes),
        )

    @contextmanager
    def associate(
        self,
        syntaxes: Sequence[tuple[str, Sequence[str]]],
        user_items: Sequence[pdus.UserItem] = (),
        *,
        title: str = "association",
    ) -> Iterator[Association]:
        """An established association; it is released at the end, and aborted if the check ends early.

        Raises:
            AssociationEnded: the peer does not accept it.
        """
        with self.connect(title) as association:
            association.request(self.proposal(syntaxes, user_items))
            try:
                yield association
            except BaseException:
                if association.is_open:
                    association.abort()
                raise
            if association.is_open:
                association.release()

    @contextmanager
    def query(
        self,
        user_items: Sequence[pdus.UserItem] = (),
        more: Sequence[tuple[str, Sequence[str]]] = (),
    ) -> Iterator[tuple[Association, NegotiatedContext]]:
        """An association with the check's Query/Retrieve SOP Class (and ``more``), and its presentation context."""
        syntaxes = [(self.sop_class, UNCOMPRESSED), *more]
        with self.associate(syntaxes, user_items) as association:
            context = association.context_for(self.sop_class)
            if context is None:
                self.not_applicable(f"{self.model.value} is not negotiated any more")
            yield association, context


#: Every check, in the order of its module; filled by the decorator.
CHECKS: list[Check] = []


def check(
    name: str,
    clause: str,
    title: str,
    requirement: Requirement = Requirement.SHALL,
    *,
    operation: Operation | None = None,
    models: tuple[InformationModel, ...] = (),
    needs_sample: bool = False,
    needs_destination: bool = False,
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register a function as a check.

    ``name`` is dotted, service first (``find.unique-key-missing``); ``title`` completes "The SCP ...".
    """

    def register(function: Callable[[Run], None]) -> Callable[[Run], None]:
        assert all(name != known.name for known in CHECKS), name
        CHECKS.append(
            Check(
                name,
                title,
                clause,
                requirement,
                function,
                operation,
                models,
                needs_sample,
                needs_destination,
            )
        )
        return function

    return register


def named_for(one: Check, model: InformationModel) -> str:
    """The name of a check that runs once for each information model: ``find.cancel[study-root]``."""
    if len(one.models) < 2:
        return one.name
    return f"{one.name}[{model.value.lower().replace(' ', '-').replace('/', '-')}]"


def with_verdict(run: Run) -> tuple[Verdict, Run]:
    """The verdict of a check that reached its end."""
    if run.warning is not None:
        expected, received = run.warning
        return Verdict.WARNING, replace(run, what_was_expected=expected, what_was_received=received)
    return Verdict.PASS, run
