"""The worker: a thread for what waits for the disk, so that the reactor does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

__all__ = ["Worker"]

P = ParamSpec("P")
T = TypeVar("T")


class _Threads(ThreadPool):
    """Threads that do not keep the process from ending: one may wait for a disk that does not answer."""

    # a static method, because from Python 3.14 on a partial in a class is a method
    threadFactory = staticmethod(partial(Thread, daemon=True))  # type: ignore[assignment]


class Worker:
    """One thread, which does one thing after the other."""

    def __init__(self, reactor: Any) -> None:
        """Return in the thread of `reactor`."""
        self._reactor = reactor
        self._pool = _Threads(0, 1, "pushd-store")

    def start(self) -> None:
        """Begin: not before the process has forked for the last time."""
        self._pool.start()

    def __call__(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> Deferred[T]:
        """Call `function` when it is its turn; return what it answers."""
        called: Deferred[T] = deferToThreadPool(self._reactor, self._pool, function, *args, **named)
        return called

    def stop(self) -> None:
        """End, when everything is done, which is waited for: to be called when it is."""
        self._pool.stop()
