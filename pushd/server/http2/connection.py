"""The HTTP/2 connection: from the transport to the streams and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pushd.bus import memory
from pushd.errors import HeadTooLarge, Refused, TooMany
from pushd.server.access_log import UnreadRequest
from pushd.server.http2 import priority
from pushd.server.http2.body_windows import BodyWindows
from pushd.server.http2.codec import Codec
from pushd.server.http2.context import Http2Context
from pushd.server.http2.early_answers import EarlyAnswers
from pushd.server.http2.errors import Code, ConnectionFault, StreamFault, code_name
from pushd.server.http2.head import Head
from pushd.server.http2.limits import Budgets
from pushd.server.http2.pace import Pace
from pushd.server.http2.promises import Promises, Told
from pushd.server.http2.receiver import Incoming
from pushd.server.http2.scheduler import Scheduler
from pushd.server.http2.stream import Stream
from pushd.server.http2.timeouts import ConnectionTimeouts
from pushd.server.http2.tunnel import Tunnel
from pushd.server.net.connection_info import ConnectionInfo
from pushd.server.net.connections import TwoWay
from pushd.server.net.timers import Timer
from pushd.server.net.writer import writer
from pushd.server.problems import UnknownHead

__all__ = ["HTTP2"]

_PASS_BYTES = 256 * 1024
"""How many bytes of DATA one pass writes before control returns to the reactor."""

_MAX_LOGGED = 10
"""The most refusals logged per connection."""

_CROWDED = 20
"""With more streams than this waiting for flow-control windows, even a short response without room is refused."""

_DRAIN_PING = b"pushd-go"
_UNREAD = TooMany("too many unread response bytes on this connection; read them first", retry_s=1)


@implementer(IPushProducer)
class HTTP2(TwoWay, Protocol):
    """One HTTP/2 connection: the `Listener` of the client's frames and the `StreamOwner` of its streams."""

    log = Logger()
    transport: Any

    def __init__(self, shared: Http2Context, turned_away: Refused | None = None) -> None:
        """Create a connection of the site of `shared`; `turned_away` refuses its first and only request."""
        self._shared = shared
        self._turned_away = turned_away
        self.site = shared.site
        self.encoder = shared.encoder
        self.answers = shared.answers
        self.codec = Codec(shared.limits, shared.memory)
        self.promises = Promises(self.codec)
        self._incoming = Incoming(self.codec, self, shared.limits, Budgets(shared.seconds))
        self.streams: dict[int, Stream] = {}
        """Streams whose responses are not fully sent."""
        self.scheduler: Scheduler[Stream] = Scheduler(shared.seconds, self._stream_failed)
        self._bodies = BodyWindows(shared.limits.held_body_bytes, self.codec.grant)
        self._watch = ConnectionTimeouts(self, shared.limits, shared.wheel, shared.seconds)
        self._flush_call: IDelayedCall | None = None
        self._unwanted = EarlyAnswers(self.codec, shared, self._flush_soon)
        self._linger: Timer | None = None
        self._is_busy = self._is_ended = self._is_draining = False
        self._takes_streams, self._logged = True, 0
        self.blocked_since: float | None = None
        """When the transport paused this producer; None while the transport accepts data."""

    # Protocol

    def connectionMade(self) -> None:
        """Override: called when the connection is made."""
        self._write = writer(self.transport).write
        self._pace = Pace(self._incoming, self.site.turns, self._take, self.transport)
        self._shared.connections.add(self)
        self.info = ConnectionInfo.of(self.transport, self.site.is_proxy)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._watch.begin()
        self.codec.start()
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        """Override: called when bytes arrive."""
        if not self._is_ended:
            self._pace.received(data)

    def _take(self) -> bool:
        """Process received bytes within this turn's budget; return whether all of them were processed."""
        is_all, self._is_busy = True, True
        if not self._is_ended:
            with self._faults_end_it():
                is_all = self._incoming.take(self.site.turns.may_go_on)
        self._is_busy = False
        self._flush()
        return is_all or self._is_ended

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: called when the connection is closed."""
        self._is_ended = True
        self._shared.connections.discard(self)
        if self._linger is not None:
            self._linger.cancel()
        if self._flush_call is not None and self._flush_call.active():
            self._flush_call.cancel()
        self._lose_streams(reason)
        for part in self._watch, self._unwanted, self._incoming, self._pace, self.scheduler, self.codec:
            part.end()
        del self._watch, self._incoming, self._pace  # break the reference cycles

    @contextmanager
    def _faults_end_it(self) -> Iterator[None]:
        """Close the connection on a fault of the client or of pushd; no exception reaches the reactor."""
        try:
            yield
        except ConnectionFault as fault:
            self.refused(f"{fault.code.name}: {fault}")
            self.close(fault.code, str(fault))
        except Exception:  # noqa: BLE001  half a connection must not live on
            if not memory.was_missed():
                self.log.failure("a fault in pushd, in an HTTP/2 connection with {peer}", peer=self.info.place.name)
            self.close(Code.INTERNAL_ERROR)

    def refused(self, detail: str, unread: UnreadRequest | None = None) -> None:
        """Log a refusal: of an `unread` request, or the one that `detail` describes."""
        if self._turned_away is not None:
            return  # logged where the connection was rejected
        if unread is not None and unread.target:
            self.site.request_log.refused(unread, self.info.place.name)
            return
        self._logged += 1
        if self._logged <= _MAX_LOGGED:
            self.log.info("refused over HTTP/2 from {peer}: {detail}", peer=self.info.place.name, detail=detail)
        elif self._logged == _MAX_LOGGED + 1:
            self.log.info("more was refused over HTTP/2 from {peer}", peer=self.info.place.name)

    @property
    def head_at_hand(self) -> int | None:
        """The number of the partly received header block; see `Incoming`."""
        return self._incoming.head_at_hand

    def is_held_up(self, stream: Stream) -> bool:
        """Return whether a request body may only continue once other bodies are complete."""
        return self._bodies.is_held_up(stream.stream_id)

    # Listener: received frames

    def request_received(self, stream_id: int, head: Head, is_ended: bool) -> None:
        """Start a request on a new stream."""
        stream = self._begin(stream_id, head.priority.urgency, Tunnel if head.protocol else Stream)
        if self._turned_away is not None or self.scheduler.unsent_bytes > self._shared.limits.max_unsent_bytes:
            self._refuse(stream, _UNREAD, head)
        else:
            stream.begin(head, is_ended)

    def _refuse(self, stream: Stream, refused: Refused, head: Head | UnknownHead) -> None:
        """Refuse a request; a rejected connection gets GOAWAY after it: httpx reads no response after GOAWAY."""
        stream.refuse(self._turned_away or refused, head)
        if self._turned_away is not None:
            self._is_draining, self._takes_streams = True, False

    def too_large_received(self, stream_id: int, is_head: bool) -> None:
        """Refuse a request whose header section is too large; it was not parsed."""
        limit = self._shared.limits.max_section_bytes
        refused = HeadTooLarge(f"the header fields are larger than {limit} bytes (RFC 9113, section 6.5.2)")
        head = UnknownHead(b"HEAD" if is_head else b"")
        self._refuse(self._begin(stream_id, priority.DEFAULT.urgency), refused, head)

    def _begin(self, stream_id: int, urgency: int, kind: type[Stream] = Stream) -> Stream:
        if not self._takes_streams:
            raise StreamFault(stream_id, Code.REFUSED_STREAM, "the connection is about to end")
        stream = self.streams[stream_id] = kind(self, stream_id, urgency)
        stream.began_at = self._shared.seconds()
        self._bodies.begun(stream_id)
        return stream

    def data_received(self, stream_id: int, data: bytes, size: int, is_ended: bool) -> None:
        """Receive part of a request body."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            stream.receive(data, is_ended)
            if not is_ended and not stream.is_tunnel:
                self._bodies.received(stream_id, size)

    def stream_failed(self, stream_id: int, code: int, why: str | None) -> None:
        """Called when a stream is reset."""
        if why is not None:
            self.refused(f"{code_name(code)}: {why}")
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._forget(stream)
            stream.lost(Failure(ConnectionLost(f"the stream was reset: {code_name(code)}")))
            self._end_if_drained()
        self.promises.was_reset(stream_id, code)

    def window_opened(self, stream_id: int) -> None:
        """Called when a flow-control window opens; stream 0 stands for all."""
        stream = self.streams.get(stream_id)
        if not stream_id:
            self.scheduler.all_opened()
        elif stream is not None:
            self.scheduler.opened(stream)

    def priority_received(self, stream_id: int, value: bytes) -> None:
        """Set the urgency of a response (RFC 9218, section 7)."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.scheduler.move(stream, priority.parse(value).urgency)

    def goaway_received(self, code: int) -> None:
        """Drain the connection: finish the open responses. Close at once if the client reports an error."""
        if code != Code.NO_ERROR:
            self.refused(f"the client ended the connection: {code_name(code)}")
            self.close(Code.NO_ERROR)
            return
        self._is_draining, self._takes_streams = True, False
        self._end_if_drained()

    def pong_received(self, payload: bytes) -> None:
        """Called when the client acknowledges a PING; it has read everything sent before that PING."""
        if payload == _DRAIN_PING and self._is_draining:
            self.drained()

    # StreamOwner: calls from the streams

    @property
    def is_crowded(self) -> bool:
        """Whether many responses wait for the client."""
        return self.scheduler.waiting > _CROWDED

    def wake(self, stream: Stream) -> None:
        """Schedule a stream to send its pending data."""
        self.scheduler.add(stream)
        self._flush_soon()

    def request_read(self, stream: Stream) -> None:
        """Called when a request is complete, or is not read further."""
        self._bodies.ended(stream.stream_id)

    def holds(self, stream: Stream, size: int) -> None:
        """Called when the unfinished messages of a stream hold `size` bytes."""
        self._bodies.holds(stream.stream_id, size)

    def reset(self, stream: Stream, code: Code) -> None:
        """Reset a stream."""
        if self.streams.get(stream.stream_id) is stream:
            self._forget(stream)
            self.codec.reset(stream.stream_id, code)
            stream.lost(Failure(ConnectionDone(f"the stream was reset: {code.name}")))
            self.promises.lost(stream.stream_id)
            self._flush_soon()

    def done(self, stream: Stream) -> None:
        """Called when a response is fully sent; the rest of its request is discarded."""
        self._forget(stream)
        self.promises.finished(stream.stream_id)
        self._unwanted.answered(stream.stream_id)

    def _stream_failed(self, stream: Stream) -> None:
        if not memory.was_missed():
            self.log.failure("a fault in pushd, in a response to {peer}", peer=self.info.place.name)
        self.reset(stream, Code.INTERNAL_ERROR)

    def _forget(self, stream: Stream) -> None:
        self.streams.pop(stream.stream_id, None)
        self.scheduler.discard(stream)
        self._bodies.ended(stream.stream_id)
        if not self.streams:
            self._watch.idle()

    def _lose_streams(self, reason: Failure) -> None:
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            self.scheduler.discard(stream)
            stream.lost(reason)
            self.promises.lost(stream.stream_id)
        self.promises.clear()

    def promise_room(self, parent: Stream) -> int:
        """Return how many promises a stream can make now; 0 if they could not be sent."""
        can = self.blocked_since is None and not self._is_draining and parent.stream_id in self.streams
        return self.promises.room if can else 0

    def promise(self, parent: Stream, block: bytes, told: Told) -> Stream:
        """Promise the response to the request in `block`; there must be room for it."""
        stream_id = self.codec.promise(parent.stream_id, block)
        stream = self.streams[stream_id] = Stream(self, stream_id, parent.urgency)
        self.promises.made(stream_id, told)
        self._flush_soon()
        return stream

    # Sending

    def _flush_soon(self) -> None:
        if self._flush_call is None and not self._is_busy and not self._is_ended:
            self._flush_call = self._shared.call_later(0, self._flush_now)

    def _flush_now(self) -> None:
        self._flush_call = None
        self._flush()

    def _flush(self) -> None:
        """Write the pending data of all streams in one call, within flow-control windows and back-pressure."""
        if self._is_ended or self._is_busy:
            return
        if self.blocked_since is not None:
            if self.codec.control_bytes > self._shared.limits.max_waiting_control_bytes:
                self.refused("ENHANCE_YOUR_CALM: the client does not read the replies to its frames")
                self.close(Code.ENHANCE_YOUR_CALM)
            return
        self._is_busy = True
        with self._faults_end_it():
            self.scheduler.run(_PASS_BYTES)
        self._is_busy = False
        if self._is_ended:
            return
        data = self.codec.take()
        if data:
            self._write(data)
        if self.scheduler.has_ready and self.blocked_since is None:
            self._flush_soon()
        if self.blocked_since is None:
            self.promises.wake()
        self._end_if_drained()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Pause sending: the transport's buffer is full."""
        if self.blocked_since is None:
            self.blocked_since = self._shared.seconds()

    def resumeProducing(self) -> None:
        """Resume sending: the transport has drained its buffer."""
        self.blocked_since = None
        self._flush()

    def stopProducing(self) -> None:
        """Called when the transport is gone; `connectionLost` follows."""

    # Closing

    def finish(self) -> None:
        """Shut down gracefully: close once open and in-flight requests are answered (RFC 9113, section 6.8)."""
        self._flush()  # final messages precede GOAWAY, on which undici closes the connection
        if self._is_draining or self._is_ended:
            return
        self._is_draining = True
        self.codec.goaway(Code.NO_ERROR, is_last=False)
        self.codec.ping(_DRAIN_PING)
        self._watch.draining()
        self._flush_soon()

    def drained(self) -> None:
        """Reject new requests: the client knows that the connection is about to close."""
        if self._takes_streams:
            self._takes_streams = False
            self.codec.goaway(Code.NO_ERROR)
            self._flush_soon()

    def _end_if_drained(self) -> None:
        if self._is_draining and not self._takes_streams and not self.streams and not self._is_busy:
            self.close(Code.NO_ERROR)

    def close(self, code: Code, text: str = "") -> None:
        """Send GOAWAY with the reason and close the connection; unsent stream data is dropped."""
        if self._is_ended:
            return
        self._is_ended = True
        self.codec.goaway(code, text)
        self._write(self.codec.take())
        self._lose_streams(Failure(ConnectionDone(f"the connection has ended: {code.name}")))
        self._watch.end()
        self.transport.unregisterProducer()  # else a TLS transport waits for the producer forever
        self.transport.loseConnection()
        self._linger = self._shared.wheel.call_in(self._shared.limits.linger_s, self.abort)

    def abort(self) -> None:
        """Abort the connection; bytes not yet sent are dropped."""
        self._is_ended = True
        self.transport.abortConnection()
