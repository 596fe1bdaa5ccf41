"""``pacs import``."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, TextIO

import click

from pacs.archive.archive import Archive
from pacs.archive.import_sources import Reason, Refusal, scan
from pacs.archive.importing import Import, Summary
from pacs.archive.mounted import learn_storage, require_own_storage
from pacs.cli.options import ARCHIVE_SETTINGS, with_settings
from pacs.cli.output import INTERRUPTED, console, human_size, print_json
from pacs.cli.progress import ProgressDisplay
from pacs.config import Settings
from pacs.dicom.ae_titles import normalised_ae_title
from pacs.errors import PacsError
from pacs.foreign_text import visible
from pacs.model.instances import IngestOutcome
from pacs.server import current_revision, open_archive

_OUTCOMES = {
    IngestOutcome.STORED: "stored",
    IngestOutcome.IDENTICAL: "already stored",
    IngestOutcome.REPLACED: "replaced",
    IngestOutcome.KEPT: "kept the stored one",
}


@click.command("import")
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(exists=True, path_type=Path),
)
@click.option(
    "--source-ae",
    default="IMPORT",
    metavar="TITLE",
    show_default=True,
    help="AE title to record as where the instances came from.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=2,
    metavar="N",
    show_default=True,
    help="Number of files to read and store at a time.",
)
@click.option(
    "--refused",
    "refused_file",
    type=click.File("w", encoding="utf-8", lazy=False),
    metavar="FILE",
    help="Write a line for each refusal: path, tab, reason.",
)
@click.option("--quiet", is_flag=True, help="Show no progress and no summary.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@with_settings(*ARCHIVE_SETTINGS, "duplicate_policy", "strict_uids", default_log_level="error")
def import_command(
    settings: Settings,
    paths: tuple[Path, ...],
    source_ae: str,
    jobs: int,
    refused_file: TextIO | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Store DICOM files, folders of them, zip archives, and what a DICOMDIR names.

    The files are copied; they are never changed or moved. What is stored already is recognised, so an import that
    was interrupted can simply be run again. Exit code 1 means that something was refused.
    """
    _require_ae_title(source_ae)
    is_new = current_revision(settings)[0] is None
    archive = open_archive(settings)
    if not (quiet or as_json):
        new = "a new archive: " if is_new else ""
        index = settings.describe()["database_url"]
        console.print(f"into {new}{archive.storage.description}, index {index}")

    def note(refusal: Refusal) -> None:
        if refused_file is not None:
            refused_file.write(f"{visible(refusal.name)}\t{_reason(refusal)}\n")

    try:
        require_own_storage(archive.storage, archive.index)
        learn_storage(archive.storage, archive.index)
        found = scan(paths, excluded=archive.storage.folders)
        work = Import(archive, found, source_ae=source_ae, on_refused=note)
        return _run(work, _Ending(quiet, as_json), paths, jobs, archive)
    finally:
        archive.close()


def _require_ae_title(title: str) -> None:
    if normalised_ae_title(title) is None:
        raise click.BadParameter(
            "an AE title has 1 to 16 ASCII characters and no backslash", param_hint="--source-ae"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Ending:
    """How to tell the user what was done."""

    quiet: bool
    as_json: bool

    def show(self, summary: Summary, seconds: float, *, is_complete: bool) -> None:
        if self.as_json:
            print_json(_as_json(summary, seconds, is_complete=is_complete))
        elif not self.quiet:
            _print_summary(summary, seconds, is_complete=is_complete)


def _run(
    work: Import, ending: _Ending, paths: tuple[Path, ...], jobs: int, archive: Archive
) -> int:
    started = time.monotonic()
    summary = work.summary
    is_complete = False
    try:
        with ProgressDisplay("importing", "files", quiet=ending.quiet) as display:
            display.count(scan(paths, excluded=archive.storage.folders))
            work.run(jobs, lambda so_far: display.show(so_far.done, so_far.size_bytes))
        is_complete = True
    except KeyboardInterrupt:
        return INTERRUPTED
    except PacsError:
        # The caller prints the error in one line; how far the import got belongs above it, even when quiet.
        ending = dataclasses.replace(ending, quiet=False)
        raise
    finally:
        ending.show(summary, time.monotonic() - started, is_complete=is_complete)
    return 1 if summary.refused else 0


def _print_summary(summary: Summary, seconds: float, *, is_complete: bool) -> None:
    if not is_complete:
        console.print("Stopped before the end; what is stored stays. Run it again to go on.")
    for outcome, name in _OUTCOMES.items():
        if summary.outcomes[outcome] or outcome is IngestOutcome.STORED:
            console.print(f"{name:<22}{summary.outcomes[outcome]:>10,}")
    for reason, count in summary.skipped.items():
        console.print(f"{'skipped: ' + reason.value:<22}{count:>10,}")
    for note, count in summary.notes.most_common():
        console.print(f"accepted, but {note}: {count:,}")
        _print_names(summary.noted[note], count)
    if summary.refused:
        console.print(f"{'refused':<22}{summary.refused.total():>10,}")
    for reason, count in summary.refused.most_common():
        console.print(f"  {reason.value}: {count:,}")
        _print_names([_example(refusal) for refusal in summary.examples[reason]], count)
    rate = summary.instances / max(seconds, 0.001)
    speed = human_size(round(summary.size_bytes / max(seconds, 0.001)))
    size = human_size(summary.size_bytes)
    console.print(f"{size} in {seconds:.1f} s: {speed}/s, {rate:,.0f} instances/s")


def _example(refusal: Refusal) -> str:
    return f"{refusal.name}: {refusal.detail}" if refusal.detail else refusal.name


def _print_names(first: list[str], count: int) -> None:
    for name in first:
        console.print(f"    {name}")
    if count > len(first):
        console.print("    ...")


def _as_json(summary: Summary, seconds: float, *, is_complete: bool) -> dict[str, Any]:
    def examples(reason: Reason) -> list[dict[str, str]]:
        return [
            {"path": visible(refusal.name), "detail": visible(refusal.detail)}
            for refusal in summary.examples[reason]
        ]

    return {
        "complete": is_complete,
        **{outcome.value: summary.outcomes[outcome] for outcome in _OUTCOMES},
        "skipped": {reason.value: count for reason, count in summary.skipped.items()},
        "refused": {
            reason.value: {"count": count, "first": examples(reason)}
            for reason, count in summary.refused.most_common()
        },
        "notes": {
            note: {"count": count, "first": summary.noted[note]}
            for note, count in summary.notes.most_common()
        },
        "bytes": summary.size_bytes,
        "seconds": round(seconds, 3),
        "instances_per_second": round(summary.instances / max(seconds, 0.001), 1),
    }


def _reason(refusal: Refusal) -> str:
    return visible(": ".join(filter(None, (refusal.reason.value, refusal.detail))))
