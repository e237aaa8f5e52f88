"""The exceptions that pushd raises.

::

    PushdError
    ├── ConfigError             the ini file is wrong; names the option and what is expected
    ├── Refused                 a request of a client is rejected
    │   ├── BadRequest    400   the request itself is wrong; names the field
    │   ├── Unauthorized  401   not granted without a valid token
    │   ├── Forbidden     403   not granted
    │   ├── NotFound      404   no such channel, event or page
    │   ├── WrongMethod   405   the method is not allowed for the resource
    │   ├── TimedOut      408   the request was not complete in time
    │   ├── Conflict      409   the request conflicts with the state of the client
    │   ├── TooLarge      413   over a limit in bytes
    │   ├── Unprocessable 422   the id belongs to an event with other content
    │   ├── UpgradeNeeded 426   a WebSocket handshake is required
    │   ├── TooMany       429   over a limit of one address or user
    │   ├── HeadTooLarge  431   the header fields are over a limit in bytes
    │   ├── Unknown       501   an unsupported protocol
    │   ├── Unavailable   503   a limit of the whole daemon, a failing store, or a shutdown
    │   │   └── OutOfMemory
    │   ├── VersionNeeded 505   another version of HTTP is required
    │   └── NoRoom        507   the disk is full
    └── StartFailed             a listener, a certificate or the store is unusable
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from math import ceil
from typing import ClassVar, Self

__all__ = [
    "CODES",
    "NO_MEMORY",
    "BadRequest",
    "ConfigError",
    "Conflict",
    "Forbidden",
    "HeadTooLarge",
    "NoRoom",
    "NotFound",
    "OutOfMemory",
    "PushdError",
    "Refused",
    "StartFailed",
    "TimedOut",
    "TooLarge",
    "TooMany",
    "Unauthorized",
    "Unavailable",
    "Unknown",
    "Unprocessable",
    "UpgradeNeeded",
    "VersionNeeded",
    "WrongMethod",
    "one_line",
    "suggestion",
]


def one_line(text: str) -> str:
    """Return `text` with nonprintable characters escaped, such as newlines and terminal control codes."""
    if text.isprintable():
        return text
    return "".join(it if it.isprintable() else it.encode("unicode_escape").decode("ascii") for it in text)


def suggestion(name: str, known: Mapping[str, str]) -> str:
    """Return which of the `known` names an unknown `name` may mean, or all of them if none is similar.

    The mapping gives the form in which each name is shown.
    """
    nearest = get_close_matches(name[:64].lower(), known, 1)
    if nearest:
        return f"did you mean {known[nearest[0]]}?"
    return f"expected one of {', '.join(known.values())}" if known else "expected none"


NO_MEMORY = "there is not enough memory for this now; try again later"
"""The detail that a client gets with `OutOfMemory`."""


_MAX_DETAIL = 600
"""Maximum length of a detail, in characters."""


CODES: Mapping[str, tuple[int, str]] = {
    "bad_request": (400, "The request itself is wrong; ``field`` names the part."),
    "unauthorized": (401, "No right to do this without a token."),
    "token_invalid": (401, "The token is not valid."),
    "token_expired": (401, "The token or the client certificate has expired."),
    "not_allowed": (403, "No right to do this."),
    "not_found": (404, "There is no such channel, event or page."),
    "wrong_method": (405, "The resource does not have this method."),
    "timed_out": (408, "The request was not complete in time."),
    "conflict": (409, "The client has disabled what it asks for."),
    "too_large": (413, "The body, or an event, is over a limit in bytes."),
    "id_reused": (422, "The id is that of an event with other content."),
    "upgrade_required": (426, "The resource is for WebSocket handshakes."),
    "too_many": (429, "The address or user uses its share of something."),
    "rate_limited": (429, "The address or user does this too often."),
    "head_too_large": (431, "The header fields are over a limit in bytes."),
    "internal_error": (500, "A fault in pushd, which its log has."),
    "not_implemented": (501, "The protocol is not supported."),
    "unavailable": (503, "This cannot be served now."),
    "limit_reached": (503, "All clients together use all of something that the configuration limits."),
    "hook_down": (503, "The application that decides on this does not answer."),
    "keys_down": (503, "The keys to check the token with cannot be fetched."),
    "store_down": (503, "The store cannot be read or written, or is damaged."),
    "out_of_memory": (503, "There is not enough memory."),
    "shutting_down": (503, "The server is going away; another one may be there soon."),
    "version_required": (505, "Server push requires HTTP/2."),
    "store_full": (507, "The disk of the store is full."),
}
"""The codes of problem documents, each with its status and meaning."""


class PushdError(Exception):
    """Base class of all exceptions of pushd."""


class ConfigError(PushdError):
    """The configuration is wrong. Its text is one line for the operator."""


class StartFailed(PushdError):
    """The daemon cannot start. Its text is one line for the operator."""


class Refused(PushdError):
    """A request of a client that is rejected with an error response.

    Its text is the ``detail`` of the response: what was wrong and what is expected. ``field`` names the invalid
    part of the request, if there is one. ``retry_s`` is the time before the client may retry, in seconds, or
    None: by default ``default_retry_s`` of the class. ``code`` is one of `CODES`, for programs: ``detail`` may
    change.
    """

    status = 400
    title = "Bad Request"
    code = "bad_request"
    default_retry_s: ClassVar[float | None] = None

    def __init__(
        self, detail: str, field: str | None = None, retry_s: float | None = None, code: str | None = None
    ) -> None:
        """Set `detail`, shortened to `_MAX_DETAIL` characters because it may quote the client."""
        if code is not None:
            self.code = code
        if len(detail) > _MAX_DETAIL:
            detail = f"{detail[: _MAX_DETAIL // 2]} ... {detail[-_MAX_DETAIL // 2 :]}"
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.retry_s = self.default_retry_s if retry_s is None else retry_s

    def outcome(self) -> Self:
        """Return the exception without its traceback and context, to be stored in a list of outcomes.

        The frames of the traceback refer to that list: only the garbage collector would free such a cycle.
        """
        self.__traceback__ = self.__context__ = None
        return self

    def problem(self) -> dict[str, object]:
        """Return the members of the problem document (RFC 9457, section 3.1)."""
        members: dict[str, object] = {
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.field is not None:
            members["field"] = self.field
        if self.retry_s is not None:
            members["retry_after"] = ceil(self.retry_s)
        return members


class BadRequest(Refused):
    """The request itself is wrong."""


class Unauthorized(Refused):
    """The permission is missing, and so is a valid token (RFC 6750, section 3.1)."""

    status = 401
    title = "Unauthorized"
    code = "unauthorized"

    def __init__(
        self, detail: str, field: str | None = None, *, is_token_wrong: bool = False, code: str | None = None
    ) -> None:
        """Set `detail`; `is_token_wrong` means that the request has an invalid token, rather than none."""
        super().__init__(detail, field, code=code or ("token_invalid" if is_token_wrong else None))
        self.is_token_wrong = is_token_wrong


class Forbidden(Refused):
    """The client does not have the permission."""

    status = 403
    title = "Forbidden"
    code = "not_allowed"


class NotFound(Refused):
    """The channel, event or page does not exist."""

    status = 404
    title = "Not Found"
    code = "not_found"


class WrongMethod(Refused):
    """The method is not allowed for the resource; ``allowed`` names the methods that are."""

    status = 405
    title = "Method Not Allowed"
    code = "wrong_method"

    def __init__(self, detail: str, allowed: tuple[str, ...]) -> None:
        super().__init__(detail)
        self.allowed = allowed


class TimedOut(Refused):
    """The request was not complete in time."""

    status = 408
    title = "Request Timeout"
    code = "timed_out"


class Conflict(Refused):
    """The request conflicts with the current state."""

    status = 409
    title = "Conflict"
    code = "conflict"


class TooLarge(Refused):
    """The content exceeds a limit in bytes."""

    status = 413
    title = "Content Too Large"
    code = "too_large"


class Unprocessable(Refused):
    """The request is well-formed but conflicts with an earlier event (RFC 9110, section 15.5.21)."""

    status = 422
    title = "Unprocessable Content"
    code = "id_reused"


class HeadTooLarge(Refused):
    """The header fields of a request exceed their limit in bytes."""

    status = 431
    title = "Request Header Fields Too Large"
    code = "head_too_large"


class UpgradeNeeded(Refused):
    """The resource requires a WebSocket handshake."""

    status = 426
    title = "Upgrade Required"
    code = "upgrade_required"


class TooMany(Refused):
    """One address or user exceeds its share or its rate limit (RFC 6585, section 4)."""

    status = 429
    title = "Too Many Requests"
    code = "too_many"


class Unknown(Refused):
    """The protocol is not supported."""

    status = 501
    title = "Not Implemented"
    code = "not_implemented"


class Unavailable(Refused):
    """The daemon has reached a limit or cannot serve the request now; ``retry_s`` is always set."""

    status = 503
    title = "Service Unavailable"
    code = "unavailable"
    default_retry_s = 5.0


class OutOfMemory(Unavailable):
    """There is not enough memory for the request."""

    code = "out_of_memory"
    default_retry_s = 10.0

    def __init__(self) -> None:
        super().__init__(NO_MEMORY)


class VersionNeeded(Refused):
    """The request needs another version of HTTP."""

    status = 505
    title = "HTTP Version Not Supported"
    code = "version_required"


class NoRoom(Refused):
    """The disk is full (RFC 4918, section 11.5)."""

    status = 507
    title = "Insufficient Storage"
    code = "store_full"
    default_retry_s = 30.0
