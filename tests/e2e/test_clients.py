"""Other people's clients, against the running daemon."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from websockets.asyncio.client import connect

from tests.e2e.daemon import Daemon, environment, free_port, installed, request, running, tcp
from tests.e2e.programs import CLIENTS, Program, eventually, node, program, talking_to

pytestmark = pytest.mark.timeout(120)

_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\x1b[78]|\r")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(counts=True) as started:
        yield started


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    """Return the channel of one test."""
    return "test/" + re.sub(r"\W+", "-", request.node.name).strip("-")


def _url(daemon: Daemon, path: str, channel: str, scheme: str = "http") -> str:
    base = daemon.https if scheme == "https" else daemon.http
    return f"{base}{path}?channel={quote(channel, safe='')}"


def _channel_url(daemon: Daemon, channel: str, base: str | None = None) -> str:
    return f"{base or daemon.http}/channels/{quote(channel, safe='')}"


# curl


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run curl, and answer how it went."""
    command = [program("curl"), "-sS", "--noproxy", "*", "--max-time", "30", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60)


def following(*arguments: str) -> AbstractContextManager[Program]:
    """Run curl without its buffer."""
    return talking_to([program("curl"), "-sS", "-N", "--noproxy", "*", "--max-time", "60", *arguments])


class TestCurl:
    """What anybody tries first."""

    def test_it_publishes_what_d_says(self, daemon: Daemon, channel: str) -> None:
        done = curl("-d", "hello", _channel_url(daemon, channel))
        published = json.loads(done.stdout)
        assert (published["channel"], published["offset"], published["subscribers"]) == (channel, 1, 0)
        events = json.loads(curl(f"{_channel_url(daemon, channel)}/events").stdout)["events"]
        assert [(event["id"], event["data"]) for event in events] == [(published["id"], "hello")]

    def test_it_publishes_a_file_as_it_is(self, daemon: Daemon, channel: str, tmp_path: Path) -> None:
        data = bytes(range(256)) * 1990 + b"\r\n\0"
        file = tmp_path / "data"
        file.write_bytes(data)
        head = tmp_path / "head"
        curl("-D", str(head), "--data-binary", f"@{file}", _channel_url(daemon, channel))
        assert head.read_text().startswith("HTTP/1.1 201 ")
        (location,) = re.findall(r"(?im)^location: (\S+)", head.read_text())
        assert curl(f"{daemon.http}{location}").stdout == data

    def test_it_publishes_a_file_that_needs_100_continue(
        self, daemon: Daemon, channel: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "data"
        file.write_bytes(b"x" * 1000 * 1024)
        arguments = ("-H", "Expect: 100-continue", "-w", "%{time_total} %{http_code}", "-o", os.devnull)
        total, code = curl(*arguments, "--data-binary", f"@{file}", _channel_url(daemon, channel)).stdout.split()
        assert code == b"201"
        assert float(total) < 0.9, "curl waits a second for 100 Continue, and then sends anyway"

    def test_it_follows_an_event_stream(self, daemon: Daemon, channel: str) -> None:
        with following(_url(daemon, "/sse", channel)) as stream:
            stream.until("id: ")
            assert [stream.line() for _ in range(3)][::2] == ["event: pushd.open", ""]
            published = daemon.publish(channel, "one\ntwo", "?event=greeting")
            lines = [stream.line() for _ in range(5)]
            assert lines == [f"id: {published['id']}", "event: greeting", "data: one", "data: two", ""]

    def test_it_follows_a_stream_of_lines(self, daemon: Daemon, channel: str) -> None:
        with following(_url(daemon, "/stream", channel)) as stream:
            eventually(lambda: daemon.has_subscribers(channel, 1), "curl is subscribed")
            for number in range(3):
                daemon.publish(channel, str(number))
            assert json.loads(stream.line())["type"] == "open"
            events = [json.loads(stream.line()) for _ in range(3)]
            assert [(event["type"], event["data"], event["offset"]) for event in events] == [
                ("event", "0", 1),
                ("event", "1", 2),
                ("event", "2", 3),
            ]

    def test_a_replay_of_more_than_may_wait_for_a_client_comes_whole(self, daemon: Daemon, channel: str) -> None:
        """Events of up to ``event_size``, which together are more than ``outbox``."""
        sizes = [10_000, 1_024_000, 500_000, 1_024_000, 3]
        for size in sizes:
            daemon.publish(channel, "x" * size)
        with following(f"{_url(daemon, '/sse', channel)}&since=earliest") as stream:
            stream.until("data: {")
            assert [len(stream.until("data: ")) - len("data: ") for _ in sizes] == sizes

    def test_it_talks_over_a_unix_socket(self, daemon: Daemon, channel: str) -> None:
        socket = ("--unix-socket", str(daemon.socket))
        with following(*socket, _url(daemon, "/sse", channel).replace(daemon.http, "http://localhost")) as stream:
            stream.until("data: {")
            done = curl(*socket, "-d", "hello", _channel_url(daemon, channel, "http://localhost"))
            assert json.loads(done.stdout)["subscribers"] == 1
            assert stream.until("data: ") == "data: hello"

    def test_it_trusts_the_self_signed_certificate_when_told(self, daemon: Daemon, channel: str) -> None:
        ca = ("--cacert", str(daemon.certificate))
        localhost = daemon.https.replace("127.0.0.1", "localhost")
        for base in (daemon.https, localhost):
            done = curl(*ca, "-d", "hello", _channel_url(daemon, channel, base))
            assert json.loads(done.stdout)["channel"] == channel, done
        with following(*ca, f"{_url(daemon, '/sse', channel, 'https')}&since=earliest") as stream:
            stream.until("data: {")
            assert stream.until("data: ") == "data: hello"

    def test_it_does_not_otherwise(self, daemon: Daemon) -> None:
        assert curl(f"{daemon.https}/healthz").returncode == 60  # CURLE_PEER_FAILED_VERIFICATION

    def test_the_end_of_a_channel_ends_its_streams_properly(self, daemon: Daemon, channel: str) -> None:
        with following(_url(daemon, "/sse", channel)) as sse, following(_url(daemon, "/stream", channel)) as stream:
            eventually(lambda: daemon.has_subscribers(channel, 2), "they are subscribed")
            assert curl("-X", "DELETE", _channel_url(daemon, channel)).returncode == 0
            assert "event: pushd.closed" in list(sse.lines())
            assert json.loads(list(stream.lines())[-1])["type"] == "closed"
            assert (sse.process.wait(10), stream.process.wait(10)) == (0, 0)


# websockets


def _trusting(daemon: Daemon) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(daemon.certificate))


async def _next(websocket: Any, kind: str) -> dict[str, Any]:
    """Return the next message of a kind."""
    async with asyncio.timeout(15):
        while True:
            message: dict[str, Any] = json.loads(await websocket.recv())
            if message["type"] == kind:
                return message


class TestWebsockets:
    """The Python library of that name."""

    @pytest.mark.parametrize("scheme", ["ws", "wss"])
    def test_it_publishes_and_receives(self, daemon: Daemon, channel: str, scheme: str) -> None:
        async def talk() -> None:
            uri, trust = (daemon.ws, None) if scheme == "ws" else (daemon.wss, _trusting(daemon))
            async with connect(uri, ssl=trust, proxy=None) as websocket:
                await websocket.send(json.dumps({"type": "subscribe", "channel": channel, "ref": 1}))
                subscribed = await _next(websocket, "subscribed")
                assert (subscribed["channel"], subscribed["ref"]) == (channel, 1)
                text = "größer ☃ " * 1000
                message = {"type": "publish", "channel": channel, "data": text, "event": "t", "ref": "a"}
                await websocket.send(json.dumps(message))
                event = await _next(websocket, "event")
                assert (event["data"], event["event"], event["offset"]) == (text, "t", 1)
                published = await _next(websocket, "published")
                assert (published["id"], published["ref"]) == (event["id"], "a")
                daemon.publish(channel, "over HTTP")
                assert (await _next(websocket, "event"))["data"] == "over HTTP"
                await websocket.send(json.dumps({"type": "unsubscribe", "channel": channel}))
                await _next(websocket, "unsubscribed")
                assert await asyncio.wait_for(await websocket.ping(), 10) >= 0
            assert websocket.close_code == 1000

        asyncio.run(talk())

    def test_the_raw_format_carries_text_and_bytes_both_ways(self, daemon: Daemon, channel: str) -> None:
        async def talk() -> None:
            uri = f"{_url(daemon, '/ws', channel).replace('http:', 'ws:')}&format=raw"
            async with connect(uri, proxy=None) as websocket:
                for data in ("text", b"\0\xff", "x" * 100_000):
                    await websocket.send(data)
                    assert await asyncio.wait_for(websocket.recv(), 15) == data

        asyncio.run(talk())

    def test_a_client_resumes_where_its_connection_broke(self, daemon: Daemon, channel: str) -> None:
        async def talk() -> None:
            async with connect(f"{daemon.ws}?channel={channel}", proxy=None) as websocket:
                daemon.publish(channel, "first")
                last = await _next(websocket, "event")
                websocket.transport.abort()
            for data in ("missed", "missed too"):
                daemon.publish(channel, data)
            async with connect(f"{daemon.ws}?channel={channel}&since={last['id']}", proxy=None) as websocket:
                assert (await _next(websocket, "subscribed"))["recovered"] is True
                daemon.publish(channel, "live")
                received = [(await _next(websocket, "event"))["data"] for _ in range(3)]
                assert received == ["missed", "missed too", "live"]

        asyncio.run(talk())

    def test_its_command_line_talks(self, daemon: Daemon, channel: str) -> None:
        command = [sys.executable, "-m", "websockets", f"{daemon.ws}?channel={channel}"]
        with talking_to(command, environment={**os.environ, "no_proxy": "*"}) as client:
            client.until('"subscribed"')
            client.say(json.dumps({"type": "publish", "channel": channel, "data": "typed", "ref": 7}))
            event = _ESCAPES.sub("", client.until('"event"'))
            assert json.loads(event.partition("< ")[2])["data"] == "typed"
            assert '"ref":7' in client.until('"published"')
            client.finish()
            client.until("Connection closed: 1000 (OK)")


# Node


class TestNode:
    """The npm packages ``ws`` and ``eventsource``."""

    @pytest.mark.parametrize("scheme", ["ws", "wss"])
    def test_ws_publishes_and_receives(self, daemon: Daemon, channel: str, scheme: str) -> None:
        uri = daemon.ws if scheme == "ws" else daemon.wss
        with node("websocket.mjs", uri, CA_PEM=daemon.certificate.read_text()) as client:
            client.until('"open"')
            client.say(json.dumps({"type": "subscribe", "channel": channel}))
            client.until('"subscribed"')
            client.say(json.dumps({"type": "publish", "channel": channel, "data": "from node"}))
            assert json.loads(client.until('"event"'))["data"] == "from node"
            client.until('"published"')
            daemon.publish(channel, "to node")
            assert json.loads(client.until('"event"'))["data"] == "to node"
            client.finish()
            assert json.loads(client.until('"closed"'))["closed"] == 1000
            assert client.process.wait(10) == 0

    def test_ws_resumes_from_a_position(self, daemon: Daemon, channel: str) -> None:
        first = daemon.publish(channel, "seen")
        daemon.publish(channel, "missed")
        with node("websocket.mjs", daemon.ws) as client:
            client.until('"open"')
            client.say(json.dumps({"type": "subscribe", "channel": channel, "since": first["id"]}))
            assert json.loads(client.until('"subscribed"'))["recovered"] is True
            assert json.loads(client.until('"event"'))["data"] == "missed"

    def test_ws_is_told_when_a_channel_goes(self, daemon: Daemon, channel: str) -> None:
        with node("websocket.mjs", f"{daemon.ws}?channel={channel}") as client:
            client.until('"subscribed"')
            request(_channel_url(daemon, channel), "DELETE")
            last = json.loads(client.until('"closed"'))
            assert last["closed"] == 1000
            assert last["reason"]

    def test_eventsource_hears_typed_events(self, daemon: Daemon, channel: str) -> None:
        with node("eventsource.mjs", _url(daemon, "/sse", channel), "message", "greeting") as client:
            client.until('"open"')
            published = [
                daemon.publish(channel, "plain"),
                daemon.publish(channel, "unheard", "?event=other"),
                daemon.publish(channel, "typed\nin two lines", "?event=greeting"),
            ]
            received = [json.loads(client.line()) for _ in range(2)]
            assert received == [
                {"type": "message", "id": published[0]["id"], "data": "plain"},
                {"type": "greeting", "id": published[2]["id"], "data": "typed\nin two lines"},
            ]
            client.finish()
            assert client.process.wait(10) == 0
            eventually(lambda: daemon.has_subscribers(channel, 0), "it is gone")

    def test_eventsource_comes_back_by_itself_and_misses_nothing(self, channel: str) -> None:
        """The daemon drops it, because more is published at once than may wait for one client."""
        sections = "[limits]\noutbox = 128KiB\nretry = 100ms\n[channels]\nhistory_size = 2000\n"
        with running(sections, listeners=tcp("http")) as daemon:
            types = ("message", "pushd.closed", "pushd.gap")
            with node("eventsource.mjs", _url(daemon, "/sse", channel), *types) as client:
                client.until('"open"')
                daemon.publish(channel, "0")
                assert json.loads(client.line())["data"] == "0"
                client.process.send_signal(SIGSTOP)  # the kernel takes some megabytes for it
                for start in range(1, 1001, 200):
                    batch = range(start, start + 200)
                    lines = [json.dumps({"channel": channel, "data": f"{n} {'x' * 10_000}"}) for n in batch]
                    assert request(f"{daemon.http}/publish", "POST", "\n".join(lines).encode()).status in (200, 207)
                client.process.send_signal(SIGCONT)
                heard = [json.loads(client.line()) for _ in range(1003)]
                kinds = Counter(event["type"] for event in heard)
                assert kinds == {"message": 1000, "pushd.closed": 1, "error": 1, "open": 1}
                assert "too slow" in next(event["data"] for event in heard if event["type"] == "pushd.closed")
                numbers = [int(event["data"].split()[0]) for event in heard if event["type"] == "message"]
                assert numbers == list(range(1, 1001))

    def test_eventsource_is_told_what_it_lost(self, channel: str) -> None:
        """After a restart, a daemon that keeps events in memory only does not know what was before."""
        types, state = ("message", "pushd.gap"), "state_directory = {directory}/state\nstore = memory\n"
        with (
            running("[limits]\nretry = 100ms\n", listeners=tcp("http", free_port()), state=state) as daemon,
            node("eventsource.mjs", _url(daemon, "/sse", channel), *types) as client,
        ):
            client.until('"open"')
            last = daemon.publish(channel, "before")
            client.until("before")
            daemon.stop()
            daemon.start()
            gap = json.loads(client.until("pushd.gap"))
            assert json.loads(gap["data"]) == {"since": last["id"]}
            daemon.publish(channel, "after")
            assert json.loads(client.until('"message"'))["data"] == "after"


class TestTreq:
    """treq, over long polling."""

    def test_it_gets_every_event_once(self, daemon: Daemon, channel: str, tmp_path: Path) -> None:
        command = [installed("python"), str(CLIENTS / "poll.py"), daemon.http, channel, "20"]
        with talking_to(command, directory=tmp_path, environment=environment(tmp_path)) as client:
            eventually(lambda: daemon.has_subscribers(channel, 1), "it waits")
            for number in range(20):
                daemon.publish(channel, str(number))
            received = " ".join(line.removeprefix("200 ") for line in client.lines())
            assert received.split() == [str(number) for number in range(20)]
            assert client.process.wait(10) == 0

    def test_it_is_told_that_nothing_came(self, channel: str, tmp_path: Path) -> None:
        with running("[limits]\npoll_timeout = 1s\n", listeners=tcp("http")) as daemon:
            command = [installed("python"), str(CLIENTS / "poll.py"), daemon.http, channel, "1"]
            with talking_to(command, directory=tmp_path, environment=environment(tmp_path)) as client:
                assert client.line() == "204"
                daemon.publish(channel, "at last")
                client.until("200 at last")


# Many


async def _read_websocket(uri: str, count: int, ready: asyncio.Semaphore) -> list[str]:
    received: list[str] = []
    async with connect(uri, proxy=None, open_timeout=30, max_queue=None) as websocket:
        await websocket.recv()
        ready.release()
        while len(received) < count:
            message = json.loads(await websocket.recv())
            if message["type"] == "event":
                received.append(message["data"])
    return received


async def _read_stream(url: str, count: int, ready: asyncio.Semaphore) -> list[str]:
    """Read an event stream, or lines of JSON."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        target = f"{parts.path}?{parts.query}"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        ready.release()
        received: list[str] = []
        buffered = b""
        while len(received) < count:
            size = int(await reader.readline(), 16)
            assert size, received
            buffered += (await reader.readexactly(size + 2))[:-2]
            *lines, buffered = buffered.split(b"\n")
            for line in lines:
                if line.startswith((b"data: {", b'{"type":"open"')):
                    continue  # the beginning
                if line.startswith(b"data: "):
                    received.append(line[6:].decode())
                elif line.startswith(b"{"):
                    received.append(json.loads(line)["data"])
        return received
    finally:
        writer.close()
        await writer.wait_closed()


async def _post(url: str, body: bytes) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
    assert (await reader.read()).startswith(b"HTTP/1.1 20")
    writer.close()
    await writer.wait_closed()


class TestMany:
    """A crowd."""

    def test_200_subscribers_each_get_200_events_in_order(self, daemon: Daemon) -> None:
        channel, count = "crowd", 200

        async def group() -> None:
            ready = asyncio.Semaphore(0)
            readers = [
                asyncio.create_task(_read_websocket(f"{daemon.ws}?channel={channel}", count, ready))
                for _ in range(100)
            ]
            readers += [
                asyncio.create_task(_read_stream(f"{daemon.http}/{kind}?channel={channel}", count, ready))
                for kind in ("sse", "stream")
                for _ in range(50)
            ]
            for _ in readers:
                await ready.acquire()
            assert await asyncio.to_thread(daemon.has_subscribers, channel, 200)
            numbers, sizes = iter(range(count)), random.Random(200)
            while batch := list(islice(numbers, sizes.randint(1, 9))):
                lines = (json.dumps({"channel": channel, "data": str(number)}) for number in batch)
                await _post(f"{daemon.http}/publish", "\n".join(lines).encode())
            for received in await asyncio.gather(*readers):
                assert received == [str(number) for number in range(count)]

        asyncio.run(asyncio.wait_for(group(), 60))
        eventually(lambda: daemon.has_subscribers(channel, 0), "all are gone")

    def test_nothing_was_wrong(self, daemon: Daemon) -> None:
        """Last, of all the tests in this module."""
        assert "Traceback" not in daemon.log
        assert "fault in pushd" not in daemon.log
        eventually(lambda: daemon.counts["connections"] == 1, "all are gone")
        assert daemon.counts["subscribers"] == 0
