"""Parsing of tokens in the JWS compact serialization (RFC 7515, section 7.1), before verification."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pushd.auth.identity_input import kind_of
from pushd.errors import Unauthorized
from pushd.wire import read_strict_json

__all__ = ["MAX_TOKEN_BYTES", "CompactJws", "check_size", "read_compact", "wrong"]

MAX_TOKEN_BYTES = 8192
"""Maximum length of a token, in bytes."""

_FORM = "wanted three parts in base64url, separated by dots (RFC 7519)"
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class CompactJws:
    """A parsed token, not yet verified."""

    algorithm: str
    """The header ``alg``."""

    kid: str | None
    """The header ``kid``, if present."""

    claims: Mapping[str, Any]
    """The claims."""

    signed: bytes = field(repr=False)
    """The signed bytes: header and payload, encoded."""

    signature: bytes = field(repr=False)


def wrong(detail: str, code: str | None = None) -> Unauthorized:
    """Return the error for an invalid token, with `detail` and another `code` than ``token_invalid``."""
    return Unauthorized(detail, is_token_wrong=True, code=code)


def check_size(token: str) -> None:
    """Raise `Unauthorized` if `token` is longer than `MAX_TOKEN_BYTES` or not ASCII."""
    if len(token) > MAX_TOKEN_BYTES:
        raise wrong(f"the token has {len(token)} bytes; wanted {MAX_TOKEN_BYTES} at most")
    if not token.isascii():
        raise wrong(f"the token has characters that are not ASCII; {_FORM}")


def read_compact(token: str) -> CompactJws:
    """Parse a token that passed `check_size`; raise `Unauthorized` if it is malformed.

    Nothing is verified. Of the header, only ``alg``, ``kid`` and ``crit`` are used: a key sent in a token proves
    nothing.
    """
    if not token:
        raise wrong(f"the token is empty; {_FORM}")
    parts = token.split(".")
    if len(parts) == 5:
        raise wrong("the token is encrypted (JWE, RFC 7516), which is not taken; wanted one that is signed")
    if len(parts) != 3:
        raise wrong(f"the token has {len(parts)} part{'s' * (len(parts) > 1)}; {_FORM}")
    header = _read_object(parts[0], "header")
    if "crit" in header:
        raise wrong("the header of the token has crit, which asks for extensions; none of them is known")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise wrong(f"the header of the token has {_what('alg', header)}; wanted text, such as 'HS256'")
    if not isinstance(kid, str | None) or ("kid" in header and kid is None):
        raise wrong(f"the header of the token has {_what('kid', header)}; wanted text, or none")
    claims = _read_object(parts[1], "payload")
    signed = f"{parts[0]}.{parts[1]}".encode()
    return CompactJws(algorithm, kid, claims, signed, _decode(parts[2], "signature"))


def _what(name: str, members: Mapping[str, object]) -> str:
    return f"{name}, which is {kind_of(members[name])}" if name in members else f"no {name}"


def _read_object(part: str, name: str) -> dict[str, Any]:
    data = _decode(part, name)
    try:
        value = read_strict_json(data)
    except RecursionError:
        raise wrong(f"the {name} of the token is nested too deeply") from None
    except UnicodeDecodeError:
        raise wrong(f"the {name} of the token is not UTF-8; wanted a JSON object") from None
    except ValueError as error:
        raise wrong(f"the {name} of the token cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise wrong(f"the {name} of the token is {kind_of(value)}; wanted a JSON object")
    return value


def _decode(part: str, name: str) -> bytes:
    """Decode base64url without padding; accept the canonical encoding only (RFC 4648, section 3.5)."""
    if _BASE64URL.fullmatch(part) and len(part) % 4 != 1:
        data = urlsafe_b64decode(part + "=" * (-len(part) % 4))
        if urlsafe_b64encode(data).rstrip(b"=") == part.encode():
            return data
    raise wrong(f"the {name} of the token is not base64url without padding (RFC 7515, section 2)")
