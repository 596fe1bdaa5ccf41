"""Who is let in, and how the others are turned away (PS3.8 9.3.4)."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Sequence

import psutil
import pytest

from pacs.dimse import access
from pacs.dimse.access import AccessPolicy
from pacs.dimse.remote import RemoteAEs
from pacs.errors import NotAuthorised
from pacs.index.index import Index
from pacs.model.remote_ae import RemoteAE, Service
from tests.peers import CALLED, CALLING, VERIFICATION, association, end, stock_ae, wait_until
from tests.serving import Serve, engine_only
from tests.wire.wire import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    IMPLICIT,
    RELEASE_PDU,
    RELEASE_RP,
    Wire,
    associate_pdu,
)

STRANGER = "203.0.113.9"


def _policy(index: Index, remotes: Sequence[RemoteAE] = (), **options: bool) -> AccessPolicy:
    return AccessPolicy(RemoteAEs(index, remotes), **options)


def _remote(title: str = "CT1", host: str = STRANGER, **fields: object) -> RemoteAE:
    return RemoteAE(title=title, host=host, port=104, **fields)  # type: ignore[arg-type]


# The policy


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_loopback_peer_may_do_everything(index: Index, host: str) -> None:
    rights = _policy(index).rights_of("ANY", host)

    assert rights is not None
    assert rights.services == frozenset(Service)
    assert rights.destinations is None


@pytest.mark.parametrize("host", [STRANGER, "192.168.0.1", "::", "fe80::1%eth0", "not an address"])
def test_stranger_from_another_host_has_no_rights(index: Index, host: str) -> None:
    assert _policy(index).rights_of("ANY", host) is None


def test_registered_ae_from_its_host_has_its_rights(index: Index) -> None:
    services = frozenset({Service.STORE})
    policy = _policy(index, [_remote(services=services, destinations=frozenset({"A"}))])

    rights = policy.rights_of(" CT1 ", STRANGER)

    assert rights is not None
    assert (rights.services, rights.destinations) == (services, frozenset({"A"}))
    with pytest.raises(NotAuthorised, match="CT1 may not find here"):
        rights.require(Service.FIND)
    with pytest.raises(NotAuthorised, match="CT1 may not move to B"):
        rights.require_destination("B")
    rights.require(Service.STORE)
    rights.require_destination("A")


def test_registered_ae_from_another_host_has_no_rights(index: Index) -> None:
    policy = _policy(index, [_remote()])

    assert policy.rights_of("CT1", "203.0.113.10") is None
    assert "203.0.113.10" in policy.explain_refusal("CT1", "203.0.113.10")


def test_registered_ae_from_any_host_is_let_in_when_hosts_are_not_verified(index: Index) -> None:
    policy = _policy(index, [_remote()], verify_calling_host=False)

    assert policy.rights_of("CT1", "203.0.113.10") is not None
    assert policy.rights_of("CT2", "203.0.113.10") is None


def test_registered_ae_keeps_its_limits_on_the_loopback_interface(index: Index) -> None:
    policy = _policy(index, [_remote(host="127.0.0.1", services=frozenset({Service.ECHO}))])

    rights = policy.rights_of("CT1", "127.0.0.1")

    assert rights is not None
    assert rights.services == {Service.ECHO}


def test_registered_ae_keeps_its_limits_when_everybody_is_let_in(index: Index) -> None:
    policy = _policy(index, [_remote(services=frozenset({Service.ECHO}))], allow_any=True)

    limited, other = policy.rights_of("CT1", STRANGER), policy.rights_of("CT2", STRANGER)

    assert limited is not None
    assert limited.services == {Service.ECHO}
    assert other is not None
    assert other.services == frozenset(Service)


def test_registered_host_name_is_resolved(index: Index) -> None:
    policy = _policy(index, [_remote(host="localhost", services=frozenset({Service.ECHO}))])

    rights = policy.rights_of("CT1", "127.0.0.1")

    assert rights is not None
    assert rights.services == {Service.ECHO}


def test_host_name_that_cannot_be_resolved_lets_nobody_in(
    index: Index, caplog: pytest.LogCaptureFixture
) -> None:
    policy = _policy(index, [_remote(host="nowhere.invalid")])

    assert policy.rights_of("CT1", STRANGER) is None
    assert "nowhere.invalid" in caplog.text


def test_registered_host_that_can_be_no_name_lets_nobody_in(index: Index) -> None:
    policy = _policy(index, [_remote(host="l" * 70 + ".example.org")])

    assert policy.rights_of("CT1", STRANGER) is None


def test_name_server_that_fails_locks_nobody_out_whom_it_named_before(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = _policy(index, [_remote(host="ct1.example.org")])
    answers: list[object] = [OSError("no answer"), [STRANGER], OSError("no answer")]

    def resolve(*_: object, **__: object) -> list[object]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        assert isinstance(answer, list)
        return [(None, None, None, "", (one, 0)) for one in answer]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(access, "_RESOLVED_FOR_SECONDS", 0.0)
    assert policy.rights_of("CT1", STRANGER) is None
    assert policy.rights_of("CT1", STRANGER) is None
    assert len(answers) == 2, "a failure is not forgotten at once"

    monkeypatch.setattr(access, "_UNRESOLVED_FOR_SECONDS", 0.0)
    policy._resolved.clear()
    assert policy.rights_of("CT1", STRANGER) is not None
    assert policy.rights_of("CT1", STRANGER) is not None
    assert answers == []


def test_refusal_tells_the_operator_the_command(index: Index) -> None:
    explained = _policy(index).explain_refusal("CT9", STRANGER)

    assert f"pacs ae add CT9 {STRANGER} PORT" in explained
    # It is the stranger who has chosen the title, and the operator whose shell reads it.
    explained = _policy(index).explain_refusal("$(reboot) `x`", STRANGER)
    assert explained.endswith(f"pacs ae add '$(reboot) `x`' {STRANGER} PORT")


# Over the network


@engine_only
def test_request_that_cannot_be_judged_is_rejected(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()

    def fail(*_: object, **__: object) -> None:
        raise UnicodeError("label too long")

    monkeypatch.setattr(AccessPolicy, "rights_of", fail)
    with Wire(service.port) as wire:
        wire.send(associate_pdu({1: (VERIFICATION, IMPLICIT)}))
        assert wire.receive() == (ASSOCIATE_RJ, bytes((0, 2, 1, 1)))

    monkeypatch.undo()
    with association(service, VERIFICATION) as assoc:
        assert assoc.send_c_echo().Status == 0


def _own_address() -> str | None:
    """An IPv4 address of this machine beside the loopback ones."""
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family == socket.AF_INET and not ipaddress.ip_address(one.address).is_loopback:
                return str(one.address)
    return None


@engine_only
def test_unknown_ae_from_another_address_is_rejected_with_1_1_3(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    address = _own_address()
    if address is None:
        pytest.skip("this machine has no IPv4 address beside the loopback ones")
    service = serve(host="0.0.0.0")

    with caplog.at_level(logging.WARNING, logger="pacs"):
        assert _rejection(service.port, host=address, calling="STRANGER") == (1, 1, 3)
        wait_until(lambda: f"pacs ae add STRANGER {address}" in caplog.text)


@engine_only
def test_everybody_is_let_in_with_allow_any(serve: Serve) -> None:
    address = _own_address()
    if address is None:
        pytest.skip("this machine has no IPv4 address beside the loopback ones")
    service = serve(host="0.0.0.0", allow_any=True)

    ae = stock_ae("STRANGER")
    ae.add_requested_context(VERIFICATION)
    assoc = ae.associate(address, service.port, ae_title="PACS")

    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()
    end(assoc)


def _rejection(
    port: int, *, host: str = "127.0.0.1", calling: str = CALLING, called: str = CALLED
) -> tuple[int, ...] | None:
    """Result, source and reason of the A-ASSOCIATE-RJ that a requestor gets; None if it is accepted.

    Not asked as a stock AE: one that is rejected before its own thread has seen the connection established
    takes the rejection for a failure to connect.
    """
    with Wire(port, host) as peer:
        peer.send(associate_pdu({1: (VERIFICATION, IMPLICIT)}, calling=calling, called=called))
        pdu_type, body = peer.receive()
        if pdu_type == ASSOCIATE_AC:
            peer.send(RELEASE_PDU)
            assert peer.ends() == RELEASE_RP
            return None
    assert pdu_type == ASSOCIATE_RJ
    return tuple(body[1:])


def test_wrong_called_ae_title_is_rejected_with_1_1_7(serve: Serve) -> None:
    assert _rejection(serve().port, called="OTHER") == (1, 1, 7)


def test_wrong_called_ae_title_is_accepted_when_it_is_not_required(serve: Serve) -> None:
    service = serve(require_called_ae_title=False)

    with association(service, VERIFICATION, called="OTHER") as assoc:
        assert assoc.send_c_echo().Status == 0x0000


def test_one_association_too_many_is_rejected_with_2_3_2_and_a_later_one_accepted(
    serve: Serve,
) -> None:
    service = serve(maximum_associations=2)

    with association(service, VERIFICATION), association(service, VERIFICATION):
        assert _rejection(service.port) == (2, 3, 2)

    wait_until(lambda: _rejection(service.port) is None)
