"""``pacs ae``: the remote AEs this archive knows."""

from __future__ import annotations

from contextlib import closing

import click

from pacs.cli.options import ARCHIVE_SETTINGS, SCU_SETTINGS, with_settings
from pacs.cli.output import console, print_json, print_table
from pacs.cli.query import verify
from pacs.config import Settings
from pacs.dimse.query_scu import Peer
from pacs.errors import InvalidSetting
from pacs.index.records import MOST_PARALLEL_ASSOCIATIONS, RemoteAE, Service
from pacs.server import configured_remotes, open_archive

_SERVICES = [service.value for service in Service]


@click.group("ae")
def ae_group() -> None:
    """Register remote AEs: who may call, from where, and where C-MOVE may send."""


@ae_group.command("add")
@click.argument("title")
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65_535))
@click.option(
    "--allow",
    "services",
    multiple=True,
    type=click.Choice(_SERVICES),
    help="Service it may use; repeat for several.  [all]",
)
@click.option(
    "--destination",
    "destinations",
    multiple=True,
    metavar="TITLE",
    help="Move Destination it may name; repeat for several.  [any]",
)
@click.option(
    "--tls/--no-tls",
    "with_tls",
    default=False,
    show_default=True,
    help="Call it with TLS, and let it in with TLS only.",
)
@click.option(
    "--parallel-associations",
    type=click.IntRange(1, MOST_PARALLEL_ASSOCIATIONS),
    default=1,
    show_default=True,
    help="Associations that one C-MOVE to it may use at a time.",
)
@click.option("--description", default="", help="A note for people.")
@with_settings(*ARCHIVE_SETTINGS)
def ae_add(
    settings: Settings,
    title: str,
    host: str,
    port: int,
    services: tuple[str, ...],
    destinations: tuple[str, ...],
    with_tls: bool,
    parallel_associations: int,
    description: str,
) -> int:
    """Register AE TITLE at HOST:PORT, or change what is registered.

    A running server knows a new AE at once, and a change within two seconds.
    """
    remote = RemoteAE(
        title=title,
        host=host,
        port=port,
        services=frozenset(map(Service, services)) or frozenset(Service),
        destinations=frozenset(destinations) or None,
        tls=with_tls,
        parallel_associations=parallel_associations,
        description=description,
    )
    with closing(open_archive(settings)) as archive:
        archive.index.add_remote_ae(remote)
    console.print(f"{title} is registered at {host}:{port}", markup=False)
    return 0


@ae_group.command("remove")
@click.argument("title")
@with_settings(*ARCHIVE_SETTINGS)
def ae_remove(settings: Settings, title: str) -> int:
    """Forget AE TITLE."""
    with closing(open_archive(settings, make=False)) as archive:
        removed = archive.index.remove_remote_ae(title)
    if not removed:
        raise InvalidSetting(f"no remote AE {title!r} is registered")
    console.print(f"{title} is removed", markup=False)
    return 0


@ae_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*ARCHIVE_SETTINGS, "remote_aes")
def ae_list(settings: Settings, as_json: bool) -> int:
    """List the registered AEs and those of the remote_aes setting."""
    rows = [_row(remote, source) for remote, source in _known(settings)]
    headings = (
        "title",
        "host",
        "port",
        "may",
        "may move to",
        "from",
        "TLS",
        "associations",
        "description",
    )
    if as_json:
        print_json([dict(zip(headings, row, strict=True)) for row in rows])
    else:
        words = {True: "yes", False: "no"}
        shown = ([words[cell] if isinstance(cell, bool) else cell for cell in row] for row in rows)
        print_table("", headings, shown)
    return 0


@ae_group.command("echo")
@click.argument("title")
@with_settings(*ARCHIVE_SETTINGS, "remote_aes", *SCU_SETTINGS)
def ae_echo(settings: Settings, title: str) -> int:
    """Send a C-ECHO to the registered AE TITLE."""
    for remote, _ in _known(settings):
        if remote.title == title:
            return verify(settings, Peer(remote.title, remote.host, remote.port, remote.tls))
    raise InvalidSetting(f"no remote AE {title!r} is registered; see: pacs ae list")


def _known(settings: Settings) -> list[tuple[RemoteAE, str]]:
    with closing(open_archive(settings, make=False)) as archive:
        registered = {remote.title: remote for remote in archive.index.remote_aes()}
    known = [(remote, "index") for remote in registered.values()]
    configured = configured_remotes(settings)
    known += [(remote, "settings") for remote in configured if remote.title not in registered]
    return sorted(known, key=lambda pair: pair[0].title)


def _row(remote: RemoteAE, source: str) -> tuple[str | int, ...]:
    services = (
        "all"
        if remote.services == frozenset(Service)
        else " ".join(service.value for service in Service if service in remote.services)
    )
    destinations = "any" if remote.destinations is None else " ".join(sorted(remote.destinations))
    return (
        remote.title,
        remote.host,
        remote.port,
        services,
        destinations,
        source,
        remote.tls,
        remote.parallel_associations,
        remote.description,
    )
