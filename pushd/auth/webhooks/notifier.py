"""Telling the application what has happened, in order."""

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
"""How many events go into one request, at most."""

MAX_BATCH_BYTES = 2**16
"""How many bytes of JSON they are, at most, unless a single event has more."""

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_MAYBE_LATER = frozenset({408, 409, 425, 429})
"""Of the statuses that blame the request, those that may be others the next time."""

_log = Logger()


@dataclass(slots=True)
class _Batch:
    """What is told in one request, the same at every try."""

    id: str
    """What the application knows it by."""

    body: bytes
    """The request."""

    count: int
    """How many events are in it."""

    dropped: int
    """How many it says were dropped before them."""

    deadline_s: float
    """When it is given up."""


class WebhookNotifier:
    """Tells the application, one request at a time, again if it fails, as long as it is worth it."""

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
        """Tell at ``[hooks] after``, if there is one, by `post`, which sees to it that nothing takes too long.

        `call_later` and `seconds` are the reactor's, `now` answers the time in seconds since 1970, and `random` a
        number from 0 to 1. `token` is what the ids begin with: no other daemon has it, nor this one after a
        restart, and there is no full stop in it. Each owner has `share_percent` of the queue. What comes of events
        is counted in `outcomes` too, by option.
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
        self._unsaid = 0  # how many were dropped since the application was told how many
        self._pauses = 0  # how many there were in a row
        self._start: Any = None  # the call that is to start `_running`
        self._running: Deferred[None] | None = None
        self._resting: Deferred[None] | None = None
        self._ended: Deferred[None] | None = None
        self._is_closed = False
        self._outcomes = Counter[tuple[str, str]]() if outcomes is None else outcomes
        self.told = 0
        """How many events the application was told."""
        self.dropped = 0
        """How many it will not be told."""
        self.cancelled = 0
        """How many it need not be told, because the opposite has happened since."""

    def limit(self, share_percent: int) -> None:
        """Let `share_percent` of the events wait of each owner, from now on."""
        self._queue.limit(self._max_waiting, share_percent)

    @property
    def waiting(self) -> int:
        """How many events it is still to be told."""
        return len(self._queue) + (0 if self._batch is None else self._batch.count)

    # What happens

    def connected(self, caller: ClientInfo) -> None:
        """Tell that `caller` was let in."""
        self._tell("connect", caller, caller)

    def disconnected(self, caller: ClientInfo, reason: str) -> None:
        """Tell that `caller` is gone, and why."""
        self._tell("disconnect", caller, caller, reason=reason)

    def subscribed(self, caller: ClientInfo, channel: str) -> None:
        """Tell that `caller` is subscribed to a channel or pattern."""
        self._tell("subscribe", caller, caller, ("subscribed", caller.number, channel), channel=channel)

    def unsubscribed(self, caller: ClientInfo, channel: str) -> None:
        """Tell that it is no more."""
        self._tell("unsubscribe", caller, caller, ("subscribed", caller.number, channel), channel=channel)

    def occupied(self, channel: str, by: ClientInfo | None = None) -> None:
        """Tell that a channel has its first subscriber, which is `by`."""
        self._tell("occupied", by, None, ("occupied", channel), channel=channel)

    def vacated(self, channel: str, by: ClientInfo | None = None) -> None:
        """Tell that the last one is gone, which was `by`."""
        self._tell("vacated", by, None, ("occupied", channel), channel=channel)

    def _tell(
        self, event: str, by: ClientInfo | None, about: ClientInfo | None, pair: Hashable = None, **more: str
    ) -> None:
        """Have something told that was done `by` a client; it is `about` one, or not.

        An event and its opposite, which have the same `pair`, cancel each other if neither would be in the next
        request: they change nothing of what the application knows. So a client that goes to and fro while the
        application is slow does not fill the queue.
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

    # Telling

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
        """Tell until there is nothing left."""
        while self.waiting:
            if self._batch is None:
                self._batch = self._next_batch()
            pause_s = await self._try(self._batch)
            if pause_s > 0:
                await self._rest(pause_s)

    def _next_batch(self) -> _Batch:
        """Take what comes next, with the number of those that were dropped before."""
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
        """Tell a batch once; return how long to rest before this one is told again, or the next one."""
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
        """Drop a batch; what it says was dropped before is still to be said."""
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

    # The end

    async def close(self, timeout_s: float) -> None:
        """Tell what is still to be told, within `timeout_s`; say in the log how much was not."""
        if self._start is not None:
            self._start.cancel()
            self._run()
        if self._running is not None:
            self._ended = Deferred()
            self._pauses = 0
            if self._resting is not None:
                self._resting.cancel()
            call = self._call_later(timeout_s, self._stop)
            await self._ended
            if call.active():
                call.cancel()
        self._is_closed = True
        if self.waiting:
            _log.warn("the hook {url} was not told {count} events", url=self._shown, count=self.waiting)
            self._count_dropped(self.waiting)
            self._queue.clear()
            self._batch = None

    def _stop(self) -> None:
        self._is_closed = True
        if self._running is not None:
            self._running.cancel()
