"""The opening handshake of WebSocket: RFC 6455, section 4.2; over HTTP/2, RFC 8441, section 5."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha1

from pushd.errors import BadRequest, Refused, UpgradeNeeded
from pushd.server import Request

__all__ = ["Field", "accept_connect", "accept_upgrade"]

Field = tuple[bytes, bytes]
"""Name and value of a header field."""

_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""Proves that the server supports WebSocket: RFC 6455, section 1.3."""


def accept_upgrade(request: Request) -> list[Field]:
    """Return the response fields of a handshake over HTTP/1.1; raise `UpgradeNeeded` or `BadRequest` if invalid."""
    if not (_has_token(request, b"upgrade", b"websocket") and _has_token(request, b"connection", b"upgrade")):
        request.setHeader(b"upgrade", b"websocket")
        raise UpgradeNeeded("expected a WebSocket handshake: Upgrade: websocket and Connection: Upgrade")
    _check_version(request, UpgradeNeeded)
    key = _key(request)
    if key is None:
        raise BadRequest("expected Sec-WebSocket-Key once, 16 bytes in base64", "Sec-WebSocket-Key")
    if request.method != b"GET" or request.clientproto != b"HTTP/1.1":
        raise BadRequest("expected a WebSocket handshake with GET, over HTTP/1.1")
    _check_asked(request)
    return [(b"Upgrade", b"websocket"), (b"Sec-WebSocket-Accept", _accepted(key)), (b"Server", b"pushd")]


def accept_connect(request: Request) -> list[Field]:
    """Return the response fields of a handshake over HTTP/2; raise `BadRequest` if it is invalid.

    HTTP/2 does not use a key; the response still accepts one, as undici 7 requires it.
    """
    _check_version(request, BadRequest)
    _check_asked(request)
    key = _key(request)
    return [(b"Server", b"pushd"), *([] if key is None else [(b"Sec-WebSocket-Accept", _accepted(key))])]


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


def _check_asked(request: Request) -> None:
    """Raise `BadRequest` for an invalid path or duplicate subprotocols."""
    if b"#" in request.uri:
        raise BadRequest("the path of a WebSocket must not have a fragment (RFC 6455, section 3)")
    subprotocols = _tokens(request, b"sec-websocket-protocol")
    if len(set(subprotocols)) < len(subprotocols):
        raise BadRequest("expected each subprotocol once (RFC 6455, section 4.1)", "Sec-WebSocket-Protocol")


def _tokens(request: Request, header: bytes) -> list[bytes]:
    values = request.requestHeaders.getRawHeaders(header, [])
    return [token.strip() for value in values for token in value.split(b",")]


def _has_token(request: Request, header: bytes, token: bytes) -> bool:
    return any(one.lower() == token for one in _tokens(request, header))
