"""The wheel: coarse timers for many connections, on one real one."""

from __future__ import annotations

from collections.abc import Callable

from pushd.slices import Later, Slice

__all__ = ["Alarm", "Wheel"]

_RING_COST = 5
"""As how many sends an alarm counts: most are heartbeats and pings."""


class Alarm:
    """One call that is to be made."""

    __slots__ = ("_call", "_slot")

    def __init__(self, slot: dict[Alarm, None], call: Callable[[], None]) -> None:
        self._slot = slot
        self._call = call
        slot[self] = None

    def cancel(self) -> None:
        """Do not make the call. May be called again, and after the call was made."""
        self._slot.pop(self, None)

    def ring(self) -> None:
        """Make the call, now."""
        self.cancel()
        self._call()


class Wheel:
    """Timers in slots of one second. Turned every second, an alarm rings up to two seconds late, never early.

    A timer for each idle connection would cost the reactor's heap an entry each; here setting one and
    cancelling one are a dictionary operation.

    Thousands of clients that came in one second have their heartbeats, and the ends of their tokens, in one second
    too: of many alarms, some ring in each turn of the reactor.
    """

    def __init__(self, seconds: Callable[[], float], call_later: Later | None = None) -> None:
        """Take the time from `seconds`, a clock that never jumps; without `call_later`, ring all at once."""
        self.seconds = seconds
        """The clock."""
        self._call_later = call_later
        self._is_due = False
        self._slots: dict[int, dict[Alarm, None]] = {}
        self._turned_to = int(seconds())

    def __len__(self) -> int:
        """Count the alarms that are set."""
        return sum(map(len, self._slots.values()))

    def call_in(self, delay_s: float, call: Callable[[], None]) -> Alarm:
        """Make `call` after `delay_s` seconds."""
        due = max(int(self.seconds() + delay_s), self._turned_to) + 1
        return Alarm(self._slots.setdefault(due, {}), call)

    def turn(self) -> None:
        """Ring what is due, or begin to. To be called every second.

        If a call raises, the rest of them are made at the next turn.
        """
        now, part = int(self.seconds()), Slice(self.seconds)
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
        self.turn()
