"""The archive's own engine as SCU, in a process of its own: one client for every archive that is measured.

    python -m benchmarks.client echo PORT --count 200
    python -m benchmarks.client store PORT FOLDER --associations 100
    python -m benchmarks.client studies PORT FOLDER --contexts 128
    python -m benchmarks.client idle PORT --associations 200

Prints one line of JSON. ``idle`` prints it once all associations are open, and releases them at the end of its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import click
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import (
    PresentationContext,
    StoragePresentationContexts,
    build_context,
)

from benchmarks.light_peer import LightAssociation, PeerError, Proposal, proposal
from pacs.wire.ae import EngineAE
from pacs.wire.association import EngineAssociation
from pacs.wire.dimse import assign_uid

_VERIFICATION = "1.2.840.10008.1.1"
_STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_PENDING = (0xFF00, 0xFF01)
_TIMEOUT_SECONDS = 120
#: Preamble, prefix, and the group length element itself (PS3.10 7.1).
_BEFORE_GROUP_2 = 128 + 4 + 12
_CALLED = "PACS"


class Outgoing:
    """An instance in memory, ready to be sent."""

    def __init__(self, path: Path) -> None:
        """Read ``path``."""
        meta = read_file_meta_info(path)
        self.sop_class = str(meta.MediaStorageSOPClassUID)
        self.sop_instance = str(meta.MediaStorageSOPInstanceUID)
        self.transfer_syntax = str(meta.TransferSyntaxUID)
        self.data_set = path.read_bytes()[_BEFORE_GROUP_2 + meta.FileMetaInformationGroupLength :]


def make_ae() -> EngineAE:
    """An application entity that waits long enough for a busy archive."""
    ae = EngineAE("BENCH")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _TIMEOUT_SECONDS
    ae.connection_timeout = _TIMEOUT_SECONDS
    return ae


def open_association(
    ae: EngineAE, port: int, contexts: list[PresentationContext]
) -> EngineAssociation:
    """Associate, or fail."""
    assoc = ae.associate("127.0.0.1", port, contexts=contexts, ae_title=_CALLED)
    if not assoc.is_established:
        raise click.ClickException(f"no association: {assoc.rejection or assoc.connect_error}")
    return assoc


def verify(ae: EngineAE, port: int) -> None:
    """Associate, C-ECHO, release.

    Raises:
        ClickException: one of them failed.
    """
    assoc = open_association(ae, port, [build_context(_VERIFICATION)])
    status = assoc.send_c_echo()
    assoc.release()
    if status.get("Status") != 0x0000:
        raise click.ClickException(f"C-ECHO failed: {status}")


def count_instances(port: int, study: str, series: str) -> int:
    """How many instances a C-FIND finds in a series.

    Raises:
        ValueError: the query did not end in success.
        ClickException: there is no association.
    """
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID, query.SeriesInstanceUID, query.SOPInstanceUID = study, series, ""
    assoc = open_association(make_ae(), port, [build_context(_STUDY_ROOT_FIND)])
    found = set()
    try:
        for status, match in assoc.send_c_find(query, _STUDY_ROOT_FIND):
            if match is not None and status.get("Status") in _PENDING:
                found.add(str(match.SOPInstanceUID))
            elif status.get("Status") != 0x0000:
                raise ValueError(f"status {status.get('Status')}")
    finally:
        assoc.release()
    return len(found)


@click.group()
def main() -> None:
    """Run one client."""


def _say(**values: float) -> None:
    click.echo(json.dumps(values))
    sys.stdout.flush()


@main.command()
@click.argument("port", type=int)
@click.option("--count", default=200)
def echo(port: int, count: int) -> None:
    """Open an association, send a C-ECHO and release, over and over."""
    ae = make_ae()
    verify(ae, port)
    started = time.perf_counter()
    for _ in range(count):
        verify(ae, port)
    _say(seconds=(time.perf_counter() - started) / count)


@main.command()
@click.argument("port", type=int)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--associations", default=1)
def store(port: int, folder: Path, associations: int) -> None:
    """Send a folder over several associations at once, each in a thread.

    The seconds are those from when all associations are open until the last response.
    """
    instances = [Outgoing(path) for path in sorted(folder.iterdir())]
    ae = make_ae()
    failures: list[str] = []
    done: list[int] = []
    all_open = threading.Barrier(associations + 1)

    def send(mine: list[Outgoing]) -> None:
        try:
            done.append(_send(ae, port, mine, all_open))
        except threading.BrokenBarrierError:
            return  # another thread says why
        except (ValueError, OSError, RuntimeError, click.ClickException) as error:
            failures.append(f"{type(error).__name__}: {error}")
            all_open.abort()

    shares = [instances[first::associations] for first in range(associations)]
    threads = [threading.Thread(target=send, args=(share,)) for share in shares]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):
        all_open.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if failures:
        raise click.ClickException(f"{len(failures)} associations failed: {failures[0]}")
    if sum(done) != len(instances):
        raise click.ClickException(f"{sum(done)} of {len(instances)} instances were sent")
    _say(seconds=seconds, opening_seconds=started - began)


def _send(ae: EngineAE, port: int, instances: list[Outgoing], all_open: threading.Barrier) -> int:
    """Send a share over one association, once those of all threads are open; how many were stored."""
    pairs = dict.fromkeys((one.sop_class, one.transfer_syntax) for one in instances)
    assoc = open_association(ae, port, [build_context(*pair) for pair in pairs])
    try:
        all_open.wait()
        for number, instance in enumerate(instances):
            _send_one(assoc, number % 0xFFFF + 1, instance)
    finally:
        assoc.release()
    return len(instances)


def _send_one(assoc: EngineAssociation, message_id: int, instance: Outgoing) -> None:
    wanted = (instance.sop_class, instance.transfer_syntax)
    context_id = next(
        (
            context.context_id
            for context in assoc.accepted_contexts
            if (context.abstract_syntax, context.transfer_syntax[0]) == wanted
        ),
        None,
    )
    if context_id is None:
        raise ValueError(f"{' in '.join(wanted)} is not accepted")
    request = C_STORE()
    request.MessageID = message_id
    request.Priority = 2
    assign_uid(request, "AffectedSOPClassUID", instance.sop_class)
    assign_uid(request, "AffectedSOPInstanceUID", instance.sop_instance)
    request.DataSet = BytesIO(instance.data_set)
    assoc.dimse.send_msg(request, context_id)
    response = assoc.dimse.take_response(message_id)
    if response is None or response.Status != 0x0000:
        status = "no response" if response is None else f"status {response.Status:#06x}"
        raise ValueError(f"{' in '.join(wanted)}: {status}")


@main.command()
@click.argument("port", type=int)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--contexts", default=1, type=click.IntRange(1, 128))
def studies(port: int, folder: Path, contexts: int) -> None:
    """Send each instance of a folder over an association of its own, one after the other.

    Each association proposes so many presentation contexts, of which one is used.
    """
    instances = [Outgoing(path) for path in sorted(folder.iterdir())]
    (sop_class,) = {one.sop_class for one in instances}
    others = [str(one.abstract_syntax) for one in StoragePresentationContexts]
    others = [one for one in others if one != sop_class][: contexts - 1]
    proposed = proposal([sop_class], others)
    started = time.perf_counter()
    try:
        asyncio.run(_send_each(port, proposed, instances))
    except (PeerError, OSError, EOFError, TimeoutError) as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from error
    _say(seconds=time.perf_counter() - started, contexts=1 + len(others))


async def _send_each(port: int, proposed: Proposal, instances: list[Outgoing]) -> None:
    for one in instances:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            assoc = await LightAssociation.open(port, proposed)
            await assoc.store(one.sop_class, one.sop_instance, one.data_set)
            await assoc.release()


@main.command()
@click.argument("port", type=int)
@click.option("--associations", default=200)
def idle(port: int, associations: int) -> None:
    """Hold associations open until the input ends."""
    ae = make_ae()
    held = [open_association(ae, port, [build_context(_VERIFICATION)]) for _ in range(associations)]
    _say(associations=len(held))
    sys.stdin.read()
    for assoc in held:
        assoc.release()


if __name__ == "__main__":
    main()
