"""The response to a request that is refused before it reaches a resource."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from time import time
from typing import Protocol

from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers

from pushd.bus import record
from pushd.errors import Refused, Unauthorized, WrongMethod
from pushd.server.access_log import UnreadRequest, new_request_id
from pushd.server.eventsource_retry import EventSourceRetry, Field
from pushd.wire import json_line

__all__ = ["Refusal", "fields_of", "http_date", "refusal"]

_SHARED = (
    b"vary",
    b"access-control-allow-origin",
    b"access-control-expose-headers",
    b"access-control-allow-credentials",
)
"""The CORS headers, by which a page can read the response."""


@lru_cache(1)
def http_date(time_s: int) -> bytes:
    """Return `time_s`, in seconds since 1970, as the value of ``Date`` (RFC 9110, section 6.6.1)."""
    date: bytes = datetimeToString(time_s)
    return date


def fields_of(refused: Refused) -> list[Field]:
    """Return the header fields that a refusal of this kind requires besides those of its body."""
    fields = []
    if isinstance(refused, Unauthorized):
        fields.append((b"www-authenticate", _challenge(refused)))
    if isinstance(refused, WrongMethod):
        fields.append((b"allow", ", ".join(refused.allowed).encode("ascii")))
    if refused.retry_s is not None:
        fields.append((b"retry-after", b"%d" % ceil(refused.retry_s)))  # whole seconds: RFC 9110, section 10.2.3
    return fields


def _challenge(refused: Unauthorized) -> bytes:
    """Return the value of ``WWW-Authenticate`` (RFC 6750, section 3)."""
    if not refused.is_token_wrong:
        return b'Bearer realm="pushd"'
    why = re.sub(r"[^ !#-[\]-~]", "'", refused.detail)
    return f'Bearer realm="pushd", error="invalid_token", error_description="{why}"'.encode("ascii")


class Head(Protocol):
    """The head of a request."""

    @property
    def method(self) -> bytes:
        """Such as ``GET``."""

    @property
    def target(self) -> bytes:
        """The path and the query."""

    def values(self, name: bytes) -> Sequence[bytes]:
        """Return the values of a header field."""


@record()
class Refusal:
    """A response to a refused request, with its log entry."""

    status: int
    """The status sent; 200 if the refusal is sent inside a stream."""

    reason: str
    """Its reason phrase."""

    fields: list[Field]
    """The header fields, with names in lower case."""

    body: bytes
    """The body: a problem document (RFC 9457), or a stream."""

    unread: UnreadRequest
    """The request and its true status, for the log."""


def refusal(
    refused: Refused,
    head: Head | None,
    comeback: EventSourceRetry,
    address: str,
    answered: Headers | None = None,
    *,
    is_head: bool = False,
) -> Refusal:
    """Return the response to a refused request from `address`; `head` is None if unknown.

    `answered` are the headers set so far; the CORS headers among them are kept.
    """
    request_id = new_request_id()
    method, target = (b"HEAD" if is_head else b"", b"") if head is None else (head.method, head.target)
    fields = [(b"server", b"pushd"), (b"date", http_date(int(time()))), (b"x-content-type-options", b"nosniff")]
    if answered is not None:
        fields += [(name, value) for name in _SHARED for value in answered.getRawHeaders(name, [])]
    if head is not None and comeback.is_for(refused, method, target, head.values):
        more, body = comeback.answer(refused, address, request_id)
        fields += more
        is_shared = answered is not None and answered.hasHeader(b"access-control-allow-origin")
        if not is_shared and (origins := head.values(b"origin")):
            fields += comeback.cors(origins[0].decode("ascii", "backslashreplace").lower())
        return Refusal(200, "OK", fields, body, UnreadRequest(method, target, refused, len(body), request_id))
    body = json_line({**refused.problem(), "request_id": request_id})
    fields += [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode("ascii")),
    ]
    if method != b"POST":
        fields.append((b"cache-control", b"no-store"))  # as `pushd.server.web.resource.answer` does
    fields += fields_of(refused)
    if method == b"HEAD":
        body = b""
    unread = UnreadRequest(method, target, refused, len(body), request_id)
    return Refusal(refused.status, refused.title, fields, body, unread)
