"""The worker: one thread, one thing after the other."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread, current_thread, main_thread
from time import monotonic

from twisted.internet.defer import TimeoutError as NotInTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pushd.errors import Unavailable
from pushd.store.sqlite.worker import Worker


class Reactor(Clock):
    """A reactor whose calls from threads are made when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.came = Event()

    def callFromThread(self, function: Callable[..., object], *arguments: object, **named: object) -> None:
        """Take a call from a thread."""
        self.callLater(0, function, *arguments, **named)
        self.came.set()

    def turn(self) -> None:
        """Make the calls that come next."""
        assert self.came.wait(10)
        self.came.clear()
        self.advance(0)


class WorkerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.worker = Worker(self.reactor)

    def test_it_works_in_a_thread_that_does_not_keep_the_process_from_ending(self) -> None:
        self.worker.start()
        called = self.worker(current_thread)
        self.reactor.turn()
        thread: Thread = self.successResultOf(called)
        self.assertIsNot(thread, main_thread())
        self.assertTrue(thread.daemon)
        self.worker.stop()
        self.assertFalse(thread.is_alive())

    def test_one_thing_is_done_after_the_other(self) -> None:
        self.worker.start()
        may_end = Event()
        done: list[int] = []

        def first() -> None:
            may_end.wait(10)
            done.append(1)

        self.worker(first)
        second = self.worker(done.append, 2)
        self.assertEqual(done, [])
        may_end.set()
        while not second.called:
            self.reactor.turn()
        self.assertEqual(done, [1, 2])
        self.worker.stop()

    def test_nothing_is_done_before_the_start(self) -> None:
        done: list[int] = []
        called = self.worker(done.append, 1)
        self.assertFalse(self.reactor.came.wait(0.05))
        self.worker.start()
        self.reactor.turn()
        self.successResultOf(called)
        self.assertEqual(done, [1])
        self.worker.stop()

    def test_what_is_raised_is_answered(self) -> None:
        def refuse() -> None:
            raise Unavailable("no disk")

        self.worker.start()
        called = self.worker(refuse)
        self.reactor.turn()
        self.assertEqual(self.failureResultOf(called, Unavailable).value.detail, "no disk")
        self.worker.stop()

    def test_what_nobody_waits_for_any_more_disturbs_nobody(self) -> None:
        self.worker.start()
        may_end = Event()
        called = self.worker(may_end.wait, 10).addTimeout(1, self.reactor)
        began = monotonic()
        self.reactor.advance(1)
        self.failureResultOf(called, NotInTime)
        self.assertLess(monotonic() - began, 5)
        may_end.set()
        self.reactor.turn()
        self.worker.stop()

    def test_one_that_did_nothing_can_be_stopped(self) -> None:
        self.worker.start()
        self.worker.stop()
        self.worker = Worker(self.reactor)
        self.worker.stop()
