"""The timer wheel: coarse timers for many connections, on one timer of the reactor."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from pushd.bus import Later, Slice, Turn

__all__ = ["TURN_S", "Timer", "TimerWheel"]

TURN_S = 1.0
"""The interval between turns of the wheel, in seconds."""

_LATE_S = 0.05
"""How late a turn may be without moving its calls to another turn, in seconds."""

_RINGING = 64
"""How many timers are looked up at once: before the first one, a dict has a slot for each that was cancelled."""

_RING_COST = 5
"""The cost of a timer call, in sends: most calls are heartbeats and pings."""


class Timer:
    """One scheduled call."""

    __slots__ = ("_call", "_slot")

    def __init__(self, slot: dict[Timer, None], call: Callable[[], None]) -> None:
        self._slot = slot
        self._call = call
        slot[self] = None

    def cancel(self) -> None:
        """Cancel the call. Idempotent, also after the call was made."""
        self._slot.pop(self, None)
        self._call = _nothing  # it may refer to this timer: break the cycle

    def ring(self) -> None:
        """Make the call now."""
        call = self._call
        self.cancel()
        call()


def _nothing() -> None:
    """Do nothing."""


class TimerWheel:
    """Timers in slots of one second. The wheel turns every second; a call is up to two seconds late, never early.

    A reactor timer per idle connection would cost a heap entry each; setting or cancelling one here is one
    dictionary operation.

    The heartbeats and token expiries of thousands of clients that connected in the same second are due in the same
    second, too: their calls are spread over several turns of the reactor.
    """

    def __init__(
        self, seconds: Callable[[], float], call_later: Later | None = None, turn: Turn | None = None
    ) -> None:
        """Use the monotonic clock `seconds`; without `call_later`, make all due calls in one turn."""
        self.seconds = seconds
        """The monotonic clock."""
        self.reactor_turn = Turn(seconds) if turn is None else turn
        """The time budget of the reactor's current turn."""
        self._call_later = call_later
        self._is_due = False
        self.turned_s = seconds()
        """The time of the last turn: a cheap clock, up to a second behind."""
        self._slots: dict[int, dict[Timer, None]] = {}
        self._turned_to = int(self.turned_s)

    def __len__(self) -> int:
        """Return the number of scheduled calls."""
        return sum(map(len, self._slots.values()))

    def call_in(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Schedule `call` after `delay_s` seconds: late, never early."""
        due = max(int(self.seconds() + delay_s), self._turned_to) + 1
        return Timer(self._slots.setdefault(due, {}), call)

    def call_within(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Schedule `call` at the last turn within `delay_s` seconds, at least one turn ahead: early, never late.

        Turns are a second apart. A turn that is a few milliseconds late must not move the call to an adjacent turn.
        """
        turns = max(1, int(self.seconds() + delay_s - self.turned_s + _LATE_S))
        due = max(int(self.turned_s + turns - _LATE_S), int(self.turned_s) + 1, self._turned_to + 1)
        return Timer(self._slots.setdefault(due, {}), call)

    def turns_again_by(self, time_s: float) -> bool:
        """Return whether another turn follows the current one, at `time_s` or before."""
        return time_s - self.turned_s > TURN_S - _LATE_S

    def has_reached(self, time_s: float) -> bool:
        """Return whether the current turn is at `time_s` or later."""
        return time_s - self.turned_s < _LATE_S

    def turn(self) -> None:
        """Make the due calls, or start to. Called every second.

        If a call raises, the remaining calls are made at the next turn.
        """
        self.turned_s = self.seconds()
        self._ring()

    def _ring(self) -> None:
        now, part = int(self.turned_s), Slice(self.reactor_turn)
        for second in range(self._turned_to + 1, now + 1):
            slot = self._slots.get(second, {})
            while slot:
                for timer in list(islice(slot, _RINGING)):
                    timer.ring()
                    if not part.spend(_RING_COST) and self._call_later is not None:
                        self._go_on_later(self._call_later)
                        return
            self._slots.pop(second, None)
            self._turned_to = second

    def _go_on_later(self, call_later: Later) -> None:
        if not self._is_due:
            self._is_due = True
            call_later(0, self._go_on)

    def _go_on(self) -> None:
        self._is_due = False
        self._ring()
