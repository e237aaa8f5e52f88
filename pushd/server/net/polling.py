"""Polling: ready sockets are served for some milliseconds, then the reactor runs its timers.

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

from pushd.bus import Turn

__all__ = ["ACCEPTS", "BUDGET_S", "TAKEN", "Poller", "accept_few", "serve_few"]

BUDGET_S = 0.005
"""How long a turn serves sockets, in seconds; the event that is being served then is the last of the turn."""

TAKEN = 64
"""How many events are taken from the kernel at once."""

ACCEPTS = 16
"""How many connections a port accepts for one event; the others are the next event of the port."""

Event = tuple[int, int]
"""A file descriptor, and what it is ready for."""


def _nothing(now_s: float) -> None:
    """Do nothing."""


class Poller:
    """An epoll object whose events are served within the budget of a turn; it begins the turns.

    Some events are taken at once, because to ask for each costs a system call. Those that are left when a turn ends
    are served first in the next one, before the kernel is asked again. It puts a descriptor that it has reported
    behind all others that are ready (level-triggered, as Twisted uses it), so each is served in its turn.

    What is registered for a descriptor may change after its event was taken: the descriptor could be another
    connection's by then, or of one that is not to be read now. Such an event is dropped, and what still holds is
    reported again.
    """

    def __init__(self, epoll: Any, turn: Turn, begins: Callable[[float], None] = _nothing) -> None:
        """Ask `epoll`. At the beginning of each turn, begin `turn` and call `begins` with the time."""
        self._epoll = epoll
        self._turn = turn
        self._begins = begins
        self._taken: list[Event] = []  # the next one to serve is the last
        self._are_all = True  # whether no others were ready when these were taken
        self._changed: set[int] = set()  # descriptors whose events among these are dropped

    def __getattr__(self, name: str) -> Any:
        """Return what is neither about waiting nor about descriptors, such as `close`."""
        return getattr(self._epoll, name)

    def register(self, file: int, events: int) -> None:
        """Register a descriptor for `events`."""
        self._changed.add(file)
        self._epoll.register(file, events)

    def modify(self, file: int, events: int) -> None:
        """Register it for other events."""
        self._changed.add(file)
        self._epoll.modify(file, events)

    def unregister(self, file: int) -> None:
        """Report nothing of it any more."""
        self._changed.add(file)
        self._epoll.unregister(file)

    def poll(self, timeout: float = -1, maxevents: int = -1) -> Iterable[Event]:
        """Wait as `epoll.poll` does, unless there are events left; return those of this turn as they are served."""
        if not self._taken:
            self._take(timeout)
        now_s = self._turn.seconds()
        self._turn.begin(now_s)
        self._begins(now_s)
        return self._serve() if self._taken else ()

    def _take(self, timeout: float) -> None:
        """Take the next events."""
        self._taken = taken = self._epoll.poll(timeout, TAKEN)
        self._are_all = len(taken) < TAKEN
        taken.reverse()
        self._changed.clear()

    def _serve(self) -> Iterator[Event]:
        """Return each event when the one before was served, until there are no more or the time is used."""
        seconds, changed = self._turn.seconds, self._changed
        until_s = self._turn.until_s(BUDGET_S)
        while taken := self._taken:
            while taken:
                event = taken.pop()
                if event[0] in changed:
                    continue
                yield event
                if seconds() >= until_s:
                    return
            if not self._are_all:
                self._take(0)


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
