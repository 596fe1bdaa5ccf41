"""A refused request is logged and recorded with the Query/Retrieve Level that it named."""

from __future__ import annotations

import logging

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from pacs.archive.retrieving import Journal
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import Association, proposed_contexts
from pacs.conformance.wire.message import CommandField, request
from pacs.conformance.wire.trace import Trace
from pacs.dimse.remote import RemoteAEs
from pacs.dimse.storage_scu import StorageLink
from pacs.errors import InvalidSetting
from pacs.model.remote_ae import RemoteAE
from tests.dimse.retrieving import Getter, make_study, recorded, study_query
from tests.peers import (
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    association,
    closed_port,
    deposit,
    register,
    responses,
    wait_until,
)
from tests.serving import Serve, engine_on_sqlite


@engine_on_sqlite
def test_refused_find_is_logged_with_its_level(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    query = study_query()
    query.StudyDate = "20240301-20240229"
    with (
        caplog.at_level(logging.INFO, "pacs.dimse.find_scp"),
        association(serve(), STUDY_ROOT_FIND) as assoc,
    ):
        assert responses(assoc.send_c_find(query, STUDY_ROOT_FIND))[-1].status == 0xA900
        wait_until(lambda: "C-FIND STUDY: 0 matches" in caplog.text)


@engine_on_sqlite
def test_refused_get_is_recorded_with_its_level(serve: Serve) -> None:
    running = serve()
    query = study_query()
    query.StudyInstanceUID = "1.2.*"

    assert Getter().retrieve(running, query).final.status == 0xA900

    record, _ = recorded(running)
    assert record.request.level == "STUDY"


@engine_on_sqlite
@pytest.mark.parametrize(
    "broken", [(StorageLink, "prepare"), (Journal, "add")], ids=["sending", "recording"]
)
def test_retrieve_that_a_fault_of_ours_ends_is_not_recorded_as_the_requesters(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, broken: tuple[type, str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("nobody foresaw this")

    running = serve()
    deposit(running.archive, *make_study(2))
    monkeypatch.setattr(*broken, fail)

    final = Getter().retrieve(running, study_query()).final

    assert (final.status, final.comment) == (0xC000, "Processing failure")
    record, _ = recorded(running)
    assert record.outcome is not None
    assert (record.outcome.status, record.outcome.error_comment) == (0xC000, "Processing failure")


@engine_on_sqlite
def test_move_to_a_destination_that_cannot_be_called_with_tls_is_recorded_with_the_reason(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reason = "tls_ca: /etc/pacs/ca.pem cannot be read: Permission denied"

    def tls_args(_remotes: RemoteAEs, _remote: RemoteAE) -> None:
        raise InvalidSetting(reason)

    running = serve()
    deposit(running.archive, *make_study(2))
    register(running.archive, "DEST", closed_port(), tls=True)
    monkeypatch.setattr(RemoteAEs, "tls_args", tls_args)

    with association(running, STUDY_ROOT_MOVE) as assoc:
        final = responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))[-1]

    assert (final.status, final.comment) == (0xC000, reason)
    record, _ = recorded(running)
    assert record.outcome is not None
    assert (record.outcome.status, record.outcome.error_comment) == (0xC000, reason)
    assert f"C-MOVE refused: {reason}" in caplog.text


@engine_on_sqlite
def test_what_is_refused_for_its_size_is_not_decoded_for_the_record(serve: Serve) -> None:
    """A megabyte of empty Items takes pydicom seconds and a gigabyte; it is refused unread."""
    running = serve()
    items = b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * (1 << 17)
    header = b"\x08\x00\x11\x11SQ\x00\x00" + len(items).to_bytes(4, "little")
    level = b"\x08\x00\x52\x00CS\x06\x00STUDY "
    with Association.connect(("127.0.0.1", running.port), Trace(), 15) as assoc:
        assoc.request(
            pdus.AssociateRequest(
                "PACS",
                "ASKER",
                (pdus.maximum_length(1 << 16),),
                contexts=proposed_contexts([(STUDY_ROOT_GET, [ExplicitVRLittleEndian])]),
            )
        )
        asked = request(CommandField.C_GET_RQ, 1, 1, STUDY_ROOT_GET, level + header + items)
        assoc.send(asked)
        answer = assoc.receive()
        assoc.release()

    assert (answer.status, answer.comment) == (0xA900, "The Identifier is too large")
    record, _ = recorded(running)
    assert record.request.identifier == "{}"
