"""A dictionary for one entry per channel that never copies all entries at once when it grows."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, MutableMapping
from itertools import chain
from typing import Any, TypeVar

__all__ = ["PARTS", "PartitionedDict"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PARTS = 251
"""The number of parts of a table: a prime, so that the hashes of the keys in one part differ in their low bits."""

_MISSING: Any = object()


class PartitionedDict(MutableMapping[K, V]):
    """A mapping split into small dictionaries by the hash of the key.

    A dictionary copies all its entries when it grows: 350,000 take 49 ms. Here only one part grows at a time. Code
    that runs for each event reads ``table.parts[hash(key) % PARTS]`` directly: a fast path that saves a call.
    """

    __slots__ = ("_full", "_size", "parts")

    def __init__(self) -> None:
        self.parts: tuple[dict[K, V], ...] = tuple({} for _ in range(PARTS))
        """The dictionaries. Only the methods may change them, because the methods count the entries."""
        self._size = 0
        self._full = 0  # the part that `popitem` tries first

    def __len__(self) -> int:
        """Return the number of entries."""
        return self._size

    def __iter__(self) -> Iterator[K]:
        """Return the keys in arbitrary order. The table must not change during the iteration."""
        return chain.from_iterable(self.parts)

    def __contains__(self, key: object) -> bool:
        """Return whether `key` has an entry."""
        return key in self.parts[hash(key) % PARTS]

    def __getitem__(self, key: K) -> V:
        """Return the value of `key`; raise `KeyError` if it has none."""
        return self.parts[hash(key) % PARTS][key]

    def __setitem__(self, key: K, value: V) -> None:
        """Set the value of `key`."""
        part = self.parts[hash(key) % PARTS]
        self._size -= len(part)
        part[key] = value
        self._size += len(part)

    def __delitem__(self, key: K) -> None:
        """Remove the entry of `key`; raise `KeyError` if it has none."""
        del self.parts[hash(key) % PARTS][key]
        self._size -= 1

    def get(self, key: K, default: V | None = None) -> V | None:  # type: ignore[override]
        """Return the value of `key`, or `default`."""
        return self.parts[hash(key) % PARTS].get(key, default)

    def pop(self, key: K, default: Any = _MISSING) -> Any:
        """Remove the entry of `key` and return its value, or `default`; without a default, raise `KeyError`."""
        value = self.parts[hash(key) % PARTS].pop(key, _MISSING)
        if value is not _MISSING:
            self._size -= 1
        elif default is _MISSING:
            raise KeyError(key)
        else:
            value = default
        return value

    def popitem(self) -> tuple[K, V]:
        """Remove and return an entry; raise `KeyError` if there is none. Emptying the table takes linear time."""
        for _ in range(PARTS):
            part = self.parts[self._full]
            if part:
                self._size -= 1
                return part.popitem()
            self._full = (self._full + 1) % PARTS
        raise KeyError("the table is empty")

    def clear(self) -> None:
        """Remove all entries."""
        for part in self.parts:
            part.clear()
        self._size = 0
