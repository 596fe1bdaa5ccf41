"""Reports of storage commitment on associations of their own (PS3.4 J.3.3), repeated until one is acknowledged.

Two threads of each process claim what is due, all transactions of one AE at a time; so a peer that does not answer
keeps one thread for one time-out, and the next attempt of all its transactions is put off, each time for twice as long.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pynetdicom.presentation import build_context, build_role

from pacs.archive.archive import Archive
from pacs.archive.commitment import check
from pacs.dicom.storage_commitment import SOP_CLASS_UID
from pacs.dimse.commitment_report import event_report, transfer_syntax
from pacs.dimse.remote import RemoteAEs
from pacs.errors import DestinationUnreachable, InvalidSetting, PacsError, PeerAborted
from pacs.model.commitments import CommitmentRecord, CommitmentState
from pacs.model.remote_ae import RemoteAE
from pacs.wire.ae import EngineAE
from pacs.wire.association import EngineAssociation

LOGGER = logging.getLogger(__name__)

_THREADS = 2
#: Another process may leave something to do.
_LOOK_SECONDS = 60.0
#: After a failure of the index.
_PAUSE_SECONDS = 5.0
_LONGEST_INTERVAL_SECONDS = 6 * 3600.0
_MESSAGE_ID = 1


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a report is repeated, and how long after the first attempt; the interval doubles up to six hours."""

    retries: int = 12
    first_interval_seconds: float = 30.0

    def interval(self, failed_attempts: int) -> timedelta:
        """How long to wait after so many failed attempts."""
        doubled = self.first_interval_seconds * 2.0 ** min(failed_attempts - 1, 60)
        return timedelta(seconds=min(doubled, _LONGEST_INTERVAL_SECONDS))


#: The one SOP Class where the archive calls as SCP (PS3.4 J.3.3), which some peers are not prepared for.
_IN_WHICH_ROLE = "with the archive as SCP (role selection: SCU 0, SCP 1)"


class CommitmentDelivery:
    """Checks and reports the transactions that their own association left open."""

    def __init__(
        self,
        archive: Archive,
        remotes: RemoteAEs,
        ae: EngineAE,
        policy: RetryPolicy,
    ) -> None:
        """Nothing happens before ``start``."""
        self._archive = archive
        self._remotes = remotes
        self._ae = ae
        self._policy = policy
        self._calling: set[EngineAssociation] = set()
        self._changed = threading.Condition()
        #: Claimed by this process, and to be given up.
        self._handed: set[int] = set()
        self._is_to_look = False
        self._stopping = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start looking for what is due."""
        self._threads = [
            threading.Thread(target=self._run, name=f"commitment {number}", daemon=True)
            for number in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads, and give up what is left; waits for a report that is under way, but not for long."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            for assoc in self._calling:
                assoc.stop()
        for thread in self._threads:
            thread.join(5)
        self._threads = []
        try:
            self._release_handed()
        except PacsError as error:
            # Another process takes the claims of one that has ended.
            LOGGER.error("storage commitment transactions are not released: %s", error)

    def take_over(self, key: int) -> None:
        """Go on with a transaction that this process has claimed; never raises."""
        with self._changed:
            self._handed.add(key)
            self._changed.notify()

    def look_now(self) -> None:
        """Look for what is due: another process has left something."""
        with self._changed:
            self._is_to_look = True
            self._changed.notify()

    # The threads

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._release_handed()
                pause = 0.0 if self._work() else self._seconds_to_next()
            except Exception as error:
                # Also what nobody foresaw: without this thread nothing would be reported.
                LOGGER.error(
                    "storage commitment is not reported yet: %s",
                    error,
                    exc_info=None if isinstance(error, PacsError) else error,
                )
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, _PAUSE_SECONDS)
                continue
            with self._changed:
                self._changed.wait_for(self._has_news, pause)
                self._is_to_look = False

    def _has_news(self) -> bool:
        return self._stopping or self._is_to_look or bool(self._handed)

    def _release_handed(self) -> None:
        while True:
            with self._changed:
                if not self._handed:
                    return
                # Taken out first: the other thread may claim it as soon as it is released.
                key = self._handed.pop()
            try:
                self._archive.index.commitments.release(key)
            except BaseException:
                self.take_over(key)
                raise

    def _seconds_to_next(self) -> float:
        due = self._archive.index.commitments.next_due()
        if due is None:
            return _LOOK_SECONDS
        return min(_LOOK_SECONDS, max(0.05, (due - datetime.now(UTC)).total_seconds()))

    def _work(self) -> bool:
        """Do what is due for one AE; False if nothing is."""
        claimed = self._archive.index.commitments.claim_due()
        left = {record.key for record in claimed}
        try:
            self._report_all(claimed, left)
        finally:
            for key in left:
                self.take_over(key)
        return bool(claimed)

    def _report_all(self, claimed: Sequence[CommitmentRecord], left: set[int]) -> None:
        for record in claimed:
            if record.state is CommitmentState.REQUESTED:
                for _ in check(self._archive, record.key):
                    if self._stopping:
                        return
        if not claimed or self._stopping:
            return
        title = claimed[0].request.calling_ae
        remote = self._remotes.get(title)
        if remote is None:
            for record in claimed:
                # It may be registered before the last attempt.
                self._attempt_failed(record, f"{title} is not a registered AE")
                left.discard(record.key)
            return
        self._report_to(remote, claimed, left)

    def _report_to(
        self, remote: RemoteAE, claimed: Sequence[CommitmentRecord], left: set[int]
    ) -> None:
        assoc: EngineAssociation | None = None
        try:
            assoc = self._associate(remote)
            with self._changed:
                self._calling.add(assoc)
            for record in claimed:
                if self._stopping:
                    return
                self._send(assoc, record)
                left.discard(record.key)
        except (DestinationUnreachable, PeerAborted, InvalidSetting) as error:
            if self._stopping:
                return
            # What one attempt shows holds for all that waits for this AE.
            for record in claimed:
                if record.key in left:
                    self._attempt_failed(record, error.message)
                    left.discard(record.key)
        finally:
            if assoc is not None:
                with self._changed:
                    self._calling.discard(assoc)
                assoc.release()

    def _associate(self, remote: RemoteAE) -> EngineAssociation:
        """Open an association on which this archive has the SCP role (PS3.4 J.3.3, PS3.7 D.3.3.4)."""
        title = remote.title
        assoc = self._ae.associate(
            remote.host,
            remote.port,
            contexts=[build_context(SOP_CLASS_UID)],
            ae_title=title,
            ext_neg=[build_role(SOP_CLASS_UID, scp_role=True)],
            tls_args=self._remotes.tls_args(remote),
        )
        if not assoc.is_established:
            reason = assoc.connect_error or assoc.rejection or "no association"
            if assoc.rejected_contexts:
                reason = f"it refuses the context of Storage Commitment {_IN_WHICH_ROLE}"
            raise DestinationUnreachable(f"{title}: {reason}")
        if not assoc.accepted_contexts[0].as_scp:
            assoc.release()
            raise DestinationUnreachable(
                f"{title} accepts Storage Commitment, but not {_IN_WHICH_ROLE}"
            )
        return assoc

    def _send(self, assoc: EngineAssociation, record: CommitmentRecord) -> None:
        context = assoc.accepted_contexts[0]
        uid = record.request.transaction_uid
        report = event_report(
            self._archive,
            record.key,
            uid,
            self._ae.ae_title,
            transfer_syntax(context.transfer_syntax[0]),
        )
        report.MessageID = _MESSAGE_ID
        assert context.context_id is not None
        assoc.dimse.send_msg(report, context.context_id)
        response = assoc.dimse.take_response(_MESSAGE_ID)
        if response is None:
            assoc.abort()
            raise PeerAborted(f"{record.request.calling_ae} did not answer the report")
        if response.Status != 0:
            status = "no status" if response.Status is None else f"status {response.Status:04X}"
            self._attempt_failed(record, f"The report was answered with {status}")
            return
        self._archive.index.commitments.finish(
            record.key, CommitmentState.REPORTED, attempts=record.attempts + 1
        )
        LOGGER.info("storage commitment %d reported to %s", record.key, record.request.calling_ae)

    def _attempt_failed(self, record: CommitmentRecord, comment: str) -> None:
        attempts = record.attempts + 1
        if attempts > self._policy.retries:
            self._give_up(record, attempts, comment)
            return
        interval = self._policy.interval(attempts)
        self._archive.index.commitments.postpone(
            record.key, datetime.now(UTC) + interval, attempts=attempts, comment=comment
        )
        LOGGER.warning(
            "storage commitment %d not reported to %s: %s; again in %.0f s",
            record.key,
            record.request.calling_ae,
            comment,
            interval.total_seconds(),
        )

    def _give_up(self, record: CommitmentRecord, attempts: int, comment: str) -> None:
        self._archive.index.commitments.finish(
            record.key, CommitmentState.UNDELIVERABLE, attempts=attempts, comment=comment
        )
        LOGGER.error("storage commitment %d is not reported: %s", record.key, comment)
