"""Query/Retrieve MOVE and GET SCP (PS3.4 C.4.2 and C.4.3): what a request asks for, and whether it may.

The handlers of ``evt.EVT_C_MOVE`` and ``evt.EVT_C_GET`` return an :class:`Accepted` or a :class:`Refused` retrieve; it
is carried out and answered by ``pacs.dimse.retrieve_responses`` on our engine, and by ``pacs.dimse.stock`` on an AE of
pynetdicom's.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydicom.dataset import Dataset

from pacs.archive.archive import Archive
from pacs.archive.derive import prepare
from pacs.archive.retrieve import Completed, OutgoingInstance
from pacs.archive.retrieving import Destination, Journal, Retrieving
from pacs.dicom.information_model import model_of
from pacs.dicom.query.identifier import Query
from pacs.dicom.query.instance_retrieve import parse_instance_retrieve
from pacs.dicom.uids import shown_uid
from pacs.dimse.access import Rights
from pacs.dimse.extended_negotiation import options_of_request
from pacs.dimse.negotiation import rights_of
from pacs.dimse.remote import RemoteAEs
from pacs.dimse.request_identifier import identifier_of, level_named, unlogged_identifier_of
from pacs.dimse.status import (
    NOT_CREATED,
    DimseService,
    Status,
    conclusion_of,
    status_dataset,
    status_of,
)
from pacs.dimse.storage_scu import contexts_for
from pacs.errors import PacsError
from pacs.model.remote_ae import RemoteAE, Service
from pacs.model.retrieves import RetrievePlan, RetrieveRequest
from pacs.model.sub_operations import SubOperations

LOGGER = logging.getLogger(__name__)

Address = tuple[str, int, dict[str, Any]]
#: Refusals whose one sub-operation is counted as failed.
_COUNTED_REFUSALS = (Status.UNABLE_TO_PERFORM_SUB_OPERATIONS, *NOT_CREATED)


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that gets no further; it is recorded."""

    status: Dataset
    operations: SubOperations
    failed_uids: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A retrieve that can begin; its record has begun."""

    rights: Rights
    service: DimseService
    #: The Move Destination; empty for C-GET.
    title: str
    #: Where that is, as ``destination_address`` says; None for C-GET.
    address: Address | None
    journal: Journal
    instances: Iterator[OutgoingInstance]
    started: float = field(default_factory=time.monotonic)

    def retrieving(
        self,
        destination: Destination,
        *,
        is_cancelled: Callable[[], bool],
        is_abandoned: Callable[[], bool],
    ) -> Retrieving:
        """The carrying out of it (see ``Retrieving``)."""
        return Retrieving(
            self.journal,
            self.instances,
            destination,
            conclusion_of,
            is_cancelled=is_cancelled,
            is_abandoned=is_abandoned,
        )

    def log_step(self, retrieving: Retrieving, completed: Sequence[Completed]) -> None:
        """Log what went wrong with what was completed; if nothing could be sent at all, the end says so."""
        for instance, outcome in () if retrieving.is_lost else completed:
            if outcome.comment:
                LOGGER.warning(
                    "%s: sub-operation for %s %s: %s",
                    self.rights,
                    shown_uid(instance.sop_instance_uid),
                    outcome.result.value,
                    outcome.comment,
                )

    def log_end(self, retrieving: Retrieving) -> None:
        """Log how it ended."""
        ending, operations = retrieving.ending, retrieving.operations
        if ending is not None and isinstance(ending.error, PacsError):
            LOGGER.log(ending.error.log_level, "%s: %s", self.rights, ending.error.message)
        LOGGER.info(
            "%s: %s%s: %d completed, %d failed, %d warning, %d not tried in %.3f s, status %04X, record %s",
            self.rights,
            self.service.value,
            f" to {self.title}" if self.title else "",
            operations.completed,
            operations.failed,
            operations.warning,
            operations.remaining,
            time.monotonic() - self.started,
            retrieving.status,
            self.journal.key,
        )


def handle_move(
    event: Any, archive: Archive, remotes: RemoteAEs, limit: int = 0
) -> Accepted | Refused:
    """Handle ``evt.EVT_C_MOVE``; with a ``limit``, one of more instances is refused as a whole."""
    title = str(event.request.MoveDestination or "").strip()
    remote = remotes.get(title)
    try:
        rights = rights_of(event)
        rights.require(Service.MOVE)
        rights.require_destination(title)
        query = _parse(event)
        if remote is None:
            return _unknown(event, archive, remotes, title, query)
        prepared = prepare(archive, query, limit)
        address = destination_address(remotes, remote, prepared.plan)
    except PacsError as error:
        return _refuse(event, archive, Service.MOVE, title, error)
    journal = _journal(event, archive, Service.MOVE, title, len(prepared.plan.keys), query)
    return Accepted(
        rights=rights,
        service=DimseService.MOVE,
        title=title,
        address=address,
        journal=journal,
        instances=prepared.instances,
    )


def handle_get(event: Any, archive: Archive, limit: int = 0) -> Accepted | Refused:
    """Handle ``evt.EVT_C_GET``; ``limit`` as for C-MOVE."""
    try:
        rights = rights_of(event)
        rights.require(Service.GET)
        query = _parse(event)
        prepared = prepare(archive, query, limit)
    except PacsError as error:
        return _refuse(event, archive, Service.GET, "", error)
    journal = _journal(event, archive, Service.GET, "", len(prepared.plan.keys), query)
    return Accepted(
        rights=rights,
        service=DimseService.GET,
        title="",
        address=None,
        journal=journal,
        instances=prepared.instances,
    )


def _parse(event: Any) -> Query:
    model = model_of(str(event.request.AffectedSOPClassUID))
    return parse_instance_retrieve(identifier_of(event), model, options_of_request(event))


def destination_address(
    remotes: RemoteAEs, remote: RemoteAE, retrieve_plan: RetrievePlan
) -> Address:
    """Where a plan is sent: host, port, and what ``AE.associate`` takes; beyond that, ``parallel_associations``.

    Raises:
        InvalidSetting: a file that TLS needs cannot be used.
    """
    kwargs: dict[str, Any] = {"ae_title": remote.title, "tls_args": remotes.tls_args(remote)}
    contexts = contexts_for(retrieve_plan.contexts)
    # Not more associations than there are instances.
    kwargs["parallel_associations"] = min(
        remote.parallel_associations, max(1, len(retrieve_plan.keys))
    )
    if contexts:
        kwargs["contexts"] = contexts
    return remote.host, remote.port, kwargs


def _unknown(event: Any, archive: Archive, remotes: RemoteAEs, title: str, query: Query) -> Refused:
    LOGGER.warning(
        "%s: Move Destination %r is not known (known: %s); register it with 'pacs ae add'",
        rights_of(event),
        title,
        ", ".join(remotes.titles()) or "none",
    )
    comment = f"Move Destination {title} is not known"
    journal = _journal(event, archive, Service.MOVE, title, 0, query)
    journal.finish(Status.MOVE_DESTINATION_UNKNOWN, comment)
    status = status_dataset(Status.MOVE_DESTINATION_UNKNOWN, comment)
    return Refused(status, journal.operations)


def _refuse(
    event: Any, archive: Archive, service: Service, destination: str, error: PacsError
) -> Refused:
    """End a request that never got to its sub-operations."""
    dimse_service = DimseService.MOVE if service is Service.MOVE else DimseService.GET
    status = status_of(error, dimse_service)
    LOGGER.log(
        error.log_level, "%s: %s refused: %s", rights_of(event), dimse_service.value, error.message
    )
    total = max(len(error.failed_uids), int(status.Status) in _COUNTED_REFUSALS)
    journal = _journal(event, archive, service, destination, total, None)
    journal.operations.fail_remaining()
    journal.finish(int(status.Status), error.message)
    return Refused(status, journal.operations, error.failed_uids)


def _journal(
    event: Any,
    archive: Archive,
    service: Service,
    destination: str,
    total: int,
    query: Query | None,
) -> Journal:
    rights = rights_of(event)
    level = "" if query is None else query.level_name
    try:
        decoded = unlogged_identifier_of(event)
        level = level or level_named(decoded)
        identifier = json.dumps(decoded.to_json_dict(), ensure_ascii=False)
    except Exception:  # noqa: BLE001 - a record of what cannot be decoded says so
        identifier = "{}"
    try:
        model = model_of(str(event.request.AffectedSOPClassUID)).value
    except PacsError:
        model = str(event.request.AffectedSOPClassUID)
    request = RetrieveRequest(
        calling_ae=rights.calling_ae,
        calling_host=rights.host,
        service=service,
        model=model,
        level=level,
        identifier=identifier,
        destination=destination,
        message_id=int(event.request.MessageID),
        started_at=datetime.now(UTC),
    )
    return Journal(archive, request, total)
