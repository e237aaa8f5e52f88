"""The access log: request ids, and one log line per request if enabled."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from pushd.errors import Refused

__all__ = ["RequestLog", "RequestRecord", "UnreadRequest", "log_refusal", "new_request_id"]

_log = Logger(namespace="pushd.requests")
_unread_log = Logger()

_ID = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")
"""The request ids accepted from a proxy; restricted because they are copied to the log and to headers."""

_LINE = "{status} {method} {path} from {peer}, {bytes} bytes in {duration_ms} ms, {request_id}"
_LINE_OF_USER = "{status} {method} {path} from {peer} as {user}, {bytes} bytes in {duration_ms} ms, {request_id}"


def new_request_id() -> str:
    """Return a unique request id."""
    return token_hex(8)


@dataclass(frozen=True, slots=True)
class UnreadRequest:
    """A request that was refused before it was complete."""

    method: bytes
    """Such as ``GET``; empty if unknown."""

    target: bytes
    """The path and the query, as received; empty if unknown."""

    refused: Refused
    """The reason."""

    size: int
    """The size of the response body, in bytes."""

    request_id: str
    """The request id in the response."""


class RequestRecord:
    """One request, logged when it ends."""

    __slots__ = ("_began_s", "_method", "_path", "_request_id", "_seconds", "detail")

    def __init__(self, method: bytes, path: bytes, request_id: str, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._began_s = seconds()
        self._method, self._path = method, path
        self._request_id = request_id
        self.detail: str | None = None
        """The reason of a refusal, if any."""

    def ended(self, status: int, size: int, peer: str, user: str | None) -> None:
        """Log the response: `status` and `size` bytes to `peer`. The query is omitted; it may contain secrets."""
        duration_s = self._seconds() - self._began_s
        _tell(status, self._method, self._path, peer, size, duration_s, self._request_id, user, self.detail)


class RequestLog:
    """Assigns request ids, and logs requests if enabled."""

    def __init__(self, is_wanted: bool, is_proxy: Callable[[IAddress], bool], seconds: Callable[[], float]) -> None:
        """Log requests if it `is_wanted`; accept request ids from an address that `is_proxy`."""
        self.is_wanted = is_wanted
        """Whether every request is logged."""
        self._is_proxy = is_proxy
        self._seconds = seconds

    def request_id(self, headers: Headers, peer: IAddress) -> str:
        """Return the ``X-Request-ID`` that a trusted proxy, `peer`, sent, or a new id."""
        values = headers.getRawHeaders(b"x-request-id", [])
        if len(values) == 1 and _ID.fullmatch(values[0]) and self._is_proxy(peer):
            return str(values[0].decode("ascii"))
        return new_request_id()

    def begin(self, method: bytes, path: bytes, request_id: str) -> RequestRecord:
        """Return the record that logs a request when it ends."""
        return RequestRecord(method, path, request_id, self._seconds)

    def refused(self, unread: UnreadRequest, peer: str) -> None:
        """Log a request of `peer` that was refused before it was complete."""
        refused, request_id = unread.refused, unread.request_id
        if self.is_wanted and unread.target:
            path, _, _ = unread.target.partition(b"?")
            _tell(refused.status, unread.method, path, peer, unread.size, 0.0, request_id, None, refused.detail)
        elif unread.target:
            path, _, _ = unread.target.partition(b"?")
            log_refusal(_unread_log, refused, unread.method, path, peer, request_id)
        else:
            text = "refused a request from {peer}: {detail} ({request_id})"
            _unread_log.info(text, peer=peer, detail=refused.detail, request_id=request_id)


def log_refusal(log: Logger, refused: Refused, method: bytes, path: bytes, peer: str, request_id: str) -> None:
    """Log to `log` that a request of `peer` was refused, if requests are not logged."""
    log.info(
        "{status} {method} {path} from {peer}: {detail} ({request_id})",
        status=refused.status,
        method=method.decode("ascii", "backslashreplace"),
        path=path.decode("ascii", "backslashreplace"),
        peer=peer,
        detail=refused.detail,
        request_id=request_id,
    )


def _tell(
    status: int,
    method: bytes,
    path: bytes,
    peer: str,
    size: int,
    duration_s: float,
    request_id: str,
    user: str | None,
    detail: str | None,
) -> None:
    line = _LINE if user is None else _LINE_OF_USER
    fields: dict[str, object] = {"user": user, "detail": detail}
    _log.info(
        line if detail is None else line + ": {detail}",
        status=status,
        method=method.decode("ascii", "backslashreplace"),
        path=path.decode("ascii", "backslashreplace"),
        peer=peer,
        bytes=size,
        duration_ms=round(duration_s * 1000, 1),
        request_id=request_id,
        **{name: value for name, value in fields.items() if value is not None},
    )
