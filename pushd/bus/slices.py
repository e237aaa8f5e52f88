"""Slices: spread work for thousands of clients over several turns of the reactor."""

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
"""How many sends one slice makes: about 1.2 ms for plain sockets. Over TLS, `MOST_S` ends the slice first."""

MOST_S = 0.002
"""How long a slice may take, in seconds."""

STEP = 25
"""How many sends are made per clock read."""

END_COST = 10
"""How many sends the end of a connection counts as: the close message, and the notifications to others."""

BYTES_PER_SEND = 16 * 1024
"""How many bytes of one send count as another send: the kernel takes as long to copy them."""

_BURST, _BURST_S = 8, 0.02
"""How many actions a `Burst` allows, per this number of seconds."""

Later = Callable[[float, Callable[[], None]], object]
"""The reactor's ``callLater``."""


class Slice:
    """The budget of one job in one turn of the reactor."""

    __slots__ = ("_looks_at", "_seconds", "_until_s", "left")

    def __init__(self, turn: Turn, within_s: float = MOST_S, most: int = MOST) -> None:
        """Start a slice in the current `turn`, of at most `most` sends and `within_s` seconds."""
        self._seconds = turn.seconds
        self._until_s = turn.until_s(within_s)
        self._looks_at = most - STEP
        self.left = most
        """The number of sends left."""

    def spend(self, count: int = 1) -> bool:
        """Count `count` sends, or work that takes as long. Return whether the budget allows more."""
        self.left -= count
        if self.left <= self._looks_at:
            self._looks_at = self.left - STEP
            if self._seconds() >= self._until_s:
                self.left = 0
        return self.left > 0


class Burst:
    """A rate limit for actions that are done at once: `_BURST` per `_BURST_S`."""

    __slots__ = ("_count", "_seconds", "_since_s")

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Start a burst; `seconds` is a monotonic clock."""
        self._seconds = seconds
        self._count, self._since_s = 0, 0.0

    def take(self) -> bool:
        """Count one action. Return whether it may be done now."""
        now_s = self._seconds()
        if now_s - self._since_s > _BURST_S:
            self._count, self._since_s = 0, now_s
        self._count += 1
        return self._count <= _BURST


class Slices:
    """Make many calls in slices: one job after the other, the calls of each job in order."""

    def __init__(self, call_later: Later, turn: Turn) -> None:
        """Use the `call_later` of the reactor, and the clock of its `turn`."""
        self._call_later = call_later
        self._turn = turn
        self._jobs: deque[Iterator[Callable[[], int]]] = deque()
        self._is_due = False

    def do(self, calls: Iterable[Callable[[], int]]) -> None:
        """Make all `calls`: one slice now, unless other jobs wait, and the rest in later turns.

        Each call returns how many sends it counts as. An exception ends the slice and is raised; the other
        calls follow in later turns.
        """
        self._jobs.append(iter(calls))
        if not self._is_due:
            self._run()

    def _run(self) -> None:
        self._is_due = True  # jobs that the calls add must wait
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
    """A `Slices` without a reactor: all calls are made at once."""

    def do(self, calls: Iterable[Callable[[], int]]) -> None:
        """Make all `calls` now."""
        for call in calls:
            call()


def in_turns(work: Callable[[Callable[[], bool]], bool], call_later: Later, turn: Turn) -> Callable[[], None]:
    """Return a function that runs `work` for one slice, and again in later turns until `work` is done.

    `work` receives a function that returns whether its time in this turn is over, and returns whether that
    interrupted it. Calls of the returned function have no effect while `work` continues.
    """
    is_due = False

    def begin() -> None:
        if not is_due:
            go_on()

    def go_on() -> None:
        nonlocal is_due
        is_due = False  # even if `work` raises
        until_s = turn.until_s(MOST_S)
        is_due = work(lambda: turn.seconds() >= until_s)
        if is_due:
            call_later(0, go_on)

    return begin
