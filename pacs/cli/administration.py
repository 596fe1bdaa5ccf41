"""``pacs db`` and ``pacs stats``."""

from __future__ import annotations

from contextlib import closing

import click

from pacs.archive.mounted import accept_storage
from pacs.cli.options import ARCHIVE_SETTINGS, with_settings
from pacs.cli.output import console, human_size, print_json
from pacs.config import Settings
from pacs.server import current_revision, open_archive, upgrade_index


@click.command("upgrade")
@click.option("--make", is_flag=True, help="Make the index if there is none.")
@with_settings(*ARCHIVE_SETTINGS)
def db_upgrade(settings: Settings, make: bool) -> int:
    """Migrate the index to the newest schema; "pacs serve" does the same at start."""
    before, after = upgrade_index(settings, make=make)
    console.print(
        f"index is at revision {after}" + ("" if before == after else f", was {before or 'empty'}")
    )
    return 0


@click.command("current")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*ARCHIVE_SETTINGS)
def db_current(settings: Settings, as_json: bool) -> int:
    """Show the schema revision of the index, and the newest one; exit code 1 if they differ."""
    current, newest = current_revision(settings)
    if as_json:
        print_json({"current": current, "newest": newest})
    else:
        console.print(f"index is at revision {current or 'none'}; newest is {newest}")
    return 0 if current == newest else 1


@click.command("accept-storage")
@with_settings(*ARCHIVE_SETTINGS)
def db_accept_storage(settings: Settings) -> int:
    """Let the index belong to the storage that the settings name.

    After files were moved or restored without the file storage-id. Wrong if it is just not mounted, or that of another
    archive: look before with "pacs config show", and afterwards with "pacs check".
    """
    with closing(open_archive(settings, make=False)) as archive:
        before = archive.index.storage_identity()
        after = accept_storage(archive.storage, archive.index)
        instances = archive.index.stats().instances
    console.print(f"the index belongs to the storage {archive.storage.description} ({after})")
    if before not in (None, after):
        console.print(f"before, it belonged to {before}")
    console.print(f"{instances:,} instances are indexed; compare: pacs check")
    return 0


@click.command("stats")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*ARCHIVE_SETTINGS)
def stats_command(settings: Settings, as_json: bool) -> int:
    """Count patients, studies, series, instances and the bytes of their data sets."""
    with closing(open_archive(settings, make=False)) as archive:
        stats = archive.index.stats()
        conflicts = 0 if as_json else archive.index.count_patient_conflicts()
    if as_json:
        print_json({name: getattr(stats, name) for name in stats.__dataclass_fields__})
        return 0
    for name in ("patients", "studies", "series", "instances"):
        console.print(f"{name:<10} {getattr(stats, name):>12,}")
    console.print(f"{'size':<10} {human_size(stats.size_bytes):>12}")
    if conflicts:
        console.print(f"{'conflicts':<10} {conflicts:>12,}  see 'pacs patient conflicts'")
    return 0
