"""The notices that wait for the application: in order, bounded, and fair to every client."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from pushd.bus import Shares
from pushd.errors import TooMany, Unavailable

__all__ = ["NotificationQueue"]


@dataclass(slots=True)
class _Notice:
    body: bytes
    owner: str | None
    pair: Hashable


class NotificationQueue:
    """A queue of notices.

    An owner (`pushd.bus.clientinfo.owner_of`) has its share of the queue; beyond that its oldest notices are
    dropped. If the queue is full, the owner with the most notices loses its oldest. Notices without an owner count
    as those of one, which has no share of its own.
    """

    def __init__(self, most: int, share_percent: int) -> None:
        """Let `most` notices wait, and `share_percent` of them for each owner."""
        self._shares = Shares("waiting notifications", "[hooks] queue", most, share_percent)
        self._waiting: OrderedDict[int, _Notice] = OrderedDict()
        self._of_owner: dict[str | None, OrderedDict[int, None]] = {}
        self._by_count: dict[int, OrderedDict[str | None, None]] = {}
        """The owners, by how many notices of theirs wait."""
        self._most_of_one = 0
        """At least as many as wait of any owner."""
        self._last_of_pair: dict[Hashable, int] = {}
        self._made = 0

    def limit(self, most: int, share_percent: int) -> None:
        """Set other bounds, for notices to come."""
        self._shares.limit(most, share_percent)

    def __len__(self) -> int:
        """Count the notices."""
        return len(self._waiting)

    def add(self, body: bytes, owner: str | None = None, pair: Hashable = None) -> int:
        """Append a notice; return how many were dropped for it.

        `pair` is what it has in common with its opposite, if it has one.
        """
        dropped = 0
        while not self._has_room(owner):
            dropped += 1
        self._made += 1
        self._waiting[self._made] = _Notice(body, owner, pair)
        numbers = self._of_owner.setdefault(owner, OrderedDict())
        numbers[self._made] = None
        self._moved(owner, len(numbers) - 1, len(numbers))
        if pair is not None:
            self._last_of_pair[pair] = self._made
        return dropped

    def _has_room(self, owner: str | None) -> bool:
        """Take room for a notice; False if one had to be dropped first, and so has to be looked again."""
        try:
            self._shares.take(owner)
        except TooMany:
            self._remove(next(iter(self._of_owner[owner])))
        except Unavailable:
            self._remove(next(iter(self._of_owner[self._heaviest()])))
        else:
            return True
        return False

    def _heaviest(self) -> str | None:
        """Return the owner with the most notices; of several, the one that has had so many for longest."""
        while not self._by_count.get(self._most_of_one):
            self._by_count.pop(self._most_of_one, None)
            self._most_of_one -= 1
        return next(iter(self._by_count[self._most_of_one]))

    def cancel(self, pair: Hashable) -> bool:
        """Remove the opposite of a notice that is not to be added then; False if none waits."""
        number = self._last_of_pair.get(pair)
        if number is None:
            return False
        self._remove(number)
        return True

    @property
    def next_size(self) -> int:
        """The size of the next notice, in bytes."""
        return len(next(iter(self._waiting.values())).body)

    def take(self) -> bytes:
        """Remove the next notice, and return it."""
        return self._remove(next(iter(self._waiting)))

    def clear(self) -> None:
        """Remove all of them."""
        while self._waiting:
            self.take()

    def _remove(self, number: int) -> bytes:
        notice = self._waiting.pop(number)
        owner, pair = notice.owner, notice.pair
        numbers = self._of_owner[owner]
        del numbers[number]
        self._moved(owner, len(numbers) + 1, len(numbers))
        if not numbers:
            del self._of_owner[owner]
        self._shares.give_back(owner)
        if pair is not None and self._last_of_pair.get(pair) == number:
            del self._last_of_pair[pair]
        return notice.body

    def _moved(self, owner: str | None, before: int, after: int) -> None:
        """Note that `after` notices of `owner` wait, and not `before`."""
        if before:
            owners = self._by_count[before]
            del owners[owner]
            if not owners:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, OrderedDict())[owner] = None
            self._most_of_one = max(self._most_of_one, after)
