"""The fixtures. Nothing of the archive is imported before a test asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pacs.conformance.scp.destination import Destination
    from pacs.conformance.scu.server import ProgrammableSCP
    from pacs.testing.archive import RunningArchive


@pytest.fixture
def pacs_archive(tmp_path: Path) -> Iterator[RunningArchive]:
    """An empty archive that lets any AE in: see ``pacs.testing.archive.RunningArchive``."""
    from pacs.testing.archive import RunningArchive  # noqa: PLC0415 - see the module's docstring

    with RunningArchive(tmp_path / "pacs") as running:
        yield running


@pytest.fixture
def pacs_archive_with(tmp_path: Path) -> Iterator[Callable[..., RunningArchive]]:
    """A function that starts archives with settings: ``pacs_archive_with(ae_title="ARCHIVE")``."""
    from pacs.testing.archive import RunningArchive  # noqa: PLC0415 - see the module's docstring

    with ExitStack() as stack:
        started = 0

        def start(**settings: Any) -> RunningArchive:
            nonlocal started
            started += 1
            running = RunningArchive(tmp_path / f"pacs{started}", **settings)
            return stack.enter_context(running)

        yield start


@pytest.fixture
def pacs_destination() -> Iterator[Destination]:
    """A Storage SCP that keeps what it gets: ``ae_title``, ``port``, ``received``, ``behaviour``, ``reject``."""
    from pacs.conformance.scp.destination import Destination  # noqa: PLC0415 - see the module's docstring

    with Destination("DESTINATION", host="127.0.0.1") as destination:
        yield destination


@pytest.fixture
def pacs_scp(pacs_destination: Destination) -> Iterator[ProgrammableSCP]:
    """An SCP that is right unless ``rules.add(Rule(...))`` says otherwise; it knows ``pacs_destination``."""
    from pacs.conformance.scu.server import ProgrammableSCP  # noqa: PLC0415 - see the module's docstring

    known = {pacs_destination.ae_title: ("127.0.0.1", pacs_destination.port)}
    with ProgrammableSCP(destinations=known) as scp:
        yield scp
