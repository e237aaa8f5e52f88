"""Clients that end their half of the connection after a request, as ``nc -N`` and ``socat`` do."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from tests.e2e.daemon import Daemon, running, tcp

pytestmark = pytest.mark.timeout(120)

PUBLISH = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
HISTORY = b"GET /history?channel=news HTTP/1.1\r\nHost: localhost\r\n\r\n"
STREAM = b"GET /stream?channel=news HTTP/1.1\r\nHost: localhost\r\n\r\n"
PROXIED = b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n"
LISTENERS = (
    tcp("http")
    + tcp("https", tls=True)
    + "[listen:unix]\nendpoint = unix:{directory}/pushd.sock\n"
    + "[listen:proxied]\nendpoint = unix:{directory}/proxied.sock\nproxy_protocol = yes\n"
)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _all(connection: socket.socket) -> bytes:
    """Return everything until the end, which has to come soon."""
    connection.settimeout(15)
    received = b""
    while data := connection.recv(1 << 16):
        received += data
    return received


def over_tcp(daemon: Daemon, data: bytes) -> bytes:
    """Return what comes after `data` and the end of it."""
    with socket.create_connection(_address(daemon.http)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return _all(connection)


def _over_unix(path: str, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return _all(connection)


def over_unix(daemon: Daemon, data: bytes) -> bytes:
    """Do the same over a Unix socket."""
    return _over_unix(str(daemon.socket), data)


def over_proxy(daemon: Daemon, data: bytes) -> bytes:
    """Do the same through a proxy."""
    return _over_unix(str(daemon.socket.with_name("proxied.sock")), PROXIED + data)


def over_tls(daemon: Daemon, data: bytes) -> bytes:
    """Do the same over TLS 1.3, which ends with ``close_notify``."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=str(daemon.certificate))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(_address(daemon.https)) as connection:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(1 << 16))
        client.write(data)
        with suppress(ssl.SSLWantReadError):
            client.unwrap()
        connection.sendall(outgoing.read())
        connection.shutdown(socket.SHUT_WR)
        incoming.write(_all(connection))
    received = b""
    with suppress(ssl.SSLZeroReturnError):  # and nothing else: TLS has to end properly
        while more := client.read(1 << 16):
            received += more
    return received


WAYS: tuple[Callable[[Daemon, bytes], bytes], ...] = (over_tcp, over_unix, over_proxy, over_tls)


def test_complete_requests_are_answered_and_whoever_streams_has_gone() -> None:
    with running(
        "[proxies]\ntrusted = unix\n[auth]\nanonymous = publish, subscribe\n", listeners=LISTENERS
    ) as daemon:
        for number, way in enumerate(WAYS, 1):
            received = way(daemon, PUBLISH)
            assert received.startswith(b"HTTP/1.1 201 Created\r\n"), way
            assert b'"offset":%d' % number in received, way
            assert way(daemon, HISTORY * 3).count(b"HTTP/1.1 200 OK\r\n") == 3, way
            assert way(daemon, PUBLISH[:-1]) == b"", way
            way(daemon, STREAM)  # ends
        published = daemon.get("/history?channel=news")
        assert len(published["events"]) == len(WAYS)
