"""A storage commitment SCU: stock pynetdicom that asks, and waits for reports on any association."""

from __future__ import annotations

import queue
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import evt
from pynetdicom.association import Association

from pacs.dicom.storage_commitment import SOP_CLASS_UID, SOP_INSTANCE_UID
from tests.peers import (
    CALLING,
    RunningArchive,
    association,
    end,
    listen,
    stock_ae,
    stop_listening,
    wait_until,
)

REPORT_SECONDS = 15


@dataclass(frozen=True)
class Report:
    """One N-EVENT-REPORT as the SCU got it."""

    event_type: int
    transaction_uid: str
    #: SOP Instance UIDs.
    committed: list[str]
    #: SOP Instance UID to Failure Reason.
    failed: dict[str, int]
    information: Dataset
    #: Whether it came on an association that the archive opened.
    on_other_association: bool


#: Command Field of N-EVENT-REPORT-RSP, as it is on the wire (PS3.7 E.1).
_RESPONSE = b"\x00\x00\x00\x01\x02\x00\x00\x00\x00\x81"


@dataclass
class ScriptedSCU:
    """Collects reports; ``answer`` is the status it answers them with, or what is called to find it."""

    title: str = CALLING
    answer: Any = 0x0000
    #: Whether it lets the archive be SCP on an association of the archive's own.
    accepts_role: bool = True
    reports: queue.Queue[Report] = field(default_factory=queue.Queue)
    _accepted: list[Any] = field(default_factory=list)
    _taken: int = 0
    _acknowledged: int = 0

    @property
    def bound(self) -> list[Any]:
        """The handlers, for an association or a server."""
        return [(evt.EVT_N_EVENT_REPORT, self._reported), (evt.EVT_PDU_SENT, self._sent)]

    def _sent(self, event: Any) -> None:
        items = getattr(event.pdu, "presentation_data_value_items", [])
        self._acknowledged += any(_RESPONSE in item.presentation_data_value for item in items)

    def _reported(self, event: Any) -> tuple[int, None]:
        self._taken += 1
        information = event.event_information
        answer = self.answer(event) if callable(self.answer) else self.answer
        report = Report(
            event_type=event.event_type,
            transaction_uid=information.TransactionUID,
            committed=[
                one.ReferencedSOPInstanceUID for one in information.get("ReferencedSOPSequence", [])
            ],
            failed={
                one.ReferencedSOPInstanceUID: one.FailureReason
                for one in information.get("FailedSOPSequence", [])
            },
            information=information,
            on_other_association=bool(event.assoc.is_acceptor),
        )
        if report.on_other_association:
            self._accepted.append(event.assoc)
            role = event.assoc.acceptor.role_selection.get(SOP_CLASS_UID)
            assert role is not None
            assert role.scp_role
        self.reports.put(report)
        return answer, None

    def next(self) -> Report:
        """The next report; fails when none comes."""
        return self.reports.get(timeout=REPORT_SECONDS)

    @contextmanager
    def listening(self, context: ssl.SSLContext | None = None) -> Iterator[int]:
        """Serve reports on a free port; with ``context`` by TLS."""
        ae = stock_ae(self.title)
        role = {"scu_role": False, "scp_role": True} if self.accepts_role else {}
        ae.add_supported_context(SOP_CLASS_UID, **role)
        server = listen(ae, self.bound, self.title, context=context)
        try:
            yield int(server.server_address[1])
        finally:
            stop_listening(ae, server)
            for assoc in self._accepted:
                end(
                    assoc
                )  # stock leaves the socket of one that was aborted to the garbage collector

    @contextmanager
    def calling(self, running: RunningArchive, **options: Any) -> Iterator[Association]:
        """An association on which it asks, and takes reports."""
        with association(
            running, SOP_CLASS_UID, calling=self.title, bound=self.bound, **options
        ) as assoc:
            yield assoc
            # A stock requestor that releases before it has answered fails in its own state machine.
            wait_for(lambda: self._acknowledged >= self._taken or not assoc.is_established)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for what the archive does in its own time."""
    wait_until(condition, REPORT_SECONDS)


def action_information(
    references: Sequence[tuple[str, str]], transaction_uid: str | None = None
) -> Dataset:
    """The Action Information of a request for these (SOP Class, SOP Instance) pairs."""
    information = Dataset()
    information.TransactionUID = transaction_uid or generate_uid()
    information.ReferencedSOPSequence = [_reference(*one) for one in references]
    return information


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def request_commitment(assoc: Association, information: Dataset | None, **options: Any) -> Dataset:
    """Send the N-ACTION and return the status."""
    chosen = {
        "action_type": 1,
        "class_uid": SOP_CLASS_UID,
        "instance_uid": SOP_INSTANCE_UID,
    } | options
    status, _ = assoc.send_n_action(information, **chosen)
    return status
