"""Thousands of connections that do the same thing in the same moment: many turns of the reactor, and none is long.

The daemon is stopped (SIGSTOP) while the clients send, so that all of it is there when it goes on.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep

import pytest

from tests.e2e.crowds import Crowd, all_at_once, may_open
from tests.e2e.daemon import Daemon, running, tcp
from tests.e2e.hook_server import hook_server

LONGEST_MS = 20.0
"""How long a turn may take, in CPU time of the reactor's thread."""

ATTEMPTS = 3
"""How often a flood may be tried: the machine has its moods, but not all three times."""

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
SSE = b"GET /sse?channel=news HTTP/1.1\r\nHost: localhost\r\n\r\n"
WS = (
    b"GET /ws?channel=news HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def post(channel: str) -> bytes:
    """Return a request that publishes."""
    return b"POST /channels/%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello" % channel.encode()


def command(**fields: object) -> bytes:
    """Return a command of a WebSocket as a masked frame, whose mask is 0."""
    text = json.dumps(fields).encode()
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text


def answered(heard: bytes) -> bool:
    """Whether there is a whole answer with a JSON document or nothing in it."""
    head, end, body = heard.partition(b"\r\n\r\n")
    return bool(end) and (body.endswith((b"}", b"}\n")) or b"Content-Length: 0" in head)


def contains(end: bytes, heard: bytes) -> bool:
    """Whether `end` has come."""
    return end in heard


@pytest.fixture(scope="module", autouse=True)
def _many_files() -> None:
    if not may_open(12_000):
        pytest.skip("12,000 open files are needed")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """Serve all of the floods."""
    with running("", listeners=tcp("http") + tcp("https", tls=True), measures_turns=True) as started:
        yield started


@contextmanager
def measured(daemon: Daemon, longest: list[float]) -> Iterator[None]:
    """Add the longest turn of this to `longest`."""
    assert daemon.turns is not None
    daemon.get("/healthz")
    daemon.turns.reset()
    yield
    daemon.get("/healthz")
    sleep(0.05)
    daemon.get("/healthz")
    longest.append(daemon.turns.longest_ms)


def flood(daemon: Daemon, count: int, *says: tuple[bytes, bytes | None]) -> list[float]:
    """Have so many come, send each of `says` until they hear what goes with it, and go, each at once.

    Return the longest turn in each step.
    """
    longest: list[float] = []
    with Crowd(daemon.http) as group:
        with measured(daemon, longest):
            with all_at_once(daemon):
                group.come(count)
            group.until_let_in(daemon)
        for text, end in says:
            with measured(daemon, longest):
                with all_at_once(daemon):
                    group.say(text)
                is_enough = answered if end is None else partial(contains, end)
                heard = group.hear(is_enough)
            assert all(map(is_enough, heard))
        with measured(daemon, longest):
            with all_at_once(daemon):
                group.leave()
            group.until_let_in(daemon, 0)
    return longest


def assert_short(daemon: Daemon, count: int, *says: tuple[bytes, bytes | None]) -> None:
    """Each step of such a flood has short turns only, in one of some attempts."""
    best = flood(daemon, count, *says)
    for _ in range(ATTEMPTS):
        if max(best) < LONGEST_MS:
            return
        best = list(map(min, best, flood(daemon, count, *says)))
    raise AssertionError(f"the longest turn in each step, in ms: {best}")


class TestFloods:
    """What everybody may send, from so many connections at once."""

    def test_of_reads_over_connections_that_stay_open(self, daemon: Daemon) -> None:
        assert_short(daemon, 4000, (GET, None), (GET, None))

    def test_of_publishing(self, daemon: Daemon) -> None:
        assert_short(daemon, 4000, (post("flood"), None), (post("flood"), None))

    def test_of_event_streams(self, daemon: Daemon) -> None:
        assert_short(daemon, 3000, (SSE, b"event: pushd.open"))

    def test_of_commands_of_websockets(self, daemon: Daemon) -> None:
        assert_short(
            daemon,
            2000,
            (WS, b'"subscribed"'),
            (command(type="subscribe", channel="other"), b'"other"'),
            (command(type="publish", channel="third", data="x", ref=1), b'"published"'),
        )

    def test_others_are_served_meanwhile(self, daemon: Daemon) -> None:
        with Crowd(daemon.http) as group, Crowd(daemon.http) as other:
            group.come(4000)
            other.come(1)
            group.until_let_in(daemon, 4001)
            with all_at_once(daemon):
                group.say(GET * 20)
                other.say(GET)
            other.hear(answered)
            behind = sum(1 for client in group.clients if not _has_all(client.recv(2**20), 20))
            assert behind > 1000


def _has_all(heard: bytes, count: int) -> bool:
    return heard.count(b"HTTP/1.1 200") == count


class TestHandshakes:
    """TLS, of which each step takes a millisecond."""

    def test_of_a_thousand_clients(self, daemon: Daemon) -> None:
        best = [float("inf")]
        for _ in range(ATTEMPTS):
            best = min(best, self.handshakes(daemon, 1000), key=max)
            if max(best) < LONGEST_MS:
                return
        raise AssertionError(f"the longest turn in each step, in ms: {best}")

    def handshakes(self, daemon: Daemon, count: int) -> list[float]:
        """Have so many say hello at once, end their handshakes at once with a request behind it, and go."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        longest: list[float] = []
        with Crowd(daemon.https) as group:
            group.come(count)
            group.until_let_in(daemon)
            sides = []
            for _ in range(count):
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                sides.append((context.wrap_bio(incoming, outgoing), incoming, outgoing))
                with pytest.raises(ssl.SSLWantReadError):
                    sides[-1][0].do_handshake()
            with measured(daemon, longest):
                with all_at_once(daemon):
                    for client, (_, _, outgoing) in zip(group.clients, sides, strict=True):
                        client.send(outgoing.read())
                answers = group.hear(lambda heard: len(heard) > 500)
            lasts = []
            for (side, incoming, outgoing), answer in zip(sides, answers, strict=True):
                incoming.write(answer)
                side.do_handshake()
                side.write(GET)
                lasts.append(outgoing.read())
            with measured(daemon, longest):
                with all_at_once(daemon):
                    for client, last in zip(group.clients, lasts, strict=True):
                        client.send(last)
                group.hear(lambda heard: len(heard) > 200)
            with measured(daemon, longest):
                with all_at_once(daemon):
                    group.leave()
                group.until_let_in(daemon, 0)
        return longest


class TestQuestions:
    """Requests about which the application is asked."""

    def test_of_400_connections(self) -> None:
        with TemporaryDirectory(prefix="pushd-") as directory:
            secret = Path(directory) / "secret"
            secret.write_text("whsec_dGhlIHNlY3JldCBvZiBhbGwgaG9va3MsIDMyIGJ5dGU=\n")
            secret.chmod(0o600)
            with hook_server(secret.read_text().strip()) as application:
                hooks = f"[hooks]\nbefore_publish = {application.url}/ask\nsecret_file = {secret}\n"
                with running(hooks, listeners=tcp("http"), measures_turns=True) as daemon:
                    assert_short(daemon, 400, (post("asked"), None))
