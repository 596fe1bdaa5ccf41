"""``pacs retrieve``: the recorded C-MOVE and C-GET operations."""

from __future__ import annotations

from contextlib import closing

import click

from pacs.archive.lease_keeper import LeaseKeeper
from pacs.archive.retry import plan_retry, retry_of
from pacs.cli.options import ARCHIVE_SETTINGS, SCU_SETTINGS, with_settings
from pacs.cli.output import console, errors, human_size, print_json, print_table
from pacs.cli.progress import ProgressDisplay
from pacs.config import Settings
from pacs.dicom.uids import shown_uid
from pacs.dimse.remote import RemoteAEs
from pacs.dimse.retry_scu import RetrySCU
from pacs.errors import InvalidSetting
from pacs.model.retrieves import RetrieveRecord, SubOperationOutcome, SubOperationRecord
from pacs.remotes import configured_remotes
from pacs.scp import retrieve_options_of
from pacs.server import open_archive


@click.command("list")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*ARCHIVE_SETTINGS)
def retrieve_list(settings: Settings, limit: int, as_json: bool) -> int:
    """List retrieves, newest first."""
    with closing(open_archive(settings, make=False)) as archive:
        records = archive.index.journal.retrieves(limit=limit)
    if as_json:
        print_json([_as_dict(record) for record in records])
        return 0
    rows = [
        (
            record.key,
            f"{record.request.started_at:%Y-%m-%d %H:%M:%S}",
            record.request.service.value.upper(),
            f"{record.request.calling_ae}@{record.request.calling_host}",
            record.request.destination,
            record.request.level,
            _state(record),
            *_counts(record),
            retry_of(record.request) or "",
        )
        for record in records
    ]
    headings = ("no.", "started (UTC)", "service", "requested by", "to", "level", "status")
    print_table("", (*headings, "done", "failed", "warned", "left", "retry of"), rows)
    return 0


@click.command("show")
@click.argument("number", type=int)
@click.option("--failed", "only_failed", is_flag=True, help="Only failed sub-operations.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*ARCHIVE_SETTINGS)
def retrieve_show(settings: Settings, number: int, only_failed: bool, as_json: bool) -> int:
    """Show retrieve NUMBER: who asked for what, and how each sub-operation ended."""
    with closing(open_archive(settings, make=False)) as archive:
        record = archive.index.journal.retrieve(number)
        if record is None:
            raise InvalidSetting(f"no retrieve {number} is recorded; see: pacs retrieve list")
        operations = [
            operation
            for operation in archive.index.journal.sub_operations(number)
            if not only_failed or operation.outcome is SubOperationOutcome.FAILED
        ]
    failed = [one for one in operations if one.outcome is SubOperationOutcome.FAILED]
    if as_json:
        document = _as_dict(record)
        document["sub_operations"] = [_operation_dict(one) for one in operations]
        document["failed_sop_instance_uid_list"] = [one.sop_instance_uid for one in failed]
        print_json(document)
        return 0
    _print_record(record)
    _print_operations(operations)
    if failed:
        console.print("Failed SOP Instance UID List:")
        for one in failed:
            console.print(f"  {shown_uid(one.sop_instance_uid)}")
    return 0


@click.command("retry")
@click.argument("number", type=int)
@click.option("--json", "as_json", is_flag=True, help="Print the new record as JSON.")
@with_settings(
    *ARCHIVE_SETTINGS,
    *SCU_SETTINGS,
    "remote_aes",
    "destination_retries",
    "conversion_limit_bytes",
    "conversion_timeout_seconds",
    default_log_level="warning",
)
def retrieve_retry(settings: Settings, number: int, as_json: bool) -> int:
    """Send again what failed or was not tried in C-MOVE NUMBER, to the same destination.

    This is recorded as a retrieve of its own. Ends with 1 if not everything has arrived.
    """
    with closing(open_archive(settings, make=False)) as archive:
        retry = plan_retry(archive, number)
        if not retry.plan.keys and not retry.not_stored:
            errors.print(f"retrieve {number}: nothing is left to send")
            if as_json:
                print_json(None)
            return 0
        options = retrieve_options_of(settings, archive)
        remotes = RemoteAEs(archive.index, configured_remotes(settings), options.tls)
        scu = RetrySCU(archive, options, remotes, retry)
        leases = LeaseKeeper(archive.index, settings.lease_seconds, on_swept=lambda _: None)
        with leases, ProgressDisplay("sending again", "instances") as display:
            display.total = len(retry.plan.keys)
            for done in scu.run():
                display.show(done, scu.size_bytes)
        record = (
            None if scu.journal.key is None else archive.index.journal.retrieve(scu.journal.key)
        )
    if as_json:
        document = {} if record is None else _as_dict(record)
        print_json(document | {"not_stored": list(retry.not_stored)})
    else:
        _print_retry(scu, retry.record.request.destination, retry.not_stored)
    return 0 if scu.status == 0x0000 and not retry.not_stored else 1


def _print_retry(scu: RetrySCU, destination: str, not_stored: tuple[str, ...]) -> None:
    operations = scu.journal.operations
    console.print(
        f"status 0x{scu.status:04X}: {operations.completed} completed, {operations.failed} failed, "
        f"{operations.warning} warning, to {destination}, record {scu.journal.key}",
    )
    for uid, comment in scu.failures:
        console.print(f"{shown_uid(uid)}: {comment}")
    for uid in not_stored:
        console.print(f"{shown_uid(uid)}: is not stored any more")


def _print_record(record: RetrieveRecord) -> None:
    request = record.request
    lines = [
        ("retrieve", f"{record.key} ({record.state.value})"),
        ("service", f"C-{request.service.value.upper()}, {request.model}, level {request.level}"),
        ("requested by", f"{request.calling_ae} at {request.calling_host}"),
        ("destination", request.destination or "the requester"),
        ("message ID", request.message_id),
        ("started", f"{request.started_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("finished", "" if record.finished_at is None else f"{record.finished_at:%H:%M:%S} UTC"),
        ("Identifier", request.identifier),
        ("status", _state(record)),
    ]
    if (earlier := retry_of(request)) is not None:
        lines.append(("retry of", earlier))
    if record.outcome is not None:
        done, failed, warned, left = _counts(record)
        lines.append(
            ("counts", f"{done} completed, {failed} failed, {warned} warning, {left} left")
        )
        if record.outcome.error_comment:
            lines.append(("comment", record.outcome.error_comment))
    for what, value in lines:
        console.print(f"{what + ':':<14} {value}")


def _print_operations(operations: list[SubOperationRecord]) -> None:
    print_table(
        "",
        ("no.", "SOP Instance UID", "outcome", "status", "size", "seconds", "comment"),
        [
            (
                one.number,
                shown_uid(one.sop_instance_uid),
                one.outcome.value,
                "" if one.status is None else f"{one.status:04X}",
                human_size(one.size_bytes),
                f"{one.duration_seconds:.3f}",
                one.error_comment,
            )
            for one in operations
        ],
    )


def _state(record: RetrieveRecord) -> str:
    return record.state.value if record.outcome is None else f"{record.outcome.status:04X}"


def _counts(record: RetrieveRecord) -> tuple[object, object, object, object]:
    outcome = record.outcome
    if outcome is None:
        return ("", "", "", "")
    return (outcome.completed, outcome.failed, outcome.warning, outcome.remaining)


def _as_dict(record: RetrieveRecord) -> dict[str, object]:
    request = record.request
    done, failed, warned, left = _counts(record)
    return {
        "number": record.key,
        "state": record.state.value,
        "service": request.service.value,
        "calling_ae": request.calling_ae,
        "calling_host": request.calling_host,
        "destination": request.destination,
        "model": request.model,
        "level": request.level,
        "identifier": request.identifier,
        "message_id": request.message_id,
        "retry_of": retry_of(request),
        "started_at": request.started_at.isoformat(),
        "finished_at": None if record.finished_at is None else record.finished_at.isoformat(),
        "status": None if record.outcome is None else f"{record.outcome.status:04X}",
        "error_comment": None if record.outcome is None else record.outcome.error_comment,
        "completed": done,
        "failed": failed,
        "warning": warned,
        "remaining": left,
    }


def _operation_dict(one: SubOperationRecord) -> dict[str, object]:
    return {
        "number": one.number,
        "sop_class_uid": one.sop_class_uid,
        "sop_instance_uid": one.sop_instance_uid,
        "outcome": one.outcome.value,
        "status": None if one.status is None else f"{one.status:04X}",
        "error_comment": one.error_comment,
        "size_bytes": one.size_bytes,
        "duration_seconds": one.duration_seconds,
    }
