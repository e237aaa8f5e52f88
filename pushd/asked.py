"""The publisher that asks first: the application may refuse each event of a client, or change it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore, gatherResults
from twisted.logger import Logger

from pushd.caller import Caller
from pushd.errors import Refused, TooMany, Unavailable
from pushd.event import Draft
from pushd.publisher import Deleted, Outcome, Publisher

__all__ = ["Asked", "AskingToPublish"]

_log = Logger()

_AT_ONCE = 10
"""About how many events of one client the application is asked at once."""

_MAX_WAITING = 1000
"""How many events of one client may wait for those before them."""

_MAX_WAITING_BYTES = 4 * 1024 * 1024
"""How much their data may be."""


class AskingToPublish(Protocol):
    """What asks the application: `pushd.hooks.asking.Asking`."""

    @property
    def asks_publish(self) -> bool:
        """Whether it is asked about each event."""

    async def before_publish(self, caller: Caller, draft: Draft) -> Draft:
        """Answer what is published; raise `Refused` if nothing is."""


class _Queue:
    """What one client wants to publish: its events are asked about together, and published in order."""

    __slots__ = ("asking", "count", "size", "turn")

    def __init__(self) -> None:
        self.asking = DeferredSemaphore(_AT_ONCE)
        """What lets so many questions be asked."""
        self.turn = DeferredLock()
        """Who may publish next."""
        self.count = 0
        """How many events wait, and how many requests that have none."""
        self.size = 0
        """How many bytes their data are."""


class Asked:
    """A `pushd.publisher.Publisher` that passes on what the application allows, in the order of each client."""

    def __init__(self, publisher: Publisher, asking: AskingToPublish) -> None:
        self._publisher = publisher
        self._asking = asking
        self._queues: dict[Caller, _Queue] = {}

    def publish(self, draft: Draft, caller: Caller, done: Callable[[Outcome], None]) -> None:
        """Publish an event and tell `done`, when the application has answered."""
        self.publish_all([draft], caller, lambda outcomes: done(outcomes[0]))

    def publish_all(self, drafts: Sequence[Draft], caller: Caller, done: Callable[[list[Outcome]], None]) -> None:
        """Publish events and tell `done`, when the application has answered."""
        queue = self._queues.setdefault(caller, _Queue())
        count, size = max(1, len(drafts)), sum(len(draft.data) for draft in drafts)
        if queue.count and (queue.count + count > _MAX_WAITING or queue.size + size > _MAX_WAITING_BYTES):
            too_many = TooMany("too many events wait for the application; wait for the answers", retry_s=1)
            done([too_many] * len(drafts))
            return
        queue.count += count
        queue.size += size

        def end(result: object) -> object:
            queue.count -= count
            queue.size -= size
            if not queue.count:
                self._queues.pop(caller, None)
            return result

        waiting = Deferred.fromCoroutine(self._publish(queue, drafts, caller, done))
        waiting.addBoth(end).addErrback(
            lambda failure: _log.failure("a fault in pushd while it published", failure)
        )

    async def _publish(
        self, queue: _Queue, drafts: Sequence[Draft], caller: Caller, done: Callable[[list[Outcome]], None]
    ) -> None:
        turn = queue.turn.acquire()  # after those who came before
        asked = [Deferred.fromCoroutine(self._ask(queue, draft, caller)) for draft in drafts]
        answers = await gatherResults(asked)
        await turn
        try:
            self._publish_allowed(answers, caller, done)
        finally:
            queue.turn.release()

    def _publish_allowed(
        self, answers: Sequence[Draft | Refused], caller: Caller, done: Callable[[list[Outcome]], None]
    ) -> None:
        allowed = [answer for answer in answers if isinstance(answer, Draft)]

        def published(outcomes: list[Outcome]) -> None:
            following = iter(outcomes)
            done([answer if isinstance(answer, Refused) else next(following) for answer in answers])

        self._publisher.publish_all(allowed, caller, published)

    async def _ask(self, queue: _Queue, draft: Draft, caller: Caller) -> Draft | Refused:
        try:
            for name in draft.channels:
                caller.grants.check_publish(name)
            return await queue.asking.run(self._begin_to_ask, caller, draft)
        except Refused as refused:
            return refused
        except Exception:  # noqa: BLE001  the others of the batch have their answers
            _log.failure("a fault in pushd while it asked the application")
            return Unavailable("a fault in pushd; see its log")

    def _begin_to_ask(self, caller: Caller, draft: Draft) -> Deferred[Draft]:
        return Deferred.fromCoroutine(self._asking.before_publish(caller, draft))

    def delete(self, name: str, caller: Caller, done: Callable[[Deleted], None]) -> None:
        """Delete a channel and tell `done`."""
        self._publisher.delete(name, caller, done)
