"""``pacs commitment``: the recorded storage commitment transactions."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime

import click

from pacs.cli.options import ARCHIVE_SETTINGS, with_settings
from pacs.cli.output import console, print_json, print_table
from pacs.config import Settings
from pacs.dicom.uids import shown_uid
from pacs.errors import InvalidSetting
from pacs.model.commitments import CommitmentRecord, CommitmentReference, CommitmentState
from pacs.server import open_archive


@click.command("list")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*ARCHIVE_SETTINGS)
def commitment_list(settings: Settings, limit: int, as_json: bool) -> int:
    """List storage commitment transactions, newest first."""
    with closing(open_archive(settings, make=False)) as archive:
        records = archive.index.commitments.all(limit)
    if as_json:
        print_json([_as_dict(record) for record in records])
        return 0
    rows = [
        (
            record.key,
            _time(record.request.requested_at),
            f"{record.request.calling_ae}@{record.request.calling_host}",
            record.state.value,
            record.attempts,
            _due(record),
            record.comment,
        )
        for record in records
    ]
    headings = ("no.", "requested (UTC)", "requested by", "state", "attempts", "next", "comment")
    print_table("", headings, rows)
    return 0


@click.command("show")
@click.argument("number", type=int)
@click.option("--failed", "only_failed", is_flag=True, help="Only instances not committed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*ARCHIVE_SETTINGS)
def commitment_show(settings: Settings, number: int, only_failed: bool, as_json: bool) -> int:
    """Show transaction NUMBER: who asked, and whether each instance is committed."""
    with closing(open_archive(settings, make=False)) as archive:
        record = archive.index.commitments.get(number)
        if record is None:
            raise InvalidSetting(
                f"no storage commitment {number} is recorded; see: pacs commitment list"
            )
        references = [
            one
            for one in archive.index.commitments.references(number)
            if not only_failed or one.failure_reason is not None
        ]
    if as_json:
        document = _as_dict(record)
        document["references"] = [_reference_dict(record, one) for one in references]
        print_json(document)
        return 0
    _print_record(record)
    print_table(
        "",
        ("no.", "SOP Instance UID", "result", "SOP Class UID"),
        [
            (
                one.number,
                shown_uid(one.sop_instance_uid),
                _result(record, one),
                shown_uid(one.sop_class_uid),
            )
            for one in references
        ],
    )
    return 0


def _print_record(record: CommitmentRecord) -> None:
    request = record.request
    lines = [
        ("commitment", f"{record.key} ({record.state.value})"),
        ("transaction", shown_uid(request.transaction_uid)),
        ("requested by", f"{request.calling_ae} at {request.calling_host}"),
        ("requested", f"{_time(request.requested_at)} UTC"),
        ("checked", _time(record.checked_at)),
        ("finished", _time(record.finished_at)),
        ("attempts", record.attempts),
        ("next attempt", _due(record)),
        ("comment", record.comment),
    ]
    for what, value in lines:
        console.print(f"{what + ':':<14} {value}".rstrip())


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _due(record: CommitmentRecord) -> str:
    # Before the first attempt has failed, what is due is under way.
    return _time(record.due_at) if record.attempts else ""


def _result(record: CommitmentRecord, reference: CommitmentReference) -> str:
    if record.state is CommitmentState.REQUESTED or record.checked_at is None:
        return "not checked"
    reason = reference.failure_reason
    return "committed" if reason is None else f"failed {reason:04X}"


def _as_dict(record: CommitmentRecord) -> dict[str, object]:
    request = record.request
    return {
        "number": record.key,
        "state": record.state.value,
        "transaction_uid": request.transaction_uid,
        "calling_ae": request.calling_ae,
        "calling_host": request.calling_host,
        "requested_at": request.requested_at.isoformat(),
        "checked_at": _iso(record.checked_at),
        "finished_at": _iso(record.finished_at),
        "next_attempt_at": _iso(record.due_at) if record.attempts else None,
        "attempts": record.attempts,
        "comment": record.comment,
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _reference_dict(record: CommitmentRecord, one: CommitmentReference) -> dict[str, object]:
    reason = one.failure_reason
    return {
        "number": one.number,
        "sop_class_uid": one.sop_class_uid,
        "sop_instance_uid": one.sop_instance_uid,
        "committed": None if record.checked_at is None else reason is None,
        "failure_reason": None if reason is None else f"{reason:04X}",
    }
