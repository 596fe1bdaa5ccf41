"""Verification and Query/Retrieve SCU: what ``pacs echo``, ``pacs find`` and ``pacs move`` send."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_VR, keyword_dict, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pynetdicom.dsutils import encode
from pynetdicom.presentation import build_context

from pacs.dicom.information_model import InformationModel, Operation, sop_class_uid
from pacs.dicom.query.query_options import BASELINE, QueryOptions
from pacs.dicom.query.request_context import request_offset
from pacs.dicom.text.character_sets import UTF_8
from pacs.dimse.ae import Options, make_ae
from pacs.dimse.cancellation import Cancellation
from pacs.dimse.extended_negotiation import accepted_options, proposal
from pacs.dimse.negotiation import VERIFICATION
from pacs.dimse.peer import Peer
from pacs.errors import DestinationUnreachable, InvalidIdentifier, PeerAborted
from pacs.wire.association import EngineAssociation
from pacs.wire.tls import requestor_context

LOGGER = logging.getLogger(__name__)

_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?\Z")
_PENDING_UNSUPPORTED = 0xFF01
_PENDING = (0xFF00, _PENDING_UNSUPPORTED)
#: VRs whose values pydicom does not make from text by itself (PS3.5 6.2).
_NUMBERS: dict[str, type[int | float]] = dict.fromkeys(
    ("US", "SS", "UL", "SL", "UV", "SV"), int
) | dict.fromkeys(("FL", "FD"), float)


@dataclass(frozen=True, slots=True)
class Progress:
    """One response to a C-MOVE."""

    status: int
    comment: str
    remaining: int | None
    completed: int
    failed: int
    warning: int
    failed_uids: tuple[str, ...] = ()
    #: Whether anything matched; None as long as the peer has not said.
    matched: bool | None = None


def identifier(level: str, keys: Mapping[str, str]) -> Dataset:
    """Make an Identifier; a key is a keyword or a tag such as ``0010,0020``.

    Raises:
        InvalidIdentifier: a key is not in the data dictionary, or a value does not fit it.
    """
    dataset = Dataset()
    dataset.QueryRetrieveLevel = level
    # Names and descriptions typed at a terminal are Unicode.
    if any(not value.isascii() for value in keys.values()):
        dataset.SpecificCharacterSet = UTF_8
    for key, value in keys.items():
        keyword = keyword_of(key)
        tag = tag_of(keyword)
        try:
            if tag.is_private:
                dataset[tag] = _private(tag, keyword, value)
            elif dictionary_VR(tag) == "UI":
                # Devices make UIDs that the Standard does not allow, and pydicom would warn of.
                uids = _typed(keyword, value)
                dataset[tag] = DataElement(tag, "UI", uids, validation_mode=config.IGNORE)
            else:
                setattr(dataset, keyword, _typed(keyword, value))
        except (ValueError, TypeError) as error:
            raise InvalidIdentifier(f"{keyword}: {error}") from error
        if encode(dataset, is_implicit_vr=False, is_little_endian=True) is None:
            raise InvalidIdentifier(f"{keyword} cannot have the value {value!r}")
    return dataset


def _typed(keyword: str, value: str) -> Any:
    """What pydicom wants for a value typed at a terminal."""
    if not value:
        return None
    number = _NUMBERS.get(dictionary_VR(keyword).split(" or ")[0], str)
    values = [number(part) for part in value.split("\\")]
    return values if len(values) > 1 else values[0]


def _private(tag: BaseTag, name: str, value: str) -> DataElement:
    if tag.is_private_creator:
        return DataElement(tag, "LO", value)
    if value:
        # Its VR, which the value would need, is known to the vendor.
        raise InvalidIdentifier(f"{name} is private: only its Private Creator can have a value")
    return DataElement(tag, "UN", None)


def keyword_of(key: str) -> str:
    """The keyword of an Attribute that is named by its keyword or tag; of a private one the tag, ``0009,1001``.

    Raises:
        InvalidIdentifier: the data dictionary does not have it.
    """
    match = _TAG.match(key)
    if match and (tag := Tag(int(match[1] + match[2], 16))).is_private:
        return f"{tag.group:04X},{tag.element:04X}"
    keyword = keyword_for_tag(tag) if match else key
    if not keyword or tag_for_keyword(keyword) is None:
        folded = {known.casefold(): known for known in keyword_dict}
        near = get_close_matches(key.casefold(), folded, n=3, cutoff=0.8)
        hint = f"; did you mean {' or '.join(folded[one] for one in near)}?" if near else ""
        raise InvalidIdentifier(f"{key!r} is not an Attribute of the data dictionary{hint}")
    return keyword


def tag_of(keyword: str) -> BaseTag:
    """The tag of what ``keyword_of`` returns."""
    return Tag(keyword.replace(",", "")) if "," in keyword else Tag(keyword)


def set_timezone(query: Dataset, offset: str) -> None:
    """Put the keys of a query into the time zone of an offset from UTC (PS3.4 C.4.1.1.3.1).

    Raises:
        InvalidIdentifier: it is none.
    """
    query.TimezoneOffsetFromUTC = offset
    if not request_offset(query):
        raise InvalidIdentifier("TimezoneOffsetFromUTC (0008,0201) has no value")


def echo(options: Options, peer: Peer) -> None:
    """Send a C-ECHO.

    Raises:
        DestinationUnreachable: no association.
        PeerAborted: the peer answered with a failure, or not at all.
    """
    assoc = _associate(options, peer, VERIFICATION)
    try:
        status = assoc.send_c_echo()
        if status.get("Status") != 0x0000:
            raise PeerAborted(f"{peer} {_described(status)}")
    finally:
        assoc.release()


def find(
    options: Options,
    peer: Peer,
    model: InformationModel,
    query: Dataset,
    extended: QueryOptions = BASELINE,
) -> Iterator[Dataset]:
    """Send a C-FIND and yield the Identifier of each match.

    ``extended`` is proposed to the peer (PS3.4 C.5.1.1); what it turns down is logged as a warning, and so are
    keys that it does not support. A time zone is sent only to a peer that adjusts to it: others might take it
    for a key.

    Raises:
        DestinationUnreachable: no association, or ``extended`` asks for relational queries and the
            peer does not do them.
        PeerAborted: the peer ended the query with a failure.
    """
    uid = sop_class_uid(model, Operation.FIND)
    assoc = _associate(options, peer, uid, extended)
    statuses = set()
    if extended.timezone and not accepted_options(assoc, uid).timezone:
        query = copy(query)
        del query.TimezoneOffsetFromUTC
    try:
        for status, match in assoc.send_c_find(query, uid):
            statuses.add(status.get("Status"))
            if status.get("Status") in _PENDING and match is not None:
                yield match
            elif status.get("Status") != 0x0000:
                raise PeerAborted(f"{peer} {_described(status)}")
        if _PENDING_UNSUPPORTED in statuses:
            LOGGER.warning(
                "%s does not support some of the keys, or not for matching (0xFF01)", peer
            )
    finally:
        assoc.release()


def move(
    options: Options,
    peer: Peer,
    model: InformationModel,
    query: Dataset,
    destination: str,
    extended: QueryOptions = BASELINE,
    cancellation: Cancellation | None = None,
) -> Iterator[Progress]:
    """Send a C-MOVE and yield each response, the final one last; ``cancellation`` can end it early.

    ``extended`` is proposed to the peer (PS3.4 C.5.2.1).

    Raises:
        DestinationUnreachable: no association with ``peer``, or it does no relational retrieve
            though ``extended`` asks for it.
        PeerAborted: the peer ended the association without a final response.
    """
    uid = sop_class_uid(model, Operation.MOVE)
    assoc = _associate(options, peer, uid, extended)
    try:
        matched: bool | None = None
        responses = assoc.send_c_move(query, destination, uid)
        if cancellation is not None:
            cancellation.applies_to(assoc, uid)
        for status, failed in responses:
            if "Status" not in status:
                raise PeerAborted(f"{peer} gave no final response")
            progress = _progress(status, failed)
            matched = matched or progress.matched
            yield replace(progress, matched=matched)
    except KeyboardInterrupt:
        # The request may be half sent, and nobody would wait for the rest of its responses.
        assoc.abort()
        raise
    finally:
        if cancellation is not None:
            cancellation.is_over()
        assoc.release()


def _progress(status: Dataset, failed: Dataset | None) -> Progress:
    uids: Any = None if failed is None else failed.get("FailedSOPInstanceUIDList")
    if isinstance(uids, bytes):  # UN, as a long list of them is in explicit VR (PS3.5 6.2.2)
        uids = uids.rstrip(b"\0").decode("ascii", "replace").split("\\")
    listed = () if not uids else (uids,) if isinstance(uids, str) else tuple(uids)
    remaining, completed, failed_ones, warning = (
        status.get(f"NumberOf{name}Suboperations")
        for name in ("Remaining", "Completed", "Failed", "Warning")
    )
    counts = [count for count in (remaining, completed, failed_ones, warning) if count is not None]
    return Progress(
        status=int(status.Status),
        comment=str(status.get("ErrorComment") or ""),
        remaining=remaining,
        completed=int(completed or 0),
        failed=int(failed_ones or 0),
        warning=int(warning or 0),
        failed_uids=tuple(map(str, listed)),
        matched=any(counts) if counts else None,
    )


def _associate(
    options: Options, peer: Peer, abstract_syntax: str, extended: QueryOptions = BASELINE
) -> EngineAssociation:
    ae = make_ae(options)
    contexts = [build_context(abstract_syntax)]
    tls_args = (requestor_context(options.tls), peer.host) if peer.tls else None
    assoc = ae.associate(
        peer.host,
        peer.port,
        contexts=contexts,
        ae_title=peer.title,
        ext_neg=proposal(abstract_syntax, extended) if extended.names else None,
        tls_args=tls_args,
    )
    if assoc.is_established:
        _check_accepted(assoc, peer, abstract_syntax, extended)
        return assoc
    if assoc.is_rejected:
        raise DestinationUnreachable(f"{peer} rejected the association: {assoc.rejection}")
    if assoc.rejected_contexts:
        raise DestinationUnreachable(f"{peer} does not support the service")
    reason = assoc.connect_error or "the peer ended the connection or did not answer"
    raise DestinationUnreachable(f"no association with {peer}: {reason}")


def _check_accepted(
    assoc: EngineAssociation, peer: Peer, abstract_syntax: str, extended: QueryOptions
) -> None:
    if not extended.names:
        return
    accepted = accepted_options(assoc, abstract_syntax)
    if extended.relational and not accepted.relational:
        # Without it only a hierarchical request may be sent (PS3.4 C.4.1.2.2, C.4.2.2.2).
        assoc.release()
        raise DestinationUnreachable(f"{peer} does not support relational queries and retrieval")
    refused = [name for name in extended.names if name not in accepted.names]
    if refused:
        LOGGER.warning("%s does not support: %s", peer, ", ".join(refused))


def _described(status: Dataset) -> str:
    if "Status" not in status:
        return "ended the association without a response"
    comment = status.get("ErrorComment")
    return f"answered 0x{status.Status:04X}" + (f": {comment}" if comment else "")
