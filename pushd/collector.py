"""The garbage collector, kept from pausing a process that has hundreds of thousands of objects.

CPython's collector examines all objects of a generation at once. By default a full collection beside 100,000
channels takes 215 ms, and collections of the young generation, one for each 700 objects, make a connection 30 %
dearer. pushd needs no collector: neither channels, events and histories nor connections, requests and sessions are
in reference cycles once they have ended, so that all of them are freed as soon as nobody refers to them.
`tests/e2e/test_garbage.py` checks that for every kind of connection. When 50,000 connections, a
tenth of them over TLS, came and went beside 100,000 channels, the resident memory of 222 MiB grew by less than
0.1 MiB, and the longest turn took 7 ms.

What has survived a long collection is frozen: no collection examines it again. Objects in a cycle that were frozen
alive would stay in memory for ever. Examining them again takes 0.2 s, which a client that connects and disconnects
in a loop could cause; so that is never done.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

__all__ = ["THRESHOLDS", "Collector"]

THRESHOLDS = (5_000, 3, 1)
"""For `gc.set_threshold`: a young collection for each 5,000 new objects (0.4 ms), a second for each 20,000 (2 ms),
and a full one for each 40,000 (6 ms), which examines what is not frozen."""

_FREEZE_S = 0.004
"""If a full collection takes longer, what has survived it is frozen: later ones do not examine it."""


class Collector:
    """Sets thresholds, and freezes objects that have survived a full collection which took long."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Measure with `seconds`, the CPU time of the thread."""
        self._seconds = seconds
        self._is_running = False
        self._began_s = 0.0
        self._thresholds = gc.get_threshold()

    def start(self) -> None:
        """Begin, when everything is there that stays as long as the process."""
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*THRESHOLDS)
        gc.collect()
        gc.freeze()
        gc.callbacks.append(self._watch)
        self._is_running = True

    def stop(self) -> None:
        """Leave the collector as it was."""
        if self._is_running:
            self._is_running = False
            gc.callbacks.remove(self._watch)
            gc.unfreeze()
            gc.set_threshold(*self._thresholds)

    def _watch(self, phase: str, info: dict[str, int]) -> None:
        """Called before and after each collection."""
        if info["generation"] < 2:
            return
        if phase == "start":
            self._began_s = self._seconds()
        elif self._seconds() - self._began_s > _FREEZE_S:
            gc.freeze()
