"""The daemon: what is put together, opened, turned every second and at the end closed in order."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.test.iosim import FakeTransport
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.clientinfo import DAEMON
from pushd.bus.closing import CloseCause, CloseReason
from pushd.bus.grants import EVERYTHING
from pushd.bus.subscription import Subscription
from pushd.config.loader import parse
from pushd.daemon import assembly, service
from pushd.daemon.assembly import assemble
from pushd.daemon.components import Components, StoreParts
from pushd.daemon.service import Daemon
from pushd.daemon.systemd import Systemd
from pushd.errors import StartFailed
from pushd.store.sqlite.store import Store
from pushd.store.sqlite.worker import Worker
from tests.component.server.test_listen import Reactor
from tests.rigs.builders import a_caller, draft, patterns
from tests.rigs.certificates import Authority
from tests.rigs.daemon import DaemonRig
from tests.unit.daemon.test_systemd import Manager
from tests.unit.server.test_tls import forgive_deprecated_certificates

PLAIN = "[listen:http]\nendpoint = tcp:8080:interface=127.0.0.1\n"
TWO = f"{PLAIN}[listen:other]\nendpoint = tcp:8081:interface=127.0.0.1\n"
THREE = f"{TWO}[listen:socket]\nendpoint = unix:/run/pushd.sock\n"
STOP = "[pushd]\nstop_timeout = 3s\n"

NOW = 1_700_000_000.0
"""The time of day when the clock of the reactor stands at 0."""

STREAM = b"GET /sse?channel=a HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


class EndOfProcess(BaseException):
    """What the process ends with, as by `SystemExit`."""


class Wire(FakeTransport):
    """What a connection is made of. It ends when the test says that the client has taken everything."""

    def __init__(self, protocol: IProtocol) -> None:
        super().__init__(
            protocol, True, IPv4Address("TCP", "127.0.0.1", 8080), IPv4Address("TCP", "127.0.0.1", 40000)
        )
        self.is_aborted = False

    def abortConnection(self) -> None:
        """Override: write it down, and end at once."""
        self.is_aborted = True
        self.drain()

    def drain(self) -> None:
        """Let the connection end."""
        if not self.disconnected:
            self.disconnected = True
            self.reportDisconnect()

    @property
    def sent(self) -> str:
        """What the daemon sent since this was last asked."""
        return (self.getOutBuffer() or b"").decode()


class ServiceCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.failures: list[StartFailed] = []
        self.systemd: Systemd | None = None
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        forgive_deprecated_certificates(self)

    def fail_start(self, error: StartFailed) -> None:
        """End the process, as far as the daemon can tell."""
        self.failures.append(error)
        raise EndOfProcess

    def make(self, text: str = PLAIN, change: Callable[[Components], Components] = lambda parts: parts) -> Daemon:
        """Make a daemon for a configuration, some of its parts changed."""
        config, clock = parse(text, "x"), self.reactor
        self.parts = change(assemble(config, clock, seconds=clock.seconds, now=lambda: NOW + clock.seconds()))
        return Daemon(
            config,
            self.parts,
            clock,
            state_directory=self.directory,
            fail=self.fail_start,
            filename="/etc/my p.ini",
            systemd=self.systemd,
        )

    def start(self, text: str = PLAIN, change: Callable[[Components], Components] = lambda parts: parts) -> Daemon:
        """Make a daemon and start it, as twistd does, which then has the reactor run."""
        daemon = self.make(text, change)
        daemon.privilegedStartService()
        daemon.startService()
        self.reactor.advance(0)
        return daemon

    def connect(self, data: bytes = b"") -> Wire:
        """Connect a client, which sends `data`."""
        _, factory, _, _ = self.reactor.tcpServers[-1]
        protocol = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40000))
        assert protocol is not None
        wire = Wire(protocol)
        protocol.makeConnection(wire)
        if data:
            protocol.dataReceived(data)
        self.reactor.advance(0)
        return wire

    def wait(self, seconds: int) -> None:
        """Let time go by."""
        self.reactor.pump([1] * seconds)


class AssembleTests(ServiceCase):
    def test_each_daemon_has_an_epoch_of_its_own(self) -> None:
        epochs = set()
        for _ in range(20):
            self.make()
            epoch, dash, sequence = self.parts.bus.log.position.partition("-")
            self.assertRegex(epoch, "^[0-9a-z]{10}$")
            self.assertEqual(dash + sequence, "-0")
            epochs.add(epoch)
        self.assertEqual(len(epochs), 20)

    def test_the_limits_reach_the_parts(self) -> None:
        self.make(
            f"{PLAIN}[limits]\noutbox = 5000\nsubscriptions = 3\nchannels = 7\n[channels]\nhistory_size = 2\n"
        )
        bus = self.parts.bus
        self.assertEqual((self.parts.sessions.max_outbox_bytes, bus.max_held_bytes), (5000, 5000))
        self.assertEqual(bus.max_subscribed, 3)
        for number in range(4):
            bus.publish(draft("a", data=b"%d" % number), EVERYTHING)
        self.assertEqual(bus.state("a", EVERYTHING).retained, 2)

    def test_events_have_the_time_of_day_and_expire_by_the_clock_that_never_jumps(self) -> None:
        self.start(f"{PLAIN}[channels]\nhistory_age = 10s\n")
        self.wait(5)
        self.parts.bus.publish(draft("a"), EVERYTHING)
        (entry,) = self.parts.bus.read(patterns("a"), "earliest", 10, EVERYTHING).entries
        self.assertEqual(entry.event.time, NOW + 5)
        self.wait(11)
        self.assertEqual(len(self.parts.bus.log), 1)
        channel = self.parts.bus.log.get("a")
        assert channel is not None
        self.assertEqual(len(channel.history), 0)

    def test_anybody_may_do_what_is_configured_and_no_more(self) -> None:
        publish = b"POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
        for said, statuses in (
            ("", ["201", "200"]),
            ("[auth]\nanonymous = publish\n", ["201", "403"]),
            ("[auth]\nanonymous = subscribe\n", ["403", "200"]),
            ("[auth]\nanonymous =\n", ["403", "403"]),
        ):
            self.start(PLAIN + said)
            found = [self.connect(data).sent.split()[1] for data in (publish, STREAM)]
            self.assertEqual(found, statuses, said)

    def test_the_health_counts_what_is_open(self) -> None:
        self.start()
        self.connect(STREAM)
        self.connect()
        body = self.connect(HEALTH).sent.partition("\r\n\r\n")[2]
        self.assertEqual(body, '{"status":"ok","connections":3,"subscribers":1,"channels":0}\n')

    def test_the_demo_is_there_unless_it_is_switched_off_or_there_is_a_site(self) -> None:
        for said, is_there in (
            ("", True),
            ("[site]\ndemo = no\n", False),
            (f"[site]\nroot = {self.directory}\n", False),
        ):
            self.start(PLAIN + said)
            page = self.connect(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            clock = self.connect(STREAM.replace(b"=a", b"=clock"))
            begun = clock.sent
            self.wait(2)
            self.assertIn("text/event-stream", begun)
            self.assertEqual("data: 2023-11-14T22:13:2" in clock.sent, is_there, said)
            self.assertEqual("200 OK" in page.sent, is_there, said)

    def test_a_subscriber_that_fails_is_logged_and_dropped(self) -> None:
        class Faulty:
            """A subscriber that cannot take anything."""

            def deliver(self, entry: object) -> None:
                """Fail."""
                raise ZeroDivisionError("a fault")

            def close(self, reason: CloseReason) -> None:
                """Record the call."""
                causes.append(reason.cause)

        causes: list[CloseCause] = []
        self.make()
        Subscription(self.parts.bus, Faulty(), DAEMON).add(patterns("a"), "latest")
        self.parts.bus.publish(draft("a"), EVERYTHING)
        self.assertEqual((len(self.flushLoggedErrors(ZeroDivisionError)), causes), (1, [CloseCause.FAILED]))


class PrepareTests(ServiceCase):
    def test_nothing_is_opened_before_the_start(self) -> None:
        self.make(THREE)
        self.assertEqual((self.reactor.open, self.reactor.getDelayedCalls()), ([], []))

    def test_a_site_that_does_not_exist_fails_the_start(self) -> None:
        for root in ("/nosuch", __file__):
            error = self.assertRaises(StartFailed, self.make, f"{PLAIN}[site]\nroot = {root}\n")
            self.assertEqual(str(error), f"[site] root = {root}: not a directory")

    def test_a_certificate_that_does_not_exist_fails_the_start(self) -> None:
        text = f"{PLAIN}tls = yes\ncertificate = /nosuch.crt\nkey = /nosuch.key\n"
        self.assertIn("/nosuch.crt", str(self.assertRaises(StartFailed, self.make, text)))

    def test_an_endpoint_that_does_not_exist_fails_the_start(self) -> None:
        error = self.assertRaises(StartFailed, self.make, "[listen:a]\nendpoint = nosuch:1\n[auth]\nanonymous =\n")
        self.assertIn("[listen:a] endpoint = nosuch:1", str(error))


class StartTests(ServiceCase):
    def test_the_ports_are_opened_in_the_order_of_the_file(self) -> None:
        self.start(THREE)
        self.assertEqual(
            [port.getHost() for port in self.reactor.open][:2],
            [
                IPv4Address("TCP", "127.0.0.1", 8080),
                IPv4Address("TCP", "127.0.0.1", 8081),
            ],
        )
        self.assertEqual(len(self.reactor.open), 3)

    def test_they_are_opened_while_the_process_has_its_privileges(self) -> None:
        self.make(TWO).privilegedStartService()
        self.assertEqual(len(self.reactor.open), 2)

    def taken(self, text: str, port: int) -> Daemon:
        """Make a daemon one of whose ports is taken."""
        self.reactor.taken = port
        return self.make(text)

    def test_if_one_is_taken_the_start_fails_with_its_name(self) -> None:
        self.assertRaises(EndOfProcess, self.taken(THREE, 8081).privilegedStartService)
        why = "[listen:other] tcp:8081:interface=127.0.0.1: cannot listen: Address already in use; "
        why += "choose another port, with endpoint in [listen:other] of the file of --config"
        self.assertEqual(list(map(str, self.failures)), [why])

    def test_those_after_one_that_is_taken_are_not_opened(self) -> None:
        self.assertRaises(EndOfProcess, self.taken(THREE, 8080).privilegedStartService)
        self.assertEqual(self.reactor.open, [])

    def test_those_before_one_that_is_taken_are_closed(self) -> None:
        self.assertRaises(EndOfProcess, self.taken(THREE, 8081).privilegedStartService)
        self.assertEqual([port.stops for port in self.reactor.open], [1])


class GreetingTests(ServiceCase):
    def assertGreets(self, text: str, *lines: str) -> None:
        with capturedLogs() as events:
            self.start(text)
        first, *others = [formatEvent(event) for event in events]
        self.assertRegex(first, "^(at most [0-9]+|any number of) connections")
        self.assertEqual(others, list(lines))

    def test_it_says_where_it_listens_and_what_to_try(self) -> None:
        self.assertGreets(
            PLAIN,
            "pushd listens at http://127.0.0.1:8080",
            "open http://127.0.0.1:8080/ in a browser, or try:",
            "    curl -N 'http://127.0.0.1:8080/sse?channel=clock'",
            "    curl -d 'hello' 'http://127.0.0.1:8080/channels/news'",
        )

    def test_all_places_are_named_and_the_first_is_to_be_tried(self) -> None:
        self.assertGreets(
            f"{THREE}[site]\ndemo = no\n",
            "pushd listens at http://127.0.0.1:8080 and http://127.0.0.1:8081 and http+unix:///run/pushd.sock",
            "    curl -d 'hello' 'http://127.0.0.1:8080/channels/news'",
        )

    OPERATIONS = "[listen:operations]\nendpoint = tcp:9464:interface=127.0.0.1\nserves = operations\n"

    def test_a_listener_for_operations_is_nowhere_to_publish(self) -> None:
        operations = "operations listen at http://127.0.0.1:9464: /metrics, /readyz and /healthz"
        self.assertGreets(
            f"{self.OPERATIONS}{PLAIN}[site]\ndemo = no\n",
            "pushd listens at http://127.0.0.1:8080",
            "    curl -d 'hello' 'http://127.0.0.1:8080/channels/news'",
            operations,
        )
        self.assertGreets(self.OPERATIONS, operations)

    def commands(self, text: str) -> list[list[str]]:
        """Return the words of each command in the greeting, as a shell reads them."""
        with capturedLogs() as events:
            self.start(text)
        lines = [str(formatEvent(event)) for event in events]
        return [shlex.split(line) for line in lines if line.startswith("    curl ")]

    def test_the_url_is_a_word_of_its_own_in_every_command(self) -> None:
        self.assertEqual(
            [words[-1] for words in self.commands(PLAIN)],
            ["http://127.0.0.1:8080/sse?channel=clock", "http://127.0.0.1:8080/channels/news"],
        )

    def test_over_tls_curl_is_told_to_trust_the_certificate(self) -> None:
        for words in self.commands(f"{PLAIN}tls = yes\n"):
            self.assertTrue(words[-1].startswith("https://127.0.0.1:8080/"), words)
            self.assertTrue({"-k", "-kN", "-Nk", "-kd", "--insecure"} & set(words), words)

    BEARER = '-H "Authorization: Bearer $TOKEN"'
    KEY = f"[key:app]\nalgorithm = HS256\nsecret = {'s' * 32}\n"

    def test_who_needs_a_token_is_told_how_to_make_one_and_where_it_belongs(self) -> None:
        self.assertGreets(
            f"{PLAIN}{self.KEY}[auth]\nanonymous =\n",
            "pushd listens at http://127.0.0.1:8080",
            "open http://127.0.0.1:8080/ in a browser, or try:",
            "    TOKEN=$(twistd pushd --config '/etc/my p.ini' --token --subscribe clock --publish news)",
            f"    curl {self.BEARER} -N 'http://127.0.0.1:8080/sse?channel=clock'",
            f"    curl {self.BEARER} -d 'hello' 'http://127.0.0.1:8080/channels/news'",
        )

    def test_only_what_is_not_granted_to_all_takes_a_token(self) -> None:
        keys = self.KEY + self.KEY.replace("app", "new")
        self.assertGreets(
            f"{PLAIN}{keys}[auth]\nanonymous =\nanonymous_subscribe = clo*, clock\n",
            "pushd listens at http://127.0.0.1:8080",
            "open http://127.0.0.1:8080/ in a browser, or try:",
            "    TOKEN=$(twistd pushd --config '/etc/my p.ini' --token --key app --publish news)",
            "    curl -N 'http://127.0.0.1:8080/sse?channel=clock'",
            f"    curl {self.BEARER} -d 'hello' 'http://127.0.0.1:8080/channels/news'",
        )

    def test_a_token_that_pushd_cannot_make_is_left_to_the_reader(self) -> None:
        key = "[key:id]\nalgorithm = ES256\njwks_url = https://id.example/jwks\n"
        self.assertGreets(
            f"{PLAIN}{key}[site]\ndemo = no\n[auth]\nanonymous = subscribe\n",
            "pushd listens at http://127.0.0.1:8080",
            f"    curl {self.BEARER} -d 'hello' 'http://127.0.0.1:8080/channels/news'",
        )

    def test_what_nobody_may_do_is_not_suggested(self) -> None:
        advice = "by curl: for that, give the right in [auth], or have a [key:NAME] for tokens (docs/tokens.rst)"
        self.assertGreets(
            f"{PLAIN}[auth]\nanonymous =\n",
            "pushd listens at http://127.0.0.1:8080",
            "open http://127.0.0.1:8080/ in a browser",
            f"nobody may subscribe or publish {advice}",
        )

    def test_the_easiest_place_is_to_be_tried(self) -> None:
        first = "[listen:proxied]\nendpoint = tcp:8079:interface=127.0.0.1\nproxy_protocol = yes\n"
        proxies = "[proxies]\ntrusted = 127.0.0.1\n[auth]\nanonymous = publish, subscribe\n"
        for words in self.commands(f"{first}{PLAIN}{proxies}"):
            self.assertTrue(words[-1].startswith("http://127.0.0.1:8080/"), words)

    def test_where_a_certificate_is_wanted_its_rights_count_and_curl_has_one(self) -> None:
        authority = Authority().write(Path(self.directory), "ca")
        tls = f"tls = yes\nclient_ca = {authority}\n[auth]\nanonymous =\ncertified = publish\n"
        (words,) = self.commands(PLAIN + tls)
        self.assertIn("-k --cert CERTIFICATE --key KEY -d hello", " ".join(words))


class EverySecondTests(ServiceCase):
    def test_what_is_to_be_done_every_second_is_from_the_first_one_on(self) -> None:
        times: list[float] = []
        self.start(
            change=lambda parts: replace(parts, every_second=(lambda: times.append(self.reactor.seconds()),))
        )
        self.assertEqual(times, [])
        self.wait(3)
        self.assertEqual(times, [1.0, 2.0, 3.0])

    def test_a_fault_in_it_is_logged_and_it_goes_on(self) -> None:
        times: list[float] = []

        def fault() -> None:
            times.append(self.reactor.seconds())
            raise ZeroDivisionError("a fault")

        self.start(change=lambda parts: replace(parts, every_second=(fault,)))
        self.wait(4)
        self.assertEqual(times, [1.0, 2.0, 3.0, 4.0])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)

    def test_a_fault_in_one_thing_does_not_touch_the_others(self) -> None:
        times: list[float] = []

        def fault() -> None:
            raise ZeroDivisionError("a fault")

        def other() -> None:
            times.append(self.reactor.seconds())

        self.start(change=lambda parts: replace(parts, every_second=(other, fault, other)))
        self.wait(2)
        self.assertEqual(times, [1.0, 1.0, 2.0, 2.0])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_a_fault_in_an_alarm_lets_the_others_ring(self) -> None:
        rang: list[float] = []

        def fault() -> None:
            raise ZeroDivisionError("a fault")

        self.start()
        wheel = self.parts.sessions.wheel
        wheel.call_in(1, fault)
        wheel.call_in(1, lambda: rang.append(self.reactor.seconds()))
        self.wait(3)
        self.assertEqual((rang, len(self.flushLoggedErrors(ZeroDivisionError))), ([3.0], 1))

    def test_after_a_fault_it_can_still_be_stopped(self) -> None:
        def fault() -> None:
            raise ZeroDivisionError("a fault")

        daemon = self.start(change=lambda parts: replace(parts, every_second=(fault,)))
        self.wait(1)
        self.successResultOf(daemon.stopService())
        self.wait(5)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class StopTests(ServiceCase):
    def assertStopped(self, stopping: Deferred[None]) -> None:
        """Check that it is over, and that no timer and no subscriber is left."""
        self.assertIsNone(self.successResultOf(stopping))
        parts = self.parts
        counts = len(parts.site.connections), len(parts.sessions), parts.bus.subscribers, len(parts.sessions.wheel)
        self.assertEqual((counts, self.reactor.getDelayedCalls()), ((0, 0, 0, 0), []))

    def test_with_nobody_there_it_is_over_at_once(self) -> None:
        daemon = self.start(THREE)
        self.wait(3)
        self.assertStopped(daemon.stopService())
        self.assertEqual([port.stops for port in self.reactor.open], [1, 1, 1])
        self.assertFalse(daemon.running)

    def test_one_that_never_started_can_be_stopped(self) -> None:
        self.assertStopped(self.make().stopService())

    def test_all_ports_are_closed_before_anybody_is_told(self) -> None:
        daemon = self.start(TWO)
        stopped: list[Deferred[None]] = [Deferred(), Deferred()]
        for port, deferred in zip(self.reactor.open, stopped, strict=True):
            port.stopped = deferred
        wire = self.connect(STREAM)
        stopping = daemon.stopService()
        for port, deferred in zip(self.reactor.open, stopped, strict=True):
            self.assertEqual((port.stops, bool(wire.disconnecting)), (1, False))
            deferred.callback(None)
        self.assertEqual(bool(wire.disconnecting), True)
        self.assertNoResult(stopping)
        wire.drain()
        self.assertStopped(stopping)

    def test_a_subscriber_is_told_why_and_waited_for(self) -> None:
        daemon = self.start()
        wire = self.connect(STREAM)
        wire.getOutBuffer()
        stopping = daemon.stopService()
        self.assertIn('event: pushd.closed\ndata: {"detail":"the server is going away"}\n\n', wire.sent)
        self.assertTrue(wire.disconnecting)
        self.assertNoResult(stopping)
        wire.drain()
        self.assertStopped(stopping)
        self.assertFalse(wire.is_aborted)

    def test_what_waits_for_a_subscriber_is_sent_first(self) -> None:
        daemon = self.start()
        wire = self.connect(STREAM)
        self.parts.bus.publish(draft("a", data=b"last"), EVERYTHING)
        stopping = daemon.stopService()
        sent = wire.sent
        self.assertLess(0, sent.find("data: last\n\n"))
        self.assertLess(sent.find("data: last\n\n"), sent.find("event: pushd.closed"))
        wire.drain()
        self.reactor.advance(0)
        self.assertStopped(stopping)

    def test_idle_connections_are_closed(self) -> None:
        daemon = self.start()
        fresh, used = self.connect(), self.connect(HEALTH)
        self.assertIn("200 OK", used.sent)
        stopping = daemon.stopService()
        self.wait(1)
        for wire in (fresh, used):
            self.assertTrue(wire.disconnecting)
            self.assertNoResult(stopping)
            wire.drain()
        self.assertStopped(stopping)

    def test_every_connection_is_waited_for(self) -> None:
        daemon = self.start()
        wires = [self.connect(data) for data in (STREAM, b"", STREAM, HEALTH)]
        stopping = daemon.stopService()
        for wire in wires:
            self.assertNoResult(stopping)
            wire.drain()
        self.assertStopped(stopping)

    def test_those_that_do_not_drain_in_time_are_aborted_and_only_those(self) -> None:
        daemon = self.start(PLAIN + STOP)
        slow, quick, idle = self.connect(STREAM), self.connect(STREAM), self.connect()
        stopping = daemon.stopService()
        quick.drain()
        self.wait(2)
        self.assertNoResult(stopping)
        self.assertEqual((slow.is_aborted, idle.is_aborted), (False, False))
        with capturedLogs() as events:
            self.wait(1)
        self.assertEqual([wire.is_aborted for wire in (slow, quick, idle)], [True, False, True])
        self.assertStopped(stopping)
        warnings = [formatEvent(event) for event in events if event["log_level"].name == "warn"]
        self.assertEqual(warnings, ["aborting 2 connections: they did not drain in time"])

    def test_it_is_over_even_if_a_connection_does_not_end_when_it_is_aborted(self) -> None:
        daemon = self.start(PLAIN + STOP)
        wire = self.connect(STREAM)
        wire.drain = lambda: None  # type: ignore[method-assign]
        stopping = daemon.stopService()
        self.wait(3)
        self.assertTrue(wire.is_aborted)
        self.assertIsNone(self.successResultOf(stopping))

    def test_while_it_waits_the_wheel_turns(self) -> None:
        daemon = self.start(f"{PLAIN}[pushd]\nstop_timeout = 60s\n")
        wire = self.connect(STREAM)
        stopping = daemon.stopService()
        self.wait(12)
        self.assertTrue(wire.is_aborted)
        self.assertStopped(stopping)

    def test_it_says_how_many_connections_are_open(self) -> None:
        daemon = self.start()
        wires = [self.connect(), self.connect(STREAM)]
        with capturedLogs() as events:
            stopping = daemon.stopService()
        self.assertEqual(formatEvent(events[0]), "stopping; 2 connections are open")
        for wire in wires:
            wire.drain()
        self.assertStopped(stopping)

    def test_a_client_that_cannot_be_told_does_not_keep_the_others_from_being_told(self) -> None:
        class Faulty:
            """A client that cannot be closed."""

            caller = a_caller()
            end_reason: CloseReason | None = None
            outbox_bytes = sent_bytes = 0
            subscription: Subscription

            def deliver(self, entry: object) -> None:
                """Do nothing."""

            def close(self, reason: CloseReason) -> None:
                """Fail."""
                raise ZeroDivisionError("a fault")

            def abort(self) -> None:
                """Do nothing."""

        daemon = self.start(PLAIN + STOP)
        faulty = Faulty()
        faulty.subscription = Subscription(self.parts.bus, faulty, faulty.caller)
        self.parts.sessions.register(faulty)
        wire = self.connect(STREAM)
        faults: list[object] = []
        stopping = daemon.stopService().addErrback(faults.append)
        self.wait(3)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(faults, [])
        self.assertIsNone(self.successResultOf(stopping))
        self.assertTrue(wire.is_aborted or wire.disconnecting)

    def test_told_again_it_waits_no_longer(self) -> None:
        daemon = self.start(f"{PLAIN}[pushd]\nstop_timeout = 60s\n")
        wire = self.connect(STREAM)
        stopping = daemon.stopService()
        self.assertNoResult(stopping)
        with capturedLogs() as events:
            daemon.hurry()
        self.assertTrue(wire.is_aborted)
        self.assertEqual(formatEvent(events[0]), "aborting 1 connections: pushd was told to stop again")
        daemon.hurry()
        self.assertStopped(stopping)

    def test_told_again_before_anybody_was_told_it_waits_for_nobody(self) -> None:
        daemon = self.start(f"{PLAIN}[pushd]\nstop_timeout = 60s\n")
        self.reactor.open[0].stopped = stopped = Deferred()  # type: ignore[var-annotated]
        wire = self.connect(STREAM)
        stopping = daemon.stopService()
        daemon.hurry()
        stopped.callback(None)
        self.assertTrue(wire.is_aborted)
        self.assertStopped(stopping)

    def test_a_port_that_does_not_close_does_not_hold_up_the_stop(self) -> None:
        daemon = self.start(TWO)
        self.reactor.open[0].stopped = Deferred()
        with capturedLogs() as events:
            stopping = daemon.stopService()
            self.wait(1)
        self.assertStopped(stopping)
        self.assertEqual([port.stops for port in self.reactor.open], [1, 1])
        self.assertIn("could not stop listening at ", str(formatEvent(events[0])))


class OperationsTests(ServiceCase):
    """A listener for operations."""

    def ask(self, wire: Wire, path: str) -> str:
        """Ask on a connection; answer the status."""
        wire.protocol.dataReceived(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.reactor.advance(0)
        return wire.sent.partition("\r\n")[0].split(" ")[1]

    def test_it_is_not_ready_before_the_reactor_runs(self) -> None:
        daemon = self.make(PLAIN)
        daemon.privilegedStartService()
        daemon.startService()
        self.assertEqual(str(self.parts.operators.readiness.why_not), "the server is starting")
        self.reactor.advance(0)
        self.assertIsNone(self.parts.operators.readiness.why_not)

    def test_it_serves_what_it_is_for_until_the_others_have_gone(self) -> None:
        daemon = self.start(f"{PLAIN}{GreetingTests.OPERATIONS}[pushd]\nstop_timeout = 60s\n")
        looking = self.connect()
        self.assertEqual((self.ask(looking, "/readyz"), self.ask(looking, "/channels")), ("200", "404"))
        self.reactor.tcpServers.reverse()
        wire = self.connect(STREAM)
        stopping = daemon.stopService()
        self.wait(5)
        self.assertEqual([port.stops for port in self.reactor.open], [1, 0])
        self.assertEqual((self.ask(looking, "/readyz"), self.ask(looking, "/metrics")), ("503", "200"))
        self.assertNoResult(stopping)
        wire.drain()
        self.wait(3)
        self.assertIsNone(self.successResultOf(stopping))
        self.assertEqual([port.stops for port in self.reactor.open], [1, 1])
        self.assertTrue(looking.is_aborted)


class SystemdTests(ServiceCase):
    def setUp(self) -> None:
        super().setUp()
        self.manager = Manager(f"{self.directory}/notify")
        self.addCleanup(self.manager.socket.close)
        self.systemd = self.manager_of()

    def manager_of(self, **environ: str) -> Systemd:
        """Return what the daemon knows of a service manager."""
        systemd = Systemd({"NOTIFY_SOCKET": f"{self.directory}/notify", **environ})
        self.addCleanup(systemd.close)
        return systemd

    def assertTold(self, *datagrams: str) -> None:
        self.assertEqual(self.manager.heard(), list(datagrams))

    def test_it_is_ready_once_every_port_is_open_and_the_reactor_runs(self) -> None:
        daemon = self.make(TWO)
        daemon.privilegedStartService()
        daemon.startService()
        with capturedLogs() as events:
            self.assertTold()
            self.reactor.advance(0)
        self.assertIn("pushd listens at ", str(formatEvent(events[1])))
        self.assertTold("READY=1", "STATUS=connections: 0, subscribers: 0, channels: 0, events: 0")

    def test_one_that_does_not_start_is_never_ready(self) -> None:
        self.reactor.taken = 8080
        self.assertRaises(EndOfProcess, self.start)
        self.wait(2)
        self.assertTold()

    def test_one_that_is_stopped_at_once_is_never_ready(self) -> None:
        daemon = self.make()
        daemon.privilegedStartService()
        daemon.startService()
        daemon.stopService()
        self.wait(20)
        self.assertEqual([told for told in self.manager.heard() if "READY" in told], [])

    def test_the_figures_are_live(self) -> None:
        self.start()
        self.wait(1)
        self.manager.heard()
        self.connect(STREAM)
        self.parts.bus.publish(draft("a"), EVERYTHING)
        self.wait(5)
        self.assertTold("STATUS=connections: 1, subscribers: 1, channels: 1, events: 1")

    def test_a_reload_is_told_and_so_is_its_end(self) -> None:
        daemon = self.start()
        self.wait(1)
        self.manager.heard()
        daemon.reload()
        began, ended = self.manager.heard()
        self.assertRegex(began, r"^RELOADING=1\nMONOTONIC_USEC=\d+$")
        self.assertEqual(ended, "READY=1")

    def test_a_reload_that_fails_is_told_until_one_does_not(self) -> None:
        daemon = self.start(f"{PLAIN}tls = yes\n")
        certificate = Path(self.directory, "self-signed.crt")
        pem = certificate.read_text()
        certificate.write_text("x")
        daemon.reload()
        told = self.manager.heard()
        self.assertEqual(told[-2], "READY=1")
        self.assertRegex(told[-1], r"^STATUS=connections: 0, .*; not reloaded: \[listen:http\] .*: not a PEM ")
        certificate.write_text(pem)
        daemon.reload()
        self.assertNotIn("not reloaded", self.manager.heard()[-1])

    def test_one_that_stops_is_not_reloaded(self) -> None:
        daemon = self.start()
        daemon.stopService()
        self.manager.heard()
        daemon.reload()
        self.assertTold()

    def test_the_stop_is_told_first_with_the_time_that_it_may_take(self) -> None:
        self.systemd = self.manager_of(WATCHDOG_USEC="2000000")
        daemon = self.start(f"{PLAIN}[pushd]\nstop_timeout = 5m\n")
        wire = self.connect(STREAM)
        self.wait(1)
        self.manager.heard()
        stopping = daemon.stopService()
        self.wait(2)
        told = self.manager.heard()
        self.assertEqual(told[:2], ["STOPPING=1\nEXTEND_TIMEOUT_USEC=319000000", "STATUS=stopping; connections: 1"])
        self.assertEqual(told[2:], ["WATCHDOG=1"] * 2)
        wire.drain()
        self.wait(1)
        self.successResultOf(stopping)
        self.manager.heard()
        self.wait(10)
        self.assertTold()

    def test_sockets_that_nobody_listens_at_are_warned_of(self) -> None:
        self.systemd = self.manager_of(LISTEN_FDNAMES="http:https")
        with capturedLogs() as events:
            self.start()
        text = "\n".join(str(formatEvent(event)) for event in events if event["log_level"] is LogLevel.warn)
        self.assertEqual(text.count("\n"), 1)
        self.assertIn("the socket https of systemd", text)
        self.assertIn("systemd:domain=INET:name=http\n", text)


class Disk(Worker):
    """What works for the store in these tests: at once, or when the test says that the disk answers."""

    def __init__(self) -> None:
        self.is_answering = True
        self.is_running = False
        self._waiting: list[Callable[[], object]] = []

    def start(self) -> None:
        """Override: begin."""
        self.is_running = True

    def __call__(self, function: Callable[..., Any], *args: Any, **named: Any) -> Deferred[Any]:
        """Override: call `function`, now or later."""
        assert self.is_running
        called: Deferred[Any] = Deferred()
        self._waiting.append(lambda: maybeDeferred(function, *args, **named).chainDeferred(called))
        if self.is_answering:
            self.answer()
        return called

    def answer(self) -> None:
        """Let the disk respond again."""
        self.is_answering = True
        while self._waiting:
            self._waiting.pop(0)()

    def stop(self) -> None:
        """Override: end; everything must be done."""
        assert not self._waiting
        self.is_running = False


class StoredStopTests(ServiceCase):
    """Stopping with a store."""

    def make(self, text: str = PLAIN, change: Callable[[Components], Components] = lambda parts: parts) -> Daemon:
        """Override: with a store, on a disk of its own."""
        config, clock = parse(text, "x"), self.reactor
        self.disk = Disk()
        seconds, now = clock.seconds, lambda: NOW + clock.seconds()
        is_safe = config.durability == "power"
        store = Store(Path(self.directory), is_safe=is_safe, recent_bytes=1 << 20, now=now, seconds=seconds)
        self.parts = change(assemble(config, clock, seconds=seconds, now=now, store=(store, self.disk)))
        return Daemon(config, self.parts, clock, state_directory=self.directory, fail=self.fail_start)

    @property
    def storage(self) -> StoreParts:
        """The store and what works for it."""
        storage = self.parts.storage
        assert storage is not None
        return storage

    def post(self, data: str, wire: Wire | None = None) -> Wire:
        """Begin to publish to channel a, over a connection of its own or over `wire`."""
        wire = wire or self.connect()
        head = f"POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        protocol: Any = wire.protocol
        protocol.dataReceived((head + data).encode())
        return wire

    def kept(self) -> list[bytes]:
        """Start again, and answer what is there."""
        self.start()
        entries = self.parts.bus.read(patterns("a"), "earliest", 100, EVERYTHING).entries
        self.storage.store.close()
        return [entry.event.data for entry in entries]

    POWER = f"{PLAIN}[pushd]\ndurability = power\nstop_timeout = 3s\n"

    def test_what_was_published_before_is_acknowledged_and_kept_and_delivered(self) -> None:
        daemon = self.start()
        reader = self.connect(STREAM)
        epoch = self.parts.bus.log.position.partition("-")[0]
        with capturedLogs() as events:
            publisher = self.post("last")
            stopping = daemon.stopService()
            self.reactor.advance(0)
            self.reactor.advance(0)
        self.assertIn("201 Created", publisher.sent)
        self.assertRegex(reader.sent, "(?s)data: last\n\n.*event: pushd.closed")
        for wire in (reader, publisher):
            wire.drain()
        self.reactor.advance(0)
        self.assertIsNone(self.successResultOf(stopping))
        self.assertFalse(self.disk.is_running)
        said = [formatEvent(event) for event in events]
        self.assertEqual(said[-2], "stopping; 2 connections are open")
        self.assertRegex(said[-1], "^sse of .* ended after 0.0 s and [0-9]+ bytes: the server is going away$")
        self.assertEqual(self.kept(), [b"last"])
        self.assertEqual(self.parts.bus.log.position.partition("-")[0], epoch)

    def test_what_is_published_while_it_stops_is_too(self) -> None:
        daemon = self.start()
        publisher, reader = self.connect(), self.connect(STREAM)
        stopping = daemon.stopService()
        self.reactor.advance(0)
        self.post("late", publisher)
        self.reactor.advance(0)
        self.assertRegex(publisher.sent, "(?s)201 Created.*Connection: close")
        for wire in (reader, publisher):
            wire.drain()
        self.reactor.advance(0)
        self.successResultOf(stopping)
        self.assertEqual(self.kept(), [b"late"])

    def test_an_event_whose_publisher_has_gone_is_written_before_the_store_is_closed(self) -> None:
        daemon = self.start()
        publisher = self.post("orphan")
        publisher.drain()
        stopping = daemon.stopService()
        self.reactor.advance(0)
        self.reactor.advance(0)
        self.successResultOf(stopping)
        self.assertEqual(self.kept(), [b"orphan"])

    def test_it_says_when_the_store_is_closed(self) -> None:
        daemon = self.start()
        with capturedLogs() as events:
            stopping = daemon.stopService()
            self.reactor.advance(0)
            self.reactor.advance(0)
        self.successResultOf(stopping)
        self.assertEqual(formatEvent(events[-1]), "the store is closed")

    def test_a_disk_that_does_not_answer_does_not_keep_anybody_from_being_told(self) -> None:
        daemon = self.start(self.POWER)
        reader = self.connect(STREAM)
        self.disk.is_answering = False
        publisher = self.post("x")
        self.reactor.advance(0)
        daemon.stopService()
        self.wait(1)
        self.assertIn("pushd.closed", reader.sent)
        self.disk.answer()
        self.assertIn("201 Created", publisher.sent)
        for wire in (reader, publisher):
            wire.drain()
        self.reactor.advance(0)
        self.assertEqual(self.kept(), [b"x"])

    def test_a_disk_that_does_not_answer_does_not_hold_up_the_stop_for_ever(self) -> None:
        daemon = self.start(self.POWER)
        self.disk.is_answering = False
        under_way = self.post("under way")
        self.reactor.advance(0)
        waiting = self.post("waiting")
        with capturedLogs() as events:
            stopping = daemon.stopService()
            self.wait(3)
            self.assertRegex(waiting.sent, "(?s)503 Service Unavailable.*Retry-After: [2-7]\r.*going away")
            self.assertTrue(under_way.is_aborted)
            self.assertNoResult(stopping)
            self.wait(10)
        self.successResultOf(stopping)
        said = "the store did not answer for 10.0 s, and is left as if pushd had been killed"
        self.assertIn(said, str(formatEvent(events[-1])))
        self.disk.answer()  # and what was under way gets there after all
        self.storage.store.close()
        self.assertEqual(self.kept(), [b"under way"])

    def test_a_store_that_is_slow_to_close_does_not_hold_up_the_stop_for_ever(self) -> None:
        daemon = self.start()
        self.disk.is_answering = False
        stopping = daemon.stopService()
        self.reactor.advance(0)
        self.wait(9)
        self.assertNoResult(stopping)
        self.wait(1)
        self.successResultOf(stopping)
        self.disk.answer()

    def test_a_store_that_cannot_be_closed_does_not_hold_up_the_stop(self) -> None:
        daemon = self.start()
        self.storage.store.close()  # so that it cannot be closed again
        with capturedLogs() as events:
            stopping = daemon.stopService()
            self.reactor.advance(0)
            self.reactor.advance(0)
        self.successResultOf(stopping)
        self.assertIn("the store could not be closed in order: ", "\n".join(map(str, map(formatEvent, events))))

    def test_one_that_never_started_can_be_stopped(self) -> None:
        stopping = self.make().stopService()
        self.reactor.advance(0)
        self.successResultOf(stopping)

    def test_while_it_stops_nobody_looks_after_the_store(self) -> None:
        daemon = self.start()
        journal = self.storage.journal
        journal.tend()
        stopping = daemon.stopService()
        journal.tend()
        self.wait(2)
        self.successResultOf(stopping)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class MemoryTests(SynchronousTestCase):
    def test_a_store_that_is_not_used_begins_a_new_epoch_later(self) -> None:
        left: list[Path] = []
        self.patch(service, "leave", left.append)
        DaemonRig()
        self.assertEqual(left, [Path("/nowhere")])


class UnconfiguredTests(SynchronousTestCase):
    """The components are built with placeholders, which the first `configure` replaces before any port is open."""

    REQUESTS = (
        ("GET", "/healthz"),
        ("GET", "/sse?channel=news"),
        ("GET", "/poll?channel=news"),
        ("GET", "/channels"),
        ("GET", "/"),
        ("POST", "/channels/news"),
        ("POST", "/publish"),
        ("DELETE", "/channels/news"),
    )

    def test_nothing_is_served_with_placeholders(self) -> None:
        self.patch(assembly, "configure", lambda *arguments: None)
        rig = DaemonRig()
        for method, path in self.REQUESTS:
            response = rig.request(method, path)
            self.assertEqual(response.status, 404, path)
        self.assertEqual(rig.request("POST", "/channels/news", body=b"hello").status, 413)
        self.flushWarnings()  # the placeholder is Twisted's own resource
        guard = rig.parts.ingress.guard
        self.assertFalse(guard.anonymous.grants.publish.has("news") or guard.certified.publish.has("news"))
        self.assertEqual((len(rig.parts.bus.log), rig.parts.bus.subscribers), (0, 0))

    def test_the_components_are_configured_when_the_daemon_gets_them(self) -> None:
        clock = MemoryReactorClock()
        calls = list[object]()
        configure = assembly.configure

        def count(parts: Components, *rest: Any) -> None:
            calls.append(parts)
            configure(parts, *rest)

        self.patch(assembly, "configure", count)
        parts = assemble(parse(PLAIN, "x"), clock, seconds=clock.seconds, now=clock.seconds)
        self.assertEqual(calls, [parts])
        self.assertTrue(parts.ingress.guard.anonymous.grants.publish.has("news"))
        self.assertFalse(clock.tcpServers or clock.sslServers or clock.unixServers)
