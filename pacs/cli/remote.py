"""``pacs ae list`` and ``pacs ae echo``: what needs nothing of the archive but its remote AEs."""

from __future__ import annotations

import click

from pacs.cli.echo import verify
from pacs.cli.options import ARCHIVE_SETTINGS, with_settings
from pacs.cli.output import print_json, print_table
from pacs.cli.peers import PEER_SETTINGS
from pacs.config import Settings
from pacs.dimse.peer import Peer
from pacs.errors import InvalidSetting
from pacs.model.remote_ae import RemoteAE, Service
from pacs.remotes import known_remotes


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*ARCHIVE_SETTINGS, "remote_aes")
def ae_list(settings: Settings, as_json: bool) -> int:
    """List the registered AEs and those of the remote_aes setting."""
    rows = [_row(remote, source) for remote, source in known_remotes(settings)]
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


@click.command("echo")
@click.argument("title")
@with_settings(*PEER_SETTINGS, "log_level")
def ae_echo(settings: Settings, title: str) -> int:
    """Send a C-ECHO to the registered AE TITLE."""
    for remote, _ in known_remotes(settings):
        if remote.title == title:
            return verify(settings, Peer(remote.title, remote.host, remote.port, remote.tls))
    raise InvalidSetting(f"no remote AE {title!r} is registered; see: pacs ae list")


def services_text(services: frozenset[Service]) -> str:
    """What an AE may do, in one cell."""
    if services == frozenset(Service):
        return "all"
    return " ".join(service.value for service in Service if service in services)


def _row(remote: RemoteAE, source: str) -> tuple[str | int, ...]:
    destinations = "any" if remote.destinations is None else " ".join(sorted(remote.destinations))
    return (
        remote.title,
        remote.host,
        remote.port,
        services_text(remote.services),
        destinations,
        source,
        remote.tls,
        remote.parallel_associations,
        remote.description,
    )
