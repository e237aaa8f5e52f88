"""Asking the application whether a client may do something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from twisted.logger import Logger

from pushd.access import Identity
from pushd.caller import Caller
from pushd.config.settings import Hooks
from pushd.errors import Refused, Unavailable
from pushd.event import Draft
from pushd.hooks.answers import (
    CONNECT,
    PUBLISH,
    SUBSCRIBE,
    Answer,
    NoAnswer,
    Post,
    changed_draft,
    changed_identity,
    read_answer,
)
from pushd.hooks.breaker import Breaker
from pushd.hooks.words import connect_question, publish_question, shown, subscribe_question

__all__ = ["MAX_IN_FLIGHT", "Asking"]

MAX_IN_FLIGHT = 1000
"""How many questions may wait for their answers."""

T = TypeVar("T")

_log = Logger()


class Asking:
    """Asks the application, and decides for it while it does not answer."""

    def __init__(
        self,
        hooks: Hooks,
        post: Post,
        *,
        max_event_bytes: int,
        seconds: Callable[[], float],
        now: Callable[[], float],
        new_id: Callable[[], str],
        outcomes: Counter[tuple[str, str]] | None = None,
    ) -> None:
        """Ask at the URLs of `hooks`, by `post`, which sees to it that an answer does not take too long.

        `seconds` is a clock that only goes forward, `now` answers the time in seconds since 1970, and `new_id` an
        id for each question, without a full stop. What comes of them is counted in `outcomes` too, by option.
        """
        self._hooks = hooks
        self._post = post
        self._max_event_bytes = max_event_bytes
        self._now = now
        self._new_id = new_id
        self._breakers = {
            url: Breaker(hooks.breaker_failures, hooks.breaker_pause_s, seconds)
            for url in (hooks.before_connect, hooks.before_subscribe, hooks.before_publish)
            if url is not None
        }
        self._in_flight = 0
        self._is_crowded = False
        self._outcomes = Counter[tuple[str, str]]() if outcomes is None else outcomes
        self.asked = 0
        """How many questions were asked: what came of them is allowed, denied or failed."""
        self.allowed = 0
        """How many of them the application allowed."""
        self.denied = 0
        """How many of them it did not allow."""
        self.failed = 0
        """How many of them had no answer, or a wrong one."""
        self.unasked = 0
        """How many questions were not asked, because the application failed before, or too many waited."""

    @property
    def asks_connect(self) -> bool:
        """Whether the application is asked before a subscriber is connected."""
        return self._hooks.before_connect is not None

    @property
    def asks_subscribe(self) -> bool:
        """Whether it is asked before one is subscribed to a channel."""
        return self._hooks.before_subscribe is not None

    @property
    def asks_publish(self) -> bool:
        """Whether it is asked before an event is published."""
        return self._hooks.before_publish is not None

    async def before_connect(self, caller: Caller) -> Identity:
        """Ask whether `caller` may connect; answer who it is from now on, or raise `Refused`."""
        identity = caller.identity

        def read(answer: Answer) -> Identity:
            return changed_identity(identity, read_answer(answer, CONNECT), self._now())

        return await self._ask("before_connect", connect_question(caller), read, identity)

    async def before_subscribe(self, caller: Caller, channel: str, since: str) -> None:
        """Ask whether `caller` may subscribe to the channel or pattern `channel`; raise `Refused` if not."""

        def read(answer: Answer) -> None:
            read_answer(answer, SUBSCRIBE)

        await self._ask("before_subscribe", subscribe_question(caller, channel, since), read, None)

    async def before_publish(self, caller: Caller, draft: Draft) -> Draft:
        """Ask whether `caller` may publish `draft`; answer what is published instead, or raise `Refused`."""

        def read(answer: Answer) -> Draft:
            return changed_draft(draft, read_answer(answer, PUBLISH), self._max_event_bytes)

        return await self._ask("before_publish", publish_question(caller, draft), read, draft)

    async def _ask(self, hook: str, question: bytes, read: Callable[[Answer], T], unchanged: T) -> T:
        """Ask one question, for the option `hook`.

        Answer what `read` makes of the answer, or `unchanged` if that is how it is to be.
        """
        url: str | None = getattr(self._hooks, hook)
        if url is None:
            return unchanged
        breaker = self._breakers[url]
        permit = breaker.permit() if self._has_room() else None
        if permit is None:
            self.unasked += 1
            self._outcomes[hook, "unasked"] += 1
            if not breaker.is_open:  # or whoever asks for much would be allowed all of it
                raise Unavailable("too many wait for the application that decides on this", retry_s=1.0)
            return self._without(breaker, unchanged)
        self.asked += 1
        try:
            outcome = read(await self._sent(url, question))
        except Refused:
            self.denied += 1
            self._outcomes[hook, "denied"] += 1
            self._answered(breaker, permit, url)
            raise
        except NoAnswer as error:
            self.failed += 1
            self._outcomes[hook, "failed"] += 1
            _log.warn("no answer from the hook {url}: {why}", url=shown(url), why=str(error))
            if breaker.failed(permit):
                self._log_open(url)
            return self._without(breaker, unchanged)
        finally:
            breaker.abandoned(permit)  # changes nothing unless it was
        self.allowed += 1
        self._outcomes[hook, "allowed"] += 1
        self._answered(breaker, permit, url)
        return outcome

    async def _sent(self, url: str, question: bytes) -> Answer:
        self._in_flight += 1
        try:
            return await self._post(url, self._new_id(), question)
        finally:
            self._in_flight -= 1

    def _has_room(self) -> bool:
        """Tell whether one more question may be asked; say in the log when that begins not to be so."""
        if self._in_flight >= MAX_IN_FLIGHT:
            if not self._is_crowded:
                _log.warn("{count} questions wait for the application; no more are asked", count=self._in_flight)
            self._is_crowded = True
        elif self._in_flight < MAX_IN_FLIGHT // 2:
            self._is_crowded = False
        return self._in_flight < MAX_IN_FLIGHT

    def _without(self, breaker: Breaker, unchanged: T) -> T:
        """Decide for the application."""
        if self._hooks.when_down == "allow":
            return unchanged
        retry_s = max(1.0, breaker.rest_s or self._hooks.breaker_pause_s)
        raise Unavailable("the application that decides on this does not answer; try again later", retry_s=retry_s)

    def _answered(self, breaker: Breaker, permit: int, url: str) -> None:
        if breaker.succeeded(permit):
            _log.info("the hook {url} answers again", url=shown(url))

    def _log_open(self, url: str) -> None:
        _log.warn(
            "the hook {url} failed {count} times in a row; until it answers again, {choice} is its answer",
            url=shown(url),
            count=self._hooks.breaker_failures,
            choice=self._hooks.when_down,
        )
