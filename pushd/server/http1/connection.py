"""The HTTP/1.1 connection: twisted.web's channel with its own parser and write path, and the upgrade to WebSocket.

It uses private names of twisted.web, for want of a public seam; `tests/component/server/test_http1.py` pins each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import _ChunkedTransferDecoder, _MalformedChunkedDataError

from pushd.config import Timeouts
from pushd.errors import BadRequest, Refused, TimedOut, TooLarge
from pushd.server.http1.head import MAX_HEAD_BYTES, Head, check_trailers, is_start, malformed, parse_head
from pushd.server.http1.output import WritingChannel
from pushd.server.http1.timeouts import HEAD, NOTHING, ConnectionTimeouts
from pushd.server.net.connections import LAST_WORD_S, UpgradedProtocol, WireProtocol
from pushd.server.net.timers import TimerWheel
from pushd.server.net.turns import Turns
from pushd.server.problems import UnknownHead, refuse

__all__ = ["HTTP1"]

_LINGER_S = 5.0
"""How long a client may keep sending after its request was refused, before the connection is closed."""

_LINGER_BYTES = 8 * 1024 * 1024
"""How many bytes that client may send in that time; they are discarded."""

_SKIPPED_BYTES = 64 * 1024
"""The longest body of a refused request that is skipped, so that the connection stays open for the next request."""

_UNREAD_BYTES = 16 * 1024
"""How many bytes of pipelined requests are buffered while an earlier response is pending."""

_CHUNKS_BYTES = 4 * 1024
"""How many bytes of a chunked body are parsed before other connections get a turn: at most 700 chunks, 2 ms."""


class HTTP1(WritingChannel):
    """One HTTP/1.1 connection.

    Requests are served in order. Output written while the input buffer is parsed is sent in one piece once that
    buffer is empty: the responses to pipelined requests take one write.
    """

    abortTimeout = 5

    is_tunnel = False

    hand_to: Callable[[WireProtocol, bytes], None]
    """Hands the connection to another protocol, with the unread bytes as its first input."""

    timeOut = None
    """Twisted's timeout is used only while the connection closes."""

    turned_away: Refused | None = None
    """The response to the first request if the connection was rejected; None if it was accepted."""

    least_held_bytes = sys.maxsize
    """The smallest response that is counted while it is unread; see `pushd.server.http1.responses`."""

    def __init__(self, max_body_bytes: int, timeouts: Timeouts, wheel: TimerWheel) -> None:
        """Accept bodies of up to `max_body_bytes`; apply the timeouts of `timeouts`, with timers on `wheel`."""
        super().__init__()
        self._max_body_bytes = max_body_bytes
        self._watch = ConnectionTimeouts(self, timeouts, wheel)
        self._upgraded: WireProtocol | None = None
        self._discarded: int | None = None
        """How many bytes were discarded since a request was refused; None if none was refused."""
        self._unread = b""
        self._head: Head | None = None
        """The head of the request whose body is being received."""
        self._chunks: _ChunkedTransferDecoder | None = None
        self._missing_bytes = 0
        self._is_skipping = False
        """Whether the current body is discarded, because its request already has a response."""
        self._is_deferred = self._has_several = self._is_lost = self._is_last = False
        """`_is_deferred`: parsing continues in a later turn. `_has_several`: pipelined requests share this turn.
        `_is_last`: the next request is the last one."""

    def connectionMade(self) -> None:
        """Override: called when the connection is established."""
        super().connectionMade()
        self._watch.sees(NOTHING)

    # Requests refused before they are complete

    @property
    def body_bytes(self) -> int:
        """How many bytes of the current body have been received."""
        request: Any = self.requests[-1] if self.requests else None
        return 0 if request is None else int(request.body_size)

    def refuse(self, refused: Refused) -> None:
        """Send `refused` as the response; the rest of the current body is discarded."""
        self._refuse(refused)

    def too_slow(self, refused: TimedOut) -> None:
        """Called when a request timed out: send `refused`, or close if the request already has a response."""
        if self._is_skipping:
            self.timeoutConnection()
        else:
            self._refuse(refused)

    def idle(self) -> None:
        """Called when the idle timeout expires: close the connection."""
        self.timeoutConnection()

    def _refuse(self, refused: Refused, *, skips: bool = False) -> None:
        """Send `refused` as the response to an incomplete request, and discard the rest of its input.

        Closing while the client is sending would reset the connection, and the client might never see the response
        (RFC 9112, section 9.6). With `skips`, the connection stays open after the rest of a short body.
        """
        if self._discarded is not None or self.transport is None:
            return
        self._drop_bodies()
        request: Any = self.requests.pop() if self.requests else None
        shared = None if request is None else request.responseHeaders
        answer, unread = refuse(self.site, refused, self._head or UnknownHead(), self.info, shared)
        if refused is not self.turned_away:
            self.site.request_log.refused(unread, self.info.place.name)
        fields = answer.fields if skips else [*answer.fields, (b"connection", b"close")]
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}".encode("ascii")]
        lines += [b"%b: %b" % (name.title(), value) for name, value in fields]
        if request is not None:
            request.connectionLost(Failure(ConnectionDone("refused")))
        self._is_skipping = skips
        if skips:
            self.write(b"\r\n".join(lines) + b"\r\n\r\n" + answer.body)
            return
        self._discarded = 0
        self._watch.pause()
        self.write(b"\r\n".join(lines) + b"\r\n\r\n" + answer.body)
        self.setTimeout(_LINGER_S)

    def _drop_bodies(self) -> None:
        for request in self.requests:
            request.drop_body()

    def _discard(self, data: bytes) -> None:
        self._discarded = (self._discarded or 0) + len(data)
        if self._discarded > _LINGER_BYTES:
            self.loseConnection()

    def timeoutConnection(self) -> None:
        """Override: called when a timeout expires. Close, or abort if the client does not read its output."""
        if self._abortingCall is None:
            self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)
        self.loseConnection()

    def end(self) -> None:
        """Close the connection once its output is sent; abort it if the client does not read that output."""
        self.setTimeout(_LINGER_S)
        self.loseConnection()

    def finish(self) -> None:
        """Drain the connection: close it after the response to the current request, or to one in flight.

        If the connection just closed, the client could not know whether a request in flight was processed
        (RFC 9112, section 9.6).
        """
        self._is_last = True
        if self.requests:
            self.persistent = False
        else:
            self.setTimeout(LAST_WORD_S)

    def abort(self) -> None:
        """Abort the connection; unsent output is lost."""
        transport = ITCPTransport(self.transport, None)
        if transport is not None:
            transport.abortConnection()

    def upgrade(self, protocol: UpgradedProtocol, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Send ``101`` with `fields` as the response to the current request, and hand the connection to `protocol`.

        Called from the request's ``render`` or later; the request is dropped (RFC 9110, section 7.8).
        """
        assert self.transport is not None
        self._watch.end()
        self.requests.clear()
        self._networkProducer.unregisterProducer()  # type: ignore[attr-defined]
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade"]
        lines += [b"%b: %b" % field for field in fields]
        self._unsent.append(b"\r\n".join(lines) + b"\r\n\r\n")
        self._flush()
        self._upgraded = protocol
        self._networkProducer.resumeProducing()  # paused if the request waited for its response
        unread, self._unread = self._unread, b""
        self.hand_to(protocol, unread)

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Override: called when bytes are received."""
        if self._discarded is not None:
            self._discard(data)
            return
        self._unread += data
        self._read()
        if (self._has_to_wait or self._is_deferred) and len(self._unread) > _UNREAD_BYTES:
            self._networkProducer.pauseProducing()

    @property
    def _has_to_wait(self) -> bool:
        return self._handlingRequest or self._waitingForTransport

    def _read(self) -> None:
        """Parse the input buffer, until a response is pending or the turn is over."""
        if self._is_reading or self._is_deferred:
            return
        self._is_reading = True
        try:
            while self._unread and not self._has_to_wait:
                is_between = self._head is None or self._chunks is not None
                if self._has_several and is_between and not self._turns.may_go_on():
                    self._defer()
                    break
                if not self._read_some():
                    break
        finally:
            self._is_reading = self._has_several = False
            self._flush()
        if not self._handlingRequest and self._discarded is None and not self._is_deferred:
            self._watch.sees(self._awaited)

    @property
    def _turns(self) -> Turns:
        turns: Turns = self.site.turns
        return turns

    def _defer(self) -> None:
        """Continue in a later turn of the reactor, so that other connections are not starved."""
        self._is_deferred = True
        if self._head is None:  # else a body is being received, whose timeout covers the whole body
            self._watch.pause()  # the delay is not the client's
        self._turns.later(self._go_on, self.abort)

    def _go_on(self) -> None:
        self._is_deferred = False
        if self._upgraded is not None or self._is_lost:
            return
        self._turns.begin()
        self._has_several = True
        self._read()
        if not (self._has_to_wait or self._is_deferred or self._is_lost or self._upgraded):
            self._networkProducer.resumeProducing()

    @property
    def _awaited(self) -> object:
        """The input that the timeouts wait for; pipelined input does not count."""
        if self._head is not None:
            return self._head
        return HEAD if self._unread and not self._waitingForTransport else NOTHING

    def _read_some(self) -> bool:
        """Parse a head or part of a body; return False if the buffered input allows no more."""
        if self._head is None:
            return bool(self.persistent) and self._read_head()
        if self._chunks is not None:
            data, self._unread = self._unread[:_CHUNKS_BYTES], self._unread[_CHUNKS_BYTES:]
            if self._unread and not self._has_several:
                self._turns.begin()
                self._has_several = True
            try:
                self._chunks.dataReceived(data)
            except _MalformedChunkedDataError:
                self._refuse(malformed())
        else:
            data, self._unread = self._unread[: self._missing_bytes], self._unread[self._missing_bytes :]
            self._missing_bytes -= len(data)
            if not self._is_skipping:
                self.requests[-1].handleContentChunk(data)
            if not self._missing_bytes:
                self._run()
        return self._discarded is None

    def _read_head(self) -> bool:
        unread = self._unread
        start = 2 if unread.startswith(b"\r\n") else 0  # an empty line before the request: RFC 9112, section 2.2
        end = unread.find(b"\r\n\r\n", start)
        if end < 0:
            line, line_end, _ = unread[start : MAX_HEAD_BYTES + 1].partition(b"\r\n")
            if len(unread) > MAX_HEAD_BYTES or (line_end and not is_start(line)):
                self._refuse(malformed())
            return False
        try:
            if end > MAX_HEAD_BYTES:
                raise malformed()
            head = parse_head(unread[start:end])
        except BadRequest as refused:
            self._refuse(refused)
            return False
        self._unread = unread[end + 4 :]
        self._begin(head)
        return self._discarded is None

    def _begin(self, head: Head) -> None:
        """Start the request with `head`, and run it at once if its body is already buffered."""
        request: Any = self.requestFactory(self)
        request.requestHeaders = head.fields
        self.requests.append(request)
        self._watch.what = None
        self._head = head
        if self.turned_away is not None:
            self._refuse(self.turned_away)
            return
        if self._is_last:
            self.setTimeout(None)
        if head.closes or self._is_last:
            self.persistent = False
        length = head.length
        if length is not None and length <= self._max_body_bytes and length <= len(self._unread):
            if length:
                request.take_body(self._unread[:length])
                self._unread = self._unread[length:]
            else:
                request.gotLength(0)
            self._run()
            return
        request.gotLength(length)
        if length is None:
            self._chunks = _ChunkedTransferDecoder(request.handleContentChunk, self._chunks_ended)
        else:
            self._missing_bytes = length
        request.expect(head.method, head.target, head.version, length, partial(self._expected, head))

    def _expected(self, head: Head, refused: Refused | None) -> None:
        """Called when the head is accepted or `refused`; ignored if the request has a response by now."""
        if self._head is not head or self._is_skipping or self._discarded is not None:
            return
        if refused is not None:
            is_short = 0 < (head.length or 0) <= _SKIPPED_BYTES and not isinstance(refused, TooLarge)
            self._refuse(refused, skips=is_short and bool(self.persistent) and not head.expects_continue)
        elif head.expects_continue:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _chunks_ended(self, rest: bytes) -> None:
        self._unread = rest + self._unread
        try:
            check_trailers(self._chunks._trailerHeaders if self._chunks is not None else [])
        except BadRequest as refused:
            self._refuse(refused)
        self._run()

    def _run(self) -> None:
        """Process the current request, which is complete, unless it was refused meanwhile."""
        head, self._head, self._chunks = self._head, None, None
        is_skipped, self._is_skipping = self._is_skipping, False
        if self._discarded is not None or head is None or is_skipped:
            return
        if self._unread and not self._has_several:
            self._turns.begin()
            self._has_several = True
        self._handlingRequest = True
        self.requests[-1].requestReceived(head.method, head.target, head.version)
        if self._handlingRequest and self._upgraded is None:
            self._watch.pause()  # no timeout while the response is pending

    def requestDone(self, request: object) -> None:
        """Override: called when a response is complete."""
        del self.requests[0]
        self._handlingRequest = False
        if self._head is not None:  # while its body is still being received: a resource has failed
            self._discarded = 0
            self._watch.pause()
            self._flush()
            self.setTimeout(_LINGER_S)
        elif not self.persistent:
            self.loseConnection()
        elif not self._is_reading:
            if not (self._waitingForTransport or self._is_deferred):
                self._networkProducer.resumeProducing()
            self._flush()
            self._read()

    def resumeProducing(self) -> None:
        """Override: called when the client reads again."""
        super().resumeProducing()
        self._read()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: called when the connection is lost."""
        self._is_lost = True
        self._watch.end()
        self._drop_bodies()
        super().connectionLost(reason)
