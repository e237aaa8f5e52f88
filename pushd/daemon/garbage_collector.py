"""The garbage collector, kept from pausing a process that has hundreds of thousands of objects.

CPython's collector examines all objects of a generation at once. By default a full collection beside 100,000
channels takes 215 ms, and collections of the young generation, one for each 700 objects, make a connection 30 %
dearer. pushd needs no collector: neither channels, events and histories nor connections, requests and sessions are
in reference cycles once they have ended, so that all of them are freed as soon as nobody refers to them.
`tests/e2e/test_garbage.py` checks that for every kind of connection. When 50,000 connections, a
tenth of them over TLS, came and went beside 100,000 channels, the resident memory of 222 MiB grew by less than
0.1 MiB, and the longest turn took 7 ms.

CPython decides by the number of objects made, less those freed, and so cannot bound how long a collection takes: a
server that frees an old event for each new one has no collection at all while its young generation grows, and then
one of 200 ms. So where the reactor says when a turn begins, the collector runs only there, by the clock:
what was made within a few milliseconds is examined at once, and takes few milliseconds at most.

What has survived a long collection is frozen: no collection examines it again. Objects in a cycle that were frozen
alive would stay in memory for ever. Examining them again takes 0.2 s, which a client that connects and disconnects
in a loop could cause; so that is never done.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

__all__ = ["FREEZE_S", "FULL_S", "PAUSE_S", "THRESHOLDS", "Collector"]

THRESHOLDS = (5_000, 3, 1)
"""For `gc.set_threshold`: a young collection for each 5,000 new objects (0.4 ms), a second for each 20,000 (2 ms),
and a full one for each 40,000 (6 ms), which examines what is not frozen. For reactors that do not call `look`."""

_LONG_S = 0.004
"""With them, a full collection that takes longer freezes what has survived it."""

PAUSE_S = 0.005
"""How long there is no collection after one, in seconds."""

FULL_S = 0.001
"""When examining everything that is not frozen would take longer, all of it is examined, before there is more.

What has not been used for a while is not in the processor's cache, and takes up to ten times as long."""

FREEZE_S = 0.0005
"""If a full collection takes longer, what has survived it is frozen: later ones do not examine it."""


class Collector:
    """Collects at the beginning of turns, and freezes objects that have survived a long full collection."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Measure with `seconds`, the CPU time of the thread."""
        self._seconds = seconds
        self._is_running = self._was_enabled = self._is_told = False
        self._began_s = 0.0
        self._thresholds = gc.get_threshold()
        self._due_s = float("-inf")
        self._unfrozen_s = 0.0  # at most so long takes examining what is not frozen, and not new
        self._young_s = 0.0  # how long examining what was new took last

    def start(self) -> None:
        """Begin, when everything is there that stays as long as the process."""
        self._thresholds = gc.get_threshold()
        self._was_enabled = gc.isenabled()
        gc.set_threshold(*THRESHOLDS)
        gc.collect()
        gc.freeze()
        gc.callbacks.append(self._watch)
        self._is_running = True

    def stop(self) -> None:
        """Leave the collector as it was."""
        if self._is_running:
            self._is_running = False
            if self._is_told:
                gc.enable()
            else:
                gc.callbacks.remove(self._watch)
            gc.unfreeze()
            gc.set_threshold(*self._thresholds)

    def look(self, now_s: float) -> None:
        """Collect if it is time to. To be called at the beginning of each turn of the reactor, at `now_s`."""
        if now_s < self._due_s or not (self._is_running and self._was_enabled):
            return
        if not self._is_told:
            self._is_told = True
            gc.disable()
            gc.callbacks.remove(self._watch)
        self._due_s = now_s + PAUSE_S
        self._collect()

    def _collect(self) -> None:
        """Examine what is new; or all that is not frozen, if the next time that would take too long.

        A full collection examines what earlier ones have examined, and what is new. So the time that those took is
        the most that it takes, on any machine.
        """
        is_full = self._unfrozen_s + self._young_s > FULL_S
        began_s = self._seconds()
        gc.collect(2 if is_full else 0)
        took_s = self._seconds() - began_s
        if not is_full:
            self._young_s = took_s
            self._unfrozen_s += took_s
            return
        self._young_s = max(0.0, took_s - self._unfrozen_s)
        self._unfrozen_s = took_s
        if took_s > FREEZE_S:
            gc.freeze()
            self._unfrozen_s = 0.0

    def _watch(self, phase: str, info: dict[str, int]) -> None:
        """Called before and after each collection."""
        if info["generation"] < 2:
            return
        if phase == "start":
            self._began_s = self._seconds()
        elif self._seconds() - self._began_s > _LONG_S:
            gc.freeze()
