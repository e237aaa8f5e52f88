"""Long work, run a few steps per turn of the reactor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pushd.bus import FairQueue, NotInMemory, Turn, Work
from pushd.errors import Unavailable

__all__ = ["LongWork", "unless_done"]

T = TypeVar("T")


class _Task:
    """A work, and what it needs to go on."""

    __slots__ = ("done", "error", "is_gone", "owner", "work")

    def __init__(
        self, work: Work[Any], done: Deferred[Any], is_gone: Callable[[], bool], owner: str | None
    ) -> None:
        self.work = work
        self.done = done
        self.is_gone = is_gone
        self.owner = owner
        self.error: Unavailable | None = None
        """The error that its next step gets, because what it waits for cannot be read."""


class LongWork:
    """Runs several works concurrently, within one time budget; a work is a generator that yields after each step.

    A short work is done at once (the fast path, without a turn of the reactor). The others take turns, by owner and
    then within one owner. Together, any number of them uses one budget per turn of the reactor.

    ========  ==========================  =======================================================
    task      is                          next
    ========  ==========================  =======================================================
    queued    in ``_waiting``             done, or fetching, in one of its turns
    fetching  counted in ``_fetching``    queued, done or fetching again, once entries are in memory
    done      nowhere: its result is out
    ========  ==========================  =======================================================
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], object],
        turn: Turn,
        budget_s: float = 0.004,
    ) -> None:
        """Use up to `budget_s` of each `turn` of the reactor; `call_later` is the reactor's."""
        self._call_later = call_later
        self._clock = turn
        self._seconds = turn.seconds
        self._budget_s = budget_s
        self._waiting: FairQueue[_Task] = FairQueue()
        self._fetching = 0
        self._is_due = False
        self._credit_s = budget_s  # time for works done at once; refilled at half the speed of time
        self._credited_s = 0.0

    def __len__(self) -> int:
        """Return the number of unfinished works."""
        return len(self._waiting) + self._fetching

    def run(
        self,
        work: Work[T],
        is_gone: Callable[[], bool] = lambda: False,
        owner: str | None = None,
    ) -> Deferred[T]:
        """Run `work` for `owner` and return its result. Once `is_gone`, stop it; fail with `Unavailable`."""
        done: Deferred[T] = Deferred()
        task = _Task(work, done, is_gone, owner)
        if not self._waiting:
            now_s = self._seconds()
            self._credit_s = min(self._budget_s, self._credit_s + (now_s - self._credited_s) / 2)
            self._credited_s = now_s
            if self._credit_s > 0:
                is_out = self._go_on(task, self._clock.until_s(self._credit_s))
                self._credit_s -= self._seconds() - now_s
                if is_out:
                    return done
        self._queue(task)
        return done

    def _queue(self, task: _Task) -> None:
        self._waiting.add(task.owner, task)
        self._turn_later()

    def _turn_later(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._call_later(0, self._turn)

    def _turn(self) -> None:
        """Continue each work in turn, until the budget is used."""
        self._is_due = False
        now_s = self._seconds()
        end_s = self._clock.until_s(self._budget_s)
        for _ in range(len(self._waiting)):
            if not self._go_on(self._waiting.first, min(end_s, now_s + self._budget_s / 4)):
                self._waiting.put_last()
            elif not self._waiting.pop():
                self._waiting.next_owner()
            now_s = self._seconds()
            if now_s >= end_s:
                break
        if self._waiting:
            self._turn_later()

    def _go_on(self, task: _Task, end_s: float) -> bool:
        """Continue one work until `end_s`; return False if it is to be queued: it is neither done nor fetching."""
        work, done = task.work, task.done
        if task.is_gone():
            work.close()
            done.errback(Failure(Unavailable("the client has disconnected")))
            return True
        try:
            while True:
                error, task.error = task.error, None
                missing = next(work) if error is None else work.throw(error)
                if missing is not None:
                    self._fetch(task, missing)
                    return True
                if self._seconds() >= end_s:  # after each step: one that reads the disk takes 3 ms, others 10 us
                    return False
        except StopIteration as stop:
            done.callback(stop.value)
        except Exception:  # noqa: BLE001  whoever waits for it is told
            done.errback(Failure())
        return True

    def _fetch(self, task: _Task, missing: NotInMemory) -> None:
        self._fetching += 1
        missing.fetch(task.owner, task.is_gone, partial(self._fetched, task))

    def _fetched(self, task: _Task, error: Unavailable | None) -> None:
        """Continue a work whose entries are in memory now, by one step at once: others may take their place."""
        self._fetching -= 1
        task.error = error
        if self._clock.is_over or not self._go_on(task, 0):
            self._queue(task)


def unless_done(done: Deferred[None]) -> Deferred[None] | None:
    """Return None if `done` has succeeded, raise its exception if it has failed, else return a Deferred."""
    outcomes: list[object] = []
    done.addBoth(outcomes.append)
    if not outcomes:
        later: Deferred[None] = Deferred()
        done.addCallback(lambda _: _tell(later, outcomes[0]))
        return later
    if isinstance(outcomes[0], Failure):
        outcomes[0].raiseException()
    return None


def _tell(later: Deferred[None], outcome: object) -> None:
    if isinstance(outcome, Failure):
        later.errback(outcome)
    else:
        later.callback(None)
