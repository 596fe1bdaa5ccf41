"""``pacs echo``."""

from __future__ import annotations

import time

import click

from pacs.cli import verification
from pacs.cli.options import with_settings
from pacs.cli.output import console
from pacs.cli.peers import PEER_SETTINGS, peer_argument, peer_named, tls_option
from pacs.config import Settings
from pacs.dimse.peer import Peer
from pacs.wire.tls import TLSOptions


@click.command("echo")
@peer_argument
@tls_option
@with_settings(*PEER_SETTINGS, default_log_level="warning")
def echo_command(settings: Settings, peer: str, with_tls: bool | None) -> int:
    """Send a C-ECHO: is the remote AE there, and does it let us in?"""
    return verify(settings, peer_named(settings, peer, with_tls=with_tls))


def verify(settings: Settings, peer: Peer) -> int:
    """C-ECHO to one AE and say how long it took."""
    calling = verification.Calling(
        ae_title=settings.ae_title,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        acse_timeout_seconds=settings.acse_timeout_seconds,
        dimse_timeout_seconds=settings.dimse_timeout_seconds,
        tls=TLSOptions(
            certificate=settings.tls_certificate,
            key=settings.tls_key,
            key_password=settings.tls_key_password,
            ca=settings.tls_ca,
            check_host_name=settings.tls_check_host_name,
        ),
    )
    started = time.monotonic()
    verification.echo(calling, peer)
    console.print(f"{peer} answered in {(time.monotonic() - started) * 1000:.1f} ms")
    return 0
