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
    None: by default ``default_retry_s`` of the class.
    """

    status = 400
    title = "Bad Request"
    default_retry_s: ClassVar[float | None] = None

    def __init__(self, detail: str, field: str | None = None, retry_s: float | None = None) -> None:
        """Set `detail`, shortened to `_MAX_DETAIL` characters because it may quote the client."""
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
        members: dict[str, object] = {"title": self.title, "status": self.status, "detail": self.detail}
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

    def __init__(self, detail: str, field: str | None = None, *, is_token_wrong: bool = False) -> None:
        """Set `detail`; `is_token_wrong` means that the request has an invalid token, rather than none."""
        super().__init__(detail, field)
        self.is_token_wrong = is_token_wrong


class Forbidden(Refused):
    """The client does not have the permission."""

    status = 403
    title = "Forbidden"


class NotFound(Refused):
    """The channel, event or page does not exist."""

    status = 404
    title = "Not Found"


class WrongMethod(Refused):
    """The method is not allowed for the resource; ``allowed`` names the methods that are."""

    status = 405
    title = "Method Not Allowed"

    def __init__(self, detail: str, allowed: tuple[str, ...]) -> None:
        super().__init__(detail)
        self.allowed = allowed


class TimedOut(Refused):
    """The request was not complete in time."""

    status = 408
    title = "Request Timeout"


class Conflict(Refused):
    """The request conflicts with the current state."""

    status = 409
    title = "Conflict"


class TooLarge(Refused):
    """The content exceeds a limit in bytes."""

    status = 413
    title = "Content Too Large"


class Unprocessable(Refused):
    """The request is well-formed but conflicts with an earlier event (RFC 9110, section 15.5.21)."""

    status = 422
    title = "Unprocessable Content"


class HeadTooLarge(Refused):
    """The header fields of a request exceed their limit in bytes."""

    status = 431
    title = "Request Header Fields Too Large"


class UpgradeNeeded(Refused):
    """The resource requires a WebSocket handshake."""

    status = 426
    title = "Upgrade Required"


class TooMany(Refused):
    """One address or user exceeds its share or its rate limit (RFC 6585, section 4)."""

    status = 429
    title = "Too Many Requests"


class Unknown(Refused):
    """The protocol is not supported."""

    status = 501
    title = "Not Implemented"


class Unavailable(Refused):
    """The daemon has reached a limit or cannot serve the request now; ``retry_s`` is always set."""

    status = 503
    title = "Service Unavailable"
    default_retry_s = 5.0


class OutOfMemory(Unavailable):
    """There is not enough memory for the request."""

    default_retry_s = 10.0

    def __init__(self) -> None:
        super().__init__(NO_MEMORY)


class VersionNeeded(Refused):
    """The request needs another version of HTTP."""

    status = 505
    title = "HTTP Version Not Supported"


class NoRoom(Refused):
    """The disk is full (RFC 4918, section 11.5)."""

    status = 507
    title = "Insufficient Storage"
    default_retry_s = 30.0
