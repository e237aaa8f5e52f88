"""Attendance: who comes and goes, for the application and for the channels that say so themselves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pushd.bus import DAEMON, ClientInfo, Draft, Outcome, Pattern, Publisher, shown
from pushd.errors import Refused
from pushd.wire import json_bytes

__all__ = ["Presence", "Telling"]

_log = Logger()


_EVENTS_PER_TURN = 200
"""How many joins and leaves are published before the reactor has its turn."""


class Telling(Protocol):
    """What tells the application: `pushd.auth.webhooks.notifier.WebhookNotifier`."""

    def connected(self, caller: ClientInfo) -> None:
        """Tell that a subscriber was let in."""

    def disconnected(self, caller: ClientInfo, reason: str) -> None:
        """Tell that it has gone."""

    def subscribed(self, caller: ClientInfo, channel: str) -> None:
        """Tell that it has subscribed to a channel or pattern."""

    def unsubscribed(self, caller: ClientInfo, channel: str) -> None:
        """Tell that it does so no more."""

    def occupied(self, channel: str, by: ClientInfo | None = None) -> None:
        """Tell that a channel has its first subscriber, which is `by`."""

    def vacated(self, channel: str, by: ClientInfo | None = None) -> None:
        """Tell that it has lost its last, which was `by`."""

    async def close(self, timeout_s: float) -> None:
        """Tell what waits, within `timeout_s`."""


class Presence:
    """Tells the application, and publishes joins and leaves: a `SubscriptionObserver`, and what sessions tell."""

    def __init__(
        self,
        publisher: Publisher,
        call_later: Callable[[float, Callable[[], None]], object],
        presence: Callable[[str], str],
        telling: Telling | None = None,
    ) -> None:
        """Publish with `publisher`, at the end of the turn, to channels whose `presence` is ``events``."""
        self._publisher = publisher
        self._call_later = call_later
        self._presence = presence
        self._telling = telling
        self._waiting: dict[tuple[ClientInfo, str], Draft] = {}
        self._is_due = False
        self._is_refused = False
        self._is_stopping = False

    def stop(self) -> None:
        """Publish nothing any more: everybody leaves at once."""
        self._is_stopping = True
        self._waiting.clear()

    def replace(self, telling: Telling | None) -> Telling | None:
        """Have `telling` tell the application from now on; return what did before."""
        before, self._telling = self._telling, telling
        return before

    async def close(self, timeout_s: float) -> None:
        """Tell what waits, within `timeout_s`."""
        if self._telling is None:
            return
        turn: Deferred[None] = Deferred()
        self._call_later(0, lambda: turn.callback(None))
        await turn  # in which the sessions of the last connections have ended, too
        await self._telling.close(timeout_s)

    def connected(self, caller: ClientInfo) -> None:
        """Learn that a subscriber was let in."""
        if self._telling is not None:
            self._telling.connected(caller)

    def disconnected(self, caller: ClientInfo, reason: str) -> None:
        """Learn that it has gone, and why."""
        if self._telling is not None:
            self._telling.disconnected(caller, reason)

    def entered(self, caller: ClientInfo, pattern: Pattern, count: int) -> None:
        """Learn that a subscriber has come to a channel or pattern."""
        if self._telling is not None:
            self._telling.subscribed(caller, pattern.text)
            if count == 1:
                self._telling.occupied(pattern.text, caller)
        self._publish("pushd.join", caller, pattern)

    def left(self, caller: ClientInfo, pattern: Pattern, count: int) -> None:
        """Learn that it has left."""
        if self._telling is not None:
            self._telling.unsubscribed(caller, pattern.text)
            if pattern.is_name and not count:
                self._telling.vacated(pattern.text, caller)
        self._publish("pushd.leave", caller, pattern)

    def _publish(self, kind: str, caller: ClientInfo, pattern: Pattern) -> None:
        """Publish later: the bus is at it, and whoever has come is to be told first that it has.

        Who goes before it was published that it came is not spoken of, nor who comes back before it was that it
        went: so what waits is never more than there are subscriptions. Who polls comes and goes all the time, and
        each of these events would answer the poll.
        """
        if self._is_stopping or not pattern.is_name or caller.transport == "poll":
            return
        if self._presence(pattern.text) != "events":
            return
        key = (caller, pattern.text)
        if self._waiting.pop(key, None) is None:
            self._waiting[key] = Draft((pattern.text,), json_bytes(shown(caller)), True, kind)
            self._publish_later()

    def _publish_later(self) -> None:
        if self._waiting and not self._is_due:
            self._is_due = True
            self._call_later(0, self._publish_some)

    def _publish_some(self) -> None:
        keys = list(islice(self._waiting, _EVENTS_PER_TURN))
        drafts = [self._waiting.pop(key) for key in keys]
        if drafts:
            self._publisher.publish_all(drafts, DAEMON, self._published)
        else:
            self._is_due = False

    def _published(self, outcomes: list[Outcome]) -> None:
        """Go on, and say once that something is refused."""
        self._is_due = False
        self._publish_later()
        refused = next((outcome for outcome in outcomes if isinstance(outcome, Refused)), None)
        if refused is not None and not self._is_refused:
            _log.warn("joins and leaves are not published: {detail}", detail=refused.detail)
        elif refused is None and self._is_refused:
            _log.info("joins and leaves are published again")
        self._is_refused = refused is not None
