"""The base classes of pushd's HTTP resources, and functions that parse requests and build responses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import ClassVar
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from pushd.bus import Event, Pattern
from pushd.errors import BadRequest, NotFound, Refused, WrongMethod, suggestion
from pushd.server.problems import answer_problem
from pushd.server.request import LITTLE_BYTES, Request
from pushd.server.web.guard import RequestGuard
from pushd.wire import check_since, json_line

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_LIMIT",
    "Answering",
    "Branch",
    "Endpoint",
    "Missing",
    "answer",
    "answer_later",
    "answer_nothing",
    "decoded",
    "event_fields",
    "json_answer",
    "nothing_at",
    "parameter",
    "path_of_channel",
    "path_of_event",
    "since_of",
    "subscribed_patterns",
    "whole_number",
]


DEFAULT_LIMIT = 100
"""How many events or channels a response contains if the request sets no limit."""

MAX_LIMIT = 1000
"""The highest limit a request may set."""


def answer(request: Request, body: bytes, content_type: str = "application/json", status: int = 200) -> bytes:
    """Set the status and the headers of `body`, and return it; for use in ``render`` methods."""
    request.setResponseCode(status)
    request.setHeader(b"content-type", content_type.encode("ascii"))
    if request.method != b"POST" and not request.responseHeaders.hasHeader(b"cache-control"):
        request.setHeader(b"cache-control", b"no-store")  # responses to POST are not cached anyway
    request.setHeader(b"content-length", b"%d" % len(body))
    return body


def answer_later(request: Request, body: bytes) -> None:
    """Send the body of a response after its ``render`` method has returned, unless the client disconnected."""
    if not request.is_gone:
        request.write(body)
        request.finish()


def answer_nothing(request: Request) -> int:
    """Send ``204``, which has neither a body nor a length (RFC 9110, section 8.6)."""
    request.setResponseCode(204)
    request.finish()
    return NOT_DONE_YET


class Answering(Resource):
    """A resource with a ``render_METHOD`` for each method, and problem documents for errors.

    A method may raise `Refused`, which becomes the response. The steps before it, in order: `admit`, `check`,
    `charge`, `ask`.
    """

    parameters: ClassVar[Mapping[str, frozenset[str]] | None] = None
    """The query parameters that each method accepts; None accepts any."""

    _methods: ClassVar[tuple[str, ...]]
    _without_connect: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        """Override: collect the methods once per class instead of once per request."""
        super().__init_subclass__()
        names = {name.removeprefix("render_") for name in dir(cls) if name.startswith("render_")}
        cls._methods = tuple(sorted(names if "GET" in names else names - {"HEAD"}))
        cls._without_connect = tuple(name for name in cls._methods if name != "CONNECT")

    def render(self, request: Request) -> bytes | int:
        """Override: admit the request, at once or later, and call its method."""
        is_admitted = False
        try:
            waiting = self.admit(request)
            if waiting is None:
                is_admitted = True
                self.check(request)
                self.charge(request)
                waiting = self.ask(request)
                if waiting is None:
                    result: bytes | int = super().render(request)
                    return result
        except Refused as refused:
            return self.refuse(request, refused)
        rendered = Deferred.fromCoroutine(self._render_later(request, waiting, is_admitted=is_admitted))
        rendered.addErrback(partial(_fail, request))
        return NOT_DONE_YET

    async def _render_later(self, request: Request, waiting: Deferred[None], *, is_admitted: bool) -> None:
        """Continue a request once `waiting` fires: the guard's decision or, if it `is_admitted`, that of `ask`."""
        try:
            await waiting
            if not is_admitted and not request.is_gone:
                self.check(request)
                self.charge(request)
                asked = self.ask(request)
                if asked is not None:
                    await asked
            if request.is_gone:
                return
            result: bytes | int = super().render(request)
        except Refused as refused:
            if request.is_gone:
                return
            result = self.refuse(request, refused)
        if isinstance(result, bytes):
            answer_later(request, result)

    def expect(self, request: Request) -> Deferred[None] | None:
        """Decide from the head of a request, now or later, whether to read its body; raise `Refused` if not."""
        waiting = self.admit(request)
        if waiting is None:
            self._expect(request)
            return None
        return waiting.addCallback(lambda _: None if request.is_gone else self._expect(request))

    def _expect(self, request: Request) -> None:
        self.check(request)
        request.expects(self.body_limit(request))

    def body_limit(self, request: Request) -> int:
        """Return the most bytes that the body of an admitted request may have, or raise `Refused`."""
        return LITTLE_BYTES

    def refuse(self, request: Request, refused: Refused) -> bytes:
        """Return the response to a refused request."""
        return answer_problem(request, refused)

    def admit(self, request: Request) -> Deferred[None] | None:
        """Admit the request, now or when the Deferred fires, or raise `Refused`."""
        return None

    def charge(self, request: Request) -> None:
        """Count the request towards its rate limit, or raise `TooMany`."""

    def ask(self, request: Request) -> Deferred[None] | None:
        """Authorize a valid request elsewhere, such as by webhook, now or later; raise `Refused` if denied."""
        return None

    def check(self, request: Request) -> None:
        """Check the path, the method and the query parameters; raise `Refused` if one is invalid."""
        if self.isLeaf and request.postpath:
            raise nothing_at(request)
        method, known = request.method.decode("ascii", "backslashreplace"), self.methods(request)
        if method not in known:
            raise WrongMethod(f"{method} is not allowed; allowed: {', '.join(known)}", known)
        if self.parameters is None or method == "OPTIONS":  # OPTIONS has the query of the request it precedes
            return
        allowed = self.parameters.get(method.replace("HEAD", "GET"), frozenset())
        for name in request.args:
            shown = name.decode("utf-8", "backslashreplace")
            if shown not in allowed and shown != "access_token":  # checked by the guard
                hint = suggestion(shown, {it: it for it in sorted(allowed)})
                raise BadRequest(f"unknown query parameter {shown[:64]!r}; {hint}", shown[:64])

    def methods(self, request: Request) -> tuple[str, ...]:
        """Return the methods allowed for the request: CONNECT only on a stream that can become a tunnel."""
        if "CONNECT" in self._methods and not request.connection.is_tunnel:
            return self._without_connect
        return self._methods

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Override: return 404 for every path below, unless a subclass has children."""
        return Missing()


def _fail(request: Request, failure: Failure) -> None:
    request.processingFailed(failure)


class Endpoint(Answering):
    """One resource behind the request guard, which sets ``request.caller``."""

    isLeaf = True

    reads: ClassVar[frozenset[bytes]] = frozenset()
    """The methods that ``[limits] read_rate`` counts."""

    def __init__(self, guard: RequestGuard) -> None:
        """Serve the requests that `guard` admits."""
        super().__init__()
        self.guard = guard

    def charge(self, request: Request) -> None:
        """Override: count the methods in `reads`."""
        if request.method in self.reads:
            self.guard.charge_read(request.caller)

    def admit(self, request: Request) -> Deferred[None] | None:
        """Override: admit the request with the guard, and check it again once the body is complete."""
        return self.guard.readmit(request) if request.is_admitted else self.guard.admit(request)

    def render_OPTIONS(self, request: Request) -> int:
        """Send the allowed methods (RFC 9110, section 9.3.7); the guard has set the CORS headers."""
        request.setHeader(b"allow", ", ".join(self.methods(request)).encode("ascii"))
        return answer_nothing(request)


class Branch(Endpoint):
    """An endpoint with child resources."""

    isLeaf = False

    def child(self, segment: bytes) -> IResource:
        """Return the child resource at `segment`, or raise `Refused`."""
        raise NotImplementedError

    def take_more(self, segment: bytes, request: Request) -> bytes:
        """Return what `child` gets: `segment`, and those of ``postpath`` that this removes; or raise `Refused`."""
        return segment

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Override: return the child at `path`, or a `Problem` if `child` refuses it."""
        try:
            return self.child(self.take_more(path, request) if request.postpath else path)
        except Refused as refused:
            return Problem(self.guard, refused)


class Problem(Endpoint):
    """A resource that responds to every admitted request with the same problem."""

    def __init__(self, guard: RequestGuard, refused: Refused) -> None:
        super().__init__(guard)
        self._refused = refused

    def check(self, request: Request) -> None:
        """Override: refuse after admission, so that pages of an allowed origin can read the response."""
        raise self._refused


class Missing(Resource):
    """The resource at unknown paths."""

    isLeaf = True

    def expect(self, request: Request) -> Deferred[None] | None:
        """Refuse the request by its head."""
        raise nothing_at(request)

    def render(self, request: Request) -> bytes:
        """Override: return 404."""
        return answer_problem(request, nothing_at(request))


def nothing_at(request: Request) -> NotFound:
    """Return the error for an unknown path, with a hint about ``/`` in channel names."""
    path = request.path.decode("ascii", "backslashreplace")
    hint = (
        "; write / in a name as %2F, or put it into the query: /history?channel=NAME"
        if path.startswith("/channels/")
        else ""
    )
    return NotFound(f"there is nothing at {path}{hint}")


def decoded(value: bytes, name: str) -> str:
    """Decode `value` as UTF-8; raise `BadRequest`, which names the field `name`, if it is invalid."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{name} is not valid UTF-8", name) from None


def parameter(request: Request, name: str) -> str | None:
    """Return a query parameter, None if missing; raise `BadRequest` if it is repeated."""
    values: list[bytes] = request.args.get(name.encode("ascii"), [])
    if len(values) > 1:
        raise BadRequest(f"{name} appears {len(values)} times; expected once", name)
    return decoded(values[0], name) if values else None


def whole_number(request: Request, name: str, default: int, most: int) -> int:
    """Return a query parameter that is an integer from 1 to `most`, or `default`; raise `BadRequest` otherwise."""
    text = parameter(request, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise BadRequest(f"{name} is {text!r}; expected a number from 1 to {most}", name)
    return int(text)


def since_of(request: Request, default: str) -> str:
    """Return the position in ``since``, or `default`."""
    since = parameter(request, "since")
    return default if since is None else check_since(since)


def subscribed_patterns(request: Request) -> list[Pattern]:
    """Return the channels and patterns of a subscription, from ``channel``; at least one is required."""
    values: list[bytes] = request.args.get(b"channel", [])
    if not values:
        raise BadRequest("channel is missing; expected ?channel=NAME, once or more", "channel")
    return [Pattern.parse(decoded(value, "channel")) for value in values]


@lru_cache(1024)
def path_of_channel(name: str) -> str:
    """Return the path of the channel `name`."""
    return f"/channels/{quote(name, safe='')}"


def path_of_event(name: str, event_id: str) -> str:
    """Return the path of an event."""
    return f"{path_of_channel(name)}/events/{quote(event_id, safe='')}"


def event_fields(event: Event) -> list[tuple[bytes, bytes]]:
    """Return the response headers for the data of an event.

    The content type is plain text or bytes, so that published data never runs as a page of this origin.
    """
    fields = [(b"event-id", event.id.encode())]
    if event.position != event.id:
        fields.append((b"event-position", event.position.encode("ascii")))
    if event.type is not None:
        fields.append((b"event-type", event.type.encode()))
    kind = b"text/plain; charset=utf-8" if event.is_text else b"application/octet-stream"
    return [
        *fields,
        (b"cache-control", b"private, no-cache"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-type", kind),
        (b"content-length", b"%d" % len(event.data)),
    ]


def json_answer(
    request: Request, members: Mapping[str, object], status: int = 200, *, longest: bytes | str = b""
) -> bytes:
    """Return a JSON response with `members`; for `longest`, see `pushd.wire.json.json_bytes`."""
    return answer(request, json_line(members, longest), status=status)
