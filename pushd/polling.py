"""Polling: ready sockets are served one by one for some milliseconds, then the reactor runs its timers.

Private names of Twisted are used here. Its epoll reactor asks for as many events as there are sockets and serves
all of them in one turn; its ports accept a hundred connections in one turn, and 20 more each time that there were
still more. When thousands of clients send something in the same millisecond, such a turn takes hundreds of
milliseconds, in which nobody else is served.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IListeningPort

__all__ = ["ACCEPTS", "BUDGET_S", "Poller", "accept_few", "serve_few"]

BUDGET_S = 0.005
"""How long a turn serves sockets, in seconds; the event that is being served then is the last of the turn."""

ACCEPTS = 16
"""How many connections a port accepts for one event; the others are the next event of the port."""

Event = tuple[int, int]
"""A file descriptor, and what it is ready for."""


class Poller:
    """An epoll object that is asked for one event at a time, within the budget of a turn.

    The kernel puts a descriptor that it has reported behind all others that are ready (level-triggered, as Twisted
    uses it), so each is served in its turn. No event is ever taken and left for later: its descriptor could be
    another connection's by then.
    """

    def __init__(self, epoll: Any, seconds: Callable[[], float] = monotonic) -> None:
        """Ask `epoll`; `seconds` is a clock that never jumps."""
        self._epoll = epoll
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        """Return what is not about waiting, such as `register`."""
        return getattr(self._epoll, name)

    def poll(self, timeout: float = -1, maxevents: int = -1) -> Iterable[Event]:
        """Wait as `epoll.poll` does; return the events of this turn, each taken when the one before was served."""
        first: list[Event] = self._epoll.poll(timeout, 1)
        return self._events(first) if first else first

    def _events(self, events: list[Event]) -> Iterator[Event]:
        until_s = self._seconds() + BUDGET_S
        while events:
            yield events[0]
            if self._seconds() >= until_s:
                return
            events = self._epoll.poll(0, 1)


def serve_few(reactor: object) -> None:
    """Bound what `reactor` serves in one turn, if it is one that uses epoll; others stay as they are."""
    epoll = getattr(reactor, "_poller", None)
    kind = getattr(select, "epoll", None)
    if kind is not None and isinstance(epoll, kind):
        reactor._poller = Poller(epoll)  # type: ignore[attr-defined]


def accept_few(port: IListeningPort) -> None:
    """Bound what `port` accepts in one turn, if it is one of Twisted's."""
    if not isinstance(port, tcp.Port):
        return
    read = port.doRead

    def read_few() -> None:
        port.numberAccepts = ACCEPTS  # it changes with each read
        read()

    port.doRead = read_few  # type: ignore[method-assign]
