"""Many patterns, searched by name at once, in a time that has a bound whatever the patterns are.

A `PatternTree` walks all nodes that fit so far. Of patterns with several stars these can be all that there are, at
every token of a name: 2,000 hostile patterns took 13 s for one event. Such patterns are kept in blocks
instead, in which every place of every pattern is one bit of a long integer, and one token of a name takes all of
them a step further by a few operations on these integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from pushd.bus.patterns import MAX_REPEATS, REPEATS, Pattern, PatternTree, steps_of, tokens_of

__all__ = ["BLOCK_BITS", "ManyPatterns"]

BLOCK_BITS = 16 * 1024
"""How many places are in one block: large enough for few operations, small enough to be rebuilt within a turn."""

_SPARSE = 4
"""A block of which less than a fourth is in use is dissolved."""

T = TypeVar("T")
_Path = tuple[str, ...]
_Steps = tuple[str, str, str]


class _Block(Generic[T]):
    """Some paths. The place before the token ``path[j]`` is the bit ``begin + j``; the last is that at its end."""

    __slots__ = ("_begins", "_ends", "_loops", "_masks", "_repeats", "paths", "size", "used", "values")

    def __init__(self) -> None:
        self._masks: dict[str, int] = {}  # where each token comes next
        self._repeats = 0  # where a ** comes next
        self._loops = 0  # where a ** was the last
        self._begins = 0
        self._ends = 0
        self.size = 0
        """How many bits were given out."""
        self.used = 0
        """How many of them are in use."""
        self.paths: dict[int, _Path] = {}
        """The paths, by where they end."""
        self.values: dict[int, dict[T, int]] = {}
        """What is filed under each, and how often."""

    def add(self, path: _Path, values: dict[T, int]) -> int:
        """Add a path; return where it ends."""
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
        """Take the path away that ends there. Its bits are not given out again."""
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
        """Return what is filed under each path that stands for the name with these `steps`."""
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
        """Return `places` and those that a ``**`` leads to which stands for nothing."""
        repeats = self._repeats
        for _ in range(MAX_REPEATS):
            reached = places | ((places & repeats) << 1)
            if reached == places:
                break
            places = reached
        return places


class ManyPatterns(Generic[T]):
    """Patterns with what belongs to each: plain ones in a tree, others in blocks."""

    def __init__(self) -> None:
        self._tree: PatternTree[T] = PatternTree()
        self._blocks: list[_Block[T]] = []  # the last one has room
        self._places: dict[_Path, tuple[_Block[T], int]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Count what is filed."""
        return len(self._tree) + self._count

    def add(self, pattern: Pattern, value: T) -> None:
        """File `value` (which must be hashable) under `pattern`."""
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
        """Take `value` away from `pattern`, where it must be filed."""
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
        """Return what is filed under the patterns that match `name`, each once."""
        if not self._blocks:
            return self._tree.match(name)
        steps = [steps_of(token) for token in tokens_of(name)]
        found = dict.fromkeys(self._tree.match(name)) if len(self._tree) else {}
        for block in self._blocks:
            for values in block.match(steps):
                found.update(dict.fromkeys(values))
        return iter(found)

    def _put(self, path: _Path, values: dict[T, int]) -> None:
        """Add a path that is not there."""
        if not self._blocks or self._blocks[-1].size + len(path) >= BLOCK_BITS:
            self._blocks.append(_Block())
        block = self._blocks[-1]
        self._places[path] = block, block.add(path, values)

    def _tidy(self, block: _Block[T]) -> None:
        """Dissolve a block that is sparse, unless it is the last one and has room."""
        if block.used and (block.used * _SPARSE > block.size or block.size < BLOCK_BITS // 2):
            return
        self._blocks.remove(block)
        for end, path in block.paths.items():
            self._put(path, block.values[end])
