"""The archives that are compared: each starts fresh in a directory of its own and stops again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

#: DCMTK as Debian builds it leaves Nagle's algorithm on unless told otherwise.
NODELAY = {"TCP_NODELAY": "1"}
_READY_SECONDS = 30.0


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def dcmtk(name: str) -> str:
    """The path of a DCMTK tool; Python packages install scripts of the same names."""
    for directory in ("/usr/bin", "/usr/local/bin", *os.environ.get("PATH", "").split(":")):
        path = Path(directory, name)
        if (
            path.exists()
            and b"dcmtk"
            in subprocess.run([path, "--version"], capture_output=True, check=False).stdout
        ):
            return str(path)
    raise SystemExit(f"DCMTK's {name} is not installed")


@dataclass(frozen=True)
class Running:
    """An archive that answers."""

    title: str
    port: int
    pid: int


class Archive(ABC):
    """One kind of archive."""

    name: str

    @contextmanager
    def run(
        self,
        directory: Path,
        destinations: Mapping[str, int],
        environment: Mapping[str, str] = NODELAY,
    ) -> Iterator[Running]:
        """Start a fresh archive that knows ``destinations`` (title to port); stop it afterwards."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        port = free_port()
        command = self.command(directory, port, destinations)
        log = (directory / "log").open("wb")
        base = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
        process = subprocess.Popen(
            command, cwd=directory, stdout=log, stderr=log, env=base | dict(environment)
        )
        try:
            _wait_until_open(port, process)
            yield Running(self.title, port, process.pid)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()
            log.close()

    @property
    def title(self) -> str:
        """The AE title it answers to."""
        return "PACS"

    @abstractmethod
    def command(self, directory: Path, port: int, destinations: Mapping[str, int]) -> list[str]:
        """Write its configuration and return what starts it."""


class Pacs(Archive):
    """This project."""

    def __init__(self, database_url: str | None = None, workers: int = 1) -> None:
        self.database_url = database_url
        self.workers = workers
        self.name = "pacs" if database_url is None else "pacs (PostgreSQL)"

    def command(self, directory: Path, port: int, destinations: Mapping[str, int]) -> list[str]:
        """See ``pacs serve --help``."""
        remotes = ",".join(f"{title}=127.0.0.1:{where}" for title, where in destinations.items())
        command = [sys.executable, "-m", "pacs", "serve", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--data-dir", str(directory / "data")]
        command += ["--log-level", "warning"]
        if remotes:
            command += ["--remote-aes", remotes]
        if self.database_url is not None:
            command += ["--database-url", self.database_url]
        if self.workers > 1:
            command += ["--workers", str(self.workers)]
        return command


class Orthanc(Archive):
    """Orthanc with its SQLite index and its defaults: files are fsynced (``SyncStorageArea``)."""

    name = "Orthanc"

    def command(self, directory: Path, port: int, destinations: Mapping[str, int]) -> list[str]:
        """Write orthanc.json."""
        configuration = {
            "Name": "PACS",
            "StorageDirectory": str(directory / "storage"),
            "IndexDirectory": str(directory / "storage"),
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
            "SynchronousCMove": True,
            "Plugins": [],
        }
        (directory / "orthanc.json").write_text(json.dumps(configuration))
        path = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
        return [path, str(directory / "orthanc.json")]


class Dcmqrscp(Archive):
    """DCMTK's archive: no fsync, an index file."""

    name = "dcmqrscp"

    def command(self, directory: Path, port: int, destinations: Mapping[str, int]) -> list[str]:
        """Write dcmqrscp.cfg."""
        (directory / "storage").mkdir()
        hosts = "\n".join(
            f"{title.lower()} = ({title}, localhost, {where})"
            for title, where in destinations.items()
        )
        (directory / "dcmqrscp.cfg").write_text(
            "MaxPDUSize = 131072\nMaxAssociations = 120\n"
            f"HostTable BEGIN\n{hosts}\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\nPACS {directory}/storage RW (1000, 4096mb) ANY\nAETable END\n"
        )
        return [dcmtk("dcmqrscp"), "-c", str(directory / "dcmqrscp.cfg"), str(port)]


class StockQrscp(Archive):
    """The archive among pynetdicom's applications."""

    name = "pynetdicom qrscp"

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


def _wait_until_open(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            time.sleep(0.3)  # the first association is not what is measured
            return
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} does not listen on port {port}")


@contextmanager
def destination(environment: Mapping[str, str] = NODELAY) -> Iterator[int]:
    """DCMTK's storescp as Move Destination, throwing away what it receives; its port."""
    port = free_port()
    base = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    process = subprocess.Popen(
        [dcmtk("storescp"), "--ignore", "--max-pdu", "131072", "-aet", "DEST", str(port)],
        env=base | dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_open(port, process)
        yield port
    finally:
        process.kill()
        process.wait()
