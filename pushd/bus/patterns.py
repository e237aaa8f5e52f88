"""Channel names, and patterns that match many names.

The separators ``/``, ``.`` and ``:`` split a name into segments. A star is special only as a whole segment:

============  ======================================  ======================================================
pattern       matches                                 example
============  ======================================  ======================================================
``*``         exactly one segment                     ``news/*``: ``news/sport``
``**``        any number of segments, including none  ``news/**``: ``news``, ``news/sport``, ``news/sport/chess``
``**`` alone  every name
============  ======================================  ======================================================

Inside this module a name is a list of tokens, each a segment with the separator before it: ``news/a.b`` is
``["news", "/a", ".b"]``. So ``a/b`` and ``a.b`` are different names for a pattern, too.
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
    "CONTROL",
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
"""How many ``**`` a pattern may have: each one makes matching and comparing more expensive."""

CONTROL = r"\x00-\x1f\x7f-\x9f"
"""The control characters, as part of a set in a regular expression."""

_CONTROL_OR_LINE_END = re.compile(rf"[{CONTROL}\u2028\u2029]")
_TOKEN = re.compile(r"^[^/.:]*|[/.:][^/.:]*")
_SEPARATORS = ("/", ".", ":")
REPEATS = ("**", *(f"{separator}**" for separator in _SEPARATORS))
"""The tokens of a pattern that match any number of segments."""

_STARS = ("*", *(f"{separator}*" for separator in _SEPARATORS), *REPEATS)

T = TypeVar("T")


@lru_cache(4096)
def check_name(name: str) -> str:
    """Return `name` if it names one channel; raise `BadRequest` if it is a pattern or invalid."""
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
    if _CONTROL_OR_LINE_END.search(name):
        raise BadRequest(f"the channel name {name!r} has a control character", "channel")


def tokens_of(text: str) -> list[str]:
    """Split a name or a pattern into its tokens."""
    return _TOKEN.findall(text)


@dataclass(frozen=True, slots=True)
class Pattern:
    """The target of a subscription or grant: one channel by name, or all channels that match a pattern."""

    text: str
    """The pattern as written."""

    paths: tuple[tuple[str, ...], ...]
    """The equivalent sequences of tokens: one, plus one for each leading ``**``."""

    is_name: bool
    """True if the pattern has no star, so it matches only the channel of that name."""

    @property
    def is_plain(self) -> bool:
        """True if the pattern has at most one star, and nothing after a ``**``."""
        path = self.paths[0]
        stars = [place for place, token in enumerate(path) if token in _STARS]
        return not stars or (len(stars) == 1 and (path[stars[0]] not in REPEATS or stars[0] == len(path) - 1))

    @property
    def prefix(self) -> str:
        """The common prefix of all matching names: the tokens before the first star."""
        return "".join(takewhile(lambda token: token not in _STARS, self.paths[0]))

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Parse a pattern; raise `BadRequest` if `text` is neither a name nor a pattern.

        Recent patterns are cached: thousands of subscribers to the same pattern share one object.
        """
        return _parsed(text)

    def matches(self, name: str) -> bool:
        """Return whether the pattern matches the channel `name`, in time linear in the length of `name`."""
        if self.is_name:
            return name == self.text
        tokens = tuple(tokens_of(name))
        return any(_covers(path, tokens) for path in self.paths)

    @property
    def beginnings(self) -> tuple[list[str], list[str]]:
        """Prefixes, one of which every matching name has; and the matching names that have none of them."""
        prefixes, names = [], []
        for path in self.paths:
            known = list(takewhile(lambda token: token not in _STARS, path))
            prefix, star = "".join(known), path[len(known)] if len(known) < len(path) else ""
            if star in REPEATS and len(path) == len(known) + 1 and prefix:  # a/** matches a and a/...
                names.append(prefix)
            if star not in REPEATS or len(path) == len(known) + 1:
                prefix += _separator(star)
            prefixes.append(prefix)
        return prefixes, names

    def covers(self, other: Pattern) -> bool:
        """Return whether this pattern matches every channel that `other` matches."""
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
        # A leading ** may match no segment; then the separator after it is absent, too.
        paths.append((paths[-1][1][1:], *paths[-1][2:]))
    return Pattern(text, tuple(paths), not any(token in _STARS for token in tokens))


def _covers(path: tuple[str, ...], asked: tuple[str, ...]) -> bool:
    """Return whether `path` matches every name that `asked` matches.

    Each ``**`` of `asked` matches no segment, or at least one. The search walks the tokens once and keeps one set
    of places in `path` per distinct outcome of these choices. A place is stored with a flag: True if the ``**``
    before it has started, because a started ``**`` continues with any token.
    """
    nothing = frozenset({(0, False)})
    ways = {nothing}
    for token in asked:
        is_repeated = token in REPEATS
        following = set(ways) if is_repeated else set()
        for places in ways:
            if places is nothing and _separator(token):
                continue  # the first token of a name has no separator
            following.add(_next(path, places, token))
        if frozenset() in following:
            return False
        ways = following
    return all(places is nothing or any(_is_end(path, place) for place, _ in places) for places in ways)


def _next(path: tuple[str, ...], places: frozenset[tuple[int, bool]], token: str) -> frozenset[tuple[int, bool]]:
    """Return the places in `path` after `token` of a pattern; a ``**`` as `token` is at least one segment."""
    following = {place for place in places if place[1]}
    seen = set()
    for place, _ in places:
        while place < len(path) and place not in seen:
            seen.add(place)
            is_repeated = path[place] in REPEATS
            if _stands_for(path[place], token):
                following.add((place + 1, is_repeated))
            if not is_repeated:  # a ** may match no segment, so try the next place
                break
            place += 1
    return frozenset(following)


def _is_end(path: tuple[str, ...], place: int) -> bool:
    """Return whether the rest of `path` from `place` on may match no segment."""
    return all(token in REPEATS for token in path[place:])


def _stands_for(token: str, other: str) -> bool:
    """Return whether `token` of a pattern matches all that `other`, a token of a name or pattern, matches."""
    if token == other:
        return True
    is_known = token in _STARS and (token in REPEATS or other not in REPEATS)
    return is_known and _separator(token) == _separator(other)


def _separator(token: str) -> str:
    return token[:1] if token[:1] in _SEPARATORS else ""


class _Node(Generic[T]):
    """A node of the tree: the values of the patterns that end here, and the next tokens."""

    __slots__ = ("children", "repeats", "values")

    def __init__(self, *, repeats: bool) -> None:
        self.repeats = repeats
        self.values: dict[T, int] = {}  # with their counts: different patterns may share a path
        self.children: dict[str, _Node[T]] = {}


class PatternTree(Generic[T]):
    """A map from patterns to values, searched by name for all patterns at once.

    A search walks the tokens of the name once, without backtracking: it keeps the set of nodes that match so far.
    Its cost grows with the patterns that match the beginning of the name, not with all patterns in the tree.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node(repeats=False)
        self._size = 0

    def __len__(self) -> int:
        """Return the number of pairs of pattern and value."""
        return self._size

    def add(self, pattern: Pattern, value: T) -> None:
        """Add `value`, which must be hashable, to `pattern`."""
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
        """Remove `value` from `pattern`, which must have it."""
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
        """Return the values of all patterns that match `name`, each once."""
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
    """Return the tokens of patterns that match `token` of a name."""
    separator = _separator(token)
    return token, f"{separator}*", f"{separator}**"


def _with_empty(nodes: Iterable[_Node[T]]) -> list[_Node[T]]:
    """Return `nodes` and every ``**`` that follows them, because a ``**`` may match no segment."""
    reached = list(nodes)
    seen = set(reached)
    for node in reached:  # grows during the loop
        for token in REPEATS:
            child = node.children.get(token)
            if child is not None and child not in seen:
                seen.add(child)
                reached.append(child)
    return reached
