"""The remote AEs that an archive knows: those of the settings, and those of its index.

Apart from ``pacs.server``, for commands that need nothing else of an archive: that takes two seconds of CPU to import.
"""

from __future__ import annotations

from contextlib import closing

from pacs.config import Settings
from pacs.index import remote_ae_rows
from pacs.model.remote_ae import RemoteAE


def configured_remotes(settings: Settings) -> list[RemoteAE]:
    """The remote AEs named by the ``remote_aes`` setting."""
    return [
        RemoteAE(title=remote.title, host=remote.host, port=remote.port, tls=remote.tls)
        for remote in settings.remote_aes
    ]


def registered_remotes(settings: Settings) -> list[RemoteAE]:
    """The remote AEs of the index, by title; makes no archive.

    Raises:
        NoArchive, IndexUnavailable, InvalidSetting: as for ``pacs.server.open_archive``.
    """
    remotes = remote_ae_rows.read(settings.database_url)
    if remotes is not None:
        return remotes
    from pacs.server import open_archive  # noqa: PLC0415 - there is something to migrate or to explain

    with closing(open_archive(settings, make=False)) as archive:
        return archive.index.remote_aes.all()


def known_remotes(settings: Settings) -> list[tuple[RemoteAE, str]]:
    """Every known remote AE by title, and where it is registered: ``index``, which wins, or ``settings``.

    Raises:
        NoArchive, IndexUnavailable, InvalidSetting: as for ``registered_remotes``.
    """
    known = {remote.title: (remote, "settings") for remote in configured_remotes(settings)}
    known |= {remote.title: (remote, "index") for remote in registered_remotes(settings)}
    return [known[title] for title in sorted(known)]
