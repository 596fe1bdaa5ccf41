"""Connections and transactions. The only module that opens or commits one.

Reading and writing have separate pools: a slow C-FIND peer may hold every reading connection and stores go
on. On SQLite the writing pool has one connection and so is the process's writer lock; its transactions begin
IMMEDIATE, because a deferred one that turns into a writer fails at once when another process wrote meanwhile.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from pacs.errors import IndexUnavailable, InvalidSetting, PacsError
from pacs.index import time_limit
from pacs.index.sqlite_file import SqliteFile
from pacs.index.unshared_reader import connect_reader, forget_unshared

Backend = Literal["sqlite", "postgresql"]
T = TypeVar("T")

#: More attempts than the writers that meet on one new study; each lost race means another one has won.
_ATTEMPTS = 10
_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.25

#: query_canceled: what a statement timeout ends with.
_TIMED_OUT_SQLSTATE = "57014"
#: serialization_failure, deadlock_detected: PostgreSQL asks to run the transaction again.
_RETRY_SQLSTATES = frozenset({"40001", "40P01"})

#: The class of "disk full" and "out of memory".
_INSUFFICIENT_RESOURCES = "53"
#: The volume is full, or the write failed: the last frame of the transaction, which makes it one, is not in the log.
_UNWRITTEN_SQLITE_CODES = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE})

#: lock_not_available: ``lock_timeout`` is over.
_LOCK_NOT_AVAILABLE = "55P03"

_CONNECT_TIMEOUT_SECONDS = 10
_POOL_TIMEOUT_SECONDS = 30
_SQLITE_READERS = 64
#: How long a writer waits for others in all: for a connection, then for the lock.
_LOCK_TIMEOUT_SECONDS = 20
#: A wait for a connection that is not worth a statement.
_UNNOTICED_SECONDS = 0.5
#: What is left for a lock after a long wait for a connection.
_LAST_TRY_SECONDS = 0.05
_WRITE_TIMEOUT_SECONDS = 120
#: How long the database may work on a read, if nobody says otherwise.
QUERY_TIMEOUT_SECONDS = 120.0
#: A reader is idle between two fetches while its peer takes a response; the writer never waits for a peer.
_IDLE_READER_TIMEOUT_SECONDS = 600
_IDLE_WRITER_TIMEOUT_SECONDS = 60

_SUPPORTED = "use sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE"


class Attempt(Enum):
    """How a transaction that is tried once went."""

    COMMITTED = 1
    ROLLED_BACK = 2
    #: The connection broke during COMMIT.
    MAY_HAVE_COMMITTED = 3


class StaleState(Exception):
    """What a transaction relied on was changed by another one; running it again will see the change."""


# UnicodeEncodeError: a lone surrogate, which the drivers do not take.
_LIBRARY_ERRORS = (StaleState, PoolTimeoutError, DBAPIError, UnicodeEncodeError)
_REFUSED = "The index refused a value or a reference."


class Engine:
    """The database: two connection pools and the rules of a transaction."""

    def __init__(self, url: sa.URL, query_timeout_seconds: float = QUERY_TIMEOUT_SECONDS) -> None:
        """Prepare both pools; connects to nothing yet. For the time-out see ``create``."""
        self.backend: Backend = "sqlite" if url.get_backend_name() == "sqlite" else "postgresql"
        self._url = url
        self.query_timeout_seconds = query_timeout_seconds
        self._file = SqliteFile(str(url.database)) if self.is_sqlite else None
        self._readers = self._pool(query_timeout_seconds, writes=False)
        self._writers = self._pool(_WRITE_TIMEOUT_SECONDS, writes=True)
        #: Called before each read; see ``Index.before_reads``.
        self.before_reads: Callable[[], None] = _nothing_to_wait_for

    def _pool(self, timeout_seconds: float, *, writes: bool) -> sa.Engine:
        if self._file is not None:
            return _sqlite(self._url, timeout_seconds, self._file, writes=writes)
        return _postgres(self._url, timeout_seconds, writes=writes)

    @property
    def is_sqlite(self) -> bool:
        """Whether the index is an SQLite file."""
        return self.backend == "sqlite"

    @property
    def may_have_tables(self) -> bool:
        """Whether there is something to connect to; to ask SQLite would make the file."""
        return self._file is None or self._file.exists

    def close_to_others(self) -> list[str]:
        """See ``SqliteFile.close_to_others``; who may read PostgreSQL's files is not ours to say."""
        return [] if self._file is None else self._file.close_to_others()

    @property
    def description(self) -> str:
        """The database URL without its password."""
        url = self._url.set(drivername="sqlite") if self.is_sqlite else self._url
        return url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One read-only transaction: everything in it sees the same state on SQLite.

        Raises:
            IndexUnavailable: the database cannot be reached, is busy, or failed.
        """
        self.before_reads()
        with self._translated(), self._readers.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One writing transaction, committed when the block ends well; tried once.

        Raises:
            IndexUnavailable: as for ``read``.
        """
        with self._translated(), self._writers.begin() as connection:
            yield connection

    @property
    def dialect(self) -> sa.Dialect:
        """How statements are written for this database."""
        return self._writers.dialect

    def attempt(self, work: Callable[[Any], bool], *, since: float | None = None) -> Attempt:
        """Run ``work`` on a cursor of the driver in a writing transaction; commit if it returns True.

        For the one statement of which there are thousands a second: SQLAlchemy's work per statement is four
        times the driver's. Whatever fails, whoever calls runs the same through ``transact`` then, which is where
        races are run again and errors get their words.

        Args:
            work: What to do with the cursor.
            since: When whoever calls began to wait (``time.monotonic``); now, if nothing is said.

        Raises:
            IndexUnavailable: the file is gone, or the time to wait for another writer is used up; nobody is to wait
                twice as long.
        """
        is_committing = False
        since = time.monotonic() if since is None else since
        if self._file is not None:
            self._file.require_same()
        try:
            connection = self._writers.raw_connection()
        except PoolTimeoutError as error:
            raise _translate(error) from error
        except Exception:  # noqa: BLE001 - transact() meets the same and translates it
            return Attempt.ROLLED_BACK
        try:
            cursor = connection.cursor()
            with self._patience(connection, since):
                if self.is_sqlite:
                    cursor.execute("BEGIN IMMEDIATE")
                if work(cursor):
                    is_committing = True
                    connection.commit()
                    return Attempt.COMMITTED
                connection.rollback()
        except Exception as error:
            with suppress(Exception):
                connection.rollback()
            connection.invalidate()
            if _has_waited(error):
                raise IndexUnavailable(
                    detail=_reason(error), may_have_committed=is_committing
                ) from error
            if is_committing and not _is_rolled_back(error):
                return Attempt.MAY_HAVE_COMMITTED
        finally:
            connection.close()
        return Attempt.ROLLED_BACK

    def transact(
        self,
        work: Callable[[sa.Connection], T],
        *,
        may_have_committed: bool = False,
        since: float | None = None,
    ) -> T:
        """Run ``work`` in a writing transaction and return its result once that is committed.

        ``work`` may run several times, so outside the transaction it changes nothing. Rerun are lost races
        (a deadlock; two writers inserting one study; a parent row removed under an instance) and a connection
        found dead. A connection lost during COMMIT leaves open whether it happened; so whatever ``work`` does
        has to recognise its own earlier success.

        Args:
            work: What to do on the connection.
            may_have_committed: Whether an earlier try of the same did, for the error.
            since: As for ``attempt``; all reruns together wait for others no longer than one.

        Raises:
            IndexUnavailable: as for ``read``, or the races did not end; ``may_have_committed`` tells whether
                a COMMIT was under way when the connection broke.
        """
        since = time.monotonic() if since is None else since
        for attempt in range(_ATTEMPTS):
            is_committing = False
            try:
                with (
                    self._writers.connect() as connection,
                    self._patience(connection.connection, since),
                ):
                    result = work(connection)
                    is_committing = True
                    connection.commit()
                    return result
            except _LIBRARY_ERRORS as error:
                may_have_committed |= is_committing and not _is_rolled_back(error)
                if attempt == _ATTEMPTS - 1 or not _is_worth_another_attempt(error):
                    raise _translate(error, may_have_committed=may_have_committed) from error
            pause = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter
        raise AssertionError("unreachable")

    @contextmanager
    def _patience(self, connection: Any, since: float) -> Iterator[None]:
        """Let a driver's connection wait for a lock only as long as is left of the time since ``since``."""
        waited = time.monotonic() - since
        if waited < _UNNOTICED_SECONDS:
            yield
            return
        left = round(max(_LOCK_TIMEOUT_SECONDS - waited, _LAST_TRY_SECONDS) * 1000)
        whole = round(_LOCK_TIMEOUT_SECONDS * 1000)
        self._set_patience(connection, left)
        try:
            yield
        finally:
            if self.is_sqlite:
                self._set_patience(connection, whole)

    def _set_patience(self, connection: Any, milliseconds: int) -> None:
        # A connection that is broken says so again when it is used, where that is dealt with.
        with suppress(Exception):
            connection.cursor().execute(
                f"PRAGMA busy_timeout = {milliseconds}"
                if self.is_sqlite
                else f"SET LOCAL lock_timeout = '{milliseconds}ms'"
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the driver's errors into the domain's, with the cause chained."""
        try:
            yield
        except _LIBRARY_ERRORS as error:
            if _is_timed_out(error):
                raise IndexUnavailable(
                    f"No result within {self.query_timeout_seconds:g} s: narrow the query"
                ) from error
            raise _translate(error) from error

    def close(self) -> None:
        """Close the pooled connections."""
        self._readers.dispose()
        self._writers.dispose()


def create(url: str, *, query_timeout_seconds: float = QUERY_TIMEOUT_SECONDS) -> Engine:
    """Make the engine for a database URL; connects to nothing yet.

    Args:
        url: See ``Index.open``.
        query_timeout_seconds: How long the database may work before each batch of a read's rows.

    Raises:
        InvalidSetting: the URL cannot be used. Its password is never in the message.
    """
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        # Not chained: the cause may quote the URL and with it the password.
        raise InvalidSetting(f"The database URL cannot be parsed; {_SUPPORTED}.") from None
    name = parsed.drivername
    if name in {"postgres", "postgresql", "postgresql+psycopg"}:
        return Engine(parsed.set(drivername="postgresql+psycopg"), query_timeout_seconds)
    if name not in {"sqlite", "sqlite+pysqlite"}:
        raise InvalidSetting(f"The database {name!r} is not supported; {_SUPPORTED}.")
    if parsed.host or parsed.username or parsed.password:
        raise InvalidSetting(
            "An SQLite URL has three slashes before a relative path, four before /."
        )
    if parsed.database in {None, "", ":memory:"} or "mode" in parsed.query:
        raise InvalidSetting(
            "An SQLite index has to be a file: several connections share it, and it has to last."
        )
    return Engine(parsed.set(drivername="sqlite+pysqlite"), query_timeout_seconds)


def _nothing_to_wait_for() -> None:
    pass


def _sqlite(url: sa.URL, timeout_seconds: float, file: SqliteFile, *, writes: bool) -> sa.Engine:
    engine = sa.create_engine(
        url,
        hide_parameters=True,
        poolclass=QueuePool,
        # One writer: threads queue here instead of polling for the file lock, which costs up to 100 ms a turn.
        # A reader is kept when it is given back: to open one takes longer than most reads.
        pool_size=1 if writes else _SQLITE_READERS,
        max_overflow=0,
        pool_use_lifo=True,
        pool_timeout=_LOCK_TIMEOUT_SECONDS if writes else _POOL_TIMEOUT_SECONDS,
        connect_args={"timeout": _LOCK_TIMEOUT_SECONDS, "check_same_thread": False},
    )

    def configure(connection: sqlite3.Connection, record: object) -> None:
        file.learn()
        # The driver's own transaction control starts too late and never IMMEDIATE: SQLAlchemy's documented
        # remedy is to switch it off and emit BEGIN in the event below.
        connection.isolation_level = None
        for pragma in _WRITER_PRAGMAS if writes else _READER_PRAGMAS:
            _run_patiently(connection, f"PRAGMA {pragma}")
        if not writes:
            time_limit.watch(connection, record, timeout_seconds)

    def connect(
        dialect: sa.Dialect, record: Any, arguments: Any, named: dict[str, Any]
    ) -> sqlite3.Connection | None:
        # Or SQLite would make a new file.
        file.require_same()
        if not writes:
            return connect_reader(dialect, record, arguments, named)
        file.make()
        return None

    def begin(connection: sa.Connection) -> None:
        file.require_same()
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    sa.event.listen(engine, "do_connect", connect)
    if not writes:
        sa.event.listen(engine, "checkin", forget_unshared)
    sa.event.listen(engine, "connect", configure)
    sa.event.listen(engine, "begin", begin)
    return engine


_PRAGMAS = (
    "foreign_keys=ON",
    # Reads bypass a copy into the page cache, which is then shared by all connections.
    "mmap_size=268435456",
)
_WRITER_PRAGMAS = (
    *_PRAGMAS,
    "journal_mode=WAL",
    # In WAL mode NORMAL does not sync a commit: a power loss would take acknowledged instances.
    "synchronous=FULL",
    "cache_size=-16384",
    # Give the space of a log that a long reader let grow back to the disk.
    "journal_size_limit=67108864",
)
_READER_PRAGMAS = (*_PRAGMAS, "query_only=ON", "cache_size=-4096")


def _run_patiently(connection: sqlite3.Connection, statement: str) -> None:
    # Turning a new file to WAL needs it exclusively, and SQLite does not apply the busy timeout there: two
    # processes starting at once would meet "database is locked".
    deadline = time.monotonic() + _LOCK_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute(statement).fetchall()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


# The server's defaults are for analytic queries on spinning disks. What is looked up here is a few rows by an index
# that is in memory: with the default page cost, a C-FIND by date and modality read every patient to join 100 of them
# (4.6 ms instead of 3.0 at 12,000 patients). Compiling a query takes longer than it saves: the first
# 500 of 2,000 studies came after 26 to 40 ms instead of 16.
_PLANNER = "SET random_page_cost = 1.1; SET jit = off"


def _postgres(url: sa.URL, timeout_seconds: float, *, writes: bool) -> sa.Engine:
    connect_args: dict[str, Any] = {
        "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
        # Not the database's own: with SQL_ASCII the driver would return bytes.
        "client_encoding": "utf8",
        # A server that vanished without a word is noticed in a minute instead of hours.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    }
    engine = sa.create_engine(
        url,
        hide_parameters=True,
        pool_size=8,
        max_overflow=8 if writes else 32,
        pool_timeout=_LOCK_TIMEOUT_SECONDS if writes else _POOL_TIMEOUT_SECONDS,
        pool_recycle=1800,
        # A read cannot be repeated once rows have gone out, so its connection is proved first. A write is
        # repeated by ``transact`` if the connection turns out dead, which saves a round trip per commit.
        pool_pre_ping=not writes,
        connect_args={key: value for key, value in connect_args.items() if key not in url.query},
    )
    idle = _IDLE_WRITER_TIMEOUT_SECONDS if writes else _IDLE_READER_TIMEOUT_SECONDS
    settings = (
        f"SET application_name = 'pacs'; SET timezone = 'UTC'; SET lock_timeout = '{_LOCK_TIMEOUT_SECONDS}s';"
        f"SET statement_timeout = '{round(timeout_seconds * 1000)}ms';"
        f"SET idle_in_transaction_session_timeout = '{idle}s';"
        f"SET default_transaction_read_only = {'off' if writes else 'on'};{_PLANNER};"
        # A commit is what makes an instance durable, whatever the role or the database is set to.
        "SELECT set_config('synchronous_commit', 'on', false) "
        "WHERE current_setting('synchronous_commit') = 'off'"
    )

    def configure(connection: Any, _record: object) -> None:
        connection.execute(settings)
        connection.commit()

    sa.event.listen(engine, "connect", configure)
    return engine


def _is_worth_another_attempt(error: Exception) -> bool:
    # An integrity error is a race as well: this process has looked for the row, found none, and another
    # writer committed it first (or removed the parent it was to refer to). Run again, the transaction sees
    # that row. If it is no race, a few wasted attempts are the price.
    if isinstance(error, (StaleState, IntegrityError)):
        return True
    return isinstance(error, DBAPIError) and (
        error.connection_invalidated or _sqlstate(error) in _RETRY_SQLSTATES
    )


def _has_waited(error: Exception) -> bool:
    """Whether the driver gave up waiting for a lock; never so of a COMMIT."""
    is_busy = _sqlite_code(error) == sqlite3.SQLITE_BUSY
    return is_busy or getattr(error, "sqlstate", None) == _LOCK_NOT_AVAILABLE


def _reason(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def _is_rolled_back(error: Exception) -> bool:
    # Of a failed COMMIT: PostgreSQL says that it did not happen, SQLite could not write all of it to its log. Anything
    # else (a broken connection, an I/O error while the log is flushed) may have left a complete commit record behind.
    sqlstate = _sqlstate(error) or ""
    return (
        isinstance(error, IntegrityError)
        or sqlstate in _RETRY_SQLSTATES
        or sqlstate.startswith(_INSUFFICIENT_RESOURCES)
        or _sqlite_code(error) in _UNWRITTEN_SQLITE_CODES
    )


def _is_timed_out(error: Exception) -> bool:
    """Whether the database ended a statement because its time was up."""
    if _sqlstate(error) == _TIMED_OUT_SQLSTATE:
        return True
    return isinstance(error, DBAPIError) and str(error.orig) == "interrupted"


def _sqlstate(error: Exception) -> str | None:
    # Of the driver's own error, or of the one that SQLAlchemy made of it.
    return getattr(getattr(error, "orig", error), "sqlstate", None)


def _sqlite_code(error: Exception) -> int | None:
    return getattr(getattr(error, "orig", error), "sqlite_errorcode", None)


def _translate(error: Exception, *, may_have_committed: bool = False) -> Exception:
    if isinstance(error, UnicodeEncodeError):
        return PacsError(_REFUSED)
    if isinstance(error, StaleState):
        return IndexUnavailable(
            "The index is changed too fast by other writers.", may_have_committed=may_have_committed
        )
    if isinstance(error, PoolTimeoutError):
        return IndexUnavailable(
            "All connections to the index are in use.", may_have_committed=may_have_committed
        )
    assert isinstance(error, DBAPIError)
    reason = _reason(error.orig)
    match error:
        case ProgrammingError() if error.statement is None:
            return InvalidSetting(f"The database URL cannot be used: {reason}.")
        case DBAPIError() if _sqlstate(error) == "42P01" or reason.startswith("no such table"):
            return IndexUnavailable("The index has no tables, or old ones; upgrade it first.")
        case DataError() | IntegrityError():
            # The reason may quote the value, which may be a patient's; the cause has it.
            return PacsError(_REFUSED)
        case ProgrammingError() | NotSupportedError():
            return error
        case _:
            return IndexUnavailable(detail=reason, may_have_committed=may_have_committed)
