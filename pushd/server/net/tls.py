"""Server certificates: configured ones, and a self-signed default."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import AcceptableCiphers, CertificateOptions, TLSVersion
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from pushd.errors import StartFailed
from pushd.server.net.client_certificates import Authorities, ask

__all__ = ["Authorities", "Credentials", "check_directory", "load", "restrict_groups", "self_signed"]

_GROUPS = b"X25519:P-256:P-384"


_HYBRID = b"X25519MLKEM768:"
"""The post-quantum hybrid group: it protects recorded traffic from future quantum computers. Since OpenSSL 3.5."""


_openssl: Any = SSL


_lib = _openssl._lib


def restrict_groups(context: SSL.Context) -> None:
    """Restrict key exchange to the groups of browsers that Mozilla recommends, in order of preference.

    By default OpenSSL also accepts finite fields (ffdhe3072), X448 and P-521. Such a group costs up to eight times
    as much CPU, and a client that requests it need not compute anything itself. Without the function of OpenSSL,
    which cryptography provides since version 47, the default stays.
    """
    choose = getattr(_lib, "SSL_CTX_set1_curves_list", None)
    if choose is None:
        return
    native = getattr(context, "_context")  # noqa: B009  private: pyOpenSSL has no public method or type for it
    if choose(native, _HYBRID + _GROUPS) != 1:
        _lib.ERR_clear_error()
        choose(native, _GROUPS)


_LIFETIME = timedelta(days=365)


_RENEW_BEFORE = timedelta(days=30)


_BACKDATED = timedelta(hours=1)


_CIPHERS = AcceptableCiphers.fromOpenSSLCipherString(
    ":".join(
        f"ECDHE-{key}-{cipher}"
        for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
        for key in ("ECDSA", "RSA")
    )
)
"""The TLS 1.2 ciphers with forward secrecy and authenticated encryption, in order of preference.

TLS 1.3 has no others. These are the ciphers of Mozilla's "intermediate" configuration. Twisted's defaults include
CBC and, for certificates with RSA keys, key exchange without forward secrecy.
"""


def load(certificate: str, key: str, clients: Authorities | None = None) -> CertificateOptions:
    """Read a certificate chain and its key, both PEM; raise `StartFailed` if they cannot be used.

    With `clients`, client certificates are requested.
    """
    chain = x509_chain(certificate)
    private_key = _private_key(key)
    try:
        if chain[0].public_key() != private_key.public_key():
            raise StartFailed(f"{key} is not the key of the certificate in {certificate}")
        options = _options(chain, private_key)
    except (ValueError, TypeError, UnsupportedAlgorithm, SSL.Error) as error:
        raise StartFailed(f"{certificate}: OpenSSL rejects it: {_why(error)}") from None
    if clients is not None:
        _ask(options.getContext(), clients)
    return options


def _options(chain: list[x509.Certificate], private_key: Any) -> CertificateOptions:
    options = CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(private_key),
        certificate=crypto.X509.from_cryptography(chain[0]),
        extraCertChain=[crypto.X509.from_cryptography(one) for one in chain[1:]],
        raiseMinimumTo=TLSVersion.TLSv1_2,
        acceptableCiphers=_CIPHERS,
    )
    restrict_groups(options.getContext())
    return options


def _ask(context: SSL.Context, clients: Authorities) -> None:
    """Request client certificates; raise `StartFailed` if the file of authorities is invalid."""
    authorities = x509_chain(clients.path)
    for number, certificate in enumerate(authorities, 1):
        try:
            is_one = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (ValueError, x509.ExtensionNotFound):
            is_one = False
        if not is_one:
            raise StartFailed(
                f"{clients.path}: certificate {number} is not that of an authority (RFC 5280, section 4.2.1.9)"
            )
    try:
        ask(context, authorities, is_required=clients.is_required)
    except (ValueError, TypeError, UnsupportedAlgorithm, SSL.Error) as error:
        raise StartFailed(f"{clients.path}: OpenSSL rejects it: {_why(error)}") from None


@implementer(IOpenSSLServerConnectionCreator)
class Credentials:
    """A certificate and its key, replaceable at run time: open connections keep their certificate."""

    def __init__(self, paths: Callable[[], tuple[str, str]], clients: Authorities | None = None) -> None:
        """Load the certificate and key at `paths`; raise `StartFailed` if they cannot be used.

        With `clients`, client certificates are requested.
        """
        self._options = load(*paths(), clients)

    def renewed(self, paths: Callable[[], tuple[str, str]], clients: Authorities | None) -> Callable[[], None]:
        """Load new files and return a function that applies them to new connections; may raise `StartFailed`."""
        options = load(*paths(), clients)

        def commit() -> None:
            self._options = options

        return commit

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return the TLS state of a new connection. See `IOpenSSLServerConnectionCreator`."""
        return self._options.serverConnectionForTLS(protocol)


def x509_chain(path: str) -> list[x509.Certificate]:
    """Read the certificates of a PEM file, at least one; raise `StartFailed` if it is invalid."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except (ValueError, x509.InvalidVersion) as error:
        raise StartFailed(f"{path}: not a PEM certificate ({_why(error)})") from None


def _private_key(path: str) -> Any:
    """Read a private key of any type, without a passphrase; raise `StartFailed` if it is invalid."""
    try:
        return serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StartFailed(f"{path}: not a PEM private key without a passphrase ({_why(error)})") from None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StartFailed(f"{path}: cannot be read: {error.strerror}") from None


def _why(error: Exception) -> str:
    """Return the first line of a library's error message."""
    return (str(error) or type(error).__name__).splitlines()[0]


def self_signed(directory: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> tuple[str, str]:
    """Return the paths of a self-signed certificate for this machine and its key, stored in `directory`.

    Both are created if missing, mismatched or about to expire. Raises `StartFailed` if existing files cannot be
    read, or new files cannot be written.
    """
    folder = Path(directory)
    certificate, key = folder / "self-signed.crt", folder / "self-signed.key"
    if not (_exists(certificate) and _exists(key) and _is_good(certificate, key, now())):
        private_key = ec.generate_private_key(ec.SECP256R1())
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartFailed(f"{error.filename}: cannot be written: {error.strerror}") from None
        _write({key: (_key_pem(private_key), 0o600), certificate: (_certificate_pem(private_key, now()), 0o644)})
    return str(certificate), str(key)


def check_directory(directory: str) -> None:
    """Raise `StartFailed` if `directory` is not writable and cannot be created."""
    path = Path(directory)
    while not _exists(path):
        path = path.parent
    if not path.is_dir():
        raise StartFailed(f"{directory}: cannot be written: {path} is not a directory")
    if not os.access(path, os.W_OK | os.X_OK):
        raise StartFailed(f"{directory}: cannot be written: {path} is not writable")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise StartFailed(f"{path}: cannot be read: {error.strerror}") from None


def _is_good(certificate: Path, key: Path, now: datetime) -> bool:
    first = x509_chain(str(certificate))[0]
    try:
        belongs: bool = first.public_key() == _private_key(str(key)).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    return belongs and first.not_valid_after_utc - now > _RENEW_BEFORE


def _write(files: Mapping[Path, tuple[bytes, int]]) -> None:
    """Write files with their modes: first all to temporary names, then rename all."""
    try:
        for path, (data, mode) in files.items():
            beside = _beside(path)
            beside.unlink(missing_ok=True)
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
        for path in files:
            _beside(path).replace(path)
    except OSError as error:
        raise StartFailed(f"{error.filename or beside}: cannot be written: {error.strerror}") from None


def _beside(path: Path) -> Path:
    return path.with_suffix(f"{path.suffix}.new")


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
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now - _BACKDATED + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
