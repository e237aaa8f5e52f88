"""Long work, done a few steps at a time: in between the reactor has its turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pushd.bus import Turn
from pushd.errors import Unavailable

__all__ = ["LongWork", "unless_done"]

T = TypeVar("T")

_STEPS = 8
"""After how many steps of a work the time is looked at; a step takes up to 50 microseconds."""

_Task = tuple[Generator[None, None, Any], "Deferred[Any]", Callable[[], bool]]


class LongWork:
    """Does several works at once, each a generator that yields after each step, and all within one budget of time.

    A short work is done at once. The others take turns, first by their owners and then by those of one owner;
    however many there are, together they take one budget of each turn of the reactor.
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], object],
        turn: Turn,
        budget_s: float = 0.004,
    ) -> None:
        """Take up to `budget_s` of each `turn` of the reactor; `call_later` is the reactor's."""
        self._call_later = call_later
        self._clock = turn
        self._seconds = turn.seconds
        self._budget_s = budget_s
        self._queues: OrderedDict[str | None, deque[_Task]] = OrderedDict()  # by owner; none is empty
        self._credit_s = (
            budget_s  # how much may be done at once; what was used comes back at half the speed of time
        )
        self._credited_s = 0.0

    def __len__(self) -> int:
        """Count the works that are not done."""
        return sum(map(len, self._queues.values()))

    def run(
        self,
        work: Generator[None, None, T],
        is_gone: Callable[[], bool] = lambda: False,
        owner: str | None = None,
    ) -> Deferred[T]:
        """Do `work` for `owner`, now or later, and return its result. Nothing more is done of it once `is_gone`."""
        done: Deferred[T] = Deferred()
        task = (work, done, is_gone)
        if not self._queues:
            now_s = self._seconds()
            self._credit_s = min(self._budget_s, self._credit_s + (now_s - self._credited_s) / 2)
            self._credited_s = now_s
            if self._credit_s > 0:
                is_done = self._go_on(task, self._clock.until_s(self._credit_s))
                self._credit_s -= self._seconds() - now_s
                if is_done:
                    return done
            self._call_later(0, self._turn)
        self._queues.setdefault(owner, deque()).append(task)
        return done

    def _turn(self) -> None:
        """Go on with each work in turn, until the budget is used."""
        now_s = self._seconds()
        end_s = self._clock.until_s(self._budget_s)
        for _ in range(len(self)):
            owner, queue = next(iter(self._queues.items()))
            self._queues.move_to_end(owner)
            task = queue.popleft()
            if not self._go_on(task, min(end_s, now_s + self._budget_s / 4)):
                queue.append(task)
            if not queue:
                del self._queues[owner]
            now_s = self._seconds()
            if now_s >= end_s:
                break
        if self._queues:
            self._call_later(0, self._turn)

    def _go_on(self, task: _Task, end_s: float) -> bool:
        """Go on with one work until `end_s`; return whether it is done."""
        work, done, is_gone = task
        if is_gone():
            work.close()
            done.errback(Failure(Unavailable("the client has disconnected")))
            return True
        try:
            while True:
                for _ in range(_STEPS):
                    next(work)
                if self._seconds() >= end_s:
                    return False
        except StopIteration as stop:
            done.callback(stop.value)
        except Exception:  # noqa: BLE001  whoever waits for it is told
            done.errback(Failure())
        return True


def unless_done(done: Deferred[None]) -> Deferred[None] | None:
    """Return None if what was to be done is done, raise why it failed, or return what is waited for."""
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
