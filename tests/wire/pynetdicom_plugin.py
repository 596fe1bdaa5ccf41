"""A pytest plugin that runs pynetdicom's own tests with our engine in place of its ``AE``.

Loaded by ``test_pynetdicom_suite.py`` into a pytest of its own. ``PACSTEST_ENGINE_ROLE`` says which role is ours
(``acceptor`` or ``requestor``); the peer stays a stock association, and the library itself is not touched: the
name ``AE`` is replaced in the test modules only.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from pynetdicom import _config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association

from pacs.archive.retrieving import Destination
from pacs.dimse.retrieve_responses import RetrieveOptions
from pacs.dimse.services import AcceptorServices
from pacs.wire.ae import EngineAE, EngineRequestHandler, EngineServer
from tests.wire.pynetdicom_table import reason_to_deselect

ROLE = os.environ.get("PACSTEST_ENGINE_ROLE", "acceptor")
_made: list[SuiteAE] = []

# One test of the suite interrupts itself. Where the whole run was started in a shell's background, SIGINT is
# ignored from the start, and Python leaves that so.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _no_destination(*_: Any) -> Destination:
    raise AssertionError("the tests of retrieves are left out")


class SuiteAE(EngineAE):
    """``pynetdicom.AE`` with our engine in one role."""

    def __init__(self, ae_title: str = "PYNETDICOM") -> None:
        level = _config.LOG_HANDLER_LEVEL  # which our AE changes, and some of the tests
        super().__init__(ae_title)
        _config.LOG_HANDLER_LEVEL = level
        retrieving = RetrieveOptions(_no_destination)
        self.make_services = partial(AcceptorServices, retrieving=retrieving)
        _made.append(self)

    def start_server(self, address: Any, block: bool = True, *args: Any, **kwargs: Any) -> Any:
        """Serve with our engine, unless the other role is ours."""
        if ROLE == "requestor" or block:
            stock: Any = super().start_server(address, block, *args, **kwargs)
            if stock is not None:
                # Our AE asks its servers, and tells them.
                stock.associations_elsewhere, stock.processes = 0, 1
                stock.note_associations = lambda _: None
            return stock
        names = ("ssl_context", "evt_handlers", "ae_title", "contexts")
        options = dict(zip(names, args, strict=False)) | kwargs
        server: Any = self.make_server(
            address,
            server_class=EngineServer,
            request_handler=EngineRequestHandler,
            **options,  # type: ignore[arg-type]  # the arguments of start_server, as they come
        )
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        self._servers.append(server)
        return server

    def associate(self, *args: Any, **kwargs: Any) -> Any:
        """Request with our engine, unless the other role is ours."""
        owner = ApplicationEntity if ROLE == "acceptor" else EngineAE
        return owner.associate(self, *args, **kwargs)

    @property
    def active_associations(self) -> list[Any]:
        """Ours, and the stock ones of the other role."""
        threads = threading.enumerate()
        stock = [one for one in threads if type(one) is Association and one.ae is self]
        return super().active_associations + stock


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put our AE into the test modules and drop the tests of the table."""
    kept, dropped = [], []
    for item in items:
        module = _module_of(item)
        if hasattr(module, "AE"):
            vars(module)["AE"] = SuiteAE
        name = item.nodeid.split("::", 1)[-1].split("[")[0].replace("::", ".")
        reason = reason_to_deselect(item.path.stem, name, ROLE)
        (dropped if reason else kept).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


@pytest.fixture(autouse=True)
def own_port(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a port of its own, and leaves no server or association that would fail the next one."""
    module = _module_of(request.node)
    if hasattr(module, "get_port"):
        ports = {"local": _free_port(), "remote": _free_port()}
        monkeypatch.setattr(module, "get_port", lambda src="local": ports[src])
    yield
    for ae in _made:
        with suppress(Exception):
            ae.shutdown()
    _made.clear()


def _module_of(item: Any) -> ModuleType:
    module = item.getparent(pytest.Module).obj
    assert isinstance(module, ModuleType)
    return module


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])
