"""Run twistd with a reactor whose longest turn is measured: ``python measured_twistd.py FILE TWISTD-ARGUMENTS``.

A turn is everything between two waits for events: calls that are due, reads, writes, and the collector. FILE holds
three little-endian numbers of 64 bits: the longest turn in nanoseconds of this thread's CPU time, the longest in
nanoseconds by the clock, and the number of turns. Whoever reads it may set them back to 0 at any time.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.internet import epollreactor
from twisted.scripts.twistd import run

_FIGURES = struct.Struct("<3q")


class MeasuredPoller:
    """Notes how long the caller of a poller takes between two calls of `poll`, whatever it polls meanwhile."""

    def __init__(self, epoll: Any, counters: mmap.mmap) -> None:
        self._epoll = epoll
        self._counters = counters
        self._began: tuple[int, int] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def poll(self, timeout: float = -1, maxevents: int = -1) -> Iterable[tuple[int, int]]:
        """Note how long this turn took, and wait for the next one."""
        if self._began is not None:
            cpu, wall, turns = _FIGURES.unpack_from(self._counters)
            cpu = max(cpu, time.thread_time_ns() - self._began[0])
            wall = max(wall, time.perf_counter_ns() - self._began[1])
            _FIGURES.pack_into(self._counters, 0, cpu, wall, turns + 1)
        try:
            events: Iterable[tuple[int, int]] = self._epoll.poll(timeout, maxevents)
            return events
        finally:
            self._began = time.thread_time_ns(), time.perf_counter_ns()


def main() -> None:
    """Run it."""
    path = Path(sys.argv.pop(1))
    with open(path, "r+b") as file:
        counters = mmap.mmap(file.fileno(), _FIGURES.size)
    epollreactor.install()
    from twisted.internet import reactor  # noqa: TID251  it is installed only now

    def measure() -> None:
        reactor._poller = MeasuredPoller(reactor._poller, counters)  # type: ignore[attr-defined]

    # after what pushd has put there, which polls several times in each turn
    reactor.callWhenRunning(reactor.callLater, 0, measure)
    run()


if __name__ == "__main__":
    main()
