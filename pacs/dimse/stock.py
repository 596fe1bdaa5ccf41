"""The archive on an application entity of pynetdicom's: for programs that have an AE and services of their own.

The handlers follow the contract that pynetdicom documents, with nothing beyond it: C-ECHO and C-STORE return a status,
N-ACTION (status, data set); C-FIND yields (status, Identifier); C-MOVE yields (address, port, keyword arguments) or
(None, None), then as C-GET the number of sub-operations and (status, data set). ``examples/own_ae`` binds them.

What that contract leaves to pynetdicom is as pynetdicom does it: a data set is collected in memory before it is stored
(``pynetdicom._config.STORE_RECV_CHUNKED_DATASET`` has to stay off), and decoded before it is sent; a C-MOVE has one
association with its destination and no second try; more than 65,535 sub-operations are refused. The archive's own
engine (``pacs.wire``, ``pacs.dimse.ae``) does each of these otherwise.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.presentation import build_context

from pacs.archive.archive import Archive
from pacs.archive.retrieve import Completed, OutgoingInstance
from pacs.archive.retrieving import How
from pacs.dimse.access import AccessPolicy
from pacs.dimse.ae import Options, find_arguments, shares_of
from pacs.dimse.commitment_delivery import CommitmentDelivery
from pacs.dimse.commitment_scp import record_request
from pacs.dimse.extended_negotiation import on_sop_class_extended
from pacs.dimse.find_responses import EncodedIdentifier
from pacs.dimse.find_scp import handle_find
from pacs.dimse.negotiation import VERIFICATION, admit
from pacs.dimse.remote import RemoteAEs
from pacs.dimse.retrieve_scp import Accepted, Address, Refused, handle_get, handle_move
from pacs.dimse.shares import Shares
from pacs.dimse.status import Status, concluding_elements, failed_list
from pacs.dimse.storage_scp import handle_store, open_sink
from pacs.dimse.storage_scu import MAX_CONTEXTS, outcome_of_status
from pacs.dimse.verification_scp import handle_echo
from pacs.errors import PacsError
from pacs.model.sub_operations import Outcome

_Pair = tuple[int | Dataset, Dataset | None]


def handlers(
    archive: Archive,
    remotes: RemoteAEs,
    access: AccessPolicy,
    options: Options,
    commitments: CommitmentDelivery,
) -> list[tuple[Any, Any, list[Any]]]:
    """The ``evt_handlers`` of ``AE.start_server``.

    Of ``options`` those hold that concern the operations: time-outs and limits of the AE are its own. The presentation
    contexts that its server supports beside the archive's stay supported.
    """
    return [
        (evt.EVT_REQUESTED, _on_requested, [access, shares_of(options)]),
        (evt.EVT_SOP_EXTENDED, on_sop_class_extended, [options.extended_negotiation]),
        (evt.EVT_C_ECHO, handle_echo, []),
        (evt.EVT_C_STORE, _handle_store, [archive]),
        (evt.EVT_C_FIND, _handle_find, find_arguments(archive, options)),
        (evt.EVT_C_MOVE, _handle_move, [archive, remotes, options.retrieve_limit]),
        (evt.EVT_C_GET, _handle_get, [archive, options.retrieve_limit]),
        (evt.EVT_N_ACTION, _handle_action, [archive, commitments]),
    ]


def _on_requested(event: Any, access: AccessPolicy, shares: Shares) -> None:
    acceptor = event.assoc.acceptor
    theirs = list(acceptor.supported_contexts)
    admit(event.assoc, access, shares, processes=1)
    if not event.assoc.is_rejected:
        ours = acceptor.supported_contexts
        known = {one.abstract_syntax for one in ours}
        others = [one for one in theirs if one.abstract_syntax not in known]
        acceptor.supported_contexts = [*ours, *others]


def _handle_store(event: Any, archive: Archive) -> int | Dataset:
    request = event.request
    request.received = sink = open_sink(archive, event.assoc, request, request._context_id)
    data = request.DataSet  # None if the command set announces none
    sink.write(b"" if data is None else data.getbuffer())
    sink.finish()
    return handle_store(event)


def _handle_find(event: Any, *arguments: Any) -> Iterator[_Pair]:
    _is_whole(event)
    for status, identifier in handle_find(event, *arguments, as_data_sets=True):
        assert not isinstance(identifier, EncodedIdentifier)
        yield status, identifier


def _handle_action(
    event: Any, archive: Archive, commitments: CommitmentDelivery
) -> tuple[int | Dataset, None]:
    _is_whole(event)
    requested = record_request(event, archive)
    if isinstance(requested, Dataset):
        return requested, None
    # There is no sending between two requests of the peer: the report comes on another association.
    commitments.take_over(requested)
    return Status.SUCCESS, None


def _is_whole(event: Any) -> None:
    # pynetdicom keeps the data set of a request however long it is.
    event.request.is_oversized = False


# C-MOVE and C-GET


def _handle_move(
    event: Any, archive: Archive, remotes: RemoteAEs, limit: int
) -> Generator[Any, None, None]:
    _is_whole(event)
    asked = handle_move(event, archive, remotes, limit)
    if isinstance(asked, Refused):
        if asked.status.Status == Status.MOVE_DESTINATION_UNKNOWN:
            yield None, None
            return
        yield _refused_address(event, remotes)
        yield from _refuse(asked)
        return
    destination = _HandedOver()
    yield _one_association(asked.address, destination)
    yield from _carry_out(event, asked, destination)


def _handle_get(event: Any, archive: Archive, limit: int) -> Generator[Any, None, None]:
    _is_whole(event)
    asked = handle_get(event, archive, limit)
    if isinstance(asked, Refused):
        yield from _refuse(asked)
        return
    destination = _HandedOver()
    event.assoc.bind(evt.EVT_DIMSE_RECV, destination.on_message)
    try:
        yield from _carry_out(event, asked, destination)
    finally:
        event.assoc.unbind(evt.EVT_DIMSE_RECV, destination.on_message)


def _refuse(refused: Refused) -> Iterator[Any]:
    # There is no final response without a sub-operation that was announced.
    yield 1
    yield refused.status, failed_list(refused.failed_uids)


def _one_association(address: Address | None, destination: _HandedOver) -> Address:
    """The address for the one association that pynetdicom opens, which has room for 128 contexts."""
    assert address is not None
    host, port, given = address
    kwargs = dict(given)
    del kwargs["parallel_associations"]
    kwargs["evt_handlers"] = [(evt.EVT_DIMSE_RECV, destination.on_message)]
    if "contexts" in kwargs:
        kwargs["contexts"] = kwargs["contexts"][:MAX_CONTEXTS]
    return host, port, kwargs


def _refused_address(event: Any, remotes: RemoteAEs) -> Address:
    # pynetdicom associates before it asks for the status, and cannot without a context.
    kwargs: dict[str, Any] = {"contexts": [build_context(VERIFICATION)]}
    remote = remotes.get(str(event.request.MoveDestination or "").strip())
    if remote is not None:
        with suppress(PacsError):  # what TLS needs is not there: that may be why
            kwargs["tls_args"] = remotes.tls_args(remote)
            return remote.host, remote.port, kwargs
    return "0.0.0.0", 0, kwargs  # noqa: S104 - nobody connects to it


def _carry_out(
    event: Any, accepted: Accepted, destination: _HandedOver
) -> Generator[Any, None, None]:
    total = accepted.journal.operations.total
    # When the requester has gone, pynetdicom does not come back.
    retrieving = accepted.retrieving(
        destination, is_cancelled=lambda: event.is_cancelled, is_abandoned=lambda: False
    )
    try:
        if not total:
            # pynetdicom answers by itself and does not come back for more.
            for _ in retrieving.run():
                pass
            yield 0
            return
        yield total
        with closing(retrieving.run()) as steps:
            for completed in steps:
                accepted.log_step(retrieving, completed)
                yield from destination.send()
    finally:
        retrieving.finish()
        accepted.log_end(retrieving)
    assert retrieving.ending is not None
    if retrieving.ending.how is not How.COMPLETE or destination.count < total:
        # pynetdicom counts what it has sent: without this, what it never saw would not have failed.
        operations = retrieving.operations
        status = concluding_elements(retrieving.ending, operations)
        yield status, failed_list(operations.failed_uids)


class _HandedOver:
    """A destination whose instances pynetdicom sends, one after the other; it reads what became of them."""

    def __init__(self) -> None:
        #: How many were handed over.
        self.count = 0
        self._instance: OutgoingInstance | None = None
        self._status: Dataset | None = None
        self._completed: list[Completed] = []

    def submit(self, instance: OutgoingInstance) -> list[Completed]:
        """Take the instance for the next ``send``; return the one before."""
        completed = self.drain()
        self._instance = instance
        self.count += 1
        return completed

    def drain(self) -> list[Completed]:
        """What was sent."""
        completed, self._completed = self._completed, []
        return completed

    def withdraw(self) -> None:
        """What was taken is sent."""

    def close(self) -> None:
        """Nothing was opened."""

    def send(self) -> Generator[_Pair, None, None]:
        """Have pynetdicom send what was taken, if there is any."""
        instance, self._instance = self._instance, None
        if instance is None:
            return
        dataset: Dataset
        try:
            with instance.open_file() as stream:
                dataset = dcmread(stream)
        except Exception as error:  # noqa: BLE001 - pydicom raises anything on what it cannot decode
            # The contract has no way to fail one sub-operation but a data set that cannot be sent.
            dataset = Dataset()
            dataset.SOPInstanceUID = instance.sop_instance_uid
            yield Status.PENDING, dataset
            outcome = Outcome.failed(f"Cannot be read: {error}")
        else:
            self._status = None
            yield Status.PENDING, dataset
            outcome = self._outcome(instance)
        self._completed.append(Completed(instance, outcome))

    def on_message(self, event: Any) -> None:
        """Handle ``evt.EVT_DIMSE_RECV`` of the destination association."""
        if type(event.message).__name__ == "C_STORE_RSP":
            self._status = event.message.command_set

    def _outcome(self, instance: OutgoingInstance) -> Outcome:
        if self._status is None:
            return Outcome.failed("No C-STORE response from the destination")
        return outcome_of_status(
            int(self._status.Status),
            str(self._status.get("ErrorComment", "")),
            size_bytes=instance.data_set_size,
        )
