"""Notifications: webhooks that inform the application of events, in order and with retries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.auth.webhooks.answers import NoAnswer, Post
from pushd.auth.webhooks.notification_queue import NotificationQueue
from pushd.auth.webhooks.payloads import notice, shown
from pushd.bus import ClientInfo, owner_of
from pushd.config import Hooks

__all__ = ["MAX_BATCH", "MAX_BATCH_BYTES", "WebhookNotifier"]

MAX_BATCH = 100
"""Maximum number of events in one request."""

MAX_BATCH_BYTES = 2**16
"""Maximum size of these events in JSON, in bytes, unless a single event is larger."""

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_MAYBE_LATER = frozenset({408, 409, 425, 429})
"""The statuses of class 4xx that are retried."""

_log = Logger()


@dataclass(slots=True)
class _Batch:
    """One request, identical at every retry."""

    id: str
    """The message id, by which the application recognizes a retry."""

    body: bytes
    """The body of the request."""

    count: int
    """Number of events in the batch."""

    dropped: int
    """Number of earlier dropped events that the batch reports."""

    deadline_s: float
    """When to give up, on the clock `seconds`."""


class WebhookNotifier:
    """Posts notifications, one request at a time; failed requests are retried with backoff and jitter.

    ==========  ===========================  ====================================================
    State       Attributes set               Next state
    ==========  ===========================  ====================================================
    idle        none                         scheduled, by an event
    scheduled   ``_start``                   delivering, by the delayed call
    delivering  ``_running``                 idle if the queue is empty, pausing after a failure
    pausing     ``_running``, ``_resting``   delivering, after the pause
    closing     ``_ended`` as well           closed if the queue is empty or the timeout expires
    closed      ``_is_closed``               none; further events are dropped
    ==========  ===========================  ====================================================
    """

    def __init__(
        self,
        hooks: Hooks,
        post: Post,
        *,
        call_later: Callable[..., Any],
        seconds: Callable[[], float],
        now: Callable[[], float],
        random: Callable[[], float],
        token: str,
        share_percent: int = 100,
        outcomes: Counter[tuple[str, str]] | None = None,
    ) -> None:
        """Post to ``[hooks] after``, if it is set, with `post`, which applies the timeout.

        `call_later` and `seconds` are the reactor's, `now` returns the time in seconds since 1970, and `random` a
        number from 0 to 1. `token` is the prefix of the ids: unique for each start of each daemon, and without a
        full stop. Each owner has `share_percent` of the queue. Outcomes are also counted in `outcomes`, by option.
        """
        self._url = hooks.after or ""
        self._events = hooks.after_events if hooks.after is not None else frozenset[str]()
        self._max_waiting = hooks.queue
        self._retry_for_s = hooks.retry_for_s
        self._post = post
        self._call_later, self._seconds = call_later, seconds
        self._now, self._random = now, random
        self._token = token
        self._made = 0
        self._queue = NotificationQueue(hooks.queue, share_percent)
        self._batch: _Batch | None = None
        self._unsaid = 0  # dropped events not yet reported to the application
        self._pauses = 0  # consecutive pauses, for the backoff
        self._start: Any = None  # the delayed call that starts `_running`
        self._running: Deferred[None] | None = None
        self._resting: Deferred[None] | None = None
        self._ended: Deferred[None] | None = None
        self._is_closed = False
        self._outcomes = Counter[tuple[str, str]]() if outcomes is None else outcomes
        self.told = 0
        """Number of events delivered to the application."""
        self.dropped = 0
        """Number of events dropped."""
        self.cancelled = 0
        """Number of events cancelled by their opposite before they were sent."""

    def limit(self, share_percent: int) -> None:
        """Set the share of the queue of each owner, in percent."""
        self._queue.limit(self._max_waiting, share_percent)

    @property
    def waiting(self) -> int:
        """Number of events not yet delivered."""
        return len(self._queue) + (0 if self._batch is None else self._batch.count)

    # Events

    def connected(self, caller: ClientInfo) -> None:
        """Called when `caller` connects."""
        self._tell("connect", caller, caller)

    def disconnected(self, caller: ClientInfo, reason: str) -> None:
        """Called when `caller` disconnects, with the reason."""
        self._tell("disconnect", caller, caller, reason=reason)

    def subscribed(self, caller: ClientInfo, channel: str) -> None:
        """Called when `caller` subscribes to a channel or pattern."""
        self._tell("subscribe", caller, caller, ("subscribed", caller.number, channel), channel=channel)

    def unsubscribed(self, caller: ClientInfo, channel: str) -> None:
        """Called when `caller` unsubscribes from a channel or pattern."""
        self._tell("unsubscribe", caller, caller, ("subscribed", caller.number, channel), channel=channel)

    def occupied(self, channel: str, by: ClientInfo | None = None) -> None:
        """Called when a channel gets its first subscriber, `by`."""
        self._tell("occupied", by, None, ("occupied", channel), channel=channel)

    def vacated(self, channel: str, by: ClientInfo | None = None) -> None:
        """Called when the last subscriber of a channel, `by`, leaves."""
        self._tell("vacated", by, None, ("occupied", channel), channel=channel)

    def _tell(
        self, event: str, by: ClientInfo | None, about: ClientInfo | None, pair: Hashable = None, **more: str
    ) -> None:
        """Queue an event caused `by` a client; `about` is the client that the event describes, if any.

        An event and its opposite have the same `pair`, and cancel each other if neither would be in the next
        request: the state known to the application stays the same. So a client that repeatedly subscribes and
        unsubscribes while the application is slow does not fill the queue.
        """
        if event not in self._events:
            return
        if self._is_closed:
            self._count_dropped(1)
            return
        if pair is not None and self._is_behind and self._queue.cancel(pair):
            self.cancelled += 2
            self._outcomes["after", "cancelled"] += 2
            return
        body = notice(event, self._new_id(), self._now(), about, **more)
        dropped = self._queue.add(body, None if by is None else owner_of(by), pair)
        if dropped:
            self._drop(dropped)
        self._run_soon(0)

    @property
    def _is_behind(self) -> bool:
        return self._batch is not None or len(self._queue) >= MAX_BATCH

    def _new_id(self) -> str:
        self._made += 1
        return f"{self._token}-{self._made}"

    def _drop(self, count: int) -> None:
        if not self._unsaid:
            _log.warn("the hook {url} is not told everything: [hooks] queue or retry_for is over", url=self._shown)
        self._count_dropped(count)
        self._unsaid += count

    def _count_dropped(self, count: int) -> None:
        self.dropped += count
        self._outcomes["after", "dropped"] += count

    @property
    def _shown(self) -> str:
        return shown(self._url)

    # Delivery

    def _run_soon(self, pause_s: float) -> None:
        if self._running is None and self._start is None:
            self._start = self._call_later(pause_s, self._run)

    def _run(self) -> None:
        self._start = None
        self._running = running = Deferred.fromCoroutine(self._tell_all())
        running.addErrback(self._has_failed).addBoth(self._has_ended)

    def _has_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            _log.failure("a fault in pushd while the hook {url} was told", failure, url=self._shown)

    def _has_ended(self, _: None) -> None:
        self._running = None
        if self._ended is not None:
            self._ended.callback(None)
        elif self.waiting:
            self._run_soon(_LONGEST_PAUSE_S)

    async def _tell_all(self) -> None:
        """Deliver batches until the queue is empty."""
        while self.waiting:
            if self._batch is None:
                self._batch = self._next_batch()
            pause_s = await self._try(self._batch)
            if pause_s > 0:
                await self._rest(pause_s)

    def _next_batch(self) -> _Batch:
        """Take the next events from the queue, after a notice with the number dropped before them."""
        dropped, self._unsaid = self._unsaid, 0
        parts, size = list[bytes](), 0
        if dropped:
            parts.append(notice("dropped", self._new_id(), self._now(), None, count=dropped))
        count = 0
        while self._queue and len(parts) < MAX_BATCH:
            size += self._queue.next_size + 1
            if count and size > MAX_BATCH_BYTES:
                break
            parts.append(self._queue.take())
            count += 1
        body = b'{"events":[' + b",".join(parts) + b"]}"
        return _Batch(self._new_id(), body, count, dropped, self._seconds() + self._retry_for_s)

    async def _try(self, batch: _Batch) -> float:
        """Post a batch once; return the pause before its retry or before the next batch, in seconds."""
        retry_after_s, may_help = 0.0, True
        try:
            answer = await self._post(self._url, batch.id, batch.body)
        except NoAnswer as error:
            why = str(error)
        else:
            if 200 <= answer.status < 300:
                self._has_told(batch)
                return 0
            why = f"the status is {answer.status}"
            may_help = not 400 <= answer.status < 500 or answer.status in _MAYBE_LATER
            retry_after_s = min(answer.retry_after_s or 0, max(self._retry_for_s, _LONGEST_PAUSE_S))
        if not self._pauses:
            _log.warn("the hook {url} could not be told: {why}; it is tried again", url=self._shown, why=why)
        left_s = batch.deadline_s - self._seconds()
        if not may_help or left_s <= retry_after_s:
            self._give_up(batch, why)
            left_s = _LONGEST_PAUSE_S
        longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self._pauses, 10))
        self._pauses += 1
        return retry_after_s or min(self._random() * longest_s, left_s)

    def _has_told(self, batch: _Batch) -> None:
        self._batch = None
        self.told += batch.count
        self._outcomes["after", "told"] += batch.count
        if self._pauses:
            _log.info("the hook {url} is told again", url=self._shown)
        self._pauses = 0

    def _give_up(self, batch: _Batch, why: str) -> None:
        """Drop a batch; the dropped events that it reported are reported by the next one."""
        self._batch = None
        _log.warn("dropped {count} events for the hook {url}: {why}", count=batch.count, url=self._shown, why=why)
        self._count_dropped(batch.count)
        self._unsaid += batch.count + batch.dropped

    async def _rest(self, pause_s: float) -> None:
        self._resting = Deferred(lambda resting: call.cancel())
        call = self._call_later(pause_s, self._resting.callback, None)
        try:
            await self._resting
        except CancelledError:
            if self._ended is None or self._is_closed:
                raise
        finally:
            self._resting = None

    # Shutdown

    async def close(self, timeout_s: float) -> None:
        """Deliver the queue within `timeout_s`; log the number of events not delivered."""
        if self._start is not None:
            self._start.cancel()
            self._run()
        running = self._running
        if running is not None:
            self._ended = Deferred()
            self._pauses = 0
            if self._resting is not None:
                self._resting.cancel()
            call = self._call_later(timeout_s, self._stop, running)
            await self._ended
            if call.active():
                call.cancel()
        self._is_closed = True
        if self.waiting:
            _log.warn("the hook {url} was not told {count} events", url=self._shown, count=self.waiting)
            self._count_dropped(self.waiting)
            self._queue.clear()
            self._batch = None

    def _stop(self, running: Deferred[None]) -> None:
        self._is_closed = True
        running.cancel()
