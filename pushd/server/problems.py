"""The responses to refused requests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil
from time import time
from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger
from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers

from pushd.bus import record
from pushd.errors import Refused, Unauthorized, WrongMethod
from pushd.server.access_log import UnreadRequest, log_refusal, new_request_id
from pushd.server.eventsource_retry import EventSourceRetry, Field
from pushd.server.interfaces import AtSite
from pushd.server.net.connection_info import ConnectionInfo
from pushd.wire import json_line

if TYPE_CHECKING:
    from pushd.server.request import Request

__all__ = [
    "Response",
    "UnknownHead",
    "answer_fault",
    "answer_problem",
    "document",
    "http_date",
    "refuse",
    "response_to",
    "unlogged_problem",
]

_log = Logger(namespace="pushd.server.web.resource")  # operators filter by it

_FAULT: dict[str, object] = {
    "title": "Internal Server Error",
    "status": 500,
    "code": "internal_error",
    "detail": "a fault in pushd; see its log",
}
"""The problem document sent for an internal error."""

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
    """The head of a request: of either version of HTTP, or a `pushd.server.request.Request`."""

    @property
    def method(self) -> bytes:
        """Such as ``GET``."""

    @property
    def target(self) -> bytes:
        """The path and the query."""

    def values(self, name: bytes) -> Sequence[bytes]:
        """Return the values of a header field."""


@record()
class UnknownHead:
    """The head of a request that was not parsed."""

    method: bytes = b""
    """``HEAD`` if the response must have no body, else empty."""

    @property
    def target(self) -> bytes:
        """Nothing: it is unknown."""
        return b""

    def values(self, name: bytes) -> Sequence[bytes]:
        """Return nothing: the fields are unknown."""
        return ()


@record()
class Response:
    """The response to a refused request."""

    status: int
    """The status sent; 200 if the refusal is sent inside a stream."""

    reason: str
    """Its reason phrase."""

    fields: list[Field]
    """The header fields, with names in lower case."""

    body: bytes
    """The body: a problem document (RFC 9457), or a stream."""


def document(members: Mapping[str, object], request_id: str, method: bytes) -> tuple[list[Field], bytes]:
    """Return the header fields and the body of a problem document (RFC 9457) with these `members`."""
    body = json_line({**members, "request_id": request_id})
    fields = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode("ascii")),
    ]
    if method != b"POST":
        fields.append((b"cache-control", b"no-store"))  # responses to POST are not cached anyway
    return fields, body


def response_to(
    refused: Refused, request_id: str, head: Head, comeback: EventSourceRetry, address: str
) -> Response:
    """Return the response to a refused request from `address`.

    It is a problem document; an ``EventSource`` gets its retry delay in a stream, as an error would end it.
    """
    if comeback.is_for(refused, head.method, head.target, head.values):
        return Response(200, "OK", *comeback.answer(refused, address, request_id))
    fields, body = document(refused.problem(), request_id, head.method)
    return Response(refused.status, refused.title, fields + fields_of(refused), body)


def refuse(
    site: AtSite, refused: Refused, head: Head, info: ConnectionInfo, answered: Headers | None = None
) -> tuple[Response, UnreadRequest]:
    """Count a request that is refused before it is complete; return the response, and what is logged.

    `answered` are the headers set so far; the CORS headers among them are kept.
    """
    site.counters.refuse(refused)
    request_id = new_request_id()
    response = response_to(refused, request_id, head, site.comeback, info.place.address)
    fields = [(b"server", b"pushd"), (b"date", http_date(int(time()))), (b"x-content-type-options", b"nosniff")]
    if answered is not None:
        fields += [(name, value) for name in _SHARED for value in answered.getRawHeaders(name, [])]
    fields += response.fields
    is_shared = answered is not None and answered.hasHeader(b"access-control-allow-origin")
    if response.status == 200 and not is_shared and (origins := head.values(b"origin")):
        fields += site.comeback.cors(origins[0].decode("ascii", "backslashreplace").lower())
    body = b"" if head.method == b"HEAD" else response.body
    unread = UnreadRequest(head.method, head.target, refused, len(body), request_id)
    return Response(response.status, response.reason, fields, body), unread


def answer_problem(request: Request, refused: Refused) -> bytes:
    """Count and log a refusal, in the access log if there is one; return the response."""
    if request.access_record is not None:
        request.access_record.detail = refused.detail
    else:
        log_refusal(_log, refused, request.method, request.path, request.sender_name, request.request_id)
    request.counters.refuse(refused)
    return unlogged_problem(request, refused)


def unlogged_problem(request: Request, refused: Refused) -> bytes:
    """Return the response to a refused request without logging or counting it."""
    response = response_to(refused, request.request_id, request, request.comeback, request.sender_address)
    request.setResponseCode(response.status, response.reason.encode("ascii"))
    if response.status != refused.status:
        request.true_status = refused.status
    for name, value in response.fields:
        request.setHeader(name, value)
    return response.body


def answer_fault(request: Request) -> bytes:
    """Return the response to a request at which pushd failed: no details, which the log has."""
    fields, body = document(_FAULT, request.request_id, b"")
    request.setResponseCode(500)
    for name, value in fields:
        request.setHeader(name, value)
    return body
