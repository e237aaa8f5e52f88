"""The queue of submissions that wait for a transaction, in a fair order."""

from __future__ import annotations

from collections import OrderedDict, deque

from pushd.bus import Batch, Subscription
from pushd.store.sqlite.submission import Limit, Staged, Submission

__all__ = ["Waiting"]

_PER_BATCH = 80
"""The most publishers acknowledged after one transaction: each takes up to 50 microseconds."""

_EACH = 4
"""The least number of events per owner's turn, however many owners there are."""


class Waiting:
    """Submissions by owner: in order within one owner, round-robin between owners.

    So an owner that publishes more waits longer, and does not delay the others. A mark, a submission without
    content, comes after all submissions added before it and before all added later.
    """

    __slots__ = ("_by_owner", "_later")

    def __init__(self) -> None:
        """Create an empty queue."""
        self._by_owner: OrderedDict[str | None, deque[Submission]] = OrderedDict()  # none is empty
        self._later: deque[tuple[str | None, Submission]] = deque()
        """The first mark and all submissions added after it."""

    def __bool__(self) -> bool:
        """Return whether any submission waits."""
        return bool(self._by_owner or self._later)

    @property
    def owners(self) -> int:
        """The number of owners that take turns."""
        self._refill()
        return len(self._by_owner)

    @property
    def first(self) -> Submission:
        """The submission whose turn it is; there must be one."""
        self._refill()
        return next(iter(self._by_owner.values()))[0]

    def add(self, owner: str | None, submission: Submission) -> None:
        """Add a submission of `owner`; submissions without an owner share one turn."""
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
        """Move submissions up to and including the next mark into the turns."""
        later = self._later
        while later and (not self._by_owner or later[0][1].what is not None):
            owner, submission = later.popleft()
            self._enter(owner, submission)
            if submission.what is None:
                return

    def pop(self) -> bool:
        """Remove the first submission; return whether its owner has no other, which ends its turn."""
        owner, waiting = next(iter(self._by_owner.items()))
        waiting.popleft()
        if not waiting:
            del self._by_owner[owner]
        return not waiting

    def next_owner(self) -> None:
        """End the turn of the current owner, which must have another submission."""
        self._by_owner.move_to_end(next(iter(self._by_owner)))

    def stage(self, batch: Batch[Subscription], limit: Limit) -> list[tuple[Submission, list[Staged]]]:
        """Add some events of each owner to `batch`, up to the first submission without events; return them.

        A submission may be returned more than once, its events in order.
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
        """Remove and return all submissions."""
        all_of_them = [one for waiting in self._by_owner.values() for one in waiting]
        all_of_them += [one for _, one in self._later]
        self._by_owner.clear()
        self._later.clear()
        return all_of_them
