"""The index: everything that the other layers may ask of the database."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from pacs.dicom.attributes import ATTRIBUTE_SET_VERSION
from pacs.dicom.query.identifier import Query
from pacs.index import commitments, journal, migrate, tables
from pacs.index.associations import Associations
from pacs.index.commitments import Commitments
from pacs.index.conflicts import count_conflicts, list_conflicts
from pacs.index.engine import QUERY_TIMEOUT_SECONDS, Engine, create
from pacs.index.group_commit import GroupCommit
from pacs.index.ingest import Ingest
from pacs.index.journal import Journal
from pacs.index.journal_writer import JournalWriter
from pacs.index.leases import Leases
from pacs.index.log_positions import FromLog, LogPositions
from pacs.index.parent_rows import remove_empty
from pacs.index.redo_rows import RedoRows, delete_redo
from pacs.index.remote_ae import RemoteAEs
from pacs.index.rewrite import rewrite
from pacs.index.search import Matches, Search
from pacs.index.statistics import Statistics
from pacs.model.instances import (
    DuplicatePolicy,
    HeaderFile,
    IngestResult,
    InstanceLocation,
    InstanceRecord,
    StoredInstance,
)
from pacs.model.patients import PatientConflict
from pacs.model.retrieves import (
    RetrievePlan,
)
from pacs.model.statistics import Stats

_ATTRIBUTE_SET_VERSION = "attribute_set_version"
_STORAGE_IDENTITY = "storage_identity"
_ROWS_IN_MEMORY = 1000


class Index:
    """One database with the archive's tables; safe to share between threads.

    Every method raises IndexUnavailable when the database cannot be reached.
    """

    def __init__(self, engine: Engine) -> None:
        """Use an engine whose schema is the newest; ``open`` sees to that."""
        self._engine = engine
        self._statistics = Statistics(engine)
        self._ingest = Ingest(engine, self._statistics)
        self._commits = {
            policy: GroupCommit(partial(self._ingest, policy)) for policy in DuplicatePolicy
        }
        self._search = Search(engine)
        #: The recorded retrieves.
        self.journal = Journal(engine)
        #: Records retrieves without holding them up.
        self.journal_writer = JournalWriter(self.journal)
        #: The known remote AEs.
        self.remote_aes = RemoteAEs(engine)
        #: Bytes that the storage may not have on its disk yet.
        self.redo = RedoRows(engine)
        #: How far the log of each process is in the index.
        self.log_positions = LogPositions(engine)
        #: The recorded storage commitment transactions.
        self.commitments = Commitments(engine)
        #: Which processes are still there, and what is taken from those that are not.
        self.leases = Leases(engine, journal.CLAIMS, commitments.CLAIMS)
        #: The recorded associations.
        self.associations = Associations(engine)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        upgrade: bool = True,
        make: bool = True,
        query_timeout_seconds: float = QUERY_TIMEOUT_SECONDS,
    ) -> Index:
        """Open the index at a database URL; the caller closes it.

        Args:
            url: ``sqlite:///PATH`` or ``postgresql+psycopg://...``.
            upgrade: Run missing migrations; otherwise an old schema is refused.
            make: Make an index where there is none.
            query_timeout_seconds: How long the database may work on a query, see ``engine.create``.

        Raises:
            InvalidSetting: the URL cannot be used, or there is no index.
            IndexUnavailable: the database cannot be reached, or its schema does not fit.
        """
        engine = create(url, query_timeout_seconds=query_timeout_seconds)
        try:
            if not make:
                migrate.require_existing(engine)
            if upgrade:
                migrate.upgrade(engine)
            else:
                migrate.check(engine)
            index = cls(engine)
            index._date_new_index()
            index._statistics.refresh()
        except BaseException:
            engine.close()
            raise
        return index

    def before_reads(self, wait: Callable[[], None]) -> None:
        """Call ``wait`` before each read from now on: it lets in what was acknowledged and is not in the index yet."""
        self._engine.before_reads = wait

    def close(self) -> None:
        """Write the records that wait and close the connections; the index is not usable afterwards."""
        self.journal_writer.close()
        self._engine.close()

    @property
    def description(self) -> str:
        """The database URL without its password."""
        return self._engine.description

    def close_to_others(self) -> list[str]:
        """Keep other local users from reading it; a line for each file of which that was not so."""
        return self._engine.close_to_others()

    # Instances

    def ingest(
        self, record: InstanceRecord, policy: DuplicatePolicy = DuplicatePolicy.REPLACE
    ) -> IngestResult:
        """Index one instance; return when it is committed, together with those of other threads."""
        return self._commits[policy].submit(record)

    def ingest_batch(
        self,
        records: Sequence[InstanceRecord],
        policy: DuplicatePolicy = DuplicatePolicy.REPLACE,
        source: FromLog | None = None,
    ) -> list[IngestResult]:
        """Index several instances in one transaction, in their order: all or none.

        If they come from a log, ``source`` says what there is to know of it.
        """
        return self._ingest(policy, records, source=source)

    def find_by_uid(self, sop_instance_uid: str) -> StoredInstance | None:
        """The instance with this SOP Instance UID, if it is indexed."""
        return self._search.find_by_uid(sop_instance_uid)

    def remove(self, sop_instance_uid: str, *, location: str | None = None) -> str | None:
        """Remove an instance, and parents left empty; return its location, whose bytes may go now.

        With ``location`` it is removed only if it is still there: another file may have replaced it.
        """
        removed = self.remove_all([(sop_instance_uid, location)])
        return removed[0] if removed else None

    def remove_all(self, instances: Sequence[tuple[str, str | None]]) -> list[str]:
        """Remove instances as ``remove`` does, in one transaction; return their locations."""
        instance = tables.instance.c

        def work(connection: sa.Connection) -> list[str]:
            removed: list[Any] = []
            for sop_instance_uid, location in instances:
                statement = sa.delete(tables.instance).where(
                    instance.sop_instance_uid == sop_instance_uid
                )
                if location is not None:
                    statement = statement.where(instance.location == location)
                removed += connection.execute(
                    statement.returning(instance.location, instance.series_pk)
                ).all()
            remove_empty(connection, series={row.series_pk for row in removed})
            if removed:
                delete_redo(connection, [row.location for row in removed])
            return [str(row.location) for row in removed]

        return self._engine.transact(work)

    def locations(self, after: str = "", limit: int | None = None) -> Iterator[InstanceLocation]:
        """Where each indexed instance should be in the storage, by location, streamed.

        Args:
            after: Only locations after this one, so that a long walk need not be one transaction.
            limit: At most so many.
        """
        instance = tables.instance.c
        names = [field.name for field in dataclasses.fields(InstanceLocation)]
        statement = (
            sa.select(*(instance[name] for name in names))
            .where(instance.location > after)
            .order_by(instance.location)
            .limit(limit)
        )
        with self._engine.read() as connection:
            streaming = connection.execution_options(yield_per=_ROWS_IN_MEMORY)
            with streaming.execute(statement) as rows:
                for row in rows:
                    yield InstanceLocation(**dict(zip(names, row, strict=True)))

    def is_location_indexed(self, location: str) -> bool:
        """Whether the row of an instance points at this location."""
        statement = sa.select(sa.exists().where(tables.instance.c.location == location))
        with self._engine.read() as connection:
            return bool(connection.scalar(statement))

    def rewrite(self, records: Sequence[InstanceRecord]) -> set[str]:
        """Write what was read again from stored files into their rows; see ``pacs.index.rewrite``."""
        return rewrite(self._engine, records)

    def patient_conflicts(self) -> Iterator[PatientConflict]:
        """The patients whose studies disagree in who they are, streamed; see ``pacs.index.conflicts``."""
        return list_conflicts(self._engine)

    def count_patient_conflicts(self) -> int:
        """How many of those there are; reads what every study says of its patient."""
        return count_conflicts(self._engine)

    def stats(self) -> Stats:
        """How much the archive holds."""

        def count(table: sa.Table) -> sa.ScalarSelect[int]:
            return sa.select(sa.func.count()).select_from(table).scalar_subquery()

        size = sa.func.coalesce(sa.func.sum(tables.instance.c.data_set_size), 0)
        statement = sa.select(
            count(tables.patient),
            count(tables.study),
            count(tables.series),
            count(tables.instance),
            sa.select(size).scalar_subquery(),
        )
        with self._engine.read() as connection:
            patients, studies, series, instances, size_bytes = connection.execute(statement).one()
        return Stats(
            patients=patients,
            studies=studies,
            series=series,
            instances=instances,
            size_bytes=int(size_bytes),
        )

    # Query and retrieve

    def matches(self, query: Query, at_most: int = 0) -> Matches:
        """The matches at the query's level, a page of rows at a time; see ``Search.matches``."""
        return self._search.matches(query, at_most)

    def search(self, query: Query, at_most: int = 0) -> Iterator[Mapping[str, str | None]]:
        """The matches at the query's level, a page at a time; see ``Search.search``."""
        return self._search.search(query, at_most)

    def search_with_file(
        self, query: Query, at_most: int = 0
    ) -> Iterator[tuple[Mapping[str, str | None], HeaderFile]]:
        """The matches with the file of one instance each; see ``Search.search_with_file``."""
        return self._search.search_with_file(query, at_most)

    def plan(self, query: Query, limit: int = 0) -> RetrievePlan:
        """The instances under the matches of a query, in the order to send them; see ``Search.plan``."""
        return self._search.plan(query, limit)

    def instances(self, keys: Sequence[int]) -> list[StoredInstance]:
        """The instances with these keys, in that order; those removed since are left out."""
        return self._search.instances(keys)

    # State

    def attribute_set_version(self) -> int | None:
        """The version of the attribute table that the rows were written with."""
        value = self._state(_ATTRIBUTE_SET_VERSION)
        return None if value is None else int(value)

    def set_attribute_set_version(self, version: int) -> None:
        """Record that all rows are written with this version of the attribute table."""
        self._set_state(_ATTRIBUTE_SET_VERSION, str(version), replace=True)

    def storage_identity(self) -> str | None:
        """The identity of the storage that the instances are in (``Storage.identity``), if it is known."""
        return self._state(_STORAGE_IDENTITY)

    def set_storage_identity(self, identity: str, *, replace: bool = False) -> None:
        """Record the identity of the storage; one that is recorded stays unless it is to be replaced."""
        self._set_state(_STORAGE_IDENTITY, identity, replace=replace)

    def _state(self, name: str) -> str | None:
        state = tables.archive_state.c
        statement = sa.select(state.value).where(state.name == name)
        with self._engine.read() as connection:
            value: str | None = connection.scalar(statement)
        return value

    def _set_state(self, name: str, value: str, *, replace: bool) -> None:
        state = tables.archive_state
        is_it = state.c.name == name

        def work(connection: sa.Connection) -> None:
            if replace:
                connection.execute(sa.delete(state).where(is_it))
            elif connection.scalar(sa.select(state.c.value).where(is_it)) is not None:
                return
            connection.execute(sa.insert(state), {"name": name, "value": value})

        self._engine.transact(work)

    def _date_new_index(self) -> None:
        if self.attribute_set_version() is None:
            self.set_attribute_set_version(ATTRIBUTE_SET_VERSION)
