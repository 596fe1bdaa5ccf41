"""Send again what of a recorded C-MOVE has not arrived, to the same Move Destination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from pacs.archive.archive import Archive
from pacs.archive.retrieve import Completed, Journal, OutgoingInstance, outgoing
from pacs.archive.retry import Retry
from pacs.dimse.ae import Options, make_ae, move_destination
from pacs.dimse.remote import RemoteAEs
from pacs.dimse.retrieve_loop import Destination
from pacs.dimse.retrieve_scp import destination_address
from pacs.dimse.status import Status, concluding_status
from pacs.errors import DestinationUnreachable, InvalidSetting
from pacs.model.sub_operations import Outcome

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
        self._archive = archive
        self._plan = retry.plan
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
        self.journal = Journal(archive, retry.request(options.ae_title), len(retry.plan.keys))
        self.status: int = Status.CANCEL
        self.comment = "Interrupted"
        self.failures: list[tuple[str, str]] = []
        self.size_bytes = 0
        self._under_way: list[OutgoingInstance] = []

    def run(self) -> Iterator[int]:
        """Send, and yield how many sub-operations are done.

        Raises:
            IndexUnavailable: the instances cannot be looked up; what was sent is recorded.
        """
        instances = outgoing(self._archive, self._plan)
        try:
            try:
                for instance in instances:
                    self._under_way.append(instance)
                    yield self._add(self._destination.submit(instance))
                while self._under_way and (completed := self._destination.drain()):
                    yield self._add(completed)
            except DestinationUnreachable as error:
                lost = Outcome.failed(error.message)
                rest = chain(list(self._under_way), instances)
                self._add([Completed(one, lost) for one in rest])
            self.journal.operations.fail_remaining()
            status, self.comment = concluding_status(self.journal.operations)
            self.status = int(status)
        finally:
            self._destination.close()
            self.journal.finish(self.status, self.comment)

    def _add(self, completed: Sequence[Completed]) -> int:
        for instance, outcome in completed:
            if instance in self._under_way:
                self._under_way.remove(instance)
            self.journal.add(instance, outcome)
            self.size_bytes += outcome.size_bytes
            if outcome.comment:
                self.failures.append((instance.sop_instance_uid, outcome.comment))
        operations = self.journal.operations
        return operations.total - operations.remaining
