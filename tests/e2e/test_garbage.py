"""Connections of a real daemon leave no reference cycles: without the collector, all of them are freed."""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from signal import SIGUSR1
from urllib.parse import urlsplit

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset

from tests.e2e.daemon import Daemon, running
from tests.e2e.programs import eventually

_SITE = """\
import gc, json, os, signal
from collections import Counter

def look(*signal):
    callbacks, gc.callbacks[:] = gc.callbacks[:], []
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = Counter(f"{type(it).__module__}.{type(it).__qualname__}" for it in gc.garbage)
    gc.garbage.clear()
    gc.collect()
    gc.callbacks[:] = callbacks
    with open(REPORT + ".part", "w") as file:
        file.write(json.dumps(found))  # json.dump makes cycles
    os.replace(REPORT + ".part", REPORT)

gc.disable()
signal.signal(signal.SIGUSR1, look)
"""
"""Run by the daemon's Python when it starts: no collections, and a report of what one would find upon a signal."""

_WEBSOCKET = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"


class Looking:
    """A daemon without collections."""

    def __init__(self, daemon: Daemon, report: Path) -> None:
        self.daemon = daemon
        self._report = report
        self._descriptors = daemon.descriptors

    def garbage(self) -> dict[str, int]:
        """Return what a collection would free now, by type."""
        eventually(lambda: self.daemon.descriptors <= self._descriptors, "all connections have ended")
        self._report.unlink(missing_ok=True)
        self.daemon.signal(SIGUSR1)
        eventually(self._report.exists, "it has looked")
        found: dict[str, int] = json.loads(self._report.read_text())
        return found

    def connect(self, *, tls: bool, alpn: str = "http/1.1") -> socket.socket:
        """Open a connection."""
        url = urlsplit(self.daemon.https if tls else self.daemon.http)
        connection = socket.create_connection((url.hostname, url.port), timeout=5)
        if not tls:
            return connection
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols([alpn])
        return context.wrap_socket(connection, server_hostname="localhost")


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looking]:
    """Run one daemon for all kinds of connections."""
    site = tmp_path_factory.mktemp("site")
    report = site / "report"
    (site / "sitecustomize.py").write_text(f"REPORT = {str(report)!r}\n{_SITE}")
    sections = "[http2]\nwebsocket = yes\n[limits]\nrequest_timeout = 5s\n"
    with running(sections, variables={"PYTHONPATH": str(site)}) as daemon:
        daemon.publish("a", "before")
        found = Looking(daemon, report)
        found.garbage()
        yield found


def head(target: str, method: str = "GET", fields: str = "", body: bytes = b"") -> bytes:
    """Write a request."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}{length}\r\n".encode() + body


def frame(data: bytes, opcode: int = 1) -> bytes:
    """Write a short frame of a WebSocket."""
    return bytes((0x80 | opcode, 0x80 | len(data))) + bytes(4) + data


HTTP1 = {
    "nothing": (b"", b""),
    "an answer": (head("/healthz"), b"\r\n\r\n"),
    "the last answer": (head("/healthz", fields="Connection: close\r\n"), b"\r\n\r\n"),
    "nothing there": (head("/nothing"), b"}"),
    "a file": (head("/"), b"</html>"),
    "a history": (head("/channels/a/events?since=earliest"), b"]"),
    "an event": (head("/channels/a", "POST", body=b"hello"), b"}"),
    "a body in chunks": (
        head("/channels/a", "POST", "Transfer-Encoding: chunked\r\n") + b"5\r\nhello\r\n0\r\n\r\n",
        b"}",
    ),
    "half a body": (head("/channels/a", "POST", "Content-Length: 9\r\n") + b"hello", b""),
    "half a chunk": (head("/channels/a", "POST", "Transfer-Encoding: chunked\r\n") + b"9\r\nhello", b""),
    "too large a body": (head("/channels/a", "POST", "Content-Length: 999999999\r\n"), b"}"),
    "no HTTP": (b"\xff\r\n\r\n", b"}"),
    "a batch": (head("/publish", "POST", body=b'{"channel":"b","data":"x"}\n' * 9), b"}"),
    "a long batch": (head("/publish", "POST", body=b'{"channel":"b","data":"x"}\n' * 3000), b""),
    "SSE": (head("/sse?channel=a"), b"pushd.open"),
    "SSE with a replay": (head("/sse?channel=a&channel=b*&since=earliest"), b"before"),
    "NDJSON": (head("/stream?channel=a"), b"open"),
    "a poll": (head("/poll?channel=a"), b""),
    "an answered poll": (head("/poll?channel=a&since=earliest"), b"}"),
    "no push": (head("/push?channel=a"), b"}"),
    "a WebSocket": (head("/ws?channel=a", fields=_WEBSOCKET), b" 101 "),
    "a closed WebSocket": (head("/ws?channel=a", fields=_WEBSOCKET) + _CLOSE, b"\x88\x02\x03\xe8"),
    "a raw WebSocket": (head("/ws?channel=a&format=raw", fields=_WEBSOCKET), b"\r\n\r\n"),
    "a WebSocket that publishes": (
        head("/ws", fields=_WEBSOCKET) + frame(b'{"type":"publish","channel":"a","data":"x"}'),
        b"published",
    ),
    "a WebSocket that comes and goes": (
        head("/ws", fields=_WEBSOCKET)
        + frame(b'{"type":"subscribe","channel":"a","since":"earliest"}')
        + frame(b'{"type":"unsubscribe","channel":"a"}'),
        b"unsubscribed",
    ),
    "many messages": (head("/ws", fields=_WEBSOCKET) + frame(b"{}") * 1000, b" 101 "),
    "half a message": (head("/ws", fields=_WEBSOCKET) + frame(b"hello")[:8], b" 101 "),
    "no frame": (head("/ws", fields=_WEBSOCKET) + b"\xff\xff", b"\x88"),
    "no text": (head("/ws", fields=_WEBSOCKET) + frame(b"\xff"), b"\x88"),
    "no handshake": (head("/ws", fields=_WEBSOCKET.replace("13", "12")), b"}"),
}
"""What a client sends, and what it waits for before it goes."""


def read_until(connection: socket.socket, end: bytes) -> None:
    """Read until `end` has come."""
    received = b""
    while end not in received:
        data = connection.recv(65536)
        assert data, received
        received += data


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_connections_of_http1_are_freed(looking: Looking, tls: bool) -> None:
    left = {}
    for name, (sent, awaited) in HTTP1.items():
        for is_reset in (False, True):
            with closing(looking.connect(tls=tls)) as client:
                client.sendall(sent)
                read_until(client, awaited) if awaited else time.sleep(0.02)
                if is_reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if found := looking.garbage():
            left[name] = found
    assert not left


def test_handshakes_that_fail_are_freed(looking: Looking) -> None:
    url = urlsplit(looking.daemon.https)
    for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\x16\x03\x01\x00\x01\x01"):
        with closing(socket.create_connection((url.hostname, url.port), timeout=5)) as client:
            client.sendall(sent)
            time.sleep(0.02)
    with suppress(OSError), closing(socket.create_connection((url.hostname, url.port), timeout=5)) as client:
        ssl.create_default_context().wrap_socket(client, server_hostname="localhost")
    assert not looking.garbage()


class Http2:
    """A client of HTTP/2."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.h2 = H2Connection(H2Configuration(header_encoding=None))
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def request(self, path: str, method: str = "GET", body: bytes | None = None, *, is_ended: bool = True) -> int:
        """Send a request; return its stream."""
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        if method == "CONNECT":
            fields = [*fields, (":protocol", "websocket"), ("sec-websocket-version", "13")]
        self.h2.send_headers(stream, fields, end_stream=body is None and is_ended)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=is_ended)
        self.flush()
        return stream

    def wait(self, kinds: tuple[type, ...], data: bytes = b"") -> None:
        """Read until an event has come that is of one of `kinds`, and has `data`."""
        while True:
            received = self.socket.recv(65536)
            assert received
            events = self.h2.receive_data(received)
            self.flush()
            if any(isinstance(event, kinds) and data in getattr(event, "data", b"") for event in events):
                return

    def answered(self, path: str, method: str = "GET", body: bytes | None = None) -> None:
        """Make a request, and wait for the end of its answer."""
        self.request(path, method, body)
        self.wait((StreamEnded, StreamReset))


def _reset(client: Http2) -> None:
    stream = client.request("/sse?channel=a")
    client.wait((DataReceived,), b"open")
    client.h2.reset_stream(stream)
    client.answered("/healthz")


def _tunnel(client: Http2, *, closes: bool) -> None:
    stream = client.request("/ws?channel=a", "CONNECT", is_ended=False)
    client.wait((ResponseReceived,))
    if closes:
        client.h2.send_data(stream, _CLOSE)
        client.flush()
        client.wait((StreamEnded, StreamReset))


def _streams(client: Http2, path: str) -> None:
    client.request(path)
    client.wait((DataReceived,), b"open")
    client.request("/channels/a", "POST", b"x")
    time.sleep(0.05)


HTTP2: dict[str, Callable[[Http2], None]] = {
    "nothing": lambda client: None,
    "an answer": lambda client: client.answered("/healthz"),
    "nothing there": lambda client: client.answered("/nothing"),
    "a file": lambda client: client.answered("/"),
    "an event": lambda client: client.answered("/channels/a", "POST", body=b"x"),
    "half a body": lambda client: (client.request("/channels/a", "POST", b"x", is_ended=False), None)[1],
    "a batch": lambda client: client.answered("/publish", "POST", body=b'{"channel":"b","data":"x"}\n' * 300),
    "SSE": lambda client: _streams(client, "/sse?channel=a"),
    "NDJSON": lambda client: _streams(client, "/stream?channel=a"),
    "a push": lambda client: _streams(client, "/push?channel=a&since=earliest"),
    "a poll": lambda client: (client.request("/poll?channel=a"), None)[1],
    "a reset stream": _reset,
    "a WebSocket": lambda client: _tunnel(client, closes=False),
    "a closed WebSocket": lambda client: _tunnel(client, closes=True),
    "no frame": lambda client: client.socket.sendall(b"\xff" * 200),
}


def test_connections_of_http2_are_freed(looking: Looking) -> None:
    left = {}
    for name, use in HTTP2.items():
        for _ in range(2):
            with closing(looking.connect(tls=True, alpn="h2")) as connection:
                use(Http2(connection))
                time.sleep(0.02)
        if found := looking.garbage():
            left[name] = found
    assert not left


def test_memory_stays_bounded_without_collections(looking: Looking) -> None:
    def churn(count: int) -> None:
        for number in range(count):
            with closing(looking.connect(tls=not number % 10)) as client:
                client.sendall(head("/ws?channel=a", fields=_WEBSOCKET))
                read_until(client, b" 101 ")

    churn(200)
    before = looking.daemon.resident_bytes
    churn(400)
    assert looking.daemon.resident_bytes - before < 400 * 2048 + os.sysconf("SC_PAGE_SIZE") * 64
