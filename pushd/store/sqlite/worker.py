"""The worker: threads for disk operations, so that the reactor does not block."""

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
    """Daemon threads, so that a thread blocked on a dead disk does not keep the process alive."""

    # a static method, because from Python 3.14 on a partial in a class is a method
    threadFactory = staticmethod(partial(Thread, daemon=True))  # type: ignore[assignment]


class Worker:
    """Two threads: one runs functions in order, the other reads meanwhile."""

    def __init__(self, reactor: Any) -> None:
        """Deliver results in the thread of `reactor`."""
        self._reactor = reactor
        self._pool = _Threads(0, 1, "pushd-store")
        self._reading = _Threads(0, 1, "pushd-read")

    def start(self) -> None:
        """Start the threads. Call it only after the process has forked for the last time."""
        self._pool.start()
        self._reading.start()

    def __call__(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> Deferred[T]:
        """Call `function` after all earlier ones; return a Deferred of its result."""
        called: Deferred[T] = deferToThreadPool(self._reactor, self._pool, function, *args, **named)
        return called

    def read(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> Deferred[T]:
        """Call `function` in the thread that reads; return a Deferred of its result."""
        called: Deferred[T] = deferToThreadPool(self._reactor, self._reading, function, *args, **named)
        return called

    def stop(self) -> None:
        """Stop the threads. This blocks until all functions have run: call it once they have."""
        self._pool.stop()
        self._reading.stop()
