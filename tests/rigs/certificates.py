"""Certificates for tests: authorities, and what they issue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "Issued", "name_of"]

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def name_of(common_name: str, organization: str | None = "Example") -> x509.Name:
    """Make a name, whose text is ``CN=common_name,O=organization``."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


@dataclass(frozen=True)
class Issued:
    """A certificate, its key, and the certificates that lead to it."""

    certificate: x509.Certificate
    key: Key
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        """The certificate and its chain."""
        return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (self.certificate, *self.chain))

    def write(self, directory: Path, stem: str) -> tuple[str, str]:
        """Write it and its key to files; answer their paths."""
        certificate, key = directory / f"{stem}.crt", directory / f"{stem}.key"
        certificate.write_bytes(self.pem)
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return str(certificate), str(key)


class Authority:
    """Issues certificates."""

    def __init__(self, name: str = "Example CA", parent: Authority | None = None) -> None:
        """Be a root, or below `parent`."""
        self.name = name_of(name)
        self._key: Key = ec.generate_private_key(ec.SECP256R1())
        self._parent = parent
        issuer = self if parent is None else parent
        self.certificate = issuer._sign(self.name, self._key.public_key(), is_authority=True)

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, directory: Path, stem: str) -> str:
        """Write its own certificate to a file; answer the path."""
        path = directory / f"{stem}.pem"
        path.write_bytes(self.pem)
        return str(path)

    def issue(
        self,
        subject: x509.Name | str = "alice",
        *,
        purposes: Sequence[x509.ObjectIdentifier] = (CLIENT,),
        from_days: float = -1,
        to_days: float = 1,
        is_authority: bool = False,
        names: Sequence[x509.GeneralName] = (),
        key: Key | None = None,
    ) -> Issued:
        """Issue a certificate, valid from and to so many days from now; without `purposes`, for whatever.

        `names` are the alternative ones; `key` is a new one on P-256 unless it is given.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = name_of(subject) if isinstance(subject, str) else subject
        certificate = self._sign(
            name,
            key.public_key(),
            is_authority=is_authority,
            purposes=purposes,
            from_days=from_days,
            to_days=to_days,
            names=names,
        )
        return Issued(certificate, key, () if self._parent is None else (self.certificate,))

    def _sign(
        self,
        subject: x509.Name,
        key: PublicKey,
        *,
        is_authority: bool,
        purposes: Sequence[x509.ObjectIdentifier] = (),
        from_days: float = -1,
        to_days: float = 1,
        names: Sequence[x509.GeneralName] = (),
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(self.name, subject, key, x509.random_serial_number())
            .not_valid_before(now + timedelta(days=from_days))
            .not_valid_after(now + timedelta(days=to_days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        usages = {"key_cert_sign", "crl_sign"} if is_authority else {"digital_signature"}
        usage = x509.KeyUsage(**{name: name in usages for name in _USAGES})
        builder = builder.add_extension(usage, critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return builder.sign(self._key, hashes.SHA256())
