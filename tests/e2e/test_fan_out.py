"""One channel with thousands of subscribers: what happens to all of them takes many turns, and none is long."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic, sleep

import pytest

from tests.e2e.daemon import Daemon, request, running, tcp

COUNT = 5000
LONGEST_MS = 20.0
_UPGRADE = (
    b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * COUNT + 1000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{wanted} open files are needed, and {hard} may be")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def subscribed(daemon: Daemon, path: str, count: int = COUNT) -> Iterator[list[socket.socket]]:
    """Connect `count` WebSockets, and read what they are told first."""
    port = int(daemon.http.rpartition(":")[2])
    with ExitStack() as stack:
        clients = []
        for _ in range(count // 100):
            some = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(100)]
            for client in some:
                client.sendall(_UPGRADE % path.encode())
            for client in some:
                received = b""
                while b"\r\n\r\n" not in received:
                    received += client.recv(4096)
                assert received.startswith(b"HTTP/1.1 101"), received
            clients += some
        deadline = monotonic() + 30
        while daemon.get("/channels/news")["subscribers"] < count:
            assert monotonic() < deadline
            sleep(0.1)
        yield clients


def read_until(client: socket.socket, end: bytes) -> bytes:
    """Read until `end` has come."""
    received = b""
    while end not in received:
        piece = client.recv(65536)
        assert piece, received
        received += piece
    return received


@pytest.mark.parametrize("path", ["/ws?channel=news", "/ws?channel=news&channel=sport"])
def test_no_turn_is_long_while_events_go_to_5000_websockets(path: str) -> None:
    with running("", listeners=tcp("http"), measures_turns=True) as daemon, subscribed(daemon, path) as clients:
        turns = daemon.turns
        assert turns is not None
        daemon.publish("news", "first")
        for client in clients:
            read_until(client, b'"first"')
        turns.reset()
        for number in range(5):
            assert daemon.publish("news", f"event {number}")["subscribers"] == COUNT
        for client in clients:
            received = read_until(client, b'"event 4"')
            places = [received.find(b'"event %d"' % number) for number in range(5)]
            assert places == sorted(places)
            assert received.count(b'"event 3"') == 1
        assert turns.longest_ms < LONGEST_MS
        assert turns.count > COUNT / 250


def test_no_turn_is_long_while_5000_websockets_are_ended() -> None:
    with running("", listeners=tcp("http"), measures_turns=True) as daemon:
        turns = daemon.turns
        assert turns is not None
        with subscribed(daemon, "/ws?channel=news") as clients:
            daemon.publish("news", "x")
            turns.reset()
            assert request(f"{daemon.http}/channels/news", method="DELETE").status == 204
            for client in clients:
                read_until(client, b"the channel was deleted")
            assert turns.longest_ms < LONGEST_MS
