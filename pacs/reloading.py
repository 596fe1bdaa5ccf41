"""SIGHUP: certificates and the remote AEs of the settings are read again while the archive is served.

What is bad changes nothing. Other settings need a restart, which is said when they have changed.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pacs.config import Settings
from pacs.dimse.remote import RemoteAEs
from pacs.errors import InvalidSetting, PacsError
from pacs.model.remote_ae import RemoteAE
from pacs.wire.ae import EngineAE, EngineServer
from pacs.wire.tls import (
    TLSOptions,
    acceptor_context,
    certificate_problem,
    new_requestor_context,
    use_requestor_context,
)

LOGGER = logging.getLogger(__name__)

_FILES = ("tls_certificate", "tls_key", "tls_ca")
#: What is taken over at once.
_RELOADED = (
    "remote_aes",
    *_FILES,
    "tls_key_password",
    "tls_require_client_certificate",
    "tls_check_host_name",
)


def tls_options_of(settings: Settings) -> TLSOptions:
    """What of the settings concerns TLS."""
    return TLSOptions(
        certificate=settings.tls_certificate,
        key=settings.tls_key,
        key_password=settings.tls_key_password,
        ca=settings.tls_ca,
        require_client_certificate=settings.tls_require_client_certificate,
        check_host_name=settings.tls_check_host_name,
    )


@dataclass(slots=True)
class Running:
    """What the settings were made into."""

    ae: EngineAE
    server: EngineServer
    remotes: RemoteAEs
    #: Makes remote AEs of the setting.
    configured: Callable[[Settings], list[RemoteAE]]


class Reloading:
    """The settings in force, and what they were made into, if that is in this process."""

    def __init__(self, settings: Settings, running: Running | None = None) -> None:
        """Remember what is in force; a supervisor has nothing ``running`` itself."""
        self.settings = settings
        self._running = running
        self._digests = _digests(settings)

    def reload(self, *, says: bool = True) -> bool:
        """Read the settings again and take over what may change; False if they are bad, and nothing changes.

        Each change is logged, unless another process ``says`` so.
        """
        try:
            read = self.settings.load_again()
            changed = {name: getattr(read, name) for name in _RELOADED}
            settings = self.settings.model_copy(update=changed)
            digests = _digests(settings)
            contexts = _contexts(settings)
        except PacsError as error:
            for line in error.message.splitlines():
                LOGGER.error("not reloaded, nothing is changed: %s", line)
            return False
        if says:
            self._say(read, settings, digests)
        if self._running is not None:
            _take_over(self._running, settings, contexts)
        self.settings, self._digests = settings, digests
        return True

    def _say(self, read: Settings, settings: Settings, digests: Mapping[str, str]) -> None:
        before, after = self.settings.describe(), read.describe()
        changes = _remote_changes(self.settings, settings)
        for name in _RELOADED[1:]:
            if before[name] != after[name]:
                changes.append(f"{name} is now {after[name] or 'not set'}")
            elif self._digests.get(name) != digests.get(name):
                changes.append(f"{name}: {after[name]} has new content")
        for change in changes or ["nothing has changed"]:
            LOGGER.info("reloaded: %s", change)
        for name in before.keys() - set(_RELOADED):
            if before[name] != after[name]:
                LOGGER.warning("%s has changed, which needs a restart", name)


def _contexts(settings: Settings) -> tuple[ssl.SSLContext | None, ssl.SSLContext]:
    """The context of the listener, if it has one, and the one for calling others.

    Raises:
        InvalidSetting: a file cannot be used, or peers would refuse the certificate.
    """
    options = tls_options_of(settings)
    requestor = new_requestor_context(options)
    if settings.tls == "off":
        return None, requestor
    if options.certificate is None:
        # What is read may go together; the mode in force is the one at start.
        raise InvalidSetting(
            f"tls_certificate: it is not set, and tls is {settings.tls} until a restart"
        )
    if problem := certificate_problem(options):
        raise InvalidSetting(f"tls_certificate: peers would refuse it: {problem}")
    return acceptor_context(options), requestor


def _take_over(
    running: Running,
    settings: Settings,
    contexts: tuple[ssl.SSLContext | None, ssl.SSLContext],
) -> None:
    acceptor, requestor = contexts
    options = tls_options_of(settings)
    use_requestor_context(options, requestor)
    running.ae.ssl_context = running.server.ssl_context = acceptor
    running.remotes.reconfigure(running.configured(settings), options)


def _remote_changes(before: Settings, after: Settings) -> list[str]:
    old = {remote.title: str(remote) for remote in before.remote_aes}
    new = {remote.title: str(remote) for remote in after.remote_aes}
    return [
        f"remote AE {new[title]} is new"
        if title not in old
        else f"remote AE {new[title]} (was {old[title]})"
        for title in sorted(new)
        if new[title] != old.get(title)
    ] + [f"remote AE {old[title]} is gone" for title in sorted(old.keys() - new.keys())]


def _digests(settings: Settings) -> dict[str, str]:
    """Of the files of TLS, to see that one was renewed under the same name."""
    found: dict[str, str] = {}
    for name in _FILES:
        path: Path | None = getattr(settings, name)
        with suppress(OSError):
            if path is not None:
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
