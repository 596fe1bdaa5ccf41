"""``pacs patient``: who is who."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict

import click

from pacs.cli.options import ARCHIVE_SETTINGS, with_settings
from pacs.cli.output import console, errors, print_table
from pacs.config import Settings
from pacs.model.patients import PatientConflict
from pacs.server import open_archive

_SHOWN = (
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "AccessionNumber",
    "StudyInstanceUID",
)
_ADVICE = (
    "Each study is found and shown with its own name; a retrieve of the whole patient sends all of them.",
    "Two people: correct the Patient ID (or give an Issuer of Patient ID) where the images come from, and send",
    "the study again: the latest instance says whose it is.",
    "One person: correct the name, birth date or sex there and send again, or leave it as it is.",
)


@click.command("conflicts")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*ARCHIVE_SETTINGS, default_log_level="warning")
def conflicts_command(settings: Settings, as_json: bool) -> int:
    """List patients whose studies disagree in name, birth date or sex.

    There may be two people with one Patient ID. Case, accents, spaces and empty components of names do not count, nor
    does a value that one of the studies does not have. Exit code 1 means that there are some.
    """
    with closing(open_archive(settings, make=False)) as archive:
        conflicts = archive.index.patient_conflicts()
        count = _print_json(conflicts) if as_json else _print(conflicts)
    if not as_json:
        errors.print(f"{count} patient{'' if count == 1 else 's'} whose studies disagree")
        if count:
            for line in _ADVICE:
                errors.print(line)
    return 1 if count else 0


def _print(conflicts: Iterable[PatientConflict]) -> int:
    count = 0
    for one in conflicts:
        count += 1
        issuer = f" of {one.issuer}" if one.issuer else ""
        rows = [
            (
                study.patient_name,
                study.patient_birth_date,
                study.patient_sex,
                study.study_date,
                study.accession_number,
                study.study_instance_uid,
            )
            for study in one.studies
        ]
        text = f"Patient ID {one.patient_id}{issuer}: {', '.join(one.keywords)}"
        console.print(text)
        print_table("", _SHOWN, rows)
        console.print("")
    return count


def _print_json(conflicts: Iterable[PatientConflict]) -> int:
    # Written as it comes: a Patient ID such as "ANON" has studies without number.
    count = 0
    sys.stdout.write('{"conflicts": [')
    for count, one in enumerate(conflicts, start=1):
        sys.stdout.write(",\n  " if count > 1 else "\n  ")
        sys.stdout.write(json.dumps(asdict(one)))
    sys.stdout.write(f'\n], "count": {count}}}\n')
    return count
