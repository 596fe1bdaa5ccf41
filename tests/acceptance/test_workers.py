"""``pacs serve --workers N``: several processes that look like one server."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from pydicom.uid import CTImageStorage

from pacs.dicom.information_model import InformationModel
from pacs.dimse import query_scu
from pacs.dimse.ae import Options
from pacs.errors import PacsError
from tests.acceptance.peers import Destination, association, store
from tests.acceptance.processes import (
    DEADLINE_SECONDS,
    Processes,
    Serving,
    environment,
    succeeded,
    wait_until_listening,
)
from tests.factories import make_instance
from tests.peers import VERIFICATION
from tests.wire.wire import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    COMMAND,
    DATA,
    EXPLICIT,
    LAST,
    Wire,
    associate_pdu,
    p_data,
    store_command,
)

SUCCESS = 0x0000
CT = {1: (str(CTImageStorage), EXPLICIT)}
#: PS3.8 9.3.4: rejected-transient, by the presentation service provider, local limit exceeded.
LOCAL_LIMIT_EXCEEDED = b"\x00\x02\x03\x02"


def workers(serving: Serving) -> list[psutil.Process]:
    """The worker processes, oldest first."""
    children = psutil.Process(serving.process.pid).children()
    return sorted(children, key=psutil.Process.create_time)


def worker_of(serving: Serving, peer: Wire) -> psutil.Process:
    """The worker that serves a peer's connection."""
    port = peer.sock.getsockname()[1]
    (worker,) = (one for one in workers(serving) if port in remote_ports(one))
    return worker


def remote_ports(process: psutil.Process) -> list[int]:
    return [one.raddr.port for one in process.net_connections("tcp") if one.raddr]


def wait_for(condition: Callable[[], object]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def wait_for_log(serving: Serving, text: str) -> str:
    """Wait for a line, and return it."""
    wait_for(lambda: text in serving.log)
    return next(line for line in serving.log.splitlines() if text in line)


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it was in the queue when the listener closed
    return False


def begin_store(peer: Wire) -> None:
    """Send a part of an instance, so much that it is in a file."""
    peer.associate(CT)
    peer.send(p_data(1, COMMAND | LAST, store_command(str(CTImageStorage), "1.2.3")))
    for _ in range(8):
        peer.send(p_data(1, DATA, bytes(10_000)))


def spool_files(processes: Processes) -> list[str]:
    spool = processes.cwd / "pacs-data" / "storage" / "spool"
    return [path.name for path in spool.glob("*/*.part")]


def image_uids(serving: Serving, study_uid: str) -> set[str]:
    keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": "", "SOPInstanceUID": ""}
    series = query_scu.find(
        Options(),
        serving.peer,
        InformationModel.STUDY_ROOT,
        query_scu.identifier("SERIES", {"StudyInstanceUID": study_uid, "SeriesInstanceUID": ""}),
    )
    found = set()
    for one in series:
        keys["SeriesInstanceUID"] = str(one.SeriesInstanceUID)
        matches = query_scu.find(
            Options(),
            serving.peer,
            InformationModel.STUDY_ROOT,
            query_scu.identifier("IMAGE", keys),
        )
        found |= {str(match.SOPInstanceUID) for match in matches}
    return found


def move(serving: Serving, study_uid: str, destination: str) -> list[query_scu.Progress]:
    identifier = query_scu.identifier("STUDY", {"StudyInstanceUID": study_uid})
    model = InformationModel.STUDY_ROOT
    return list(query_scu.move(Options(), serving.peer, model, identifier, destination))


@pytest.fixture(autouse=True)
def no_stragglers(tmp_path: Path) -> Iterator[None]:
    """End workers that have outlived their supervisor, and say so: their directory tells whose they are."""
    yield
    ending = [one for one in psutil.process_iter() if is_in(one, tmp_path / "cwd")]
    _, left = psutil.wait_procs(ending, DEADLINE_SECONDS / 6)
    for process in left:
        process.kill()
    assert left == []


def is_in(process: psutil.Process, directory: Path) -> bool:
    try:
        return Path(process.cwd()) == directory
    except psutil.Error:
        return False


@pytest.fixture
def serving(processes: Processes) -> Serving:
    """Two workers over SQLite."""
    return processes.serve("--workers", "2")


@pytest.fixture
def peers(serving: Serving) -> Iterator[Callable[[], Wire]]:
    """Opens connections to ``serving``."""
    with ExitStack() as opened:
        yield lambda: opened.enter_context(Wire(serving.port))


# One server


def test_workers_announce_themselves_as_one_server(serving: Serving) -> None:
    assert serving.summary[-2:] == ["workers 2", f"listening on 127.0.0.1:{serving.port}"]
    assert len(workers(serving)) == 2
    assert serving.log == ""


def test_one_worker_is_the_command_itself(processes: Processes) -> None:
    serving = processes.serve("--workers", "1")

    assert workers(serving) == []
    assert not any("workers" in line for line in serving.summary)


def test_workers_share_parallel_associations_evenly(
    serving: Serving, peers: Callable[[], Wire]
) -> None:
    opened = [peers() for _ in range(6)]
    for peer in opened:
        peer.associate()

    served = [worker_of(serving, peer).pid for peer in opened]

    assert sorted(map(served.count, {worker.pid for worker in workers(serving)})) == [3, 3]


def test_workers_give_a_new_association_to_the_one_that_is_less_busy(
    serving: Serving, peers: Callable[[], Wire]
) -> None:
    first, second, third = peers(), peers(), peers()
    for peer in (first, second, third):
        peer.associate()
    lonely = worker_of(serving, second)
    first.sock.close()
    third.sock.close()
    wait_for(lambda: sum(len(remote_ports(one)) for one in workers(serving)) == 1)

    more = [peers() for _ in range(2)]
    for peer in more:
        peer.associate()

    # The busy one is due last: of three connections it has two only if the other has been given one first.
    assert worker_of(serving, more[0]).pid != lonely.pid


def test_all_that_parallel_senders_stored_is_found(
    processes: Processes, empty_database_url: str
) -> None:
    serving = processes.serve(
        "--workers", "2", "--database-url", empty_database_url, "--log-level", "info"
    )
    instances = [
        make_instance(
            StudyInstanceUID="1.2.3",
            SeriesInstanceUID=f"1.2.3.{number % 3}",
            SOPInstanceUID=f"1.2.3.9.{number}",
        )
        for number in range(40)
    ]

    with ThreadPoolExecutor(4) as executor:
        statuses = executor.map(lambda first: store(serving.peer, *instances[first::4]), range(4))
        assert [status for some in statuses for status in some] == [SUCCESS] * 40

    assert image_uids(serving, "1.2.3") == {str(one.SOPInstanceUID) for one in instances}
    assert serving.stop() == 0
    said = re.findall(r"INFO +(worker \d: )?SENDER@127.0.0.1: C-STORE", serving.log)
    assert sorted(set(said)) == ["worker 1: ", "worker 2: "]
    assert len(said) == 40


def test_association_limit_is_that_of_all_workers_together(
    processes: Processes,
) -> None:
    serving = processes.serve("--workers", "2", "--maximum-associations", "3")

    def request(peer: Wire) -> tuple[int, bytes]:
        peer.send(associate_pdu({1: (VERIFICATION, EXPLICIT)}))
        return peer.receive()

    def is_accepted() -> bool:
        with Wire(serving.port) as peer:
            return request(peer)[0] == ASSOCIATE_AC

    with ExitStack() as stack:
        accepted = [stack.enter_context(Wire(serving.port)) for _ in range(3)]
        assert [request(peer)[0] for peer in accepted] == [ASSOCIATE_AC] * 3
        with Wire(serving.port) as peer:
            assert request(peer) == (ASSOCIATE_RJ, LOCAL_LIMIT_EXCEEDED)

        accepted[0].sock.close()

        # There is room when the workers have noticed that this one and the rejected one are gone.
        wait_for(is_accepted)


# A worker that dies


def test_killed_worker_is_replaced_and_its_spool_swept(
    processes: Processes, serving: Serving, peers: Callable[[], Wire]
) -> None:
    receiving, idle = peers(), peers()
    begin_store(receiving)
    idle.associate(CT)
    wait_for(lambda: spool_files(processes))
    killed = worker_of(serving, receiving)

    killed.kill()

    line = wait_for_log(serving, "was killed by SIGKILL; it is replaced")
    assert re.search(rf"ERROR +worker \d \(process {killed.pid}\) was", line)
    wait_for_log(serving, "serves again")
    assert "worker" in wait_for_log(
        serving, "unfinished transfers of an earlier process removed: 1"
    )
    assert spool_files(processes) == []
    assert receiving.ends() == 0
    assert len(workers(serving)) == 2
    assert killed.pid not in {one.pid for one in workers(serving)}


def test_what_is_in_the_log_of_a_killed_worker_is_found(processes: Processes) -> None:
    serving = processes.serve("--workers", "2", "--acknowledge-after", "log")
    study = "1.2.3"
    with Wire(serving.port) as peer, association(serving.peer) as assoc:
        peer.associate()
        # Of the two workers, the one that does not serve the peer.
        (receiving,) = {one.pid for one in workers(serving)} - {worker_of(serving, peer).pid}
        uids = []
        for _ in range(40):
            instance = make_instance(StudyInstanceUID=study)
            assert int(assoc.send_c_store(instance).Status) == SUCCESS
            uids.append(str(instance.SOPInstanceUID))
        psutil.Process(receiving).kill()
        wait_for_log(serving, "serves again")

    assert sorted(image_uids(serving, study)) == sorted(uids)
    assert serving.stop() == 0
    assert list((processes.cwd / "pacs-data" / "storage" / "log").iterdir()) == []


def test_associations_of_a_killed_worker_do_not_count_any_more(processes: Processes) -> None:
    serving = processes.serve("--workers", "2", "--maximum-associations", "1")
    with Wire(serving.port) as peer:
        peer.associate()
        worker_of(serving, peer).kill()
        wait_for_log(serving, "serves again")

    with Wire(serving.port) as peer:
        peer.associate()


def test_killed_worker_leaves_the_association_of_the_other_alone(
    serving: Serving, peers: Callable[[], Wire]
) -> None:
    with association(serving.peer) as assoc:
        victim = peers()
        victim.associate()
        worker_of(serving, victim).kill()
        wait_for_log(serving, "serves again")

        statuses = [int(assoc.send_c_store(make_instance()).Status) for _ in range(3)]

    assert statuses == [SUCCESS] * 3
    assert victim.ends() == 0


def test_retrieve_of_a_killed_worker_is_marked_interrupted(
    processes: Processes, empty_database_url: str, destination: Destination
) -> None:
    options = ("--database-url", empty_database_url)
    serving = processes.serve("--workers", "2", "--remote-aes", destination.remote_aes, *options)
    store(serving.peer, make_instance(StudyInstanceUID="1.2.3"))
    destination.may_answer.clear()

    with ThreadPoolExecutor(1) as executor:
        moving = executor.submit(move, serving, "1.2.3", destination.title)
        assert destination.arrived.wait(DEADLINE_SECONDS)
        (busy,) = (one for one in workers(serving) if destination.port in remote_ports(one))
        busy.kill()
        wait_for_log(serving, "serves again")
        destination.may_answer.set()
        assert moving.exception(DEADLINE_SECONDS) is not None

    assert "retrieves of an ended process that were interrupted: 1" in serving.log
    listed = json.loads(succeeded(processes.run("retrieve", "list", "--json", *options)))
    assert [one["state"] for one in listed] == ["interrupted"]


def take_index_away(processes: Processes) -> Callable[[], None]:
    """Keep new workers from starting until the result is called; those that run have the file open."""
    index = processes.cwd / "pacs-data" / "index.sqlite"
    kept = index.rename(index.with_name("kept"))

    def put_back() -> None:
        for made in index.parent.glob("index.sqlite*"):
            made.unlink()
        kept.rename(index)

    return put_back


def test_workers_without_an_index_are_tried_again_until_there_is_one(
    processes: Processes, serving: Serving
) -> None:
    put_back = take_index_away(processes)
    first, second = workers(serving)

    first.kill()
    line = wait_for_log(serving, "next attempt in")

    assert "worker 1 cannot start: The index has schema none" in line
    serving.echo()  # the other one
    put_back()
    wait_for_log(serving, "worker 1 serves again")
    assert second.is_running()
    assert serving.stop() == 0


def test_connection_waits_while_there_is_no_worker(
    processes: Processes, serving: Serving, peers: Callable[[], Wire]
) -> None:
    put_back = take_index_away(processes)
    for worker in workers(serving):
        worker.kill()
    wait_for_log(serving, "worker 1 cannot start")
    wait_for_log(serving, "worker 2 cannot start")

    peer = peers()
    put_back()
    peer.associate()


@pytest.mark.slow
def test_serve_gives_up_when_no_worker_can_start(processes: Processes, serving: Serving) -> None:
    take_index_away(processes)

    for worker in workers(serving):
        worker.kill()

    assert serving.process.wait(DEADLINE_SECONDS) == 3
    assert re.fullmatch(r"pacs: worker \d cannot start: .*", serving.log.splitlines()[-1])
    assert serving.log.count("cannot start") < 20


def run_with_worker(processes: Processes, body: str) -> subprocess.CompletedProcess[str]:
    """``pacs serve --workers 2`` whose workers do something else."""
    program = (
        "import os, signal\n"
        # As some parents leave it behind.
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "from pacs.workers import supervisor\n"
        "def work(settings, duties, channel):\n"
        f"    {body}\n"
        "supervisor.work = work\n"
        "from pacs.cli import main\n"
        "main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program, "serve", "--port", "0", "--workers", "2"],
        env=environment(),
        cwd=processes.cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    ("body", "end"),
    [
        pytest.param("return 3", "ended with status 3", id="status"),
        pytest.param("os.abort()", "was killed by SIGABRT", id="signal"),
    ],
)
def test_worker_that_dies_at_first_start_stops_the_start(
    processes: Processes, body: str, end: str
) -> None:
    completed = run_with_worker(processes, body)

    assert completed.returncode == 1
    assert completed.stdout == ""
    assert re.fullmatch(rf"pacs: worker \d {end} before it could serve\n", completed.stderr)


def test_worker_that_cannot_start_at_first_says_why(processes: Processes) -> None:
    body = (
        "from pacs.errors import StorageFull; from pacs.workers.channel import Failed;"
        " channel.report(Failed(StorageFull('no room'))); return 1"
    )

    completed = run_with_worker(processes, body)

    assert completed.returncode == 3
    assert re.fullmatch(r"pacs: worker \d cannot start: no room\n", completed.stderr)


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_all_processes_stops_them_once(serving: Serving, number: signal.Signals) -> None:
    processes = workers(serving)

    # What a terminal does on Ctrl-C, and a service manager that signals the whole group.
    for worker in processes:
        worker.send_signal(number)
    status = serving.stop(number)

    assert status == 0
    assert [re.sub(r"^\S+ \S+ ", "", line) for line in serving.log.splitlines()] == [
        "INFO    stopping: waiting for running operations",
        "INFO    stopped",
    ]
    assert psutil.wait_procs(processes, DEADLINE_SECONDS)[1] == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", serving.port), timeout=5).close()


def test_signal_lets_the_moves_of_all_workers_finish(
    processes: Processes, destination: Destination
) -> None:
    serving = processes.serve("--workers", "2", "--remote-aes", destination.remote_aes)
    studies = ("1.1", "1.2")
    for study in studies:
        store(
            serving.peer,
            *(make_instance(StudyInstanceUID=study, SOPInstanceUID=f"{study}.{n}") for n in (1, 2)),
        )
    destination.may_answer.clear()

    def is_moving(worker: psutil.Process) -> bool:
        return destination.port in remote_ports(worker)

    with ThreadPoolExecutor(2) as executor:
        moving = [executor.submit(move, serving, study, destination.title) for study in studies]
        wait_for(lambda: all(map(is_moving, workers(serving))))
        serving.process.send_signal(signal.SIGTERM)
        wait_for(lambda: is_refused(serving.port))  # no worker keeps the port either
        destination.may_answer.set()
        finals = [one.result(DEADLINE_SECONDS)[-1] for one in moving]

    assert [(one.status, one.completed) for one in finals] == [(SUCCESS, 2)] * 2
    assert serving.process.wait(DEADLINE_SECONDS) == 0
    assert "cut off" not in serving.log


@pytest.fixture
def stuck(processes: Processes, destination: Destination, drain_seconds: str) -> Iterator[Serving]:
    """Two workers, of which one is carrying out a C-MOVE that does not end."""
    serving = processes.serve(
        "--workers",
        "2",
        "--remote-aes",
        destination.remote_aes,
        "--drain-timeout-seconds",
        drain_seconds,
    )
    store(serving.peer, make_instance(StudyInstanceUID="1.2.3"))
    destination.may_answer.clear()
    with ThreadPoolExecutor(1) as executor:
        moving = executor.submit(move, serving, "1.2.3", destination.title)
        assert destination.arrived.wait(DEADLINE_SECONDS)
        yield serving
        destination.may_answer.set()
        assert moving.exception(DEADLINE_SECONDS) is not None


@pytest.mark.parametrize("drain_seconds", ["1"])
def test_signal_cuts_off_what_does_not_end_in_time(stuck: Serving) -> None:
    processes = workers(stuck)

    assert stuck.stop() == 0
    assert "1 associations were still busy and have been cut off" in stuck.log
    assert psutil.wait_procs(processes, DEADLINE_SECONDS)[1] == []


def test_worker_that_dies_while_stopping_is_not_waited_for(
    serving: Serving, peers: Callable[[], Wire]
) -> None:
    peer = peers()
    peer.associate()
    frozen = worker_of(serving, peer)
    frozen.suspend()
    serving.process.send_signal(signal.SIGTERM)
    wait_for_log(serving, "stopping")

    frozen.kill()

    assert serving.process.wait(DEADLINE_SECONDS) == 0
    wait_for_log(serving, "was killed by SIGKILL before it had stopped")


@pytest.mark.parametrize("drain_seconds", ["600"])
def test_second_signal_ends_everything_at_once(stuck: Serving) -> None:
    processes = workers(stuck)
    stuck.process.send_signal(signal.SIGTERM)
    wait_for_log(stuck, "stopping")

    status = stuck.stop()

    assert status == -signal.SIGTERM
    assert psutil.wait_procs(processes, DEADLINE_SECONDS)[1] == []
    assert "stopped" not in stuck.log


def test_killed_supervisor_takes_its_workers_with_it(
    processes: Processes, serving: Serving, peers: Callable[[], Wire]
) -> None:
    connected = [peers() for _ in range(2)]
    for peer in connected:
        peer.associate()
    left = workers(serving)

    serving.kill()

    assert psutil.wait_procs(left, DEADLINE_SECONDS)[1] == []
    assert [peer.ends() for peer in connected] == [0, 0]
    process, log_path = processes.spawn(
        "serve", "--host", "127.0.0.1", "--port", str(serving.port), "--workers", "2"
    )
    again = wait_until_listening(process, log_path)
    again.echo()


# Refuse to start


def test_workers_on_a_port_in_use_are_refused(processes: Processes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        completed = processes.run("serve", "--workers", "2", "--host", "127.0.0.1", "--port", port)

    assert completed.returncode == 2
    assert completed.stderr == f"pacs: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_worker_that_runs_out_of_memory_is_replaced(processes: Processes) -> None:
    serving = processes.serve("--workers", "2", "--worker-timeout-seconds", "2")
    full, other = workers(serving)
    full.rlimit(psutil.RLIMIT_AS, (full.memory_info().vms, psutil.RLIM_INFINITY))

    def is_replaced() -> object:
        # Half of the calls come to the worker that has no room for the thread of another association.
        with suppress(PacsError):
            query_scu.echo(Options(acse_timeout_seconds=1), serving.peer)
        # So short of memory that not even the hook for it could run, it is found stuck.
        how = r"(ran out of memory|was killed by SIGKILL); it is replaced"
        return re.search(rf"\(process {full.pid}\) {how}", serving.log)

    wait_for(is_replaced)
    wait_for_log(serving, "serves again")
    assert other in workers(serving)
    assert full.pid not in [one.pid for one in workers(serving)]
    assert serving.stop() == 0


def test_worker_that_is_stuck_is_killed_and_replaced(processes: Processes) -> None:
    serving = processes.serve("--workers", "2", "--worker-timeout-seconds", "0.5")
    stuck, other = workers(serving)
    stuck.suspend()

    line = wait_for_log(serving, "has not answered")
    wait_for_log(serving, "serves again")

    assert line.endswith(f"worker 1 (process {stuck.pid}) has not answered for 0.5 s and is killed")
    assert other in workers(serving)
    serving.echo()
    assert serving.stop() == 0


def test_workers_that_answer_are_left_alone_when_all_were_stopped(processes: Processes) -> None:
    serving = processes.serve("--workers", "2", "--worker-timeout-seconds", "1")
    before = workers(serving)
    everybody = [psutil.Process(serving.process.pid), *before]
    began = time.monotonic()

    for one in everybody:
        one.suspend()
    wait_for(lambda: time.monotonic() - began > 1.5)
    # The supervisor first: it must not judge by what it could not hear.
    for one in everybody:
        one.resume()
    serving.echo()
    wait_for(lambda: time.monotonic() - began > 3.5)

    assert workers(serving) == before
    assert "has not answered" not in serving.log


def test_stuck_worker_does_not_outlive_its_supervisor(serving: Serving) -> None:
    stuck, *_ = workers(serving)
    stuck.suspend()

    serving.kill()

    wait_for(lambda: not stuck.is_running() or stuck.status() == psutil.STATUS_ZOMBIE)


def test_workers_answer_for_the_health_of_the_server(processes: Processes) -> None:
    serving = processes.serve("--workers", "2", "--data-dir", "data")
    health = ("health", "--data-dir", "data")

    well = processes.run(*health)
    workers(serving)[0].kill()
    one_left = processes.run(*health, "--json")
    serving.stop()
    gone = processes.run(*health)

    assert (well.returncode, well.stdout) == (0, "find and store work\n")
    assert (one_left.returncode, json.loads(one_left.stdout)["ok"]) == (0, True)
    assert (gone.returncode, gone.stdout) == (3, "")
    assert gone.stderr == f"pacs: no server runs in {serving.log_path.parent / 'data'}\n"


def test_health_finds_the_server_as_the_server_finds_its_data(processes: Processes) -> None:
    """From the file or the environment, whatever else is in them."""
    (processes.cwd / "pacs.toml").write_text('data_dir = "elsewhere"\ntls = "off"\n', "utf-8")
    processes.serve(env={"PACS_LOG_LEVEL": "warning"})

    assert processes.run("health", env={"PACS_LOG_LEVEL": "warning"}).returncode == 0
    assert processes.run("health", env={"PACS_DATA_DIR": "nowhere"}).returncode == 3
