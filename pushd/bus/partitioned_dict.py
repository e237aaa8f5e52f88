"""A table for as many entries as there are channels, which never has to be copied as a whole."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, MutableMapping
from itertools import chain
from typing import Any, TypeVar

__all__ = ["PARTS", "PartitionedDict"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PARTS = 251
"""Into how many dictionaries a table is divided: a prime, so that the keys of one part differ in their low bits."""

_MISSING: Any = object()


class PartitionedDict(MutableMapping[K, V]):
    """A mapping divided by the hash of the key into small dictionaries.

    A dictionary that grows copies all its entries at once: 350,000 take 49 ms. Here only one part grows at a time.
    Code that runs for each event reads ``table.parts[hash(key) % PARTS]`` itself, which saves a call.
    """

    __slots__ = ("_size", "parts")

    def __init__(self) -> None:
        self.parts: tuple[dict[K, V], ...] = tuple({} for _ in range(PARTS))
        """The dictionaries. They are changed by the methods only, which count the entries."""
        self._size = 0

    def __len__(self) -> int:
        """Count the entries."""
        return self._size

    def __iter__(self) -> Iterator[K]:
        """Return the keys, in no order; the table must not change meanwhile."""
        return chain.from_iterable(self.parts)

    def __contains__(self, key: object) -> bool:
        """Return whether there is an entry."""
        return key in self.parts[hash(key) % PARTS]

    def __getitem__(self, key: K) -> V:
        """Return the value; raise `KeyError` if there is none."""
        return self.parts[hash(key) % PARTS][key]

    def __setitem__(self, key: K, value: V) -> None:
        """Enter a value, or replace it."""
        part = self.parts[hash(key) % PARTS]
        self._size -= len(part)
        part[key] = value
        self._size += len(part)

    def __delitem__(self, key: K) -> None:
        """Remove an entry; raise `KeyError` if there is none."""
        del self.parts[hash(key) % PARTS][key]
        self._size -= 1

    def get(self, key: K, default: V | None = None) -> V | None:  # type: ignore[override]
        """Return the value, or `default`."""
        return self.parts[hash(key) % PARTS].get(key, default)

    def pop(self, key: K, default: Any = _MISSING) -> Any:
        """Remove an entry and return its value, or `default`; without that, raise `KeyError` if there is none."""
        value = self.parts[hash(key) % PARTS].pop(key, _MISSING)
        if value is not _MISSING:
            self._size -= 1
        elif default is _MISSING:
            raise KeyError(key)
        else:
            value = default
        return value

    def clear(self) -> None:
        """Remove all entries."""
        for part in self.parts:
            part.clear()
        self._size = 0
