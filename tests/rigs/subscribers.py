"""Clients that have asked for channels, one for each transport, and what each makes of what comes."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.rigs.connection import Connection
from tests.rigs.daemon import DaemonRig, query
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import Client, Response, json_lines
from tests.rigs.sse_client import EventStream
from tests.rigs.tunnel_client import StreamConnection, WebSocketOverHttp2
from tests.rigs.websocket_client import WebSocketClient, WebSocketTalk

__all__ = [
    "AskingJsonSubscriber",
    "Got",
    "JsonSubscriber",
    "JsonTunnelSubscriber",
    "PollSubscriber",
    "PushSubscriber",
    "RawSubscriber",
    "RawTunnelSubscriber",
    "ReturningSseSubscriber",
    "SseJsonSubscriber",
    "SseSubscriber",
    "StreamSubscriber",
    "Subscriber",
]

CLOSE_TIMEOUT_S = 10
"""How long a client has to take what was written before its closing."""


@dataclass(frozen=True)
class Got:
    """An event as a subscriber got it; None is what its transport does not tell."""

    data: bytes
    id: str | None = None
    channel: str | None = None
    position: str | None = None


def _got(event: dict[str, Any]) -> Got:
    """Read an event in JSON."""
    data = event["data"].encode() if "data" in event else b64decode(event["data_base64"])
    assert event.get("position") != event["id"], "the position is said twice"
    return Got(data, event["id"], event["channel"], event.get("position", event["id"]))


class Subscriber:
    """A client that has asked for channels; subclasses speak a transport."""

    path: ClassVar[str]
    has_ids: ClassVar[bool] = True
    """Whether its events have their ids."""

    has_positions: ClassVar[bool] = True
    """Whether its events have their positions."""

    is_told_after_events: ClassVar[bool] = True

    connection: Connection | StreamConnection

    def __init__(
        self,
        rig: DaemonRig,
        channels: Sequence[str],
        since: str | None,
        *,
        reads: bool = True,
        cut_after: int | None = None,
        token: str | None = None,
    ) -> None:
        """Ask `rig` for `channels` from `since` on, with a `token`.

        Without `reads`, take nothing that comes yet; and go away after `cut_after` bytes.
        """
        self.rig = rig
        self.channels = channels
        self.since = since
        self.query = query(channel=channels, since=since, access_token=token)
        self.cut_after = cut_after
        self.connect()
        self.socket_connection.cut_after = cut_after
        if not reads:
            self.connection.stop_reading()
        rig.turn()
        self.ask()

    def connect(self) -> None:
        """Make the request."""
        raise NotImplementedError

    def ask(self) -> None:
        """Say what is to be said once it is connected."""

    @property
    def socket_connection(self) -> Connection:
        """What everything goes over."""
        assert isinstance(self.connection, Connection)
        return self.connection

    def events(self) -> list[Got]:
        """What was delivered."""
        raise NotImplementedError

    @property
    def recovered(self) -> bool:
        """False if the subscriber was told that something may be missing."""
        raise NotImplementedError

    @property
    def position(self) -> str | None:
        """Where it would resume; None if its transport does not tell."""
        raise NotImplementedError

    @property
    def closed_reason(self) -> str | None:
        """Why the daemon ended it, if it did."""
        raise NotImplementedError

    @property
    def refusal(self) -> Response | None:
        """The answer, if the daemon did not take the subscriber."""
        raise NotImplementedError

    @property
    def alarms(self) -> int:
        """How many alarms its connection has while nothing goes on over it."""
        return 1

    ends_when_refused = False
    """Whether a refusal ends its connection, as it does after a WebSocket handshake over HTTP/1.1."""

    @property
    def close_timeout_s(self) -> int:
        """How long it may take nothing of what was written before the end."""
        return CLOSE_TIMEOUT_S

    @staticmethod
    def carried(data: bytes) -> bytes:
        """Return what the transport makes of `data`."""
        return data

    def disconnect(self) -> None:
        """Go away."""
        self.connection.disconnect()

    @property
    def is_open(self) -> bool:
        """False once the daemon has ended it."""
        return self.connection.is_open

    @property
    def datas(self) -> list[bytes]:
        """The data of everything that was delivered."""
        return [event.data for event in self.events()]

    @property
    def ids(self) -> list[str | None]:
        """The ids of everything that was delivered."""
        return [event.id for event in self.events()]

    @property
    def positions(self) -> list[str | None]:
        """The positions of everything that was delivered."""
        return [event.position for event in self.events()]


class _HttpSubscriber(Subscriber):
    """A subscriber that makes requests."""

    client: Client

    def connect(self) -> None:
        self.client = self.rig.client()
        self.connection = self.client.connection

    @property
    def alarms(self) -> int:
        return self.client.alarms

    @property
    def close_timeout_s(self) -> int:
        return self.client.close_timeout_s


class _StreamSubscriber(_HttpSubscriber):
    """A subscriber with one response that lasts."""

    def connect(self) -> None:
        super().connect()
        self.client.send("GET", f"{self.path}{'&' if '?' in self.path else '?'}{self.query}")

    @property
    def is_open(self) -> bool:
        return self.connection.is_open and not self.client.response.is_complete

    @property
    def body(self) -> bytes:
        """What has come of the body."""
        if not self.client.responses:
            return b""
        assert self.client.response.status == 200, self.client.response
        return self.client.response.body

    @property
    def _first_position(self) -> str | None:
        """Where the stream begins, if that has come."""
        return self.client.response.header("event-position") if self.client.responses else None

    @property
    def refusal(self) -> Response | None:
        response = self.client.response
        return None if response.status == 200 else response


class SseSubscriber(_StreamSubscriber):
    """An ``EventSource``."""

    path = "/sse"
    has_ids = False  # the id of an event stream is the position

    @property
    def stream(self) -> EventStream:
        """What an ``EventSource`` makes of it."""
        return EventStream(self.body)

    def events(self) -> list[Got]:
        return [
            Got(event.data.encode(), position=event.last_event_id)
            for event in self.stream.events
            if not event.type.startswith("pushd.")
        ]

    def _own(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(event.data) for event in self.stream.events if event.type == f"pushd.{kind}"]

    @property
    def recovered(self) -> bool:
        gaps = self._own("gap")
        opened = self.stream.opened
        assert not gaps or self.stream.events[0].type == "pushd.gap"
        assert opened is None or opened["recovered"] == (not gaps)
        return not gaps

    @property
    def position(self) -> str | None:
        return self.stream.last_event_id or None

    @property
    def closed_reason(self) -> str | None:
        said = self._own("closed")
        assert not said or self.stream.events[-1].type == "pushd.closed"
        return said[0]["detail"] if said else None

    @staticmethod
    def carried(data: bytes) -> bytes:
        """An event stream has lines, and text only."""
        try:
            data.decode()
        except UnicodeDecodeError:
            return json.dumps({"data_base64": b64encode(data).decode()}, separators=(",", ":")).encode()
        return re.sub(rb"\r\n|\r", b"\n", data)


class SseJsonSubscriber(SseSubscriber):
    """An ``EventSource`` that asks for events as JSON."""

    path = "/sse?format=json"
    has_ids = True

    def events(self) -> list[Got]:
        found = [event for event in self.stream.events if not event.type.startswith("pushd.")]
        assert {event.type for event in found} <= {"message"}
        got = [_got(json.loads(event.data)) for event in found]
        assert [event.last_event_id for event in found] == [one.position for one in got]
        return got

    carried = staticmethod(Subscriber.carried)


class ReturningSseSubscriber(SseSubscriber):
    """An ``EventSource`` that comes back: its URL is the one of the first time, its position goes in a header."""

    def connect(self) -> None:
        _HttpSubscriber.connect(self)
        is_first = self.since in (None, "earliest", "latest")
        target = f"/sse?{query(channel=self.channels, since=self.since if is_first else 'latest')}"
        self.client.send("GET", target, headers={} if is_first else {"Last-Event-ID": str(self.since)})


class StreamSubscriber(_StreamSubscriber):
    """A reader of NDJSON."""

    path = "/stream"

    def _lines(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in json_lines(self.body) if line["type"] == kind]

    def events(self) -> list[Got]:
        return [_got(line) for line in self._lines("event")]

    @property
    def recovered(self) -> bool:
        gaps, lines = self._lines("gap"), json_lines(self.body)
        assert not gaps or lines[1]["type"] == "gap"
        assert not lines or (lines[0]["type"], lines[0]["recovered"]) == ("open", not gaps)
        return not gaps

    @property
    def position(self) -> str | None:
        return self.positions[-1] if self.positions else self._first_position

    @property
    def closed_reason(self) -> str | None:
        said = self._lines("closed")
        assert not said or json_lines(self.body)[-1]["type"] == "closed"
        return said[0]["detail"] if said else None


class _WebSocketSubscriber(Subscriber):
    path = "/ws"
    ends_when_refused = True
    format: ClassVar[str]

    socket: WebSocketTalk

    def connect(self) -> None:
        self.socket = WebSocketClient(self.rig, f"/ws?format={self.format}&{self.query}")
        self.connection = self.socket.connection

    @property
    def closed_reason(self) -> str | None:
        return None if self.socket.close is None else self.socket.close[1]

    @property
    def refusal(self) -> Response | None:
        assert isinstance(self.socket, WebSocketClient)
        head = self.socket.handshake
        assert head is not None
        if head.status_code == 101:
            return None
        headers = [(name.lower(), value) for name, value in head.headers.raw_items()]
        return Response(head.status_code, head.reason_phrase, headers, bytes(head.body or b""), True)


class JsonSubscriber(_WebSocketSubscriber):
    """A WebSocket with JSON messages."""

    format = "json"

    def _messages(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.socket.json if message["type"] == kind]

    def events(self) -> list[Got]:
        return [_got(message) for message in self._messages("event")]

    @property
    def recovered(self) -> bool:
        said = [message["recovered"] for message in self._messages("subscribed")]
        assert said
        return all(said)

    @property
    def position(self) -> str | None:
        positions = self.positions or [message["position"] for message in self._messages("subscribed")]
        return positions[-1] if positions else None


class AskingJsonSubscriber(JsonSubscriber):
    """A WebSocket with JSON messages that subscribes with them."""

    def connect(self) -> None:
        self.socket = WebSocketClient(self.rig, "/ws")
        self.connection = self.socket.connection
        self.connection.cut_after = self.cut_after
        self.rig.turn()

    def ask(self) -> None:
        if self.socket.is_open:
            for channel in self.channels:
                self.socket.say(type="subscribe", channel=channel, **({"since": self.since} if self.since else {}))
            self.rig.turn()


class RawSubscriber(_WebSocketSubscriber):
    """A WebSocket with the bare data."""

    format = "raw"
    has_ids = has_positions = False

    def events(self) -> list[Got]:
        return [Got(it.encode() if isinstance(it, str) else it) for it in self.socket.messages]

    @property
    def recovered(self) -> bool:
        close = self.socket.close
        return close is None or close[0] != 1008 or "lost" not in close[1]

    @property
    def position(self) -> str | None:
        return None


class _TunnelSubscriber(_WebSocketSubscriber):
    """A WebSocket on a stream of HTTP/2; when that ends, so does the connection, which has no others."""

    ends_when_refused = False

    def connect(self) -> None:
        self.socket = WebSocketOverHttp2(self.rig, f"/ws?format={self.format}&{self.query}")
        self.connection = self.socket.connection

    @property
    def socket_connection(self) -> Connection:
        assert isinstance(self.connection, StreamConnection)
        return self.connection.client.connection

    @property
    def alarms(self) -> int:
        return 1

    @property
    def refusal(self) -> Response | None:
        response: Response | None = self.socket.connection.response
        return None if response is None or response.status == 200 else response


class JsonTunnelSubscriber(_TunnelSubscriber, JsonSubscriber):
    """WebSocket over HTTP/2 with JSON messages."""


class RawTunnelSubscriber(_TunnelSubscriber, RawSubscriber):
    """WebSocket over HTTP/2 with the bare data."""


class PollSubscriber(_HttpSubscriber):
    """A client that polls again and again, over one connection."""

    is_told_after_events: ClassVar[bool] = False  # an answer holds events or a reason

    path = "/poll"

    def connect(self) -> None:
        super().connect()
        self._seen = 0
        self._client_takes = self.connection.on_data
        self.connection.on_data = self._poll_again
        self.client.send("GET", f"/poll?limit=7&{self.query}")

    @property
    def _answers(self) -> list[Response]:
        return [response for response in self.client.responses if response.is_complete]

    def _poll_again(self) -> None:
        self._client_takes()
        answers = self._answers[self._seen :]
        if not answers or not self.connection.is_open:
            return
        self._seen += len(answers)
        (answer,) = answers
        if answer.status in (200, 204):
            channels = re.sub("(^|&)since=[^&]*", "", self.query)
            self.client.send("GET", f"/poll?limit=7&{channels}&{query(since=self.position)}")

    def _pages(self) -> list[dict[str, Any]]:
        return [answer.json for answer in self._answers if answer.status == 200]

    def events(self) -> list[Got]:
        return [_got(event) for page in self._pages() for event in page["events"]]

    @property
    def recovered(self) -> bool:
        return all(page["recovered"] for page in self._pages())

    @property
    def position(self) -> str | None:
        said = [answer.header("event-position") for answer in self._answers if answer.status in (200, 204)]
        return said[-1] if said else None

    @property
    def closed_reason(self) -> str | None:
        answers = self._answers
        return answers[-1].json["detail"] if answers and answers[-1].status >= 400 else None

    @property
    def refusal(self) -> Response | None:
        answers = self._answers
        return answers[0] if answers and answers[0].status >= 400 else None


class PushSubscriber(_StreamSubscriber):
    """A client that takes pushes."""

    path = "/push"

    client: Http2Client

    def events(self) -> list[Got]:
        return [
            Got(push.body, event_id, push.channel, push.fields.get("event-position", event_id))
            for push in self.client.pushes
            if push.is_complete and (event_id := push.fields["event-id"])
        ]

    def _lines(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in json_lines(self.body) if line["type"] == kind]

    @property
    def recovered(self) -> bool:
        gaps, lines = self._lines("gap"), json_lines(self.body)
        assert not lines or (lines[0]["type"], lines[0]["recovered"]) == ("open", not gaps)
        return not gaps

    @property
    def position(self) -> str | None:
        return self.positions[-1] if self.positions else self._first_position

    @property
    def closed_reason(self) -> str | None:
        said = self._lines("closed")
        assert not said or self.client.response.is_complete
        return said[0]["detail"] if said else None
