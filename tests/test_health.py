"""``pacs health`` says what the running server can do; on both backends."""

from __future__ import annotations

import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pacs import __version__, health
from pacs.archive import examination
from pacs.archive.examination import _Question
from pacs.errors import IndexUnavailable
from pacs.server import Server
from tests.outages import index_locked, index_outage, largest_file
from tests.peers import database_url_of
from tests.serving import settings


@pytest.fixture
def server(archive_server: Any) -> Server:
    """A running server; on both backends."""
    assert isinstance(archive_server, Server)
    return archive_server


def _ask(server: Server) -> dict[str, Any]:
    answer = health.ask(server.settings.data_dir, 30)
    assert answer.pop("version") == __version__
    assert answer.pop("process") > 0
    return answer


def test_server_that_can_find_and_store_says_so(server: Server) -> None:
    assert _ask(server) == {"ok": True, "find": True, "store": True, "problems": []}


def test_server_without_its_database_says_so_until_it_is_back(server: Server) -> None:
    with index_outage(database_url_of(server.archive)):
        away = _ask(server)

    assert (away["ok"], away["find"], away["store"]) == (False, False, False)
    assert away["problems"][0].startswith("index: ")
    assert _ask(server)["ok"] is True


def test_server_with_a_full_disk_can_find_but_not_store(server: Server) -> None:
    with largest_file(1000):
        full = _ask(server)

    assert (full["ok"], full["find"], full["store"]) == (False, True, False)
    [problem] = full["problems"]
    assert problem.startswith("store: ")
    assert _ask(server)["ok"] is True


def test_server_whose_index_nobody_can_write_can_find_but_not_store(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "TIMEOUT_SECONDS", 1.0)

    with index_locked(database_url_of(server.archive), "lease"):
        locked = _ask(server)

    assert locked == {
        "ok": False,
        "find": True,
        "store": False,
        "problems": ["store: no answer for 1 s"],
    }


def test_server_below_the_floor_of_free_space_can_find_but_not_store(tmp_path: Path) -> None:
    server = Server(settings(tmp_path, minimum_free_bytes=1 << 60))
    server.start()
    try:
        answer = _ask(server)
    finally:
        server.stop()

    assert (answer["ok"], answer["find"], answer["store"]) == (False, True, False)


def test_socket_is_for_owner_and_group_and_goes_with_the_server(server: Server) -> None:
    path = server.settings.data_dir / health.SOCKET_NAME
    mode = stat.S_IMODE(path.stat().st_mode)

    server.stop()

    assert mode == 0o660
    assert not path.exists()
    with pytest.raises(health.NoAnswer, match="no server runs in "):
        health.ask(server.settings.data_dir, 30)


def test_name_that_a_killed_server_left_is_taken_over(tmp_path: Path) -> None:
    health.listen(tmp_path).close()
    assert (tmp_path / health.SOCKET_NAME).exists()

    with health.listen(tmp_path), pytest.raises(OSError, match="another server"):
        health.listen(tmp_path)


def test_second_server_leaves_the_first_its_name(server: Server) -> None:
    second = Server(settings(server.settings.data_dir.parent))
    second.start()
    second.stop()

    assert _ask(server)["ok"] is True


def test_long_path_of_the_data_directory_is_no_hindrance(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 200)
    directory.mkdir()

    with health.listen(directory), pytest.raises(health.NoAnswer, match="does not answer within"):
        health.ask(directory, 0.01)


@pytest.mark.parametrize("sent", [b"", b"[]\n", b"{"])
def test_answer_of_something_else_is_no_answer(tmp_path: Path, sent: bytes) -> None:
    with health.listen(tmp_path) as listening:
        listening.setblocking(True)

        def answer() -> None:
            with listening.accept()[0] as connection:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(health.NoAnswer):
            health.ask(tmp_path, 30)
        thread.join()


def test_question_that_gets_no_answer_is_a_problem_until_it_does() -> None:
    may_go_on = threading.Event()
    question = _Question("index", lambda: may_go_on.wait(30) and None)

    first = question.problem(time.monotonic())
    may_go_on.set()

    assert first == "index: no answer for 0 s"
    assert question.problem(time.monotonic() + 30) == ""


def test_question_whose_work_fails_is_a_problem() -> None:
    def fail() -> None:
        raise IndexUnavailable("gone\x1b[2J")

    assert _Question("index", fail).problem(time.monotonic() + 30) == r"index: gone\x1b[2J"
