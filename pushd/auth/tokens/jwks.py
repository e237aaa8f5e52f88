"""Parsing of JSON Web Key Sets (RFC 7517)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from pushd.auth.tokens.keys import Verifier, misfit, verifier_of
from pushd.errors import Unavailable
from pushd.wire import read_json

__all__ = ["MAX_KEYS", "SetKey", "read_jwks"]

MAX_KEYS = 100
"""Maximum number of keys used of one set."""

_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


@dataclass(frozen=True, slots=True)
class SetKey:
    """A key of a set."""

    kid: str | None
    """The id of the key in the headers of tokens; None: it has none."""

    verifier: Verifier
    """Verifies signatures with the key."""


def read_jwks(text: bytes, algorithm: str) -> tuple[SetKey, ...]:
    """Return the public keys in `text` that verify signatures of `algorithm`, the first 100 of them.

    Raises `Unavailable`, with the reason, if `text` is not a key set. Keys of another type or for another use are
    ignored (RFC 7517, section 5), and so are secrets and private keys: in a key set, they are not secret any more.
    """
    try:
        document = read_json(text)
    except (ValueError, RecursionError):
        raise Unavailable("the answer is not JSON; wanted a JSON Web Key Set") from None
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise Unavailable("the answer has no list of keys; wanted a JSON Web Key Set")
    found: list[SetKey] = []
    for member in members:
        verifier = _read_member(member, algorithm) if isinstance(member, dict) else None
        if verifier is not None:
            kid = member.get("kid")
            found.append(SetKey(kid if isinstance(kid, str) else None, verifier))
            if len(found) == MAX_KEYS:
                break
    return tuple(found)


def _read_member(member: Mapping[str, Any], algorithm: str) -> Verifier | None:
    """Return the key in `member`, or None if it is not for `algorithm`."""
    operations = member.get("key_ops", ["verify"])
    if (
        member.get("kty") != _KEY_TYPES[algorithm[:2]]
        or member.get("use", "sig") != "sig"
        or member.get("alg", algorithm) != algorithm
        or not isinstance(operations, list)
        or "verify" not in operations
    ):
        return None
    try:
        public = {name: value for name, value in member.items() if isinstance(value, str)}
        key = jwt.PyJWK(public, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, UnsupportedAlgorithm):
        return None
    return None if misfit(algorithm, key) else verifier_of(algorithm, key)
