"""The HTTP/1.1 connection: twisted.web's, with a reading and a writing of its own and a way out to WebSocket.

It uses some of the private names of twisted.web: `tests/unit/server/test_http1.py` pins each.
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
from pushd.server.problems import refusal

__all__ = ["HTTP1"]

_LINGER_S = 5.0
"""How long a client whose request was refused may go on sending before the connection is closed."""

_LINGER_BYTES = 8 * 1024 * 1024
"""How much of what it still sends is read and thrown away."""

_SKIPPED_BYTES = 64 * 1024
"""How long the body of a request that was refused may be for the connection to go on behind it."""

_UNREAD_BYTES = 16 * 1024
"""How much may have come of requests that have to wait for the answer before theirs."""

_CHUNKS_BYTES = 4 * 1024
"""How much of a chunked body is read before others may have their turn: at worst 700 chunks, which take 2 ms."""


class HTTP1(WritingChannel):
    """One HTTP/1.1 connection.

    Requests are answered one after the other. What is written while they are read is sent when there is nothing
    more to read: the answer to a request, or to all that came together, goes out as one piece.
    """

    abortTimeout = 5

    site: Any
    """The `twisted.web.server.Site` that answers."""

    is_tunnel = False

    hand_to: Callable[[WireProtocol, bytes], None]
    """Has something else speak on this connection from now on, and take first what was not read."""

    timeOut = None
    """Twisted's time-out is used at the end of a connection only."""

    turned_away: Refused | None = None
    """The answer to the first request, if nothing is to be served."""

    least_held_bytes = sys.maxsize
    """The smallest answer that counts while it waits; see `pushd.server.http1.responses`."""

    def __init__(self, max_body_bytes: int, patience: Timeouts, wheel: TimerWheel) -> None:
        """Make a connection that takes bodies of up to `max_body_bytes`, and waits on `wheel` with `patience`."""
        super().__init__()
        self._max_body_bytes = max_body_bytes
        self._watch = ConnectionTimeouts(self, patience, wheel)
        self._upgraded: WireProtocol | None = None
        self._discarded: int | None = None
        """How much was thrown away since a request was refused; None if none was."""
        self._unread = b""
        self._head: Head | None = None
        """That of the request whose body is coming."""
        self._chunks: _ChunkedTransferDecoder | None = None
        self._missing_bytes = 0
        self._is_skipping = False
        """Whether the body that is coming is thrown away, because its request was answered."""
        self._is_deferred = self._has_several = self._is_lost = self._is_last = False
        """The last of these is true if the next request is the last one."""

    def connectionMade(self) -> None:
        """Override: the connection begins."""
        super().connectionMade()
        self._watch.sees(NOTHING)

    # Requests that are refused before they are read

    @property
    def body_bytes(self) -> int:
        """How much has come of the body that is coming."""
        request: Any = self.requests[-1] if self.requests else None
        return 0 if request is None else int(request.body_size)

    def refuse(self, refused: Refused) -> None:
        """Answer that the rest of the body that is coming is not read."""
        self._refuse(refused)

    def too_slow(self, refused: TimedOut) -> None:
        """Answer that the request did not come in time, unless it was answered already."""
        if self._is_skipping:
            self.timeoutConnection()
        else:
            self._refuse(refused)

    def idle(self) -> None:
        """Close: no request came for too long."""
        self.timeoutConnection()

    def _refuse(self, refused: Refused, *, skips: bool = False) -> None:
        """Answer a request that has not been read to its end, and throw away what still comes.

        If the connection were closed while the client is still sending, it would be reset, and the client
        might never see the answer (RFC 9112, section 9.6). If `skips`, no more comes than the rest of a short body,
        and the connection goes on behind that.
        """
        if self._discarded is not None or self.transport is None:
            return
        self._drop_bodies()
        request: Any = self.requests.pop() if self.requests else None
        shared = None if request is None else request.responseHeaders
        answer = refusal(refused, self._head, self.site.comeback, self.place.address, shared)
        if refused is not self.turned_away:
            self.site.request_log.refused(answer.unread, self.place.name)
        self.site.figures.refuse(refused)
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
        """Override: no request came for too long, or the client does not take what was written, or both."""
        if self._abortingCall is None:
            self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)
        self.loseConnection()

    def end(self) -> None:
        """Close the connection once everything is written, or at last when the client does not take it."""
        self.setTimeout(_LINGER_S)
        self.loseConnection()

    def finish(self) -> None:
        """Close the connection once the request at hand has been answered, or the one that is on its way.

        A client that knows nothing of the end may be sending it, and could not tell whether it was served if the
        connection just ended (RFC 9112, section 9.6).
        """
        self._is_last = True
        if self.requests:
            self.persistent = False
        else:
            self.setTimeout(LAST_WORD_S)

    def abort(self) -> None:
        """Close the connection now."""
        transport = ITCPTransport(self.transport, None)
        if transport is not None:
            transport.abortConnection()

    def upgrade(self, speaker: UpgradedProtocol, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Answer the request at hand with ``101`` and `fields`, and hand the connection to `speaker`.

        To be called from the ``render`` of the request, or later; nothing is kept of it (RFC 9110, section 7.8).
        """
        assert self.transport is not None
        self._watch.end()
        self.requests.clear()
        self._networkProducer.unregisterProducer()  # type: ignore[attr-defined]
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade"]
        lines += [b"%b: %b" % field for field in fields]
        self._unsent.append(b"\r\n".join(lines) + b"\r\n\r\n")
        self._flush()
        self._upgraded = speaker
        self._networkProducer.resumeProducing()  # the answer may have taken a while
        unread, self._unread = self._unread, b""
        self.hand_to(speaker, unread)

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Override: bytes have come."""
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
        """Take what has come, as far as it can be answered now and in this turn."""
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
        """Go on in a later turn: others have to have theirs."""
        self._is_deferred = True
        if self._head is None:  # else a body is coming, which has its time as a whole
            self._watch.pause()  # it is not the client that takes long
        self._turns.later(self._go_on)

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
        """What the client has to send next, for the watch. What it sent too early does not count."""
        if self._head is not None:
            return self._head
        return HEAD if self._unread and not self._waitingForTransport else NOTHING

    def _read_some(self) -> bool:
        """Read a head or some of a body; False if no more can be read of what has come."""
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
        start = 2 if unread.startswith(b"\r\n") else 0  # an empty line too much: RFC 9112, section 2.2
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
        """Begin a request, whose body is about to come if it has one."""
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
        """Read the body of the request with `head`, unless it is `refused`, or was answered meanwhile."""
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
        """Have the request answered: it is complete, unless it was refused meanwhile."""
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
            self._watch.pause()  # the answer may take as long as it likes

    def requestDone(self, request: object) -> None:
        """Override: a response is complete."""
        del self.requests[0]
        self._handlingRequest = False
        if self._head is not None:  # while its body comes: something has failed
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
        """Override: the client takes more again."""
        super().resumeProducing()
        self._read()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: the connection has ended."""
        self._is_lost = True
        self._watch.end()
        self._drop_bodies()
        super().connectionLost(reason)
