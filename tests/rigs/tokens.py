"""What the tests of tokens are made of: keys, tokens of any form, an issuer whose key set is fetched."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pushd.auth.tokens.authenticator import MAX_KEPT, Tokens
from pushd.bus.grants import Identity
from pushd.config.access import Key

__all__ = [
    "ALGORITHMS",
    "NOW",
    "SECRET",
    "Issuer",
    "TokensRig",
    "base64url",
    "hs_key",
    "jwk_of",
    "private_key",
    "public_pem",
    "sign",
    "token",
]

NOW = 1_700_000_000.0
"""The time of day, in seconds since 1970, when the clock of a rig stands at 0."""

SECRET = "0123456789abcdef" * 4
"""A secret that is long enough for each of the algorithms."""

ALGORITHMS = (*(f"{kind}{size}" for kind in ("HS", "RS", "PS", "ES") for size in (256, 384, 512)), "EdDSA")

_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def private_key(algorithm: str, number: int = 0) -> Any:
    """Return a private key for `algorithm`, or a secret, always the same; `number` tells several apart."""
    return _private_key(algorithm, number)


@cache
def _private_key(algorithm: str, number: int) -> Any:
    if algorithm.startswith("HS"):
        return f"{number}{SECRET}".encode() if number else SECRET.encode()
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    return _rsa_key(number)


@cache
def _rsa_key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def public_pem(key: Any) -> bytes:
    """Write the public key of a private one."""
    pem: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


def jwk_of(algorithm: str, number: int = 0, **members: Any) -> dict[str, Any]:
    """Write the public key for `algorithm` as the member of a key set; a member that is None is left out."""
    algorithm_of = jwt.PyJWS().get_algorithm_by_name(algorithm)
    jwk = algorithm_of.to_jwk(private_key(algorithm, number).public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    return {name: value for name, value in {**jwk, **members}.items() if value is not None}


def base64url(data: bytes) -> str:
    """Encode as the parts of tokens are."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(header: bytes, payload: bytes, algorithm: str = "HS256", key: Any = None) -> str:
    """Make a token of two parts that may be anything, and a signature that is right."""
    signed = f"{base64url(header)}.{base64url(payload)}"
    by = jwt.PyJWS().get_algorithm_by_name(algorithm)
    signature = by.sign(signed.encode(), private_key(algorithm) if key is None else key)
    return f"{signed}.{base64url(signature)}"


def token(
    claims: object = None, *, algorithm: str = "HS256", key: Any = None, header: dict[str, Any] | None = None
) -> str:
    """Make a token; a member of `header` that is None is left out of it."""
    members = {"typ": "JWT", "alg": algorithm, **(header or {})}
    head = json.dumps({name: value for name, value in members.items() if value is not None})
    return sign(head.encode(), json.dumps({} if claims is None else claims).encode(), algorithm, key)


class Issuer:
    """An issuer of key sets; the test decides when to answer a fetch."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        """What was fetched."""
        self._pending: list[Deferred[bytes]] = []

    def __call__(self, url: str) -> Deferred[bytes]:
        """See `pushd.auth.tokens.fetch.Fetch`."""
        self.urls.append(url)
        self._pending.append(Deferred())
        return self._pending[-1]

    @property
    def pending(self) -> int:
        """How many fetches are not answered."""
        return len(self._pending)

    def answer(self, *keys: dict[str, Any]) -> None:
        """Return the oldest fetch with a set of `keys`."""
        self.answer_text(json.dumps({"keys": keys}).encode())

    def answer_text(self, text: bytes) -> None:
        """Return the oldest fetch."""
        self._pending.pop(0).callback(text)

    def fail(self, error: Exception) -> None:
        """Make the oldest fetch fail."""
        self._pending.pop(0).errback(error)


class TokensRig:
    """Tokens on a clock that the test turns."""

    def __init__(self, *keys: Key, leeway_s: float = 10, max_kept: int = MAX_KEPT) -> None:
        self.clock = Clock()
        self.issuer = Issuer()
        self.tokens = Tokens(
            keys,
            leeway_s=leeway_s,
            now=self.now,
            seconds=self.clock.seconds,
            fetch=self.issuer,
            max_kept=max_kept,
        )

    def now(self) -> float:
        """The time of day, in seconds since 1970."""
        return NOW + self.clock.seconds()

    def identify(self, text: str) -> Identity:
        """Identify who shows a token, which must be possible at once."""
        identity = self.tokens.identify(text)
        assert isinstance(identity, Identity), identity
        return identity

    def wait_for(self, text: str) -> Deferred[Identity]:
        """Begin to identify who shows a token, which must not be possible at once."""
        identity = self.tokens.identify(text)
        assert isinstance(identity, Deferred), identity
        return identity


def hs_key(name: str = "app", algorithm: str = "HS256", **more: Any) -> Key:
    """Return a section with a secret."""
    return Key(name, algorithm, secret=SECRET, **more)
