"""TLS in both roles: contexts, what is wrong with a file, and why a handshake failed.

The profile is PS3.15 B.12 (BCP 195: RFC 8996 and RFC 9325), of which the retired B.9 and B.10 are ancestors: TLS 1.2
or 1.3, forward secrecy, authenticated encryption, no compression, no renegotiation. The acceptor hands out no session
tickets: every association is a full handshake, so a certificate that was revoked or replaced is seen at once.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from pacs.errors import InvalidSetting

#: The first byte of a TLS handshake and of a TLS alert record (RFC 8446 5.1); neither is a PDU type (PS3.8 9.3).
HANDSHAKE_RECORD = 0x16
ALERT_RECORD = 0x15

# Those of TLS 1.3 are always on and all sound. RFC 9325 4.1 advises against finite-field DHE.
_CIPHERS = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_PRIVATE_KEY = re.compile(r"-----BEGIN (\w+ )*PRIVATE KEY-----.+", re.DOTALL)

_NO_TLS = "the peer does not speak TLS there"
_OURS_REFUSED = "the peer refuses our certificate"
_NO_COMMON_VERSION = "the peer does not speak TLS 1.2 or newer"
_REASONS = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "UNSUPPORTED_PROTOCOL": _NO_COMMON_VERSION,
    "TLSV1_ALERT_PROTOCOL_VERSION": _NO_COMMON_VERSION,
    "NO_SHARED_CIPHER": "no cipher suite in common",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the peer ended the handshake; perhaps no cipher suite in common",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer sent no certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the peer wants a certificate of ours",
    "TLSV1_ALERT_UNKNOWN_CA": f"{_OURS_REFUSED}: it does not know its CA",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": f"{_OURS_REFUSED}: expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": f"{_OURS_REFUSED}: revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _OURS_REFUSED,
    "SSLV3_ALERT_BAD_CERTIFICATE": _OURS_REFUSED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": f"{_OURS_REFUSED}: not of a kind it supports",
    "UNEXPECTED_EOF_WHILE_READING": "the peer closed the connection",
}
_UNFIT = {
    "EE_KEY_TOO_SMALL": "its key is too short",
    "CA_KEY_TOO_SMALL": "the key of its CA is too short",
    "CA_MD_TOO_WEAK": "its signature is too weak",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSOptions:
    """Which certificates we show and which we trust."""

    #: PEM: our certificate, followed by those of intermediate CAs; shown in both roles.
    certificate: Path | None = None
    #: PEM; None if the key is in the file of the certificate.
    key: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    #: PEM: the CAs, or single certificates, of peers that we trust, in both roles; None is the system's.
    ca: Path | None = None
    require_client_certificate: bool = False
    check_host_name: bool = True


def acceptor_context(options: TLSOptions) -> ssl.SSLContext:
    """The context of a listener; ``options.certificate`` must be there.

    Raises:
        InvalidSetting: a file cannot be used.
    """
    context = _hardened(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    _load_identity(context, options)
    if options.require_client_certificate:
        _load_trusted(context, options)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


#: Loading the system's CAs takes long, and a C-MOVE may open many associations.
_requestor_contexts: dict[TLSOptions, ssl.SSLContext] = {}


def requestor_context(options: TLSOptions) -> ssl.SSLContext:
    """The context for associations that we request: the peer's certificate is always verified.

    It is made once; see ``use_requestor_context``.

    Raises:
        InvalidSetting: a file cannot be used.
    """
    context = _requestor_contexts.get(options)
    if context is None:
        context = _requestor_contexts[options] = new_requestor_context(options)
    return context


def use_requestor_context(options: TLSOptions, context: ssl.SSLContext) -> None:
    """From now on use this context, made from files that have been renewed."""
    _requestor_contexts[options] = context


def new_requestor_context(options: TLSOptions) -> ssl.SSLContext:
    """Read the files now.

    Raises:
        InvalidSetting: a file cannot be used.
    """
    context = _hardened(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = options.check_host_name
    if options.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_trusted(context, options)
    if options.certificate is not None:
        _load_identity(context, options)
    return context


def _hardened(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # A peer that just closes its side gets our last PDU all the same; PDUs have a length, so none is taken for whole
    # that was cut short.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    # Hospitals exchange the certificates of single devices: one of them is trusted without its issuer.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _load_identity(context: ssl.SSLContext, options: TLSOptions) -> None:
    certificate = options.certificate
    assert certificate is not None
    if not _CERTIFICATE.search(_read("tls_certificate", certificate)):
        raise InvalidSetting(f"tls_certificate: {certificate} holds no certificate in PEM form")
    key = options.key or certificate
    found = _PRIVATE_KEY.search(_read("tls_key", key))
    if not found:
        hint = "" if options.key else "; name its file with tls_key"
        raise InvalidSetting(f"tls_key: {key} holds no private key in PEM form{hint}")
    is_encrypted = "ENCRYPTED" in found[0]
    if is_encrypted and options.key_password is None:
        raise InvalidSetting(f"tls_key: {key} is encrypted; set tls_key_password")
    try:
        # Without a password here OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password=options.key_password or "")
    except (ssl.SSLError, ValueError) as error:
        raise InvalidSetting(_identity_problem(error, certificate, key, is_encrypted)) from error
    except OSError as error:
        # OpenSSL opens the files again, and they may just be renewed.
        raise InvalidSetting(
            f"tls_key: {key} and {certificate} cannot be read: {error.strerror}"
        ) from error


def _identity_problem(
    error: ssl.SSLError | ValueError, certificate: Path, key: Path, is_encrypted: bool
) -> str:
    reason = getattr(error, "reason", "") or ""
    if reason == "KEY_VALUES_MISMATCH":
        return f"tls_key: {key} is not the key of {certificate}"
    if reason in _UNFIT:
        return f"tls_certificate: {certificate} cannot be used: {_UNFIT[reason]}"
    if is_encrypted:
        return f"tls_key_password: it does not open {key}"
    return f"tls_key: {key} and {certificate} cannot be used: one of them is damaged"


def _load_trusted(context: ssl.SSLContext, options: TLSOptions) -> None:
    assert options.ca is not None
    if not _CERTIFICATE.search(_read("tls_ca", options.ca)):
        raise InvalidSetting(f"tls_ca: {options.ca} holds no certificate in PEM form")
    try:
        context.load_verify_locations(options.ca)
    except ssl.SSLError as error:
        raise InvalidSetting(f"tls_ca: {options.ca} is damaged") from error
    except OSError as error:
        raise InvalidSetting(f"tls_ca: {options.ca} cannot be read: {error.strerror}") from error


def _read(setting: str, path: Path) -> str:
    try:
        return path.read_text("ascii", errors="replace")
    except OSError as error:
        raise InvalidSetting(f"{setting}: {path} cannot be read: {error.strerror}") from error


def certificate_problem(options: TLSOptions) -> str:
    """Why peers will refuse our own certificate, such as that it has expired; empty if they will not.

    Python has no function for that, so it shakes hands with itself, in memory, and trusts the certificate alone.

    Raises:
        InvalidSetting: a file cannot be used.
    """
    assert options.certificate is not None
    server_context = _hardened(ssl.PROTOCOL_TLS_SERVER)
    _load_identity(server_context, options)
    client_context = _hardened(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    found = _CERTIFICATE.search(_read("tls_certificate", options.certificate))
    assert found is not None
    client_context.load_verify_locations(cadata=found[0])
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for end in (client, server, client):
            _advance(end)
    except ssl.SSLError as error:
        return explain(error)
    return ""


def _advance(end: ssl.SSLObject) -> None:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return  # it is the other one's turn


def explain(error: OSError) -> str:
    """Why TLS with a peer failed, for the person who has to mend it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message.rstrip('.')}"
    if isinstance(error, TimeoutError):
        return "the peer was silent during the TLS handshake"
    if isinstance(error, ssl.SSLEOFError):
        return "the peer closed the connection"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        return _REASONS.get(reason) or reason.replace("_", " ").lower() or str(error)
    return error.strerror or str(error)
