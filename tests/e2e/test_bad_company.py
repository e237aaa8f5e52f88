"""Clients that vanish without a word, stop reading, or come and go without end: the others do not notice."""

from __future__ import annotations

import ctypes
import os
import re
import selectors
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from time import monotonic
from urllib.parse import urlsplit

import pytest

from tests.e2e.daemon import Daemon, request, running
from tests.e2e.programs import eventually

pytestmark = pytest.mark.timeout(150)

CHURN_S = float(os.environ.get("PUSHD_TEST_CHURN_S", "3"))
"""How long clients come and go; 60 for the long form."""

CROWD = int(os.environ.get("PUSHD_TEST_CROWD", "300"))
"""How many clients stop reading, and how many others read; 2000 for the long form."""

REQUESTS = {
    "sse": "GET /sse?channel={0} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "ndjson": "GET /stream?channel={0} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "websocket": (
        "GET /ws?channel={0} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
    "poll": "GET /poll?channel={0} HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


def connected(url: str, *, buffer_bytes: int | None = None) -> socket.socket:
    """Connect, with TLS if `url` says so; the kernel takes only `buffer_bytes` for who does not read."""
    parts = urlsplit(url)
    connection = socket.socket()
    if buffer_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    connection.settimeout(15)
    connection.connect((parts.hostname, parts.port))
    if parts.scheme != "https":
        return connection
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connection)


@contextmanager
def subscribed(url: str, kind: str, channel: str, *, buffer_bytes: int | None = None) -> Iterator[socket.socket]:
    """Subscribe, and see that it is accepted, if that is said at once."""
    with closing(connected(url, buffer_bytes=buffer_bytes)) as connection:
        connection.sendall(REQUESTS[kind].format(channel).encode())
        if kind != "poll":
            assert connection.recv(100).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 101 "))
        yield connection


def fall_silent(connection: socket.socket) -> None:
    """Let the kernel drop all packets for `connection`, as if its machine had lost its power.

    It acknowledges nothing any more, and as long as it is not closed, it says nothing either.
    """
    drop_all = struct.pack("HBBI", 6, 0, 0, 0)  # BPF: return 0 bytes of every packet
    instructions = ctypes.create_string_buffer(drop_all)
    program = struct.pack("HL", 1, ctypes.addressof(instructions))
    connection.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER


def is_alone(daemon: Daemon) -> bool:
    """Return whether nobody else is connected or subscribed."""
    counts = daemon.counts
    return bool(counts["connections"] == 1 and counts["subscribers"] == 0)


class TestVanished:
    """A client whose machine is gone, without FIN or RST."""

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize("kind", ["sse", "ndjson", "websocket"])
    def test_it_is_gone_within_heartbeat_and_ping_timeout(self, scheme: str, kind: str) -> None:
        with running("[limits]\nheartbeat = 1s\nping_timeout = 2s\n", counts=True) as daemon:
            url = daemon.http if scheme == "http" else daemon.https
            with subscribed(url, kind, "news") as connection:
                assert daemon.has_subscribers("news", 1)
                fall_silent(connection)
                began = monotonic()
                eventually(lambda: is_alone(daemon), "it is gone", 15)
                assert monotonic() - began < 3 + 2 + 1.5, "the kernel looks at it when it sends again"


class TestStalled:
    """Clients that stop reading, beside others that read."""

    def test_they_are_closed_and_the_others_get_everything(self) -> None:
        events, size = 100, 20_000
        sections = "[limits]\noutbox = 64KiB\n[site]\ndemo = no\n"
        with running(sections, counts=True) as daemon, ExitStack() as stack:
            kinds = ["sse", "websocket"]
            readers = [stack.enter_context(subscribed(daemon.http, kinds[n % 2], "news")) for n in range(CROWD)]
            for n in range(CROWD):
                stack.enter_context(subscribed(daemon.http, kinds[n % 2], "news", buffer_bytes=4096))
            before, deadline = daemon.resident_bytes, monotonic() + 90
            with reading(readers) as counts:
                for number in range(1, events + 1):
                    daemon.publish("news", f"<{number}>" + "x" * size)
                    wanted = number * CROWD
                    while counts(b"<") < wanted:
                        assert monotonic() < deadline, f"not all readers have event {number}"
                assert counts(b"<") == events * CROWD
            grown = daemon.resident_bytes - before
            eventually(lambda: daemon.counts["subscribers"] == CROWD, "those that stalled are gone", 30)
            slow = "too slow for what is published"  # logged when the connection has ended, which takes a moment
            eventually(lambda: _logged(daemon, slow) == CROWD, "the log says why they are gone", 30)
            # one outbox, what Twisted keeps of what it began to send, and 16 MiB for everything else
            assert grown < CROWD * (64 + 128) * 1024 + 16 * 1024 * 1024


def _logged(daemon: Daemon, text: str) -> int:
    """Return of how many ends the log tells with `text`: most of those within a second are only counted there."""
    lines = [line for line in daemon.log.splitlines() if text in line]
    left_out = re.findall(r", and (\d+) more like this", "\n".join(lines))
    return len(lines) + sum(map(int, left_out))


@contextmanager
def reading(connections: list[socket.socket]) -> Iterator[Callable[[bytes], int]]:
    """Read what comes whenever the count of a mark in it is asked for."""
    selector = selectors.DefaultSelector()
    for connection in connections:
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
    found = 0

    def counts(mark: bytes) -> int:
        nonlocal found
        while ready := selector.select(0):
            for key, _ in ready:
                with suppress(BlockingIOError):
                    data = key.fileobj.recv(1 << 18)  # type: ignore[union-attr]
                    assert data, "closed"
                    found += data.count(mark)
        return found

    with closing(selector):
        yield counts


class TestChurn:
    """Clients that come and go."""

    def test_nothing_is_left_of_them(self) -> None:
        with running("[site]\ndemo = no\n", counts=True) as daemon:
            self.come_and_go(daemon, 2)
            eventually(lambda: is_alone(daemon), "they are gone")
            descriptors, memory = daemon.descriptors, daemon.resident_bytes
            count = self.come_and_go(daemon, CHURN_S)
            eventually(lambda: is_alone(daemon), "they are gone")
            eventually(lambda: daemon.descriptors <= descriptors, "their sockets are closed")
            assert daemon.counts["channels"] == 0
            grown = daemon.resident_bytes - memory
            print(f"{count} clients came and went, {count / CHURN_S:.0f} a second; resident memory grew by {grown}")
            assert count > 100
            assert grown < 4 * 1024 * 1024
            assert "fault in pushd" not in daemon.log
            assert daemon.stderr == ""

    def come_and_go(self, daemon: Daemon, seconds: float) -> int:
        """Let clients of all kinds come, publish or subscribe, and go, politely or not."""
        end, count = monotonic() + seconds, 0
        kinds = list(REQUESTS)
        while monotonic() < end:
            with ExitStack() as stack:
                for _ in range(10):
                    kind = kinds[count % len(kinds)]
                    connection = stack.enter_context(subscribed(daemon.http, kind, f"churn{count % 7}"))
                    if count % 3 == 0:  # a reset instead of a FIN
                        linger = struct.pack("ii", 1, 0)
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    count += 1
        answer = request(f"{daemon.http}/channels/churn0", "DELETE")
        assert answer.status in (204, 404), answer
        return count
