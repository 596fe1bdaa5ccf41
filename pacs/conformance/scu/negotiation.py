"""The answer to an A-ASSOCIATE-RQ: what is right, and what rules make of it."""

from __future__ import annotations

from collections.abc import Sequence

from pacs.conformance.scu.rules import Rule
from pacs.conformance.wire import pdu as pdus
from pacs.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.dicom.information_model import QUERY_RETRIEVE_SOP_CLASSES
from pacs.dicom.query.query_options import (
    BASELINE,
    SUPPORTED,
    QueryOptions,
    agreed,
    decode_options,
    encode_options,
)
from pacs.dicom.sop_classes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    is_storage_sop_class,
)

VERIFICATION = "1.2.840.10008.1.1"
_MAXIMUM_LENGTH_BYTES = 1 << 16
_MESSAGE_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


def answer_to(asked: pdus.AssociateRequest, rules: Sequence[Rule]) -> pdus.AssociateAccept:
    """The A-ASSOCIATE-AC."""
    lengths = [rule.maximum_length for rule in rules if rule.maximum_length is not None]
    contexts = [_answered(context, rules) for context in asked.contexts]
    left_out = {number for rule in rules for number in rule.without_items}
    unanswered = {number for rule in rules for number in rule.unanswered}
    names = [rule.application_context for rule in rules if rule.application_context is not None]
    titles = asked.called_ae_title, asked.calling_ae_title
    if any(rule.other_titles for rule in rules):
        titles = ("SOMEBODY", "ELSE")
    items = (
        pdus.maximum_length((lengths or [_MAXIMUM_LENGTH_BYTES])[0]),
        *pdus.implementation(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME),
        *_roles(asked),
        *_extended(asked),
    )
    return pdus.AssociateAccept(
        *titles,
        tuple(item for item in items if item.item_type not in left_out),
        (names or [pdus.APPLICATION_CONTEXT])[0],
        contexts=tuple(one for one in contexts if one.context_id not in unanswered),
    )


def _answered(context: pdus.ProposedContext, rules: Sequence[Rule]) -> pdus.AnsweredContext:
    refused = {syntax for rule in rules for syntax in rule.refuse}
    result = (rule.refuse_result for rule in rules if rule.refuse)
    if refused & {context.abstract_syntax, "*"}:
        return pdus.AnsweredContext(context.context_id, next(result), "")
    is_unknown = not _is_supported(context.abstract_syntax)
    if is_unknown and not any(rule.accept_unknown for rule in rules):
        return pdus.AnsweredContext(context.context_id, pdus.ABSTRACT_SYNTAX_REFUSED, "")
    for rule in rules:
        if rule.transfer_syntax is not None:
            return pdus.AnsweredContext(context.context_id, pdus.ACCEPTANCE, rule.transfer_syntax)
    for syntax in context.transfer_syntaxes:
        if syntax not in refused and (is_unknown or _takes(context.abstract_syntax, syntax)):
            return pdus.AnsweredContext(context.context_id, pdus.ACCEPTANCE, syntax)
    return pdus.AnsweredContext(context.context_id, pdus.TRANSFER_SYNTAXES_REFUSED, "")


def _is_supported(abstract_syntax: str) -> bool:
    return (
        abstract_syntax == VERIFICATION
        or abstract_syntax in QUERY_RETRIEVE_SOP_CLASSES
        or is_storage_sop_class(abstract_syntax)
    )


def _takes(abstract_syntax: str, transfer_syntax: str) -> bool:
    if is_storage_sop_class(abstract_syntax):
        return transfer_syntax.startswith("1.2.840.10008.1.2")
    return transfer_syntax in _MESSAGE_SYNTAXES


def _roles(asked: pdus.AssociateRequest) -> list[pdus.UserItem]:
    return [
        pdus.role_selection(uid, scu=scu, scp=scp)
        for uid, (scu, scp) in asked.roles.items()
        if is_storage_sop_class(uid)
    ]


def _extended(asked: pdus.AssociateRequest) -> list[pdus.UserItem]:
    answers = []
    for uid, information in asked.extended_negotiation.items():
        known = QUERY_RETRIEVE_SOP_CLASSES.get(uid)
        if known is not None and information:
            options = encode_options(known[1], options_of(asked, uid), len(information))
            answers.append(pdus.extended_negotiation(uid, options))
    return answers


def options_of(asked: pdus.AssociateRequest, sop_class_uid: str) -> QueryOptions:
    """What was agreed on for a Query/Retrieve SOP Class."""
    known = QUERY_RETRIEVE_SOP_CLASSES.get(sop_class_uid)
    information = asked.extended_negotiation.get(sop_class_uid)
    if known is None or not information:
        return BASELINE
    return agreed(known[0], decode_options(known[1], information), SUPPORTED)
