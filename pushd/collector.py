"""The garbage collector, kept from pausing a process that has hundreds of thousands of objects.

CPython's collector examines all objects of a generation at once. By default a full collection beside 100,000
channels takes 215 ms, and collections of the young generation, one for each 700 objects, make a connection 30 %
dearer. Channels, events and histories need no collector at all: they are in no reference cycle, and are freed as
soon as nobody refers to them. Connections are in cycles.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

from twisted.logger import Logger

__all__ = ["THRESHOLDS", "Collector"]

_log = Logger()

THRESHOLDS = (5_000, 3, 1)
"""For `gc.set_threshold`: a young collection for each 5,000 new objects (0.4 ms), a second for each 20,000 (2 ms),
and a full one for each 40,000 (6 ms), which examines what is not frozen."""

_FREEZE_S = 0.004
"""If a full collection takes longer, what has survived it is frozen: later ones do not examine it."""

_LOOK_S = 10.0
"""How often it is found out whether to thaw, in seconds."""

_THAW_CONNECTIONS = 5_000
"""How many subscribers may end before frozen objects are examined again: a frozen one leaves up to 10 KiB."""


class Collector:
    """Sets thresholds, and freezes objects that have survived a full collection which took long."""

    def __init__(
        self,
        seconds: Callable[[], float],
        ended: Callable[[], int],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """Measure with `seconds`, the CPU time of the thread; `ended` returns how many subscribers have ended.

        `call_later` is the reactor's.
        """
        self._seconds = seconds
        self._ended = ended
        self._call_later = call_later
        self._is_running = False
        self._is_frozen = False
        self._began_s = 0.0
        self._ended_before = 0
        self._thresholds = gc.get_threshold()

    def start(self) -> None:
        """Begin, when everything is there that stays as long as the process."""
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*THRESHOLDS)
        gc.collect()
        self._freeze()
        gc.callbacks.append(self._watch)
        self._is_running = True
        self._call_later(_LOOK_S, self._look)

    def stop(self) -> None:
        """Leave the collector as it was."""
        if self._is_running:
            self._is_running = False
            gc.callbacks.remove(self._watch)
            gc.unfreeze()
            gc.set_threshold(*self._thresholds)

    def _freeze(self) -> None:
        if not self._is_frozen:  # `gc.get_freeze_count` would count them all
            self._is_frozen, self._ended_before = True, self._ended()
        gc.freeze()

    def _watch(self, phase: str, info: dict[str, int]) -> None:
        """Called before and after each collection."""
        if info["generation"] < 2:
            return
        if phase == "start":
            self._began_s = self._seconds()
        elif self._seconds() - self._began_s > _FREEZE_S:
            self._freeze()

    def _look(self) -> None:
        """Thaw what is frozen if too much of it may be garbage; look again later."""
        if not self._is_running:
            return
        if self._ended() - self._ended_before > _THAW_CONNECTIONS:
            self._thaw()
        self._call_later(_LOOK_S, self._look)

    def _thaw(self) -> None:
        """Examine all objects, which takes long: 0.2 s beside 100,000 channels."""
        began_s = self._seconds()
        gc.unfreeze()
        collected = gc.collect()
        gc.freeze()
        self._ended_before = self._ended()
        _log.info(
            "freed {count} objects of connections that have ended, in {ms} ms",
            count=collected,
            ms=round((self._seconds() - began_s) * 1000),
        )
