"""Channel names, and the patterns that stand for many of them.

A name is split into segments at ``/``, ``.`` and ``:``. In a pattern, ``*`` stands for one segment and ``**``
for any number of them, also none: ``news/*`` matches ``news/sport``; ``news/**`` matches ``news``,
``news/sport`` and ``news/sport/chess``; ``**`` matches every name. A star counts only as a whole segment.

Inside this module a name is a list of tokens, each a segment with the separator before it: ``news/a.b`` is
``["news", "/a", ".b"]``. So ``a/b`` and ``a.b`` are different names to a pattern as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Generic, TypeVar

from pushd.errors import BadRequest

__all__ = [
    "MAX_NAME_BYTES",
    "MAX_REPEATS",
    "REPEATS",
    "Pattern",
    "PatternTree",
    "check_name",
    "steps_of",
    "tokens_of",
]

MAX_NAME_BYTES = 255
"""The longest name or pattern, in bytes of UTF-8."""

MAX_REPEATS = 4
"""How many ``**`` a pattern may have: what it costs to match and to compare grows with them."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TOKEN = re.compile(r"^[^/.:]*|[/.:][^/.:]*")
_SEPARATORS = ("/", ".", ":")
REPEATS = ("**", *(f"{separator}**" for separator in _SEPARATORS))
"""The tokens of a pattern that stand for any number of segments."""

_STARS = ("*", *(f"{separator}*" for separator in _SEPARATORS), *REPEATS)

T = TypeVar("T")


@lru_cache(4096)
def check_name(name: str) -> str:
    """Return `name` if it is the name of one channel; raise `BadRequest` if it is not."""
    _check_text(name)
    if any(token in _STARS for token in tokens_of(name)):
        raise BadRequest(f"{name!r} is a pattern; the name of one channel was wanted", "channel")
    return name


def _check_text(name: str) -> None:
    """Raise `BadRequest` unless `name` is 1 to 255 bytes of UTF-8 without control characters."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadRequest("the channel name is not valid Unicode", "channel") from None
    if not 1 <= size <= MAX_NAME_BYTES:
        raise BadRequest(f"a channel name has 1 to {MAX_NAME_BYTES} bytes of UTF-8, not {size}", "channel")
    if _CONTROL.search(name):
        raise BadRequest(f"the channel name {name!r} has a control character", "channel")


def tokens_of(text: str) -> list[str]:
    """Split a name or a pattern into its tokens."""
    return _TOKEN.findall(text)


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a subscriber asks for: a channel by its name, or every channel that a pattern matches."""

    text: str
    """The pattern as it was written."""

    paths: tuple[tuple[str, ...], ...]
    """The sequences of tokens that it stands for: one, and one more for each ``**`` it begins with."""

    is_name: bool
    """True if there is no star in it: it matches the one channel of that name."""

    @property
    def is_plain(self) -> bool:
        """True if it has one star at most, and, if that is ``**``, nothing behind it."""
        path = self.paths[0]
        stars = [place for place, token in enumerate(path) if token in _STARS]
        return not stars or (len(stars) == 1 and (path[stars[0]] not in REPEATS or stars[0] == len(path) - 1))

    @property
    def prefix(self) -> str:
        """What every name begins with that it matches: its tokens up to the first star."""
        return "".join(takewhile(lambda token: token not in _STARS, self.paths[0]))

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern; raise `BadRequest` if it is neither a name nor a pattern.

        Those read last are remembered: where thousands subscribe to the same, they share it.
        """
        return _parsed(text)

    def matches(self, name: str) -> bool:
        """Return whether the channel `name` is meant, in time linear in its length."""
        if self.is_name:
            return name == self.text
        tokens = tuple(tokens_of(name))
        return any(_covers(path, tokens) for path in self.paths)

    @property
    def beginnings(self) -> tuple[list[str], list[str]]:
        """Beginnings one of which every name has that is matched; and names that are matched without."""
        prefixes, names = [], []
        for path in self.paths:
            known = list(takewhile(lambda token: token not in _STARS, path))
            prefix, star = "".join(known), path[len(known)] if len(known) < len(path) else ""
            if star in REPEATS and len(path) == len(known) + 1 and prefix:  # a/** is a, and what begins with a/
                names.append(prefix)
            if star not in REPEATS or len(path) == len(known) + 1:
                prefix += _separator(star)
            prefixes.append(prefix)
        return prefixes, names

    def covers(self, other: Pattern) -> bool:
        """Return whether every channel that `other` matches is matched by this pattern."""
        return all(any(_covers(path, asked) for path in self.paths) for asked in other.paths)


@lru_cache(1024)
def _parsed(text: str) -> Pattern:
    _check_text(text)
    tokens: list[str] = []
    for token in tokens_of(text):
        if not (token in REPEATS and tokens and tokens[-1] == token):
            tokens.append(token)
    if sum(token in REPEATS for token in tokens) > MAX_REPEATS:
        raise BadRequest(f"the pattern {text!r} has more than {MAX_REPEATS} times **", "channel")
    paths = [tuple(tokens)]
    while paths[-1][0] == "**" and len(paths[-1]) > 1:
        # The ** may stand for nothing, and then the separator after it stands for nothing too.
        paths.append((paths[-1][1][1:], *paths[-1][2:]))
    return Pattern(text, tuple(paths), not any(token in _STARS for token in tokens))


def _covers(path: tuple[str, ...], asked: tuple[str, ...]) -> bool:
    """Return whether every name that `asked` stands for is one of `path`.

    Each ``**`` of `asked` stands for nothing, or for a segment at least. It walks the tokens once, and keeps the
    places in `path` that fit so far, for each choice that has led to other places: each place with whether the
    ``**`` before it has begun, because then that goes on with any token.
    """
    nothing = frozenset({(0, False)})
    ways = {nothing}
    for token in asked:
        is_repeated = token in REPEATS
        following = set(ways) if is_repeated else set()
        for places in ways:
            if places is nothing and _separator(token):
                continue  # a token with a separator is not the first of any name
            following.add(_next(path, places, token))
        if frozenset() in following:
            return False
        ways = following
    return all(places is nothing or any(_is_end(path, place) for place, _ in places) for places in ways)


def _next(path: tuple[str, ...], places: frozenset[tuple[int, bool]], token: str) -> frozenset[tuple[int, bool]]:
    """Return the places in `path` behind `token` of a pattern, in which ``**`` is a segment at least."""
    following = {place for place in places if place[1]}
    seen = set()
    for place, _ in places:
        while place < len(path) and place not in seen:
            seen.add(place)
            is_repeated = path[place] in REPEATS
            if _stands_for(path[place], token):
                following.add((place + 1, is_repeated))
            if not is_repeated:  # else it may stand for nothing
                break
            place += 1
    return frozenset(following)


def _is_end(path: tuple[str, ...], place: int) -> bool:
    """Return whether nothing has to come in `path` from `place` on."""
    return all(token in REPEATS for token in path[place:])


def _stands_for(token: str, other: str) -> bool:
    """Return whether `token` of a pattern can stand for all that `other` does, be that of a name or a pattern."""
    if token == other:
        return True
    is_known = token in _STARS and (token in REPEATS or other not in REPEATS)
    return is_known and _separator(token) == _separator(other)


def _separator(token: str) -> str:
    return token[:1] if token[:1] in _SEPARATORS else ""


class _Node(Generic[T]):
    """A place in the tree: what is filed here, and the tokens that lead on."""

    __slots__ = ("children", "repeats", "values")

    def __init__(self, *, repeats: bool) -> None:
        self.repeats = repeats
        self.values: dict[T, int] = {}  # how often each is filed: different patterns may have a path in common
        self.children: dict[str, _Node[T]] = {}


class PatternTree(Generic[T]):
    """Patterns with what belongs to each, searched by name all at once.

    A search walks the tokens of the name once and keeps the set of the nodes that fit so far, so that it
    never goes back. Its cost grows with the patterns that fit the beginning of the name, not with all that
    are filed.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node(repeats=False)
        self._size = 0

    def __len__(self) -> int:
        """Count what is filed."""
        return self._size

    def add(self, pattern: Pattern, value: T) -> None:
        """File `value` (which must be hashable) under `pattern`."""
        for path in pattern.paths:
            node = self._root
            for token in path:
                child = node.children.get(token)
                if child is None:
                    child = node.children[token] = _Node(repeats=token in REPEATS)
                node = child
            node.values[value] = node.values.get(value, 0) + 1
        self._size += 1

    def remove(self, pattern: Pattern, value: T) -> None:
        """Take `value` away from `pattern`, where it must be filed."""
        for path in pattern.paths:
            trail = [self._root]
            for token in path:
                trail.append(trail[-1].children[token])
            values = trail[-1].values
            values[value] -= 1
            if not values[value]:
                del values[value]
            for parent, token, node in zip(trail[-2::-1], path[::-1], trail[:0:-1], strict=True):
                if node.values or node.children:
                    break
                del parent.children[token]
        self._size -= 1

    def match(self, name: str) -> Iterator[T]:
        """Return what is filed under the patterns that match `name`, each once."""
        nodes: dict[_Node[T], None] = {self._root: None}
        for token in tokens_of(name):
            steps = steps_of(token)
            following = {node: None for node in nodes if node.repeats}
            for node in _with_empty(nodes):
                for step in steps:
                    if (child := node.children.get(step)) is not None:
                        following[child] = None
            if not following:
                return iter(())
            nodes = following
        return iter(dict.fromkeys(value for node in _with_empty(nodes) for value in node.values))


def steps_of(token: str) -> tuple[str, str, str]:
    """Return the tokens of patterns that may stand for `token` of a name."""
    separator = _separator(token)
    return token, f"{separator}*", f"{separator}**"


def _with_empty(nodes: Iterable[_Node[T]]) -> list[_Node[T]]:
    """Return `nodes` and every ``**`` that follows them: those may stand for nothing."""
    reached = list(nodes)
    seen = set(reached)
    for node in reached:  # grows as it is walked
        for token in REPEATS:
            child = node.children.get(token)
            if child is not None and child not in seen:
                seen.add(child)
                reached.append(child)
    return reached
