"""Run twistd with a reactor whose longest turn is measured: ``python measured_twistd.py FILE TWISTD-ARGUMENTS``.

A turn is everything between two waits for events: calls that are due, reads, writes, and the collector. FILE holds
three little-endian numbers of 64 bits: the longest turn in nanoseconds of this thread's CPU time, the longest in
nanoseconds by the clock, and the number of turns. Whoever reads it may set them back to 0 at any time.
"""

from __future__ import annotations

import mmap
import select
import struct
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import epollreactor
from twisted.scripts.twistd import run

_FIGURES = struct.Struct("<3q")


class MeasuredPoller:
    """An epoll object that notes how long its caller takes between two calls of `poll`."""

    def __init__(self, epoll: select.epoll, figures: mmap.mmap) -> None:
        self._epoll = epoll
        self._figures = figures
        self._began: tuple[int, int] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def poll(self, timeout: float = -1, maxevents: int = -1) -> list[tuple[int, int]]:
        """Note how long this turn took, and wait for the next one."""
        if self._began is not None:
            cpu, wall, turns = _FIGURES.unpack_from(self._figures)
            cpu = max(cpu, time.thread_time_ns() - self._began[0])
            wall = max(wall, time.perf_counter_ns() - self._began[1])
            _FIGURES.pack_into(self._figures, 0, cpu, wall, turns + 1)
        try:
            return self._epoll.poll(timeout, maxevents)
        finally:
            self._began = time.thread_time_ns(), time.perf_counter_ns()


def main() -> None:
    """Run it."""
    path = Path(sys.argv.pop(1))
    with open(path, "r+b") as file:
        figures = mmap.mmap(file.fileno(), _FIGURES.size)
    epollreactor.install()
    from twisted.internet import reactor  # noqa: TID251  it is installed only now

    reactor._poller = MeasuredPoller(reactor._poller, figures)  # type: ignore[attr-defined]
    run()


if __name__ == "__main__":
    main()
