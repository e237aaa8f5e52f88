"""A noisy client, and an application that takes its time: what others do is told all the same."""

from __future__ import annotations

from collections import Counter
from random import random

from pushd.auth.webhooks.notifier import WebhookNotifier
from pushd.daemon.integrations import Integrations
from tests.rigs.application import Application, answer, hooks
from tests.rigs.daemon import DaemonTests
from tests.rigs.http_client import HttpClient
from tests.rigs.outsiders import Registry
from tests.rigs.websocket_client import WebSocketClient

NOISY = "198.51.100.7"
URL = "https://app.example/told"
QUEUE, SHARE = 1000, 10


class NoisyTests(DaemonTests):
    """The application answers nothing while the noise goes on."""

    config = (
        "[site]\ndemo = no\n[auth]\nanonymous = publish, subscribe\n"
        "[limits]\ncommand_rate = 0\nconnect_rate = 0\nread_rate = 0\n"
    )

    def setUp(self) -> None:
        self.application = Application()
        self.application.always(None)
        self.outcomes = Counter[tuple[str, str]]()
        super().setUp()
        self.notifier = WebhookNotifier(
            hooks(after=URL, queue=QUEUE),
            self.application,
            call_later=self.rig.reactor.callLater,
            seconds=self.rig.reactor.seconds,
            now=self.rig.now,
            random=random,
            token="t",
            share_percent=SHARE,
            outcomes=self.outcomes,
        )
        self.rig.reload(self.config, Integrations(Registry(), None, self.notifier))
        HttpClient(self.rig).send("GET", "/sse?channel=first")  # about which a request is under way from now on
        self.rig.turn()

    def honest(self, count: int = 20) -> None:
        """Connect clients from other addresses."""
        for number in range(count):
            self.rig.comes_from = f"203.0.113.{number}"
            WebSocketClient(self.rig, f"/ws?channel=honest/{number}")
            self.rig.turn()
        self.rig.comes_from = NOISY

    def told(self) -> list[dict[str, object]]:
        """Let the application accept all notifications; return them."""
        self.application.always(answer())
        for posted in list(self.application.posted):
            if not posted.answered.called:
                posted.answered.callback(answer())
        self.rig.turn()
        self.assertEqual(self.notifier.waiting, 0)
        return [event for body in self.application.bodies for event in body["events"]]

    def assert_honest_are_told(self, dropped: int | None = None) -> None:
        told = self.told()
        for number in range(20):
            address = f"203.0.113.{number}"
            self.assertEqual(
                [event["event"] for event in told if event.get("address") == address], ["connect", "subscribe"]
            )
            of_channel = [event["event"] for event in told if event.get("channel") == f"honest/{number}"]
            self.assertIn("occupied", of_channel)
        missing = sum(int(str(event["count"])) for event in told if event["event"] == "dropped")
        self.assertEqual(missing, self.notifier.dropped)
        self.assertEqual(self.outcomes["after", "dropped"], missing)
        if dropped is not None:
            self.assertEqual(missing, dropped)

    def test_one_that_subscribes_and_unsubscribes_in_a_loop(self) -> None:
        self.rig.comes_from = NOISY
        socket = WebSocketClient(self.rig, "/ws")
        self.rig.turn()
        for number in range(3000):
            socket.say(type="subscribe", channel=f"c{number % 50}")
            socket.say(type="unsubscribe", channel=f"c{number % 50}")
        self.rig.turn()
        self.honest()
        self.assertLess(self.notifier.waiting, 100)
        self.assert_honest_are_told(dropped=0)
        self.assertEqual(self.notifier.cancelled, 4 * 3000)

    def test_one_that_connects_and_goes_in_a_loop(self) -> None:
        self.rig.comes_from = NOISY
        for number in range(1500):
            client = HttpClient(self.rig)
            client.send("GET", "/sse?channel=c" if number % 2 else "/poll?channel=c")
            self.rig.turn()
            client.connection.disconnect()
            if number == 700:
                self.honest()
        self.assertLessEqual(self.notifier.waiting, 3 + QUEUE * SHARE // 100 + 3 * 20)
        self.assert_honest_are_told()
        self.assertGreater(self.notifier.dropped, 2000)

    def test_many_that_are_noisy_together(self) -> None:
        self.honest()
        for number in range(40):
            self.rig.comes_from = f"198.51.100.{number}"
            for _ in range(60):
                client = HttpClient(self.rig)
                client.send("GET", "/stream?channel=c")
                self.rig.turn()
                client.connection.disconnect()
        self.assertLessEqual(self.notifier.waiting, QUEUE + 3)
        self.assert_honest_are_told()

    def test_what_the_application_knows_afterwards_is_so(self) -> None:
        self.rig.comes_from = NOISY
        socket = WebSocketClient(self.rig, "/ws")
        self.rig.turn()
        for kind, channel in (
            ("subscribe", "stays"),
            ("subscribe", "goes"),
            ("unsubscribe", "goes"),
            ("subscribe", "comes back"),
            ("unsubscribe", "comes back"),
            ("subscribe", "comes back"),
            ("unsubscribe", "stays"),
            ("subscribe", "stays"),
        ):
            socket.say(type=kind, channel=channel)
            self.rig.turn()
        subscribed, occupied = set[object](), set[object]()
        for event in self.told():
            what, told_of = event["event"], event.get("channel")
            if what in ("subscribe", "unsubscribe"):
                (subscribed.add if what == "subscribe" else subscribed.remove)(told_of)
            if what in ("occupied", "vacated"):
                (occupied.add if what == "occupied" else occupied.remove)(told_of)
        self.assertEqual(subscribed, {"first", "stays", "comes back"})
        self.assertEqual(occupied, subscribed)

    def test_while_it_keeps_up_it_is_told_everything(self) -> None:
        self.told()
        self.rig.comes_from = NOISY
        socket = WebSocketClient(self.rig, "/ws")
        self.rig.turn()
        socket.say(type="subscribe", channel="a")
        socket.say(type="unsubscribe", channel="a")
        self.rig.turn()
        events = [event["event"] for event in self.told() if event.get("channel") == "a"]
        self.assertEqual(events, ["subscribe", "occupied", "unsubscribe", "vacated"])

    def test_the_share_is_changed_by_a_reload(self) -> None:
        self.notifier.limit(1)
        self.rig.comes_from = NOISY
        for _ in range(20):
            WebSocketClient(self.rig, "/ws")
        self.rig.turn()
        self.assertEqual(self.notifier.waiting, 3 + 10)
