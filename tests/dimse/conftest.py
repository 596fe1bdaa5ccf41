"""Fixtures of the retrieve tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.dimse.retrieving import Getter, Mover, Retriever
from tests.peers import Destination


@pytest.fixture(params=["C-MOVE", "C-GET"])
def retriever(
    request: pytest.FixtureRequest, start_destination: Callable[..., Destination]
) -> Retriever:
    """A client that retrieves, by each of the two services."""
    return Mover(start_destination) if request.param == "C-MOVE" else Getter()
