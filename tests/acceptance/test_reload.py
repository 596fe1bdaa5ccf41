"""SIGHUP: certificates and remote AEs are read again, and what is bad changes nothing."""

from __future__ import annotations

import re
import shutil
import signal
import socket
from pathlib import Path

import psutil
import pytest

from tests.acceptance.processes import Processes, Serving, wait_until_listening
from tests.certificates import Authority, client_context
from tests.peers import wait_until

_SETTINGS = """
tls = "optional"
tls_certificate = "pacs.pem"
tls_key = "pacs.key"
remote_aes = [{remotes}]
"""


def _install(authority: Authority, name: str, directory: Path, *, days: int = 1) -> None:
    """Put a certificate where the settings say."""
    made = authority.issue(name, days=days)
    shutil.copy(made.certificate, directory / "pacs.pem")
    shutil.copy(made.key, directory / "pacs.key")


def _shown(serving: Serving, authority: Authority) -> str:
    """The name in the certificate that a new connection is shown."""
    context = client_context(authority.certificate)
    with (
        socket.create_connection(("127.0.0.1", serving.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        certificate = secured.getpeercert()
    assert certificate is not None
    subject: dict[str, str] = dict(pair for (pair,) in certificate["subject"])  # type: ignore[misc]
    return subject["commonName"]


def _said(serving: Serving, of: str) -> list[str]:
    return re.findall(rf"(?:INFO|WARNING|ERROR) +({of}.*)", serving.log)


@pytest.mark.parametrize("workers", [1, 2])
def test_hangup_reloads_what_is_good_and_keeps_what_is_in_force_else(
    processes: Processes, authority: Authority, workers: int
) -> None:
    cwd = processes.cwd
    config = cwd / "pacs.toml"
    config.write_text(_SETTINGS.format(remotes='"A=127.0.0.1:104", "B=127.0.0.1:104"'), "utf-8")
    _install(authority, "first", cwd)
    spawned = processes.spawn(
        "serve", "--port", "0", "--host", "127.0.0.1", "--workers", str(workers)
    )
    serving = wait_until_listening(*spawned)
    first = _shown(serving, authority)

    _install(authority, "second", cwd)
    changed = _SETTINGS.format(remotes='"B=127.0.0.1:105", "C=127.0.0.1:104"')
    config.write_text(changed + 'ae_title = "OTHER"\n', "utf-8")
    serving.process.send_signal(signal.SIGHUP)
    wait_until(lambda: _said(serving, "ae_title"))
    # Connections go to the workers in turn; each of them reloads by itself.
    wait_until(lambda: [_shown(serving, authority) for _ in range(4)] == ["second"] * 4)
    good = _said(serving, "reloaded: ")

    (cwd / "pacs.pem").write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    serving.process.send_signal(signal.SIGHUP)
    wait_until(lambda: _said(serving, "not reloaded"))
    _install(authority, "expired", cwd, days=-1)
    serving.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(_said(serving, "not reloaded")) == 2)
    kept = _shown(serving, authority)
    config.write_text('remote_aes = ["nonsense"]\n', "utf-8")
    serving.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(_said(serving, "not reloaded")) == 3)
    bad = _said(serving, "not reloaded")

    assert (first, kept, _shown(serving, authority)) == ("first", "second", "second")
    assert good == [
        "reloaded: remote AE B=127.0.0.1:105 (was B=127.0.0.1:104)",
        "reloaded: remote AE C=127.0.0.1:104 is new",
        "reloaded: remote AE A=127.0.0.1:104 is gone",
        f"reloaded: tls_certificate: {cwd / 'pacs.pem'} has new content",
        f"reloaded: tls_key: {cwd / 'pacs.key'} has new content",
    ]
    assert _said(serving, "ae_title") == ["ae_title has changed, which needs a restart"]
    assert bad[0].startswith("not reloaded, nothing is changed: tls_")
    assert bad[1].startswith(
        "not reloaded, nothing is changed: tls_certificate: peers would refuse"
    )
    assert bad[2].startswith("not reloaded, nothing is changed: remote_aes: expected")
    assert serving.stop() == 0


def test_remote_ae_that_is_reloaded_may_be_moved_to(processes: Processes) -> None:
    """The access list is the new one, in each worker and in one that replaces it."""
    config = processes.cwd / "pacs.toml"
    config.write_text("", "utf-8")
    serving = processes.serve("--workers", "2")

    def is_known() -> bool:
        moved = processes.run(
            "move", serving.address, "--to", "NEW", "StudyInstanceUID=1.2.3", cwd=config.parent
        )
        return "Move Destination NEW is not known" not in moved.stdout

    before = is_known()
    config.write_text('remote_aes = ["NEW=127.0.0.1:104"]\n', "utf-8")
    serving.process.send_signal(signal.SIGHUP)
    wait_until(lambda: _said(serving, "reloaded: "))
    wait_until(is_known)
    in_each = [is_known(), is_known()]
    for worker in psutil.Process(serving.process.pid).children():
        worker.kill()
    wait_until(lambda: serving.log.count("serves again") == 2)

    assert not before
    assert in_each == [True, True]
    assert [is_known(), is_known()] == [True, True]
    assert serving.stop() == 0
