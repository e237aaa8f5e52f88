"""The submission: events or a deletion that one publisher passes to the journal in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

from pushd.bus import EVERYTHING, Batch, Draft, Entry, Grants, Outcome, PublishedId, Subscription
from pushd.errors import Refused

__all__ = ["Limit", "Staged", "Submission", "mark"]

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
    """Events published together, the name of a channel to delete, or None for a mark.

    The events may be split over several consecutive transactions.
    """

    __slots__ = ("_count", "_done", "_outcomes", "_rest", "_staged", "grants", "what")

    def __init__(self, what: Sequence[Draft] | str | None, grants: Grants, done: Callable[[Any], None]) -> None:
        """Create a submission; `done` is called with its outcome, for events with a list in their order."""
        self.what = what
        """The events, the name of the channel to delete, or None."""
        self.grants = grants
        """The grants of the publisher."""
        self._done = done
        self._count = 0 if what is None else len(what)
        self._staged = 0
        self._outcomes: list[Outcome] = []
        self._rest: list[Outcome] = []  # of events at the end that are in no transaction

    @property
    def has_events(self) -> bool:
        """Whether the submission consists of events."""
        return self.what is not None and not isinstance(self.what, str)

    @property
    def is_staged(self) -> bool:
        """Whether all events are in transactions."""
        return self._staged >= self._count

    def stage(self, batch: Batch[Subscription], limit: Limit, most: int) -> list[Staged]:
        """Add the next events to `batch`: at least one, and up to `most` while there is room."""
        assert self.what is not None and not isinstance(self.what, str)
        staged: list[Staged] = []
        look = _PER_LOOK
        for draft in self.what[self._staged : self._staged + most] if self._count > 1 else self.what:
            one = _add(batch, draft, self.grants)
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
            self.tell(self._outcomes + self._rest)

    def refuse(self, refused: Refused) -> None:
        """Refuse the submission; of events, only those in no transaction yet."""
        if self.what is None or isinstance(self.what, str):
            self.tell(refused)
            return
        self._rest = [refused] * (self._count - self._staged)
        self._staged = self._count
        self.note([])

    def tell(self, outcome: object) -> None:
        """Notify the publisher of the outcome."""
        try:
            self._done(outcome)
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


def mark(done: Callable[[Any], None]) -> Submission:
    """Return a submission that is done once all submissions before it are."""
    return Submission(None, EVERYTHING, done)
