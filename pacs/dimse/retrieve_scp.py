"""Query/Retrieve MOVE and GET SCP (PS3.4 C.4.2 and C.4.3): one generator for both.

The handlers follow the contract that pynetdicom documents for ``evt.EVT_C_MOVE`` and ``evt.EVT_C_GET``: yield
the destination (MOVE only), the number of sub-operations, then (status, data set) pairs. The data set is an
:class:`OutgoingInstance`, streamed from storage, and ``yield`` evaluates to the sub-operations that were completed
meanwhile; ``pacs.dimse.stock`` has the handlers for an AE of pynetdicom's.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any

from pydicom.dataset import Dataset

from pacs.archive.archive import Archive
from pacs.archive.derive import Prepared, prepare
from pacs.archive.retrieve import Completed, Journal, OutgoingInstance
from pacs.dicom.information_model import model_of
from pacs.dicom.query.identifier import Query
from pacs.dicom.query.instance_retrieve import parse_instance_retrieve
from pacs.dicom.uids import shown_uid
from pacs.dimse.extended_negotiation import options_of_request
from pacs.dimse.negotiation import rights_of
from pacs.dimse.remote import RemoteAEs
from pacs.dimse.request_identifier import identifier_of, level_named, unlogged_identifier_of
from pacs.dimse.status import (
    DimseService,
    Status,
    concluding_status,
    failed_list,
    status_dataset,
    status_of,
)
from pacs.dimse.storage_scu import contexts_for
from pacs.errors import DestinationUnreachable, PacsError
from pacs.model.remote_ae import RemoteAE, Service
from pacs.model.retrieves import RetrievePlan, RetrieveRequest
from pacs.model.sub_operations import Outcome

LOGGER = logging.getLogger(__name__)

_Pair = tuple[int | Dataset, Any]
#: What a refused request yields where the contract wants an address; nobody connects to it.
NOWHERE = ("0.0.0.0", 0)  # noqa: S104 - not a bind address
_UNKNOWN = (None, None)
_Address = tuple[str, int, dict[str, Any]]


@dataclass(slots=True)
class _Retrieve:
    """What one request asks for, and its record."""

    archive: Archive
    event: Any
    service: Service
    destination: str
    journal: Journal
    started: float
    #: For the record, set before the response is yielded: the engine may not come back for more.
    final: int = Status.UNABLE_TO_PROCESS
    comment: str = "The requester went away"

    def conclude(self, status: int, comment: str) -> None:
        """Note how the retrieve ends."""
        self.final, self.comment = int(status), comment

    @property
    def dimse_service(self) -> DimseService:
        return DimseService.MOVE if self.service is Service.MOVE else DimseService.GET


def handle_move(
    event: Any, archive: Archive, remotes: RemoteAEs, limit: int = 0
) -> Generator[Any, Any, None]:
    """Handle ``evt.EVT_C_MOVE``; with a ``limit``, one of more instances is refused as a whole."""
    title = str(event.request.MoveDestination or "").strip()
    remote = remotes.get(title)
    address: _Address | None = None
    prepared: Prepared | None = None
    try:
        rights = rights_of(event)
        rights.require(Service.MOVE)
        rights.require_destination(title)
        query = _parse(event)
        if remote is not None:
            prepared = prepare(archive, query, limit)
            address = destination_address(remotes, remote, prepared.plan)
    except PacsError as error:
        yield NOWHERE
        yield from _refuse(event, archive, Service.MOVE, title, error)
        return
    if prepared is None or address is None:
        journal = _journal(event, archive, Service.MOVE, title, 0, query)
        known = ", ".join(remotes.titles()) or "none"
        LOGGER.warning(
            "%s: Move Destination %r is not known (known: %s); register it with 'pacs ae add'",
            rights_of(event),
            title,
            known,
        )
        # What the engine answers.
        comment = f"Move Destination {title} is not known"
        journal.finish(Status.MOVE_DESTINATION_UNKNOWN, comment)
        yield _UNKNOWN
        return
    yield address
    yield from _carry_out(event, archive, Service.MOVE, title, query, prepared)


def handle_get(event: Any, archive: Archive, limit: int = 0) -> Generator[Any, Any, None]:
    """Handle ``evt.EVT_C_GET``; ``limit`` as for C-MOVE."""
    try:
        rights_of(event).require(Service.GET)
        query = _parse(event)
        prepared = prepare(archive, query, limit)
    except PacsError as error:
        yield from _refuse(event, archive, Service.GET, "", error)
        return
    yield from _carry_out(event, archive, Service.GET, "", query, prepared)


def _parse(event: Any) -> Query:
    model = model_of(str(event.request.AffectedSOPClassUID))
    return parse_instance_retrieve(identifier_of(event), model, options_of_request(event))


def destination_address(
    remotes: RemoteAEs, remote: RemoteAE, retrieve_plan: RetrievePlan
) -> _Address:
    """Where a plan is sent, as the contract wants it: host, port, and what ``AE.associate`` takes.

    Raises:
        InvalidSetting: a file that TLS needs cannot be used.
    """
    kwargs: dict[str, Any] = {"ae_title": remote.title, "tls_args": remotes.tls_args(remote)}
    contexts = contexts_for(retrieve_plan.contexts)
    # Beyond the contract: not more associations than there are instances.
    kwargs["parallel_associations"] = min(
        remote.parallel_associations, max(1, len(retrieve_plan.keys))
    )
    if contexts:
        kwargs["contexts"] = contexts
    return remote.host, remote.port, kwargs


def _refuse(
    event: Any, archive: Archive, service: Service, destination: str, error: PacsError
) -> Iterator[Any]:
    """End a request that never got to its sub-operations: one announced, then the failure."""
    dimse_service = DimseService.MOVE if service is Service.MOVE else DimseService.GET
    status = status_of(error, dimse_service)
    LOGGER.log(
        error.log_level, "%s: %s refused: %s", rights_of(event), dimse_service.value, error.message
    )
    journal = _journal(event, archive, service, destination, len(error.failed_uids), None)
    journal.operations.fail_remaining()
    journal.finish(int(status.Status), error.message)
    yield 1
    yield status, failed_list(error.failed_uids)


def _carry_out(
    event: Any,
    archive: Archive,
    service: Service,
    destination: str,
    query: Query,
    prepared: Prepared,
) -> Generator[Any, Any, None]:
    total = len(prepared.plan.keys)
    journal = _journal(event, archive, service, destination, total, query)
    retrieve = _Retrieve(archive, event, service, destination, journal, time.monotonic())
    try:
        yield total
        yield from _send_all(retrieve, prepared.instances)
    except Exception:
        # Of ours, or of the engine, which answers and logs it.
        retrieve.conclude(Status.UNABLE_TO_PROCESS, "Processing failure")
        raise
    finally:
        # Also when the requester has vanished: the engine closes this generator.
        journal.finish(retrieve.final, retrieve.comment)
        _log_end(retrieve)


def _send_all(
    retrieve: _Retrieve, instances: Iterator[OutgoingInstance]
) -> Generator[_Pair, Any, None]:
    """Yield each instance and record its outcome; conclude the retrieve."""
    sending = _Sending(retrieve)
    try:
        final = yield from _hand_over(retrieve, sending, instances)
        yield from sending.drain()
        if final is None and sending.under_way and retrieve.event.is_cancelled:
            final = _cancelled
    except DestinationUnreachable as error:
        yield _unreachable(retrieve, chain(sending.under_way, instances), error)
        return
    if final is not None:
        yield final(retrieve)
        return
    # An instance that left the index since it was planned was never yielded: it counts as failed.
    retrieve.journal.operations.fail_remaining()
    # The engine sends the same by its own counters; here it is for the record.
    retrieve.conclude(*concluding_status(retrieve.journal.operations))


def _hand_over(
    retrieve: _Retrieve, sending: _Sending, instances: Iterator[OutgoingInstance]
) -> Generator[_Pair, Any, Callable[[_Retrieve], _Pair] | None]:
    """Yield one instance after the other; return what makes the final response if that is before the last."""
    while True:
        try:
            instance = next(instances, None)
        except PacsError as error:
            return partial(_cut_short, error=error)
        if instance is None:
            return None
        if retrieve.event.is_cancelled:
            return _cancelled
        yield from sending.hand_over(instance)


class _Sending:
    """The instances that were handed to the engine, until their outcomes are known and recorded."""

    def __init__(self, retrieve: _Retrieve) -> None:
        self._retrieve = retrieve
        self.under_way: list[OutgoingInstance] = []

    def hand_over(self, instance: OutgoingInstance) -> Generator[_Pair, Any, None]:
        """Yield one instance."""
        self.under_way.append(instance)
        completed = yield Status.PENDING, instance
        self._record(completed)

    def drain(self) -> Generator[_Pair, Any, None]:
        """Wait for those that are under way."""
        while self.under_way:
            completed = yield Status.PENDING, None
            if not completed:
                return
            self._record(completed)

    def _record(self, completed: Iterable[Completed]) -> None:
        for instance, outcome in completed:
            self.under_way.remove(instance)
            self._retrieve.journal.add(instance, outcome)
            if outcome.comment:
                LOGGER.warning(
                    "%s: sub-operation for %s %s: %s",
                    rights_of(self._retrieve.event),
                    shown_uid(instance.sop_instance_uid),
                    outcome.result.value,
                    outcome.comment,
                )


def _cancelled(retrieve: _Retrieve) -> _Pair:
    """The final response after C-CANCEL."""
    retrieve.conclude(Status.CANCEL, "Cancelled by the requester")
    return Status.CANCEL, failed_list(retrieve.journal.operations.failed_uids)


def _cut_short(retrieve: _Retrieve, *, error: PacsError) -> _Pair:
    """The final response when the next instances cannot be looked up.

    Not 0xA701: the matches were calculated. Those that are left have failed, with UIDs nobody learned.
    """
    LOGGER.log(error.log_level, "%s: %s", rights_of(retrieve.event), error.message)
    operations = retrieve.journal.operations
    operations.fail_remaining()
    status, _ = concluding_status(operations)
    retrieve.conclude(status, error.message)
    return status_dataset(status, error.comment), failed_list(operations.failed_uids)


def _unreachable(
    retrieve: _Retrieve, instances: Iterable[OutgoingInstance], error: DestinationUnreachable
) -> _Pair:
    """The final response when nothing could be sent at all: every instance has failed, and is recorded so."""
    LOGGER.warning("%s: %s", rights_of(retrieve.event), error.message)
    status = status_of(error, retrieve.dimse_service)
    retrieve.conclude(status.Status, error.message)
    outcome = Outcome.failed(error.message)
    for instance in instances:
        retrieve.journal.add(instance, outcome)
    return status, failed_list(retrieve.journal.operations.failed_uids)


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


def _log_end(retrieve: _Retrieve) -> None:
    operations = retrieve.journal.operations
    LOGGER.info(
        "%s: %s%s: %d completed, %d failed, %d warning, %d not tried in %.3f s, status %04X, record %s",
        rights_of(retrieve.event),
        retrieve.dimse_service.value,
        f" to {retrieve.destination}" if retrieve.destination else "",
        operations.completed,
        operations.failed,
        operations.warning,
        operations.remaining,
        time.monotonic() - retrieve.started,
        retrieve.final,
        retrieve.journal.key,
    )
