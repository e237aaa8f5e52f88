"""The publisher behind the ``before_publish`` webhook: the application may reject or change each event."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore, gatherResults
from twisted.logger import Logger

from pushd.auth.webhooks.authorizer import WebhookAuthorizer
from pushd.bus import ClientInfo, Deleted, Draft, Outcome, Publisher, Shares, owner_of
from pushd.errors import Refused, TooMany, Unavailable

__all__ = ["ApprovedPublisher", "Waiting"]

_log = Logger()

_AT_ONCE = 10
"""Maximum number of webhooks pending at once for one client."""

_MAX_WAITING = 1000
"""Maximum number of waiting events of one client; an event counts once for each of its channels."""

_MAX_WAITING_BYTES = 4 * 1024 * 1024
"""Maximum size of the data of these events, in bytes."""

_MOST_UNITS = 64 * 1024
"""Maximum of all clients together, in units: one for each event and for each KiB of its data."""

_RETRY_S = 1.0
"""The ``Retry-After`` of an event over the limit, in seconds: responses take less."""


class Waiting:
    """Limits of the events that wait for the application, and of the pending webhooks of each owner."""

    def __init__(self, share_percent: int, most_questions: int) -> None:
        """Set the share of each owner, in percent; see `limit`."""
        what = "room for events that wait for the application"
        self.units = Shares(what, "[hooks] before_publish", _MOST_UNITS, share_percent, _RETRY_S)
        """The units in use."""
        self._owners: dict[str, tuple[DeferredSemaphore, int]] = {}
        self.limit(share_percent, most_questions)

    def limit(self, share_percent: int, most_questions: int) -> None:
        """Set the share of each owner, in percent: of the units, and of half of `most_questions` pending webhooks.

        The other half is left for the owner's subscribers. Further events wait for their turn; none is rejected.
        """
        self.units.limit(_MOST_UNITS, share_percent)
        self._at_once = max(1, most_questions * share_percent // 200)

    def __len__(self) -> int:
        """Return the number of owners with waiting events."""
        return len(self._owners)

    def size_of(self, drafts: Sequence[Draft]) -> int:
        """Return the size of `drafts` in units. One request always fits if its owner has no waiting events."""
        size = sum(1 + len(draft.data) // 1024 for draft in drafts)
        return min(max(1, size), self.units.most_per_owner)

    def enter(self, owner: str | None, units: int) -> DeferredSemaphore:
        """Take `units`, or raise `Refused`; return the semaphore of the pending webhooks of `owner`."""
        self.units.take(owner, units)
        if owner is None:
            return DeferredSemaphore(_AT_ONCE)  # without an owner, only the limit of each client applies
        semaphore, count = self._owners.get(owner) or (DeferredSemaphore(self._at_once), 0)
        self._owners[owner] = semaphore, count + 1
        return semaphore

    def leave(self, owner: str | None, units: int) -> None:
        """Release the units taken by `enter`."""
        self.units.give_back(owner, units)
        if owner is not None:
            semaphore, count = self._owners.pop(owner)
            if count > 1:
                self._owners[owner] = semaphore, count - 1


class _Queue:
    """The waiting events of one client: authorized concurrently, published in order."""

    __slots__ = ("count", "semaphore", "size", "turn")

    def __init__(self) -> None:
        self.semaphore = DeferredSemaphore(_AT_ONCE)
        """Limits the concurrent webhooks of the client."""
        self.turn = DeferredLock()
        """Keeps the order of requests."""
        self.count = 0
        """Number of waiting events; a request without events counts as one."""
        self.size = 0
        """Size of the data of the waiting events, in bytes."""


class ApprovedPublisher:
    """A `pushd.bus.publisher.Publisher` that publishes allowed events, in the order of each client."""

    def __init__(
        self,
        publisher: Publisher,
        authorizer: WebhookAuthorizer,
        waiting: Waiting,
        refresh: Callable[[ClientInfo], None],
    ) -> None:
        """Ask with `authorizer`, and publish with `publisher`; `waiting` counts waiting events, across reloads.

        `refresh` updates the grants of a caller, and raises `Refused` if they have expired.
        """
        self._refresh = refresh
        self._publisher = publisher
        self._authorizer = authorizer
        self._waiting = waiting
        self._queues: dict[ClientInfo, _Queue] = {}

    def publish(self, draft: Draft, caller: ClientInfo, done: Callable[[Outcome], None]) -> None:
        """Publish an event once the application allows it; call `done` with the outcome."""
        self.publish_all([draft], caller, lambda outcomes: done(outcomes[0]))

    def publish_all(
        self, drafts: Sequence[Draft], caller: ClientInfo, done: Callable[[list[Outcome]], None]
    ) -> None:
        """Publish events once the application has decided on all; call `done` with the outcomes, in order."""
        queue = self._queues.get(caller) or _Queue()
        count = max(1, sum(len(draft.channels) for draft in drafts))
        size = sum(len(draft.data) for draft in drafts)
        owner, units = owner_of(caller), self._waiting.size_of(drafts)
        try:
            if queue.count and (queue.count + count > _MAX_WAITING or queue.size + size > _MAX_WAITING_BYTES):
                raise TooMany("too many events wait for the application; wait for the answers", retry_s=_RETRY_S)
            turns = self._waiting.enter(owner, units)
        except Refused as refused:
            done([refused] * len(drafts))
            return
        self._queues[caller] = queue
        queue.count += count
        queue.size += size

        def end(result: object) -> object:
            queue.count -= count
            queue.size -= size
            self._waiting.leave(owner, units)
            if not queue.count:
                self._queues.pop(caller, None)
            return result

        waiting = Deferred.fromCoroutine(self._publish(queue, turns, drafts, caller, done))
        waiting.addBoth(end).addErrback(
            lambda failure: _log.failure("a fault in pushd while it published", failure)
        )

    async def _publish(
        self,
        queue: _Queue,
        turns: DeferredSemaphore,
        drafts: Sequence[Draft],
        caller: ClientInfo,
        done: Callable[[list[Outcome]], None],
    ) -> None:
        turn = queue.turn.acquire()  # after the earlier requests of the client
        asked = [Deferred.fromCoroutine(self._ask(queue, turns, draft, caller)) for draft in drafts]
        answers = await gatherResults(asked)
        await turn
        try:
            self._publish_allowed(answers, caller, done)
        finally:
            queue.turn.release()

    def _publish_allowed(
        self, answers: Sequence[Draft | Refused], caller: ClientInfo, done: Callable[[list[Outcome]], None]
    ) -> None:
        try:
            self._refresh(caller)
        except Refused as refused:
            done([refused if isinstance(answer, Draft) else answer for answer in answers])
            return
        allowed = [answer for answer in answers if isinstance(answer, Draft)]

        def published(outcomes: list[Outcome]) -> None:
            following = iter(outcomes)
            done([answer if isinstance(answer, Refused) else next(following) for answer in answers])

        self._publisher.publish_all(allowed, caller, published)

    async def _ask(
        self, queue: _Queue, turns: DeferredSemaphore, draft: Draft, caller: ClientInfo
    ) -> Draft | Refused:
        try:
            for name in draft.channels:
                caller.grants.check_publish(name)
            return await queue.semaphore.run(turns.run, self._begin_to_ask, caller, draft)
        except Refused as refused:
            return refused
        except Exception:  # noqa: BLE001  the others of the batch have their answers
            _log.failure("a fault in pushd while it asked the application")
            return Unavailable("a fault in pushd; see its log")

    def _begin_to_ask(self, caller: ClientInfo, draft: Draft) -> Deferred[Draft]:
        """Ask, after checking that the grants have not expired while the event waited for its turn."""
        self._refresh(caller)
        for name in draft.channels:
            caller.grants.check_publish(name)
        return Deferred.fromCoroutine(self._authorizer.before_publish(caller, draft))

    def delete(self, name: str, caller: ClientInfo, done: Callable[[Deleted], None]) -> None:
        """Delete a channel; call `done` with the outcome."""
        self._publisher.delete(name, caller, done)
