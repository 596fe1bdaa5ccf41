"""Association establishment and release (PS3.8 7.1, 7.2, 9.3; PS3.7 Annex D)."""

from __future__ import annotations

from dataclasses import replace

from pacs.conformance.judgement import Requirement
from pacs.conformance.scp.check import EXPLICIT, IMPLICIT, UNCOMPRESSED, VERIFICATION, Run, check
from pacs.conformance.scp.operations import echo
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import Association, AssociationEnded, Rejected
from pacs.conformance.wire.message import CommandField, request

#: A transfer syntax names no SOP Class. (An archive may well take any other UID for a private Storage SOP Class.)
_NO_ABSTRACT_SYNTAX = "1.2.840.10008.1.2"
#: Nothing has these UIDs.
_UNKNOWN_NAME = "1.2.826.0.1.3680043.10.1739.99.1"
_UNKNOWN_TRANSFER_SYNTAX = "1.2.826.0.1.3680043.10.1739.99.2"
_UNKNOWN_USER_ITEM = 0x5E
_SMALL_PDU_BYTES = 64
_MOST_CONTEXTS = 128


def _answers(
    run: Run, proposal: pdus.AssociateRequest
) -> tuple[Association, dict[int, pdus.AnsweredContext]]:
    """The association, and the answered presentation contexts by their ID."""
    association = run.connect()
    accepted = association.request(proposal)
    return association, {context.context_id: context for context in accepted.contexts}


@check(
    "negotiation.contexts-answered",
    "PS3.8 9.3.3.2",
    "answers each proposed presentation context once, and no other",
)
def each_context_is_answered(run: Run) -> None:
    """Verification with either syntax, and two contexts that nobody can accept."""
    run.sent("A-ASSOCIATE-RQ with presentation contexts 1, 3, 5 and 7")
    proposal = run.proposal(
        [
            (VERIFICATION, (IMPLICIT,)),
            (VERIFICATION, (EXPLICIT,)),
            (_NO_ABSTRACT_SYNTAX, (IMPLICIT,)),
            (VERIFICATION, (_UNKNOWN_TRANSFER_SYNTAX,)),
        ]
    )
    with run.connect() as association:
        accepted = association.request(proposal)
        answered = [context.context_id for context in accepted.contexts]
        run.expect(
            sorted(answered) == [1, 3, 5, 7],
            "an answer to each of the contexts 1, 3, 5 and 7",
            f"answers to the contexts {answered}",
        )
        association.release()


@check(
    "negotiation.abstract-syntax-unknown",
    "PS3.8 9.3.3.2",
    "does not accept an abstract syntax that is none",
)
def unknown_abstract_syntax(run: Run) -> None:
    """Result 3 says why; another refusal is allowed to say less."""
    run.sent("A-ASSOCIATE-RQ for Verification and for a UID that names a transfer syntax")
    proposal = run.proposal([(VERIFICATION, UNCOMPRESSED), (_NO_ABSTRACT_SYNTAX, UNCOMPRESSED)])
    association, answers = _answers(run, proposal)
    with association:
        result = answers[3].result if 3 in answers else None
        run.expect(result != 0, "context 3 refused", "context 3 accepted")
        if result not in (3, None):
            run.warn(
                "context 3 refused with result 3",
                f"refused with result {result}, though the abstract syntax is not supported",
            )
        association.release()


@check(
    "negotiation.transfer-syntax-unknown",
    "PS3.8 9.3.3.2",
    "does not accept a presentation context none of whose transfer syntaxes exist",
)
def unknown_transfer_syntax(run: Run) -> None:
    """Result 4 says why."""
    run.sent(f"A-ASSOCIATE-RQ for Verification with transfer syntax {_UNKNOWN_TRANSFER_SYNTAX}")
    proposal = run.proposal(
        [(VERIFICATION, UNCOMPRESSED), (VERIFICATION, (_UNKNOWN_TRANSFER_SYNTAX,))]
    )
    association, answers = _answers(run, proposal)
    with association:
        result = answers[3].result if 3 in answers else None
        run.expect(result != 0, "context 3 refused", "context 3 accepted")
        if result not in (4, None):
            run.warn(
                "context 3 refused with result 4",
                f"refused with result {result}, though no transfer syntax is supported",
            )
        association.release()


@check(
    "negotiation.transfer-syntax-proposed",
    "PS3.8 9.3.3.2",
    "chooses a transfer syntax among those proposed for the context",
)
def chosen_syntax_was_proposed(run: Run) -> None:
    """One known syntax behind an unknown one, in either order."""
    run.sent("contexts with one transfer syntax that does not exist and one that each AE supports")
    proposal = run.proposal(
        [
            (VERIFICATION, (_UNKNOWN_TRANSFER_SYNTAX, IMPLICIT)),
            (VERIFICATION, (IMPLICIT, _UNKNOWN_TRANSFER_SYNTAX)),
        ]
    )
    association, answers = _answers(run, proposal)
    with association:
        for context in answers.values():
            run.expect(
                context.result == 0 and context.transfer_syntax == IMPLICIT,
                f"context {context.context_id} accepted with {IMPLICIT} (PS3.5 10.1)",
                f"result {context.result}, transfer syntax {context.transfer_syntax!r}",
            )
        association.release()


@check(
    "negotiation.implicit-vr",
    "PS3.5 10.1",
    "accepts Implicit VR Little Endian for an abstract syntax that it supports",
)
def default_transfer_syntax(run: Run) -> None:
    """The default transfer syntax is supported by each AE."""
    run.sent("Verification with Implicit VR Little Endian alone")
    association, answers = _answers(run, run.proposal([(VERIFICATION, (IMPLICIT,))]))
    with association:
        run.expect(
            answers[1].result == 0, "context 1 accepted", f"context 1: result {answers[1].result}"
        )
        association.release()


@check("negotiation.128-contexts", "PS3.8 9.3.2.2", "answers 128 presentation contexts")
def all_context_ids(run: Run) -> None:
    """The IDs are the odd numbers up to 255, so there are at most 128."""
    run.sent(f"A-ASSOCIATE-RQ with {_MOST_CONTEXTS} presentation contexts for Verification")
    association, answers = _answers(
        run, run.proposal([(VERIFICATION, (IMPLICIT,))] * _MOST_CONTEXTS)
    )
    with association:
        accepted = [number for number, one in answers.items() if one.result == 0]
        run.expect(
            sorted(answers) == list(range(1, 256, 2)),
            "an answer to each of the 128 contexts",
            f"{len(answers)} answers",
        )
        context = association.contexts[max(accepted)]
        answer = echo(association, context)
        run.expect(
            answer.status == 0 and answer.context_id == context.context_id,
            f"C-ECHO on context {context.context_id} is answered there",
            f"status {answer.status} on context {answer.context_id}",
        )
        association.release()


@check(
    "negotiation.titles-returned",
    "PS3.8 9.3.3",
    "returns the AE titles of the request in its acceptance",
    Requirement.SHOULD,
)
def titles_are_returned(run: Run) -> None:
    """Their value is not tested when received; they are reserved with the value of the request."""
    run.sent("A-ASSOCIATE-RQ")
    with run.connect() as association:
        accepted = association.request(run.proposal([(VERIFICATION, UNCOMPRESSED)]))
        received = accepted.called_ae_title, accepted.calling_ae_title
        asked = run.peer.called_ae_title, run.peer.calling_ae_title
        run.expect(received == asked, f"called and calling {asked}", f"{received}")
        association.release()


@check(
    "negotiation.application-context-returned",
    "PS3.8 9.3.3",
    "names the DICOM Application Context in its acceptance",
)
def application_context_is_returned(run: Run) -> None:
    """PS3.7 A.2.1 has but one."""
    run.sent("A-ASSOCIATE-RQ")
    with run.connect() as association:
        accepted = association.request(run.proposal([(VERIFICATION, UNCOMPRESSED)]))
        run.expect(
            accepted.application_context == pdus.APPLICATION_CONTEXT,
            pdus.APPLICATION_CONTEXT,
            repr(accepted.application_context),
        )
        association.release()


@check(
    "negotiation.application-context-unknown",
    "PS3.8 9.3.4",
    "rejects an Application Context Name that it does not support",
    Requirement.SHOULD,
)
def unknown_application_context(run: Run) -> None:
    """Source 1, reason 2; nothing but DICOM's own context can be meant."""
    run.sent(f"A-ASSOCIATE-RQ with application context {_UNKNOWN_NAME}")
    proposal = replace(
        run.proposal([(VERIFICATION, UNCOMPRESSED)]), application_context=_UNKNOWN_NAME
    )
    with run.connect() as association:
        try:
            association.request(proposal)
        except Rejected as rejected:
            reject = rejected.reject
            run.expect(
                (reject.source, reject.reason) == (1, 2),
                "source 1, reason 2 (application context name not supported)",
                f"source {reject.source}, reason {reject.reason}",
            )
            return
        association.abort()
        run.fail("A-ASSOCIATE-RJ with source 1, reason 2", "the association was accepted")


@check(
    "negotiation.implementation-identified",
    "PS3.7 D.3.3.2.2",
    "sends its Implementation Class UID in the acceptance",
)
def implementation_is_identified(run: Run) -> None:
    """The version name is optional."""
    run.sent("A-ASSOCIATE-RQ")
    with run.connect() as association:
        accepted = association.request(run.proposal([(VERIFICATION, UNCOMPRESSED)]))
        run.expect(
            bool(accepted.implementation_class_uid),
            "an Implementation Class UID",
            accepted.implementation_class_uid or "none",
        )
        association.release()


@check(
    "negotiation.maximum-length-announced",
    "PS3.8 D.1.1",
    "sends the maximum length item in the acceptance",
)
def maximum_length_is_announced(run: Run) -> None:
    """It may announce 0, no limit."""
    run.sent("A-ASSOCIATE-RQ")
    with run.connect() as association:
        accepted = association.request(run.proposal([(VERIFICATION, UNCOMPRESSED)]))
        items = [item for item in accepted.user_items if item.item_type == 0x51]
        run.expect(len(items) == 1, "one maximum length item", f"{len(items)} of them")
        association.release()


@check(
    "negotiation.maximum-length-kept",
    "PS3.8 D.1.1",
    f"sends no P-DATA-TF PDU that is longer than the {_SMALL_PDU_BYTES} bytes we announce",
)
def maximum_length_is_kept(run: Run) -> None:
    """The length counts the variable field: all behind the six bytes of the PDU header."""
    run.sent(f"A-ASSOCIATE-RQ with maximum length {_SMALL_PDU_BYTES}, then C-ECHO-RQ")
    proposal = run.proposal([(VERIFICATION, UNCOMPRESSED)])
    small = pdus.maximum_length(_SMALL_PDU_BYTES)
    with run.connect() as association:
        association.request(replace(proposal, user_items=(small, *proposal.user_items[1:])))
        association.send(request(CommandField.C_ECHO_RQ, 1, 1, VERIFICATION))
        is_last = False
        while not is_last:
            received = association.receive_pdu()
            if not isinstance(received, pdus.PData):
                run.fail("P-DATA-TF", f"PDU type {received.pdu_type:#04x}")
            length = len(received.body())
            run.expect(
                length <= _SMALL_PDU_BYTES,
                f"P-DATA-TF of at most {_SMALL_PDU_BYTES} bytes",
                f"one of {length} bytes",
            )
            is_last = any(value.is_last for value in received.values)
        association.release()


@check(
    "negotiation.maximum-length-unlimited",
    "PS3.8 D.1.1",
    "accepts an association whose requestor announces no limit of the PDU length",
)
def unlimited_length(run: Run) -> None:
    """Zero is no limit."""
    run.sent("A-ASSOCIATE-RQ with maximum length 0, then C-ECHO-RQ")
    proposal = run.proposal([(VERIFICATION, UNCOMPRESSED)])
    with run.connect() as association:
        association.request(
            replace(proposal, user_items=(pdus.maximum_length(0), *proposal.user_items[1:]))
        )
        answer = echo(association, association.contexts[1])
        run.expect(answer.status == 0, "status 0x0000", f"status {answer.status}")
        association.release()


@check(
    "negotiation.user-item-unknown",
    "PS3.8 9.3.1",
    "ignores a user information sub-item that it does not know",
)
def unknown_user_item(run: Run) -> None:
    """Items of types that the Standard does not define are skipped."""
    run.sent(f"A-ASSOCIATE-RQ with a user information sub-item of type {_UNKNOWN_USER_ITEM:#04x}")
    item = pdus.UserItem(_UNKNOWN_USER_ITEM, b"of another edition")
    try:
        with run.associate([(VERIFICATION, UNCOMPRESSED)], [item]) as association:
            answer = echo(association, association.contexts[1])
            run.expect(answer.status == 0, "status 0x0000", f"status {answer.status}")
    except AssociationEnded as error:
        run.fail("an association as without the sub-item", str(error))


@check(
    "negotiation.asynchronous-window",
    "PS3.7 D.3.3.3",
    "answers an asynchronous operations window with none that is wider",
)
def asynchronous_window(run: Run) -> None:
    """No answer means that operations are synchronous."""
    run.sent("A-ASSOCIATE-RQ that offers to invoke 4 operations at once and perform 1")
    window = pdus.asynchronous_operations(4, 1)
    with run.connect() as association:
        accepted = association.request(run.proposal([(VERIFICATION, UNCOMPRESSED)], [window]))
        for item in accepted.items_of(0x53):
            invoked = int.from_bytes(item.content[:2], "big")
            performed = int.from_bytes(item.content[2:4], "big")
            run.expect(
                1 <= invoked <= 4 and performed == 1,
                "1 to 4 operations invoked, 1 performed",
                f"{invoked} invoked, {performed} performed",
            )
        association.release()


@check(
    "negotiation.extended-not-proposed",
    "PS3.7 D.3.3.5.2",
    "answers no SOP Class Extended Negotiation that was not proposed",
)
def extended_negotiation_is_not_volunteered(run: Run) -> None:
    """An acceptor's item answers one of the requestor's."""
    run.sent("A-ASSOCIATE-RQ without SOP Class Extended Negotiation")
    with run.connect() as association:
        accepted = association.request(run.proposal([(VERIFICATION, UNCOMPRESSED)]))
        answered = accepted.extended_negotiation
        run.expect(not answered, "no such item", f"items for {', '.join(answered)}")
        association.release()


@check("negotiation.release", "PS3.8 7.2.2", "answers A-RELEASE-RQ with A-RELEASE-RP")
def release_is_answered(run: Run) -> None:
    """Whether or not anything was asked in between."""
    run.sent("A-ASSOCIATE-RQ, then A-RELEASE-RQ")
    with run.connect() as association:
        association.request(run.proposal([(VERIFICATION, UNCOMPRESSED)]))
        association.send_pdu(pdus.ReleaseRequest())
        answer = association.receive_pdu()
        run.expect(
            isinstance(answer, pdus.ReleaseResponse),
            "A-RELEASE-RP",
            f"PDU type {answer.pdu_type:#04x}",
        )


@check(
    "negotiation.second-association",
    "PS3.8 7.1",
    "accepts a second association while the first is open",
    Requirement.MAY,
)
def two_associations(run: Run) -> None:
    """An archive that serves one at a time lets its peers wait."""
    run.sent("two A-ASSOCIATE-RQ, then C-ECHO-RQ on each")
    with (
        run.associate([(VERIFICATION, UNCOMPRESSED)]) as first,
        run.associate([(VERIFICATION, UNCOMPRESSED)], title="second association") as second,
    ):
        for association in (second, first):
            answer = echo(association, association.contexts[1])
            run.expect(answer.status == 0, "status 0x0000 on both", f"status {answer.status}")
