"""Certification authorities for tests of TLS, made with the openssl command."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_EXTENSIONS = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key."""

    certificate: Path
    key: Path


class Authority:
    """A certification authority in a directory of its own."""

    def __init__(self, directory: Path, name: str = "Test CA") -> None:
        self._directory = directory
        self.certificate = directory / "ca.pem"
        self._key = directory / "ca.key"
        openssl(
            *("req", "-x509", *_CURVE, "-subj", f"/CN={name}", "-days", "2"),
            *("-keyout", self._key, "-out", self.certificate),
            *("-addext", "keyUsage=critical,keyCertSign"),
        )

    def issue(
        self,
        name: str,
        *,
        hosts: str = "IP:127.0.0.1,DNS:localhost",
        usage: str = "",
        days: int = 1,
    ) -> Identity:
        """A certificate for ``hosts``; with negative ``days`` it has expired."""
        base = self._directory / name
        request, extensions = base.with_suffix(".csr"), base.with_suffix(".ext")
        made = Identity(base.with_suffix(".pem"), base.with_suffix(".key"))
        extensions.write_text(
            f"{_EXTENSIONS}subjectAltName={hosts}\n"
            + (f"extendedKeyUsage={usage}\n" if usage else "")
        )
        openssl("req", *_CURVE, "-subj", f"/CN={name}", "-keyout", made.key, "-out", request)
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key),
            *("-CAcreateserial", "-days", days, "-extfile", extensions, "-out", made.certificate),
        )
        return made


def openssl(*arguments: str | int | Path) -> None:
    """Run the openssl command."""
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)


def server_context(identity: Identity, clients: Path | None = None) -> ssl.SSLContext:
    """What a peer listens with; with ``clients`` it wants certificates from that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(trusted: Path, identity: Identity | None = None) -> ssl.SSLContext:
    """What a peer calls with."""
    context = ssl.create_default_context(cafile=str(trusted))
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    return context
