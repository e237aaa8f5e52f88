"""Scheduling of the garbage collector, to avoid long pauses with hundreds of thousands of objects.

CPython's collector examines all objects of a generation at once. By default a full collection beside 100,000
channels takes 215 ms, and collections of the young generation, one for each 700 objects, make a connection 30 %
more expensive. pushd needs no collector: channels, events, histories, connections, requests and sessions are not in
reference cycles once they have ended, so each is freed with its last reference. `tests/e2e/test_garbage.py` checks
that for every kind of connection. When 50,000 connections, a tenth of them over TLS, opened and closed beside
100,000 channels, the resident memory of 222 MiB grew by less than 0.1 MiB, and the longest turn took 7 ms.

CPython schedules collections by the number of objects made minus those freed, and so cannot bound their duration: a
server that frees an old event for each new one has no collection while its young generation grows, and then one of
200 ms. So if the reactor reports the beginning of each turn, the collector runs only there, by the clock: objects
made within a few milliseconds are examined together, in a few milliseconds at most.

Objects that survive a long collection are frozen: no collection examines them again. Objects that are frozen alive
and later form a cycle stay in memory for ever. Examining them again would take 0.2 s, which a client could cause by
connecting and disconnecting in a loop, so pushd never does.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

__all__ = ["FREEZE_S", "FULL_S", "PAUSE_S", "THRESHOLDS", "Collector"]

THRESHOLDS = (5_000, 3, 1)
"""For `gc.set_threshold`: a young collection for each 5,000 new objects (0.4 ms), a second for each 20,000 (2 ms),
and a full one for each 40,000 (6 ms), which examines what is not frozen. For reactors that do not call `look`."""

_LONG_S = 0.004
"""Duration of a full collection, with these thresholds, beyond which the survivors are frozen, in seconds."""

PAUSE_S = 0.005
"""Minimum time between two collections, in seconds."""

FULL_S = 0.001
"""Estimated duration that triggers a full collection, before more objects make it longer, in seconds.

Objects not used for a while are not in the processor's cache, and take up to ten times as long."""

FREEZE_S = 0.0005
"""Duration of a full collection beyond which the survivors are frozen, in seconds."""


class Collector:
    """Collects at the beginning of turns, and freezes objects that survive a long full collection.

    ================  =========================================  ====================================
    State             Flags                                      Collections
    ================  =========================================  ====================================
    stopped           none                                       CPython's defaults
    started           ``_is_running``                            CPython, by `THRESHOLDS`
    `look` is called  ``_is_running``, ``_is_told``              only in `look`, by the clock
    gc was disabled   ``_is_running``, not ``_was_enabled``      none
    ================  =========================================  ====================================
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Measure with `seconds`, the CPU time of the thread."""
        self._seconds = seconds
        self._is_running = self._was_enabled = self._is_told = False
        self._began_s = 0.0
        self._thresholds = gc.get_threshold()
        self._due_s = float("-inf")
        self._unfrozen_s = 0.0  # upper bound for examining objects neither frozen nor new
        self._young_s = 0.0  # duration of the latest young collection

    def start(self) -> None:
        """Start, and freeze all objects; called once all objects exist that live as long as the process."""
        self._thresholds = gc.get_threshold()
        self._was_enabled = gc.isenabled()
        gc.set_threshold(*THRESHOLDS)
        gc.collect()
        gc.freeze()
        gc.callbacks.append(self._watch)
        self._is_running = True

    def stop(self) -> None:
        """Restore the previous state of the collector."""
        if self._is_running:
            self._is_running = False
            if self._is_told:
                self._is_told = False
                gc.enable()
            else:
                gc.callbacks.remove(self._watch)
            gc.unfreeze()
            gc.set_threshold(*self._thresholds)

    def look(self, now_s: float) -> None:
        """Called at the beginning of each turn of the reactor, at `now_s`: collect if a collection is due."""
        if now_s < self._due_s or not (self._is_running and self._was_enabled):
            return
        if not self._is_told:
            self._is_told = True
            gc.disable()
            gc.callbacks.remove(self._watch)
        self._due_s = now_s + PAUSE_S
        self._collect()

    def _collect(self) -> None:
        """Collect the young generation; or all objects not frozen, before that would take too long.

        A full collection examines the objects of the earlier collections, and the new ones. So the sum of the
        earlier durations bounds its duration, on any machine.
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
        """Called before and after each collection: freeze the survivors of a long full one."""
        if info["generation"] < 2:
            return
        if phase == "start":
            self._began_s = self._seconds()
        elif self._seconds() - self._began_s > _LONG_S:
            gc.freeze()
