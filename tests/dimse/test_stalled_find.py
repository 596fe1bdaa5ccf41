"""A peer that does not read its C-FIND responses costs its own association and nothing of the database."""

from __future__ import annotations

import select
import socket
import sqlite3
from datetime import UTC, datetime

import psycopg
import sqlalchemy as sa
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from pacs.archive.archive import Archive
from pacs.dicom.instance import InstanceHeader
from pacs.model.instances import InstanceRecord
from pacs.wire import command
from tests.peers import (
    CALLING,
    STUDY_ROOT_FIND,
    RunningArchive,
    database_url_of,
    identifier,
    wait_until,
)
from tests.wire.wire import IMPLICIT, Wire, message

PENDING, SUCCESS = 0xFF00, 0x0000
#: 12 MB of responses: more than the kernel takes for a peer that does not read.
_STUDIES, _HISTORY_BYTES = 1_200, 10_000


def _fill(archive: Archive) -> None:
    archive.index.ingest_batch(
        [
            InstanceRecord(
                header=InstanceHeader(
                    sop_class_uid=CTImageStorage,
                    sop_instance_uid=f"1.9.{number}.1.1",
                    series_instance_uid=f"1.9.{number}.1",
                    study_instance_uid=f"1.9.{number}",
                    transfer_syntax_uid=ExplicitVRLittleEndian,
                    values={
                        "PatientID": f"Q-{number}",
                        "AdditionalPatientHistory": "h" * _HISTORY_BYTES,
                    },
                ),
                location=f"2020/01/01/0000/{number:032x}.dcm",
                data_set_offset=0,
                data_set_size=0,
                digest="0" * 64,
                received_at=datetime(2020, 1, 1, tzinfo=UTC),
                source_ae=CALLING,
            )
            for number in range(_STUDIES)
        ]
    )


def _has_no_reader(archive: Archive) -> bool:
    """Whether no transaction is open: the whole log can be put back, or no backend is at work or idle in one."""
    url = sa.make_url(database_url_of(archive))
    if archive.index._engine.is_sqlite:
        connection = sqlite3.connect(str(url.database), timeout=0)
        try:
            [(is_busy, *_)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()
        return not is_busy
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as other:
        [(count,)] = other.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'pacs' AND state <> 'idle'"
        ).fetchall()
    return bool(count == 0)


def _request() -> bytes:
    query = identifier("STUDY", StudyInstanceUID="", AdditionalPatientHistory="")
    encoded = command.encode(
        {
            "AffectedSOPClassUID": STUDY_ROOT_FIND,
            "CommandField": 0x0020,
            "MessageID": 1,
            "Priority": 0,
            "CommandDataSetType": command.HAS_DATA_SET,
        }
    )
    return message(1, encoded, encode(query, is_implicit_vr=True, is_little_endian=True))


class _Reluctant(Wire):
    """A peer with little room for what it does not read."""

    def __init__(self, port: int) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.settimeout(20)
        self.sock.connect(("127.0.0.1", port))


def test_no_transaction_is_open_while_a_peer_does_not_read_its_responses(
    archive_server: RunningArchive,
) -> None:
    archive = archive_server.archive
    _fill(archive)

    with _Reluctant(archive_server.port) as peer:
        peer.associate({1: (STUDY_ROOT_FIND, IMPLICIT)})
        peer.send(_request())
        assert select.select([peer.sock], [], [], 20)[0]
        wait_until(lambda: _has_no_reader(archive))
        # What is stored meanwhile, and what is removed, is the concern of those who ask next.
        archive.index.remove(f"1.9.{_STUDIES - 1}.1.1")
        assert _has_no_reader(archive)

        statuses = []
        while not statuses or statuses[-1] == PENDING:
            statuses.append(peer.answer()["Status"])

    assert statuses == [PENDING] * (_STUDIES - 1) + [SUCCESS]
