"""Keys that verify signatures: secrets, and public keys in PEM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from pushd.config import Key
from pushd.errors import StartFailed

__all__ = ["Verifier", "misfit", "read_key", "read_secret", "verifier_of"]

_MAX_FILE_BYTES = 2**16
_RSA_BITS = range(2048, 16384 + 1)
_CURVES = {
    "ES256": ("secp256r1", "P-256"),
    "ES384": ("secp384r1", "P-384"),
    "ES512": ("secp521r1", "P-521"),
}


@dataclass(frozen=True, slots=True)
class Verifier:
    """A key and the only algorithm that it may be used with."""

    algorithm: str
    """Name of the algorithm, as in ``alg``."""

    key: Any = field(repr=False)
    """The key, as prepared by PyJWT."""

    def has_signed(self, signed: bytes, signature: bytes) -> bool:
        """Return whether `signature` is a signature of `signed` with this key."""
        return bool(_algorithm(self.algorithm).verify(signed, self.key, signature))


_jws = jwt.PyJWS()
_algorithm = _jws.get_algorithm_by_name


def verifier_of(algorithm: str, key: Any) -> Verifier:
    """Return a verifier for a public key or secret that is valid for `algorithm`."""
    return Verifier(algorithm, _algorithm(algorithm).prepare_key(key))


def read_key(key: Key) -> Verifier:
    """Return the secret or public key of a section; raise `StartFailed`, with one line, if it is invalid."""
    return verifier_of(key.algorithm, read_secret(key) if key.algorithm.startswith("HS") else _read_public_key(key))


def read_secret(key: Key) -> bytes:
    """Return the secret of a section; raise `StartFailed`, which does not quote it, if it is invalid."""
    if key.secret_file is not None:
        place = f"[key:{key.name}] secret_file = {key.secret_file}"
        secret = _read(key.secret_file, place).rstrip()
    else:
        place = f"[key:{key.name}] secret"
        secret = (key.secret or "").encode()
    least = int(key.algorithm[2:]) // 8
    if len(secret) < least:
        raise StartFailed(
            f"{place}: has {len(secret)} bytes; wanted at least {least} with {key.algorithm} "
            "(RFC 7518, section 3.2)"
        )
    try:
        _algorithm(key.algorithm).prepare_key(secret)
    except jwt.InvalidKeyError:
        raise StartFailed(f"{place}: is a key or a certificate; wanted a secret that nobody else knows") from None
    return secret


def _read_public_key(key: Key) -> Any:
    assert key.public_key_file is not None
    place = f"[key:{key.name}] public_key_file = {key.public_key_file}"
    pem = _read(key.public_key_file, place)
    if b"PRIVATE KEY-----" in pem:
        raise StartFailed(
            f"{place}: has a private key; wanted only the public one: openssl pkey -in FILE -pubout; "
            "pushd must not be able to make tokens"
        )
    if b"-----BEGIN CERTIFICATE-----" in pem:
        raise StartFailed(
            f"{place}: is a certificate; wanted the public key in it: openssl x509 -in FILE -noout -pubkey"
        )
    try:
        public_key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise StartFailed(f"{place}: is not a public key in PEM; wanted -----BEGIN PUBLIC KEY-----") from None
    found = misfit(key.algorithm, public_key)
    if found is not None:
        raise StartFailed(f"{place}: is {found} with {key.algorithm}")
    return public_key


def misfit(algorithm: str, key: object) -> str | None:
    """Return None if `key` is a public key for `algorithm`; else a text with its type and the expected one."""
    if algorithm in _CURVES:
        curve, name = _CURVES[algorithm]
        fits = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == curve
        wanted = f"an EC key on the curve {curve} ({name})"
    elif algorithm == "EdDSA":
        fits = isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
        wanted = "an Ed25519 or Ed448 key"
    else:
        fits = isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS
        wanted = f"an RSA key of {_RSA_BITS[0]} to {_RSA_BITS[-1]} bits"
    return None if fits else f"{_description(key)}; wanted {wanted}"


def _description(key: object) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        return f"an RSA key of {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"an EC key on the curve {key.curve.name}"
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return "an EdDSA key"
    return "a key of another kind"


def _read(path: str, place: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise StartFailed(f"{place}: cannot be read: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise StartFailed(f"{place}: is larger than {_MAX_FILE_BYTES} bytes; wanted just a key")
    return data
