"""The patient, study and series rows above an instance: who they are, what they say, when they go.

Three rules, all of them here:

* A patient is identified by (Patient ID, Issuer of Patient ID). Without a Patient ID (it is type 2, so it
  may be empty) nothing says that two studies have one patient, so the study has a patient of its own.
  Two people may share a Patient ID all the same: a study keeps what its own instances say of its patient,
  and where the studies of a patient disagree, that is noticed (``pacs.index.conflicts``).
* The latest instance wins: its values replace those of its parents, and its patient becomes the patient of its
  study. An empty value never erases one, and an instance that names its patient less precisely than
  the study does already (no Patient ID, or the same one without issuer) changes nothing about the patient.
* A parent without children is removed.

Each parent row has a revision that grows with every change. ``KnownSeries`` remembers rows with their
revisions; whoever inserts an instance on the strength of that memory makes the INSERT depend on the revisions
(``pacs.index.ingest``), so memory can be out of date but never do harm.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from pacs.dicom.instance import InstanceHeader
from pacs.dicom.levels import Level
from pacs.index import tables
from pacs.index.conflicts import disagreeing, note_conflicts
from pacs.index.parent_rows import LevelWriter, ParentRow, RowKey
from pacs.index.rows import LEVEL_COLUMNS, Values, merge


@dataclass(frozen=True, slots=True)
class PatientIdentity:
    """What tells one patient from another."""

    patient_id: str
    issuer: str
    #: Set only where there is no Patient ID.
    study_instance_uid: str

    @classmethod
    def of(cls, patient_id: str | None, issuer: str | None, study: str) -> PatientIdentity:
        """The identity that an instance of ``study`` claims for its patient."""
        return cls(patient_id, issuer or "", "") if patient_id else cls("", "", study)

    def is_contradicted_by(self, later: PatientIdentity) -> bool:
        """Whether a later identity is of another patient, and not the same one told more precisely."""
        return (self.patient_id not in {"", later.patient_id}) or (
            self.issuer not in {"", later.issuer}
        )

    @property
    def key(self) -> str:
        """The identity as a unique key: SHA-256 over its length-prefixed parts."""
        parts = (self.patient_id, self.issuer, self.study_instance_uid)
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.sha256(text.encode()).hexdigest()


def decide_patient(current: PatientIdentity | None, claimed: PatientIdentity) -> PatientIdentity:
    """The patient of a study after an instance that claims one: the latest wins unless it says less."""
    if current is None:
        return claimed
    says_less = not claimed.patient_id or (
        not claimed.issuer and claimed.patient_id == current.patient_id
    )
    return current if says_less else claimed


@dataclass(frozen=True, slots=True)
class KnownSeries:
    """A series row and the rows above it."""

    patient: ParentRow
    identity: PatientIdentity
    study: ParentRow
    series: ParentRow

    def covers(self, header: InstanceHeader) -> bool:
        """Whether the instance says nothing about its parents that the rows do not say already."""
        values = header.values
        claimed = claimed_identity(header)
        if decide_patient(self.identity, claimed) != self.identity:
            return False
        is_claimed = claimed == self.identity
        if is_claimed and not _covers(Level.PATIENT, self.patient, values):
            return False
        says = values if is_claimed else _without_patient(values)
        return _covers(Level.STUDY, self.study, says) and _covers(Level.SERIES, self.series, values)


_PARENT_KEYWORDS = tuple(
    dict.fromkeys(
        keyword
        for level in (Level.PATIENT, Level.STUDY, Level.SERIES)
        for keyword in LEVEL_COLUMNS[level].keywords
    )
)
_PATIENT_KEYWORDS = frozenset(LEVEL_COLUMNS[Level.PATIENT].keywords)


class ParentMemory:
    """The series this process stored into last; bounded, shared by its threads."""

    def __init__(self, capacity: int = 1024) -> None:
        """Remember up to ``capacity`` series."""
        self._capacity = capacity
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], KnownSeries] = OrderedDict()
        # What the last instance of the series said about its parents, if the rows covered it: the next one
        # usually says the same.
        self._covered: dict[tuple[str, str], tuple[KnownSeries, tuple[str | None, ...]]] = {}

    def recall(self, header: InstanceHeader) -> KnownSeries | None:
        """The rows above the instance, if they are remembered and it would not change them."""
        key = (header.study_instance_uid, header.series_instance_uid)
        with self._lock:
            known = self._known.get(key)
            if known is None:
                return None
            self._known.move_to_end(key)
            covered = self._covered.get(key)
        says = tuple(map(header.values.get, _PARENT_KEYWORDS))
        if covered is not None and covered[0] is known and covered[1] == says:
            return known
        if not known.covers(header):
            return None
        with self._lock:
            if key in self._known:
                self._covered[key] = known, says
        return known

    def remember(self, header: InstanceHeader, known: KnownSeries) -> None:
        """Keep rows that a committed transaction read or wrote."""
        key = (header.study_instance_uid, header.series_instance_uid)
        with self._lock:
            self._known[key] = known
            self._known.move_to_end(key)
            if len(self._known) > self._capacity:
                oldest, _ = self._known.popitem(last=False)
                self._covered.pop(oldest, None)


@dataclass(slots=True)
class Resolution:
    """The parents of several instances, written and locked in the running transaction."""

    #: Aligned with the headers.
    known: list[KnownSeries]
    #: Keywords whose value an instance contradicted, aligned with the headers.
    contradictions: list[list[str]]
    #: Keywords in which the studies of a patient disagree since an instance, aligned with the headers.
    conflicts: list[list[str]]
    #: Keys of patients that lost a study and may have none left.
    left_patients: set[int] = field(default_factory=set)


def resolve(
    connection: sa.Connection, headers: Sequence[InstanceHeader], *, rewrite: bool = False
) -> Resolution:
    """Write what the instances say about their parents, in their order, and return the parent rows.

    Rows are locked table by table, each in key order, so that writers meet in one order; what still
    deadlocks (a batch of several waves, a removal) is run again by the engine.

    Raises:
        StaleState: another writer was faster; nothing can be said without a new transaction.
    """
    contradictions: list[list[str]] = [[] for _ in headers]
    links = _study_links(connection, {header.study_instance_uid for header in headers})
    decided, final = _decide_patients(headers, links, contradictions)

    claims = [claimed_identity(h) == i for h, i in zip(headers, decided, strict=True)]
    suspicions = [set[str]() for _ in headers]
    patient_keys = [(identity.key,) for identity in decided]
    # Also those that studies leave: what they disagree in may change, and they may go. Locked only then, behind the
    # studies, two writers that move one study to and fro would deadlock each time.
    left_keys = [(link.identity.key,) for link in links.values()]
    patients = LevelWriter(connection, Level.PATIENT, [*patient_keys, *left_keys], rewrite=rewrite)
    for header, identity, is_claim, words in zip(headers, decided, claims, suspicions, strict=True):
        if is_claim:
            _fold_patient(patients, (identity.key,), header, words, rewrite=rewrite)
        else:
            patients.fold((identity.key,), {}, [])
    patient_rows = patients.write()

    study_keys = [(header.study_instance_uid,) for header in headers]
    studies = LevelWriter(connection, Level.STUDY, study_keys, rewrite=rewrite)
    studies.expect_parents({(uid,): link.patient_key for uid, link in links.items()})
    before = {uid: studies.values_of((uid,)) for uid in links}
    last = {uid: link.identity for uid, link in links.items()}
    for header, identity, is_claim, notes in zip(
        headers, decided, claims, contradictions, strict=True
    ):
        uid = header.study_instance_uid
        is_other = uid in last and last[uid].is_contradicted_by(identity)
        is_first = rewrite and is_claim and studies.is_old((uid,))
        studies.fold(
            (uid,),
            header.values if is_claim else _without_patient(header.values),
            notes,
            parent=patient_rows[(final[uid].key,)].key,
            forget=_PATIENT_KEYWORDS if is_other or is_first else (),
        )
        last[uid] = identity
    study_rows = studies.write()

    series_keys = [
        (header.series_instance_uid, study_rows[(header.study_instance_uid,)].key)
        for header in headers
    ]
    series = LevelWriter(connection, Level.SERIES, series_keys, rewrite=rewrite)
    for key, header, notes in zip(series_keys, headers, contradictions, strict=True):
        series.fold(key, header.values, notes, parent=key[1])
    series_rows = series.write()

    kept = {patient_rows[(identity.key,)].key for identity in final.values()}
    touched = {link.patient_key for link in links.values()}
    touched.update(row.key for row in patient_rows.values())
    conflicts = _new_conflicts(
        connection,
        [patient_rows[key].key for key in patient_keys],
        suspicions,
        _changed_patients(links, before, studies, final, patient_rows),
    )
    return Resolution(
        known=[
            KnownSeries(
                patient=patient_rows[(final[header.study_instance_uid].key,)],
                identity=final[header.study_instance_uid],
                study=study_rows[(header.study_instance_uid,)],
                series=series_rows[key],
            )
            for header, key in zip(headers, series_keys, strict=True)
        ],
        contradictions=contradictions,
        conflicts=conflicts,
        left_patients=touched - kept,
    )


def _fold_patient(
    patients: LevelWriter,
    key: tuple[str],
    header: InstanceHeader,
    words: set[str],
    *,
    rewrite: bool,
) -> None:
    """Apply what an instance says of its patient; note in which words it disagrees with what is known."""
    is_first = rewrite and patients.is_old(key)
    known = patients.values_of(key)
    if known is not None and not is_first:
        latest = LEVEL_COLUMNS[Level.PATIENT].values(header.values)
        words |= disagreeing(Level.PATIENT, known, latest)
    # Another value is told of the study that has it, or as a conflict: not of each instance in turn.
    patients.fold(key, header.values, [], forget=_PATIENT_KEYWORDS if is_first else ())


def _changed_patients(
    links: Mapping[str, _StudyLink],
    before: Mapping[str, Values | None],
    studies: LevelWriter,
    final: Mapping[str, PatientIdentity],
    patient_rows: Mapping[RowKey, ParentRow],
) -> set[int]:
    """The patients of which a study that was there says something else now, or that it has left."""
    changed: set[int] = set()
    for uid, link in links.items():
        key = patient_rows[(final[uid].key,)].key
        old, new = before[uid], studies.values_of((uid,))
        is_same = old is not None and new is not None and not disagreeing(Level.STUDY, old, new)
        if key != link.patient_key or not is_same:
            changed |= {key, link.patient_key}
    return changed


def _new_conflicts(
    connection: sa.Connection,
    patients: Sequence[int],
    suspicions: Sequence[set[str]],
    changed: set[int],
) -> list[list[str]]:
    """The conflicts that have arisen, each with the first instance that may have brought it."""
    suspected: dict[int, set[str]] = {}
    for key, words in zip(patients, suspicions, strict=True):
        if words:
            suspected.setdefault(key, set()).update(words)
    arisen = note_conflicts(connection, suspected, changed)
    told = []
    for key, words in zip(patients, suspicions, strict=True):
        told.append([word for word in arisen.get(key, ()) if word in words])
        arisen[key] = [word for word in arisen.get(key, ()) if word not in words]
    return told


def _without_patient(header_values: Mapping[str, str]) -> dict[str, str]:
    return {word: text for word, text in header_values.items() if word not in _PATIENT_KEYWORDS}


def claimed_identity(header: InstanceHeader) -> PatientIdentity:
    """The patient that an instance says it is of."""
    get = header.values.get
    return PatientIdentity.of(get("PatientID"), get("IssuerOfPatientID"), header.study_instance_uid)


def _covers(level: Level, row: ParentRow, header_values: Mapping[str, str]) -> bool:
    latest = LEVEL_COLUMNS[level].values(header_values)
    return latest == row.values or merge(row.values, latest) == row.values


@dataclass(frozen=True, slots=True)
class _StudyLink:
    patient_key: int
    identity: PatientIdentity


def _study_links(connection: sa.Connection, uids: set[str]) -> dict[str, _StudyLink]:
    """Which patients the studies have now; not locked, so verified when the studies are."""
    study, patient = tables.study.c, tables.patient.c
    statement = (
        sa.select(
            study.study_instance_uid, patient.id, patient.patient_id, patient.issuer_of_patient_id
        )
        .join_from(tables.study, tables.patient)
        .where(study.study_instance_uid.in_(sorted(uids)))
    )
    return {
        uid: _StudyLink(key, PatientIdentity.of(patient_id, issuer, uid))
        for uid, key, patient_id, issuer in connection.execute(statement)
    }


def _decide_patients(
    headers: Sequence[InstanceHeader],
    links: Mapping[str, _StudyLink],
    contradictions: list[list[str]],
) -> tuple[list[PatientIdentity], dict[str, PatientIdentity]]:
    """The patient each instance belongs to in its turn, and the one each study ends up with."""
    latest = {uid: link.identity for uid, link in links.items()}
    decided: list[PatientIdentity] = []
    for header, notes in zip(headers, contradictions, strict=True):
        uid = header.study_instance_uid
        current = latest.get(uid)
        identity = decide_patient(current, claimed_identity(header))
        if current is not None and current.patient_id:
            if identity.patient_id != current.patient_id:
                notes.append("PatientID")
            elif current.issuer and identity.issuer != current.issuer:
                notes.append("IssuerOfPatientID")
        latest[uid] = identity
        decided.append(identity)
    return decided, latest
