"""Polling: ready sockets are served one by one for some milliseconds, then the reactor runs its timers.

Private names of Twisted are used here. Its epoll reactor asks for as many events as there are sockets and serves
all of them in one turn; its ports accept a hundred connections in one turn, and 20 more each time that there were
still more. When thousands of clients send something in the same millisecond, such a turn takes hundreds of
milliseconds, in which nobody else is served.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IListeningPort

from pushd.turn import Turn

__all__ = ["ACCEPTS", "BUDGET_S", "Poller", "accept_few", "serve_few"]

BUDGET_S = 0.005
"""How long a turn serves sockets, in seconds; the event that is being served then is the last of the turn."""

ACCEPTS = 16
"""How many connections a port accepts for one event; the others are the next event of the port."""

Event = tuple[int, int]
"""A file descriptor, and what it is ready for."""


def _nothing(now_s: float) -> None:
    """Do nothing."""


class Poller:
    """An epoll object that is asked for one event at a time, within the budget of a turn; it begins the turns.

    The kernel puts a descriptor that it has reported behind all others that are ready (level-triggered, as Twisted
    uses it), so each is served in its turn. No event is ever taken and left for later: its descriptor could be
    another connection's by then.
    """

    def __init__(self, epoll: Any, turn: Turn, begins: Callable[[float], None] = _nothing) -> None:
        """Ask `epoll`. At the beginning of each turn, begin `turn` and call `begins` with the time."""
        self._epoll = epoll
        self._turn = turn
        self._begins = begins

    def __getattr__(self, name: str) -> Any:
        """Return what is not about waiting, such as `register`."""
        return getattr(self._epoll, name)

    def poll(self, timeout: float = -1, maxevents: int = -1) -> Iterable[Event]:
        """Wait as `epoll.poll` does; return the events of this turn, each taken when the one before was served."""
        return self._events(self._epoll.poll(timeout, 1))

    def _events(self, events: list[Event]) -> Iterator[Event]:
        turn, seconds = self._turn, self._turn.seconds
        now_s = seconds()
        turn.begin(now_s)
        self._begins(now_s)
        if not events:
            return
        until_s = turn.until_s(BUDGET_S)
        while events:
            yield events[0]
            if seconds() >= until_s:
                return
            events = self._epoll.poll(0, 1)


def serve_few(reactor: object, turn: Turn, begins: Callable[[float], None] = _nothing) -> None:
    """Bound what `reactor` serves in one turn, if it is one that uses epoll; others stay as they are.

    Each turn begins `turn`, and calls `begins` with the time.
    """
    epoll = getattr(reactor, "_poller", None)
    kind = getattr(select, "epoll", None)
    if kind is not None and isinstance(epoll, kind):
        reactor._poller = Poller(epoll, turn, begins)  # type: ignore[attr-defined]


def accept_few(port: IListeningPort) -> None:
    """Bound what `port` accepts in one turn, if it is one of Twisted's."""
    if not isinstance(port, tcp.Port):
        return
    read = port.doRead

    def read_few() -> None:
        port.numberAccepts = ACCEPTS  # it changes with each read
        read()

    port.doRead = read_few  # type: ignore[method-assign]
