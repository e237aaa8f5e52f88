"""Hostile clients, with sockets of their own: what they send is refused, and what they hold is let go."""

from __future__ import annotations

import re
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPResponse
from time import monotonic, sleep
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.daemon import Daemon, request, running, tcp
from tests.e2e.programs import eventually

pytestmark = pytest.mark.timeout(150)

HALF_OPEN = 1000
"""How many connections say nothing, and how many others say something very slowly."""

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"

_START = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\n"
_CHUNKED = _START + b"Transfer-Encoding: chunked\r\n\r\n"

SMUGGLERS: dict[str, bytes] = {
    "length and chunks": _START + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "chunks and length": _START + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n",
    "chunks, spelled with a space": _START + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "chunks, spelled with a tab": _START + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "chunks, after a space": _START + b" Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunks, after a vertical tab": _START
    + b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunks, folded": _START + b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunks, in quotes": _START + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunks, with others": _START + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "chunks, twice": _START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunks, over HTTP/1.0": b"POST /channels/news HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks, behind a bare LF": _START + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks, behind a bare CR": _START + b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks, behind NUL": _START + b"X: y\0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": _START + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
    "two lengths that are alike": _START + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": _START + b"Content-Length: 5, 0\r\n\r\nhello",
    "a length with a sign": _START + b"Content-Length: +5\r\n\r\nhello",
    "a length below nothing": _START + b"Content-Length: -5\r\n\r\nhello",
    "a length in hexadecimal": _START + b"Content-Length: 0x5\r\n\r\nhello",
    "a length in other digits": _START + b"Content-Length: \xd9\xa5\r\n\r\nhello",
    "a length without end": _START + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
    "a length that is empty": _START + b"Content-Length:\r\n\r\nhello",
    "a chunk below nothing": _CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk in 0x": _CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than it says": _CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
    "a chunk that overflows": _CHUNKED + b"f" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    "a chunk with LF": _CHUNKED + b"5\nhello\n0\n\n" + b"\r\n",
    "a chunk with a CR in its extension": _CHUNKED + b"5;a=b\rc\r\nhello\r\n0\r\n\r\n",
    "a chunk extension without end": _CHUNKED + b"5;" + b"a" * 20_000 + b"\r\nhello\r\n0\r\n\r\n",
    "a length in the trailers": _CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n",
    "a host in the trailers": _CHUNKED + b"5\r\nhello\r\n0\r\nHost: elsewhere\r\n\r\n",
    "trailers with LF": _CHUNKED + b"5\r\nhello\r\n0\r\nA: b\n\n\r\n\r\n",
    "trailers without end": _CHUNKED + b"5\r\nhello\r\n0\r\nA: " + b"b" * 70_000,
    "LF only": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
    "LF in the first line": b"GET /healthz HTTP/1.1\nHost: localhost\r\n\r\n",
    "CR in the target": b"GET /health\rz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "NUL in the target": b"GET /healthz\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a space in the target": b"GET /healthz HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\nHost: localhost\r\n\r\n",
    "HTTP/2.0": b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http in lower case": b"GET /healthz http/1.1\r\nHost: localhost\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a target that is no path": b"GET healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "the target of a tunnel": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another host in the target": b"GET http://elsewhere/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a space before the first field": b"GET /healthz HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "a field without a name": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n",
    "a field without a colon": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX\r\n\r\n",
    "one field too many": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 501 + b"\r\n",
    "one field too long": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 17_000 + b"\r\n\r\n",
    "a target too long": b"GET /" + b"y" * 17_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a query too long": b"GET /sse?channel=" + b"y" * 17_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS where there is none": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60) + b"\r\n\r\n",
}
"""Requests of which somebody else may think that they end elsewhere, or that they are others."""


def connected(url: str) -> socket.socket:
    """Connect, with TLS if `url` says so."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), 15)
    if parts.scheme != "https":
        return connection
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connection)


def everything(connection: socket.socket, timeout_s: float = 10) -> bytes:
    """Return all that comes until the connection ends, or until nothing has come for a while."""
    connection.settimeout(timeout_s)
    found = b""
    with suppress(OSError):
        while data := connection.recv(1 << 16):
            found += data
    return found


def statuses(answers: bytes) -> list[int]:
    """Return the status codes of the answers."""
    return [int(code) for code in re.findall(rb"(?:\A|\n|\})HTTP/1\.1 (\d\d\d) ", answers)]


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """Let this process, and those that it starts, have so many files open, if it may."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < count:
        pytest.skip(f"{count} files may not be open at once here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(count, before[0]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running("[log]\nrequests = yes\n") as started:
        yield started


class TestSmuggling:
    """What may be one request or another is none, and nothing behind it is one either."""

    @pytest.mark.parametrize("what", SMUGGLERS)
    def test_it_is_refused_once_and_the_connection_ends(self, daemon: Daemon, what: str) -> None:
        before, retained = len(daemon.log), daemon.get("/channels/news/events")["events"]
        with closing(connected(daemon.http)) as connection:
            connection.sendall(SMUGGLERS[what] + SMUGGLED)
            connection.shutdown(socket.SHUT_WR)
            answers = everything(connection)
        assert statuses(answers) == [400], answers
        assert b"\r\nConnection: close\r\n" in answers
        assert b"application/problem+json" in answers
        assert "smuggled" not in daemon.log[before:]
        assert daemon.get("/channels/news/events")["events"] == retained

    def test_what_has_one_meaning_is_served_and_so_is_what_follows(self, daemon: Daemon) -> None:
        with closing(connected(daemon.http)) as connection:
            for data in (
                _START + b"Content-Length: 5\r\nExpect: 100-continue, x\r\n\r\nhello",
                _START + b"Content-Length: 5\r\nExpect: nothing\r\n\r\nhello",
                _CHUNKED + b"5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n",
                b"\r\nGET http://localhost/none HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            ):
                connection.sendall(data)
            assert statuses(everything(connection)) == [201, 201, 201, 404, 404]

    def test_requests_behind_one_that_is_refused_are_not_served(self, daemon: Daemon) -> None:
        before = daemon.get("/channels/news/events")["events"]
        post = _START + b"Content-Length: 5\r\n\r\nhello"
        with closing(connected(daemon.http)) as connection:
            connection.sendall(post + _START + b"Content-Length: x\r\n\r\n" + post * 50)
            answers = b""
            while len(statuses(answers)) < 2:  # a client that ends its side may not hear that it has published
                data = connection.recv(1 << 16)
                assert data, answers
                answers += data
            connection.shutdown(socket.SHUT_WR)
            assert statuses(answers + everything(connection)) == [201, 400]
        assert len(daemon.get("/channels/news/events")["events"]) == len(before) + 1


class TestSlow:
    """Clients that hold what they can."""

    def test_thousands_of_half_open_connections_harm_nobody_and_end(self) -> None:
        sections = "[limits]\nhead_timeout = 5s\nrequest_timeout = 6s\nconnections = 5000\n[site]\ndemo = no\n"
        with many_files(5000), running(sections, listeners=tcp("http")) as daemon, ExitStack() as stack:
            address = urlsplit(daemon.http).hostname, urlsplit(daemon.http).port
            began = monotonic()
            slow, idle = (self.connections(stack, address, HALF_OPEN) for _ in range(2))
            assert daemon.get("/healthz")["connections"] == 2 * HALF_OPEN + 1
            slowest, ended = 0.0, 0
            while ended < 2 * HALF_OPEN and monotonic() < began + 40:
                asked = monotonic()
                assert daemon.publish("news", "hello")["offset"]
                slowest = max(slowest, monotonic() - asked)
                for connection in slow:
                    with suppress(OSError):
                        connection.send(b"x")
                ended = 2 * HALF_OPEN + 1 - daemon.get("/healthz")["connections"]
                sleep(0.3)
            took = monotonic() - began
            answered = sum(everything(it, 0.1).startswith(b"HTTP/1.1 408 ") for it in slow)
            print(f"{ended} connections ended within {took:.1f} s; the slowest answer took {slowest:.3f} s")
            assert ended == 2 * HALF_OPEN
            assert slowest < 1
            assert answered > HALF_OPEN * 0.9, "but for those whose last byte met a socket that was closed"
            assert [it for it in idle if everything(it, 0.1)] == []
            eventually(lambda: daemon.descriptors < 40, "their sockets are closed")

    def connections(self, stack: ExitStack, address: tuple[object, ...], count: int) -> list[socket.socket]:
        made = []
        for _ in range(count):
            made.append(stack.enter_context(closing(socket.create_connection(address, 15))))  # type: ignore[arg-type]
        return made

    def test_a_tls_handshake_that_is_not_completed_ends(self) -> None:
        with running("[limits]\nhead_timeout = 2s\n", listeners=tcp("http") + tcp("https", tls=True)) as daemon:
            parts = urlsplit(daemon.https)
            began = monotonic()
            with closing(socket.create_connection((parts.hostname, parts.port), 15)) as connection:
                connection.settimeout(0.2)
                hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
                for place in range(60):
                    try:
                        connection.send(hello[place : place + 1] or b"\0")
                        if connection.recv(100) == b"":
                            break
                    except TimeoutError:
                        continue
                    except OSError:
                        break
            assert 1.5 < monotonic() - began < 6
            eventually(lambda: "its TLS handshake took more than 2 s" in daemon.log, "it is logged")

    def test_a_websocket_message_that_is_not_completed_ends_it(self) -> None:
        with running("[limits]\nrequest_timeout = 2s\nbody_rate = 1MiB\n", listeners=tcp("http")) as daemon:
            with closing(connected(daemon.http)) as connection:
                connection.sendall(
                    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                )
                assert connection.recv(1000).startswith(b"HTTP/1.1 101 ")
                connection.sendall(b"\x81\xfe\x10\x00")
                frame = connection.recv(1000)
            assert (frame[0], frame[2:4]) == (0x88, (1008).to_bytes(2, "big")), frame
            assert b"only 4 bytes of a message arrived within 2 s" in frame


class TestTooMany:
    """More connections than there may be."""

    GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def test_they_are_told_so_over_every_protocol_and_a_flood_is_cut(self) -> None:
        sections = "[limits]\nconnections = 20\nhead_timeout = 3s\n[site]\ndemo = no\n"
        with running(sections) as daemon, ExitStack() as stack:
            full = [stack.enter_context(closing(connected(daemon.http))) for _ in range(20)]
            full[0].sendall(self.GET)
            assert self.status(full[0]) == 200
            for url in (daemon.http, daemon.https):
                with closing(connected(url)) as connection:
                    connection.sendall(self.GET)
                    answers = everything(connection)
                assert statuses(answers) == [503], answers
                assert b"\r\nRetry-After: 10\r\n" in answers
                assert b"20 connections are open: [limits] connections" in answers
            with httpx.Client(http2=True, verify=False, trust_env=False, timeout=15) as client:
                answer = client.get(f"{daemon.https}/healthz")
                assert (answer.http_version, answer.status_code) == ("HTTP/2", 503)
                assert answer.headers["retry-after"] == "10"
            self.flood(daemon)
            full[0].sendall(self.GET)
            assert self.status(full[0]) == 200, "who was there is served as ever"
            for connection in full[1:]:
                connection.close()
            eventually(lambda: request(f"{daemon.http}/healthz").status == 200, "there is room again")

    def status(self, connection: socket.socket) -> int:
        """Read one answer to its end, however long it takes on a machine with much to do; return its status."""
        connection.settimeout(15)
        with closing(HTTPResponse(connection)) as response:
            response.begin()
            response.read()
            return response.status

    def flood(self, daemon: Daemon) -> None:
        """Connect again and again, and say nothing: of most nothing is kept, nor written to the log."""
        before, parts, began = len(daemon.log), urlsplit(daemon.http), monotonic()
        with ExitStack() as stack:
            flood = []
            for _ in range(500):
                with suppress(ConnectionResetError):  # it is cut before the kernel has said that it is there
                    connection = socket.create_connection((parts.hostname, parts.port), 15)
                    flood.append(stack.enter_context(closing(connection)))
            eventually(lambda: daemon.descriptors < 20 + 64 + 40, "most are closed at once")
            eventually(lambda: daemon.descriptors < 20 + 40, "those that were to be told are closed too", 20)
            assert all(everything(it, 0.1) == b"" for it in flood)
        lines = [line for line in daemon.log[before:].splitlines() if "turned away" in line]
        assert 1 <= len(lines) <= 10 + 2 * (monotonic() - began), lines  # one a second for each reason
        assert sum(map(self.counted, lines)) >= 500

    def counted(self, line: str) -> int:
        """Return how many connections a line is about."""
        match = re.search(r"and (\d+) more like this", line)
        return 1 if match is None else int(match[1])


class TestNoFiles:
    """No file can be opened any more: the kernel has a connection, and nothing to give it with."""

    def test_the_daemon_neither_dies_nor_spins_and_recovers(self) -> None:
        with running("[limits]\nconnections = 10000\n[site]\ndemo = no\n", listeners=tcp("http")) as daemon:
            answering = connected(daemon.http)
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (daemon.descriptors + 20, 4096))
            parts = urlsplit(daemon.http)
            with ExitStack() as stack:
                stack.enter_context(closing(answering))
                for _ in range(100):
                    stack.enter_context(closing(socket.create_connection((parts.hostname, parts.port), 15)))
                eventually(lambda: "EMFILE" in daemon.log, "it has happened")
                busy, size = self.cpu_s(daemon), len(daemon.log)
                sleep(2)
                assert self.cpu_s(daemon) - busy < 0.5, "it does not spin"
                assert len(daemon.log) - size < 20_000
                answering.sendall(TestTooMany.GET)
                assert statuses(everything(answering, 1)) == [200], "who is there is served"
            eventually(lambda: self.is_served(daemon), "others are served again", 10)
            assert daemon.publish("news", "x")["offset"] == 1
            assert "Traceback" not in daemon.log

    def is_served(self, daemon: Daemon) -> bool:
        with suppress(OSError):
            return request(f"{daemon.http}/healthz").status == 200
        return False

    def cpu_s(self, daemon: Daemon) -> float:
        """Return how long it has used the processor."""
        with open(f"/proc/{daemon.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100
