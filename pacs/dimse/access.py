"""Which calling AE may do what.

The default policy: peers on the loopback interface may do everything; any other host needs a registered
AE whose address it calls from. ``allow_any`` opens the archive to everybody, for a test bench.
"""

from __future__ import annotations

import ipaddress
import logging
import shlex
import socket
import time
from dataclasses import dataclass

from pacs.dimse.remote import RemoteAEs
from pacs.errors import NotAuthorised
from pacs.model.remote_ae import RemoteAE, Service

LOGGER = logging.getLogger(__name__)

_RESOLVED_FOR_SECONDS = 60.0
#: A name that could not be resolved is tried again so soon: the next attempt may well succeed.
_UNRESOLVED_FOR_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Rights:
    """What one calling AE may ask for."""

    calling_ae: str
    host: str
    services: frozenset[Service] = frozenset(Service)
    #: AE titles it may name as Move Destination; None is any that is known.
    destinations: frozenset[str] | None = None
    #: Whether it is a known remote AE that calls from its own host (by title alone if hosts are not verified).
    is_registered: bool = False

    def __str__(self) -> str:
        return f"{self.calling_ae}@{self.host}"

    def require(self, service: Service) -> None:
        """Check that ``service`` is allowed.

        Raises:
            NotAuthorised: it is not.
        """
        if service not in self.services:
            raise NotAuthorised(f"{self.calling_ae} may not {service.value} here")

    def require_destination(self, title: str) -> None:
        """Check that ``title`` may be named as Move Destination.

        Raises:
            NotAuthorised: it may not.
        """
        if self.destinations is not None and title not in self.destinations:
            raise NotAuthorised(f"{self.calling_ae} may not move to {title}")


class AccessPolicy:
    """Decides who is let in, from the known remote AEs."""

    def __init__(
        self, remotes: RemoteAEs, *, allow_any: bool = False, verify_calling_host: bool = True
    ) -> None:
        self._remotes = remotes
        self._allow_any = allow_any
        self._verify_calling_host = verify_calling_host
        self._resolved: dict[str, tuple[float, frozenset[str]]] = {}

    def rights_of(self, calling_ae: str, host: str, *, with_tls: bool = False) -> Rights | None:
        """The rights of an AE calling from ``host`` (an IP address); None if it is to be rejected."""
        calling_ae = calling_ae.strip()
        remote = self._remotes.get(calling_ae)
        if remote is not None and self._calls_from(remote, host):
            if remote.tls and not with_tls:
                return None
            return Rights(
                calling_ae, host, remote.services, remote.destinations, is_registered=True
            )
        if self._allow_any or _is_loopback(host):
            return Rights(calling_ae, host)
        return None

    def explain_refusal(self, calling_ae: str, host: str) -> str:
        """What an operator can do about a rejected association."""
        remote = self._remotes.get(calling_ae.strip())
        if remote is not None and self._calls_from(remote, host):
            return f"AE {calling_ae!r} at {host} is registered with --tls but called without TLS"
        if remote is not None:
            return (
                f"AE {calling_ae!r} is registered for host {remote.host} but called from {host}; "
                f"register that address, or set verify_calling_host = false"
            )
        return (
            f"AE {calling_ae!r} at {host} is not registered; to let it in: "
            f"pacs ae add {shlex.quote(calling_ae.strip() or 'TITLE')} {host} PORT"
        )

    def _calls_from(self, remote: RemoteAE, host: str) -> bool:
        return not self._verify_calling_host or _plain(host) in self._addresses(remote.host)

    def _addresses(self, host: str) -> frozenset[str]:
        now = time.monotonic()
        cached = self._resolved.get(host)
        if cached is not None and cached[0] > now:
            return cached[1]
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = frozenset(_plain(str(entry[4][0])) for entry in found)
            until = now + _RESOLVED_FOR_SECONDS
        except (OSError, UnicodeError) as error:  # the latter: no host name can be like that (IDNA)
            LOGGER.warning("cannot resolve the host name %s of a remote AE: %s", host, error)
            # A name server that fails once must not lock out whom it named before.
            addresses = frozenset() if cached is None else cached[1]
            until = now + _UNRESOLVED_FOR_SECONDS
        self._resolved[host] = (until, addresses)
        return addresses


def _plain(address: str) -> str:
    """An IPv4 address that arrived on an IPv6 socket, as IPv4; without a zone."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(_plain(host)).is_loopback
    except ValueError:
        return False
