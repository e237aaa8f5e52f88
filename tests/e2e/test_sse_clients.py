"""Other people's clients of Server-Sent Events: what they hand to their applications, and how they come back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from threading import Thread
from time import sleep
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from httpx_sse import connect_sse
from sseclient import SSEClient

from tests.e2e.daemon import Daemon, running, tcp
from tests.e2e.programs import Program, eventually, node
from tests.e2e.test_proxies import Relay

pytestmark = pytest.mark.timeout(120)

CONFIG = "[auth]\nanonymous = publish, subscribe\n[limits]\nheartbeat = 1s\nretry = 100ms\n"
HEARTBEATS_S = 2.5

PACKAGES = ("eventsource", "event-source-polyfill", "@microsoft/fetch-event-source")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(CONFIG, listeners=tcp("http")) as started:
        yield started


@pytest.fixture
def relay(daemon: Daemon) -> Iterator[Relay]:
    with closing(Relay(urlsplit(daemon.http).port or 0, b"", 1)) as started:
        yield started


def channel_of(name: str) -> str:
    """Return the channel of one client."""
    return re.sub(r"\W+", "-", name).strip("-")


def next_event(client: Program) -> dict[str, Any]:
    """Return what the client tells next, but for pushd's own events, which all have data that is JSON."""
    while True:
        said: dict[str, Any] = json.loads(client.line())
        if said.get("type", "").startswith("pushd."):
            json.loads(said["data"])
        elif "open" not in said:
            return said


@pytest.mark.parametrize("package", PACKAGES)
def test_it_sees_only_events_and_resumes_before_the_first(daemon: Daemon, relay: Relay, package: str) -> None:
    channel = channel_of(package)
    with node("sse_client.mjs", package, f"http://127.0.0.1:{relay.port}/sse?channel={channel}") as client:
        client.until('"open"')
        eventually(lambda: daemon.has_subscribers(channel, 1), "it is subscribed")
        sleep(HEARTBEATS_S)
        asked = len(relay.passed)
        relay.cut()
        eventually(lambda: daemon.has_subscribers(channel, 0), "the daemon knows")
        first = daemon.publish(channel, "missed")
        assert next_event(client) == {"type": "message", "id": first["id"], "data": "missed"}
        requests = b"".join(relay.passed[asked:])
        if package == "event-source-polyfill":
            assert b"lastEventId=" in requests
        else:
            assert b"last-event-id:" in requests.lower()
        second = daemon.publish(channel, "live")
        assert next_event(client) == {"type": "message", "id": second["id"], "data": "live"}


def from_httpx_sse(url: str, last: str | None) -> Iterator[tuple[str, str, str]]:
    headers = {} if last is None else {"Last-Event-ID": last}
    with (
        httpx.Client(trust_env=False, timeout=10) as client,
        connect_sse(client, "GET", url, headers=headers) as source,
    ):
        for event in source.iter_sse():
            yield event.event, event.id, event.data


def from_sseclient(url: str, last: str | None) -> Iterator[tuple[str, str, str]]:
    headers = {} if last is None else {"Last-Event-ID": last}
    with (
        httpx.Client(trust_env=False, timeout=10) as client,
        client.stream("GET", url, headers={"Accept": "text/event-stream", **headers}) as response,
    ):
        for event in SSEClient(response.iter_bytes()).events():
            yield event.event or "message", event.id or "", event.data


@pytest.mark.parametrize("client", [from_httpx_sse, from_sseclient])
def test_python_sees_only_events_and_resumes_before_the_first(daemon: Daemon, relay: Relay, client: Any) -> None:
    channel = channel_of(client.__name__)
    url = f"http://127.0.0.1:{relay.port}/sse?channel={channel}"
    got: list[tuple[str, str, str]] = []

    def read(last: str | None) -> None:
        try:
            for event in client(url, last):
                got.append(event)
        except httpx.HTTPError:
            pass  # it was cut

    reading = Thread(target=read, args=(None,), daemon=True)
    reading.start()
    eventually(lambda: daemon.has_subscribers(channel, 1), "it is subscribed")
    sleep(HEARTBEATS_S)
    relay.cut()
    reading.join(10)
    eventually(lambda: daemon.has_subscribers(channel, 0), "the daemon knows")
    assert [kind for kind, _, _ in got] == ["pushd.open"]
    assert json.loads(got[0][2])
    first = daemon.publish(channel, "missed")
    reading = Thread(target=read, args=(got[0][1],), daemon=True)
    reading.start()
    eventually(lambda: ("message", first["id"], "missed") in got, "it has what it missed")
    second = daemon.publish(channel, "live")
    eventually(lambda: got[-1] == ("message", second["id"], "live"), "it is live")
    relay.cut()
    reading.join(10)
    assert [data for kind, _, data in got if not kind.startswith("pushd.")] == ["missed", "live"]
