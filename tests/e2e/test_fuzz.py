"""Whatever comes over the network, the daemon goes on serving."""

from __future__ import annotations

import os
import random
import re
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from time import monotonic, time_ns
from urllib.parse import urlsplit

import pytest
from hpack import Encoder

from tests.e2e.daemon import Daemon, running
from tests.e2e.programs import eventually

pytestmark = pytest.mark.timeout(120)

SECONDS_PER_ATTACK = 1.2

SEED = int(os.environ.get("PUSHD_FUZZ_SEED", time_ns() % 10**9))
"""Chosen anew for each run; a run is repeated by saying it in the environment."""

_HANDSHAKE = (
    b"GET /ws?channel=fuzz HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_PUBLISH_MANY = b'{"channel":"fuzz","data":"a"}\n{"channels":["fuzz","b"],"data_base64":"AAA="}\n'
_REQUESTS = (
    b"POST /channels/fuzz?event=t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /channels/fuzz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
    % (len(_PUBLISH_MANY), _PUBLISH_MANY),
    b"GET /sse?channel=fuzz&channel=**&since=earliest HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: x-1\r\n\r\n",
    b"GET /stream?channel=fuzz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /poll?channel=fuzz&since=latest&limit=3 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /channels/fuzz/events?since=earliest&limit=2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /channels?prefix=f&after=a HTTP/1.0\r\n\r\n",
    b"DELETE /channels/fuzz HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n",
    b"OPTIONS /channels/fuzz HTTP/1.1\r\nHost: localhost\r\nOrigin: http://elsewhere\r\n\r\n",
    b"GET /demo.js HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-10,20-\r\nIf-Modified-Since: x\r\n\r\n",
    _HANDSHAKE,
)
_TOKENS = (
    b"\r\n", b"\n", b"\0", b"\xff\xfe", b"%", b"%00", b"%ff", b"%2F", b"..", b"//", b"?", b"&", b"=", b";", b":",
    b" ", b"\t", b"-1", b"99999999999999999999", b"0x10", b"*", b"**", b"a" * 300, b"{", b"[" * 2000, b"null",
    b'"', b"HTTP/2.0", b"HTTP/1.1\r\nHost: localhost", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Upgrade: h2c\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"Expect: 100-continue\r\n", b"since=", b"channel=",
)  # fmt: skip

_STREAMS = (
    {":method": "GET", ":path": "/channels"},
    {":method": "GET", ":path": "/"},
    {":method": "GET", ":path": "/sse?channel=fuzz&since=earliest"},
    {":method": "GET", ":path": "/push?channel=**&since=earliest"},
    {":method": "POST", ":path": "/channels/fuzz", "content-length": "5"},
    {":method": "POST", ":path": "/publish"},
    {":method": "OPTIONS", ":path": "*"},
    {":method": "CONNECT", ":protocol": "websocket", ":path": "/ws?channel=fuzz", "sec-websocket-version": "13"},
)
_HEADS = tuple(
    Encoder().encode([(":scheme", "https"), (":authority", "localhost"), *fields.items()]) for fields in _STREAMS
)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))

FOUND = {
    "path that is not UTF-8": b"GET /%a7 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "range that is not UTF-8": (
        b"GET /demo.js HTTP/1.1\r\nHost: localhost\r\nRange: bytes=\xfa\r\nConnection: close\r\n\r\n"
    ),
}
"""Requests by which this test has once found a fault."""

Connect = Callable[[], socket.socket]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(
        "[limits]\nrequest_timeout = 5s\nhead_timeout = 5s\n[http2]\nwebsocket = yes\n", counts=True
    ) as started:
        print(f"PUSHD_FUZZ_SEED={SEED}")
        yield started


def _plain(daemon: Daemon) -> socket.socket:
    parts = urlsplit(daemon.http)
    return socket.create_connection((parts.hostname, parts.port), 5)


def _unencrypted(daemon: Daemon) -> socket.socket:
    """Connect to where TLS is spoken, without it."""
    parts = urlsplit(daemon.https)
    return socket.create_connection((parts.hostname, parts.port), 5)


def _tls(daemon: Daemon, *protocols: str) -> socket.socket:
    context = ssl.create_default_context(cafile=str(daemon.certificate))
    context.set_alpn_protocols(protocols or ("http/1.1",))
    plain = _unencrypted(daemon)
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except OSError:
        plain.close()
        raise


def _unix(daemon: Daemon) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(daemon.socket))
    except OSError:
        connection.close()
        raise
    connection.settimeout(5)
    return connection


def _http2(daemon: Daemon) -> socket.socket:
    return _tls(daemon, "h2")


DOORS = {"tcp": _plain, "tls": _tls, "tls without tls": _unencrypted, "unix": _unix, "http2": _http2}


def _read(connection: socket.socket, timeout_s: float) -> bytes:
    """Return what comes in a short time."""
    connection.settimeout(timeout_s)
    with suppress(OSError):
        return connection.recv(65536)
    return b""


def _random_bytes(dice: random.Random, connect: Connect) -> None:
    with closing(connect()) as connection:
        for _ in range(dice.randint(1, 4)):
            connection.sendall(dice.randbytes(dice.choice((1, 10, 100, 1000, 20000))))
        _read(connection, dice.choice((0.001, 0.02)))


def _mutated(dice: random.Random) -> bytes:
    data = bytearray(dice.choice(_REQUESTS))
    for _ in range(dice.randint(1, 5)):
        place = dice.randrange(len(data) + 1)
        kind = dice.randrange(4)
        if kind == 0:
            data[place:place] = dice.choice(_TOKENS)
        elif kind == 1:
            del data[place : place + dice.randint(1, 20)]
        elif kind == 2:
            data[place : place + 1] = dice.randbytes(1)
        else:
            data[place:place] = data[: dice.randrange(len(data) + 1)]
    return bytes(data)


def _mutations(dice: random.Random, connect: Connect) -> None:
    with closing(connect()) as connection:
        for _ in range(dice.randint(1, 4)):
            connection.sendall(_mutated(dice))
        _read(connection, dice.choice((0.001, 0.02)))


def _half_closed(dice: random.Random, connect: Connect) -> None:
    with closing(connect()) as connection:
        data = dice.choice(_REQUESTS)
        connection.sendall(data[: dice.randint(0, len(data))])
        socket.socket.shutdown(connection, dice.choice((socket.SHUT_WR, socket.SHUT_RD)))
        _read(connection, 0.01)


def _reset(dice: random.Random, connect: Connect) -> None:
    """Go away with a TCP reset, in the middle of something."""
    with closing(connect()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for _ in range(dice.randint(1, 3)):
            connection.sendall(dice.choice(_REQUESTS))


def _pipelined(dice: random.Random, connect: Connect) -> None:
    with closing(connect()) as connection:
        connection.sendall(b"".join(dice.choices(_REQUESTS, k=dice.randint(2, 12))))
        _read(connection, 0.02)


def _byte_by_byte(dice: random.Random, connect: Connect) -> None:
    with closing(connect()) as connection:
        data = dice.choice(_REQUESTS)
        for place in range(len(data)):
            connection.send(data[place : place + 1])
        _read(connection, 0.01)


def _frame(dice: random.Random) -> bytes:
    """Make a WebSocket frame, which may be valid."""
    payload = dice.choice(
        (
            b'{"type":"subscribe","channel":"**","since":"earliest"}',
            b'{"type":"publish","channel":"fuzz","data":"x"}',
            b'{"type":"publish","channel":"fuzz","data_base64":"!"}',
            b'{"type":"unsubscribe","channel":"fuzz"}',
            b"[" * 5000,
            b'{"type":1e999,"ref":{}}',
            b'"\\ud800"',
            struct.pack("!H", dice.choice((1000, 1005, 1006, 0, 65535))) + b"\xff\xfe",
            dice.randbytes(dice.choice((0, 1, 2, 130, 70000))),
        )
    )
    first = dice.choice((0x81, 0x82, 0x88, 0x89, 0x8A, 0x01, 0x80, dice.randrange(256)))
    is_masked = dice.random() < 0.9
    length = len(payload) if dice.random() < 0.9 else dice.choice((0, 2**16, 2**62))
    mask_bit = 0x80 if is_masked else 0
    if length < 126:
        head = struct.pack("!BB", first, mask_bit | length)
    elif length < 2**16:
        head = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, length)
    if not is_masked:
        return head + payload
    mask = dice.randbytes(4)
    key = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
    masked = (int.from_bytes(payload, "big") ^ key).to_bytes(len(payload), "big")
    return head + mask + masked


def _frames(dice: random.Random, connect: Connect) -> None:
    """Shake hands properly, and then send garbage."""
    with closing(connect()) as connection:
        connection.sendall(_HANDSHAKE.replace(b"fuzz", dice.choice((b"fuzz", b"fuzz&format=raw"))))
        assert _read(connection, 5).startswith(b"HTTP/1.1 101 ")
        for _ in range(dice.randint(1, 8)):
            connection.sendall(_frame(dice) if dice.random() < 0.9 else dice.randbytes(50))
        _read(connection, 0.01)


def _http2_frame(dice: random.Random) -> bytes:
    """Make a frame of HTTP/2, which may be valid: often the beginning of a request, or a part of its body."""
    flags, stream_id = dice.choice((0, 1, 4, 5, dice.randrange(256))), dice.choice((0, *range(1, 9)))
    which = dice.random()
    if which < 0.4:
        kind, payload = 1, dice.choice(_HEADS)
    elif which < 0.6:
        kind, payload = 0, dice.choice((b"hello", b"", _PUBLISH_MANY, b"\x81\x80\0\0\0\0", dice.randbytes(9000)))
    else:
        kind = dice.choice((dice.randrange(11), dice.randrange(256)))
        payload = dice.randbytes(dice.choice((0, 1, 4, 5, 6, 8, 12, 36, 300)))
    length = len(payload) if dice.random() < 0.97 else dice.randrange(2**24)
    return struct.pack("!I", length)[1:] + struct.pack("!BBI", kind, flags, stream_id) + payload


def _http2_frames(dice: random.Random, connect: Connect) -> None:
    """Begin as HTTP/2 does, and then send frames, some of them damaged on the way."""
    with closing(connect()) as connection:
        connection.sendall(_PREFACE)
        for _ in range(dice.randint(1, 5)):
            data = bytearray(b"".join(_http2_frame(dice) for _ in range(dice.randint(1, 10))))
            if dice.random() < 0.2:
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            connection.sendall(data)
            _read(connection, 0.003)


ATTACKS = {
    "random bytes": (_random_bytes, ("tcp", "tls", "tls without tls", "unix")),
    "mutated requests": (_mutations, ("tcp", "tls", "unix")),
    "half-closed": (_half_closed, ("tcp", "tls", "unix")),
    "reset": (_reset, ("tcp", "tls", "tls without tls")),
    "pipelined": (_pipelined, ("tcp", "tls", "unix")),
    "byte by byte": (_byte_by_byte, ("tcp", "unix")),
    "frames": (_frames, ("tcp", "tls", "unix")),
    "random bytes over HTTP/2": (_random_bytes, ("http2",)),
    "frames of HTTP/2": (_http2_frames, ("http2",)),
}


def _survives(daemon: Daemon, before: int) -> None:
    """See that everything is as if nothing had happened since the log was `before` characters long."""
    assert not daemon.has_ended

    def is_alone() -> bool:
        counts = daemon.counts
        return bool(counts["connections"] == 1 and counts["subscribers"] == 0)

    eventually(is_alone, "nobody is connected")
    published = daemon.publish("after", "well")
    page = daemon.get("/poll?channel=after&since=earliest")
    assert page["events"][-1]["id"] == published["id"]
    log = daemon.log[before:]
    complaint = re.search(r"(?m)^.*(Traceback|Unhandled|fault in pushd|dropped )", log)
    if complaint is not None:
        pytest.fail(f"PUSHD_FUZZ_SEED={SEED}: {log[max(0, complaint.start() - 500) : complaint.end() + 3000]}")
    assert daemon.stderr == ""


class TestFuzz:
    """Garbage, at every door."""

    @pytest.mark.parametrize("what", ATTACKS)
    def test_garbage_changes_nothing(self, daemon: Daemon, what: str) -> None:
        attack, doors = ATTACKS[what]
        dice = random.Random(f"{SEED} {what}")
        before = len(daemon.log)
        end = monotonic() + SECONDS_PER_ATTACK
        count = 0
        while monotonic() < end:
            entry = DOORS[doors[count % len(doors)]]
            with suppress(OSError):
                attack(dice, lambda entry=entry: entry(daemon))  # type: ignore[misc]
            count += 1
        print(f"{count} connections")
        assert count > 20
        _survives(daemon, before)

    def test_requests_that_end_at_any_byte_change_nothing(self, daemon: Daemon) -> None:
        before = len(daemon.log)
        doors = [DOORS["tcp"], DOORS["unix"]]
        for number, data in enumerate(_REQUESTS):
            for size in range(len(data) + 1):
                with suppress(OSError), closing(doors[(number + size) % 2](daemon)) as connection:
                    connection.sendall(data[:size])
        _survives(daemon, before)

    @pytest.mark.parametrize("what", FOUND)
    def test_what_was_found_once_is_refused(self, daemon: Daemon, what: str) -> None:
        before = len(daemon.log)
        with closing(_plain(daemon)) as connection:
            connection.sendall(FOUND[what])
            assert re.match(rb"HTTP/1\.1 [24]\d\d ", _read(connection, 5))
        _survives(daemon, before)

    def test_a_connection_that_says_nothing_is_closed_in_time(self, daemon: Daemon) -> None:
        before = len(daemon.log)
        connections = {name: entry(daemon) for name, entry in DOORS.items()}
        connections["tcp"].sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        began = monotonic()
        for name, connection in connections.items():
            with closing(connection):
                connection.settimeout(15)
                with suppress(ConnectionResetError):
                    said = connection.recv(100)
                    if name == "tcp":
                        assert said.startswith(b"HTTP/1.1 408 ")
                    elif name == "http2":
                        assert said[3:5] == b"\4\0", "the settings of the server"
                        while connection.recv(100):
                            pass
                    else:
                        assert said == b""
        assert 3 < monotonic() - began < 12
        _survives(daemon, before)

    def test_many_connections_at_once_are_served(self) -> None:
        with running(counts=True) as daemon:
            connections = [_plain(daemon) for _ in range(300)]
            try:
                eventually(lambda: daemon.counts["connections"] == 301, "all are let in")
            finally:
                for connection in connections:
                    connection.close()
            _survives(daemon, 0)
