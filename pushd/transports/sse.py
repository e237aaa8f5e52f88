"""Server-Sent Events: ``GET /sse?channel=...`` (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from typing import ClassVar

from pushd.bus import CloseReason, Encoder, Pattern, StartPosition, Transport
from pushd.errors import BadRequest
from pushd.server import Request, RequestGuard, decoded, parameter, since_of, subscribed_patterns
from pushd.sessions import Admission, Session, SubscriberSession
from pushd.transports.http_stream import ResponseStream, StreamFormat
from pushd.transports.stream_endpoint import StreamEndpoint
from pushd.wire import json_bytes, sse_block, sse_event, sse_json_event, sse_line

__all__ = ["FORMAT", "ServerSentEvents"]


def _closing(reason: CloseReason) -> bytes:
    closed = sse_block(json_bytes({"detail": reason.text}).decode(), type="pushd.closed")
    return closed if reason.retry_s is None else f"retry: {int(reason.retry_s * 1000)}\n".encode() + closed


FORMAT = StreamFormat(b"text/event-stream", b":\n", _closing)
"""A heartbeat is a comment without an empty line: at one, some parsers dispatch an event without data."""

_ALIASES = ("lastEventId", "lastEventID", "last-event-id", "Last-Event-ID")
_ENCODED_ALIASES = tuple(name.encode("ascii") for name in _ALIASES)
"""Query parameters that clients use if they cannot send the header ``Last-Event-ID``."""


class ServerSentEvents(StreamEndpoint):
    """An event stream of the channels in the query.

    The stream starts with an event ``pushd.open``, whose id is the position: a client that loses the connection
    before its first event resumes from there. It has data, as some clients keep the id only of an event with data.
    If the requested position was lost, one ``pushd.gap`` follows, before the first event.

    With ``format=json``, the data of each event is the event as JSON, with its channel and type.
    """

    transport = Transport("sse")
    format = FORMAT
    parameters: ClassVar = {"GET": frozenset({"channel", "since", "format", *_ALIASES})}

    def __init__(self, guard: RequestGuard, admission: Admission, *, retry_s: float, heartbeat_s: float) -> None:
        """Set the reconnection delay of clients to `retry_s`, and send a heartbeat every `heartbeat_s` seconds."""
        super().__init__(guard, admission, heartbeat_s=heartbeat_s)
        self._shown_heartbeat = int(heartbeat_s) if heartbeat_s.is_integer() else heartbeat_s
        self._opening = f"retry: {int(retry_s * 1000)}\n".encode()

    def make_session(self, request: Request, body: ResponseStream) -> SubscriberSession:
        """Override: create a session that writes events to the body."""
        return Session(self._sessions, body, body.encoder(_ENCODERS[_format(request)]), request.caller)

    def first(self, request: Request, stream: ResponseStream, start: StartPosition, since: str) -> bytes:
        """Override: return ``pushd.open`` and, if needed, ``pushd.gap``; the client's backoff ends here."""
        request.comeback.succeeded(request.caller.address)
        opening = {
            "position": start.position,
            "recovered": start.recovered,
            "heartbeat": self._shown_heartbeat,
            "connection": request.caller.id,
        }
        first = self._opening + sse_line(json_bytes(opening), "pushd.open", start.position)
        if not start.recovered:
            first += sse_block(json_bytes({"since": since}).decode(), type="pushd.gap")
        return first

    def wanted(self, request: Request) -> tuple[list[Pattern], str]:
        """Override: the ``Last-Event-ID`` of a client that reconnects takes precedence over its query."""
        _format(request)
        return subscribed_patterns(request), _since(request)


_ENCODERS: dict[str, Encoder] = {"data": sse_event, "json": sse_json_event}


def _format(request: Request) -> str:
    """Return the format of the events; raise `BadRequest` if it is unknown."""
    text = parameter(request, "format") or "data"
    if text not in _ENCODERS:
        raise BadRequest(f"format is {text!r}; expected data or json", "format")
    return text


def _since(request: Request) -> str:
    """Return the start position: ``Last-Event-ID``, else its alias in the query, else ``since``, else ``latest``.

    The alias precedes ``since``, as a client appends it to the URL of its first connection. An invalid query is
    rejected even with the header.
    """
    in_query = since_of(request, "latest")
    aliases: list[bytes] = [value for name in _ENCODED_ALIASES for value in request.args.get(name, [])]
    if len(aliases) > 1:
        raise BadRequest(f"lastEventId appears {len(aliases)} times; expected once", "lastEventId")
    if aliases and aliases[0]:
        in_query = decoded(aliases[0], "lastEventId")
    header = request.requestHeaders.getRawHeaders(b"last-event-id")
    if not (header and header[-1]):
        return in_query
    try:
        return str(header[-1].decode())
    except UnicodeDecodeError:
        return str(header[-1].decode("latin-1"))  # the header encoding of clients that are not browsers
