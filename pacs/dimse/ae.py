"""The archive's application entity: handlers, contexts, timeouts, destinations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pynetdicom import evt
from pynetdicom.presentation import PresentationContext

from pacs.archive.archive import Archive
from pacs.archive.retrieving import Destination
from pacs.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.dicom.query.query_options import SUPPORTED, QueryOptions
from pacs.dicom.text.timezones import LOCAL, zone_named
from pacs.dimse.access import AccessPolicy
from pacs.dimse.commitment_delivery import CommitmentDelivery, RetryPolicy
from pacs.dimse.commitment_scp import handle_action
from pacs.dimse.destinations import GetDestination, MoveDestination
from pacs.dimse.extended_negotiation import on_sop_class_extended
from pacs.dimse.find_scp import handle_find
from pacs.dimse.negotiation import message_contexts, on_requested
from pacs.dimse.parallel import ParallelDestination
from pacs.dimse.remote import RemoteAEs
from pacs.dimse.retrieve_responses import PendingCadence, RetrieveOptions
from pacs.dimse.retrieve_scp import handle_get, handle_move
from pacs.dimse.services import AcceptorServices
from pacs.dimse.shares import Shares
from pacs.dimse.storage_scp import handle_store, open_sink
from pacs.dimse.storage_scu import MoveOriginator
from pacs.dimse.transcode import Conversions
from pacs.dimse.verification_scp import handle_echo
from pacs.wire.ae import EngineAE
from pacs.wire.association import EngineAssociation
from pacs.wire.tls import TLSOptions

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the application entity behaves on the network; times in seconds."""

    ae_title: str = "PACS"
    require_called_ae_title: bool = True
    maximum_associations: int = 100
    #: See ``Shares``.
    maximum_associations_per_host: int = 0
    maximum_associations_per_ae: int = 0
    maximum_pdu_bytes: int = 131_072
    acse_timeout_seconds: float = 30
    dimse_timeout_seconds: float = 60
    network_timeout_seconds: float = 300
    connect_timeout_seconds: float = 10
    find_limit: int = 0
    find_header_limit: int = 0
    retrieve_limit: int = 0
    match_unknown: bool = False
    #: Of instances that do not say theirs (``pacs.dicom.text.timezones.zone_named``).
    timezone: str = LOCAL
    #: What is agreed to when a peer proposes it.
    extended_negotiation: QueryOptions = SUPPORTED
    destination_retries: int = 2
    conversions: Conversions = field(default_factory=Conversions)
    commitment: RetryPolicy = field(default_factory=RetryPolicy)
    pending: PendingCadence = field(default_factory=PendingCadence)
    tls: TLSOptions = field(default_factory=TLSOptions)


def make_ae(options: Options) -> EngineAE:
    """An application entity that can request associations: for the command line and as the base of the SCP."""
    ae = EngineAE(options.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.require_called_aet = options.require_called_ae_title
    ae.maximum_associations = options.maximum_associations
    ae.maximum_pdu_size = options.maximum_pdu_bytes
    ae.acse_timeout = options.acse_timeout_seconds
    ae.dimse_timeout = options.dimse_timeout_seconds
    ae.network_timeout = options.network_timeout_seconds
    ae.connection_timeout = options.connect_timeout_seconds
    ae.supported_contexts = list(message_contexts())
    retrieving = RetrieveOptions(partial(_open_destination, ae, options), options.pending)
    ae.make_services = partial(AcceptorServices, retrieving=retrieving)
    return ae


def handlers(
    archive: Archive,
    remotes: RemoteAEs,
    access: AccessPolicy,
    options: Options,
    commitments: CommitmentDelivery,
) -> list[tuple[Any, Any, list[Any]]]:
    """The event handlers of the SCP on our engine; ``pacs.dimse.stock`` has those for an AE of pynetdicom's."""
    return [
        (evt.EVT_REQUESTED, on_requested, [access, shares_of(options)]),
        (evt.EVT_SOP_EXTENDED, on_sop_class_extended, [options.extended_negotiation]),
        (evt.EVT_C_ECHO, handle_echo, []),
        (evt.EVT_C_STORE, handle_store, []),
        (evt.EVT_C_FIND, handle_find, find_arguments(archive, options)),
        (evt.EVT_C_MOVE, handle_move, [archive, remotes, options.retrieve_limit]),
        (evt.EVT_C_GET, handle_get, [archive, options.retrieve_limit]),
        (evt.EVT_N_ACTION, handle_action, [archive, commitments, options.ae_title]),
    ]


def find_arguments(archive: Archive, options: Options) -> list[Any]:
    """What ``handle_find`` takes beside its event."""
    return [
        archive,
        options.ae_title,
        options.find_limit,
        options.match_unknown,
        options.find_header_limit,
        zone_named(options.timezone),
    ]


def shares_of(options: Options) -> Shares:
    """How the associations are shared out."""
    return Shares(
        options.maximum_associations,
        options.maximum_associations_per_host,
        options.maximum_associations_per_ae,
    )


def sink_opener(archive: Archive) -> Any:
    """What the wire calls to open the sink of a C-STORE request's data set."""
    return partial(open_sink, archive)


def _open_destination(
    ae: EngineAE, options: Options, assoc: EngineAssociation, request: Any, address: Any
) -> Destination:
    if address is None:
        return GetDestination(assoc, int(request.MessageID), request.Priority, options.conversions)
    host, port, *rest = address
    kwargs: dict[str, Any] = {"ae_title": str(request.MoveDestination)}
    kwargs |= rest[0] if rest else {}
    # Move Originator is the AE that sent the C-MOVE, not this one (PS3.7 9.1.1.1.6).
    originator = MoveOriginator(str(assoc.requestor.ae_title), int(request.MessageID))
    return move_destination(
        ae,
        (host, port, kwargs),
        originator=originator,
        priority=request.Priority,
        retries=options.destination_retries,
        is_cancelled=partial(_is_over, assoc, originator.message_id),
        conversions=options.conversions,
    )


def _is_over(assoc: EngineAssociation, message_id: int) -> bool:
    # Nobody waits for the rest of a C-MOVE whose requester has gone.
    return assoc.is_cancelled(message_id) or assoc.peer_is_gone


def move_destination(
    ae: EngineAE,
    address: tuple[str, int, dict[str, Any]],
    *,
    originator: MoveOriginator | None,
    priority: int,
    retries: int,
    is_cancelled: Callable[[], bool],
    conversions: Conversions,
) -> Destination:
    """The Move Destination at a ``retrieve_scp.destination_address``; see ``MoveDestination`` for the others."""
    host, port, given = address
    kwargs = dict(given)
    contexts: list[PresentationContext] = kwargs.pop("contexts", [])
    title = str(kwargs["ae_title"])
    parallel = int(kwargs.pop("parallel_associations", 1))

    def associate(some: list[PresentationContext], bound: Sequence[Any] = ()) -> EngineAssociation:
        return ae.associate(host, port, contexts=some, evt_handlers=bound, **kwargs)

    def destination(
        request_association: Any, is_cancelled: Callable[[], bool], **more: Any
    ) -> MoveDestination:
        return MoveDestination(
            request_association,
            title,
            contexts,
            originator,
            priority,
            retries,
            is_cancelled,
            conversions=conversions,
            **more,
        )

    if parallel == 1:
        return destination(associate, is_cancelled)
    return ParallelDestination(parallel, associate, destination, is_cancelled)
