"""The submission: what one publisher hands to the journal at once."""

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
"""After how many events and entries the clock is read; an event has an entry in each of its channels."""

Staged = list[Entry] | PublishedId | Refused
"""What is to become of an event: its entries, the event that has its id already, or what prevents it."""


@dataclass(slots=True)
class Limit:
    """How much one transaction may have. One event always fits."""

    is_over: Callable[[], bool]
    """Returns whether the time is over."""

    sends_of: Callable[[list[Entry]], int]
    """Returns how often an event is handed to a subscriber, or to a group of them."""

    entries: int
    """How many entries are left."""

    size_bytes: int
    """How many bytes of data are left, counted in each channel."""

    sends: int
    """How many sends are left."""

    def has_room(self) -> bool:
        """Return whether more may be put in."""
        return self.entries > 0 and self.size_bytes > 0 and self.sends > 0 and not self.is_over()


class Submission:
    """Events that are published together, the name of a channel to delete, or None for a mark.

    The events may come into several transactions, one after the other.
    """

    __slots__ = ("_count", "_done", "_outcomes", "_rest", "_staged", "grants", "what")

    def __init__(self, what: Sequence[Draft] | str | None, grants: Grants, done: Callable[[Any], None]) -> None:
        """Have `done` called with what has become of it; of events, with a list in their order."""
        self.what = what
        """What is to be done."""
        self.grants = grants
        """What the publisher may do."""
        self._done = done
        self._count = 0 if what is None else len(what)
        self._staged = 0
        self._outcomes: list[Outcome] = []
        self._rest: list[Outcome] = []  # of those at the end that come into no transaction

    @property
    def has_events(self) -> bool:
        """Whether it consists of events."""
        return self.what is not None and not isinstance(self.what, str)

    @property
    def is_staged(self) -> bool:
        """Whether all its events have been put into transactions."""
        return self._staged >= self._count

    def stage(self, batch: Batch[Subscription], limit: Limit, most: int) -> list[Staged]:
        """Put the next events into `batch`: one at least, and then as many as there is room for, up to `most`."""
        assert self.what is not None and not isinstance(self.what, str)
        staged: list[Staged] = []
        look = _PER_LOOK
        for draft in self.what[self._staged : self._staged + most] if self._count > 1 else self.what:
            one = _add(batch, draft, self.grants)
            staged.append(one)
            look -= 1
            if not isinstance(one, list):
                limit.entries -= 1  # that it is there already may have been found out in the store
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
        """Note what has become of its next events; tell the publisher when these were the last."""
        self._outcomes += outcomes
        if len(self._outcomes) + len(self._rest) == self._count:
            self.tell(self._outcomes + self._rest)

    def refuse(self, refused: Refused) -> None:
        """Refuse it; of events, those that are in no transaction yet."""
        if self.what is None or isinstance(self.what, str):
            self.tell(refused)
            return
        self._rest = [refused] * (self._count - self._staged)
        self._staged = self._count
        self.note([])

    def tell(self, outcome: object) -> None:
        """Tell the publisher what has become of it all."""
        try:
            self._done(outcome)
        except Exception:  # noqa: BLE001  the others are to be told all the same
            _log.failure("a fault in pushd while it answered a publisher")


def _add(batch: Batch[Subscription], draft: Draft, grants: Grants) -> Staged:
    """Put an event into a batch; return its entries, or what prevents that."""
    try:
        for name in draft.channels:
            grants.check_publish(name)
        return batch.add(draft)
    except Refused as refused:
        return refused.outcome()


def mark(done: Callable[[Any], None]) -> Submission:
    """Return a submission that is done once everything before it is."""
    return Submission(None, EVERYTHING, done)
