"""The programmable SCP itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pydicom
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from pacs.conformance.scu.holdings import Holdings
from pacs.conformance.scu.rules import Rule, Rules
from pacs.conformance.scu.scenario import Scenario
from pacs.conformance.scu.session import Session
from pacs.conformance.wire.association import Association
from pacs.conformance.wire.trace import Trace
from pacs.dicom.sop_classes import EXPLICIT_VR_LITTLE_ENDIAN
from pacs.errors import InvalidSetting

_JOIN_SECONDS = 5.0
_TIMEOUT_SECONDS = 60.0


class ProgrammableSCP:
    """An SCP that does what its rules say, and is right in everything else; a context manager.

    It answers to any called AE title. ``destinations`` (title to host and port) adds to those of the scenario.

    Raises:
        InvalidSetting: a destination of the scenario is none.
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        rules: Iterable[Rule] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        destinations: Mapping[str, tuple[str, int]] | None = None,
        on_end: Callable[[Session], None] = lambda _: None,
    ) -> None:
        self._scenario = scenario or Scenario()
        self.rules = Rules([*self._scenario.rules, *rules])
        self.host, self.port = host, port
        self.destinations = _addresses(self._scenario.destinations) | dict(destinations or {})
        self.sessions: list[Session] = []
        self._on_end = on_end
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.holdings = self._stack.enter_context(Holdings())
        self.store(*self._scenario.data_sets())
        for folder in self._scenario.folders:
            self.store_folder(Path(folder))
        self._listening = socket.create_server((self.host, self.port))
        self.port = int(self._listening.getsockname()[1])
        self._threads.append(threading.Thread(target=self._accept, daemon=True))
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for session in self.sessions:
            session.association.close()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
        self._stack.close()

    def store(self, *instances: Dataset) -> None:
        """Have these instances, each in the transfer syntax of its File Meta Information, or Explicit VR.

        Raises:
            PacsError: one is no SOP Instance.
        """
        for instance in instances:
            meta = getattr(instance, "file_meta", None)
            syntax = str(getattr(meta, "TransferSyntaxUID", "") or EXPLICIT_VR_LITTLE_ENDIAN)
            self.holdings.add(instance, syntax)

    def store_folder(self, folder: Path) -> int:
        """Have the DICOM files below a folder; how many there are.

        Raises:
            InvalidSetting: there is no such folder.
        """
        if not folder.is_dir():
            raise InvalidSetting(f"no folder {folder}")
        count = 0
        for path in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
            with suppress(InvalidDicomError), config.disable_value_validation():
                self.store(pydicom.dcmread(path))
                count += 1
        return count

    @property
    def is_idle(self) -> bool:
        """Whether no association is there."""
        with self._lock:
            return all(session.ending for session in self.sessions)

    def _accept(self) -> None:
        while True:
            try:
                sock, address = self._listening.accept()
            except OSError:
                return
            number = len(self.sessions) + 1
            trace = Trace(f"association {number} from {address[0]}")
            association = Association(sock, trace, _TIMEOUT_SECONDS)
            session = Session(association, self.holdings, self.rules, self.destinations, number)
            thread = threading.Thread(target=self._run, args=(session,), daemon=True)
            with self._lock:
                self.sessions.append(session)
                self._threads.append(thread)
            thread.start()

    def _run(self, session: Session) -> None:
        session.run()
        self._on_end(session)


def _addresses(destinations: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    found = {}
    for title, address in destinations.items():
        host, _, port = address.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()):
            raise InvalidSetting(f"destination {title}: expected HOST:PORT, got {address!r}")
        found[title] = (host, int(port))
    return found
