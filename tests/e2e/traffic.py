"""Publishers and subscribers that go on while the daemon is killed and comes back, and write down what they see.

Each is a thread with a connection of its own. A publisher that gets no answer sends what had an id again, and
leaves the rest, of which nobody knows. A subscriber comes back from the last id that it has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from random import Random
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote, urlencode

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from tests.rigs.ledger import Ledger, Seen, Sent, View

__all__ = [
    "BatchPublisher",
    "PostPublisher",
    "Publisher",
    "SseSubscriber",
    "Subscriber",
    "WebSocketPublisher",
    "WebSocketSubscriber",
    "history",
]

_LOST = (OSError, HTTPException, WebSocketException, EOFError)
"""What is raised when the daemon was killed, or is not there."""

_RETRY_S = 0.05
"""How long to wait before the next attempt."""

_TIMEOUT_S = 20
"""After how long without an answer something is wrong with the daemon."""


class _Traffic(Thread):
    """Something that goes on until it is told to stop."""

    def __init__(self, name: str, address: str, random: Random) -> None:
        super().__init__(name=name, daemon=True)
        self.address = address
        self.random = random
        self.stopping = Event()
        """Set when it is to end."""
        self.fault: BaseException | None = None
        """What ended it before."""

    def run(self) -> None:
        """Connect, again and again."""
        try:
            while self.goes_on:
                with suppress(*_LOST):
                    self.session()
                sleep(_RETRY_S)
        except BaseException as error:
            self.fault = error
            raise

    @property
    def goes_on(self) -> bool:
        """Whether there is something left to do."""
        return not self.stopping.is_set()

    def session(self) -> None:
        """Do what is to be done over one connection."""
        raise NotImplementedError


class Publisher(_Traffic):
    """Publishes events, some with ids, and those until they are answered."""

    max_channels = 2
    """To how many channels it can publish one event."""

    def __init__(
        self,
        name: str,
        address: str,
        random: Random,
        ledger: Ledger,
        channels: list[tuple[str, ...]],
        keeps: Callable[[str], bool],
    ) -> None:
        """Publish to any of `channels`; only events in those that a run `keeps` to its end have ids."""
        super().__init__(name, address, random)
        self._ledger = ledger
        self._channels = channels
        self._keeps = keeps
        self._count = 0
        self.unanswered: list[Sent] = []
        """What is to be sent again."""
        self.refused = 0
        """How many events were refused because the store did not work."""

    @property
    def goes_on(self) -> bool:
        """Whether it is to publish more, or has to ask again."""
        return bool(self.unanswered) or not self.stopping.is_set()

    def next(self) -> Sent:
        """Return what is to be published next: something new, or what was not answered."""
        if self.unanswered:
            return self.unanswered.pop(0)
        self._count += 1
        data = f"{self.name}-{self._count}-" + "x" * self.random.choice((0, 10, 300, 5000))
        channels = self.random.choice([names for names in self._channels if len(names) <= self.max_channels])
        has_id = all(map(self._keeps, channels)) and self.random.random() < 0.5
        return self._ledger.send(data, channels, monotonic(), f"{self.name}:{self._count}" if has_id else None)

    def lost(self, events: list[Sent]) -> None:
        """Record a request without a response."""
        self.unanswered += [sent for sent in events if sent.given is not None]

    def answered(self, sent: Sent, answer: dict[str, Any]) -> None:
        """Record a response; now and then repeat the request."""
        problem = answer.get("error", answer if answer.get("type") == "error" else None)
        if problem is not None:
            assert problem["status"] in (503, 507), problem
            self.refused += 1
            self.lost([sent])
            return
        sent.answers.append((answer["id"], answer["offset"], monotonic()))
        if sent.given is not None and self.random.random() < 0.1 and not self.stopping.is_set():
            self.unanswered.append(sent)


class PostPublisher(Publisher):
    """Publishes one event after the other with ``POST /channels/{channel}``, over a connection that stays."""

    max_channels = 1

    def session(self) -> None:
        """Publish until the connection is lost."""
        with closing(HTTPConnection(self.address, timeout=_TIMEOUT_S)) as connection:
            while self.goes_on:
                sent = self.next()
                target = f"/channels/{quote(sent.channels[0], safe='')}"
                headers = {} if sent.given is None else {"Event-ID": sent.given}
                try:
                    connection.request("POST", target, sent.data.encode(), headers)
                    response = connection.getresponse()
                    answer = json.loads(_whole(response))
                except _LOST:
                    self.lost([sent])
                    raise
                assert response.status in (200, 201, 503, 507), answer
                assert (response.status == 200) is answer.get("duplicate", False), answer
                self.answered(sent, answer if response.status < 300 else {"error": answer})
                sleep(self.random.uniform(0, 0.004))


def _whole(response: HTTPResponse) -> bytes:
    body = response.read()
    if not body:
        raise EOFError
    return body


class BatchPublisher(Publisher):
    """Publishes many events at once with ``POST /publish``."""

    def session(self) -> None:
        """Publish until the connection is lost."""
        with closing(HTTPConnection(self.address, timeout=_TIMEOUT_S)) as connection:
            while self.goes_on:
                events = [self.next() for _ in range(self.random.choice((1, 5, 50, 700)))]
                left = list(events)
                try:
                    connection.request("POST", "/publish", b"".join(map(_line, events)))
                    response = connection.getresponse()
                    is_problem = response.getheader("Content-Type") == "application/problem+json"
                    for line in iter(response.readline, b""):
                        if not line.endswith(b"\n"):
                            raise EOFError  # cut off
                        reply = {"error": json.loads(line)} if is_problem else json.loads(line)
                        if "summary" not in reply:
                            self.answered(left.pop(0), reply)
                    if left:
                        raise EOFError
                except _LOST:
                    self.lost(left)
                    raise
                sleep(self.random.uniform(0, 0.1))


def _members(sent: Sent) -> dict[str, Any]:
    return {"channels": sent.channels, "data": sent.data, **({} if sent.given is None else {"id": sent.given})}


def _line(sent: Sent) -> bytes:
    return json.dumps(_members(sent)).encode() + b"\n"


class WebSocketPublisher(Publisher):
    """Publishes over a WebSocket, several events before it waits for the answers."""

    def session(self) -> None:
        """Publish until the connection is lost."""
        with _websocket(self.address) as socket:
            while self.goes_on:
                waiting: dict[int, Sent] = {}
                try:
                    for ref in range(self.random.choice((1, 3, 30))):
                        waiting[ref] = self.next()
                        socket.send(json.dumps({"type": "publish", "ref": ref, **_members(waiting[ref])}))
                    while waiting:
                        answer = json.loads(socket.recv(_TIMEOUT_S))
                        self.answered(waiting.pop(answer["ref"]), answer)
                except _LOST:
                    self.lost(list(waiting.values()))
                    raise
                sleep(self.random.uniform(0, 0.03))


def _websocket(address: str) -> ClientConnection:
    return connect(
        f"ws://{address}/ws", open_timeout=_TIMEOUT_S, close_timeout=1, compression=None, proxy=None, max_queue=None
    )


class Subscriber(_Traffic):
    """Follows channels from the beginning."""

    def __init__(self, name: str, address: str, random: Random, ledger: Ledger, channels: tuple[str, ...]) -> None:
        super().__init__(name, address, random)
        self.view = View(name, channels)
        """What it got."""
        ledger.views.append(self.view)
        self.position = "earliest"
        """Where it goes on."""
        self.stays = Event()
        """Set when it is not to end connections by itself any more."""


class SseSubscriber(Subscriber):
    """An event stream, of one channel, which comes back with ``Last-Event-ID``."""

    def session(self) -> None:
        """Read until the connection is lost, or for a while."""
        (channel,) = self.view.channels
        headers = {"Accept": "text/event-stream"}
        target = f"/sse?channel={quote(channel, safe='')}"
        if self.position == "earliest":
            target += "&since=earliest"
        else:
            headers["Last-Event-ID"] = self.position
        until = monotonic() + self.random.choice((0.1, 1, 60))
        with closing(HTTPConnection(self.address, timeout=_TIMEOUT_S)) as connection:
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            if response.status == 503:
                return
            assert response.status == 200, response.read()
            for event in _events(response):
                if event.get("event") == "pushd.gap":
                    self.view.seen.append(None)
                elif "data" in event and "id" in event and event.get("event") != "pushd.open":
                    self.view.seen.append(Seen(channel, event["id"], event["data"], has_id=False))
                self.position = event.get("id", self.position)
                if self.stopping.is_set() or (monotonic() > until and not self.stays.is_set()):
                    return


def _events(response: HTTPResponse) -> Iterator[dict[str, str]]:
    """Return the events of a stream, whole ones only, and an empty one for a comment."""
    event: dict[str, str] = {}
    while line := response.readline():
        if not line.endswith(b"\n"):
            return
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "":
            yield event
            event = {}
        else:
            event[name] = value


class WebSocketSubscriber(Subscriber):
    """JSON over a WebSocket, which subscribes to channels or a pattern with ``since``."""

    def __init__(
        self, name: str, address: str, random: Random, ledger: Ledger, channels: tuple[str, ...], pattern: str
    ) -> None:
        """Subscribe to `pattern`, which matches `channels`."""
        super().__init__(name, address, random, ledger, channels)
        self._pattern = pattern

    def session(self) -> None:
        """Read until the connection is lost, or for a while."""
        until = monotonic() + self.random.choice((0.1, 1, 60))
        with _websocket(self.address) as socket:
            socket.send(json.dumps({"type": "subscribe", "channel": self._pattern, "since": self.position}))
            while not self.stopping.is_set() and (monotonic() < until or self.stays.is_set()):
                with suppress(TimeoutError):
                    self._take(json.loads(socket.recv(0.2)))

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "event":
            self.position = message.get("position", message["id"])
            self.view.seen.append(Seen(message["channel"], message["id"], message["data"], message["offset"]))
        elif message["type"] == "subscribed":
            if not message["recovered"]:
                self.view.seen.append(None)
            if self.position == "earliest":
                self.position = message["position"]
        else:
            raise AssertionError(message)


def history(address: str, channel: str) -> list[Seen]:
    """Return everything that a channel has, oldest first."""
    found: list[Seen] = []
    since = "earliest"
    with closing(HTTPConnection(address, timeout=_TIMEOUT_S)) as connection:
        while True:
            query = urlencode({"since": since, "limit": 1000})
            connection.request("GET", f"/channels/{quote(channel, safe='')}/events?{query}")
            page = json.loads(connection.getresponse().read())
            found += [Seen(channel, it["id"], it["data"], it["offset"]) for it in page["events"]]
            if not page["events"]:
                return found
            since = page["position"]
