"""How often a client may read or connect, and that the defaults let a thousand behind one address pass."""

from __future__ import annotations

from unittest.mock import patch

from pushd.bus.clientinfo import ClientInfo, Transport
from pushd.config.loader import parse
from pushd.daemon.integrations import Integrations
from pushd.server.net.addresses import ClientAddress
from pushd.server.web import guard as guard
from tests.rigs.daemon import DaemonTests
from tests.rigs.outsiders import Registry, a_user

STRANGER = "198.51.100.7"
OPEN = "[auth]\nanonymous = publish, subscribe\n[site]\ndemo = no\n"
READS = {
    "a poll": ("GET", "/poll?channel=news&since=earliest"),
    "the head of a poll": ("HEAD", "/poll?channel=news&since=earliest"),
    "the history": ("GET", "/channels/news/events"),
    "the head of the history": ("HEAD", "/channels/news/events"),
    "one event": ("GET", "/channels/news/events/one"),
    "the state of a channel": ("GET", "/channels/news"),
    "the list of channels": ("GET", "/channels"),
    "who is present": ("GET", "/channels/news/presence"),
    "the head of a stream": ("HEAD", "/sse?channel=news"),
    "the head of lines": ("HEAD", "/stream?channel=news"),
}


class ReadRateTests(DaemonTests):
    """``read_rate`` and ``read_burst``, over everything that reads."""

    config = f"{OPEN}[limits]\nread_rate = 2\nread_burst = 3\n"
    world = Integrations(Registry({"a": a_user("ada")}))

    def test_whatever_reads_counts(self) -> None:
        for name, (method, target) in READS.items():
            with self.subTest(name):
                self.start(self.config)
                self.rig.publish("news", id="one")
                self.rig.comes_from = STRANGER
                statuses = [self.rig.request(method, target).status for _ in range(4)]
                self.assertEqual([status == 429 for status in statuses], [False] * 3 + [True], statuses)
                refused = self.rig.request("GET", "/channels")
                self.assertEqual((refused.status, refused.header("retry-after")), (429, "1"), "all count together")
                self.assertIn("read_rate", refused.json["detail"])
                self.rig.reactor.advance(0.5)
                self.assertNotEqual(self.rig.request(method, target).status, 429)

    def test_a_read_of_many_channels_counts_for_what_it_looked_at(self) -> None:
        for number in range(300):
            self.rig.publish(f"a/{number}")
        self.rig.comes_from = STRANGER
        with patch.object(guard, "_FREE_STEPS", 100):
            for _ in range(3):  # which count for one each
                self.assertEqual(self.rig.get("/poll?channel=a/1&since=earliest").status, 200)
            self.rig.reactor.advance(2)
            self.assertEqual(self.rig.get("/poll?channel=**/77&since=earliest").status, 200)
        refused = self.rig.get("/channels")
        self.assertEqual(refused.status, 429)
        self.assertGreaterEqual(int(refused.header("retry-after") or 0), 200 // 25 / 2 - 1)
        self.rig.comes_from = "192.0.2.1"
        self.assertEqual(self.rig.get("/channels").status, 200)

    def test_publishing_is_no_reading(self) -> None:
        self.rig.comes_from = STRANGER
        statuses = [self.rig.request("POST", "/channels/news", body=b"x").status for _ in range(10)]
        self.assertEqual(statuses, [201] * 10)

    def test_a_user_has_a_rate_of_its_own_and_this_machine_none(self) -> None:
        self.assertEqual([self.rig.get("/channels").status for _ in range(10)], [200] * 10)
        self.rig.comes_from = STRANGER
        for _ in range(4):
            last = self.rig.get("/channels")
        self.assertEqual(last.status, 429)
        self.assertEqual(self.rig.get("/channels", Authorization="Bearer a").status, 200)
        self.assertEqual(self.rig.get("/channels", Authorization="Bearer boss").status, 200)

    def test_a_reload_applies_another_rate(self) -> None:
        self.rig.comes_from = STRANGER
        for _ in range(4):
            last = self.rig.get("/channels")
        self.assertEqual(last.status, 429)
        self.rig.reload(f"{OPEN}[limits]\nread_rate = 0\n")
        self.assertEqual([self.rig.get("/channels").status for _ in range(10)], [200] * 10)


class DefaultRateTests(DaemonTests):
    """A thousand honest clients behind one address: see docs/howto/limits.rst."""

    config = OPEN

    def test_they_poll_a_channel_with_an_event_each_second(self) -> None:
        limits = parse("", "the test").limits
        clients = limits.connections_per_address
        self.assertEqual(clients, 1000)
        self.rig.comes_from = STRANGER
        taken = self.rig.parts.ingress.guard
        caller = self.a_caller()
        for _ in range(4 * clients):  # all begin at once
            taken.charge_read(caller)
        for _ in range(30):
            self.rig.reactor.advance(1)
            for _ in range(clients):
                taken.charge_read(caller)

    def test_they_come_back_after_a_restart(self) -> None:
        admission, caller = self.rig.parts.ingress.admission, self.a_caller()
        caller.transport = Transport("sse")
        for _cut in range(3):
            for _ in range(1000):
                admission._check_rate(caller)
            self.rig.reactor.advance(5)
        self.rig.reactor.advance(5)

    def a_caller(self) -> ClientInfo:
        """A client at another address."""
        return ClientInfo(self.rig.parts.ingress.guard.anonymous, ClientAddress(STRANGER, 1))
