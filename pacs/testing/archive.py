"""An archive that lives as long as a test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pydicom
from pydicom import config
from pydicom.dataset import Dataset

from pacs.archive.receive import OPERATOR, open_reception
from pacs.config import Settings
from pacs.conformance.wire.message import encode_data_set
from pacs.dicom.sop_classes import EXPLICIT_VR_LITTLE_ENDIAN
from pacs.model.instances import Origin
from pacs.model.remote_ae import RemoteAE
from pacs.model.retrieves import RetrieveRecord
from pacs.server import Server

_HOST = "127.0.0.1"


class RunningArchive:
    """A whole archive on a free port of the loopback interface, in a directory of its own; a context manager.

    It lets any AE in. ``settings`` are those of docs/configuration.md, by name.

    Raises:
        InvalidSetting: there is no such setting, or it cannot have that value.
    """

    host = _HOST

    def __init__(self, directory: Path | None = None, **settings: Any) -> None:
        self._temporary = None
        if directory is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="pacs-")
            directory = Path(self._temporary.name)
        wanted: dict[str, Any] = {
            "allow_any": True,
            "host": _HOST,
            "port": 0,
            "data_dir": directory,
        } | settings
        self._server = Server(Settings(**wanted))
        self.ae_title = str(wanted.get("ae_title", Settings.model_fields["ae_title"].default))

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.port

    @property
    def peer(self) -> tuple[str, int, str]:
        """Host, port and AE title: what an SCU needs to call it."""
        return self.host, self.port, self.ae_title

    def register(self, ae_title: str, port: int, host: str = _HOST) -> None:
        """Make a Move Destination known, as ``pacs ae add`` does."""
        self._server.archive.index.remote_aes.add(RemoteAE(title=ae_title, host=host, port=port))

    def store(self, *instances: Dataset | Path | str) -> None:
        """Put data sets or DICOM files into the archive without a network.

        Raises:
            PacsError: one is refused; those before it are stored.
        """
        for one in instances:
            self._store(one if isinstance(one, Dataset) else pydicom.dcmread(one))

    def _store(self, instance: Dataset) -> None:
        meta = getattr(instance, "file_meta", None)
        syntax = str(getattr(meta, "TransferSyntaxUID", "") or EXPLICIT_VR_LITTLE_ENDIAN)
        archive = self._server.archive
        uids = str(instance.SOPClassUID), str(instance.SOPInstanceUID)
        with open_reception(archive, Origin(self.ae_title, syntax, *uids), OPERATOR) as reception:
            reception.write(encode_data_set(instance, syntax))
            reception.commit()

    def instances(self) -> list[Dataset]:
        """All stored instances as pydicom reads their files, in the order of receipt."""
        return list(self._instances())

    def _instances(self) -> Iterator[Dataset]:
        archive = self._server.archive
        for location in archive.index.locations():
            with (
                archive.storage.open(location.location) as stream,
                config.disable_value_validation(),
            ):
                yield pydicom.dcmread(stream)

    def retrieves(self) -> list[RetrieveRecord]:
        """The C-MOVE and C-GET requests it was sent and how each ended, the latest first."""
        return self._server.archive.index.journal.retrieves()
