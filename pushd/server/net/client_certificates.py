"""Client certificates: verification, subject and expiry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import ISSLTransport, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.server.net.addresses import peer_name

__all__ = ["Authorities", "Certificate", "ask", "certificate_of", "has_no_certificate", "subject_text"]

_log = Logger()

_MAX_SUBJECT_BYTES = 255

_REASONS = {
    value: name.removeprefix("ERR_").lower().replace("_", " ")
    for name, value in vars(SSL.X509VerificationCodes).items()
    if name.startswith("ERR_")
}
"""OpenSSL's verification errors by number (X509_verify_cert_error_string(3))."""


@dataclass(frozen=True, slots=True)
class Authorities:
    """The authorities that may issue client certificates."""

    path: str
    """The PEM file with the authorities' certificates."""

    is_required: bool
    """Whether a client without a certificate is rejected."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The client certificate of a connection, verified in the handshake."""

    subject: str
    """The subject, as ``CN=alice,O=Example``."""

    expires_at: float
    """When the first certificate of its chain expires, in seconds since 1970."""


def ask(context: SSL.Context, authorities: Sequence[x509.Certificate], *, is_required: bool) -> None:
    """Request client certificates issued by `authorities`, which need not be roots; no others are trusted.

    OpenSSL checks the validity period and, if the certificate has one, the extended key usage for clients
    (RFC 5280, section 4.2.1.12). Call before the context is used.
    """
    store = context.get_cert_store()
    assert store is not None
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
        context.add_client_ca(authority)
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    context.set_verify(SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if is_required else 0), _check)


def _check(connection: SSL.Connection, certificate: Any, error: int, depth: int, is_good: int) -> bool:
    """Return whether the handshake may continue after OpenSSL's check of one certificate of the chain."""
    subject, why = "", ""
    try:
        subject = subject_text(certificate.to_cryptography().subject)
    except ValueError as wrong:
        why = str(wrong) if depth == 0 else ""
    if not is_good:
        why = _REASONS.get(error, f"error {error} of OpenSSL")
    if why:
        _log.info(
            "refused the certificate of {peer}{subject}: {why}",
            peer=peer_name(connection.get_app_data().getPeer()),
            subject=f", {subject}" if subject else "",
            why=why,
        )
    return not why


def has_no_certificate(reason: Failure) -> bool:
    """Return whether a handshake failed because the client sent no certificate."""
    error = reason.value
    return isinstance(error, SSL.Error) and "peer did not return a certificate" in str(error)


def subject_text(name: x509.Name) -> str:
    """Return a subject as text, as ``CN=alice,O=Example`` (RFC 4514); raise `ValueError` if empty or too long.

    Different subjects have different texts. Unprintable characters are escaped.
    """
    text = "".join(it if it.isprintable() else _escape(it) for it in name.rfc4514_string())
    if not text:
        raise ValueError("it has no subject")
    if len(text.encode()) > _MAX_SUBJECT_BYTES:
        raise ValueError(f"its subject is longer than {_MAX_SUBJECT_BYTES} bytes")
    return text


def _escape(character: str) -> str:
    return "".join(f"\\{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def certificate_of(transport: ITransport | None) -> Certificate | None:
    """Return the client certificate of the TLS handshake; None if the client sent none.

    The certificate was verified in this handshake, because sessions are not resumed. The whole chain was verified,
    so the certificate is valid until the first one of the chain expires (RFC 5280, section 6.1.3).
    """
    tls: Any = ISSLTransport(transport, None)
    certificate = None if tls is None else tls.getPeerCertificate()
    if certificate is None:
        return None
    chain = tls.getHandle().get_verified_chain() or [certificate]
    expires_at = min(one.to_cryptography().not_valid_after_utc.timestamp() for one in chain)
    return Certificate(subject_text(certificate.to_cryptography().subject), expires_at)
