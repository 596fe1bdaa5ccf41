"""Association negotiation: who is let in, and which presentation contexts are accepted (PS3.8 7.1)."""

from __future__ import annotations

import logging
import ssl
from functools import cache, lru_cache
from typing import Any

from pynetdicom.presentation import PresentationContext, build_context

from pacs.dicom import storage_commitment
from pacs.dicom.information_model import QUERY_RETRIEVE_SOP_CLASSES
from pacs.dicom.sop_classes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    is_storage_sop_class,
)
from pacs.dimse.access import AccessPolicy, Rights
from pacs.dimse.shares import Shares

LOGGER = logging.getLogger(__name__)

VERIFICATION = "1.2.840.10008.1.1"
#: For everything that is not storage, in order of preference.
_MESSAGE_TRANSFER_SYNTAXES = [
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
]
#: PS3.8 9.3.4: rejected-permanent, by the service user, calling AE title not recognised.
_CALLING_AE_NOT_RECOGNISED = (0x01, 0x01, 0x03)
#: PS3.8 9.3.4: rejected-transient, by the service provider (presentation), local limit exceeded.
_LOCAL_LIMIT_EXCEEDED = (0x02, 0x03, 0x02)
#: As the first: application context name not supported. PS3.7 A.2.1 knows one name.
_APPLICATION_CONTEXT_NOT_SUPPORTED = (0x01, 0x01, 0x02)
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
#: What modalities propose is always the same; what a hostile peer makes us remember is bounded.
_MOST_REMEMBERED, _LONGEST_REMEMBERED = 1024, 1024


@cache
def message_contexts() -> tuple[PresentationContext, ...]:
    """The contexts that do not depend on what the peer proposes; negotiation only reads them."""
    syntaxes = [VERIFICATION, storage_commitment.SOP_CLASS_UID, *QUERY_RETRIEVE_SOP_CLASSES]
    return tuple(build_context(syntax, _MESSAGE_TRANSFER_SYNTAXES) for syntax in syntaxes)


def on_requested(event: Any, access: AccessPolicy, shares: Shares) -> None:
    """Handle ``evt.EVT_REQUESTED``: reject a stranger, else support what is proposed for storage."""
    admit(event.assoc, access, shares, event.assoc.ae.processes)


def admit(assoc: Any, access: AccessPolicy, shares: Shares, processes: int) -> None:
    """Reject the association that a stranger asks for; give another one its rights, and contexts for storage."""
    calling_ae = str(assoc.requestor.primitive.calling_ae_title)
    host = str(assoc.requestor.address_info.address)
    with_tls = isinstance(assoc.dul.socket.socket, ssl.SSLSocket)
    application_context = assoc.requestor.primitive.application_context_name
    if application_context not in (None, _APPLICATION_CONTEXT):
        LOGGER.warning(
            "association rejected: %s@%s asks for the application context %s, which is not DICOM's",
            calling_ae,
            host,
            application_context,
        )
        _reject(assoc, _APPLICATION_CONTEXT_NOT_SUPPORTED)
        return
    rights = access.rights_of(calling_ae, host, with_tls=with_tls)
    if rights is None:
        LOGGER.warning("association rejected: %s", access.explain_refusal(calling_ae, host))
        _reject(assoc, _CALLING_AE_NOT_RECOGNISED)
        return
    others = [one for one in assoc.ae.active_associations if one is not assoc]
    refusal = shares.refusal(
        rights,
        filter(None, (getattr(one, "rights", None) for one in others)),
        processes,
    )
    if refusal is not None:
        LOGGER.warning("association rejected: %s: %s of the associations", rights, refusal)
        _reject(assoc, _LOCAL_LIMIT_EXCEEDED)
        return
    assoc.rights = rights
    assoc.label = f"{calling_ae}@{host}"
    proposed = assoc.requestor.primitive.presentation_context_definition_list
    assoc.acceptor.supported_contexts = [*message_contexts(), *storage_contexts(proposed)]


def _reject(assoc: Any, result_source_reason: tuple[int, int, int]) -> None:
    # First, for it counts among the associations no more when the peer reads this and calls again.
    assoc.is_rejected = True
    assoc.acse.send_reject(*result_source_reason)
    assoc.kill()


def storage_contexts(proposed: list[PresentationContext]) -> list[PresentationContext]:
    """Contexts for every storage SOP Class in ``proposed``: standard, retired, private or unknown.

    Every transfer syntax is accepted, since bytes are kept as they come; of several in one context the
    first, which is the peer's preference. Both roles are supported, for C-GET (PS3.7 D.3.3.4).
    """
    syntaxes: dict[str, dict[str, None]] = {}
    for context in proposed:
        abstract_syntax = str(context.abstract_syntax)
        if is_storage_sop_class(abstract_syntax):
            known = syntaxes.setdefault(abstract_syntax, {})
            # The first is the one that is accepted; pynetdicom compares each with all before.
            known[str(context.transfer_syntax[0])] = None
    supported = []
    for abstract_syntax, transfer_syntaxes in syntaxes.items():
        is_usual = sum(map(len, (abstract_syntax, *transfer_syntaxes))) <= _LONGEST_REMEMBERED
        make = _known_storage_context if is_usual else _storage_context
        supported.append(make(abstract_syntax, tuple(transfer_syntaxes)))
    return supported


@lru_cache(maxsize=_MOST_REMEMBERED)
def _known_storage_context(
    abstract_syntax: str, transfer_syntaxes: tuple[str, ...]
) -> PresentationContext:
    """One that all associations share: negotiation only reads it."""
    return _storage_context(abstract_syntax, transfer_syntaxes)


def _storage_context(
    abstract_syntax: str, transfer_syntaxes: tuple[str, ...]
) -> PresentationContext:
    context = build_context(abstract_syntax, list(transfer_syntaxes))
    context.scu_role = context.scp_role = True
    return context


def rights_of(event: Any) -> Rights:
    """The rights of the peer of an event's association, as found when it was negotiated."""
    rights: Rights = event.assoc.rights
    return rights
