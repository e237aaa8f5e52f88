"""How many ready sockets one turn of the reactor serves, and what this relies on in Twisted."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet import epollreactor
from twisted.internet.abstract import FileDescriptor
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.turn import LEAST_S, LIMIT_S, Turn
from pushd.server.net.polling import ACCEPTS, BUDGET_S, TAKEN, Poller, accept_few, serve_few

COST_S = BUDGET_S / 4.9
"""What an event costs of which five fill a turn."""


class PollerTests(SynchronousTestCase):
    """`Poller`, with sockets that are ready and a clock that the tests set."""

    def setUp(self) -> None:
        """Begin without sockets."""
        self.now = 1000.0
        self.epoll = select.epoll()
        self.addCleanup(self.epoll.close)
        self.clock = Turn(lambda: self.now)
        self.began_s: list[float] = []
        self.poller = Poller(self.epoll, self.clock, self.begins)
        self.begin_s = 0.0
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.served: dict[int, int] = {}

    def begins(self, now_s: float) -> None:
        """Record the start of a turn, and spend some time."""
        self.began_s.append(now_s)
        self.now += self.begin_s

    def ready(self, count: int) -> list[socket.socket]:
        """Make so many sockets that have a byte to read."""
        found = []
        for _ in range(count):
            ours, theirs = (self.stack.enter_context(closing(one)) for one in socket.socketpair())
            theirs.send(b"x")
            self.poller.register(ours.fileno(), select.EPOLLIN)
            found.append(ours)
        return found

    def turn(self, cost_s: float = 0.0, then: Callable[[int], object] = lambda file: None) -> int:
        """Serve what there is to serve in one turn, each event for `cost_s`; return how many there were."""
        count = 0
        for file, event in self.poller.poll(0, 10_000):
            self.assertEqual(event, select.EPOLLIN)
            self.now += cost_s
            self.served[file] = self.served.get(file, 0) + 1
            then(file)
            count += 1
        return count

    def read(self, file: int) -> None:
        """Read what a socket has."""
        with closing(socket.socket(fileno=socket.dup(file))) as one:
            one.recv(10)

    def test_nothing_is_an_empty_turn(self) -> None:
        self.assertEqual(self.turn(), 0)

    def test_what_is_quick_is_served_in_one_turn(self) -> None:
        self.ready(500)
        self.assertEqual(self.turn(1e-6, self.read), 500)
        self.assertEqual(self.turn(), 0)

    def test_a_turn_ends_with_the_event_that_uses_up_its_budget(self) -> None:
        self.ready(300)
        self.assertEqual(self.turn(COST_S, self.read), 5)
        self.assertEqual(self.turn(1.0, self.read), 1)
        turns = 2
        while served := self.turn(COST_S, self.read):
            self.assertLessEqual(served, 5)
            turns += 1
        self.assertEqual(turns, 2 + 59)
        self.assertEqual(set(self.served.values()), {1})
        self.assertEqual(len(self.served), 300)

    def test_each_turn_begins_when_it_has_waited_and_also_without_events(self) -> None:
        self.assertEqual(self.clock.end_s, float("inf"))
        for _ in range(2):
            self.turn()
            self.assertEqual(self.clock.end_s, self.now + LIMIT_S)
            self.now += 1.0
        self.ready(1)
        self.turn(0.001, self.read)
        self.assertEqual(self.began_s, [1000.0, 1001.0, 1002.0])

    def test_what_the_beginning_of_a_turn_takes_is_taken_from_it(self) -> None:
        self.ready(300)
        for begin_s, most_s in ((0.0, BUDGET_S), (LIMIT_S - 0.002, 0.002), (1.0, LEAST_S)):
            with self.subTest(begin_s):
                self.begin_s = begin_s
                served = self.turn(0.0001, self.read)
                self.assertLess(abs(served * 0.0001 - most_s), 0.00011)

    def test_sockets_that_are_always_ready_are_served_in_turn(self) -> None:
        for count, cost_s in ((2, 1.0), (7, 0.002), (100, 0.001), (1000, 0.001)):
            with self.subTest((count, cost_s)):
                files = [one.fileno() for one in self.ready(count)]
                self.served = {}
                events = 0
                while events < 3 * count:
                    events += self.turn(cost_s)
                counts = [self.served.get(file, 0) for file in files]
                self.assertLessEqual(max(counts) - min(counts), 1)
                for file in files:
                    self.poller.unregister(file)

    def test_what_was_closed_meanwhile_has_no_event(self) -> None:
        sockets = {one.fileno(): one for one in self.ready(10)}

        def close_others(file: int) -> None:
            self.read(file)
            for other in sockets.keys() - {file}:
                self.poller.unregister(other)
                sockets[other].close()

        self.assertEqual(self.turn(0.0001, close_others), 1)
        self.assertEqual(self.turn(), 0)

    def test_a_new_connection_gets_no_event_of_the_one_whose_descriptor_it_has(self) -> None:
        for cost_s in (0.0, 1.0):  # the rest of the events is served in the same turn, or left for the next
            with self.subTest(cost_s):
                first = self.ready(1)[0].fileno()
                gone, theirs = socket.socketpair()
                theirs.close()
                file = gone.fileno()
                self.poller.register(file, select.EPOLLOUT)
                served = []
                for number, event in self.poller.poll(0):
                    served.append(number)
                    self.now += cost_s
                    self.assertEqual((number, event), (first, select.EPOLLIN))
                    self.read(number)
                    self.poller.unregister(file)
                    gone.close()
                    new, other = (self.stack.enter_context(closing(one)) for one in socket.socketpair())
                    self.assertEqual(new.fileno(), file)
                    self.poller.register(file, select.EPOLLIN)
                self.assertEqual(served, [first])
                self.assertEqual(self.turn(), 0)
                other.send(b"x")
                self.assertEqual(self.turn(0.0, self.read), 1)
                self.poller.unregister(file)

    def test_what_is_not_to_be_read_any_more_has_no_event_until_it_is_again(self) -> None:
        files = [one.fileno() for one in self.ready(3)]
        changes: tuple[Callable[[int], object], ...] = (
            self.poller.unregister,
            lambda file: self.poller.modify(file, 0),
        )

        def pause_others(file: int) -> None:
            self.read(file)
            for other, change in zip((one for one in files if one != file), changes, strict=True):
                change(other)

        self.assertEqual(self.turn(0.0, pause_others), 1)
        self.assertEqual(self.turn(), 0)
        left = [file for file in files if file not in self.served]
        self.poller.register(left[0], select.EPOLLIN)
        self.poller.modify(left[1], select.EPOLLIN)
        self.assertEqual(self.turn(0.0, self.read), 2)
        self.assertEqual(set(self.served.values()), {1})

    def test_what_is_left_of_a_turn_is_served_in_the_next_before_what_comes_then(self) -> None:
        before = {one.fileno() for one in self.ready(3 * TAKEN)}
        self.assertEqual(self.turn(COST_S, self.read), 5)
        after = {one.fileno() for one in self.ready(3 * TAKEN)}
        while before - self.served.keys():
            self.assertFalse(after & self.served.keys())
            self.assertTrue(self.turn(COST_S, self.read))
        while self.turn(COST_S, self.read):
            pass
        self.assertEqual(self.served, dict.fromkeys(before | after, 1))

    def test_one_that_is_always_ready_keeps_nobody_waiting_who_comes_later(self) -> None:
        busy = [one.fileno() for one in self.ready(200)]
        for _ in range(20):
            self.turn(0.001)
        for _ in range(10):
            (late,) = (one.fileno() for one in self.ready(1))
            events = 0
            while late not in self.served:
                events += self.turn(0.001)
            self.assertLessEqual(events, len(busy) + TAKEN + 10)

    def test_it_waits_as_long_as_it_is_asked_to_and_no_longer_for_the_rest(self) -> None:
        asked: list[tuple[float, int]] = []
        events = [(file, 1) for file in range(2 * TAKEN + 1)]

        class Epoll:
            def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
                asked.append((timeout, maxevents))
                begin = TAKEN * (len(asked) - 1)
                return events[begin : begin + maxevents]

        poller = Poller(Epoll(), self.clock)
        self.assertEqual(list(poller.poll(7.5, 99)), events)
        self.assertEqual(asked, [(7.5, TAKEN), (0, TAKEN), (0, TAKEN)])
        asked.clear()
        for event in poller.poll(7.5, 99):
            self.assertEqual(event, events[0])
            self.now += 1.0
        self.assertEqual(asked, [(7.5, TAKEN)])
        self.assertEqual(list(poller.poll(7.5, 99)), events[1:])
        self.assertEqual(asked, [(7.5, TAKEN), (0, TAKEN), (0, TAKEN)])

    def test_the_kernel_is_asked_once_for_few_and_seldom_for_many(self) -> None:
        polls = []

        class Epoll:
            def __init__(self, epoll: Any) -> None:
                self._epoll = epoll
                self.register = epoll.register

            def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
                polls.append(maxevents)
                found: list[tuple[int, int]] = self._epoll.poll(timeout, maxevents)
                return found

        self.poller = Poller(Epoll(self.epoll), self.clock)
        for count in (1, 16, TAKEN - 1, 500):
            with self.subTest(count):
                self.ready(count)
                polls.clear()
                self.assertEqual(self.turn(0.0, self.read), count)
                self.assertEqual(len(polls), 1 + count // TAKEN)


class Counted(Protocol):
    """Notes that it was accepted."""

    def __init__(self, accepted: list[Any]) -> None:
        self._accepted = accepted

    def connectionMade(self) -> None:
        """Override: one more."""
        self._accepted.append(self.transport)


class ReactorTests(SynchronousTestCase):
    """What is relied on in Twisted: `_poller` of its epoll reactor, and `numberAccepts` of its ports."""

    def setUp(self) -> None:
        """Make a reactor that is not the global one; it is turned by hand."""
        self.reactor: Any = epollreactor.EPollReactor()
        self.addCleanup(self.reactor._poller.close)
        self.addCleanup(self.reactor.waker.connectionLost, None)

    def test_the_reactor_serves_few_in_one_turn(self) -> None:
        now = [0.0]
        serve_few(self.reactor, Turn(lambda: now[0]))
        self.assertIsInstance(self.reactor._poller, Poller)
        read: list[int] = []

        class Slow(FileDescriptor):
            """Something whose every event takes a fifth of a turn."""

            def __init__(self, reactor: Any, one: socket.socket) -> None:
                super().__init__(reactor)
                self.fileno = one.fileno  # type: ignore[method-assign]
                self.recv = one.recv

            def doRead(self) -> None:
                """Override: read, and take long."""
                self.recv(10)
                now[0] += COST_S
                read.append(self.fileno())

        with ExitStack() as stack:
            for _ in range(50):
                ours, theirs = (stack.enter_context(closing(one)) for one in socket.socketpair())
                theirs.send(b"x")
                self.reactor.addReader(Slow(self.reactor, ours))
            for turn in range(1, 11):
                self.reactor.doIteration(0)
                self.assertEqual(len(read), 5 * turn)
        self.assertEqual(len(set(read)), 50)

    def test_others_stay_as_they_are(self) -> None:
        reactor: Any = SelectReactor()
        self.addCleanup(reactor.waker.connectionLost, None)
        before = vars(reactor).copy()
        turn = Turn(lambda: 0.0)
        serve_few(reactor, turn)
        serve_few(object(), turn)
        self.assertEqual(vars(reactor), before)
        serve_few(self.reactor, turn)
        poller = self.reactor._poller
        serve_few(self.reactor, turn)
        self.assertIs(self.reactor._poller, poller)

    def test_a_port_accepts_few_each_time_that_it_is_ready_and_never_more(self) -> None:
        opened: list[IListeningPort] = []
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = f"unix:{directory.name}/socket:lockfile=0"
        for description in ("tcp:0:interface=127.0.0.1", path):
            accepted: list[Any] = []
            factory = Factory.forProtocol(partial(Counted, accepted))
            serverFromString(self.reactor, description).listen(factory).addCallback(opened.append)
            port: Any = opened[-1]
            self.addCleanup(port.connectionLost, None)
            accept_few(port)
            host = port.getHost()
            family, address = (
                (socket.AF_INET, (host.host, host.port)) if "tcp" in description else (socket.AF_UNIX, host.name)
            )
            with ExitStack() as stack:
                for _ in range(45):
                    client = stack.enter_context(closing(socket.socket(family)))
                    client.connect(address)
                counts = []
                for _ in range(4):
                    port.doRead()
                    counts.append(len(accepted))
                for transport in accepted:
                    transport.connectionLost(Failure(ConnectionDone()))
                self.assertEqual(counts, [ACCEPTS, 2 * ACCEPTS, 45, 45])

    def test_what_is_no_port_of_twisted_stays_as_it_is(self) -> None:
        accept_few(object())  # type: ignore[arg-type]
