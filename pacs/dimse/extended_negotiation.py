"""SOP Class Extended Negotiation of Query/Retrieve, in both roles (PS3.7 D.3.3.5, PS3.4 C.5.1.1, C.5.2.1, C.5.3.1).

What was agreed on hangs on the association; the handlers of the operations ask for it.
"""

from __future__ import annotations

import logging
from typing import Any

from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from pacs.dicom.information_model import QUERY_RETRIEVE_SOP_CLASSES
from pacs.dicom.query.query_options import (
    BASELINE,
    QueryOptions,
    agreed,
    decode_options,
    encode_options,
)

LOGGER = logging.getLogger(__name__)


def on_sop_class_extended(event: Any, supported: QueryOptions) -> dict[str, bytes]:
    """Handle ``evt.EVT_SOP_EXTENDED``: answer each proposal with as many bytes as it has, at most.

    An older requestor may expect one byte only (PS3.4 C.5.1.1, note). What is proposed for a SOP Class that is
    not Query/Retrieve, or has no presentation context, is not answered, which turns it down.
    """
    assoc = event.assoc
    contexts = assoc.requestor.primitive.presentation_context_definition_list
    proposed_syntaxes = {str(context.abstract_syntax) for context in contexts}
    options: dict[str, QueryOptions] = {}
    answers: dict[str, bytes] = {}
    for uid, field in event.app_info.items():
        sop_class = QUERY_RETRIEVE_SOP_CLASSES.get(str(uid))
        if sop_class is None or str(uid) not in proposed_syntaxes or not field:
            continue
        model, operation = sop_class
        options[str(uid)] = agreed(model, decode_options(operation, field), supported)
        answers[str(uid)] = encode_options(operation, options[str(uid)], len(field))
    assoc.query_options = options
    if options:
        words = sorted({name for one in options.values() for name in one.names})
        LOGGER.debug("%s: extended negotiation: %s", _label(assoc), ", ".join(words) or "nothing")
    return answers


def _label(assoc: Any) -> str:
    return str(getattr(assoc, "label", "association"))


def options_of_request(event: Any) -> QueryOptions:
    """What was agreed on for the SOP Class of a request, on its association."""
    options: dict[str, QueryOptions] = getattr(event.assoc, "query_options", {})
    return options.get(str(event.context.abstract_syntax), BASELINE)


def proposal(sop_class_uid: str, options: QueryOptions) -> list[SOPClassExtendedNegotiation]:
    """The negotiation items with which a requestor proposes ``options``; none if there are none."""
    field = encode_options(QUERY_RETRIEVE_SOP_CLASSES[sop_class_uid][1], options)
    if not field:
        return []
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = sop_class_uid
    item.service_class_application_information = field
    return [item]


def accepted_options(assoc: Any, sop_class_uid: str) -> QueryOptions:
    """What the acceptor of our association agreed to; without an answer, nothing (PS3.4 C.5.1.1)."""
    answers = {str(uid): field for uid, field in assoc.acceptor.sop_class_extended.items()}
    operation = QUERY_RETRIEVE_SOP_CLASSES[sop_class_uid][1]
    return decode_options(operation, answers.get(sop_class_uid) or b"")
