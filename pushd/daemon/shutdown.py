"""Graceful shutdown: closes ports, sessions and the store in order, each within its timeout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as NotInTime
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pushd.bus import CloseCause, CloseReason
from pushd.config import Config, Limits
from pushd.daemon.components import Components, StoreParts
from pushd.errors import Unavailable
from pushd.server import Port

__all__ = ["Shutdown"]

T = TypeVar("T")

_log = Logger()

_CLOSE_PORT_S = 1.0
"""Timeout for closing one listener, in seconds."""

_ACKNOWLEDGE_S = 1.0
"""Timeout for publishing events that wait at the stop, in seconds; clients are closed afterwards."""

_TELL_S = 2.0
"""Timeout for the last notifications to the application, in seconds."""

_CLOSE_STORE_S = 10.0
"""Timeout for writing all pending events and closing the store, in seconds."""

_SPARE_S = 5.0
"""Margin added to the sum of these timeouts in the stop timeout requested from systemd, in seconds."""


class Shutdown:
    """The steps of a shutdown.

    ==========  =====================  ==============================================================
    State       Attributes             Next state
    ==========  =====================  ==============================================================
    pending     none                   publishing, by `run`
    publishing  none                   draining, once waiting events are published or the timeout expires
    draining    ``_awaited``           closing, once drained or at the deadline; at once by `hurry`
    closing     ``_awaited``, called   closed, when the store is closed or its timeout expires
    ==========  =====================  ==============================================================

    `hurry` sets ``_is_hurried`` in any state: the drain then ends at once, and the last notifications are not
    waited for.
    """

    def __init__(
        self,
        parts: Components,
        ports: Sequence[Port],
        reactor: IReactorTime,
        *,
        random: Callable[[], float],
        stop_timers: Callable[[], None],
    ) -> None:
        """Close `parts` and `ports`; `stop_timers` is called once the clients are gone.

        `random` returns numbers from 0 to 1.
        """
        self._parts = parts
        self._ports = ports
        self._reactor = reactor
        self._random = random
        self._stop_timers = stop_timers
        self._is_hurried = False
        self._awaited: Deferred[None] | None = None

    def longest_s(self, config: Config) -> float:
        """Return how long `run` may take with `config`, in seconds."""
        closing_s = len(self._ports) * _CLOSE_PORT_S
        return closing_s + _ACKNOWLEDGE_S + config.stop_timeout_s + _TELL_S + _CLOSE_STORE_S + _SPARE_S

    def hurry(self) -> None:
        """Stop draining and abort the connections."""
        self._is_hurried = True
        if self._awaited is not None:
            self._awaited.cancel()

    async def run(self, config: Config, store: StoreParts | None) -> None:
        """Close listeners, write pending events, close sessions, drain, close the `store`, if one is open."""
        timeout_s, farewell = config.stop_timeout_s, partial(self._farewell, config.limits)
        deadline_s = self._reactor.seconds() + timeout_s
        await self._close_ports("everything")
        connections = self._parts.site.connections
        _log.info("stopping; {count} connections are open", count=len(connections))
        published: Deferred[None] = Deferred()
        self._parts.publisher.when_published(lambda: published.callback(None))
        await self._within(min(_ACKNOWLEDGE_S, timeout_s), published)
        self._parts.presence.stop()
        self._parts.sessions.close(farewell)
        connections.finish()
        if not await self._drains(deadline_s):
            if store is not None:
                _refuse_more(store, farewell())
            self._abort_connections()
        await self._parts.presence.close(0 if self._is_hurried else _TELL_S)
        await self._close_ports("operations")  # open until here, to show the progress of the drain
        for connection in self._parts.operations.connections:
            connection.abort()
        self._stop_timers()
        if store is not None:
            await self._close_store(store, farewell)

    def _farewell(self, limits: Limits) -> CloseReason:
        """Return the close reason for one client, with jitter in its retry time."""
        retry_s = limits.retry_s + self._random() * limits.reconnect_spread_s
        return CloseReason(CloseCause.STOPPING, "the server is going away", retry_s)

    async def _close_ports(self, serves: str) -> None:
        """Close the listeners with this value of ``serves``."""
        for port in self._ports:
            if port.listener.serves != serves:
                continue
            if not await self._within(_CLOSE_PORT_S, Deferred.fromCoroutine(port.close())):
                _log.error("could not stop listening at {url}", url=port.url)

    async def _drains(self, deadline_s: float) -> bool:
        """Wait until the connections have ended; return False if some are open at `deadline_s`, or if hurried."""
        self._awaited = self._parts.site.connections.ended()
        if self._is_hurried:
            self._awaited.cancel()
        return await self._within(max(0, deadline_s - self._reactor.seconds()), self._awaited)

    def _abort_connections(self) -> None:
        connections = self._parts.site.connections
        why = "pushd was told to stop again" if self._is_hurried else "they did not drain in time"
        _log.warn("aborting {count} connections: {why}", count=len(connections), why=why)
        for connection in connections:
            connection.abort()

    async def _close_store(self, store: StoreParts, farewell: Callable[[], CloseReason]) -> None:
        """Write pending events and close the store; abandon it if the disk does not respond in time."""
        deadline_s = self._reactor.seconds() + _CLOSE_STORE_S
        is_closed = await self._within(_CLOSE_STORE_S, store.journal.finish())
        _refuse_more(store, farewell())
        if is_closed:
            left_s = deadline_s - self._reactor.seconds()
            is_closed = await self._within(max(0, left_s), store.worker(store.store.close))
        if is_closed:
            store.worker.stop()
            _log.info("the store is closed")
        else:
            _log.error(
                "the store did not answer for {timeout_s} s, and is left as if pushd had been killed: what was "
                "acknowledged is in it",
                timeout_s=_CLOSE_STORE_S,
            )

    async def _within(self, timeout_s: float, waiting: Deferred[T]) -> bool:
        """Wait for `waiting`, for `timeout_s` at most; return whether it finished in time."""
        try:
            await waiting.addTimeout(timeout_s, self._reactor)
        except (NotInTime, CancelledError):
            return False
        return True


def _refuse_more(store: StoreParts, reason: CloseReason) -> None:
    """Reject further events, such as those whose authorization webhook is still pending."""
    store.journal.refuse(Unavailable(reason.text, retry_s=reason.retry_s, code="shutting_down"))
