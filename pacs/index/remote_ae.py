"""The known remote AEs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from pacs.dicom.ae_titles import normalised_ae_title
from pacs.errors import InvalidSetting
from pacs.index.engine import Engine
from pacs.index.remote_ae_rows import COLUMNS
from pacs.index.remote_ae_rows import remote_ae as from_row
from pacs.index.tables import remote_ae
from pacs.model.remote_ae import MOST_PARALLEL_ASSOCIATIONS, RemoteAE

_HIGHEST_PORT = 65_535


class RemoteAEs:
    """Reads and writes the remote AEs; safe to call from several threads."""

    def __init__(self, engine: Engine) -> None:
        """Keep them in ``engine``."""
        self._engine = engine

    def all(self) -> list[RemoteAE]:
        """Every remote AE, by title.

        Raises:
            IndexUnavailable: the index cannot be read.
        """
        with self._engine.read() as connection:
            return [from_row(row) for row in connection.execute(_ALL)]

    def add(self, remote: RemoteAE) -> None:
        """Add a remote AE, or replace the one with its title.

        Raises:
            InvalidSetting: a value is not usable.
            IndexUnavailable: it was not added.
        """
        row = _row(remote)

        def work(connection: sa.Connection) -> None:
            connection.execute(_DELETE_ONE, {"wanted": row["title"]})
            connection.execute(sa.insert(remote_ae), row)

        self._engine.transact(work)

    def change(
        self, title: str, change: Callable[[RemoteAE | None], RemoteAE]
    ) -> tuple[RemoteAE | None, RemoteAE]:
        """Put what ``change`` makes of the remote AE with this title in its place; return both.

        ``change`` gets None if there is none, and may be called several times.

        Raises:
            InvalidSetting: a value is not usable; and what ``change`` raises.
            IndexUnavailable: nothing was changed.
        """
        wanted = {"wanted": valid_ae_title(title)}

        def work(connection: sa.Connection) -> tuple[RemoteAE | None, RemoteAE]:
            found = connection.execute(_SELECT_ONE, wanted).one_or_none()
            before = None if found is None else from_row(found)
            row = _row(change(before))
            connection.execute(_DELETE_ONE, wanted)
            connection.execute(sa.insert(remote_ae), row)
            return before, from_row([row[name] for name in COLUMNS])

        return self._engine.transact(work)

    def remove(self, title: str) -> bool:
        """Remove a remote AE; return whether there was one.

        Raises:
            IndexUnavailable: it was not removed.
        """
        parameters = {"wanted": valid_ae_title(title)}
        return self._engine.transact(
            lambda connection: connection.execute(_DELETE_ONE, parameters).rowcount > 0
        )


_IS_WANTED = remote_ae.c.title == sa.bindparam("wanted")
_DELETE_ONE = sa.delete(remote_ae).where(_IS_WANTED)
_ALL = sa.select(*(remote_ae.c[name] for name in COLUMNS)).order_by(remote_ae.c.title)
_SELECT_ONE = _ALL.where(_IS_WANTED)


def valid_ae_title(title: str) -> str:
    """The title without the spaces around it.

    Raises:
        InvalidSetting: it is not an AE title.
    """
    normalised = normalised_ae_title(title)
    if normalised is None:
        raise InvalidSetting(
            f"{title!r} is not an AE title: 1 to 16 ASCII characters, no backslash, not only spaces."
        )
    return normalised


def _row(remote: RemoteAE) -> dict[str, Any]:
    title = valid_ae_title(remote.title)
    host = remote.host.strip()
    if not host or not host.isprintable() or " " in host:
        raise InvalidSetting(f"{remote.host!r} is not the host name or address of {title}.")
    if not 1 <= remote.port <= _HIGHEST_PORT:
        raise InvalidSetting(f"The port of {title} is {remote.port}; it has to be 1 to 65535.")
    if not 1 <= remote.parallel_associations <= MOST_PARALLEL_ASSOCIATIONS:
        raise InvalidSetting(
            f"{title} has {remote.parallel_associations} parallel associations; "
            f"1 to {MOST_PARALLEL_ASSOCIATIONS} are possible."
        )
    destinations = remote.destinations
    if destinations is not None:
        destinations = frozenset(valid_ae_title(destination) for destination in destinations)
    return {
        "title": title,
        "host": host,
        "port": remote.port,
        "services": json.dumps(sorted(service.value for service in remote.services)),
        "destinations": None if destinations is None else json.dumps(sorted(destinations)),
        "tls": remote.tls,
        "parallel_associations": remote.parallel_associations,
        "description": remote.description,
    }
