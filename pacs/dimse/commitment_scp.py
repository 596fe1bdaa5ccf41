"""Storage Commitment Push Model SCP (PS3.4 J): the request, and the report on the same association.

The N-ACTION is answered when the request is recorded. Then the association's own thread checks the instances whenever
the peer asks for nothing else, and reports; so an SCU that waits for the report gets it at once. If the association
ends before the report is acknowledged, ``pacs.dimse.commitment_delivery`` goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pydicom.dataset import Dataset

from pacs.archive.archive import Archive
from pacs.archive.commitment import check
from pacs.dicom.storage_commitment import (
    REQUEST_ACTION,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    FailureReason,
    TransferSyntax,
    read_action_information,
)
from pacs.dimse.commitment_delivery import CommitmentDelivery
from pacs.dimse.commitment_report import event_report, transfer_syntax
from pacs.dimse.negotiation import rights_of
from pacs.dimse.request_identifier import require_whole
from pacs.dimse.status import DimseService, Status, status_dataset, status_of
from pacs.errors import InvalidActionInformation, PacsError
from pacs.model.commitments import CommitmentRequest, CommitmentState
from pacs.model.remote_ae import Service

LOGGER = logging.getLogger(__name__)

_Response = tuple[int | Dataset, Dataset | None]


def handle_action(
    event: Any, archive: Archive, delivery: CommitmentDelivery, ae_title: str
) -> _Response:
    """Handle ``evt.EVT_N_ACTION``: Success means that the request is recorded and will be reported on."""
    requested = record_request(event, archive)
    if isinstance(requested, Dataset):
        return requested, None
    syntax = transfer_syntax(event.context.transfer_syntax)
    errand = _report_here(archive, delivery, ae_title, requested, syntax)
    # A generator that never began ends without a word, and the association may end before its turn.
    next(errand)
    if not event.assoc.services.errands.add(errand, event.context.context_id):
        errand.close()
    return Status.SUCCESS, None


def record_request(event: Any, archive: Archive) -> int | Dataset:
    """Record the request of an N-ACTION and return the number of its record; the status if it is refused."""
    rights = rights_of(event)
    syntax = transfer_syntax(event.context.transfer_syntax)
    refusal = _refusal(event.request)
    if refusal is not None:
        LOGGER.warning("%s: N-ACTION refused: %s", rights, refusal.ErrorComment)
        return refusal
    try:
        rights.require(Service.COMMIT)
        information = read_action_information(_data_of(event), syntax)
        request = CommitmentRequest(
            transaction_uid=information.transaction_uid,
            calling_ae=rights.calling_ae,
            calling_host=rights.host,
            requested_at=datetime.now(UTC),
        )
        key = archive.index.commitments.begin(
            request, information.references, FailureReason.DUPLICATE_TRANSACTION_UID
        )
    except PacsError as error:
        LOGGER.log(error.log_level, "%s: N-ACTION refused: %s", rights, error.message)
        return status_of(error, DimseService.COMMIT)
    LOGGER.info(
        "%s: storage commitment %d of %d instances requested",
        rights,
        key,
        len(information.references),
    )
    return key


def _refusal(request: Any) -> Dataset | None:
    """What is wrong with the command set (PS3.7 10.1.4.1.10), if anything."""
    if request.RequestedSOPClassUID != SOP_CLASS_UID:
        return status_dataset(Status.NO_SUCH_SOP_CLASS, "Requested SOP Class UID is another one")
    if request.RequestedSOPInstanceUID != SOP_INSTANCE_UID:
        return status_dataset(
            Status.NO_SUCH_SOP_INSTANCE, "Requested SOP Instance UID is not the well-known one"
        )
    if request.ActionTypeID != REQUEST_ACTION:
        return status_dataset(Status.NO_SUCH_ACTION, f"No Action Type {request.ActionTypeID}")
    return None


def _data_of(event: Any) -> bytes:
    require_whole(event.request, "Action Information")
    data = event.request.ActionInformation
    if data is None or not data.getbuffer().nbytes:
        raise InvalidActionInformation("The request has no Action Information")
    encoded: bytes = data.getvalue()
    return encoded


def _report_here(
    archive: Archive,
    delivery: CommitmentDelivery,
    ae_title: str,
    key: int,
    syntax: TransferSyntax,
) -> Generator[Any, Any, None]:
    """Check and report on the association of the request; an errand between its requests.

    It does nothing up to its first ``yield``. Once there, closing it hands the transaction over, whenever that is.
    """
    is_over = False
    try:
        yield
        with suppress(PacsError):  # the delivery tries again, and says so
            record = archive.index.commitments.get(key)
            if record is None:
                is_over = True
                return
            if record.state is CommitmentState.REQUESTED:
                yield from check(archive, key)
            uid = record.request.transaction_uid
            response = yield event_report(archive, key, uid, ae_title, syntax)
            if response is not None and response.Status == Status.SUCCESS:
                archive.index.commitments.finish(
                    key, CommitmentState.REPORTED, attempts=record.attempts + 1
                )
                is_over = True
                LOGGER.info("storage commitment %d reported on its own association", key)
    finally:
        if not is_over:
            delivery.take_over(key)
