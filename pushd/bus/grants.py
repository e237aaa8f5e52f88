"""Grants: the permissions of a client to publish, subscribe and operate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pushd.bus.patterns import Pattern, PatternTree
from pushd.errors import Forbidden, Refused, Unauthorized

__all__ = ["EVERYTHING", "MAX_PATTERNS", "NOTHING", "ChannelScope", "Grants", "Identity", "regranted"]

MAX_PATTERNS = 100
"""The maximum number of patterns in one grant of a token or webhook."""

_FEW = 4
"""The largest number of patterns that are tried one by one; for more, a tree is worth its memory."""


class ChannelScope:
    """The channels that a grant covers, as a set of patterns."""

    __slots__ = ("_is_all", "_names", "_patterns", "_tree", "patterns", "texts")

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.patterns = patterns = tuple(patterns)
        self.texts = tuple(pattern.text for pattern in patterns)
        """The patterns as text, in the original form."""
        self._is_all = "**" in self.texts
        self._names = frozenset(pattern.text for pattern in patterns if pattern.is_name)
        self._patterns = tuple(pattern for pattern in patterns if not pattern.is_name)
        self._tree: PatternTree[None] | None = None

    def __bool__(self) -> bool:
        """Return whether the scope has any pattern."""
        return bool(self.texts)

    def __eq__(self, other: object) -> bool:
        """Compare the texts of the patterns."""
        return isinstance(other, ChannelScope) and self.texts == other.texts

    def __hash__(self) -> int:
        """Return the hash of the texts of the patterns."""
        return hash(self.texts)

    def has(self, text: str) -> bool:
        """Return whether the scope covers the channel `text`, or every channel that the pattern `text` matches.

        One pattern of the scope must cover the pattern `text` alone; a union of patterns does not count.
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
        """Return the tree of the patterns, created on first use."""
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
    """The grants of one client. The bus checks them for every operation."""

    publish: ChannelScope
    """The channels to which the client may publish."""

    subscribe: ChannelScope
    """The channels that the client may subscribe to, and whose history and state the client may read."""

    is_operator: bool = False
    """True if the client is an operator: it may manage channels and connections."""

    origin: str = "[auth] anonymous"
    """The origin of the grants, for error messages."""

    wants_token: bool = False
    """True if the client sent no token, and a token could grant more."""

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
        """Return grants for all channels from the `words` of ``[auth]``, else for patterns."""
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
        """Raise `Forbidden` or `Unauthorized` unless the client is an operator; `what` is the operation."""
        if not self.is_operator:
            raise self._refusal(f"no right to {what}", "operator")

    def _refusal(self, detail: str, right: str) -> Refused:
        kind = Unauthorized if self.wants_token else Forbidden
        wanted = "; wanted a token that does" if self.wants_token else ""
        return kind(f"{detail}: {self.origin} does not give {right} for it{wanted}")


EVERYTHING = Grants(_ALL, _ALL, True, "pushd itself")
"""The grants of pushd itself."""

NOTHING = Grants(_NONE, _NONE)
"""No grants."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The authenticated identity of a client."""

    grants: Grants
    """The grants of the client."""

    user: str | None = None
    """The name of the user: from the claim ``sub`` of a token, a certificate, or the application."""

    payload: object = None
    """The public payload of the client, for presence: a JSON value."""

    expires_at: float | None = field(default=None)
    """The expiry time, in seconds since 1970; None: never. Not later than `certified_until`."""

    certified_until: float | None = None
    """The expiry time of the client certificate, in seconds since 1970; None without a certificate."""

    def __post_init__(self) -> None:
        """Limit `expires_at` to the expiry of the certificate: neither tokens nor webhook grants outlive it."""
        if self.certified_until is not None and (self.expires_at is None or self.expires_at > self.certified_until):
            object.__setattr__(self, "expires_at", self.certified_until)

    @property
    def end(self) -> str:
        """The message for the client when the identity has expired."""
        if self.expires_at is not None and self.expires_at == self.certified_until:
            return "the client certificate has expired; connect again with a new one"
        return "the token has expired; come back with a new one"


def regranted(identity: Identity, before: Grants, after: Grants) -> Identity:
    """Return `identity` with the grants `after` instead of `before`; a restriction by a webhook stays."""
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
