"""SIGHUP, for what has to change while it is handled: whatever the files are, the server goes on."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from pacs.config import Settings
from pacs.reloading import Reloading
from tests.certificates import Authority


@pytest.fixture
def reloading(tmp_path: Path, authority: Authority) -> Reloading:
    made = authority.issue("reloaded")
    shutil.copy(made.certificate, tmp_path / "pacs.pem")
    shutil.copy(made.key, tmp_path / "pacs.key")
    (tmp_path / "pacs.toml").write_text(
        'tls = "optional"\ntls_certificate = "pacs.pem"\ntls_key = "pacs.key"\n', "utf-8"
    )
    return Reloading(Settings.load(environ={}, cwd=tmp_path))


@pytest.mark.parametrize("left", [None, 'tls = "off"\n'])
def test_certificate_that_is_not_set_any_more_is_kept_as_long_as_there_is_tls(
    reloading: Reloading, tmp_path: Path, caplog: pytest.LogCaptureFixture, left: str | None
) -> None:
    """Whether there is TLS needs a restart, and a listener with TLS needs a certificate."""
    before, config = reloading.settings, tmp_path / "pacs.toml"
    config.unlink()
    if left is not None:
        config.write_text(left, "utf-8")

    with caplog.at_level(logging.INFO, "pacs"):
        assert not reloading.reload()

    assert caplog.messages == [
        "not reloaded, nothing is changed: tls_certificate: it is not set, and tls is optional until a restart"
    ]
    assert reloading.settings is before


@pytest.mark.parametrize("gone", ["pacs.pem", "pacs.key"])
def test_file_that_goes_while_it_is_read_changes_nothing(
    reloading: Reloading,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gone: str,
) -> None:
    """OpenSSL opens them again; a tool that renews them may be between removing and writing."""
    read = Path.read_text

    def then_remove(path: Path, encoding: str | None = None, errors: str | None = None) -> str:
        text = read(path, encoding, errors)
        if path.name == "pacs.key":
            (tmp_path / gone).unlink(missing_ok=True)
        return text

    monkeypatch.setattr(Path, "read_text", then_remove)
    with caplog.at_level(logging.INFO, "pacs"):
        assert not reloading.reload()

    files = f"{tmp_path / 'pacs.key'} and {tmp_path / 'pacs.pem'}"
    assert caplog.messages == [
        f"not reloaded, nothing is changed: tls_key: {files} cannot be read: No such file or directory"
    ]
