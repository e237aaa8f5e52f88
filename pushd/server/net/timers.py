"""The wheel: coarse timers for many connections, on one real one."""

from __future__ import annotations

from collections.abc import Callable

from pushd.bus import Later, Slice, Turn

__all__ = ["TURN_S", "Timer", "TimerWheel"]

TURN_S = 1.0
"""How far apart the turns of a wheel are."""

_LATE_S = 0.05
"""How late a turn may be without moving what was to be called at it."""

_RING_COST = 5
"""As how many sends an alarm counts: most are heartbeats and pings."""


class Timer:
    """One call that is to be made."""

    __slots__ = ("_call", "_slot")

    def __init__(self, slot: dict[Timer, None], call: Callable[[], None]) -> None:
        self._slot = slot
        self._call = call
        slot[self] = None

    def cancel(self) -> None:
        """Do not make the call. May be called again, and after the call was made."""
        self._slot.pop(self, None)
        self._call = _nothing  # whose object may refer to this alarm: a cycle

    def ring(self) -> None:
        """Make the call, now."""
        call = self._call
        self.cancel()
        call()


def _nothing() -> None:
    """Do nothing."""


class TimerWheel:
    """Timers in slots of one second. Turned every second, an alarm rings up to two seconds late, never early.

    A timer for each idle connection would cost the reactor's heap an entry each; here setting one and
    cancelling one are a dictionary operation.

    Thousands of clients that came in one second have their heartbeats, and the ends of their tokens, in one second
    too: of many alarms, some ring in each turn of the reactor.
    """

    def __init__(
        self, seconds: Callable[[], float], call_later: Later | None = None, turn: Turn | None = None
    ) -> None:
        """Take the time from `seconds`, a clock that never jumps; without `call_later`, ring all at once."""
        self.seconds = seconds
        """The clock."""
        self.reactor_turn = Turn(seconds) if turn is None else turn
        """The turn of the reactor, whose time is shared."""
        self._call_later = call_later
        self._is_due = False
        self.turned_s = seconds()
        """When it was turned last: the time, cheap and up to a second old."""
        self._slots: dict[int, dict[Timer, None]] = {}
        self._turned_to = int(self.turned_s)

    def __len__(self) -> int:
        """Count the alarms that are set."""
        return sum(map(len, self._slots.values()))

    def call_in(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Make `call` after `delay_s` seconds."""
        due = max(int(self.seconds() + delay_s), self._turned_to) + 1
        return Timer(self._slots.setdefault(due, {}), call)

    def call_within(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Make `call` at the last turn that comes within `delay_s` seconds, or at the next one: early, never late.

        Turns are a second apart. A turn may be some milliseconds late, which must not move the call to the turn
        before or after.
        """
        turns = max(1, int(self.seconds() + delay_s - self.turned_s + _LATE_S))
        due = max(int(self.turned_s + turns - _LATE_S), int(self.turned_s) + 1, self._turned_to + 1)
        return Timer(self._slots.setdefault(due, {}), call)

    def turns_again_by(self, time_s: float) -> bool:
        """Return whether there is another turn after the current one, at `time_s` or before."""
        return time_s - self.turned_s > TURN_S - _LATE_S

    def has_reached(self, time_s: float) -> bool:
        """Return whether it was `time_s` at the current turn."""
        return time_s - self.turned_s < _LATE_S

    def turn(self) -> None:
        """Ring what is due, or begin to. To be called every second.

        If a call raises, the rest of them are made at the next turn.
        """
        self.turned_s = self.seconds()
        self._ring()

    def _ring(self) -> None:
        now, part = int(self.turned_s), Slice(self.reactor_turn)
        for second in range(self._turned_to + 1, now + 1):
            slot = self._slots.get(second, {})
            while slot:
                next(iter(slot)).ring()
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
