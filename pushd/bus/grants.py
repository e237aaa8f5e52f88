"""Who may do what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pushd.bus.patterns import Pattern, PatternTree
from pushd.errors import Forbidden, Refused, Unauthorized

__all__ = ["EVERYTHING", "MAX_PATTERNS", "NOTHING", "ChannelScope", "Grants", "Identity", "regranted"]

MAX_PATTERNS = 100
"""How many patterns a token or a hook may grant for one right."""

_FEW = 4
"""How many patterns are tried one after the other: for more, a tree is worth its memory."""


class ChannelScope:
    """The channels that a right reaches: those of some patterns."""

    __slots__ = ("_is_all", "_names", "_patterns", "_tree", "patterns", "texts")

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.patterns = patterns = tuple(patterns)
        self.texts = tuple(pattern.text for pattern in patterns)
        """The patterns as they were written."""
        self._is_all = "**" in self.texts
        self._names = frozenset(pattern.text for pattern in patterns if pattern.is_name)
        self._patterns = tuple(pattern for pattern in patterns if not pattern.is_name)
        self._tree: PatternTree[None] | None = None

    def __bool__(self) -> bool:
        """Return whether there is any channel."""
        return bool(self.texts)

    def __eq__(self, other: object) -> bool:
        """Compare what was written."""
        return isinstance(other, ChannelScope) and self.texts == other.texts

    def __hash__(self) -> int:
        """Go by what was written."""
        return hash(self.texts)

    def has(self, text: str) -> bool:
        """Return whether the channel `text`, or every channel that the pattern `text` matches, is reached.

        A pattern must be covered by one of these; several that only cover it together do not count.
        """
        if self._is_all or text in self._names:
            return True
        if not self._patterns:
            return False
        asked = Pattern.parse(text)
        if not asked.is_name:
            return any(pattern.covers(asked) for pattern in self._patterns)
        if len(self._patterns) <= _FEW:
            return any(pattern.matches(text) for pattern in self._patterns)
        return any(True for _ in self._searched().match(text))

    def _searched(self) -> PatternTree[None]:
        """Return the tree of the patterns, which is made when it is first asked for."""
        tree = self._tree
        if tree is None:
            tree = self._tree = PatternTree()
            for pattern in self._patterns:
                tree.add(pattern, None)
        return tree


_ALL = ChannelScope([Pattern.parse("**")])
_NONE = ChannelScope([])


@dataclass(frozen=True, slots=True)
class Grants:
    """The rights of one client. The bus asks them for every operation."""

    publish: ChannelScope
    """To which channels the client may publish."""

    subscribe: ChannelScope
    """To which channels it may subscribe, and whose history and state it may read."""

    is_operator: bool = False
    """Whether it may look after channels and connections."""

    origin: str = "[auth] anonymous"
    """Where the rights come from, for the one who is refused."""

    wants_token: bool = False
    """Whether a token might give more, and none was shown."""

    @classmethod
    def of(
        cls,
        words: Iterable[str],
        publish: Iterable[Pattern] = (),
        subscribe: Iterable[Pattern] = (),
        *,
        origin: str = "[auth] anonymous",
        wants_token: bool = False,
    ) -> Grants:
        """Make those that ``[auth]`` writes as `words` for everything, and patterns."""
        words = frozenset(words)
        return cls(
            _ALL if "publish" in words else ChannelScope(publish),
            _ALL if "subscribe" in words else ChannelScope(subscribe),
            "operator" in words,
            origin,
            wants_token,
        )

    def check_publish(self, channel: str) -> None:
        """Raise `Forbidden` or `Unauthorized` unless the client may publish to `channel`."""
        if self.publish is not _ALL and not self.publish.has(channel):
            raise self._refusal(f"no right to publish to {channel!r}", "publish")

    def check_publish_anywhere(self) -> None:
        """Raise `Forbidden` or `Unauthorized` if the client may publish to no channel at all."""
        if not self.publish:
            raise self._refusal("no right to publish", "publish")

    def check_subscribe(self, pattern: str) -> None:
        """Raise `Forbidden` or `Unauthorized` unless the client may subscribe to `pattern`."""
        if self.subscribe is not _ALL and not self.subscribe.has(pattern):
            raise self._refusal(f"no right to subscribe to {pattern!r}", "subscribe")

    def check_operator(self, what: str) -> None:
        """Raise `Forbidden` or `Unauthorized` unless the client may look after things, here by `what`."""
        if not self.is_operator:
            raise self._refusal(f"no right to {what}", "operator")

    def _refusal(self, detail: str, right: str) -> Refused:
        kind = Unauthorized if self.wants_token else Forbidden
        wanted = "; wanted a token that does" if self.wants_token else ""
        return kind(f"{detail}: {self.origin} does not give {right} for it{wanted}")


EVERYTHING = Grants(_ALL, _ALL, True, "pushd itself")
"""The rights of the daemon itself."""

NOTHING = Grants(_NONE, _NONE)
"""No rights."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is, as far as somebody vouches for it."""

    grants: Grants
    """What it may do."""

    user: str | None = None
    """What the user is called, by the claim ``sub`` of a token, or a certificate, or the application."""

    payload: object = None
    """What others are shown of it: a JSON value."""

    expires_at: float | None = field(default=None)
    """When all this ends, in seconds since 1970; None: never. Not later than `certified_until`."""

    certified_until: float | None = None
    """When the certificate of its connection expires, in seconds since 1970; None if it has none."""

    def __post_init__(self) -> None:
        """Have nothing outlive the certificate: neither a token, nor what the application grants."""
        if self.certified_until is not None and (self.expires_at is None or self.expires_at > self.certified_until):
            object.__setattr__(self, "expires_at", self.certified_until)

    @property
    def end(self) -> str:
        """What to say when it has ended."""
        if self.expires_at is not None and self.expires_at == self.certified_until:
            return "the client certificate has expired; connect again with a new one"
        return "the token has expired; come back with a new one"


def regranted(identity: Identity, before: Grants, after: Grants) -> Identity:
    """Return `identity` with `after` in the place of `before`, or of what the application has left of that."""
    grants = identity.grants
    if grants is before:
        return replace(identity, grants=after)
    if not grants.origin.startswith(f"{before.origin} with "):
        return identity
    changed = replace(
        grants,
        publish=after.publish if grants.publish is before.publish else grants.publish,
        subscribe=after.subscribe if grants.subscribe is before.subscribe else grants.subscribe,
        is_operator=grants.is_operator and (after.is_operator or not before.is_operator),
    )
    return replace(identity, grants=changed)
