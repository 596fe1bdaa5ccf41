"""The schema: four entity tables generated from the attribute table, and a few written by hand.

Keys and foreign keys are written here; every other column of ``patient``, ``study``, ``series`` and
``instance`` comes from ``pacs.dicom.attributes``. A surrogate key is called ``id`` and a foreign key
``<parent>_pk``, because ``study_id`` and ``patient_id`` are Attributes. The history of the schema is in
``migrations/``; a test compares the two on both backends.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from pacs.dicom.attributes import Attribute, stored_at
from pacs.dicom.levels import Level
from pacs.foreign_text import visible

#: Attribute values are text. In PostgreSQL the "C" collation orders and compares them by bytes, which for
#: UTF-8 is by code point, as SQLite's BINARY does: a prefix is then a range on either backend.
ValueText = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

#: An Error Comment has 64 characters, a reason of ours a few hundred.
_LONGEST_FOREIGN_TEXT = 1_024

#: SQLite generates keys for the type INTEGER only.
Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class ForeignText(sa.types.TypeDecorator[str]):
    """A text that a peer may have written, in a record: visible and of bounded length, also when compared."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Collate as the values do."""
        is_postgresql = dialect.name == "postgresql"
        return postgresql.TEXT(collation="C") if is_postgresql else sa.Text()

    def process_bind_param(self, value: str | None, _dialect: sa.Dialect) -> str | None:
        """Escape what no database, log or terminal is to be given."""
        return None if value is None else visible(value, _LONGEST_FOREIGN_TEXT)


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime; SQLite has no time zones, so it gets and returns the UTC clock reading."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        """Convert to UTC; a naive datetime is a programming error."""
        assert value is None or value.tzinfo is not None
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        """Return aware UTC from either backend."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)


#: The Attributes that say who a patient is; only the patient has them.
IDENTITY_KEYWORDS = frozenset({"PatientID", "IssuerOfPatientID"})
#: What a study keeps of its patient, as its own instances have it: two people may share a Patient ID.
PATIENT_OF_STUDY = tuple(a for a in stored_at(Level.PATIENT) if a.keyword not in IDENTITY_KEYWORDS)


def kept_at(level: Level) -> tuple[Attribute, ...]:
    """The Attributes that have a column in the table of a level."""
    return stored_at(level) + (PATIENT_OF_STUDY if level is Level.STUDY else ())


def _attribute_columns(level: Level) -> list[sa.Column[Any]]:
    return [
        sa.Column(name, ValueText, nullable=not _is_key(attribute))
        for attribute in kept_at(level)
        for name in (attribute.column, *attribute.shadow_columns)
    ]


def _is_key(attribute: Attribute) -> bool:
    # A valid instance may have an empty Patient ID (type 2), but never an empty UID.
    return attribute.keyword in IDENTIFYING


#: Written from the fields of the header, which were checked as UIDs, not from its values.
IDENTIFYING = frozenset({"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"})


def _key() -> sa.Column[int]:
    return sa.Column("id", Key, sa.Identity(), primary_key=True)


def _parent(table: str) -> sa.Column[int]:
    return sa.Column(f"{table}_pk", Key, sa.ForeignKey(f"{table}.id"), nullable=False)


def _revision() -> sa.Column[int]:
    # Counts the changes of a parent row, so that a writer can tell whether what it remembers of the row is
    # still true (pacs.index.parents).
    return sa.Column("revision", sa.Integer, nullable=False)


def _version() -> sa.Column[int]:
    # The attribute table by which what the row says of the patient was read; none: that of an earlier release.
    return sa.Column("attribute_set_version", sa.Integer)


# ``sqlite_autoincrement``: SQLite would otherwise give the key of a removed row to the next one, and a
# remembered key (of a parent, or in a retrieve plan) would silently mean another entity.

patient = sa.Table(
    "patient",
    metadata,
    _key(),
    # A hash of what identifies the patient (pacs.index.parents.PatientIdentity): one short key, whatever
    # lengths a peer sends, and unique also where parts of the identity are absent.
    sa.Column("identity", ValueText, nullable=False, unique=True),
    _revision(),
    _version(),
    # In what its studies were seen to disagree, as keywords with spaces between (pacs.index.conflicts).
    sa.Column("conflicts", ValueText),
    *_attribute_columns(Level.PATIENT),
    sqlite_autoincrement=True,
)

study = sa.Table(
    "study",
    metadata,
    _key(),
    _parent("patient"),
    _revision(),
    _version(),
    *_attribute_columns(Level.STUDY),
    sa.UniqueConstraint("study_instance_uid"),
    sqlite_autoincrement=True,
)

series = sa.Table(
    "series",
    metadata,
    _key(),
    _parent("study"),
    _revision(),
    *_attribute_columns(Level.SERIES),
    # Unique within its study only. Uniqueness across studies would force a choice when two studies use one
    # Series Instance UID (a copied phantom, a hostile peer): refuse the instance, or move the series that is
    # stored already into the other study. The UID comes first so that it can be looked up without a study.
    sa.UniqueConstraint("series_instance_uid", "study_pk"),
    sqlite_autoincrement=True,
)

instance = sa.Table(
    "instance",
    metadata,
    _key(),
    _parent("series"),
    sa.Column("transfer_syntax_uid", ValueText, nullable=False),
    sa.Column("location", ValueText, nullable=False, unique=True),
    sa.Column("data_set_offset", sa.Integer, nullable=False),
    sa.Column("data_set_size", sa.BigInteger, nullable=False),
    sa.Column("digest", ValueText, nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("source_ae", ForeignText, nullable=False),
    *_attribute_columns(Level.IMAGE),
    sa.UniqueConstraint("sop_instance_uid"),
    sqlite_autoincrement=True,
)

redo = sa.Table(
    "redo",
    metadata,
    # The bytes of small files that are in the storage but maybe not yet on its disk (pacs.archive.redo). The row is
    # written with the instance's and goes when the file is durable: the table is nearly empty while the disk
    # keeps up.
    sa.Column("location", ValueText, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)

log_position = sa.Table(
    "log_position",
    metadata,
    # How far the log of a process is in the index (pacs.archive.instance_log): written in the transaction that indexes
    # what the log holds, so that nothing is indexed again that was removed since.
    sa.Column("log", ValueText, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    # Up to here the files are durable too.
    sa.Column("settled", sa.BigInteger, nullable=False),
)

ENTITIES: dict[Level, sa.Table] = {
    Level.PATIENT: patient,
    Level.STUDY: study,
    Level.SERIES: series,
    Level.IMAGE: instance,
}


def level_of_column(attribute: Attribute, level: Level) -> Level:
    """The level whose table has the column of ``column_of``."""
    is_of_study = level > Level.PATIENT and attribute in PATIENT_OF_STUDY
    return Level.STUDY if is_of_study else attribute.level


def column_of(attribute: Attribute, level: Level, name: str = "") -> sa.Column[Any]:
    """The column of an Attribute, or of the form ``name`` of it, that speaks for entities of ``level``.

    Of a patient it is what the latest instance says; of all below, what their study says of the patient.
    """
    return ENTITIES[level_of_column(attribute, level)].c[name or attribute.column]


# Required keys of PATIENT and STUDY level (PS3.4 Tables C.6-1, C.6-2): every worklist and every search in a
# viewer filters by one of them. Names are matched on their folded component groups, times on the canonical
# form, so those columns carry the index. The issuer has none: it is asked for together with the Patient ID.
for _column in (
    patient.c.patient_id,
    patient.c.patient_name_alphabetic,
    patient.c.patient_name_ideographic,
    patient.c.patient_name_phonetic,
    # Optional key, but the usual way to find a patient whose name is spelt in several ways.
    patient.c.patient_birth_date,
    # The same of a study, which is what Study Root asks for.
    study.c.patient_name_alphabetic,
    study.c.patient_name_ideographic,
    study.c.patient_name_phonetic,
    study.c.patient_birth_date,
    study.c.study_date,
    study.c.study_time_canonical,
    study.c.accession_number,
    study.c.study_id,
):
    # Rows without a value are left out. Few names have an ideographic group, anonymised studies no Accession
    # Number: a thousand equal NULLs make SQLite's planner expect a thousand rows for any value, and read the table.
    _has_value = _column.is_not(None)
    sa.Index(None, _column, sqlite_where=_has_value, postgresql_where=_has_value)

sa.Index(None, study.c.patient_pk)

# ModalitiesInStudy asks this of each candidate study; as a covering index it answers without the series row.
# It serves the foreign key too. The same holds for Instance Number, the required key of IMAGE level.
sa.Index(None, series.c.study_pk, series.c.modality)
sa.Index(None, instance.c.series_pk, instance.c.instance_number)

remote_ae = sa.Table(
    "remote_ae",
    metadata,
    sa.Column("title", ValueText, primary_key=True),
    sa.Column("host", ForeignText, nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    # JSON arrays: read and written whole, never searched.
    sa.Column("services", ValueText, nullable=False),
    sa.Column("destinations", ValueText),
    sa.Column("tls", sa.Boolean, nullable=False),
    sa.Column("parallel_associations", sa.Integer, nullable=False),
    sa.Column("description", ForeignText, nullable=False),
)

retrieve = sa.Table(
    "retrieve",
    metadata,
    _key(),
    sa.Column("calling_ae", ForeignText, nullable=False),
    sa.Column("calling_host", ForeignText, nullable=False),
    sa.Column("service", ValueText, nullable=False),
    sa.Column("model", ForeignText, nullable=False),
    sa.Column("level", ForeignText, nullable=False),
    sa.Column("identifier", ValueText, nullable=False),
    sa.Column("destination", ForeignText, nullable=False),
    sa.Column("message_id", sa.Integer, nullable=False),
    # Which process carries it out (pacs.index.process_token).
    sa.Column("process", ValueText, nullable=False),
    # Pruning and listing go by time.
    sa.Column("started_at", UtcDateTime, nullable=False, index=True),
    sa.Column("active_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("interrupted", sa.Boolean, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("completed", sa.Integer),
    sa.Column("failed", sa.Integer),
    sa.Column("warning", sa.Integer),
    sa.Column("remaining", sa.Integer),
    sa.Column("error_comment", ForeignText, nullable=False),
    sqlite_autoincrement=True,
)

sub_operation = sa.Table(
    "sub_operation",
    metadata,
    # The pair is the primary key: rows of one retrieve lie together and are read in order.
    sa.Column(
        "retrieve_pk", Key, sa.ForeignKey("retrieve.id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sop_class_uid", ForeignText, nullable=False),
    sa.Column("sop_instance_uid", ForeignText, nullable=False),
    sa.Column("outcome", ValueText, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("error_comment", ForeignText, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("duration_seconds", sa.Float, nullable=False),
)

commitment = sa.Table(
    "commitment",
    metadata,
    _key(),
    sa.Column("transaction_uid", ForeignText, nullable=False, index=True),
    sa.Column("calling_ae", ForeignText, nullable=False),
    sa.Column("calling_host", ForeignText, nullable=False),
    sa.Column("state", ValueText, nullable=False),
    # Which process is at work on it; none while it waits (pacs.index.commitments).
    sa.Column("process", ValueText),
    # Pruning and listing go by time.
    sa.Column("requested_at", UtcDateTime, nullable=False, index=True),
    sa.Column("active_at", UtcDateTime, nullable=False),
    sa.Column("checked_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    # When the next attempt to report it is due; none once it is over.
    sa.Column("due_at", UtcDateTime, index=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("comment", ForeignText, nullable=False),
    sqlite_autoincrement=True,
)

commitment_reference = sa.Table(
    "commitment_reference",
    metadata,
    sa.Column(
        "commitment_pk", Key, sa.ForeignKey("commitment.id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sop_class_uid", ForeignText, nullable=False),
    sa.Column("sop_instance_uid", ForeignText, nullable=False),
    # PS3.3 C.14.1.1; none: committed, or not checked yet.
    sa.Column("failure_reason", sa.Integer),
)

association = sa.Table(
    "association",
    metadata,
    _key(),
    sa.Column("calling_ae", ForeignText, nullable=False),
    sa.Column("called_ae", ForeignText, nullable=False),
    sa.Column("calling_host", ForeignText, nullable=False),
    sa.Column("tls", sa.Boolean, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False, index=True),
    sa.Column("finished_at", UtcDateTime, nullable=False),
    sa.Column("ending", ValueText, nullable=False),
    # JSON arrays, as "contexts" and "operations": read and written whole, never searched.
    sa.Column("codes", ValueText, nullable=False),
    sa.Column("detail", ForeignText, nullable=False),
    sa.Column("is_problem", sa.Boolean, nullable=False),
    sa.Column("contexts", ValueText, nullable=False),
    sa.Column("operations", ValueText, nullable=False),
    sqlite_autoincrement=True,
)

lease = sa.Table(
    "lease",
    metadata,
    # See pacs.index.leases and pacs.index.process_token.
    sa.Column("process", ValueText, primary_key=True),
    # Seconds since 1970 by the database's clock: hosts may disagree about the time.
    sa.Column("expires_at", sa.Double, nullable=False),
)

archive_state = sa.Table(
    "archive_state",
    metadata,
    sa.Column("name", ValueText, primary_key=True),
    sa.Column("value", ValueText, nullable=False),
)
