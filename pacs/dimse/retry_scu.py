"""Send again what of a recorded C-MOVE has not arrived, to the same Move Destination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from pacs.archive.archive import Archive
from pacs.archive.retrieve import Completed, outgoing
from pacs.archive.retrieving import Destination, Ending, How, Journal, Retrieving
from pacs.archive.retry import Retry
from pacs.dimse.ae import Options, make_ae, move_destination
from pacs.dimse.remote import RemoteAEs
from pacs.dimse.retrieve_scp import destination_address
from pacs.dimse.status import Status, conclusion_of
from pacs.errors import InvalidSetting
from pacs.model.sub_operations import SubOperations

#: Priority (0000,0700): there is no request that says another.
_MEDIUM = 0x0000


class RetrySCU:
    """One retry: iterate over ``run`` to carry it out."""

    def __init__(
        self, archive: Archive, options: Options, remotes: RemoteAEs, retry: Retry
    ) -> None:
        """Prepare to send; connects to nothing yet.

        Raises:
            InvalidSetting: the Move Destination is not known any more.
        """
        title = retry.record.request.destination
        remote = remotes.get(title)
        if remote is None:
            raise InvalidSetting(
                f"Move Destination {title} is not known any more; see: pacs ae add"
            )
        self._destination: Destination = move_destination(
            make_ae(options),
            destination_address(remotes, remote, retry.plan),
            # No C-MOVE is in progress: there is no Move Originator (PS3.7 9.1.1.1.6, 9.1.1.1.7).
            originator=None,
            priority=_MEDIUM,
            retries=options.destination_retries,
            is_cancelled=lambda: False,
            conversions=options.conversions,
        )
        self._retrieving = Retrieving(
            Journal(archive, retry.request(options.ae_title), len(retry.plan.keys)),
            outgoing(archive, retry.plan),
            self._destination,
            _conclusion_of,
        )
        #: SOP Instance UID and reason.
        self.failures: list[tuple[str, str]] = []
        self.size_bytes = 0

    @property
    def journal(self) -> Journal:
        """Its record."""
        return self._retrieving.journal

    @property
    def status(self) -> int:
        """The status that is recorded."""
        return self._retrieving.status

    def run(self) -> Iterator[int]:
        """Send, and yield how many sub-operations are done.

        Raises:
            IndexUnavailable: the instances cannot be looked up; what was sent is recorded.
        """
        operations = self._retrieving.operations
        try:
            with closing(self._retrieving.run()) as steps:
                for completed in steps:
                    self._note(completed)
                    yield operations.total - operations.remaining
        finally:
            self._destination.close()
        ending = self._retrieving.ending
        if ending is not None and ending.how is How.CUT_SHORT and ending.error is not None:
            raise ending.error

    def _note(self, completed: Sequence[Completed]) -> None:
        for instance, outcome in completed:
            self.size_bytes += outcome.size_bytes
            if outcome.comment:
                self.failures.append((instance.sop_instance_uid, outcome.comment))


def _conclusion_of(ending: Ending, operations: SubOperations) -> tuple[int, str]:
    if ending.how is How.ABANDONED:
        return Status.CANCEL, "Interrupted"
    return conclusion_of(ending, operations)
