"""Authorization webhooks: ask the application whether a client may connect, subscribe or publish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from twisted.logger import Logger

from pushd.auth.webhooks.answers import (
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
from pushd.auth.webhooks.breaker import Breaker
from pushd.auth.webhooks.payloads import connect_question, publish_question, shown, subscribe_question
from pushd.bus import ClientInfo, Draft, Identity, Shares, owner_of
from pushd.config import Hooks
from pushd.errors import Refused, Unavailable

__all__ = ["WebhookAuthorizer", "new_questions"]

_RETRY_S = 1.0
"""The ``Retry-After`` of a client over the limit of pending webhooks, in seconds: responses take less."""

T = TypeVar("T")

_log = Logger()


def new_questions(most: int, share_percent: int) -> Shares:
    """Return the limit of pending authorization webhooks, in total and for each owner."""
    return Shares("questions to the application", "[hooks] questions", most, share_percent, _RETRY_S)


class WebhookAuthorizer:
    """Posts authorization webhooks, and applies ``[hooks] when_down`` while the application does not respond."""

    def __init__(
        self,
        hooks: Hooks,
        post: Post,
        *,
        max_event_bytes: int,
        seconds: Callable[[], float],
        now: Callable[[], float],
        new_id: Callable[[], str],
        questions: Shares,
        outcomes: Counter[tuple[str, str]] | None = None,
    ) -> None:
        """Post to the URLs of `hooks` with `post`, which applies the timeout.

        `seconds` is a monotonic clock, `now` returns the time in seconds since 1970, and `new_id` an id for each
        webhook, without a full stop. `questions` limits the pending webhooks, in total and for each owner.

        `outcomes` counts by option: ``allowed``, ``denied``, ``failed`` without a valid response, and ``unasked``
        without a request, if the circuit breaker is open or too many are pending. A cancelled one has no outcome.
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
        self._questions = questions
        self._is_crowded = False
        self._outcomes = Counter[tuple[str, str]]() if outcomes is None else outcomes

    @property
    def asks_connect(self) -> bool:
        """Whether the application is asked before a subscriber connects."""
        return self._hooks.before_connect is not None

    @property
    def asks_subscribe(self) -> bool:
        """Whether the application is asked before a client subscribes to a channel."""
        return self._hooks.before_subscribe is not None

    @property
    def asks_publish(self) -> bool:
        """Whether the application is asked before an event is published."""
        return self._hooks.before_publish is not None

    async def before_connect(self, caller: ClientInfo) -> Identity:
        """Ask whether `caller` may connect; return its identity from now on, or raise `Refused`."""
        identity = caller.identity

        def read(answer: Answer) -> Identity:
            return changed_identity(identity, read_answer(answer, CONNECT), self._now())

        return await self._ask("before_connect", caller, connect_question(caller), read, identity)

    async def before_subscribe(self, caller: ClientInfo, channel: str, since: str) -> None:
        """Ask whether `caller` may subscribe to the channel or pattern `channel`; raise `Refused` if not."""

        def read(answer: Answer) -> None:
            read_answer(answer, SUBSCRIBE)

        await self._ask("before_subscribe", caller, subscribe_question(caller, channel, since), read, None)

    async def before_publish(self, caller: ClientInfo, draft: Draft) -> Draft:
        """Ask whether `caller` may publish `draft`; return the event to publish, or raise `Refused`."""

        def read(answer: Answer) -> Draft:
            return changed_draft(draft, read_answer(answer, PUBLISH), self._max_event_bytes)

        return await self._ask("before_publish", caller, publish_question(caller, draft), read, draft)

    async def _ask(
        self, hook: str, caller: ClientInfo, question: bytes, read: Callable[[Answer], T], unchanged: T
    ) -> T:
        """Post one webhook about `caller` to the URL of the option `hook`.

        Return the response as parsed by `read`, or `unchanged` if the webhook is not set or is allowed unasked.
        """
        url: str | None = getattr(self._hooks, hook)
        if url is None:
            return unchanged
        breaker, owner = self._breakers[url], owner_of(caller)
        try:
            self._take(owner)
        except Refused:
            self._outcomes[hook, "unasked"] += 1
            if not breaker.is_open:  # else when_down = allow would let a flood bypass the webhook
                raise
            return self._without(breaker, unchanged)
        try:
            permit = breaker.permit()
            if permit is None:
                self._outcomes[hook, "unasked"] += 1
                return self._without(breaker, unchanged)
            return await self._answer(hook, permit, question, read, unchanged)
        finally:
            self._questions.give_back(owner)

    async def _answer(
        self, hook: str, permit: int, question: bytes, read: Callable[[Answer], T], unchanged: T
    ) -> T:
        """Post a webhook within the limit, with a `permit` of the circuit breaker."""
        url: str = getattr(self._hooks, hook)
        breaker = self._breakers[url]
        try:
            outcome = read(await self._post(url, self._new_id(), question))
        except Refused:
            self._outcomes[hook, "denied"] += 1
            self._answered(breaker, permit, url)
            raise
        except NoAnswer as error:
            self._outcomes[hook, "failed"] += 1
            _log.warn("no answer from the hook {url}: {why}", url=shown(url), why=str(error))
            if breaker.failed(permit):
                self._log_open(url)
            return self._without(breaker, unchanged)
        finally:
            breaker.abandoned(permit)  # no effect unless the request was cancelled
        self._outcomes[hook, "allowed"] += 1
        self._answered(breaker, permit, url)
        return outcome

    def _take(self, owner: str | None) -> None:
        """Count one more pending webhook, or raise `Refused`; log once when the total limit is reached."""
        questions = self._questions
        if questions.used < questions.most // 2:
            self._is_crowded = False
        try:
            questions.take(owner)
        except Unavailable:
            if not self._is_crowded:
                _log.warn("{count} questions wait for the application; no more are asked", count=questions.used)
            self._is_crowded = True
            raise

    def _without(self, breaker: Breaker, unchanged: T) -> T:
        """Return `unchanged` with ``when_down = allow``, else raise `Unavailable`."""
        if self._hooks.when_down == "allow":
            return unchanged
        retry_s = max(1.0, breaker.rest_s or self._hooks.breaker_pause_s)
        raise Unavailable(
            "the application that decides on this does not answer; try again later",
            retry_s=retry_s,
            code="hook_down",
        )

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
