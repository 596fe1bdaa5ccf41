"""TLS from the command line: serving, calling, and settings that cannot work (PS3.15 B.12)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.processes import (
    Processes,
    Serving,
    failed,
    rows,
    succeeded,
    wait_until_listening,
)
from tests.certificates import Authority, Identity


@pytest.fixture(scope="module")
def identity(authority: Authority) -> Identity:
    """What the archive shows, and its clients too."""
    return authority.issue("acceptance")


@pytest.fixture
def files(identity: Identity, authority: Authority) -> list[str]:
    """The options that name the files."""
    return [
        *("--tls-certificate", str(identity.certificate), "--tls-key", str(identity.key)),
        *("--tls-ca", str(authority.certificate)),
    ]


def serve(processes: Processes, *arguments: str) -> Serving:
    """Start ``pacs serve`` without calling it, which would be without TLS."""
    spawned = processes.spawn("serve", "--port", "0", "--host", "127.0.0.1", *arguments)
    return wait_until_listening(*spawned)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_with_mutual_tls_is_called_by_our_own_commands(
    processes: Processes, files: list[str], workers: str
) -> None:
    options = ("--tls", "required", "--tls-require-client-certificate", "--workers", workers)
    serving = serve(processes, *options, *files)
    succeeded(processes.run("ae", "add", "PACS", "127.0.0.1", str(serving.port), "--tls"))

    shown = [
        processes.run("echo", serving.address, "--tls", *files),
        processes.run("find", serving.address, "--tls", *files),
        processes.run("ae", "echo", "PACS", *files),
    ]
    without_certificate = processes.run("echo", serving.address, "--tls", *files[4:])
    without_tls = processes.run("echo", serving.address)

    assert [succeeded(one).count("\n") for one in shown] == [1, 1, 1]
    assert "TLS required, peers must show a certificate" in serving.summary
    assert "the peer wants a certificate of ours" in failed(without_certificate, 3)
    assert "no association" in failed(without_tls, 3)
    assert "127.0.0.1 failed: the peer sent no certificate" in serving.log
    assert "connection from 127.0.0.1 refused: it is without TLS" in serving.log


def test_serve_without_tls_says_so(processes: Processes) -> None:
    serving = processes.serve()

    shown = processes.run("echo", serving.address, "--tls")

    assert "TLS off" in serving.summary
    assert "the peer does not speak TLS there" in failed(shown, 3)
    assert "the peer calls with TLS, and this port is without" in serving.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_with_a_key_that_does_not_fit_is_one_line(
    processes: Processes, authority: Authority, files: list[str], workers: str
) -> None:
    other = authority.issue("another")
    files[3] = str(other.key)

    shown = processes.run("serve", "--port", "0", "--tls", "required", *files, "--workers", workers)

    message = failed(shown, 2)
    assert message.count("\n") <= 1
    assert f"tls_key: {other.key} is not the key of {files[1]}" in message


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_with_an_expired_certificate_says_so_once_and_starts(
    processes: Processes, authority: Authority, workers: str
) -> None:
    expired = authority.issue("expired-archive", days=-1)

    serving = serve(
        processes,
        *("--tls", "optional", "--workers", workers),
        *("--tls-certificate", str(expired.certificate), "--tls-key", str(expired.key)),
    )

    problem = "peers will refuse it: the certificate is not valid: certificate has expired"
    assert serving.log.count(problem) == 1
    assert succeeded(processes.run("echo", serving.address))


def test_key_password_comes_from_a_secret_file(
    processes: Processes, files: list[str], identity: Identity, tmp_path: Path
) -> None:
    from tests.certificates import openssl

    secret = tmp_path / "secret"
    secret.write_text("correct-horse\n")
    encrypted = tmp_path / "encrypted.key"
    protection = ("-aes256", "-passout", "pass:correct-horse")
    openssl("pkey", "-in", identity.key, *protection, "-out", encrypted)
    files[3] = str(encrypted)

    spawned = processes.spawn(
        *("serve", "--port", "0", "--host", "127.0.0.1", "--tls", "required", *files),
        env={"PACS_TLS_KEY_PASSWORD_FILE": str(secret)},
    )
    serving = wait_until_listening(*spawned)
    shown = processes.run(
        "config",
        "show",
        env={
            "PACS_TLS_CERTIFICATE": files[1],
            "PACS_TLS_KEY_PASSWORD_FILE": str(secret),
        },
    )

    assert "TLS required" in serving.summary
    assert "correct-horse" not in serving.log + succeeded(shown)


def test_ae_add_keeps_tls_and_parallel_associations(processes: Processes) -> None:
    succeeded(processes.run("db", "upgrade", "--make"))
    succeeded(
        processes.run(
            *("ae", "add", "RESEARCH", "10.0.0.7", "2762", "--tls"),
            *("--parallel-associations", "4"),
        )
    )
    succeeded(processes.run("ae", "add", "PLAIN", "10.0.0.8", "104"))

    listed = {
        one["title"]: one for one in json.loads(succeeded(processes.run("ae", "list", "--json")))
    }
    table = rows(succeeded(processes.run("ae", "list", "--remote-aes", "VIEWER=10.0.0.9:104/tls")))

    assert [(one["TLS"], one["associations"]) for one in listed.values()] == [
        (False, 1),
        (True, 4),
    ]
    assert [row[6:8] for row in table[1:]] == [["no", "1"], ["yes", "4"], ["yes", "1"]]


@pytest.mark.parametrize("number", ["0", "17"])
def test_ae_add_refuses_other_numbers_of_associations(processes: Processes, number: str) -> None:
    shown = processes.run(
        "ae", "add", "RESEARCH", "10.0.0.7", "104", "--parallel-associations", number
    )

    assert "1<=x<=16" in failed(shown, 2)
