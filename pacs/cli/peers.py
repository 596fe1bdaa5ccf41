"""The peer that a command calls: by its address, or by the AE title under which it is registered."""

from __future__ import annotations

import click

from pacs.cli.lazy import did_you_mean
from pacs.cli.options import SCU_SETTINGS
from pacs.config import Settings
from pacs.dimse.peer import Peer
from pacs.errors import InvalidSetting, NoArchive
from pacs.remotes import configured_remotes, known_remotes

#: What it takes to call a peer by its address or by the title under which this archive knows it.
PEER_SETTINGS = ("data_dir", "database_url", "remote_aes", *SCU_SETTINGS)

peer_argument = click.argument("peer", metavar="TITLE[@HOST:PORT]")
tls_option = click.option(
    "--tls/--no-tls",
    "with_tls",
    default=None,
    help="Call the peer with TLS.  [as it is registered; else no]",
)


def peer_named(settings: Settings, text: str, *, with_tls: bool | None = None) -> Peer:
    """The peer at ``TITLE@HOST:PORT``, or that of a registered ``TITLE``.

    Raises:
        InvalidSetting: it is neither.
        IndexUnavailable: the registered ones cannot be read.
    """
    if "@" in text or ":" in text:
        return Peer.parse(text, tls=bool(with_tls))
    hint = "see: pacs ae list"
    try:
        remotes = [remote for remote, _ in known_remotes(settings)]
    except NoArchive as error:
        # Those of the settings can be called without an archive.
        remotes, hint = configured_remotes(settings), error.message
    title = text.strip()
    for remote in remotes:
        if remote.title == title:
            is_tls = remote.tls if with_tls is None else with_tls
            return Peer(remote.title, remote.host, remote.port, is_tls)
    if near := did_you_mean(title, [remote.title for remote in remotes]):
        hint = f"{near[1:2].lower()}{near[2:]}"
    raise InvalidSetting(f"expected TITLE@HOST:PORT or a registered AE title, got {text!r}; {hint}")
