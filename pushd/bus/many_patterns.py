"""Search many patterns by name at once, in bounded time even for hostile patterns.

A `PatternTree` walks all nodes that match so far. With several stars per pattern, these can be all nodes at every
token of a name: 2,000 hostile patterns took 13 s for one event. Such patterns are kept in blocks instead, as a
bit-parallel automaton: each place of each pattern is one bit of a long integer, and a few integer operations
advance all patterns by one token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from pushd.bus.patterns import MAX_REPEATS, REPEATS, Pattern, PatternTree, steps_of, tokens_of

__all__ = ["BLOCK_BITS", "ManyPatterns"]

BLOCK_BITS = 16 * 1024
"""How many places one block has: large enough for few operations, small enough to be rebuilt within a turn."""

_SPARSE = 4
"""A block is dissolved when less than a fourth of its places are in use."""

T = TypeVar("T")
_Path = tuple[str, ...]
_Steps = tuple[str, str, str]


class _Block(Generic[T]):
    """Some paths. The bit ``begin + j`` is the place before the token ``path[j]``; the last bit is the end."""

    __slots__ = ("_begins", "_ends", "_loops", "_masks", "_repeats", "paths", "size", "used", "values")

    def __init__(self) -> None:
        self._masks: dict[str, int] = {}  # by token: the places before it
        self._repeats = 0  # the places before a **
        self._loops = 0  # the places after a **
        self._begins = 0
        self._ends = 0
        self.size = 0
        """The number of bits allocated."""
        self.used = 0
        """The number of bits in use."""
        self.paths: dict[int, _Path] = {}
        """The paths, by the bit of their end."""
        self.values: dict[int, dict[T, int]] = {}
        """The values of each path, by the bit of its end, with their counts."""

    def add(self, path: _Path, values: dict[T, int]) -> int:
        """Add a path; return the bit of its end."""
        begin, end = self.size, self.size + len(path)
        for bit, token in enumerate(path, begin):
            self._masks[token] = self._masks.get(token, 0) | 1 << bit
            if token in REPEATS:
                self._repeats |= 1 << bit
                self._loops |= 2 << bit
        self._begins |= 1 << begin
        self._ends |= 1 << end
        self.size = end + 1
        self.used += len(path) + 1
        self.paths[end], self.values[end] = path, values
        return end

    def remove(self, end: int) -> None:
        """Remove the path that ends at the bit `end`. Its bits are not reused."""
        path = self.paths.pop(end)
        del self.values[end]
        self.used -= len(path) + 1
        begin = end - len(path)
        for bit, token in enumerate(path, begin):
            self._masks[token] ^= 1 << bit
            if not self._masks[token]:
                del self._masks[token]
        kept = ~(((2 << len(path)) - 1) << begin)
        self._repeats &= kept
        self._loops &= kept
        self._begins &= kept
        self._ends &= kept

    def match(self, steps: Iterable[_Steps]) -> Iterator[dict[T, int]]:
        """Return the values of each path that matches the name with these `steps`."""
        masks, loops = self._masks.get, self._loops
        places = self._begins
        for literal, star, repeat in steps:
            wanted = masks(literal, 0) | masks(star, 0) | masks(repeat, 0)
            places = (places & loops) | ((self._with_empty(places) & wanted) << 1)
            if not places:
                return
        found = self._with_empty(places) & self._ends
        while found:
            lowest = found & -found
            yield self.values[lowest.bit_length() - 1]
            found ^= lowest

    def _with_empty(self, places: int) -> int:
        """Return `places` and the places reachable from them by ``**`` that match no segment."""
        repeats = self._repeats
        for _ in range(MAX_REPEATS):
            reached = places | ((places & repeats) << 1)
            if reached == places:
                break
            places = reached
        return places


class ManyPatterns(Generic[T]):
    """A map from patterns to values: plain patterns are in a tree, the others in blocks."""

    def __init__(self) -> None:
        self._tree: PatternTree[T] = PatternTree()
        self._blocks: list[_Block[T]] = []  # the last one has room
        self._places: dict[_Path, tuple[_Block[T], int]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return the number of pairs of pattern and value."""
        return len(self._tree) + self._count

    def add(self, pattern: Pattern, value: T) -> None:
        """Add `value`, which must be hashable, to `pattern`."""
        if pattern.is_plain:
            self._tree.add(pattern, value)
            return
        for path in pattern.paths:
            if path in self._places:
                block, end = self._places[path]
                block.values[end][value] = block.values[end].get(value, 0) + 1
            else:
                self._put(path, {value: 1})
        self._count += 1

    def remove(self, pattern: Pattern, value: T) -> None:
        """Remove `value` from `pattern`, which must have it."""
        if pattern.is_plain:
            self._tree.remove(pattern, value)
            return
        for path in pattern.paths:
            block, end = self._places[path]
            values = block.values[end]
            values[value] -= 1
            if not values[value]:
                del values[value]
            if not values:
                del self._places[path]
                block.remove(end)
                self._tidy(block)
        self._count -= 1

    def match(self, name: str) -> Iterator[T]:
        """Return the values of all patterns that match `name`, each once."""
        if not self._blocks:
            return self._tree.match(name)
        steps = [steps_of(token) for token in tokens_of(name)]
        found = dict.fromkeys(self._tree.match(name)) if len(self._tree) else {}
        for block in self._blocks:
            for values in block.match(steps):
                found.update(dict.fromkeys(values))
        return iter(found)

    def _put(self, path: _Path, values: dict[T, int]) -> None:
        """Add a new path."""
        if not self._blocks or self._blocks[-1].size + len(path) >= BLOCK_BITS:
            self._blocks.append(_Block())
        block = self._blocks[-1]
        self._places[path] = block, block.add(path, values)

    def _tidy(self, block: _Block[T]) -> None:
        """Dissolve `block` if it is empty, or if it is sparse and at least half full."""
        if block.used and (block.used * _SPARSE > block.size or block.size < BLOCK_BITS // 2):
            return
        self._blocks.remove(block)
        for end, path in block.paths.items():
            self._put(path, block.values[end])
