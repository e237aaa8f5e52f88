"""The fair queue: items that wait for their turn, in order within one owner, round-robin between owners."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by owner: an owner with more items waits longer, and does not delay the others.

    A mark is an item that comes after all items added before it and before all items added later.
    """

    __slots__ = ("_by_owner", "_later")

    def __init__(self) -> None:
        """Create an empty queue."""
        self._by_owner: OrderedDict[str | None, deque[T]] = OrderedDict()  # none is empty
        self._later: deque[tuple[str | None, T, bool]] = deque()
        """The first mark and all items added after it; each with its owner, and whether it is a mark."""

    def __bool__(self) -> bool:
        """Return whether any item waits."""
        return bool(self._by_owner or self._later)

    def __len__(self) -> int:
        """Return the number of items that wait."""
        return sum(map(len, self._by_owner.values())) + len(self._later)

    @property
    def owners(self) -> int:
        """The number of owners that take turns."""
        self._refill()
        return len(self._by_owner)

    @property
    def first(self) -> T:
        """The item whose turn it is; there must be one."""
        self._refill()
        return next(iter(self._by_owner.values()))[0]

    def add(self, owner: str | None, item: T, *, is_mark: bool = False) -> None:
        """Add an item of `owner`, or a mark; items without an owner share one turn."""
        if self._later or is_mark:
            self._later.append((owner, item, is_mark))
        else:
            self._enter(owner, item)

    def _enter(self, owner: str | None, item: T) -> None:
        waiting = self._by_owner.get(owner)
        if waiting is None:
            self._by_owner[owner] = deque((item,))
        else:
            waiting.append(item)

    def _refill(self) -> None:
        """Move items up to the next mark into the turns; the mark as well, once nothing is before it."""
        later = self._later
        while later and not (self._by_owner and later[0][2]):
            owner, item, is_mark = later.popleft()
            self._enter(owner, item)
            if is_mark:
                return

    def pop(self) -> bool:
        """Remove the first item; return whether its owner has no other, which ends its turn."""
        owner, waiting = next(iter(self._by_owner.items()))
        waiting.popleft()
        if not waiting:
            del self._by_owner[owner]
        return not waiting

    def next_owner(self) -> None:
        """End the turn of the current owner, which must have another item."""
        self._by_owner.move_to_end(next(iter(self._by_owner)))

    def put_last(self) -> None:
        """Move the first item behind all others of its owner, and end the turn of the owner."""
        waiting = next(iter(self._by_owner.values()))
        waiting.rotate(-1)
        self.next_owner()

    def clear(self) -> list[T]:
        """Remove and return all items."""
        items = [item for waiting in self._by_owner.values() for item in waiting]
        items += [item for _, item, _ in self._later]
        self._by_owner.clear()
        self._later.clear()
        return items
