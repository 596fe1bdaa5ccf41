"""Which engine and which backend a test of the running archive uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pacs.config import Settings
from tests.peers import RunningArchive

Serve = Callable[..., RunningArchive]

_ENGINE_SQLITE = pytest.param(("engine", "sqlite"), id="engine-sqlite")
_ENGINE_POSTGRESQL = pytest.param(
    ("engine", "postgresql"), id="engine-postgresql", marks=pytest.mark.postgres
)
# The reference does not need both backends: below the handlers nothing is different.
_STOCK = pytest.param(("stock", "sqlite"), id="stock-sqlite")

#: Parameters of the ``serve`` fixture.
SERVED = (_ENGINE_SQLITE, _ENGINE_POSTGRESQL, _STOCK)
#: For what a stock AE cannot do; tests/dimse/test_stock_differences.py says what and why.
engine_only = pytest.mark.parametrize("serve", [_ENGINE_SQLITE, _ENGINE_POSTGRESQL], indirect=True)
#: For what does not touch the backend.
on_sqlite = pytest.mark.parametrize("serve", [_ENGINE_SQLITE, _STOCK], indirect=True)
#: For the wire and the engine itself.
engine_on_sqlite = pytest.mark.parametrize("serve", [_ENGINE_SQLITE], indirect=True)


def settings(directory: Path, **overrides: Any) -> Settings:
    """Settings with time-outs that suit a test, on a free port of the loopback interface."""
    return Settings(
        **{
            "data_dir": directory / "data",
            "host": "127.0.0.1",
            "port": 0,
            "acse_timeout_seconds": 5,
            "dimse_timeout_seconds": 15,
            "network_timeout_seconds": 20,
            "connect_timeout_seconds": 5,
            "drain_timeout_seconds": 2,
        }
        | overrides
    )
