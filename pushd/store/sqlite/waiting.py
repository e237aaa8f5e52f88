"""The submissions that wait for a transaction, in a fair order."""

from __future__ import annotations

from collections import OrderedDict, deque

from pushd.bus import Batch, Subscription
from pushd.store.sqlite.submission import Limit, Staged, Submission

__all__ = ["Waiting"]

_PER_BATCH = 80
"""How many publishers are answered after one transaction: each answer takes up to 50 microseconds."""

_EACH = 4
"""How many events of each owner at least are put into a transaction, however many owners there are."""


class Waiting:
    """Submissions by owner: those of one owner in their order, and the owners in turn.

    So whoever publishes much waits longer, and nobody waits for all that others have handed in before. A mark,
    a submission of nothing, comes after everything that waits, and before everything that is added later.
    """

    __slots__ = ("_by_owner", "_later")

    def __init__(self) -> None:
        """Begin without submissions."""
        self._by_owner: OrderedDict[str | None, deque[Submission]] = OrderedDict()  # none is empty
        self._later: deque[tuple[str | None, Submission]] = deque()
        """The first mark, and what was added after it."""

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._by_owner or self._later)

    @property
    def owners(self) -> int:
        """How many owners take turns."""
        self._refill()
        return len(self._by_owner)

    @property
    def first(self) -> Submission:
        """The submission whose turn it is; there must be one."""
        self._refill()
        return next(iter(self._by_owner.values()))[0]

    def add(self, owner: str | None, submission: Submission) -> None:
        """Add a submission of `owner`; all that have none are together, as if they had one."""
        if self._later or submission.what is None:
            self._later.append((owner, submission))
        else:
            self._enter(owner, submission)

    def _enter(self, owner: str | None, submission: Submission) -> None:
        waiting = self._by_owner.get(owner)
        if waiting is None:
            self._by_owner[owner] = deque((submission,))
        else:
            waiting.append(submission)

    def _refill(self) -> None:
        """Go on with the next mark, or with what comes before it."""
        later = self._later
        while later and (not self._by_owner or later[0][1].what is not None):
            owner, submission = later.popleft()
            self._enter(owner, submission)
            if submission.what is None:
                return

    def pop(self) -> bool:
        """Remove the first submission; return whether that ends the turn of its owner, which has no other."""
        owner, waiting = next(iter(self._by_owner.items()))
        waiting.popleft()
        if not waiting:
            del self._by_owner[owner]
        return not waiting

    def next_owner(self) -> None:
        """End the turn of the owner whose turn it is, which must have another submission."""
        self._by_owner.move_to_end(next(iter(self._by_owner)))

    def stage(self, batch: Batch[Subscription], limit: Limit) -> list[tuple[Submission, list[Staged]]]:
        """Put events into `batch`, of each owner some, up to the first submission that has none; return them.

        A submission may be among them more than once, with its events in their order.
        """
        staged: list[tuple[Submission, list[Staged]]] = []
        owners = self.owners
        most = limit.entries if owners == 1 else max(_EACH, _PER_BATCH // owners)
        left = most
        while self and len(staged) < _PER_BATCH and (first := self.first).has_events:
            events = first.stage(batch, limit, left)
            staged.append((first, events))
            left -= len(events)
            if first.is_staged and self.pop():
                left = most
            elif left <= 0:
                self.next_owner()
                left = most
            if not limit.has_room():
                break
        if left < most and self:
            self.next_owner()
        return staged

    def clear(self) -> list[Submission]:
        """Remove all, and return them."""
        all_of_them = [one for waiting in self._by_owner.values() for one in waiting]
        all_of_them += [one for _, one in self._later]
        self._by_owner.clear()
        self._later.clear()
        return all_of_them
