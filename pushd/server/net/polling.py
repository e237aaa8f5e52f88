"""Polling: serve ready sockets for a few milliseconds, then let the reactor run its timers.

This module uses private names of Twisted, which has no option for such a limit. Its epoll reactor polls as many
events as there are sockets and serves all of them in one turn; its ports accept 100 connections in one turn, and
20 more each time that more are waiting. When thousands of clients send in the same millisecond, such a turn takes
hundreds of milliseconds, during which nothing else runs.
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
"""How long one turn serves sockets, in seconds; the event in progress at that time is the last of the turn."""

TAKEN = 64
"""How many events one poll returns at most."""

ACCEPTS = 16
"""How many connections a port accepts per event; the others cause the port's next event."""

Event = tuple[int, int]
"""A file descriptor and its event mask."""


def _nothing(now_s: float) -> None:
    """Do nothing."""


class Poller:
    """An epoll object that serves events within the time budget of a turn; it begins the turns.

    Events are polled in batches, because each poll costs a system call. Events left at the end of a turn are
    served first in the next turn, before the next poll. The kernel queues a reported descriptor behind all other
    ready ones (level-triggered, as Twisted uses it), so that every descriptor gets its turn.

    The registration of a descriptor may change after its event was polled: the descriptor may belong to another
    connection by then, or to a paused one. Such an event is dropped; the kernel reports it again if it still holds.
    """

    def __init__(self, epoll: Any, turn: Turn, begins: Callable[[float], None] = _nothing) -> None:
        """Poll `epoll`. At the start of each turn, begin `turn` and call `begins` with the time."""
        self._epoll = epoll
        self._turn = turn
        self._begins = begins
        self._taken: list[Event] = []  # served from the end
        self._are_all = True  # whether the last poll returned all ready events
        self._changed: set[int] = set()  # descriptors whose events in this batch are dropped

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the epoll object, such as `close`."""
        return getattr(self._epoll, name)

    def register(self, file: int, events: int) -> None:
        """Register a descriptor for `events`."""
        self._changed.add(file)
        self._epoll.register(file, events)

    def modify(self, file: int, events: int) -> None:
        """Change the events of a descriptor."""
        self._changed.add(file)
        self._epoll.modify(file, events)

    def unregister(self, file: int) -> None:
        """Unregister a descriptor."""
        self._changed.add(file)
        self._epoll.unregister(file)

    def poll(self, timeout: float = -1, maxevents: int = -1) -> Iterable[Event]:
        """Wait as `epoll.poll` does, unless events are left; yield the events of this turn."""
        if not self._taken:
            self._take(timeout)
        now_s = self._turn.seconds()
        self._turn.begin(now_s)
        self._begins(now_s)
        return self._serve() if self._taken else ()

    def _take(self, timeout: float) -> None:
        """Poll the next batch of events."""
        self._taken = taken = self._epoll.poll(timeout, TAKEN)
        self._are_all = len(taken) < TAKEN
        taken.reverse()
        self._changed.clear()

    def _serve(self) -> Iterator[Event]:
        """Yield events, each after the previous one was served, until none is left or the budget is spent."""
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
    """Limit the time `reactor` serves sockets in one turn, if it uses epoll; other reactors are unchanged.

    Each turn begins `turn`, and calls `begins` with the time.
    """
    epoll = getattr(reactor, "_poller", None)
    kind = getattr(select, "epoll", None)
    if kind is not None and isinstance(epoll, kind):
        reactor._poller = Poller(epoll, turn, begins)  # type: ignore[attr-defined]


def accept_few(port: IListeningPort) -> None:
    """Limit the connections that `port` accepts in one turn, if it is one of Twisted's ports."""
    if not isinstance(port, tcp.Port):
        return
    read = port.doRead

    def read_few() -> None:
        port.numberAccepts = ACCEPTS  # Twisted changes it with each read
        read()

    port.doRead = read_few  # type: ignore[method-assign]
