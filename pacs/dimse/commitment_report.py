"""The N-EVENT-REPORT of Storage Commitment (PS3.4 J.3.3)."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from pynetdicom.dimse_primitives import N_EVENT_REPORT

from pacs.archive.archive import Archive
from pacs.archive.commitment import results
from pacs.dicom.storage_commitment import (
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    TransferSyntax,
    write_event_information,
)
from pacs.wire.dimse import assign_uid


def transfer_syntax(uid: Any) -> TransferSyntax:
    """What matters here of pydicom's transfer syntax UID."""
    return TransferSyntax(uid.is_implicit_VR, not uid.is_little_endian, uid.is_deflated)


def event_report(
    archive: Archive, key: int, transaction_uid: str, ae_title: str, syntax: TransferSyntax
) -> N_EVENT_REPORT:
    """The N-EVENT-REPORT request of a checked transaction (PS3.4 J.3.3).

    Raises:
        IndexUnavailable: the results cannot be read.
    """
    event_type, data = write_event_information(
        transaction_uid, results(archive, key), ae_title, syntax
    )
    report = N_EVENT_REPORT()
    assign_uid(report, "AffectedSOPClassUID", SOP_CLASS_UID)
    assign_uid(report, "AffectedSOPInstanceUID", SOP_INSTANCE_UID)
    report.EventTypeID = int(event_type)
    report.EventInformation = BytesIO(data)
    return report
