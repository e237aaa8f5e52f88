"""A daemon behind proxies: whom it believes about where clients are."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Thread
from time import monotonic
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect

from tests.e2e.daemon import Daemon, running, tcp, twistd
from tests.e2e.programs import eventually, program

pytestmark = pytest.mark.timeout(90)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 443\r\n"
V1_6 = b"PROXY TCP6 2001:db8::9 ::1 4711 443\r\n"
V2 = (
    SIGNATURE
    + struct.pack("!BBH", 0x21, 0x11, 12 + 5)
    + socket.inet_aton("203.0.113.9")
    + socket.inet_aton("127.0.0.1")
    + struct.pack("!HH", 4711, 443)
    + b"\x04\0\x02ab"
)
V2_LOCAL = SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)

CONFIG = """
[auth]
anonymous = publish, subscribe
[log]
requests = yes
[proxies]
trusted = 127.0.0.1, unix
[limits]
head_timeout = 1s
"""
LISTENERS = (
    tcp("http")
    + tcp("https", tls=True)
    + tcp("proxied")
    + "proxy_protocol = yes\n"
    + tcp("proxied-tls", tls=True)
    + "proxy_protocol = yes\n"
    + "[listen:unix]\nendpoint = unix:{directory}/pushd.sock:lockfile=0\nproxy_protocol = yes\n"
)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(CONFIG, listeners=LISTENERS) as started:
        yield started


def port_of(url: str) -> int:
    """Return the port of a URL."""
    port = urlsplit(url).port
    assert port is not None
    return port


class Relay:
    """A proxy that speaks the PROXY protocol: what comes is passed on after a header."""

    def __init__(self, target: int, header: bytes, piece: int) -> None:
        """Pass on to the port `target`, the header in pieces of so many bytes."""
        self._target, self._header, self._piece = target, header, piece
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self.passed: list[bytes] = []
        """What went through, in either direction."""
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [client, server]
                for start in range(0, len(self._header), self._piece):
                    server.sendall(self._header[start : start + self._piece])
                for one, other in ((client, server), (server, client)):
                    Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                self.passed.append(data)
                other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """End the connections that there are."""
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self) -> None:
        """End everything."""
        for one in (self._server, *self._sockets):
            one.close()


@contextmanager
def relay(url: str, header: bytes, piece: int = 1000) -> Iterator[int]:
    """Run a relay to the daemon at `url` within the context; yield its port."""
    with closing(Relay(port_of(url), header, piece)) as started:
        yield started.port


def curl(*arguments: str) -> str:
    """Run curl to its end, and answer what it says."""
    command = [program("curl"), "-sS", "--noproxy", "*", "--max-time", "20", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done
    return done.stdout


def talk(url: str, data: bytes, source: str = "127.0.0.1", timeout_s: float = 10) -> bytes:
    """Send `data` from the address `source` over a connection of its own; answer all that comes."""
    with closing(socket.create_connection(("127.0.0.1", port_of(url)), timeout_s, (source, 0))) as connection:
        return exchange(connection, data)


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """Send `data` and answer all that comes."""
    answer = b""
    with suppress(ConnectionError):
        connection.sendall(data)
        while part := connection.recv(65536):
            answer += part
    return answer


def get(path: str, *fields: str) -> bytes:
    """Write a request, after which the connection ends."""
    lines = (f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *fields)
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Log:
    """What the daemon logs from now on."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._start = len(daemon.log)

    def wait(self, text: str) -> None:
        """Wait until it has `text`."""
        eventually(lambda: text in self._daemon.log[self._start :], f"the log has {text!r}")


class TestProxyProtocol:
    @pytest.mark.parametrize(("header", "piece"), [(V1, 1000), (V1, 1), (V2, 1000), (V2, 1)])
    def test_over_http_1_the_log_shows_the_client(self, daemon: Daemon, header: bytes, piece: int) -> None:
        log = Log(daemon)
        with relay(daemon.urls[2], header, piece) as port:
            assert '"ok"' in curl(f"http://127.0.0.1:{port}/healthz")
        log.wait("200 GET /healthz from 203.0.113.9:4711, ")

    @pytest.mark.parametrize("version", ["--http1.1", "--http2"])
    @pytest.mark.parametrize(("header", "piece"), [(V1, 7), (V2, 1000)])
    def test_over_tls_too(self, daemon: Daemon, version: str, header: bytes, piece: int) -> None:
        log = Log(daemon)
        with relay(daemon.urls[3], header, piece) as port:
            url = f"https://localhost:{port}/channels/{version[2:6]}?{len(header)}"
            said = curl(version, "--cacert", str(daemon.certificate), "-d", "x", "-w", "%{http_version}", url)
        assert said.endswith("\n2" if version == "--http2" else "\n1.1")
        log.wait(f"201 POST /channels/{version[2:6]} from 203.0.113.9:4711, ")

    def test_over_ipv6(self, daemon: Daemon) -> None:
        log = Log(daemon)
        talk(daemon.urls[2], V1_6 + get("/healthz?6"))
        log.wait("200 GET /healthz from [2001:db8::9]:4711, ")

    def test_over_a_unix_socket(self, daemon: Daemon) -> None:
        log = Log(daemon)
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.settimeout(10)
            connection.connect(str(daemon.socket))
            assert exchange(connection, V2 + get("/healthz")).startswith(b"HTTP/1.1 200 ")
        log.wait("200 GET /healthz from 203.0.113.9:4711, ")

    def test_a_proxy_may_speak_for_itself(self, daemon: Daemon) -> None:
        log = Log(daemon)
        assert talk(daemon.urls[2], V2_LOCAL + get("/healthz?local")).startswith(b"HTTP/1.1 200 ")
        log.wait("200 GET /healthz from 127.0.0.1:")

    def test_of_whom_the_proxy_does_not_know_that_is_said(self, daemon: Daemon) -> None:
        log = Log(daemon)
        assert talk(daemon.urls[2], b"PROXY UNKNOWN\r\n" + get("/healthz")).startswith(b"HTTP/1.1 200 ")
        log.wait("200 GET /healthz from somebody behind 127.0.0.1:")

    def test_the_host_is_the_one_that_the_client_connected_to(self, daemon: Daemon) -> None:
        elsewhere = V1.replace(b"127.0.0.1", b"198.51.100.1")
        assert b" 403 " in talk(daemon.urls[2], elsewhere + get("/channels/x")).split(b"\r\n")[0]
        asked = get("/channels/x").replace(b"localhost", b"198.51.100.1")
        assert b" 403 " not in talk(daemon.urls[2], elsewhere + asked).split(b"\r\n")[0]

    @pytest.mark.parametrize("is_tls", [False, True])
    def test_a_websocket_works_and_its_end_shows_the_client(self, daemon: Daemon, is_tls: bool) -> None:
        log = Log(daemon)
        context = ssl.create_default_context(cafile=str(daemon.certificate)) if is_tls else None
        url = f"ws{'s' if is_tls else ''}://localhost"
        big = "x" * 500_000

        async def receive(port: int) -> None:
            websocket_url = f"{url}:{port}/ws?channel=proxied&format=raw"
            async with connect(websocket_url, ssl=context, proxy=None) as client:  # sync: see test_mutual_tls.py
                is_there = partial(daemon.has_subscribers, "proxied", 1)
                await asyncio.to_thread(eventually, is_there, "it is subscribed")
                await asyncio.to_thread(daemon.publish, "proxied", big)
                assert await asyncio.wait_for(client.recv(), 10) == big
                await client.send("y" * (2 * 1024 * 1024))  # more than an event may have
                await asyncio.to_thread(log.wait, "websocket of 203.0.113.9:4711 ended after ")

        with relay(daemon.urls[3 if is_tls else 2], V2, 5) as port:
            asyncio.run(receive(port))

    def test_a_stream_over_http_2_works(self, daemon: Daemon) -> None:
        with relay(daemon.urls[3], V2, 3) as port, ExitStack() as stack:
            command = [program("curl"), "-sSN", "--noproxy", "*", "--http2", "--max-time", "30"]
            command += ["--cacert", str(daemon.certificate), f"https://localhost:{port}/stream?channel=h2proxied"]
            stream = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(stream.kill)
            eventually(lambda: daemon.has_subscribers("h2proxied", 1), "it is subscribed")
            for number in range(20):
                daemon.publish("h2proxied", f"{number}{'x' * 20_000}")
            assert stream.stdout is not None
            events = (json.loads(line) for line in stream.stdout if line.strip())
            datas = (event["data"] for event in events if event["type"] == "event")
            assert [len(next(datas)) for _ in range(20)] == [20_001 + (number > 9) for number in range(20)]


class TestForwarded:
    """What is said in each request. ``/healthz`` is served to everybody, wherever they are."""

    def asks(self, daemon: Daemon, url: str, start: bytes, field: str, source: str = "127.0.0.1") -> bytes:
        """Ask for the state of a channel with a field, after `start`; answer the first line that comes."""
        return talk(url, start + get("/channels/forwarded", field), source).split(b"\r\n")[0]

    def test_the_proxy_is_believed(self, daemon: Daemon) -> None:
        log = Log(daemon)
        self.asks(daemon, daemon.http, b"", "X-Forwarded-For: 6.6.6.6, 203.0.113.7")
        log.wait(" GET /channels/forwarded from 203.0.113.7 by way of 127.0.0.1:")

    def test_others_are_not(self, daemon: Daemon) -> None:
        log = Log(daemon)
        self.asks(daemon, daemon.http, b"", "X-Forwarded-For: 203.0.113.7", "127.0.0.2")
        log.wait(" GET /channels/forwarded from 127.0.0.2:")

    @pytest.mark.parametrize("start", [V1, V2, b"PROXY UNKNOWN\r\n"])
    def test_nor_is_the_client_of_a_proxy_that_speaks_the_proxy_protocol(
        self, daemon: Daemon, start: bytes
    ) -> None:
        log = Log(daemon)
        assert b" 400 " not in self.asks(daemon, daemon.urls[2], start, "X-Forwarded-For: nonsense")
        self.asks(daemon, daemon.urls[2], start, "X-Forwarded-For: 6.6.6.6")
        unknown = b"UNKNOWN" in start
        log.wait(f" GET /channels/forwarded from {'somebody behind 127.0.0.1:' if unknown else '203.0.113.9:4711'}")

    def test_two_proxies_one_after_the_other_are(self, daemon: Daemon) -> None:
        log = Log(daemon)
        start = V1.replace(b"203.0.113.9", b"127.0.0.1")
        self.asks(daemon, daemon.urls[2], start, "X-Forwarded-For: 203.0.113.7")
        log.wait(" GET /channels/forwarded from 203.0.113.7 by way of 127.0.0.1:4711")

    def test_what_is_malformed_is_refused(self, daemon: Daemon) -> None:
        assert b" 400 " in self.asks(daemon, daemon.http, b"", "X-Forwarded-For: nonsense")
        assert b" 400 " not in self.asks(daemon, daemon.http, b"", "Forwarded: nonsense")
        assert b" 400 " not in self.asks(daemon, daemon.http, b"", "X-Forwarded-For: nonsense", "127.0.0.2")


class TestNotTrusted:
    """Those who would like to be somebody else."""

    def test_others_than_the_proxies_get_no_connection(self, daemon: Daemon) -> None:
        log = Log(daemon)
        for header in (V1, V2, b""):
            assert talk(daemon.urls[2], header + get("/healthz"), "127.0.0.2") == b""
        log.wait("refused a connection from 127.0.0.2:")
        log.wait(": only those in [proxies] trusted may speak the PROXY protocol")

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (get("/healthz"), "the PROXY protocol header is missing"),
            (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "the PROXY protocol header is missing"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n", "the line of version 1 is malformed"),
            (b"PROXY TCP4" + b" " * 200, "the line of version 1 is longer than 107 bytes"),
            (SIGNATURE + b"\x21\x11\xff\xff", "the header of version 2 is longer than 16384 bytes"),
            (SIGNATURE + b"\x21\x11\0\0", "the header of version 2 is too short for its family, 0x11"),
        ],
    )
    @pytest.mark.parametrize("listener", [2, 3])
    def test_who_sends_no_good_header_gets_nothing(
        self, daemon: Daemon, data: bytes, why: str, listener: int
    ) -> None:
        log = Log(daemon)
        assert talk(daemon.urls[listener], data) == b""
        log.wait(f": {why}")

    @pytest.mark.parametrize("data", [b"", V1[:-1], V2[:-1]])
    def test_who_takes_too_long_is_closed(self, daemon: Daemon, data: bytes) -> None:
        log = Log(daemon)
        start = monotonic()
        assert talk(daemon.urls[3], data) == b""
        assert 0.9 < monotonic() - start < 5
        log.wait(": no PROXY protocol header within 1 s")

    def test_a_header_means_nothing_where_none_is_expected(self, daemon: Daemon) -> None:
        log = Log(daemon)
        assert talk(daemon.http, V1 + get("/healthz")).startswith(b"HTTP/1.1 400 ")
        log.wait("refused a request from 127.0.0.1:")


class TestConfiguration:
    def test_headers_of_proxies_without_proxies_are_found_by_the_check(self, tmp_path: Path) -> None:
        config = tmp_path / "pushd.ini"
        config.write_text(f"[pushd]\nstore = memory\n{tcp('a')}proxy_protocol = yes\n")
        done = twistd("-n", "pushd", "--check", "--config", str(config), directory=tmp_path)
        assert done.returncode == 1
        assert "[listen:a] proxy_protocol = yes: wanted the addresses of the proxies" in done.stderr

    def test_a_stop_does_not_wait_for_who_sends_no_header(self) -> None:
        config = CONFIG.replace("head_timeout = 1s", "head_timeout = 60s")
        with (
            running(config, listeners=LISTENERS, counts=True) as daemon,
            closing(socket.create_connection(("127.0.0.1", port_of(daemon.urls[2])))) as connection,
        ):
            connection.sendall(V1[:9])
            eventually(lambda: daemon.counts["connections"] >= 2, "it is there")
            start = monotonic()
            daemon.stop()
            assert monotonic() - start < 4
