"""C-ECHO against both engines (PS3.4 Annex A)."""

from __future__ import annotations

from pacs.model.remote_ae import Service
from tests.peers import VERIFICATION, RunningArchive, association, register
from tests.serving import Serve


def test_echo_answers_success(service: RunningArchive) -> None:
    with association(service, VERIFICATION) as assoc:
        assert assoc.send_c_echo().Status == 0x0000


def test_echo_repeated_on_one_association_is_answered_each_time(service: RunningArchive) -> None:
    with association(service, VERIFICATION) as assoc:
        assert [assoc.send_c_echo(msg_id).Status for msg_id in (1, 2, 65_535)] == [0, 0, 0]


def test_echo_without_the_right_is_refused(serve: Serve) -> None:
    service = serve()
    register(service.archive, "MUTE", 104, services=frozenset({Service.STORE}))

    with association(service, VERIFICATION, calling="MUTE") as assoc:
        status = assoc.send_c_echo()

    assert status.Status == 0x0124
