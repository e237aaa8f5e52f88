"""One address with many requests, and an application that takes its time: the others are still asked about."""

from __future__ import annotations

from itertools import count
from typing import ClassVar

from pushd.auth.webhooks.authorizer import WebhookAuthorizer, new_questions
from pushd.daemon.integrations import Integrations
from tests.rigs.application import Application, answer, hooks
from tests.rigs.daemon import DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import Client, HttpClient
from tests.rigs.outsiders import Registry
from tests.rigs.websocket_client import WebSocketClient

URL = "https://app.example/hook"
GREEDY, HONEST = "198.51.100.7", "203.0.113.9"
_ALL_HOOKS = ("before_connect", "before_subscribe", "before_publish")


class _Questions(DaemonTests):
    """The hooks of an application that answers nothing until the test says so."""

    config = (
        "[site]\ndemo = no\n[auth]\nanonymous = publish, subscribe\n"
        "[hooks]\nquestions = 40\n[limits]\nshare = 25%\n"
    )
    protocol: ClassVar[type[Client]] = HttpClient
    streams = 1
    """How many requests one connection makes."""

    def begin(self, *asked: str, config: str = "") -> None:
        """Start a daemon that asks about what the options `asked` say."""
        self.application = Application()
        self.application.always(None)
        numbers = count()
        self.questions = new_questions(40, 25)
        authorizer = WebhookAuthorizer(
            hooks(**{name: URL if name in asked else None for name in _ALL_HOOKS}),
            self.application,
            max_event_bytes=1000,
            seconds=lambda: self.rig.reactor.seconds(),
            now=lambda: self.rig.now(),
            new_id=lambda: f"q{next(numbers)}",
            questions=self.questions,
        )
        self.world = Integrations(Registry(), authorizer)
        self.start(self.config + config)

    def flood(self, method: str, target: str, body: bytes = b"") -> list[Client]:
        """Make three times as many requests from one address as there may be questions of all."""
        self.rig.comes_from = GREEDY
        clients: list[Client] = []
        for number in range(120):
            if number % self.streams == 0:
                clients.append(self.protocol(self.rig))
            clients[-1].send(method, target, body=body)
            self.rig.turn()
        self.rig.comes_from = HONEST
        return clients

    def statuses(self, clients: list[Client]) -> list[int]:
        return [response.status for client in clients for response in client.responses]


class QuestionTests(_Questions):
    """Over HTTP/1.1."""

    def test_one_address_takes_its_share_of_the_questions(self) -> None:
        for hook, method, target in (
            ("before_connect", "GET", "/sse?channel=a"),
            ("before_subscribe", "GET", "/stream?channel=a"),
            ("before_subscribe", "GET", "/channels/a/events"),
            ("before_subscribe", "GET", "/channels/a"),
            ("before_subscribe", "HEAD", "/poll?channel=a"),
        ):
            with self.subTest(hook=hook, target=target):
                self.begin(hook)
                clients = self.flood(method, target)
                self.assertEqual(len(self.application.posted), 10)
                self.assertEqual(self.statuses(clients), [429] * 110)
                honest = self.protocol(self.rig)
                honest.send(method, target)
                self.rig.turn()
                self.assertEqual((len(self.application.posted), honest.responses), (11, []))
                for posted in self.application.posted:
                    posted.answered.callback(answer())
                self.rig.turn()
                self.assertEqual(self.questions.used, 0)
                self.assertEqual(honest.responses[0].status, 200)
                self.assertEqual(sorted(self.statuses(clients)), [200] * 10 + [429] * 110)

    def test_what_one_address_publishes_waits_for_its_turn(self) -> None:
        self.begin("before_publish")
        clients = self.flood("POST", "/channels/a", b"x")
        self.assertEqual((len(self.application.posted), self.statuses(clients)), (5, []))
        honest = self.protocol(self.rig)
        honest.send("POST", "/channels/a", body=b"x")
        self.rig.turn()
        self.assertEqual(len(self.application.posted), 6)
        for posted in self.application.posted:  # which grows meanwhile
            posted.answered.callback(answer())
            self.rig.turn()
        self.assertEqual(self.statuses([*clients, honest]), [201] * 121)
        self.assertEqual(self.questions.used, 0)

    def test_so_do_the_lines_of_batches(self) -> None:
        self.begin("before_publish")
        clients = self.flood("POST", "/publish", b'{"channel":"a","data":"x"}\n' * 20)
        self.assertEqual(len(self.application.posted), 5)
        for posted in self.application.posted:
            posted.answered.callback(answer())
            self.rig.turn()
        self.assertEqual(self.statuses(clients), [200] * 120)
        self.assertEqual(len(self.application.posted), 2400)

    def test_who_goes_while_it_is_asked_about_still_counts_until_the_answer(self) -> None:
        self.begin("before_subscribe")
        for client in self.flood("GET", "/sse?channel=a"):
            client.connection.disconnect()
        self.rig.turn()
        self.assertEqual(self.questions.used, 10)
        self.flood("GET", "/sse?channel=a")
        self.assertEqual(len(self.application.posted), 10)
        for posted in self.application.posted:
            posted.answered.callback(answer())
        self.rig.turn()
        self.assertEqual((self.questions.used, self.rig.traces.sessions), (0, 0))


class Http2QuestionTests(QuestionTests):
    """The same over HTTP/2, in 40 streams of each connection."""

    protocol = Http2Client
    streams = 40


class CommandTests(_Questions):
    """The same over WebSockets."""

    def sockets(self, number: int) -> list[WebSocketClient]:
        sockets = [WebSocketClient(self.rig, "/ws") for _ in range(number)]
        self.rig.turn()
        return sockets

    def test_one_address_takes_its_share_of_the_questions(self) -> None:
        self.begin("before_subscribe")
        self.rig.comes_from = GREEDY
        sockets = self.sockets(30)
        for socket in sockets:
            socket.say(type="subscribe", channel="a")
        self.rig.turn()
        self.assertEqual(len(self.application.posted), 10)
        refused = [socket.json[0] for socket in sockets if socket.json]
        self.assertEqual([message["status"] for message in refused], [429] * 20)
        self.assertEqual({message["retry_after"] for message in refused}, {1})
        self.rig.comes_from = HONEST
        (honest,) = self.sockets(1)
        honest.say(type="subscribe", channel="a")
        self.rig.turn()
        self.assertEqual(len(self.application.posted), 11)

    def test_what_one_address_publishes_waits_for_its_turn(self) -> None:
        self.begin("before_publish")
        self.rig.comes_from = GREEDY
        for socket in self.sockets(30):
            for _ in range(20):
                socket.say(type="publish", channel="a", data="x")
        self.rig.turn()
        self.assertEqual(len(self.application.posted), 5)

    def test_nobody_is_asked_about_one_channel_too_many(self) -> None:
        self.begin("before_subscribe", config="subscriptions = 1\n")
        self.application.always(answer())
        (socket,) = self.sockets(1)
        for channel in ("a", "b", "b"):
            socket.say(type="subscribe", channel=channel)
            self.rig.turn()
        self.assertEqual([message["type"] for message in socket.json], ["subscribed", "error", "error"])
        self.assertEqual(len(self.application.posted), 1)
