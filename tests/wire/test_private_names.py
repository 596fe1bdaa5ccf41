"""What the engine rests on in pynetdicom; fails when a release moves one of these names.

``RESTS_ON`` is checked both ways: each name is where the engine expects it, and the engine uses no private name
that is not listed.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import _config, evt
from pynetdicom import dimse_primitives as primitives
from pynetdicom.acse import ACSE
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import _PDU_TYPES, DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE, StateMachine
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import (
    AddressInformation,
    AssociationServer,
    AssociationSocket,
    RequestHandler,
)

import pacs.dimse
import pacs.wire
from pacs.wire.ae import EngineAE, EngineRequestHandler, EngineServer
from pacs.wire.association import EngineAssociation
from pacs.wire.dimse import StreamingDIMSE
from pacs.wire.dul import SynchronousDUL
from pacs.wire.transport import Connection

RESTS_ON: dict[type[Any], set[str]] = {
    Association: {
        "_abort_blocking",
        "_accepted_cx",
        "_dul_ready",
        "_is_paused",
        "_kill",
        "_run_reactor",
        "_sent_abort",
        "_serve_request",
        "_server",
    },
    DULServiceProvider: {"_decode_pdu", "_process_recv_primitive", "_recv_pdu"},
    AssociationSocket: {"_assoc", "_is_connected", "_shutdown_socket"},
    RequestHandler: {"_create_association"},
    AssociationServer: {"_handlers"},
    ApplicationEntity: {"_servers", "_validate_requested_contexts"},
    primitives.C_STORE: {
        "_affected_sop_class_uid",
        "_affected_sop_instance_uid",
        "_context_id",
        "_requested_sop_class_uid",
        "_requested_sop_instance_uid",
    },
    A_ASSOCIATE: {"_called_ae_title", "_calling_ae_title"},
}
#: Public, but not documented as something to build on.
UNDOCUMENTED: dict[type[Any], set[str]] = {
    Association: {
        "acse",
        "dimse",
        "dul",
        "get_handlers",
        "is_aborted",
        "is_rejected",
        "is_released",
        "run_reactor",
        "set_socket",
    },
    DULServiceProvider: {
        "event_queue",
        "receive_pdu",
        "send_pdu",
        "socket",
        "state_machine",
        "to_provider_queue",
        "to_user_queue",
    },
    DIMSEServiceProvider: {"cancel_req", "get_msg", "maximum_pdu_size", "peek_msg", "send_msg"},
    ACSE: {
        "is_aborted",
        "is_release_requested",
        "negotiate_association",
        "negotiate_release",
        "send_abort",
        "send_release",
    },
    AssociationSocket: {"close", "event_queue", "send", "socket", "tls_args"},
    StateMachine: {"current_state", "do_action"},
    AddressInformation: {"address", "from_addr_port", "from_tuple", "port"},
}
SUBCLASSES = (
    EngineAE,
    EngineAssociation,
    EngineRequestHandler,
    EngineServer,
    Connection,
    StreamingDIMSE,
    SynchronousDUL,
)


@pytest.fixture(scope="module")
def living() -> dict[type[Any], Any]:
    """An instance of each class: some names appear in ``__init__`` only."""
    ae = ApplicationEntity()
    assoc = Association(ae, "requestor")
    return {
        Association: assoc,
        DULServiceProvider: assoc.dul,
        DIMSEServiceProvider: assoc.dimse,
        ACSE: assoc.acse,
        StateMachine: assoc.dul.state_machine,
        ApplicationEntity: ae,
        primitives.C_STORE: primitives.C_STORE(),
    }


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(owner, name, id=f"{owner.__name__}.{name}")
        for table in (RESTS_ON, UNDOCUMENTED)
        for owner, names in table.items()
        for name in sorted(names)
    ],
)
def test_name_is_where_the_engine_expects_it(
    living: dict[type[Any], Any], owner: type[Any], name: str
) -> None:
    in_source = f"self.{name}" in inspect.getsource(owner)

    assert hasattr(living.get(owner, owner), name) or in_source


def test_engine_uses_no_private_name_that_is_not_listed() -> None:
    listed = set().union(*RESTS_ON.values())

    unlisted = _private_names_used() - _names_defined_here() - listed

    assert unlisted == set()


@pytest.mark.parametrize("subclass", SUBCLASSES)
def test_overridden_private_method_is_listed_and_still_there(subclass: type[Any]) -> None:
    base = subclass.__mro__[1]
    private = {name for name in vars(subclass) if name.startswith("_") and name[1] != "_"}
    overridden = {name for name in private if hasattr(base, name)}
    listed = {
        name for owner, names in RESTS_ON.items() if issubclass(subclass, owner) for name in names
    }

    methods = {name for name in overridden if callable(getattr(base, name))}

    assert methods <= listed


@pytest.mark.parametrize(
    ("event", "state"),
    [
        ("Evt6", "Sta2"),
        ("Evt7", "Sta3"),
        ("Evt8", "Sta3"),
        ("Evt12", "Sta6"),
        ("Evt14", "Sta8"),
        ("Evt15", "Sta6"),
        ("Evt16", "Sta6"),
        ("Evt17", "Sta6"),
        ("Evt19", "Sta6"),
        ("Evt13", "Sta7"),
        ("Evt12", "Sta7"),
        ("Evt17", "Sta13"),
    ],
)
def test_transition_the_engine_relies_on_exists(event: str, state: str) -> None:
    assert (event, state) in TRANSITION_TABLE


def test_intervention_events_of_the_services_take_what_the_engine_passes() -> None:
    for event in (evt.EVT_C_FIND, evt.EVT_C_MOVE, evt.EVT_C_GET):
        assert event.is_intervention
    source = inspect.getsource(evt.Event)
    assert "_is_cancelled" in source
    assert hasattr(_config, "LOG_HANDLER_LEVEL")


def test_pdu_types_are_looked_up_as_the_stock_decoder_does() -> None:
    kind, event = _PDU_TYPES[b"\x01"]

    assert (kind.__name__, event) == ("A_ASSOCIATE_RQ", "Evt6")
    assert "_PDU_TYPES[b[0:1]]" in inspect.getsource(DULServiceProvider._decode_pdu)


def test_signatures_that_are_overridden_have_not_changed() -> None:
    assert list(inspect.signature(DULServiceProvider._decode_pdu).parameters) == [
        "self",
        "bytestream",
    ]
    assert list(inspect.signature(Association._serve_request).parameters) == [
        "self",
        "msg",
        "context_id",
    ]
    assert list(inspect.signature(Association._abort_blocking).parameters) == ["self", "block"]
    assert list(inspect.signature(ApplicationEntity.associate).parameters) == list(
        inspect.signature(EngineAE.associate).parameters
    )


def _trees() -> Iterator[ast.Module]:
    for package in (pacs.wire, pacs.dimse):
        for path in Path(package.__path__[0]).rglob("*.py"):
            yield ast.parse(path.read_text(encoding="utf-8"))


def _private_names_used() -> set[str]:
    return {
        node.attr
        for tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr[0] == "_" and node.attr[1] != "_"
    }


def _names_defined_here() -> set[str]:
    """Functions, class attributes, and what a method assigns to ``self``."""
    defined = set()
    for tree in _trees():
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name=name):
                    defined.add(name)
                case ast.AnnAssign(target=ast.Name(id=name)):
                    defined.add(name)
                case (
                    ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)])
                    | ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name))
                ):
                    defined.add(name)
    return defined
