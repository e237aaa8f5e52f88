"""The worker: a thread for what waits for the disk, so that the reactor does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

__all__ = ["Worker"]

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """One thread, which does one thing after the other."""

    def __init__(self, reactor: Any) -> None:
        """Answer in the thread of `reactor`."""
        self._reactor = reactor
        self._pool = ThreadPool(0, 1, "pushd-store")

    def start(self) -> None:
        """Begin: not before the process has forked for the last time."""
        self._pool.start()

    def __call__(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> Deferred[T]:
        """Call `function` when it is its turn; answer what it answers."""
        called: Deferred[T] = deferToThreadPool(self._reactor, self._pool, function, *args, **named)
        return called

    def stop(self) -> None:
        """End, when everything is done. It takes as long as that."""
        self._pool.stop()
