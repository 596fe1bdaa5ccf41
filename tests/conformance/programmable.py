"""A programmable SCP and a bench with our checks around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy

from pacs.conformance.judgement import CheckResult, Verdict
from pacs.conformance.scp.check import UNCOMPRESSED, PeerUnderTest
from pacs.conformance.scp.destination import Destination
from pacs.conformance.scp.preparation import prepared
from pacs.conformance.scp.runner import Bench, offer_of, run_checks, selected
from pacs.conformance.scp.sample import Sample
from pacs.conformance.scu.rules import Rule
from pacs.conformance.scu.server import ProgrammableSCP

_SECONDS = 2.0


class Judge:
    """Runs checks against one programmable SCP, whose rules change from run to run."""

    def __init__(self, scp: ProgrammableSCP, destination: Destination) -> None:
        self._scp = scp
        self._destination = destination
        self._peer = PeerUnderTest("127.0.0.1", scp.port, "FAULTY", "CHECKER", _SECONDS)
        self._offer = offer_of(self._peer)
        self._sample = prepared(self._peer, self._offer.services, read_only=False)

    @property
    def sample(self) -> Sample:
        """What the SCP has."""
        return self._sample

    def spoil_pixels(self) -> None:
        """Have the SCP have other pixel values than were stored."""
        for one in self._sample.instances:
            if "PixelData" in one.attributes and one.transfer_syntax in UNCOMPRESSED:
                changed = deepcopy(one.attributes)
                changed.PixelData = b"\x55" * len(changed.PixelData)
                self._scp.holdings.add(changed, one.transfer_syntax)

    def bad(self, patterns: Sequence[str], *rules: Rule) -> dict[str, CheckResult]:
        """The checks that fail or warn while the rules are in force, by name without the model."""
        self._scp.rules.clear()
        for rule in rules:
            self._scp.rules.add(rule)
        try:
            report = run_checks(
                Bench(self._peer, self._offer, self._sample, self._destination),
                selected(patterns, [], read_only=False),
            )
        finally:
            self._scp.rules.clear()
        return {
            result.name.partition("[")[0]: result
            for result in report.results
            if result.verdict in (Verdict.FAIL, Verdict.WARNING)
        }


@contextmanager
def judging() -> Iterator[Judge]:
    """A judge of a programmable SCP that knows a Move Destination."""
    with (
        Destination("CHECKER_DEST", host="127.0.0.1") as destination,
        ProgrammableSCP(destinations={"CHECKER_DEST": ("127.0.0.1", destination.port)}) as scp,
    ):
        yield Judge(scp, destination)
