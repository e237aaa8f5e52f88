"""Unfinished bodies, sent to a real daemon."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, request, running

CONFIG = """
[listen:proxied]
endpoint = unix:{directory}/proxied
proxy_protocol = yes
[proxies]
trusted = unix
[auth]
anonymous = publish, subscribe
[limits]
batch_size = 1MiB
bodies = 10MiB
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A daemon that takes clients from any address."""
    with running(CONFIG) as daemon:
        yield daemon


def half_sent(daemon: Daemon, address: str, target: str, size: int) -> socket.socket:
    """Send `size` bytes of a body of 1 MiB, from an address."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    client.connect(str(daemon.directory / "proxied"))
    client.sendall(f"PROXY TCP4 {address} 127.0.0.1 4711 80\r\n".encode())
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n".encode()
    client.sendall(head + bytes(size))
    return client


def files(daemon: Daemon) -> int:
    """Count the files that the daemon has open."""
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def answer_to(client: socket.socket) -> bytes:
    """Return the first line of an answer; nothing if there is none."""
    client.settimeout(0.2)
    try:
        return client.recv(4096).partition(b"\r\n")[0]
    except TimeoutError:
        return b""


def test_they_take_no_files_and_no_more_memory_than_there_is_for_them(daemon: Daemon) -> None:
    before = files(daemon)
    with ExitStack() as stack:
        many = [
            stack.enter_context(half_sent(daemon, f"203.0.113.{number % 20}", "/publish", 500_000))
            for number in range(60)
        ]
        answers = [answer_to(client) for client in many]
        assert set(answers) <= {b"", b"HTTP/1.1 429 Too Many Requests", b"HTTP/1.1 503 Service Unavailable"}
        assert 1 <= answers.count(b"") <= 22
        assert files(daemon) <= before + 60
        assert request(f"{daemon.http}/channels/news", "POST", b"hello").status == 201
    assert request(f"{daemon.http}/channels/news", "POST", b"x" * 500_000).status == 201


def test_what_is_not_allowed_is_answered_by_its_head(daemon: Daemon) -> None:
    for target, status in (("/nowhere", b"404"), ("/sse?channel=a", b"405"), ("/channels/a?x=1", b"400")):
        with half_sent(daemon, "203.0.113.99", target, 0) as client:
            assert answer_to(client).split()[1] == status
