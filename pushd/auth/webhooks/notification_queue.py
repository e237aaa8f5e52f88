"""The queue of notifications: ordered, bounded, and fair among clients."""

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
    """A queue of notifications.

    Each owner (`pushd.bus.clientinfo.owner_of`) has a share of the queue; beyond it, the oldest of this owner are
    dropped. If the queue is full, the oldest of the owner with the most is dropped. Notifications without an owner
    count as those of one owner, which has no limit of its own.
    """

    def __init__(self, most: int, share_percent: int) -> None:
        """Set the capacity to `most` notifications, and the share of each owner to `share_percent`."""
        self._shares = Shares("waiting notifications", "[hooks] queue", most, share_percent)
        self._waiting: OrderedDict[int, _Notice] = OrderedDict()
        self._of_owner: dict[str | None, OrderedDict[int, None]] = {}
        self._by_count: dict[int, OrderedDict[str | None, None]] = {}
        """The owners, by their number of waiting notifications."""
        self._most_of_one = 0
        """Upper bound of the number of waiting notifications of any owner."""
        self._last_of_pair: dict[Hashable, int] = {}
        self._made = 0

    def limit(self, most: int, share_percent: int) -> None:
        """Set other limits; they apply to later notifications."""
        self._shares.limit(most, share_percent)

    def __len__(self) -> int:
        """Return the number of waiting notifications."""
        return len(self._waiting)

    def add(self, body: bytes, owner: str | None = None, pair: Hashable = None) -> int:
        """Append a notification; return the number dropped to make room.

        `pair` is the key that it shares with its opposite, if it has one.
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
        """Take room for a notification; return False if one was dropped instead, so that the caller retries."""
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
        """Return the owner with the most notifications; on a tie, the one with this number for longest."""
        while not self._by_count.get(self._most_of_one):
            self._by_count.pop(self._most_of_one, None)
            self._most_of_one -= 1
        return next(iter(self._by_count[self._most_of_one]))

    def cancel(self, pair: Hashable) -> bool:
        """Remove the waiting opposite of an event; return False if none waits, so that the event is added."""
        number = self._last_of_pair.get(pair)
        if number is None:
            return False
        self._remove(number)
        return True

    @property
    def next_size(self) -> int:
        """Size of the next notification, in bytes."""
        return len(next(iter(self._waiting.values())).body)

    def take(self) -> bytes:
        """Remove and return the next notification."""
        return self._remove(next(iter(self._waiting)))

    def clear(self) -> None:
        """Remove all notifications."""
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
        """Update the index: the notifications of `owner` went from `before` to `after`."""
        if before:
            owners = self._by_count[before]
            del owners[owner]
            if not owners:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, OrderedDict())[owner] = None
            self._most_of_one = max(self._most_of_one, after)
