"""Talk to a daemon over plain sockets: send whatever bytes a case wants, and read what comes back."""

from __future__ import annotations

import selectors
import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from time import monotonic
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

__all__ = ["Http2", "chunked", "connect", "exchange", "frame", "get", "post", "upgrade", "websocket"]

_HANDSHAKE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def connect(url: str, protocols: Sequence[str] = ()) -> socket.socket:
    """Open a connection to the daemon at `url`, with TLS if it says https, and negotiate one of `protocols`."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30)
    if parts.scheme != "https":
        return connection
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context.wrap_socket(connection)


def get(target: str, method: str = "GET", *, close: bool = True, fields: str = "") -> bytes:
    """Return a request without a body."""
    last = "Connection: close\r\n" if close else ""
    return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{last}{fields}\r\n".encode()


def post(target: str, body: bytes, *, close: bool = True, fields: str = "") -> bytes:
    """Return a request with `body`."""
    return get(target, "POST", close=close, fields=f"Content-Length: {len(body)}\r\n{fields}") + body


def chunked(target: str, chunks: Iterable[bytes]) -> bytes:
    """Return a request whose body consists of `chunks`."""
    head = get(target, "POST", fields="Transfer-Encoding: chunked\r\n")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks) + b"0\r\n\r\n"


def exchange(
    url: str, data: bytes, *, seconds: float = 60, until: Callable[[bytes], bool] = lambda received: False
) -> bytes:
    """Send `data` while reading; return what came until the peer closed, `until` held or `seconds` were over."""
    with closing(connect(url)) as connection:
        return pump(connection, data, seconds=seconds, until=until)


def pump(
    connection: socket.socket,
    data: bytes,
    *,
    seconds: float,
    until: Callable[[bytes], bool] = lambda received: False,
) -> bytes:
    """Do what `exchange` does, over an open connection. The last 64 KiB are kept."""
    received, unsent, end = b"", memoryview(data), monotonic() + seconds
    connection.setblocking(False)
    with selectors.DefaultSelector() as selector:
        key = selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while monotonic() < end:
            for _, ready in selector.select(0.2):
                try:
                    if ready & selectors.EVENT_WRITE and unsent:
                        unsent = unsent[connection.send(unsent[:262144]) :]
                    if ready & selectors.EVENT_READ:
                        more = connection.recv(262144)
                        if not more:
                            return received
                        received = (received + more)[-65536:]
                except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    continue
                except OSError:
                    return received
            if not unsent and key.events & selectors.EVENT_WRITE:
                key = selector.modify(connection, selectors.EVENT_READ)
            if until(received):
                return received
    return received


def frame(data: bytes, opcode: int = 1, *, is_final: bool = True) -> bytes:
    """Return a masked WebSocket frame (RFC 6455, section 5.2); the mask is 0, so that the data stays as it is."""
    first = opcode | (0x80 if is_final else 0)
    if len(data) < 126:
        head = struct.pack("!BB", first, 0x80 | len(data))
    elif len(data) < 65536:
        head = struct.pack("!BBH", first, 0xFE, len(data))
    else:
        head = struct.pack("!BBQ", first, 0xFF, len(data))
    return head + b"\0\0\0\0" + data


def upgrade(target: str) -> bytes:
    """Return the request that opens a WebSocket."""
    fields = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {_HANDSHAKE_KEY}\r\n"
    )
    return get(target, close=False, fields=fields)


def websocket(url: str, target: str, frames: bytes, *, seconds: float = 20, answers: int = 0) -> bytes:
    """Open a WebSocket, send `frames`, and read until `answers` messages that begin with ``{`` have come."""
    with closing(connect(url)) as connection:
        connection.sendall(upgrade(target))
        head = connection.recv(4096)
        if not head.startswith(b"HTTP/1.1 101"):
            return head
        return pump(
            connection, frames, seconds=seconds, until=lambda got: bool(answers) and got.count(b"{") >= answers
        )


class Http2:
    """One HTTP/2 connection of a client that does what it is told and answers nothing by itself."""

    def __init__(self, url: str, *, window: int = 2**20) -> None:
        self.socket = connect(url, ["h2"])
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.h2.config.validate_outbound_headers = False
        self.statuses: dict[int, bytes] = {}
        """The status of each response that has begun."""
        self.ended: set[int] = set()
        """The streams that have ended."""
        self.is_closed = False
        """Whether the daemon has closed the connection."""
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(window)
        self.flush()

    def request(
        self, target: str, method: str = "GET", fields: Sequence[tuple[str, str]] = (), body: bytes = b""
    ) -> int:
        """Send a request, its body as far as the daemon's window allows, and return the id of its stream."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", target)]
        self.h2.send_headers(stream, [*head, *fields], end_stream=not body)
        while body and not self.is_closed:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(body))
            if room:
                self.h2.send_data(stream, body[:room], end_stream=room == len(body))
                body = body[room:]
            else:
                self.read(0.5)
                if stream in self.ended:
                    break
        return stream

    def flush(self) -> None:
        """Send what waits."""
        with suppress(OSError):
            self.socket.sendall(self.h2.data_to_send())

    def read(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Read for `seconds` at most, until `until` holds or the connection has ended."""
        end = monotonic() + seconds
        self.flush()
        while not self.is_closed and not until() and monotonic() < end:
            self.socket.settimeout(max(0.01, end - monotonic()))
            try:
                data = self.socket.recv(262144)
                events = self.h2.receive_data(data) if data else []
            except (TimeoutError, OSError, ProtocolError):
                return
            self.is_closed = not data
            for event in events:
                if isinstance(event, ResponseReceived):
                    self.statuses[event.stream_id] = dict(event.headers)[b":status"]
                elif isinstance(event, DataReceived):
                    if event.flow_controlled_length:
                        with suppress(ProtocolError):
                            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded | StreamReset):
                    self.ended.add(event.stream_id)
            self.flush()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()
