"""Slices: work for thousands of clients, some of it in each turn of the reactor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from pushd.bus.turn import Turn

__all__ = [
    "BYTES_PER_SEND",
    "END_COST",
    "MOST",
    "MOST_S",
    "STEP",
    "AtOnce",
    "Burst",
    "Later",
    "Slice",
    "Slices",
    "in_turns",
]

MOST = 250
"""How many sends one slice makes. To plain sockets they take about 1.2 ms; over TLS, the clock ends it first."""

MOST_S = 0.002
"""How long a slice may take, in seconds."""

STEP = 25
"""After how many sends the clock is read."""

END_COST = 10
"""As how many sends the end of a connection counts: a farewell, and what others are told of it."""

BYTES_PER_SEND = 16 * 1024
"""How many more bytes of one send make it count as one more: the kernel needs as long to copy them."""

_BURST, _BURST_S = 8, 0.02
"""How often something is done at once, in how many seconds."""

Later = Callable[[float, Callable[[], None]], object]
"""The reactor's ``callLater``."""


class Slice:
    """What may be done in one turn of the reactor."""

    __slots__ = ("_looks_at", "_seconds", "_until_s", "left")

    def __init__(self, turn: Turn, within_s: float = MOST_S, most: int = MOST) -> None:
        """Begin a slice in the current `turn`, of up to `most` sends and `within_s` seconds."""
        self._seconds = turn.seconds
        self._until_s = turn.until_s(within_s)
        self._looks_at = most - STEP
        self.left = most
        """How many sends are left."""

    def spend(self, count: int = 1) -> bool:
        """Count `count` sends, or work that takes as long. Return whether there may be more."""
        self.left -= count
        if self.left <= self._looks_at:
            self._looks_at = self.left - STEP
            if self._seconds() >= self._until_s:
                self.left = 0
        return self.left > 0


class Burst:
    """Lets something be done at once, but not more often than is good in one turn."""

    __slots__ = ("_count", "_seconds", "_since_s")

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Begin; `seconds` is a clock that never jumps."""
        self._seconds = seconds
        self._count, self._since_s = 0, 0.0

    def take(self) -> bool:
        """Return whether it may be done once more."""
        now_s = self._seconds()
        if now_s - self._since_s > _BURST_S:
            self._count, self._since_s = 0, now_s
        self._count += 1
        return self._count <= _BURST


class Slices:
    """Makes many calls, in slices: one job after the other, and of each its calls in their order."""

    def __init__(self, call_later: Later, turn: Turn) -> None:
        """Use the reactor's `call_later`, and the clock of its `turn`."""
        self._call_later = call_later
        self._turn = turn
        self._jobs: deque[Iterator[Callable[[], int]]] = deque()
        self._is_due = False

    def do(self, calls: Iterable[Callable[[], int]]) -> None:
        """Make all `calls`: one slice of them now, unless others wait, and the rest in later turns.

        Each returns as how many sends it counts. What a call raises ends the slice; the rest follows.
        """
        self._jobs.append(iter(calls))
        if not self._is_due:
            self._run()

    def _run(self) -> None:
        self._is_due = True  # what the calls want done waits behind them
        part = Slice(self._turn)
        try:
            while self._jobs:
                call = next(self._jobs[0], None)
                if call is None:
                    self._jobs.popleft()
                    continue
                if not part.spend(call()):
                    break
        finally:
            self._is_due = False
            if self._jobs:
                self._is_due = True
                self._call_later(0, self._run)


class AtOnce:
    """What stands for `Slices` where there are no turns."""

    def do(self, calls: Iterable[Callable[[], int]]) -> None:
        """Make all `calls` now."""
        for call in calls:
            call()


def in_turns(work: Callable[[Callable[[], bool]], bool], call_later: Later, turn: Turn) -> Callable[[], None]:
    """Return what does some of `work`, and goes on with it in the next turns unless it is done.

    `work` gets what tells whether its time in this turn is over, and returns whether that ended it.
    """
    is_due = False

    def begin() -> None:
        if not is_due:
            go_on()

    def go_on() -> None:
        nonlocal is_due
        is_due = False  # also if this raises
        until_s = turn.until_s(MOST_S)
        is_due = work(lambda: turn.seconds() >= until_s)
        if is_due:
            call_later(0, go_on)

    return begin
