"""What waits for the journal: the events that one publisher passes in one call, and tasks between transactions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

from pushd.bus import Batch, Draft, Entry, Grants, Outcome, PublishedId, Subscription
from pushd.errors import Refused

__all__ = ["Limit", "Staged", "Submission", "Task"]

_log = Logger()

_PER_LOOK = 16
"""The clock is read after this many events and entries; an event has one entry per channel."""

Staged = list[Entry] | PublishedId | Refused
"""The result of staging an event: its entries, the earlier event with its id, or the refusal."""


@dataclass(slots=True)
class Limit:
    """The remaining room in one transaction. One event always fits."""

    is_over: Callable[[], bool]
    """Returns whether the time budget is used up."""

    sends_of: Callable[[list[Entry]], int]
    """Returns how many sends an event needs: one per subscriber or fan-out group."""

    entries: int
    """The number of entries left."""

    size_bytes: int
    """The bytes of data left, counted once per channel."""

    sends: int
    """The number of sends left."""

    def has_room(self) -> bool:
        """Return whether another event may be added."""
        return self.entries > 0 and self.size_bytes > 0 and self.sends > 0 and not self.is_over()


class Submission:
    """Events published together. They may be split over several consecutive transactions."""

    __slots__ = ("_count", "_done", "_drafts", "_grants", "_outcomes", "_rest", "_staged")

    def __init__(self, drafts: Sequence[Draft], grants: Grants, done: Callable[[list[Outcome]], None]) -> None:
        """Publish `drafts` with the grants of the publisher; `done` is called with the outcomes, in their order."""
        self._drafts = drafts
        self._grants = grants
        self._done = done
        self._count = len(drafts)
        self._staged = 0
        self._outcomes: list[Outcome] = []
        self._rest: list[Outcome] = []  # of events at the end that are in no transaction

    @property
    def is_staged(self) -> bool:
        """Whether all events are in transactions."""
        return self._staged >= self._count

    def stage(self, batch: Batch[Subscription], limit: Limit, most: int) -> list[Staged]:
        """Add the next events to `batch`: at least one, and up to `most` while there is room."""
        staged: list[Staged] = []
        look = _PER_LOOK
        for draft in self._drafts[self._staged : self._staged + most] if self._count > 1 else self._drafts:
            one = _add(batch, draft, self._grants)
            staged.append(one)
            look -= 1
            if not isinstance(one, list):
                limit.entries -= 1  # finding its earlier event may have read the store
            else:
                count = len(one)
                look -= count
                limit.entries -= count
                limit.size_bytes -= len(draft.data) * count
                limit.sends -= limit.sends_of(one)
            if look <= 0 or limit.entries <= 0 or limit.size_bytes <= 0 or limit.sends <= 0:
                if not limit.has_room():
                    break
                look = _PER_LOOK
        self._staged += len(staged)
        return staged

    def note(self, outcomes: list[Outcome]) -> None:
        """Record the outcomes of the next events; notify the publisher after the last ones."""
        self._outcomes += outcomes
        if len(self._outcomes) + len(self._rest) == self._count:
            _tell(self._done, self._outcomes + self._rest)

    def refuse(self, refused: Refused) -> None:
        """Refuse the events that are in no transaction yet."""
        self._rest = [refused] * (self._count - self._staged)
        self._staged = self._count
        self.note([])


@dataclass(slots=True)
class Task:
    """What is done between two transactions, after earlier submissions of the same owner."""

    run: Callable[[Task], None]
    """Does it, and lets the journal go on."""

    done: Callable[[Refused | None], None]
    """Called with the failure, or None, once it is done."""

    def tell(self, failure: Refused | None) -> None:
        """Notify whoever waits for it."""
        _tell(self.done, failure)

    def refuse(self, refused: Refused) -> None:
        """Refuse it before it is run."""
        _tell(self.done, refused)


def _tell(done: Callable[[Any], None], outcome: object) -> None:
    """Notify a publisher of an outcome."""
    try:
        done(outcome)
    except Exception:  # noqa: BLE001  the others are to be told all the same
        _log.failure("a fault in pushd while it answered a publisher")


def _add(batch: Batch[Subscription], draft: Draft, grants: Grants) -> Staged:
    """Add an event to a batch; return its entries, the earlier event with its id, or the refusal."""
    try:
        for name in draft.channels:
            grants.check_publish(name)
        return batch.add(draft)
    except Refused as refused:
        return refused.outcome()
