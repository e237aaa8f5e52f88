"""Test tokens, signed with a secret of the configuration."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from pushd.auth.tokens.claims import read_identity, read_times
from pushd.auth.tokens.jws import check_size
from pushd.auth.tokens.keys import read_secret
from pushd.bus import Pattern
from pushd.config import Key
from pushd.errors import ConfigError, Unauthorized

__all__ = ["TokenRequest", "choose_key", "mint"]


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """The claims of a token to make."""

    user: str | None = None
    """The user of the token; None: no user."""

    publish: tuple[Pattern, ...] = ()
    """Channels and patterns that the user may publish to."""

    subscribe: tuple[Pattern, ...] = ()
    """Channels and patterns that the user may subscribe to."""

    is_operator: bool = False
    """Whether the user is an operator."""

    lasts_s: float = 3600.0
    """Lifetime, in seconds."""


def choose_key(keys: Sequence[Key], name: str | None) -> Key:
    """Return the key `name`, or the only one with a secret; raise `ConfigError` if there is no such key."""
    if not keys:
        raise ConfigError(
            "there is no [key:NAME] whose secret could sign a token; put these lines into the file:\n\n"
            f"[key:app]\nalgorithm = HS256\nsecret = {secrets.token_urlsafe(48)}\n"
        )
    names = ", ".join(key.name for key in keys)
    if name is not None:
        keys = [key for key in keys if key.name == name]
        if not keys:
            raise ConfigError(f"--key {name}: there is no [key:{name}]; wanted one of {names}")
    shared = [key for key in keys if key.algorithm.startswith("HS")]
    if not shared:
        raise ConfigError(
            f"[key:{keys[0].name}] algorithm = {keys[0].algorithm}: tokens for it are signed with a private key, "
            "which pushd does not have; make them where that is (docs/tokens.rst); wanted a key with a secret"
        )
    if len(shared) > 1:
        names = ", ".join(key.name for key in shared)
        raise ConfigError(f"several keys could sign a token; wanted --key with one of {names}")
    return shared[0]


def mint(key: Key, token_request: TokenRequest, now: float) -> str:
    """Return a token; raise `StartFailed` if the secret is unusable, `ConfigError` if the claims are invalid."""
    rights: dict[str, object] = {
        "publish": [pattern.text for pattern in token_request.publish],
        "subscribe": [pattern.text for pattern in token_request.subscribe],
    }
    if token_request.is_operator:
        rights["operator"] = True
    claims: dict[str, Any] = {"iat": int(now), "exp": int(now + token_request.lasts_s), "pushd": rights}
    for name, value in ("iss", key.issuer), ("aud", key.audience), ("sub", token_request.user):
        if value is not None:
            claims[name] = value
    token = jwt.encode(claims, read_secret(key), key.algorithm, headers={"kid": key.name})
    try:
        check_size(token)
        read_identity(claims, read_times(claims), leeway_s=0, origin="")
    except Unauthorized as error:
        raise ConfigError(f"no token can claim that: {error.detail}") from None
    return token
