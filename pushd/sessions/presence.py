"""Presence: joins and leaves, as notifications to the application and as events on the channels."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pushd.auth import WebhookNotifier
from pushd.bus import DAEMON, ClientInfo, Draft, Outcome, Pattern, Publisher, shown
from pushd.errors import Refused
from pushd.wire import json_bytes

__all__ = ["Presence"]

_log = Logger()


_EVENTS_PER_TURN = 200
"""Maximum number of joins and leaves published in one turn of the reactor."""


class Presence:
    """Sends notifications and publishes joins and leaves: a `pushd.bus.SubscriptionObserver`."""

    def __init__(
        self,
        publisher: Publisher,
        call_later: Callable[[float, Callable[[], None]], object],
        presence: Callable[[str], str],
        notifier: WebhookNotifier | None = None,
    ) -> None:
        """Publish with `publisher`, at the end of the turn, to channels whose `presence` is ``events``."""
        self._publisher = publisher
        self._call_later = call_later
        self._presence = presence
        self.notifier = notifier
        """Sends notifications to the application, if it wants any."""
        self._waiting: dict[tuple[ClientInfo, str], Draft] = {}
        self._is_due = False
        self._is_refused = False
        self._is_stopping = False

    def stop(self) -> None:
        """Stop publishing: on shutdown all subscribers leave at once."""
        self._is_stopping = True
        self._waiting.clear()

    async def close(self, timeout_s: float) -> None:
        """Send the waiting notifications, within `timeout_s`."""
        if self.notifier is None:
            return
        turn: Deferred[None] = Deferred()
        self._call_later(0, lambda: turn.callback(None))
        await turn  # until the sessions of the last connections have ended, too
        await self.notifier.close(timeout_s)

    def connected(self, caller: ClientInfo) -> None:
        """Called when subscriber `caller` was admitted."""
        if self.notifier is not None:
            self.notifier.connected(caller)

    def disconnected(self, caller: ClientInfo, reason: str) -> None:
        """Called when subscriber `caller` has disconnected, for `reason`."""
        if self.notifier is not None:
            self.notifier.disconnected(caller, reason)

    def entered(self, caller: ClientInfo, pattern: Pattern, count: int) -> None:
        """Called when `caller` subscribes to a channel or pattern, which then has `count` subscribers."""
        if self.notifier is not None:
            self.notifier.subscribed(caller, pattern.text)
            if count == 1:
                self.notifier.occupied(pattern.text, caller)
        self._publish("pushd.join", caller, pattern)

    def left(self, caller: ClientInfo, pattern: Pattern, count: int) -> None:
        """Called when `caller` unsubscribes; `count` subscribers remain."""
        if self.notifier is not None:
            self.notifier.unsubscribed(caller, pattern.text)
            if pattern.is_name and not count:
                self.notifier.vacated(pattern.text, caller)
        self._publish("pushd.leave", caller, pattern)

    def _publish(self, kind: str, caller: ClientInfo, pattern: Pattern) -> None:
        """Publish later: the bus is still at work, and the new subscriber must get its reply first.

        A join and a leave that both wait cancel each other, in either order, so no more events wait than there are
        subscriptions. Long polls are left out: they join and leave all the time, and each event would answer the
        poll.
        """
        if self._is_stopping or not pattern.is_name or caller.transport.is_polling:
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
        """Publish the next events; log once that events are refused."""
        self._is_due = False
        self._publish_later()
        refused = next((outcome for outcome in outcomes if isinstance(outcome, Refused)), None)
        if refused is not None and not self._is_refused:
            _log.warn("joins and leaves are not published: {detail}", detail=refused.detail)
        elif refused is None and self._is_refused:
            _log.info("joins and leaves are published again")
        self._is_refused = refused is not None
