"""Streams behind proxies that cut what is silent: none is silent for longer than the heartbeat."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.e2e.daemon import Daemon, running, tcp
from tests.e2e.programs import program
from tests.e2e.test_behind import NGINX_HTTP, Machine

pytestmark = pytest.mark.timeout(120)

HEARTBEAT_S = 2
TIMEOUT_S = 3
MOMENTS_S = (0.1, 1.9, 2.1, 3.0, 4.95, 5.0, 7.9)
"""When events are published: just before and after heartbeats, which come after a silence or by the clock."""

SILENT_S = 12
"""How long nothing but heartbeats comes after the last but one event: six of them."""

ATTEMPTS = 3
"""How often it may be tried: where the machine stops for a second, a proxy cuts what was not silent for long."""

CONFIG = f"[auth]\nanonymous = publish, subscribe\n[limits]\nheartbeat = {HEARTBEAT_S}s\nping_timeout = 1s\n"

NGINX = """
map $http_upgrade $pushd_connection {{ default upgrade; "" ""; }}
server {{
    listen 127.0.0.1:{front};
    location / {{
        proxy_pass http://127.0.0.1:{back}; proxy_http_version 1.1; proxy_buffering off;
        proxy_read_timeout {timeout}s; proxy_send_timeout {timeout}s; send_timeout {timeout}s;
        proxy_set_header Host $http_host;
        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $pushd_connection;
    }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect {timeout}s
    timeout client {timeout}s
    timeout server {timeout}s
    timeout tunnel {timeout}s
frontend front
    bind 127.0.0.1:{front}
    default_backend pushd
backend pushd
    server pushd 127.0.0.1:{back}
"""


def behind(machine: Machine, proxy: str, daemon: Daemon) -> AbstractContextManager[None]:
    """Run a proxy in front of `daemon`."""
    places = {"front": machine.front, "back": urlsplit(daemon.http).port, "timeout": TIMEOUT_S}
    if proxy == "nginx":
        return machine.nginx(NGINX_HTTP.format(machine.directory, NGINX.format(**places)))
    config = machine.directory / "haproxy.cfg"
    config.write_text(HAPROXY.format(**places))
    return machine.proxy([program("haproxy"), "-db", "-f", str(config)])


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(CONFIG, listeners=tcp("http")) as started:
        yield started


class Reader:
    """A client of one transport, which notes what it gets, and whether its connection has ended."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.got = ""
        self.is_ended = False

    async def read(self) -> None:
        """Read until the connection ends."""
        try:
            await (self._read_websocket() if self._url.startswith("ws") else self._read_stream())
        finally:
            self.is_ended = True

    async def _read_stream(self) -> None:
        async with (
            httpx.AsyncClient(timeout=None, trust_env=False) as client,
            client.stream("GET", self._url) as response,
        ):
            assert response.status_code == 200, response
            async for text in response.aiter_text():
                self.got += text

    async def _read_websocket(self) -> None:
        async with connect(self._url, proxy=None, ping_interval=None) as websocket:
            async for message in websocket:
                self.got += message if isinstance(message, str) else message.decode()


@pytest.mark.parametrize("proxy", ["haproxy", "nginx"])
def test_streams_outlive_many_heartbeats(daemon: Daemon, tmp_path: Path, proxy: str) -> None:
    machine = Machine(tmp_path)
    with behind(machine, proxy, daemon):
        for attempt in range(ATTEMPTS):
            ended = asyncio.run(_live_through(daemon, f"127.0.0.1:{machine.front}", f"{proxy}{attempt}"))
            if not ended:
                return
    raise AssertionError(f"they were cut: {ended}")


async def _live_through(daemon: Daemon, place: str, channel: str) -> list[str]:
    """Publish while there are readers; return what those have got whose connections have ended."""
    paths = ("http:/sse?", "http:/stream?", "ws:/ws?", "ws:/ws?format=raw&")
    readers = [Reader(f"{path.replace(':', f'://{place}', 1)}channel={channel}") for path in paths]
    tasks = [asyncio.create_task(reader.read()) for reader in readers]
    start = monotonic()
    count = 0
    while not await asyncio.to_thread(daemon.has_subscribers, channel, len(readers)):
        assert monotonic() - start < 10, [reader.got for reader in readers]
        await asyncio.sleep(0.05)
    start = monotonic()
    for moment_s in (*MOMENTS_S, MOMENTS_S[-1] + SILENT_S):
        await asyncio.sleep(max(0.0, start + moment_s - monotonic()))
        if any(reader.is_ended for reader in readers):
            break
        await asyncio.to_thread(daemon.publish, channel, f"<{count}>")
        count += 1
    start = monotonic()
    while count and not all(reader.is_ended or f"<{count - 1}>" in reader.got for reader in readers):
        assert monotonic() - start < 15, [reader.got for reader in readers]
        await asyncio.sleep(0.05)
    ended = [reader.got for reader in readers if reader.is_ended]
    for reader in readers:
        if not reader.is_ended:
            assert [f"<{number}>" in reader.got for number in range(count)] == [True] * count, reader.got
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return ended
