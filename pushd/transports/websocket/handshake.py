"""The opening handshake of WebSocket: RFC 6455, section 4.2; over HTTP/2, RFC 8441, section 5."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha1

from pushd.errors import BadRequest, Refused, UpgradeNeeded
from pushd.server import TOKEN, Request, subprotocols

__all__ = ["Field", "Handshake", "accept_connect", "accept_upgrade"]

Field = tuple[bytes, bytes]
"""Name and value of a header field."""

_PROTOCOL = b"pushd.v1"
"""The only subprotocol that pushd selects."""

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token of RFC 9110, section 5.6.2, as RFC 6455, section 4.1, requires of subprotocols."""

_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""Proves that the server supports WebSocket: RFC 6455, section 1.3."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """A valid opening handshake."""

    fields: list[Field]
    """The fields of the response."""

    speaks_v1: bool
    """Whether the client speaks ``pushd.v1``: it understands messages that it did not ask for."""


def accept_upgrade(request: Request) -> Handshake:
    """Return a handshake over HTTP/1.1; raise `UpgradeNeeded` or `BadRequest` if it is invalid."""
    if not (_has_token(request, b"upgrade", b"websocket") and _has_token(request, b"connection", b"upgrade")):
        request.setHeader(b"upgrade", b"websocket")
        raise UpgradeNeeded("expected a WebSocket handshake: Upgrade: websocket and Connection: Upgrade")
    _check_version(request, UpgradeNeeded)
    key = _key(request)
    if key is None:
        raise BadRequest("expected Sec-WebSocket-Key once, 16 bytes in base64", "Sec-WebSocket-Key")
    if request.method != b"GET" or request.clientproto != b"HTTP/1.1":
        raise BadRequest("expected a WebSocket handshake with GET, over HTTP/1.1")
    return _accept(request, [(b"Upgrade", b"websocket"), (b"Sec-WebSocket-Accept", _accepted(key))])


def accept_connect(request: Request) -> Handshake:
    """Return a handshake over HTTP/2; raise `BadRequest` if it is invalid.

    HTTP/2 does not use a key; the response still accepts one, as undici 7 requires it.
    """
    _check_version(request, BadRequest)
    key = _key(request)
    return _accept(request, [] if key is None else [(b"Sec-WebSocket-Accept", _accepted(key))])


def _accept(request: Request, fields: list[Field]) -> Handshake:
    if b"#" in request.uri:
        raise BadRequest("the path of a WebSocket must not have a fragment (RFC 6455, section 3)")
    offers = request.requestHeaders.hasHeader(b"sec-websocket-protocol")
    speaks_v1 = offers and _selects_protocol(subprotocols(request))
    selected = [(b"Sec-WebSocket-Protocol", _PROTOCOL)] if speaks_v1 else []
    return Handshake([*fields, *selected, (b"Server", b"pushd")], speaks_v1)


def _selects_protocol(offered: list[bytes]) -> bool:
    """Return whether ``pushd.v1`` is among the `offered` subprotocols; raise `BadRequest` for an invalid offer.

    Messages never quote a subprotocol: it may be a token.
    """
    if not all(map(_NAME.fullmatch, offered)):
        raise _wrong_offer("a subprotocol that is not a name; expected names, separated by commas")
    if len(set(offered)) < len(offered):
        raise _wrong_offer("expected each subprotocol once (RFC 6455, section 4.1)")
    if _PROTOCOL in offered:
        return True
    if any(it.startswith(TOKEN) for it in offered):
        raise _wrong_offer(
            "a token in a subprotocol without pushd.v1; expected both, because browsers require the server to "
            "select one, and it never selects a token"
        )
    return False


def _wrong_offer(detail: str) -> BadRequest:
    return BadRequest(detail, "Sec-WebSocket-Protocol")


def _key(request: Request) -> bytes | None:
    keys = request.requestHeaders.getRawHeaders(b"sec-websocket-key", [])
    return keys[0] if len(keys) == 1 and _KEY.fullmatch(keys[0]) else None


def _accepted(key: bytes) -> bytes:
    return b64encode(sha1(key + _GUID).digest())


def _check_version(request: Request, kind: type[Refused]) -> None:
    versions = request.requestHeaders.getRawHeaders(b"sec-websocket-version", [])
    if list(versions) != [b"13"]:
        request.setHeader(b"sec-websocket-version", b"13")
        raise kind("expected Sec-WebSocket-Version: 13", "Sec-WebSocket-Version")


def _has_token(request: Request, header: bytes, token: bytes) -> bool:
    values = request.requestHeaders.getRawHeaders(header, [])
    return any(one.strip().lower() == token for value in values for one in value.split(b","))
