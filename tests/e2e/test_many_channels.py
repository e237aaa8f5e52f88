"""Beside 100,000 channels no turn of the reactor takes longer than 20 ms, whatever clients ask for."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.e2e.daemon import Daemon, running

CHANNELS = 100_000
MOST_MS = 20.0


def call(daemon: Daemon, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Make one request on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(daemon.http).netloc, timeout=60)
    connection.request(method, path, body)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, data


def fill(daemon: Daemon, channels: int, lines: int = 1000) -> None:
    """Publish an event to each of the first channels."""
    for first in range(0, channels, lines):
        body = b"".join(b'{"channel":"public/%d","data":"x"}\n' % one for one in range(first, first + lines))
        status, answer = call(daemon, "POST", "/publish", body)
        assert status in (200, 207) and not answer.count(b'"error"')


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def filled(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """Run a daemon with many channels."""
    state = f"state_directory = {{directory}}/state\nstop_timeout = 5s\nstore = {request.param}\n"
    with running("[limits]\nchannels = 100001\n", state=state, measures_turns=True) as daemon:
        fill(daemon, CHANNELS, 5000)
        yield daemon


def longest_ms(daemon: Daemon) -> float:
    """Return how long the longest turn was, once the one that has answered is over."""
    assert daemon.turns is not None
    time.sleep(0.3)
    return daemon.turns.longest_ms


@pytest.mark.parametrize(
    "path",
    [
        "/poll?channel=**&since=earliest&limit=1",
        "/poll?channel=public/*&since=earliest&limit=1000",
        "/poll?channel=**/77&since=earliest",
        "/poll?channel=**&since=unknown&limit=1000",
        "/channels?limit=1000",
        "/channels?after=public/5&limit=1000",
        "/channels/public%2F5/presence",
        "/metrics",
        "/connections",
    ],
)
def test_no_request_holds_the_reactor(filled: Daemon, path: str) -> None:
    assert filled.turns is not None
    filled.turns.reset()
    status, _ = call(filled, "GET", path)
    assert status == 200
    assert longest_ms(filled) < MOST_MS


def test_ten_at_once_do_not_either(filled: Daemon) -> None:
    assert filled.turns is not None
    filled.turns.reset()
    paths = ["/poll?channel=**&since=earliest&limit=1", "/poll?channel=**&since=unknown"] * 5
    threads = [threading.Thread(target=call, args=(filled, "GET", path)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert longest_ms(filled) < MOST_MS


def test_nor_does_one_that_gets_everything(filled: Daemon) -> None:
    assert filled.turns is not None
    filled.turns.reset()
    host, port = urlsplit(filled.http).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(b"GET /sse?channel=**&since=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got, last = 0, b""
        while got < CHANNELS:
            data = client.recv(1 << 20)
            assert data, got
            got += (last + data).count(b"\ndata: x")
            last = data[-7:] if b"\ndata: x" not in data[-7:] else b""
    assert longest_ms(filled) < MOST_MS
