"""One HTTP/2 stream, which is the HTTP channel of a `twisted.web` request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IPullProducer, IPushProducer
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from pushd.errors import Refused, WrongMethod
from pushd.server.http2.errors import Code, StreamFault
from pushd.server.http2.head import Head
from pushd.server.http2.held_response import Holding
from pushd.server.http2.interfaces import StreamOwner
from pushd.server.http2.scheduler import Next, Outgoing
from pushd.server.http2.stream_promises import Promising
from pushd.server.net.connection_info import ConnectionInfo
from pushd.server.net.writer import Writer, writer
from pushd.server.problems import UnknownHead, refuse
from pushd.server.unread_responses import NOTHING, OVERHEAD_BYTES

__all__ = ["Stream"]

_HIGH_BYTES = 64 * 1024
"""The producer is paused above this many unsent bytes."""

_LOW_BYTES = 16 * 1024
"""The producer is resumed at this many unsent bytes or fewer."""

_MAX_DATA_BYTES = 64 * 1024
"""The largest DATA frame, if the client accepts frames of this size."""


class Stream(Promising, Holding):
    """One request and its response.

    Flags, all False at first:

    - `_is_read`: the request is complete or refused; its body is not read further.
    - `_has_head`: the response has its head; no other head is sent.
    - `_is_finished`: the response is complete; the stream ends once all of it is sent.
    - `_is_paused`: the producer is paused, see `_HIGH_BYTES`.
    - `_is_refused`: there was no room for the response; the stream is reset once it is complete.
    - `_is_lost`: the stream ended early; nothing more is sent.
    """

    __slots__ = (
        "_block",
        "_carrier",
        "_has_head",
        "_head",
        "_is_finished",
        "_is_lost",
        "_is_paused",
        "_is_read",
        "_producer",
        "_pull",
        "_request",
        "began_at",
        "outgoing",
        "received",
        "sent_bytes",
        "stream_id",
        "urgency",
        "waited_s",
    )

    transport = None  # twisted.web reads it
    is_tunnel = False  # see pushd.server.http2.tunnel
    has_input_ended = False  # when it has, the connection is lost

    def __init__(self, carrier: StreamOwner[Stream], stream_id: int, urgency: int) -> None:
        """Create the stream `stream_id` of `carrier`; call `begin` or `refuse` next."""
        self._carrier = carrier
        self.stream_id = stream_id
        self.urgency = urgency
        """The urgency of the response (RFC 9218), 0 (highest) to 7."""
        self.began_at = 0.0
        """When the request began; set by the connection."""
        self._block: bytes | None = None
        self._has_head = False
        self._head: Head | None = None
        self._request: Any = None
        self._is_read = self._is_refused = False
        self.received = 0
        """Bytes of the request body received so far."""
        self.outgoing = Outgoing()
        self.held = NOTHING
        self.sent_bytes = 0
        """Bytes sent so far of a held response."""
        self.waited_s = 0.0
        """How long the response has waited for the client; set by the connection's timeouts."""
        self._is_finished = False
        self._is_lost = False
        self._is_paused = False
        self._producer: IPushProducer | None = None
        self._pull: IPullProducer | None = None

    # The request

    @property
    def is_read(self) -> bool:
        """True once the request is complete or refused."""
        return self._is_read

    def begin(self, head: Head, is_ended: bool) -> None:
        """Start the request; `is_ended` means that it has no body."""
        self._head = head
        length = head.content_length
        if head.is_connect:
            self.refuse(WrongMethod("CONNECT: this server opens no tunnels", ("GET", "HEAD", "OPTIONS", "POST")))
            return
        request = self._request = self._carrier.site.requestFactory(self)
        for name, value in head.fields:
            request.requestHeaders.addRawHeader(name, value)
        request.gotLength(0 if is_ended else length)
        request.parseCookies()
        if is_ended:
            self._run()
        else:
            request.expect(head.method, head.path, b"HTTP/2", length, self._expected)

    def _expected(self, refused: Refused | None) -> None:
        """Called when the site accepts the request body, or has `refused` it."""
        if self._is_read or self._is_lost:
            return
        if refused is not None:
            self.refuse(refused)
        elif self._head is not None and self._head.expects_continue:
            self.inform(b"100", [])

    def receive(self, data: bytes, is_ended: bool) -> None:
        """Receive part of the request body; raise `StreamFault` if it does not match content-length."""
        if self._is_read:
            return
        self.received += len(data)
        length = None if self._head is None else self._head.content_length
        if length is not None and (self.received > length or (is_ended and self.received != length)):
            text = f"the body does not match content-length, {length} bytes (section 8.1.1)"
            raise StreamFault(self.stream_id, Code.PROTOCOL_ERROR, text)
        if data:
            self._request.handleContentChunk(data)
        if is_ended and not self._is_read:
            self._run()

    def _run(self) -> None:
        """Pass the complete request to the site."""
        assert self._head is not None
        self._set_read()
        self._request.requestReceived(self._head.method, self._head.path, b"HTTP/2")

    def _set_read(self) -> None:
        if not self._is_read:
            self._is_read = True
            self._carrier.request_read(self)

    def lost(self, reason: Failure) -> None:
        """Called when the stream ends early."""
        self._is_lost = self._is_finished = self._has_head = True
        self._block = None
        self.outgoing.clear()
        self.held.shrink(0)
        producer = self._producer or self._pull
        self._producer = self._pull = None
        request, self._request = self._request, None
        if producer is not None:
            producer.stopProducing()
        if request is not None:
            request.connectionLost(reason)

    # The connection interface that pushd's requests and sessions use

    def refuse(self, refused: Refused, head: Head | UnknownHead | None = None) -> None:
        """Refuse a request before its end (RFC 9113, section 8.1); by default, its `head` is that of `begin`."""
        request, self._request = self._request, None
        head, shared = head or self._head or UnknownHead(), getattr(request, "responseHeaders", None)
        answer, unread = refuse(self._carrier.site, refused, head, self.info, shared)
        self._carrier.refused(f"{refused.detail} ({unread.request_id})", unread)
        if request is not None:
            request.connectionLost(Failure(ConnectionDone("refused")))
        self.answer(b"%d" % answer.status, answer.fields, answer.body)

    @property
    def info(self) -> ConnectionInfo:
        """The facts of the connection."""
        return self._carrier.info

    def body_writer(self) -> Writer:
        """Return the writer for the rest of a response body."""
        return writer(self)

    def end(self) -> None:
        """Do nothing: the stream closes at the end of the response."""

    def finish(self) -> None:
        """Do nothing: the stream closes once the request is answered; see `end`."""

    def abort(self) -> None:
        """Reset the stream with CANCEL."""
        self._carrier.reset(self, Code.CANCEL)

    # Complete responses

    def answer(
        self, status: bytes, fields: Iterable[tuple[bytes, bytes]], body: bytes, *, is_held: bool = True
    ) -> None:
        """Send a complete response without involving the site.

        With `is_held`, it counts until the client has read it; otherwise the caller bounds its size.
        """
        self._begin_answer(status, fields)
        self._set_read()
        if body and (not is_held or self._hold(len(body))):
            self.outgoing.put(body)
        self.complete()

    def _begin_answer(self, status: bytes, fields: Iterable[tuple[bytes, bytes]]) -> None:
        encoder = self._carrier.encoder
        self._block = encoder[b":status", status] + encoder.fields(fields)
        self._has_head = True

    # The HTTP channel interface of twisted.web

    @property
    def site(self) -> Any:
        """The site that serves the request."""
        return self._carrier.site

    factory = site  # twisted.web logs requests through it

    def getPeer(self) -> IAddress:
        """Return the client's address."""
        return self._carrier.info.peer

    def getHost(self) -> IAddress:
        """Return the local address of the connection."""
        return self._carrier.info.host

    def isSecure(self) -> bool:
        """Return whether the connection is encrypted."""
        return self._carrier.info.is_secure

    def inform(self, status: bytes, fields: list[tuple[bytes, list[bytes]]]) -> None:
        """Send an informational response, such as 100 or 103, unless the final response has begun."""
        if not self._has_head and not self.is_pushed and self._carrier.codec.is_open(self.stream_id):
            block = self._carrier.encoder.response(status, fields)
            self._carrier.codec.send_headers(self.stream_id, block, is_ended=False, is_final=False)
            self._carrier.wake(self)

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Set the response head, unless it is set already."""
        if self._has_head:
            return
        if code == b"204":
            headers.removeHeader(b"content-length")  # RFC 9110, section 8.6
        self._block = self._carrier.encoder.response(code, headers.getAllRawHeaders())
        self._has_head = True
        self._carrier.wake(self)

    def write(self, data: bytes) -> None:
        """Append `data` to the response body; pause the producer above `_HIGH_BYTES`."""
        if self._is_finished or not data:
            return
        outgoing = self.outgoing
        outgoing.put(data)
        is_counted = self._producer is None and (self._pull is not None or not self.held.size)
        if is_counted and not self._hold(outgoing.size):
            return
        self._carrier.wake(self)
        if outgoing.size > _HIGH_BYTES and not self._is_paused and self._producer is not None:
            self._is_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """Append `pieces` to the response body."""
        self.write(b"".join(pieces))

    def requestDone(self, request: object) -> None:
        """Called when the response is complete."""
        self._request = None
        self.complete()

    def complete(self) -> None:
        """End the stream once everything is sent."""
        if self._is_refused:
            self._carrier.reset(self, Code.ENHANCE_YOUR_CALM)
            return
        self._is_finished = True
        self._carrier.wake(self)

    def loseConnection(self) -> None:
        """Called when the response cannot be completed; reset the stream."""
        self._carrier.reset(self, Code.INTERNAL_ERROR)

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Called when `twisted.web` cannot parse the body; it calls this private name on its channel."""
        self._carrier.reset(self, Code.PROTOCOL_ERROR)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Register the producer of the body: it pushes if `streaming`, else ``resumeProducing`` pulls."""
        if self._producer is not None or self._pull is not None:
            raise ValueError("the response has a producer already")
        if streaming:
            self._producer = producer
            self._is_paused = False
            self.held.shrink(0)  # a session, bounded by its outbox
        else:
            self._pull = producer
            self._carrier.wake(self)

    def unregisterProducer(self) -> None:
        """Remove the producer."""
        self._producer = self._pull = None

    # Sending

    def send(self, most: int) -> tuple[int, Next]:
        """Send up to `most` bytes of DATA; return the number of bytes sent and the next state."""
        codec, outgoing, stream_id = self._carrier.codec, self.outgoing, self.stream_id
        if 0 < (size := outgoing.size) <= most and self._is_plain and codec.fits(stream_id, size):  # fast path
            codec.send_data(stream_id, outgoing.take(size), is_ended=False)
            return size, Next.NOTHING
        sent = 0
        room = min(codec.room(stream_id), most)
        if self._pull is not None:
            self._fill(room if self._has_head else max(room, 1))
            if self._is_lost:
                return 0, Next.NOTHING
        if self._block is not None and not self._is_head_sent():
            return 0, Next.NOTHING
        if room > 0 and outgoing.size:
            frame_bytes = min(codec.max_data_bytes, _MAX_DATA_BYTES)
            while outgoing.size and sent < room:
                chunk = outgoing.take(min(frame_bytes, room - sent))
                sent += len(chunk)
                codec.send_data(stream_id, chunk, is_ended=self._is_finished and not outgoing.size)
        elif self._is_finished and not outgoing.size:
            codec.send_data(stream_id, b"", is_ended=True)
        if self.held.size:
            self.sent_bytes += sent
            self.held.shrink(outgoing.size + OVERHEAD_BYTES)
        if self._is_finished and not outgoing.size:
            self.done()
            return sent, Next.NOTHING
        if self._is_paused and outgoing.size <= _LOW_BYTES and self._producer is not None:
            self._is_paused = False
            self._producer.resumeProducing()
        return sent, self._next()

    @property
    def _is_plain(self) -> bool:
        """Whether only body bytes wait: the fast path of `send`, which saves the checks of the slow path."""
        return (
            self._block is None
            and self._pull is None
            and not self._is_finished
            and not self._is_paused
            and not self.held.size
        )

    def _is_head_sent(self) -> bool:
        """Send the response head; return False if the response ends with it."""
        assert self._block is not None
        block, self._block = self._block, None
        is_all = self._is_finished and not self.outgoing.size
        self._carrier.codec.send_headers(self.stream_id, block, is_ended=is_all)
        if is_all:
            self.done()
        return not is_all

    def done(self) -> None:
        """Called when the end of the stream is sent."""
        if self.held.size:
            self.held.shrink(0)
        self._carrier.done(self)

    def _fill(self, size: int) -> None:
        """Pull from the producer until `size` bytes wait or it has no more."""
        before = -1
        while self._pull is not None and before < self.outgoing.size < size:
            before = self.outgoing.size
            self._pull.resumeProducing()

    def _next(self) -> Next:
        if self._is_lost:
            return Next.NOTHING
        if not self.outgoing.size and self._pull is None:
            return Next.AGAIN if self._is_finished else Next.NOTHING
        return Next.AGAIN if self._carrier.codec.room(self.stream_id) > 0 else Next.WINDOW
