"""What keeps clients from filling the log."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import pushd
from pushd.log.flood_limit import _OF_OPERATORS, FloodLimit

REFUSED = "refused a message of {peer}: {detail}"

ROOT = Path(pushd.__file__).parent.parent


class FloodgateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.begin()

    def test_the_loggers_of_operators_are_modules(self) -> None:
        for name in _OF_OPERATORS:
            self.assertTrue((ROOT / f"{name.replace('.', '/')}.py").is_file(), name)

    def begin(self) -> None:
        """Start with an empty log."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.events: list[LogEvent] = []
        self.at: list[float] = []
        self.guard = FloodLimit(self.write, self.clock.seconds, self.call_later)
        self.log = Logger("pushd.here", observer=self.guard)

    def write(self, event: LogEvent) -> None:
        """Record a written event and its time."""
        self.events.append(event)
        self.at.append(self.clock.seconds())

    def call_later(self, call: Callable[[], None]) -> None:
        """Schedule `call` in a second."""
        self.clock.callLater(1, call)

    @property
    def lines(self) -> list[str]:
        """What was written."""
        return [formatEvent(event) for event in self.events]

    @property
    def count(self) -> int:
        """Of how many events something was written."""
        return len(self.events) + sum(int(event.get("left_out", 0)) for event in self.events)

    def test_of_a_flood_there_is_a_line_a_second_with_the_number_of_the_others(self) -> None:
        for _ in range(30):
            for number in range(100):
                self.log.info(REFUSED, peer=f"192.0.2.1:{number}", detail=str(number))
            self.clock.advance(0.1)
        self.clock.pump([1, 1, 1])
        self.assertEqual(self.lines[0], "refused a message of 192.0.2.1:0: 0")
        self.assertEqual(len(self.lines), 4)
        self.assertEqual(self.count, 3000)
        self.assertTrue(self.lines[1].endswith(f", and {self.events[1]['left_out']} more like this"), self.lines)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.guard._seen, {})

    def test_each_client_and_cause_has_its_own(self) -> None:
        for peer in ("192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1", "[2001:db8:0:1::1]:1", "a Unix socket"):
            for text in (REFUSED, "{peer} did something else"):
                for _ in range(5):
                    self.log.info(text, peer=peer, detail="x")
        self.assertEqual(len(self.lines), 10)

    def test_each_reason_has_its_own_whatever_the_client_sent(self) -> None:
        for number in range(50):
            self.log.info(REFUSED, peer="192.0.2.1:1", detail=f"Origin 'http://{number}.example' is not its own")
            self.log.info(REFUSED, peer="192.0.2.1:1", detail=f"Host '{number}.example' is not a name of it")
        self.assertEqual(len(self.lines), 2)
        self.clock.pump([1, 1])
        self.assertEqual(self.count, 100)
        self.assertEqual(self.guard._seen, {})

    def test_reasons_that_a_client_makes_up_are_counted_together(self) -> None:
        for number in range(2000):
            self.log.info(REFUSED, peer="192.0.2.1:1", detail="x" * (number % 40) + f"y{number}")
        self.assertEqual(len(self.lines), 9)
        self.clock.pump([1, 1])
        self.assertEqual(len(self.lines), 18)
        self.assertEqual(self.count, 2000)

    def test_a_reason_after_too_many_has_its_own_line_in_the_next_second(self) -> None:
        for letter in "abcdefghij":
            self.log.info(REFUSED, peer="192.0.2.1:1", detail=letter)
        self.clock.advance(1)
        before = len(self.lines)
        self.log.info(REFUSED, peer="192.0.2.1:1", detail="y")
        self.log.info(REFUSED, peer="192.0.2.1:1", detail="z")
        self.assertEqual([event["detail"] for event in self.events[before:]], ["y", "z"])

    def test_a_client_is_an_address_and_one_of_ipv6_a_network(self) -> None:
        for same in (
            ("192.0.2.1:1", "192.0.2.1:2", "192.0.2.1", "192.0.2.1 by way of 10.0.0.1:99", "[::ffff:192.0.2.1]:7"),
            ("[2001:db8::1]:1", "[2001:db8::ffff]:2", "2001:db8::7 by way of a Unix socket"),
            ("127.0.0.1:1", "127.0.0.1:2"),
        ):
            self.begin()
            for peer in same:
                self.log.info(REFUSED, peer=peer, detail="x")
            self.assertEqual(len(self.lines), 1, self.lines)

    def test_request_lines_and_those_for_operators_are_always_written(self) -> None:
        for name in _OF_OPERATORS:
            log = Logger(name, observer=self.guard)
            for _ in range(50):
                log.warn("{what} changed; restart pushd to apply it", what="x")
        for _ in range(50):
            Logger("pushd.requests", observer=self.guard).info("200 from {peer}", peer="192.0.2.1:1")
        self.assertEqual(len(self.lines), 50 * len(_OF_OPERATORS) + 50)

    def test_lines_of_a_client_are_limited_in_every_module(self) -> None:
        for name in _OF_OPERATORS:
            self.begin()
            log = Logger(name, observer=self.guard)
            for _ in range(50):
                log.info("{peer} did something", peer="192.0.2.1:1")
            self.assertEqual(len(self.lines), 1)

    def test_other_lines_without_a_client_are_five_a_second(self) -> None:
        for _ in range(50):
            self.log.warn("{what} failed", what="x")
        self.assertEqual(len(self.lines), 5)

    def test_of_faults_there_is_a_traceback_a_second(self) -> None:
        for number in range(5):
            self.log.failure("a fault of {peer}", Failure(ZeroDivisionError()), peer=f"192.0.2.{number}:1")
        self.assertEqual(len(self.lines), 1)

    def test_connections_that_cannot_be_accepted_have_one_line_together(self) -> None:
        twisted = Logger("twisted.internet.tcp.Port", observer=self.guard)
        for _ in range(50):
            twisted.info("EMFILE encountered; releasing reserved file descriptor.")
            twisted.info("EMFILE recovery: Closed socket from {address}", address="x")
            twisted.info("Re-reserving EMFILE recovery file descriptor.")
            twisted.info("Could not accept new connection ({acceptError})", acceptError="ENFILE")
        self.assertEqual(len(self.lines), 1)
        self.clock.advance(1)
        self.assertEqual(self.count, 200)

    def test_some_ends_of_subscribers_have_a_line_each(self) -> None:
        ends = Logger("pushd.sessions", observer=self.guard)
        for number in range(100):
            ends.info("sse of {peer} ended", peer=f"192.0.2.1:{number}")
        self.assertEqual(len(self.lines), 20)

    def test_its_memory_is_bounded_and_others_are_counted_together(self) -> None:
        for number in range(10_000):
            self.log.info(REFUSED, peer=f"10.{number >> 8}.{number & 255}.1:1", detail="x")
        self.assertLessEqual(len(self.guard._seen), 1001)
        self.assertLessEqual(len(self.lines), 1001)
        self.clock.pump([1, 1])
        self.assertEqual(self.guard._seen, {})
        self.assertEqual(self.count, 10_000)

    def test_clients_of_an_earlier_second_make_room_for_others(self) -> None:
        for number in range(1000):
            self.log.info(REFUSED, peer=f"10.{number >> 8}.{number & 255}.1:1", detail="x")
        self.clock.advance(1)
        self.log.info(REFUSED, peer="192.0.2.1:1", detail="x")
        self.log.info(REFUSED, peer="192.0.2.2:1", detail="x")
        self.assertEqual(len(self.lines), 1002)

    def test_with_its_memory_full_a_known_client_keeps_its_own_line(self) -> None:
        known = "192.0.2.1:1"
        self.log.info(REFUSED, peer=known, detail="x")
        for number in range(2000):
            self.log.info(REFUSED, peer=f"10.{number >> 8}.{number & 255}.1:1", detail="x")
        self.log.info(REFUSED, peer=known, detail="x")
        self.log.info(REFUSED, peer="10.99.0.1:1", detail="x")
        self.clock.advance(1)
        self.assertEqual([event["peer"] for event in self.events].count(known), 2)

    @given(
        st.lists(st.tuples(st.floats(0, 0.7), st.sampled_from(["1", "2"]), st.sampled_from([REFUSED, "{peer}"])))
    )
    def test_whatever_comes_no_second_has_two_lines_and_none_is_forgotten(
        self, came: list[tuple[float, str, str]]
    ) -> None:
        self.begin()
        for pause, client, text in came:
            self.clock.advance(pause)
            self.log.info(text, peer=f"192.0.2.{client}:1", detail="x")
        self.clock.pump([1, 1, 1])
        self.assertEqual(self.count, len(came))
        for client in "12":
            for begins in ("refused", "192"):
                times = [
                    at
                    for at, line in zip(self.at, self.lines, strict=True)
                    if line.startswith(begins) and f"192.0.2.{client}" in line
                ]
                gaps = [after - before for before, after in pairwise(times)]
                self.assertTrue(all(gap > 0.9 for gap in gaps), times)
