"""The servers that are compared: this project, Orthanc, dcmqrscp, pynetdicom's qrscp; and two that keep nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from benchmarks.databases import FreshDatabases
from benchmarks.peers import Archive, WorkFailed, dcmtk, version_line

#: More than any of the works needs.
MAXIMUM_ASSOCIATIONS = 256


class Pacs(Archive):
    """This project."""

    def __init__(self, databases: FreshDatabases | None = None, workers: int = 1) -> None:
        """Use SQLite, or a new database out of ``databases`` each time."""
        self._databases = databases
        self._workers = workers
        self.name = "pacs" if databases is None else "pacs (PostgreSQL)"
        self.name += f", {workers} workers" if workers > 1 else ""
        self.helpers = () if databases is None else databases.processes
        #: Associations to one Move Destination at once.
        self.parallel = 1

    @property
    def settings(self) -> str:
        """See ``pacs serve --help``."""
        return f"defaults, workers {self._workers}: fsync and commit before each response"

    def command(self, directory: Path, port: int, destinations: Mapping[str, int]) -> list[str]:
        """Register the destinations, and say how to serve."""
        pacs = [sys.executable, "-m", "pacs"]
        place = ["--data-dir", str(directory / "data")]
        if self._databases is not None:
            place += ["--database-url", self._databases.create()]
        _run([*pacs, "db", "upgrade", "--make", *place])
        for title, where in destinations.items():
            add = [*pacs, "ae", "add", title, "127.0.0.1", str(where), *place]
            if self.parallel > 1:
                add += ["--parallel-associations", str(self.parallel)]
            _run(add)
        command = [*pacs, "serve", "--host", "127.0.0.1", "--port", str(port), *place]
        command += ["--maximum-associations", str(MAXIMUM_ASSOCIATIONS), "--log-level", "warning"]
        # All clients are on one host, and may share one calling AE.
        for share in ("host", "ae"):
            command += [f"--maximum-associations-per-{share}", str(MAXIMUM_ASSOCIATIONS)]
        return [*command, "--workers", str(self._workers)] if self._workers > 1 else command


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode:
        raise WorkFailed(" ".join((done.stdout + done.stderr).split())[-300:])


class Orthanc(Archive):
    """Orthanc with its SQLite index and its defaults."""

    name = "Orthanc"

    def __init__(self) -> None:
        """Look for the program."""
        self._path = shutil.which("Orthanc") or "/usr/sbin/Orthanc"

    @property
    def settings(self) -> str:
        """What differs from ``Orthanc --config``."""
        changed = "defaults (SQLite, SyncStorageArea on: it fsyncs files), HTTP off"
        return f"{version_line(self._path)}, {changed}"

    def command(self, directory: Path, port: int, destinations: Mapping[str, int]) -> list[str]:
        """Write orthanc.json."""
        configuration = {
            "Name": "PACS",
            "StorageDirectory": str(directory / "storage"),
            "IndexDirectory": str(directory / "storage"),
            "SyncStorageArea": True,
            "HttpServerEnabled": False,
            "DicomAet": "PACS",
            "DicomPort": port,
            "DicomModalities": {
                title: [title, "127.0.0.1", where] for title, where in destinations.items()
            },
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "UnknownSopClassAccepted": True,
            "SynchronousCMove": True,
            "Plugins": [],
        }
        (directory / "orthanc.json").write_text(json.dumps(configuration))
        return [self._path, str(directory / "orthanc.json")]


class Dcmqrscp(Archive):
    """DCMTK's archive: no fsync, an index file."""

    name = "dcmqrscp"

    @property
    def settings(self) -> str:
        """Its configuration."""
        return f"{version_line(dcmtk('dcmqrscp'))}, PDU 131072; it never fsyncs"

    def command(self, directory: Path, port: int, destinations: Mapping[str, int]) -> list[str]:
        """Write dcmqrscp.cfg."""
        (directory / "storage").mkdir()
        hosts = "\n".join(
            f"{title.lower()} = ({title}, localhost, {where})"
            for title, where in destinations.items()
        )
        # 500 studies of 1 GB are the most that this release can be told.
        (directory / "dcmqrscp.cfg").write_text(
            f"MaxPDUSize = 131072\nMaxAssociations = {MAXIMUM_ASSOCIATIONS}\n"
            f"HostTable BEGIN\n{hosts}\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\nPACS {directory}/storage RW (500, 1024mb) ANY\nAETable END\n"
        )
        return [dcmtk("dcmqrscp"), "-c", str(directory / "dcmqrscp.cfg"), str(port)]


class StockQrscp(Archive):
    """The archive among pynetdicom's applications."""

    name = "qrscp"

    @property
    def settings(self) -> str:
        """Its configuration."""
        return f"pynetdicom {version('pynetdicom')}, as its documentation configures it"

    def command(self, directory: Path, port: int, destinations: Mapping[str, int]) -> list[str]:
        """Write qrscp.ini."""
        peers = "\n".join(
            f"[{title}]\nae_title: {title}\naddress: 127.0.0.1\nport: {where}\n"
            for title, where in destinations.items()
        )
        (directory / "storage").mkdir()
        (directory / "qrscp.ini").write_text(
            "[DEFAULT]\nae_title: PACS\n"
            f"port: {port}\nmax_pdu: 16382\nacse_timeout: 30\ndimse_timeout: 30\n"
            "network_timeout: 30\nbind_address: 127.0.0.1\n"
            f"instance_location: {directory}/storage\n"
            f"database_location: {directory}/instances.sqlite\n{peers}"
        )
        arguments = ["-c", str(directory / "qrscp.ini"), "-q"]
        return [sys.executable, "-m", "pynetdicom", "qrscp", *arguments]


class Receiver(Archive):
    """Our engine, keeping nothing."""

    name = "pacs engine"

    @property
    def settings(self) -> str:
        """See ``receiver.py``."""
        return "PDU 131072; keeps nothing"

    def command(self, directory: Path, port: int, destinations: Mapping[str, int]) -> list[str]:
        """It has no configuration."""
        assert directory.is_dir()
        assert not destinations
        return [sys.executable, "-m", "benchmarks.receiver", str(port)]


class Storescp(Archive):
    """DCMTK's storescp, keeping nothing or writing files without fsync."""

    def __init__(self, *, keeps: bool) -> None:
        """Keep what is received, or not."""
        self._keeps = keeps
        self.name = "storescp" if keeps else "storescp --ignore"

    @property
    def settings(self) -> str:
        """Its options."""
        return f"{version_line(dcmtk('storescp'))}, PDU 131072; it never fsyncs"

    def command(self, directory: Path, port: int, destinations: Mapping[str, int]) -> list[str]:
        """Everything is an option."""
        assert not destinations
        command = [dcmtk("storescp"), "--max-pdu", "131072", "-aet", "PACS", "+xa"]
        if not self._keeps:
            return [*command, "--ignore", str(port)]
        (directory / "storage").mkdir()
        return [*command, "-od", str(directory / "storage"), str(port)]
