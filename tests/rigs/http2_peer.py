"""A client of HTTP/2 for tests, in memory, that can say what no client should."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from pushd.errors import Refused
from pushd.server.http2.connection import HTTP2
from pushd.server.http2.errors import Code
from pushd.server.net.connection_limits import ConnectionLimiter
from pushd.server.net.timers import TimerWheel
from pushd.server.request import Request
from pushd.server.web.resource import Missing
from pushd.server.web.site import PushdSite, Serving
from tests.rigs.builders import PATIENCE

__all__ = ["PREFACE", "HTTP2TestCase", "Pages", "Peer", "Transport"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_BODY = 100_000


class Transport(StringTransport):
    """What the server writes to, and how often."""

    def __init__(self) -> None:
        super().__init__(IPv4Address("TCP", "127.0.0.1", 8443))
        self.writes: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        """Override: count."""
        self.writes.append(data)
        super().write(data)

    def abortConnection(self) -> None:
        """Override: remember."""
        self.is_aborted = True
        super().abortConnection()


def path_below(request: Request) -> bytes:
    """Return the last segment of a path."""
    segments: list[bytes] = request.postpath or []
    return segments[0]


class _Echo(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return b"%s %s" % (request.method, request.uri)

    def render_POST(self, request: Request) -> bytes:
        return request.body()


class _Status(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        request.setResponseCode(int(path_below(request)))
        return b""


class _Big(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return bytes(range(256)) * (int(path_below(request)) // 256)


class _Headers(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        for name in b"Connection", b"Keep-Alive", b"Upgrade", b"Transfer-Encoding", b"Proxy-Connection":
            request.setHeader(name, b"x")
        request.setHeader(b"X-Mixed-Case", b"  spaced  ")
        raw = request.requestHeaders.getAllRawHeaders()
        pairs = sorted((name.lower(), value) for name, values in raw for value in values)
        return repr(pairs).encode()


class _Open(Resource):
    """Answers when the test wants."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.lost: list[Request] = []

    def render_GET(self, request: Request) -> int:
        self.requests.append(request)
        request.notifyFinish().addErrback(lambda reason: self.lost.append(request))
        return NOT_DONE_YET


class _Boom(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        raise RuntimeError("boom")


class Pages(Resource):
    """A site with one page for each thing that a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.open = _Open()
        for name, page in {
            b"echo": _Echo(),
            b"status": _Status(),
            b"big": _Big(),
            b"headers": _Headers(),
            b"open": self.open,
            b"boom": _Boom(),
        }.items():
            self.putChild(name, page)

    def getChild(self, path: bytes, request: Any) -> Resource:
        """Override: there is nothing else."""
        return Missing()


class Peer:
    """The client of one connection."""

    def __init__(
        self, site: PushdSite, wheel: TimerWheel, clock: Clock, turned_away: Refused | None = None
    ) -> None:
        self.wheel, self.clock = wheel, clock
        self.transport = Transport()
        self.connection = HTTP2(site._http2, turned_away)
        self.encoder, self.decoder = Encoder(), Decoder()
        self.seen: list[Frame] = []
        """Every frame that the server sent."""
        self._buffer = b""
        self._block = b""
        self.is_lost = False
        self.connection.makeConnection(self.transport)

    # To the server

    def begin(self, settings: dict[int, int] | None = None) -> Peer:
        """Say the preface and the settings, and acknowledge the server's."""
        self.send(PREFACE, SettingsFrame(0, settings=settings or {}), SettingsFrame(0, flags=["ACK"]))
        return self

    def send(self, *frames: Frame | bytes) -> None:
        """Send all at once."""
        self.connection.dataReceived(b"".join(f if isinstance(f, bytes) else f.serialize() for f in frames))

    def headers(
        self,
        stream_id: int,
        path: str = "/echo",
        *,
        method: str = "GET",
        fields: Iterable[tuple[str, str]] = (),
        end: bool = True,
    ) -> HeadersFrame:
        """Make the frame of a request."""
        pseudo = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        return self.block(stream_id, [*pseudo, *fields], end=end)

    def block(self, stream_id: int, fields: Iterable[tuple[Any, Any]], *, end: bool = True) -> HeadersFrame:
        """Make a HEADERS frame of any fields."""
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        return HeadersFrame(stream_id, data=self.encoder.encode(list(fields)), flags=flags)

    def get(self, stream_id: int, path: str = "/echo", **keywords: Any) -> None:
        """Send a request."""
        self.send(self.headers(stream_id, path, **keywords))

    def post(
        self, stream_id: int, *chunks: bytes, fields: Iterable[tuple[str, str]] = (), end: bool = True
    ) -> None:
        """Send a request with a body."""
        last = len(chunks) - 1
        frames = [
            DataFrame(stream_id, chunk, flags=["END_STREAM"] if end and at == last else [])
            for at, chunk in enumerate(chunks)
        ]
        self.send(self.headers(stream_id, method="POST", fields=fields, end=False), *frames)

    def data(self, stream_id: int, data: bytes = b"", *, end: bool = False) -> None:
        """Send DATA."""
        self.send(DataFrame(stream_id, data, flags=["END_STREAM"] if end else []))

    def reset(self, stream_id: int, code: int = Code.CANCEL) -> None:
        """Send RST_STREAM."""
        self.send(RstStreamFrame(stream_id, error_code=code))

    def open_window(self, stream_id: int, increment: int) -> None:
        """Send WINDOW_UPDATE."""
        self.send(WindowUpdateFrame(stream_id, window_increment=increment))

    def lose(self) -> None:
        """End the connection, as the transport says it."""
        if not self.is_lost:
            self.is_lost = True
            self.connection.connectionLost(Failure(ConnectionLost()))

    # Time

    def turn(self, times: int = 50) -> None:
        """Let the reactor turn, without time passing."""
        for _ in range(times):
            self.clock.advance(0)

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            self.wheel.turn()
        self.turn(2)

    # From the server

    def frames(self) -> list[Frame]:
        """Return what the server has sent since the last time; header blocks are decoded into ``fields``."""
        self.turn()
        self._buffer += self.transport.value()
        self.transport.clear()
        found: list[Frame] = []
        while len(self._buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            if len(self._buffer) < 9 + length:
                break
            frame.parse_body(memoryview(self._buffer[9 : 9 + length]))
            self._buffer = self._buffer[9 + length :]
            if isinstance(frame, HeadersFrame | PushPromiseFrame) or type(frame).__name__ == "ContinuationFrame":
                self._block += frame.data  # type: ignore[attr-defined]
                if "END_HEADERS" in frame.flags:
                    frame.fields = dict(self.decoder.decode(self._block))  # type: ignore[attr-defined]
                    self._block = b""
            found.append(frame)
        self.seen += found
        return found

    def all_frames(self, kind: type[Frame], stream_id: int | None = None) -> list[Any]:
        """Return the frames of a kind that the server sent from the beginning."""
        self.frames()
        return [f for f in self.seen if isinstance(f, kind) and stream_id in (None, f.stream_id)]

    def status(self, stream_id: int) -> int | None:
        """Return the final status on a stream; None if there is none."""
        found = [
            int(f.fields[":status"]) for f in self.all_frames(HeadersFrame, stream_id) if ":status" in f.fields
        ]
        return next((status for status in found if status >= 200), None)

    def fields(self, stream_id: int) -> dict[str, str]:
        """Return the fields of the last header section on a stream."""
        fields: dict[str, str] = self.all_frames(HeadersFrame, stream_id)[-1].fields
        return fields

    def body(self, stream_id: int) -> bytes:
        """Return the body on a stream, as far as it has come."""
        return b"".join(f.data for f in self.all_frames(DataFrame, stream_id))

    def is_ended(self, stream_id: int) -> bool:
        """Return whether the server ended a stream."""
        frames = [*self.all_frames(DataFrame, stream_id), *self.all_frames(HeadersFrame, stream_id)]
        return any("END_STREAM" in f.flags for f in frames)

    def resets(self, stream_id: int) -> list[int]:
        """Return the codes with which the server reset a stream."""
        return [f.error_code for f in self.all_frames(RstStreamFrame, stream_id)]

    def goaways(self) -> list[GoAwayFrame]:
        """Return the server's GOAWAY frames."""
        return self.all_frames(GoAwayFrame)

    @property
    def is_closed(self) -> bool:
        """Return whether the server closes the connection."""
        return self.transport.disconnecting or self.transport.is_aborted


class HTTP2TestCase(SynchronousTestCase):
    """A site, a clock, and peers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wheel = TimerWheel(self.clock.seconds)
        self.pages = Pages()
        self.site = PushdSite(
            self.pages,
            self.clock,
            wheel=self.wheel,
            limiter=ConnectionLimiter(0, 0, self.wheel),
            serving=Serving(MAX_BODY, PATIENCE),
        )
        self.peer = self.new_peer()
        self.peer.begin()

    def new_peer(self) -> Peer:
        """Make a peer that has said nothing yet."""
        peer = Peer(self.site, self.wheel, self.clock)
        self.addCleanup(peer.lose)
        return peer

    def assert_alive(self, peer: Peer | None = None) -> None:
        """The connection goes on: a PING is answered."""
        peer = peer or self.peer
        peer.send(PingFrame(0, opaque_data=b"alive???"))
        self.assertIn(b"alive???", [f.opaque_data for f in peer.all_frames(PingFrame)])
        self.assertFalse(peer.is_closed)

    def assert_ended(self, code: Code, peer: Peer | None = None) -> None:
        """The server ended the connection with `code`, and closes it."""
        peer = peer or self.peer
        self.assertEqual([Code(f.error_code).name for f in peer.goaways()][-1:], [code.name])
        self.assertTrue(peer.is_closed)
        self.assertEqual(peer.connection.streams, {})

    def assert_reset(self, stream_id: int, code: Code, peer: Peer | None = None) -> None:
        """The server reset a stream with `code`, at once or soon, and the connection goes on."""
        peer = peer or self.peer
        peer.pass_time(1)
        self.assertEqual([Code(c).name for c in peer.resets(stream_id)], [code.name])
        self.assert_alive(peer)

    def assert_answers(self, stream_id: int, status: int = 200, peer: Peer | None = None) -> None:
        """A response is there, complete."""
        peer = peer or self.peer
        self.assertEqual(peer.status(stream_id), status)
        self.assertTrue(peer.is_ended(stream_id))
