"""What the planner knows of the tables' sizes.

Without statistics SQLite takes all tables for equally large. Then it reads every instance to find those of a patient
by name (286 ms among 1,000,000; 8 ms with statistics). PostgreSQL gathers its own (autovacuum); SQLite leaves it to the
application, so the index does it each time it has doubled. With ``analysis_limit`` that takes 2 to 12 ms at 1,000,000
instances, once in as many.

``PRAGMA optimize`` would not do: it looks only at tables that its own connection has queried, and the one that may
write never queries them.
"""

from __future__ import annotations

import logging
import threading

import sqlalchemy as sa

from pacs.errors import PacsError
from pacs.index import tables
from pacs.index.engine import Engine

LOGGER = logging.getLogger(__name__)

#: Before, any plan is quick.
_FIRST_INSTANCES = 100
#: Rows looked at per index.
_ANALYSIS_LIMIT = 1000
_STATE = "statistics_instances"


class Statistics:
    """Sees to it that the planner's statistics are not older than half of the index; thread-safe."""

    def __init__(self, engine: Engine) -> None:
        """Watch over ``engine``; on PostgreSQL there is nothing to do."""
        self._engine = engine
        self._lock = threading.Lock()
        self._until_next_look = _FIRST_INSTANCES

    def note(self, stored: int) -> None:
        """Count instances that were committed, and refresh the statistics if they are due."""
        with self._lock:
            self._until_next_look -= stored
            is_due = self._until_next_look <= 0
            if is_due:
                # Other threads do not look while this one does.
                self._until_next_look = _FIRST_INSTANCES
        if is_due:
            self.refresh()

    def refresh(self) -> None:
        """Gather statistics if the index has doubled since; a failure is logged and costs only speed."""
        if not self._engine.is_sqlite:
            return
        try:
            # Most often they are not due: then the writer's turn is not asked for.
            with self._engine.read() as connection:
                missing = _instances_missing(connection)
            if missing <= 0:
                missing = self._engine.transact(_gather)
        except PacsError as error:
            LOGGER.warning("the index keeps its old statistics: %s", error)
            return
        with self._lock:
            # What other processes store is not counted here: with several the next look comes later.
            self._until_next_look = missing


def _instances_missing(connection: sa.Connection) -> int:
    """How many more instances it takes until statistics are due."""
    # The highest key instead of a count, which would read a whole index.
    newest = connection.scalar(sa.select(sa.func.max(tables.instance.c.id))) or 0
    state = tables.archive_state.c
    known = connection.scalar(sa.select(state.value).where(state.name == _STATE))
    return max(_FIRST_INSTANCES, 2 * int(known or 0)) - newest


def _gather(connection: sa.Connection) -> int:
    missing = _instances_missing(connection)
    if missing > 0:  # another process was faster
        return missing
    state = tables.archive_state
    connection.execute(sa.delete(state).where(state.c.name == _STATE))
    newest = sa.select(sa.literal(_STATE), sa.func.max(tables.instance.c.id))
    connection.execute(sa.insert(state).from_select(["name", "value"], newest))
    connection.exec_driver_sql(f"PRAGMA analysis_limit={_ANALYSIS_LIMIT}")
    # Dropped, because connections read statistics together with the schema and only when that has changed: those
    # of the readers and of other processes would go on with what they read first.
    connection.exec_driver_sql("DROP TABLE IF EXISTS sqlite_stat1")
    connection.exec_driver_sql("ANALYZE")
    return _instances_missing(connection)
