"""Every error that pushd raises on purpose.

::

    PushdError
    ├── ConfigError             the ini file is wrong; names the place and what was wanted
    ├── Refused                 a client asked for something that it cannot have
    │   ├── BadRequest    400   the request itself is wrong; names the field
    │   ├── Unauthorized  401   not granted to who has no valid token
    │   ├── Forbidden     403   not granted
    │   ├── NotFound      404   no such channel, event or page
    │   ├── WrongMethod   405   the resource does not know the method
    │   ├── TimedOut      408   the request was not complete in time
    │   ├── Conflict      409   the request contradicts what the client has set
    │   ├── TooLarge      413   over a limit in bytes
    │   ├── Unprocessable 422   the id belongs to an event with other content
    │   ├── UpgradeNeeded 426   a WebSocket handshake was wanted
    │   ├── TooMany       429   over a limit of one address or user
    │   ├── HeadTooLarge  431   the header fields are over a limit in bytes
    │   ├── Unknown       501   a protocol that is not spoken
    │   ├── Unavailable   503   over a limit of the daemon as a whole, the store does not work, or it stops
    │   │   └── OutOfMemory
    │   ├── VersionNeeded 505   another version of HTTP was wanted
    │   └── NoRoom        507   the disk is full
    └── StartFailed             a listener, a certificate or the store could not be had
"""

from __future__ import annotations

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
]


def one_line(text: str) -> str:
    """Escape what does not print, such as newlines and what commands a terminal."""
    if text.isprintable():
        return text
    return "".join(it if it.isprintable() else it.encode("unicode_escape").decode("ascii") for it in text)


NO_MEMORY = "there is not enough memory for this now; try again later"
"""What a client is told."""


_MAX_DETAIL = 600
"""How long a detail may be, in characters."""


class PushdError(Exception):
    """The root of the tree."""


class ConfigError(PushdError):
    """The configuration is wrong. Its text is one line for the operator."""


class StartFailed(PushdError):
    """The daemon cannot start. Its text is one line for the operator."""


class Refused(PushdError):
    """A client's request that is answered with an error.

    Its text is the ``detail`` of the answer: what was wrong and what was wanted. ``field`` names the part of
    the request that was wrong, if one was. ``retry_s`` is how long the client is asked to wait before it tries
    again, in seconds, if it is asked to: by default what its class says.
    """

    status = 400
    title = "Bad Request"
    default_retry_s: ClassVar[float | None] = None

    def __init__(self, detail: str, field: str | None = None, retry_s: float | None = None) -> None:
        """Say `detail`, shortened if it quotes too much of what came from outside."""
        if len(detail) > _MAX_DETAIL:
            detail = f"{detail[: _MAX_DETAIL // 2]} ... {detail[-_MAX_DETAIL // 2 :]}"
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.retry_s = self.default_retry_s if retry_s is None else retry_s

    def outcome(self) -> Self:
        """Return it to be kept among the outcomes of others.

        It forgets where it was raised, and from what: the frames there refer to the list that it is kept in, and
        only the garbage collector would free such a cycle.
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
    """The client has no right to this, and shows no token, or none that is valid (RFC 6750, section 3.1)."""

    status = 401
    title = "Unauthorized"

    def __init__(self, detail: str, field: str | None = None, *, is_token_wrong: bool = False) -> None:
        """Say `detail`; with `is_token_wrong`, of a token that was shown."""
        super().__init__(detail, field)
        self.is_token_wrong = is_token_wrong


class Forbidden(Refused):
    """The client has no right to this."""

    status = 403
    title = "Forbidden"


class NotFound(Refused):
    """There is no such thing."""

    status = 404
    title = "Not Found"


class WrongMethod(Refused):
    """The resource does not know the method; ``allowed`` names those that it knows."""

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
    """The request contradicts what is there."""

    status = 409
    title = "Conflict"


class TooLarge(Refused):
    """Something is over its limit in bytes."""

    status = 413
    title = "Content Too Large"


class Unprocessable(Refused):
    """The request is well-formed and contradicts what was published before (RFC 9110, section 15.5.21)."""

    status = 422
    title = "Unprocessable Content"


class HeadTooLarge(Refused):
    """The header fields of a request are over their limit in bytes."""

    status = 431
    title = "Request Header Fields Too Large"


class UpgradeNeeded(Refused):
    """A plain request where a WebSocket handshake was wanted."""

    status = 426
    title = "Upgrade Required"


class TooMany(Refused):
    """One address or user has too many of something, or wants it too often (RFC 6585, section 4)."""

    status = 429
    title = "Too Many Requests"


class Unknown(Refused):
    """A protocol that is not spoken."""

    status = 501
    title = "Not Implemented"


class Unavailable(Refused):
    """A limit of the daemon as a whole is reached, or it cannot do this now; it always says when to try again."""

    status = 503
    title = "Service Unavailable"
    default_retry_s = 5.0


class OutOfMemory(Unavailable):
    """There is no memory for what was asked for."""

    default_retry_s = 10.0

    def __init__(self) -> None:
        super().__init__(NO_MEMORY)


class VersionNeeded(Refused):
    """A request over a version of HTTP that cannot do what it asks for."""

    status = 505
    title = "HTTP Version Not Supported"


class NoRoom(Refused):
    """The disk is full (RFC 4918, section 11.5)."""

    status = 507
    title = "Insufficient Storage"
    default_retry_s = 30.0
