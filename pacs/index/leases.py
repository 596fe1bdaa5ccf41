"""Who is still there: a lease for each process that works on something, and what is taken from those that are not.

Theory of operation. What takes long (a retrieve, a storage commitment transaction) names the process that works on it
(``pacs.index.process_token``). Such a process renews a row of its own well before it runs out. Any process may sweep:
the claims of a process that this one can see, and that has ended, are released at once; those of any other process when
its lease has run out. The clock of a lease is the database's, so hosts may disagree about the time.

A process that was taken for dead and is not (it was stopped, or cut off from the database) does no harm. What it still
records of a retrieve counts; a claim that it has lost it cannot give up, nor put off, any more, and what it finds out
of such a storage commitment is not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from pacs.index.engine import Engine
from pacs.index.process_token import ProcessToken
from pacs.index.tables import lease

#: A process without a lease (a command, an older release) that cannot be seen counts as ended after this time.
_SILENT_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Claims:
    """Rows of a table whose column ``process`` says who works on them."""

    table: sa.Table
    #: Which rows somebody works on.
    is_claimed: sa.ColumnElement[bool]
    #: What a row is set to when its process has ended; of the time.
    released: Callable[[datetime], Mapping[str, Any]]

    def processes(self, connection: sa.Connection) -> dict[str, datetime]:
        """The processes that have claims, and when each recorded something last."""
        columns = self.table.c
        statement = (
            sa.select(columns.process, sa.func.max(columns.active_at).label("active_at"))
            .where(self.is_claimed)
            .group_by(columns.process)
        )
        return {row.process: row.active_at for row in connection.execute(statement)}

    def release(self, connection: sa.Connection, processes: Sequence[str]) -> int:
        """Take the claims from processes; return how many there were."""
        statement = (
            sa.update(self.table)
            .where(self.is_claimed, self.table.c.process.in_(processes))
            .values(**self.released(datetime.now(UTC)))
        )
        return connection.execute(statement).rowcount


@dataclass(frozen=True, slots=True)
class Swept:
    """How many claims of processes that have ended were released."""

    retrieves: int = 0
    commitments: int = 0


class Leases:
    """The leases, and the claims of those who hold them; safe to call from several threads.

    Every method raises IndexUnavailable when the database cannot be reached; then nothing is changed.
    """

    def __init__(self, engine: Engine, retrieves: Claims, commitments: Claims) -> None:
        """Keep the leases in ``engine``."""
        self._engine = engine
        self._retrieves = retrieves
        self._commitments = commitments
        self._clock = _database_clock(engine)

    def renew(self, seconds: float) -> float:
        """Let this process have a lease for so long from now; return the database's time in seconds."""
        owner = str(ProcessToken.own())
        expires_at = self._clock + seconds
        update = sa.update(lease).where(lease.c.process == owner).values(expires_at=expires_at)
        insert = sa.insert(lease).values(process=owner, expires_at=expires_at)

        def work(connection: sa.Connection) -> float:
            until = connection.scalar(update.returning(lease.c.expires_at))
            if until is None:
                until = connection.scalar(insert.returning(lease.c.expires_at))
            return float(until) - seconds

        return self._engine.transact(work)

    def give_up(self) -> None:
        """End the lease of this process, which works on nothing any more."""
        statement = sa.delete(lease).where(lease.c.process == str(ProcessToken.own()))
        self._engine.transact(lambda connection: connection.execute(statement) and None)

    def sweep(self, *, by_lease: bool = False) -> Swept:
        """Release the claims of processes that have ended.

        With ``by_lease`` also of those that cannot be seen from here and whose lease has run out. Only a process that
        has kept its own all the while may say so: after an outage of the database nobody could renew any.
        """
        with self._engine.read() as connection:
            if not self._ended(connection, by_lease=by_lease):
                return Swept()

        def work(connection: sa.Connection) -> Swept:
            ended = self._ended(connection, by_lease=by_lease, for_update=True)
            swept = Swept(
                self._retrieves.release(connection, ended),
                self._commitments.release(connection, ended),
            )
            connection.execute(sa.delete(lease).where(lease.c.process.in_(ended)))
            return swept

        return self._engine.transact(work)

    def _ended(
        self, connection: sa.Connection, *, by_lease: bool, for_update: bool = False
    ) -> list[str]:
        claims = self._retrieves.processes(connection)
        for other, active_at in self._commitments.processes(connection).items():
            claims[other] = max(active_at, claims.get(other, active_at))
        has_run_out = dict(self._has_run_out(connection, for_update=for_update))
        silent_since = datetime.now(UTC) - _SILENT_AFTER
        ended = []
        for text in claims.keys() | has_run_out.keys():
            process = ProcessToken.parse(text)
            if process.is_visible:
                is_over = not process.is_alive
            elif text in has_run_out:
                is_over = by_lease and has_run_out[text]
            else:
                is_over = process.is_of_an_earlier_boot or claims[text] < silent_since
            if is_over:
                ended.append(text)
        return ended

    def _has_run_out(
        self, connection: sa.Connection, *, for_update: bool
    ) -> Iterable[tuple[str, bool]]:
        statement = sa.select(lease.c.process, lease.c.expires_at < self._clock)
        if for_update:
            # One who is just renewing his lease has it (PostgreSQL; on SQLite there is one writer).
            statement = statement.with_for_update()
        return ((process, bool(over)) for process, over in connection.execute(statement))


def _database_clock(engine: Engine) -> sa.ColumnElement[float]:
    """The database's time in seconds since 1970."""
    clock: sa.ColumnElement[float]
    if engine.is_sqlite:
        clock = (sa.func.julianday("now", type_=sa.Float()) - 2440587.5) * 86400.0
    else:
        clock = sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()), sa.Float())
    return clock
