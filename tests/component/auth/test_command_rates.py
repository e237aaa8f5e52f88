"""How often WebSocket clients may send commands."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pushd.auth.command_rates import CommandRates
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.grants import EVERYTHING, Grants
from pushd.daemon.integrations import Integrations
from pushd.errors import TooMany
from tests.rigs.builders import a_caller
from tests.rigs.daemon import DaemonTests
from tests.rigs.outsiders import Notes, Registry
from tests.rigs.websocket_client import WebSocketClient

STRANGER = "198.51.100.7"


def numbered(
    number: int, address: str = STRANGER, user: str | None = None, grants: Grants | None = None
) -> ClientInfo:
    """Make a connected client."""
    caller = a_caller(Grants.of(["subscribe"]) if grants is None else grants, address, user)
    caller.number, caller.prefix = number, "c"
    return caller


class RateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.commands = CommandRates(10, 20, self.clock.seconds)

    def passes(self, caller: ClientInfo, times: int) -> int:
        """Send so many commands; return how many were taken."""
        count = 0
        for _ in range(times):
            try:
                self.commands.charge(caller)
            except TooMany:
                continue
            count += 1
        return count

    def test_a_connection_has_a_burst_and_a_rate(self) -> None:
        self.assertEqual(self.passes(numbered(1), 50), 20)
        self.clock.advance(1)
        self.assertEqual(self.passes(numbered(1), 50), 10)

    def test_it_is_told_when_it_may_go_on(self) -> None:
        self.passes(numbered(1), 20)
        refused = self.assertRaises(TooMany, self.commands.charge, numbered(1))
        self.assertAlmostEqual(refused.retry_s or 0, 0.1)
        self.assertIn("[limits] command_rate", refused.detail)

    def test_an_address_has_a_hundred_times_the_burst_and_ten_times_the_rate(self) -> None:
        self.assertEqual(sum(self.passes(numbered(number), 20) for number in range(1, 120)), 2000)
        self.clock.advance(1)
        self.assertEqual(sum(self.passes(numbered(number), 20) for number in range(200, 220)), 100)

    def test_so_has_a_user_whatever_its_addresses(self) -> None:
        counts = [self.passes(numbered(number, f"192.0.2.{number}", "ada"), 20) for number in range(1, 120)]
        self.assertEqual(sum(counts), 2000)
        self.assertEqual(self.passes(numbered(500, user="bob"), 20), 20)

    def test_clients_of_this_machine_have_those_of_their_connections_only(self) -> None:
        self.assertEqual(sum(self.passes(numbered(number, "127.0.0.1"), 25) for number in range(1, 120)), 119 * 20)

    def test_operators_are_exempt(self) -> None:
        self.assertEqual(self.passes(numbered(1, grants=EVERYTHING), 100), 100)


class CommandTests(DaemonTests):
    """Over a WebSocket."""

    limits = "command_rate = 1\ncommand_burst = 4\n"

    def setUp(self) -> None:
        self.notes = Notes()
        self.world = Integrations(Registry(), None, self.notes)
        self.config = f"[site]\ndemo = no\n[auth]\nanonymous = publish, subscribe\n[limits]\n{self.limits}"
        super().setUp()
        self.rig.comes_from = STRANGER

    def socket(self, query: str = "") -> WebSocketClient:
        socket = WebSocketClient(self.rig, f"/ws{query}")
        self.rig.turn()
        return socket

    def answers(self, socket: WebSocketClient) -> list[tuple[str, Any]]:
        return [(it["type"], it.get("status")) for it in socket.json if it["type"] != "event"]

    def test_whatever_does_not_publish_is_counted(self) -> None:
        wrong: list[dict[str, object] | str | bytes] = [
            {"type": "subscribe", "channel": "a"},
            {"type": "unsubscribe", "channel": "b"},
            {"type": "renew", "token": "user-a"},
            {"type": "subscribe"},
            {"type": "publish", "channel": "a"},
            {"type": "publish", "channel": "", "data": "x"},
            {"type": "nonsense"},
            {},
            "{",
            "[]",
            b"binary",
        ]
        for message in wrong:
            with self.subTest(message):
                socket = self.socket()
                for _ in range(6):
                    if isinstance(message, dict):
                        socket.say(**message)
                    else:
                        socket.send(message)
                    self.rig.turn()
                statuses = [status for _, status in self.answers(socket)]
                self.assertEqual(len(statuses), 6)
                self.assertNotIn(429, statuses[:4])
                self.assertEqual(statuses[4:], [429, 429])
                self.assertEqual([it["retry_after"] for it in socket.json[4:]], [1, 1])

    def test_events_are_not(self) -> None:
        socket = self.socket()
        for number in range(20):
            socket.say(type="publish", channel="a", data="x", ref=number)
        self.rig.turn()
        self.assertEqual([kind for kind, _ in self.answers(socket)], ["published"] * 20)

    def test_nothing_has_changed_and_it_goes_on_later(self) -> None:
        socket = self.socket()
        for number in range(6):
            socket.say(type="subscribe", channel=f"c{number}", ref=number)
        self.rig.turn()
        self.assertEqual([it.get("ref") for it in socket.json], list(range(6)))
        self.assertEqual(self.rig.parts.bus.subscriptions, 4)
        self.rig.wait(2)
        socket.say(type="subscribe", channel="c5")
        self.rig.turn()
        self.assertEqual(self.answers(socket)[-1], ("subscribed", None))

    def test_a_reload_changes_it_for_sockets_that_are_open(self) -> None:
        socket = self.socket()
        self.rig.reload(self.config.replace(self.limits, "command_rate = 0\n"))
        for _ in range(10):
            socket.say(type="unsubscribe", channel="a")
        self.rig.turn()
        self.assertEqual(self.answers(socket), [("error", 404)] * 10)

    def test_a_loop_makes_no_more_notices_than_the_rate(self) -> None:
        socket = self.socket()
        for _ in range(500):
            socket.say(type="subscribe", channel="a")
            socket.say(type="unsubscribe", channel="a")
        self.rig.turn()
        self.assertEqual(len([event for event, *_ in self.notes.said if event != "connect"]), 2 * 4)

    def test_a_page_with_all_its_channels_meets_nothing(self) -> None:
        self.start(self.config.replace(self.limits, ""))
        self.rig.comes_from = STRANGER
        for _ in range(12):
            socket = self.socket()
            for number in range(100):
                socket.say(type="subscribe", channel=f"c{number}")
            self.rig.turn()
            self.assertEqual({kind for kind, _ in self.answers(socket)}, {"subscribed"})
