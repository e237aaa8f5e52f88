"""Certificates: those of the operator, and a self-signed one to begin with."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto
from twisted.internet.ssl import CertificateOptions, TLSVersion

from pushd.errors import StartFailed

__all__ = ["load", "self_signed"]

_LIFETIME = timedelta(days=825)
_RENEW_BEFORE = timedelta(days=30)


def load(certificate: str, key: str) -> CertificateOptions:
    """Read a certificate chain and its key, both PEM; raise `StartFailed` if that cannot be served with."""
    chain = x509_chain(certificate)
    try:
        private_key = crypto.load_privatekey(crypto.FILETYPE_PEM, _read(key), passphrase=b"")
    except (crypto.Error, ValueError, TypeError) as error:
        raise StartFailed(f"{key}: not a PEM private key without a passphrase ({_why(error)})") from None
    options = CertificateOptions(
        privateKey=private_key,
        certificate=crypto.X509.from_cryptography(chain[0]),
        extraCertChain=[crypto.X509.from_cryptography(one) for one in chain[1:]],
        raiseMinimumTo=TLSVersion.TLSv1_2,
    )
    try:
        options.getContext().check_privatekey()
    except SSL.Error:
        raise StartFailed(f"{key} is not the key of the certificate in {certificate}") from None
    return options


def x509_chain(path: str) -> list[x509.Certificate]:
    """Read the certificates of a PEM file, of which there must be one."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise StartFailed(f"{path}: not a PEM certificate ({_why(error)})") from None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StartFailed(f"{path}: cannot be read: {error.strerror}") from None


def _why(error: Exception) -> str:
    """Answer the first line of what a library says."""
    return (str(error) or type(error).__name__).splitlines()[0]


def self_signed(directory: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> tuple[str, str]:
    """Answer the paths of a self-signed certificate for this machine and its key, kept in `directory`.

    They are made if they are not there, or about to expire. Raises `StartFailed` if they cannot be written.
    """
    folder = Path(directory)
    certificate, key = folder / "self-signed.crt", folder / "self-signed.key"
    if certificate.exists() and key.exists():
        until = x509_chain(str(certificate))[0].not_valid_after_utc
        if until - now() > _RENEW_BEFORE:
            return str(certificate), str(key)
    private_key = ec.generate_private_key(ec.SECP256R1())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(key, _key_pem(private_key), mode=0o600)
        _write(certificate, _certificate_pem(private_key, now()), mode=0o644)
    except OSError as error:
        raise StartFailed(f"{error.filename}: cannot be written: {error.strerror}") from None
    return str(certificate), str(key)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file so that nobody ever sees a part of it."""
    unfinished = path.with_suffix(f"{path.suffix}.new")
    unfinished.unlink(missing_ok=True)
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    unfinished.replace(path)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate_pem(key: ec.EllipticCurvePrivateKey, now: datetime) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pushd self-signed")])
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ip_address("127.0.0.1")),
        x509.IPAddress(ip_address("::1")),
    ]
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
