"""A heap that removes obsolete items a few at a time."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Generic, TypeVar

__all__ = ["LazyHeap"]

K = TypeVar("K", int, float)
T = TypeVar("T")

_SIFTED = 4
"""The number of items checked per added item, while obsolete items are removed."""


class LazyHeap(Generic[K, T]):
    """Items with keys, the lowest key first.

    An obsolete item stays until it is first. When obsolete items are many, a new heap is started, and each added
    item moves the last items of the old heap into the new one, except obsolete items: a heap without its last item
    is still a heap. The number of items is never more than twice the number that may be wanted.
    """

    __slots__ = ("_count", "_heap", "_is_wanted", "_most", "_old")

    def __init__(self, is_wanted: Callable[[T], bool], most: Callable[[], int]) -> None:
        """Start without items; `most` returns the maximum number of wanted items."""
        self._is_wanted = is_wanted
        self._most = most
        self._heap: list[tuple[K, int, T]] = []
        self._old: list[tuple[K, int, T]] = []
        self._count = count()

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._heap) + len(self._old)

    def heaps(self) -> list[list[tuple[K, int, T]]]:
        """Return copies of both heaps, which together have all items: tuples of key, number and item."""
        return [heap.copy() for heap in (self._heap, self._old)]

    def push(self, key: K, item: T) -> None:
        """Add an item."""
        if self._old:
            self._sift()
        elif 4 * len(self._heap) >= 7 * self._most():
            self._heap, self._old = [], self._heap
            self._sift()
        heappush(self._heap, (key, next(self._count), item))

    def _sift(self) -> None:
        for _ in range(min(_SIFTED, len(self._old))):
            kept = self._old.pop()
            if self._is_wanted(kept[2]):
                heappush(self._heap, kept)

    def _first(self) -> list[tuple[K, int, T]]:
        """Return the heap with the first item."""
        old = self._old
        return old if old and (not self._heap or old[0] < self._heap[0]) else self._heap

    @property
    def first(self) -> tuple[K, T] | None:
        """The lowest key and its item, None if the heap is empty."""
        heap = self._first()
        return (heap[0][0], heap[0][2]) if heap else None

    def pop(self) -> T:
        """Remove the first item, which must exist, and return it."""
        return heappop(self._first())[2]

    def put_off(self, key: K) -> None:
        """Set a new key for the first item, which must exist."""
        heap = self._first()
        heapreplace(heap, (key, heap[0][1], heap[0][2]))
