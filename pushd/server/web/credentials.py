"""Where a request may carry a token: ``Authorization``, the query, a subprotocol of WebSocket, or a cookie."""

from __future__ import annotations

import re

from pushd.errors import BadRequest, Unauthorized
from pushd.server.request import Request

__all__ = ["TOKEN", "cookies", "explicit_token", "is_upgrade", "subprotocols"]

TOKEN = b"pushd.token."
"""The prefix of a subprotocol that is a token: it is in the only header that browsers let a page set."""

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)  # RFC 6750, section 2.1


def explicit_token(request: Request, in_header: str | None) -> str | None:
    """Return the token that the client sent deliberately, not in a cookie; None if there is none.

    `in_header` is the value of ``Authorization``. Raises `BadRequest` if there is more than one token.
    """
    in_query: list[bytes] | None = request.args.get(b"access_token")
    offered = _offered_token(request) if is_upgrade(request) else None
    given = {"Authorization": in_header, "access_token": in_query, "Sec-WebSocket-Protocol": offered}
    places = [name for name, token in given.items() if token is not None]
    if len(places) > 1:
        raise BadRequest(f"a token in both {places[0]} and {places[1]}; expected one (RFC 6750, section 2)")
    if in_header is not None:
        bearer = _BEARER.fullmatch(in_header)
        if bearer is None:
            raise Unauthorized("Authorization is not of the form Bearer TOKEN (RFC 6750, section 2.1)")
        return str(bearer[1])
    if in_query is not None:
        if len(in_query) > 1:
            raise BadRequest(f"access_token appears {len(in_query)} times; expected once", "access_token")
        return in_query[0].decode("utf-8", "replace")
    return offered


def is_upgrade(request: Request) -> bool:
    """Return whether the request may be the handshake of a WebSocket, over HTTP/1.1 or HTTP/2."""
    return request.method == b"CONNECT" or request.requestHeaders.hasHeader(b"upgrade")


def subprotocols(request: Request) -> list[bytes]:
    """Return the subprotocols that a WebSocket client offers (RFC 6455, section 4.1), without empty elements."""
    lines = request.requestHeaders.getRawHeaders(b"sec-websocket-protocol", [])
    return [name for line in lines for it in line.split(b",") if (name := it.strip())]


def _offered_token(request: Request) -> str | None:
    tokens = [name for name in subprotocols(request) if name.startswith(TOKEN)]
    if len(tokens) > 1:
        raise BadRequest(f"{len(tokens)} tokens in subprotocols; expected one", "Sec-WebSocket-Protocol")
    return tokens[0].removeprefix(TOKEN).decode("utf-8", "replace") if tokens else None


def cookies(request: Request, name: bytes) -> list[bytes]:
    """Return all values of a cookie, which may be set for several paths (RFC 6265, section 5.4)."""
    found = []
    for line in request.requestHeaders.getRawHeaders(b"cookie", []):
        for pair in line.split(b";"):
            key, equals, value = pair.strip().partition(b"=")
            if equals and key == name:
                found.append(value.strip(b'"'))
    return found
