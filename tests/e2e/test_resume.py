"""Other people's clients, each coming back in its own way, while the daemon is stopped and killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from http.client import HTTPException
from signal import SIGKILL, SIGTERM
from threading import Event, Thread
from time import sleep
from urllib.parse import unquote

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.e2e.daemon import Daemon, free_port, request, running, tcp
from tests.e2e.programs import Program, eventually, node, program, talking_to

pytestmark = pytest.mark.timeout(200)

_CHANNEL = "news"
_LAST = "the last"
_SIGNALS = (SIGTERM, SIGKILL, SIGKILL, SIGTERM, SIGKILL)
_EVENTS_PER_LIFE = 150
_CONFIG = (
    "[channels]\nhistory_size = 100000\n[limits]\nretry = 100ms\nreconnect_spread = 200ms\npoll_timeout = 2s\n"
)


class Publisher:
    """It publishes all the time: every other event with an id, again and again until it has an answer."""

    def __init__(self, daemon: Daemon) -> None:
        """Begin."""
        self._url = f"{daemon.http}/channels/{_CHANNEL}"
        self._is_over = Event()
        self.acknowledged: list[str] = []
        """The data of what was published, in order."""
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._is_over.is_set():
            data, given = str(number), number % 2 == 0
            while not self._publish(data, f"?id=event-{data}" if given else "") and given:
                sleep(0.02)
            number += 1
            sleep(0.001)
        assert self._publish(_LAST, "")

    def _publish(self, data: str, query: str) -> bool:
        try:
            answer = request(self._url + query, "POST", data.encode())
        except (OSError, HTTPException):
            return False
        if answer.status not in (200, 201):  # 200: it was published, and the answer was lost
            return False
        self.acknowledged.append(data)
        return True

    def publish_more(self, count: int) -> None:
        """Wait until so many more events are acknowledged."""
        wanted = len(self.acknowledged) + count
        eventually(lambda: len(self.acknowledged) >= wanted, "more is published", 30)

    def finish(self) -> None:
        """Publish the last event."""
        self._is_over.set()
        self._thread.join(30)


class Follower:
    """A client in a thread, which follows the channel until the last event."""

    def __init__(self, follow: Callable[[Follower], None]) -> None:
        """Begin to `follow`."""
        self.got: list[str] = []
        """The data of what came."""
        self.position: str | None = None
        """The id of the latest event, or where it has begun."""
        self.times = 0
        """How many times it has connected."""
        self.failure: BaseException | None = None
        """Why it has ended, if not with the last event."""
        self.is_over = Event()
        """Whether nobody waits for it any more."""
        self._follow = follow
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._follow(self)
        except BaseException as error:  # noqa: BLE001  it is raised where it can be seen
            self.failure = error

    @property
    def has_all(self) -> bool:
        """True when the last event has come."""
        return self.got[-1:] == [_LAST] or self.is_over.is_set()

    def got_one(self, event_id: str, data: str) -> None:
        """Remember an event."""
        self.position = event_id
        self.got.append(data)

    def wait_for(self, count: int, name: str) -> None:
        """Wait until it has so many events; it is called `name`."""
        eventually(lambda: len(self.got) >= count or self.failure, f"{name} has {count} events", 30)

    def join(self) -> None:
        """Wait for its end, and raise what went wrong."""
        self._thread.join(30)
        if self.failure is not None:
            raise self.failure
        assert not self._thread.is_alive(), f"it got {len(self.got)} events, and then waited: {self.got[-3:]}"


# How each of them follows


def _curl(*arguments: str) -> AbstractContextManager[Program]:
    return talking_to([program("curl"), "-sS", "-N", "--noproxy", "*", "--max-time", "60", *arguments])


def _again_and_again(follower: Follower, once: Callable[[], None]) -> None:
    while not follower.has_all:
        follower.times += 1
        once()
        sleep(0.05)


def by_curl_sse(daemon: Daemon) -> Callable[[Follower], None]:
    """Server-Sent Events, with ``Last-Event-ID``."""
    url = f"{daemon.http}/sse?channel={_CHANNEL}"

    def follow(follower: Follower) -> None:
        def once() -> None:
            header = ["-H", f"Last-Event-ID: {follower.position}"] if follower.position else []
            block: dict[str, str] = {}
            with _curl(*header, url) as stream:
                for line in stream.lines(60):
                    name, _, value = line.partition(": ")
                    if line:
                        block[name] = value
                        continue
                    assert block.get("event") != "pushd.gap", follower.position
                    follower.position = block.get("id", follower.position)
                    if "data" in block and not block.get("event", "").startswith("pushd."):
                        follower.got.append(block["data"])
                    block = {}
                    if follower.has_all:
                        return

        _again_and_again(follower, once)

    return follow


def by_curl_stream(daemon: Daemon) -> Callable[[Follower], None]:
    """Lines of JSON, with ``since``."""
    url = f"{daemon.http}/stream?channel={_CHANNEL}&since="

    def follow(follower: Follower) -> None:
        def once() -> None:
            with _curl(url + (follower.position or "earliest")) as stream:
                for line in stream.lines(60):
                    if not line.startswith("{") or not line.endswith("}"):
                        continue  # a heartbeat, what curl says, or half a line
                    message = json.loads(line)
                    assert message["type"] != "gap", follower.position
                    if message["type"] == "event":
                        follower.got_one(message["id"], message["data"])
                    if follower.has_all:
                        return

        _again_and_again(follower, once)

    return follow


def by_poll(daemon: Daemon) -> Callable[[Follower], None]:
    """Long polling."""
    url = f"{daemon.http}/poll?channel={_CHANNEL}&limit=20&since="

    def follow(follower: Follower) -> None:
        def once() -> None:
            with suppress(OSError, HTTPException):
                answer = request(url + (follower.position or "earliest"))
                if answer.status == 200:
                    page = answer.json()
                    assert page["recovered"], follower.position
                    for event in page["events"]:
                        follower.got.append(event["data"])
                    follower.position = page["position"]
                else:
                    assert answer.status in (204, 503), answer

        _again_and_again(follower, once)

    return follow


def by_websockets(daemon: Daemon, *, asks: bool) -> Callable[[Follower], None]:
    """The library websockets; it `asks` in a message, or in the query."""
    uri = daemon.ws

    async def talk(follower: Follower) -> None:
        since = follower.position or "earliest"
        query = "" if asks else f"?channel={_CHANNEL}&since={since}"
        async with connect(uri + query, proxy=None) as websocket:
            if asks:
                await websocket.send(json.dumps({"type": "subscribe", "channel": _CHANNEL, "since": since}))
            while not follower.has_all:
                message = json.loads(await asyncio.wait_for(websocket.recv(), 60))
                if message["type"] == "subscribed":
                    assert message["recovered"], since
                    follower.position = message["position"]
                elif message["type"] == "event":
                    follower.got_one(message["id"], message["data"])

    def follow(follower: Follower) -> None:
        def once() -> None:
            with suppress(OSError, WebSocketException):
                asyncio.run(talk(follower))

        _again_and_again(follower, once)

    return follow


def by_eventsource(daemon: Daemon) -> Callable[[Follower], None]:
    """The npm package ``eventsource``, which comes back by itself."""
    url = f"{daemon.http}/sse?channel={_CHANNEL}&since=earliest"

    def follow(follower: Follower) -> None:
        with node("eventsource.mjs", url, "message", "pushd.gap") as client:
            while not follower.has_all:
                event = json.loads(client.line())
                assert event["type"] != "pushd.gap", follower.position
                follower.times += event["type"] == "open"
                if event["type"] == "message":
                    follower.got_one(event["id"], event["data"])

    return follow


def by_push(daemon: Daemon) -> Callable[[Follower], None]:
    """Node's ``http2``, which takes pushes."""
    url = daemon.https

    def follow(follower: Follower) -> None:
        def once() -> None:
            with node("h2_events.mjs", _CHANNEL, url, SINCE=follower.position or "earliest") as client:
                for line in client.lines(60):
                    assert '"gap"' not in line, follower.position
                    if line.startswith("event "):
                        _, path, _, data = line.split(" ", 3)
                        follower.got_one(unquote(path.rpartition("/")[2]), data.rpartition("utf-8 ")[2])
                    if follower.has_all:
                        return

        _again_and_again(follower, once)

    return follow


@contextmanager
def following(*ways: Callable[[Follower], None]) -> Iterator[list[Follower]]:
    """Run clients until they have everything, or the context ends."""
    followers = [Follower(way) for way in ways]
    try:
        yield followers
    finally:
        for follower in followers:
            follower.is_over.set()


def _history(daemon: Daemon) -> list[str]:
    found: list[str] = []
    position = "earliest"
    while True:
        page = daemon.get(f"/channels/{_CHANNEL}/events?limit=1000&since={position}")
        assert page["recovered"]
        if not page["events"]:
            return found
        found += [event["data"] for event in page["events"]]
        position = page["position"]


@pytest.mark.parametrize("durability", ["process", "power"])
def test_every_client_gets_every_event_once_while_the_daemon_is_stopped_and_killed(durability: str) -> None:
    state = f"state_directory = {{directory}}/state\nstop_timeout = 2s\ndurability = {durability}\n"
    listeners = tcp("http", free_port()) + tcp("https", free_port(), tls=True)
    with running(_CONFIG, listeners=listeners, state=state) as daemon, ExitStack() as ending:
        ways = {
            "curl, SSE": by_curl_sse(daemon),
            "curl, NDJSON": by_curl_stream(daemon),
            "polling": by_poll(daemon),
            "websockets, by query": by_websockets(daemon, asks=False),
            "websockets, by message": by_websockets(daemon, asks=True),
            "eventsource": by_eventsource(daemon),
            "http2 of Node": by_push(daemon),
        }
        followers = dict(zip(ways, ending.enter_context(following(*ways.values())), strict=True))
        eventually(lambda: daemon.has_subscribers(_CHANNEL, len(ways)), "all are subscribed", 30)
        publisher = Publisher(daemon)
        ending.callback(publisher.finish)
        for number in _SIGNALS:
            before = len(publisher.acknowledged)
            publisher.publish_more(_EVENTS_PER_LIFE)
            for name, follower in followers.items():
                follower.wait_for(before + 1, name)
            daemon.signal(number)
            daemon.wait()
            daemon.start()
        publisher.finish()
        for name, follower in followers.items():
            follower.join()
            assert follower.times > len(_SIGNALS), name
        history = _history(daemon)
        assert [data for data in history if data in set(publisher.acknowledged)] == publisher.acknowledged
        for name, follower in followers.items():
            assert follower.got == history, name
        assert "Traceback" not in daemon.log
        assert "older positions" not in daemon.log
