"""The cached view of known remote AEs."""

from __future__ import annotations

import threading
import time

import pytest

from pacs.dimse import remote as remote_module
from pacs.dimse.remote import RemoteAEs
from pacs.index.index import Index
from pacs.model.remote_ae import RemoteAE
from tests.outages import index_outage
from tests.peers import wait_until


def _remote(title: str, port: int = 104) -> RemoteAE:
    return RemoteAE(title=title, host="127.0.0.1", port=port)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the index at every question."""
    monkeypatch.setattr(remote_module, "_REFRESH_SECONDS", 0.0)


def test_remote_ae_is_found_without_the_spaces_around_its_title(index: Index) -> None:
    remotes = RemoteAEs(index, [_remote("CT1")])

    assert remotes.get(" CT1  ") == _remote("CT1")
    assert remotes.get("CT2") is None
    assert remotes.get("") is None


@pytest.mark.usefixtures("impatient")
def test_remote_ae_added_later_is_seen_and_a_removed_one_is_not(index: Index) -> None:
    remotes = RemoteAEs(index, [_remote("CT1")])
    assert remotes.titles() == ["CT1"]

    index.remote_aes.add(_remote("MR1"))
    assert remotes.titles() == ["CT1", "MR1"]

    index.remote_aes.remove("MR1")
    assert remotes.titles() == ["CT1"]


@pytest.mark.usefixtures("impatient")
def test_remote_ae_of_the_index_comes_before_that_of_the_setting(index: Index) -> None:
    remotes = RemoteAEs(index, [_remote("CT1", 104)])

    index.remote_aes.add(_remote("CT1", 11_112))

    found = remotes.get("CT1")
    assert found is not None
    assert found.port == 11_112


def test_list_is_not_read_again_within_the_refresh_time(index: Index) -> None:
    remotes = RemoteAEs(index)
    assert remotes.titles() == []

    index.remote_aes.add(_remote("CT1"))

    assert remotes.titles() == []


def test_remote_ae_that_was_not_known_is_known_soon_after_it_was_added(index: Index) -> None:
    remotes = RemoteAEs(index)
    assert remotes.get("CT1") is None

    index.remote_aes.add(_remote("CT1"))
    time.sleep(remote_module._UNKNOWN_REFRESH_SECONDS)

    assert remotes.get("CT1") == _remote("CT1")


@pytest.mark.usefixtures("impatient")
def test_known_remote_aes_are_known_to_everybody_while_the_index_does_not_answer(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.remote_aes.add(_remote("CT1"))
    remotes = RemoteAEs(index)
    assert remotes.titles() == ["CT1"]
    read, answers = index.remote_aes.all, threading.Event()
    reads: list[int] = []

    def read_late() -> list[RemoteAE]:
        reads.append(threading.get_ident())
        assert answers.wait(30)
        return read()

    monkeypatch.setattr(index.remote_aes, "all", read_late)
    monkeypatch.setattr(remote_module, "_PATIENCE_SECONDS", 0.05)

    assert [remotes.titles() for _ in range(20)] == [["CT1"]] * 20
    assert remotes.get("CT2") is None
    assert len(reads) == 1

    index.remote_aes.add(_remote("MR1"))
    answers.set()
    wait_until(lambda: remotes.titles() == ["CT1", "MR1"])


@pytest.mark.usefixtures("impatient")
def test_list_is_read_again_after_no_thread_could_be_started_for_it(
    index: Index, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    index.remote_aes.add(_remote("CT1"))
    remotes = RemoteAEs(index)
    assert remotes.titles() == ["CT1"]
    index.remote_aes.add(_remote("MR1"))

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", start)
        assert remotes.titles() == ["CT1"]

    assert "cannot be refreshed: can't start new thread" in caplog.text
    assert remotes.titles() == ["CT1", "MR1"]


@pytest.mark.postgres
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_known_remote_aes_stay_known_while_the_index_is_down(
    index: Index, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    index.remote_aes.add(_remote("CT1"))
    remotes = RemoteAEs(index)
    assert remotes.titles() == ["CT1"]

    with index_outage(database_url):
        assert remotes.titles() == ["CT1"]

    assert "cannot be refreshed" in caplog.text
    assert remotes.titles() == ["CT1"]
