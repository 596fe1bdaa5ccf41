"""Contexts for TLS, and what is said about files that cannot be used."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest

from pacs.errors import InvalidSetting
from pacs.wire.tls import TLSOptions, acceptor_context, certificate_problem, requestor_context
from tests.certificates import Authority, Identity, openssl


@pytest.fixture(scope="module")
def identity(authority: Authority) -> Identity:
    """A certificate in order."""
    return authority.issue("in-order")


def options(identity: Identity, **changes: object) -> TLSOptions:
    values: dict[str, object] = {"certificate": identity.certificate, "key": identity.key}
    return TLSOptions(**(values | changes))  # type: ignore[arg-type] - checked where it is used


def complaint(chosen: TLSOptions) -> str:
    """The one line that refuses the options."""
    with pytest.raises(InvalidSetting) as caught:
        acceptor_context(chosen)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("make", [acceptor_context, requestor_context])
def test_context_is_of_the_bcp_195_profile(make: object, identity: Identity) -> None:
    context = make(options(identity))  # type: ignore[operator] - one of the two above

    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION
    weak = re.compile("CBC|SHA$|RC4|3DES|NULL|^AES|^DHE")
    assert [one["name"] for one in context.get_ciphers() if weak.search(one["name"])] == []
    assert "ECDHE-RSA-AES128-GCM-SHA256" in [one["name"] for one in context.get_ciphers()]


def test_conformance_statement_lists_the_cipher_suites(identity: Identity) -> None:
    text = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text("utf-8")
    rows = re.findall(r"(?m)^\| TLS 1\.[23] cipher suites \|(.*)\|$", text)

    listed = re.findall(r"`([A-Z0-9_-]+)`", " ".join(rows))

    context = acceptor_context(options(identity))
    assert sorted(listed) == sorted(one["name"] for one in context.get_ciphers())


def test_requestor_verifies_peer_and_host_name() -> None:
    context = requestor_context(TLSOptions())

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_requestor_without_host_name_check_still_verifies() -> None:
    context = requestor_context(TLSOptions(check_host_name=False))

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not context.check_hostname


def test_acceptor_wants_client_certificates_when_told_to(
    identity: Identity, authority: Authority
) -> None:
    wanted = options(identity, ca=authority.certificate, require_client_certificate=True)

    assert acceptor_context(wanted).verify_mode is ssl.CERT_REQUIRED
    assert acceptor_context(options(identity)).verify_mode is ssl.CERT_NONE


def test_certificate_and_key_may_share_a_file(identity: Identity, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(identity.key.read_bytes() + identity.certificate.read_bytes())

    acceptor_context(TLSOptions(certificate=both))


@pytest.mark.parametrize("form", ["pkcs8", "traditional"])
def test_encrypted_key_needs_its_password(
    identity: Identity, tmp_path: Path, form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "encrypted.key"
    command = ("pkey",) if form == "pkcs8" else ("ec",)
    openssl(*command, "-in", identity.key, "-aes256", "-passout", "pass:secret", "-out", key)

    acceptor_context(options(identity, key=key, key_password="secret"))
    without = complaint(options(identity, key=key))
    wrong = complaint(options(identity, key=key, key_password="sesame"))

    assert without == f"tls_key: {key} is encrypted; set tls_key_password"
    assert wrong == f"tls_key_password: it does not open {key}"
    assert capfd.readouterr() == ("", "")  # nobody was asked at the terminal
    assert "secret" not in repr(options(identity, key_password="secret"))


def test_files_that_are_not_there_are_named(identity: Identity, tmp_path: Path) -> None:
    gone = tmp_path / "gone"

    messages = [
        complaint(options(identity, certificate=gone)),
        complaint(options(identity, key=gone)),
        complaint(options(identity, ca=gone, require_client_certificate=True)),
    ]

    reason = f"{gone} cannot be read: No such file or directory"
    assert messages == [f"tls_certificate: {reason}", f"tls_key: {reason}", f"tls_ca: {reason}"]


def test_files_of_another_kind_are_named(identity: Identity, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(b"\x30\x82\x00\xff")

    assert "holds no certificate in PEM form" in complaint(options(identity, certificate=other))
    assert "holds no private key in PEM form" in complaint(options(identity, key=other))
    assert complaint(options(identity, ca=other, require_client_certificate=True)) == (
        f"tls_ca: {other} holds no certificate in PEM form"
    )
    assert "name its file with tls_key" in complaint(options(identity, key=None))


def test_damaged_files_are_named(identity: Identity, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")

    assert "damaged" in complaint(options(identity, certificate=damaged))
    assert complaint(options(identity, ca=damaged, require_client_certificate=True)) == (
        f"tls_ca: {damaged} is damaged"
    )


def test_key_of_another_certificate_is_refused(identity: Identity, authority: Authority) -> None:
    other = authority.issue("other-key")

    message = complaint(options(identity, key=other.key))

    assert message == f"tls_key: {other.key} is not the key of {identity.certificate}"


def test_short_rsa_key_is_refused(tmp_path: Path) -> None:
    weak = Identity(tmp_path / "weak.pem", tmp_path / "weak.key")
    openssl(
        *("req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=weak"),
        *("-keyout", weak.key, "-out", weak.certificate),
    )

    assert "its key is too short" in complaint(options(weak))


@pytest.mark.parametrize(
    ("issued", "problem"),
    [
        ({}, ""),
        ({"usage": "serverAuth,clientAuth"}, ""),
        ({"days": -1}, "the certificate is not valid: certificate has expired"),
        ({"usage": "clientAuth"}, "the certificate is not valid: unsuitable certificate purpose"),
    ],
    ids=["in order", "both usages", "expired", "only for clients"],
)
def test_own_certificate_that_peers_will_refuse_is_noticed(
    authority: Authority, issued: dict[str, object], problem: str
) -> None:
    identity = authority.issue("own", **issued)  # type: ignore[arg-type] - from the table above

    assert certificate_problem(options(identity)) == problem
