"""What ``before_subscribe`` refuses is not seen by any way: every endpoint and method is tried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import ClassVar
from urllib.parse import quote, urlencode

from pushd.bus.grants import Grants, Identity
from pushd.daemon.integrations import Integrations
from pushd.errors import Forbidden
from pushd.server.web.static import StaticFiles
from tests.rigs.daemon import DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import Client, HttpClient, Response
from tests.rigs.openapi import operations
from tests.rigs.outsiders import Answers, Ask, Registry
from tests.rigs.websocket_client import WebSocketClient

CHANNEL = "vault/17"
DATA, EVENT_ID, KIND, USER = "what-is-in-it", "its-own-id", "its-own-type", "who-is-there"
SIGNS = (DATA, EVENT_ID, KIND, USER, '"retained"', '"subscribers"', '"connections"')
"""What shows that something of the channel was seen, in the body or the head of an answer."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
FOR_EVERYBODY = {"/healthz"}
"""Where counts of the whole daemon are shown."""

_EVERYTHING = Identity(Grants.of(["publish", "subscribe"], origin="the token"), "insider")


def paths() -> set[str]:
    """Return the paths of the description, each about the channel."""
    return {
        operation.path.replace("{channel}", quote(CHANNEL, safe="")).replace("{id}", EVENT_ID)
        for operation in operations()
    }


def queries() -> Iterator[str]:
    """Return every way to say which channel is wanted."""
    yield ""
    for more in ({}, {"since": "earliest"}, {"since": EVENT_ID}, {"since": "earliest", "format": "json"}):
        yield urlencode({"channel": CHANNEL, **more})
    yield urlencode([("channel", "open"), ("channel", CHANNEL), ("since", "earliest")])
    yield urlencode({"prefix": "vault"})
    yield urlencode({"after": "v"})


class UnseenTests(DaemonTests):
    """With a token that may publish and subscribe to everything, while the application refuses one channel."""

    config = "[site]\ndemo = no\n[auth]\nanonymous =\n[channels]\npresence = subscribers\n"
    protocol: ClassVar[type[Client]] = HttpClient

    def setUp(self) -> None:
        """Keep an event in the channel, and have a subscriber there."""
        self.refuses = False
        self.world = Integrations(Registry({"insider": _EVERYTHING}), Answers(self.decide, asks_subscribe=True))
        super().setUp()
        self.as_one(
            "boss", "POST", f"/channels/{quote(CHANNEL, safe='')}?id={EVENT_ID}&event={KIND}", DATA.encode()
        )
        self.there = WebSocketClient(
            self.rig, f"/ws?channel={quote(CHANNEL)}", fields=[("Authorization", f"Bearer user-{USER}")]
        )
        self.rig.turn()
        self.refuses = True

    def decide(self, ask: Ask) -> object:
        """Refuse the channel, and every pattern that covers it."""
        return Forbidden("not for you") if self.refuses and ask.what in (CHANNEL, "**", "vault/*") else None

    def as_one(self, token: str, method: str, target: str, body: bytes = b"") -> Response | None:
        """Make a request; return what was written of the response, if anything was."""
        client = self.protocol(self.rig)
        client.send(method, target, headers={"Authorization": f"Bearer {token}"}, body=body)
        for _ in range(3):
            self.rig.turn()
        responses = client.written
        client.connection.disconnect()
        self.rig.turn()
        return responses[0] if responses else None

    def shown(self, response: Response) -> str:
        return json.dumps(response.headers) + response.body.decode("latin-1")

    def test_the_description_has_every_endpoint(self) -> None:
        root = self.rig.parts.site.resource
        assert not isinstance(root, StaticFiles)
        described = {path.split("/")[1] for path in paths()}
        self.assertEqual({segment.decode() for segment in root.children} - described, set())

    def test_nothing_of_it_is_seen(self) -> None:
        for path in sorted(paths() - FOR_EVERYBODY):
            for method in METHODS:
                for query in queries():
                    target = f"{path}?{query}" if query else path
                    with self.subTest(f"{method} {target}"):
                        body = b"x" if method in ("POST", "PUT", "PATCH") and "publish" not in path else b""
                        response = self.as_one("insider", method, target, body)
                        if response is None or (method == "POST" and response.status == 201):
                            continue  # what it publishes itself
                        shown = self.shown(response)
                        self.assertEqual([sign for sign in SIGNS if sign in shown.replace(target, "")], [])

    def test_its_own_paths_are_refused(self) -> None:
        base = f"/channels/{quote(CHANNEL, safe='')}"
        for method in ("GET", "HEAD"):
            for path in (base, f"{base}/events", f"{base}/presence", f"{base}/events/{EVENT_ID}", "/channels"):
                with self.subTest(f"{method} {path}"):
                    response = self.as_one("insider", method, path)
                    assert response is not None
                    self.assertEqual(response.status, 403)

    def test_operators_see_what_it_is_like_without_a_question(self) -> None:
        base = f"/channels/{quote(CHANNEL, safe='')}"
        for path in (base, f"{base}/presence", "/channels"):
            response = self.as_one("boss", "GET", path)
            assert response is not None
            self.assertEqual(response.status, 200, path)
            self.assertIn(CHANNEL, response.body.decode())

    def test_what_is_allowed_is_seen(self) -> None:
        self.refuses = False
        base = f"/channels/{quote(CHANNEL, safe='')}"
        for path, sign in (
            (base, '"retained"'),
            (f"{base}/events", DATA),
            (f"{base}/presence", USER),
            (f"{base}/events/{EVENT_ID}", DATA),
        ):
            response = self.as_one("insider", "GET", path)
            assert response is not None
            self.assertEqual(response.status, 200, path)
            self.assertIn(sign, response.body.decode())

    def test_without_the_hook_whoever_may_subscribe_to_everything_sees_the_list(self) -> None:
        self.world = Integrations(Registry({"insider": _EVERYTHING}), Answers())
        self.start(self.config)
        response = self.as_one("insider", "GET", "/channels")
        assert response is not None
        self.assertEqual(response.status, 200)

    def test_over_a_websocket(self) -> None:
        client = WebSocketClient(self.rig, "/ws", fields=[("Authorization", "Bearer insider")])
        self.rig.turn()
        for channel in (CHANNEL, "**", "vault/*"):
            for since in ("latest", "earliest", EVENT_ID):
                client.say(type="subscribe", channel=channel, since=since)
                self.rig.turn()
        self.assertEqual({message["type"] for message in client.json}, {"error"})
        self.assertEqual({message["status"] for message in client.json}, {403})


class UnseenHttp2Tests(UnseenTests):
    """The same over HTTP/2."""

    protocol = Http2Client
