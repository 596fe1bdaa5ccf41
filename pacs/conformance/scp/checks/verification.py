"""Verification (PS3.4 Annex A, PS3.7 9.1.5)."""

from __future__ import annotations

from pacs.conformance.scp.check import UNCOMPRESSED, VERIFICATION, Run, check
from pacs.conformance.scp.operations import echo


@check("verification.echo", "PS3.7 9.1.5.1", "answers C-ECHO with Success")
def answers_echo(run: Run) -> None:
    """The one service that each SCP supports."""
    run.sent("C-ECHO-RQ with Message ID 1")
    with run.associate([(VERIFICATION, UNCOMPRESSED)]) as association:
        context = association.context_for(VERIFICATION)
        if context is None:
            run.not_applicable("Verification is not negotiated")
        answer = echo(association, context)
        run.expect(answer.status == 0, "status 0x0000", f"status {answer.status!r}")
        run.expect(
            answer.responds_to == 1,
            "Message ID Being Responded To 1 (PS3.7 9.3.5.2)",
            f"Message ID Being Responded To {answer.responds_to}",
        )
