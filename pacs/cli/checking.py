"""``pacs check`` and ``pacs reindex``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import Enum
from typing import Protocol, TypeVar

import click

from pacs.archive import check, reindex
from pacs.cli.options import ARCHIVE_SETTINGS, with_settings
from pacs.cli.output import INTERRUPTED, console, errors, human_size
from pacs.cli.progress import ProgressDisplay
from pacs.config import Settings
from pacs.dicom.uids import shown_uid
from pacs.foreign_text import visible
from pacs.server import has_files, open_archive

_WELL = frozenset({check.Finding.SOUND, check.Finding.IN_FLIGHT, check.Finding.KEPT})
#: After these an orphan is as it should be; one in quarantine waits for a person.
_MENDED = frozenset({check.Repair.ADOPTED, check.Repair.DUPLICATE_REMOVED})
_REINDEXED = frozenset(
    {reindex.Finding.REWRITTEN, reindex.Finding.ADOPTED, reindex.Finding.IN_FLIGHT}
)

_quiet = click.option("--quiet", is_flag=True, help="Show no progress and no summary.")
_grace = click.option(
    "--grace",
    type=click.IntRange(0),
    default=int(check.DEFAULT_GRACE.total_seconds()),
    metavar="SECONDS",
    show_default=True,
    help="Leave younger files alone that are not indexed; 0 only while nothing is being received.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")


@click.command("check")
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@click.option(
    "--remove-many",
    is_flag=True,
    help="With --repair, remove the rows of missing files also if they are more than 10 and 1 %.",
)
@click.option("--deep", is_flag=True, help="Read every data set and compare its SHA-256.")
@_grace
@_quiet
@_json
@with_settings(*ARCHIVE_SETTINGS, default_log_level="warning")
def check_command(
    settings: Settings,
    repair: bool,
    remove_many: bool,
    deep: bool,
    grace: int,
    quiet: bool,
    as_json: bool,
) -> int:
    """Compare the index with the storage: missing, unindexed and damaged files.

    The server may run meanwhile. Exit code 1 means that something is wrong and was not put right.
    """
    options = check.Options(
        repair=repair, deep=deep, grace=timedelta(seconds=grace), remove_many=remove_many
    )
    # As for reindex.
    archive = open_archive(settings, make=has_files(settings))
    listing = _Listing(as_json=as_json, quiet=quiet)
    is_well = True
    left = 0

    def tell(checked: check.Checked) -> None:
        nonlocal is_well, left
        left += repair and checked.finding is check.Finding.MISSING and checked.repair is None
        if checked.finding not in _WELL:
            is_well = is_well and checked.repair in _MENDED
            listing.add(checked, checked.repair.value if checked.repair else "")

    try:
        with ProgressDisplay("checking", "files", quiet=quiet) as display:
            display.total = None if quiet else archive.index.stats().instances
            is_complete = _walk(check.check(archive, options), listing, display, tell)
    finally:
        listing.finish()
        archive.close()
    _warn_of_loss(listing.counts[check.Finding.MISSING])
    if left:
        errors.print(
            f"{left:,} rows of missing files were not removed: that many are rather a volume that is not "
            "there, or part of it. If the files are lost for good: pacs check --repair --remove-many",
            style="bold red",
        )
    return _exit_code(is_complete=is_complete, is_well=is_well)


@click.command("reindex")
@_grace
@_quiet
@_json
@with_settings(*ARCHIVE_SETTINGS, default_log_level="warning")
def reindex_command(settings: Settings, grace: int, quiet: bool, as_json: bool) -> int:
    """Write the index again from the stored files.

    For an index that was lost, or after an upgrade that asks for it. It can be interrupted and run again, and the
    server may run meanwhile: while it does, files that are younger than --grace are left to it.
    """
    # An index that was lost is made anew, one beside an empty storage is not.
    archive = open_archive(settings, make=has_files(settings))
    listing = _Listing(as_json=as_json, quiet=quiet)

    def tell(reindexed: reindex.Reindexed) -> None:
        if reindexed.finding not in _REINDEXED:
            listing.add(reindexed)

    try:
        with ProgressDisplay("reindexing", "files", quiet=quiet) as display:
            display.count(archive.storage.files())
            results = reindex.reindex(archive, timedelta(seconds=grace))
            is_complete = _walk(results, listing, display, tell)
    finally:
        listing.finish()
        archive.close()
    _warn_of_loss(listing.counts[reindex.Finding.MISSING])
    is_well = not any(finding not in _REINDEXED for finding in listing.counts)
    return _exit_code(is_complete=is_complete, is_well=is_well)


class _Result(Protocol):
    """One location: what ``check`` and ``reindex`` yield alike."""

    @property
    def finding(self) -> Enum: ...
    @property
    def location(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def detail(self) -> str: ...


R = TypeVar("R", bound=_Result)


def _walk(
    results: Iterator[R], listing: _Listing, display: ProgressDisplay, tell: Callable[[R], None]
) -> bool:
    """Go through the results; return whether that was all of them, or the user stopped it."""
    try:
        for result in results:
            listing.count(result)
            tell(result)
            display.show(listing.counts.total(), listing.size_bytes)
    except KeyboardInterrupt:
        return False
    listing.is_complete = True
    return True


def _exit_code(*, is_complete: bool, is_well: bool) -> int:
    if not is_complete:
        return INTERRUPTED
    return 0 if is_well else 1


class _Listing:
    """Prints what is found while it is found, for people or as one JSON document, and counts."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.counts: Counter[Enum] = Counter()
        self.size_bytes = 0
        self.is_complete = False
        self._as_json = as_json
        self._quiet = quiet
        if as_json:
            sys.stdout.write('{"findings": [')
        self._separator = "\n"

    def count(self, result: _Result) -> None:
        self.counts[result.finding] += 1
        self.size_bytes += result.size_bytes

    def add(self, result: _Result, action: str = "") -> None:
        """List one location."""
        facts = {
            "finding": result.finding.value,
            "location": result.location,
            "sop_instance_uid": result.sop_instance_uid,
            "detail": visible(result.detail),
            "action": action,
        }
        if self._as_json:
            # Written as it comes: an archive that lost a disk has millions of them.
            sys.stdout.write(f"{self._separator}  {json.dumps(facts)}")
            self._separator = ",\n"
        else:
            if result.sop_instance_uid:
                facts["sop_instance_uid"] = shown_uid(result.sop_instance_uid)
            console.print("  ".join(filter(None, facts.values())))

    def finish(self) -> None:
        """Print the counts."""
        counts = {str(finding.value): count for finding, count in self.counts.items()}
        if self._as_json:
            rest = {"complete": self.is_complete, "counts": counts, "bytes": self.size_bytes}
            sys.stdout.write(f"\n], {json.dumps(rest)[1:]}\n")
        elif not self._quiet:
            if not self.is_complete:
                console.print("Stopped before the end.")
            for name, count in counts.items():
                console.print(f"{name:<12} {count:>12,}")
            console.print(f"{'size':<12} {human_size(self.size_bytes):>12}")


def _warn_of_loss(count: int) -> None:
    if count:
        noun = "instance is" if count == 1 else "instances are"
        errors.print(
            f"DATA LOSS: {count:,} {noun} in the index without bytes in the storage. If a volume is not mounted, "
            "mount it and run 'pacs check --repair'; else restore the files listed above from a backup.",
            style="bold red",
        )
