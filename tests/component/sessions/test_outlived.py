"""Work that takes longer than the right to do it."""

from __future__ import annotations

import json
from collections.abc import Callable

from pushd.bus.grants import NOTHING, Identity
from pushd.daemon.integrations import Integrations
from pushd.server.net import connection_info
from pushd.server.net.client_certificates import Certificate
from tests.rigs.daemon import STARTED, DaemonTests
from tests.rigs.http_client import Client, batch_replies
from tests.rigs.outsiders import Answers, Later, Registry, a_user
from tests.rigs.websocket_client import WebSocketClient

LINES = 3000

REQUESTS = (
    ("POST", "/channels/news"),
    ("GET", "/sse?channel=news"),
    ("GET", "/poll?channel=news"),
    ("GET", "/channels/news/events"),
)
"""One request to publish, and one each to stream, poll and read."""


class BatchTests(DaemonTests):
    """A batch that takes several turns."""

    config = "[auth]\nanonymous = publish, subscribe\n[site]\ndemo = no\n[channels]\nhistory_size = 5000\n"
    registry: Registry

    def setUp(self) -> None:
        """Know a user."""
        self.registry = Registry({"a": a_user("ada")})
        self.world = Integrations(self.registry)
        super().setUp()

    def begin(self, **headers: str) -> Client:
        """Begin a batch; its first turn is over."""
        client = self.rig.client()
        body = b'{"channel":"news","data":"x"}\n' * LINES
        client.send("POST", "/publish", headers=headers, body=body)
        return client

    def assert_refused(self, client: Client, status: int, says: str) -> None:
        """What was not published in the first turn is refused, and so not all lines are answered."""
        for _ in range(20):
            self.rig.turn()
        answers = batch_replies(client.response)
        published = [one for one in answers if "id" in one]
        self.assertEqual(len(published), 500)
        errors = [one["error"] for one in answers[500:]]
        self.assertEqual({error["status"] for error in errors[:-1]}, {status})
        self.assertIn(says, errors[0]["detail"])
        self.assertEqual(len(errors), 101)
        self.assertIn("in a row", errors[-1]["detail"])

    def test_nothing_more_is_published_when_the_token_is_no_good_any_more(self) -> None:
        client = self.begin(Authorization="Bearer a")
        del self.registry.identities["a"]
        self.assert_refused(client, 401, "nobody knows this token")

    def test_nothing_more_is_published_when_the_token_has_lost_the_right(self) -> None:
        client = self.begin(Authorization="Bearer a")
        self.registry.identities["a"] = Identity(NOTHING)
        self.assert_refused(client, 403, "no right to publish")

    def test_nothing_more_is_published_when_a_reload_has_taken_the_right(self) -> None:
        client = self.begin()
        self.rig.reload(self.config.replace("publish, subscribe", "subscribe"))
        self.assert_refused(client, 401, "no right to publish")

    def test_a_right_that_a_reload_has_left_is_left(self) -> None:
        client = self.begin()
        self.rig.reload(self.config.replace("publish, subscribe", "subscribe"))
        self.rig.reload(self.config)
        for _ in range(20):
            self.rig.turn()
        self.assertEqual(len(batch_replies(client.response)), LINES)


class AskedTests(DaemonTests):
    """Rights that end while the application is asked."""

    config = "[auth]\nanonymous = publish, subscribe\n[site]\ndemo = no\n"
    nothing = config.replace("publish, subscribe", "")

    def setUp(self) -> None:
        """Ask about everything."""
        self.answers = Answers(lambda ask: Later, asks_publish=True, asks_subscribe=True)
        self.world = Integrations(Registry({"a": a_user("ada", expires_at=STARTED + 5)}), self.answers)
        super().setUp()

    def outlived(self, method: str, target: str, **headers: str) -> tuple[Client, Callable[[], None]]:
        """Send a request; return its client, and what has the application agree."""
        client = self.rig.client()
        client.send(method, target, headers=headers, body=b"x" if method == "POST" else b"")
        self.rig.turn()
        (ask,) = self.answers.asked

        def agree() -> None:
            ask.answered.callback(None)
            self.rig.turn()

        return client, agree

    def test_a_token_that_expires_meanwhile_has_expired(self) -> None:
        for method, target in REQUESTS:
            with self.subTest(target):
                self.setUp()
                client, agree = self.outlived(method, target, Authorization="Bearer a")
                self.rig.wait(6)
                agree()
                self.assert_problem(client.response, 401, says="expired")
                self.assertEqual(self.rig.traces.subscribers, 0)

    def test_rights_that_a_reload_takes_meanwhile_are_gone(self) -> None:
        for method, target in REQUESTS:
            with self.subTest(target):
                self.setUp()
                client, agree = self.outlived(method, target)
                self.rig.reload(self.nothing)
                agree()
                self.assert_problem(client.response, 401, says="no right to")

    def test_a_websocket_subscribes_and_publishes_no_more(self) -> None:
        for command in ({"type": "subscribe", "channel": "b"}, {"type": "publish", "channel": "b", "data": "x"}):
            with self.subTest(command["type"]):
                self.setUp()
                socket = WebSocketClient(self.rig, "/ws")
                self.rig.turn()
                socket.send(json.dumps(command))
                self.rig.turn()
                (ask,) = self.answers.asked
                self.rig.reload(self.nothing)
                ask.answered.callback(None)
                self.rig.turn()
                self.assertEqual([one["status"] for one in socket.json], [401])
                self.assertEqual(self.rig.traces.channels, 0)


class CertifiedTests(DaemonTests):
    """Rights of clients with a certificate that a reload takes."""

    config = "[auth]\nanonymous =\ncertified = publish, subscribe\n[site]\ndemo = no\n"

    def test_streams_end_whose_rights_are_gone(self) -> None:
        self.patch(
            connection_info,
            "certificate_of",
            lambda transport: Certificate("CN=ada", STARTED + 1000),  # in memory
        )
        client = self.rig.client()
        client.send("GET", "/sse?channel=news")
        self.rig.turn()
        self.assertEqual(self.rig.traces.subscribers, 1)
        self.rig.reload(self.config.replace("publish, subscribe", "publish"))
        self.rig.turn()
        self.assertEqual(self.rig.traces.subscribers, 0)
