"""The recipients of a channel: find the subscribers that get its events."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from pushd.bus.clientinfo import ClientInfo
from pushd.bus.closing import CloseReason
from pushd.bus.event import Entry
from pushd.bus.many_patterns import ManyPatterns
from pushd.bus.name_index import NameIndex
from pushd.bus.partitioned_dict import PARTS, PartitionedDict
from pushd.bus.patterns import Pattern

__all__ = ["Recipient", "RecipientIndex", "Recipients", "Subscribed"]


_FREED_AT_ONCE = 1000
"""How many cached `Recipients` are freed at once; that takes about 0.1 ms."""


class Recipient(Protocol):
    """A receiver of entries: one subscription, or a fan-out group in place of several."""

    is_group: ClassVar[bool]
    """True for a fan-out group: subscribers of one channel that receive identical events as one recipient."""

    @property
    def deliver(self) -> Callable[[Entry], None]:
        """Deliver an entry."""

    @property
    def subscriptions(self) -> Iterable[Subscribed]:
        """The subscriptions that the recipient receives entries for."""


class Subscribed(Recipient, Protocol):
    """One subscription, as the bus sees it: a `pushd.bus.subscription.Subscription`."""

    caller: ClientInfo
    """The client that is subscribed."""

    group: Recipient | None
    """The fan-out group that receives entries in place of this subscription."""

    def fail(self, error: Exception) -> None:
        """End the subscription of a subscriber that raised `error`."""

    def end(self, reason: CloseReason) -> None:
        """End the subscription, and close its subscriber with `reason`."""


R = TypeVar("R", bound=Recipient)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Recipients(Generic[R]):
    """The recipients of an entry."""

    recipients: tuple[R, ...]
    """The recipients; each gets the entry once."""

    count: int
    """The number of subscribers behind the recipients."""


class RecipientIndex(Generic[R, S]):
    """An index of subscribers by channel and pattern, with a cache of the `Recipients` per channel.

    `Recipients` are built on first use and cached until a subscription to the channel changes. A change of a
    pattern drops the whole cache; a large one is freed in small parts: 100,000 entries at once take 10 ms.
    """

    def __init__(self, channels: Container[str], recipient: Callable[[S], R], max_kept: Callable[[], int]) -> None:
        """Start without subscribers.

        `recipient` returns the recipient for one subscriber: itself or its fan-out group. The cache has about
        `max_kept` entries, only for names that are in `channels` or have subscribers.
        """
        self._channels = channels
        self._recipient = recipient
        self._max_kept = max_kept
        self._by_name: PartitionedDict[str, dict[S, None]] = PartitionedDict()
        self.index = NameIndex()
        """The names of channels that have subscribers by name, in order."""
        self._by_pattern: ManyPatterns[S] = ManyPatterns()
        self._kept: PartitionedDict[str, Recipients[R]] = PartitionedDict()
        self._dropped: list[dict[str, Recipients[R]]] = []  # still to be freed

    def of(self, name: str) -> Recipients[R]:
        """Return the recipients of the channel `name`."""
        part = self._kept.parts[hash(name) % PARTS]
        audience = part[name] if name in part else None  # noqa: SIM401  `get` would be a call
        if audience is None:
            members = dict.fromkeys(self.by_name(name))
            if self._by_pattern:
                members.update(dict.fromkeys(self._by_pattern.match(name)))
            audience = Recipients(tuple(dict.fromkeys(map(self._recipient, members))), len(members))
            if members or name in self._channels:
                if len(self._kept) > self._max_kept():  # most belong to channels that were given up
                    self._drop_all()
                self._kept[name] = audience
            if self._dropped:
                self._free(2)
        return audience

    def _drop_all(self) -> None:
        if len(self._kept) <= _FREED_AT_ONCE:
            self._kept.clear()
            return
        self._dropped += filter(None, self._kept.parts)
        self._kept = PartitionedDict()
        self._free(_FREED_AT_ONCE)  # once: a client may subscribe to a hundred patterns in one call

    def _free(self, count: int) -> None:
        """Free up to `count` dropped cache entries."""
        while count > 0 and self._dropped:
            dropped = self._dropped[-1]
            for _ in range(min(count, len(dropped))):
                dropped.popitem()
                count -= 1
            if not dropped:
                self._dropped.pop()

    def of_each(self, entries: list[Entry]) -> list[Recipients[R]]:
        """Return the recipients of each entry of one event; no recipient gets two of the entries."""
        if len(entries) == 1:
            return [self.of(entries[0].channel)]
        seen: set[R] = set()
        audiences = []
        for entry in entries:
            whole = self.of(entry.channel)
            recipients = tuple(one for one in whole.recipients if one not in seen)
            seen.update(recipients)
            audiences.append(Recipients(recipients, whole.count - len(whole.recipients) + len(recipients)))
        return audiences

    def by_name(self, name: str) -> Collection[S]:
        """Return the subscribers of the channel `name` by name, without those by pattern."""
        return self._by_name.get(name) or ()

    def has_name(self, name: str) -> bool:
        """Return whether the channel `name` has subscribers by name."""
        return name in self._by_name

    @property
    def names(self) -> Collection[str]:
        """The names of channels that have subscribers by name."""
        return self._by_name

    def enter(self, pattern: Pattern, subscriber: S) -> int:
        """Add a subscriber; return the number of subscribers of the channel by name, 0 for a pattern."""
        if not pattern.is_name:
            self._by_pattern.add(pattern, subscriber)
            self._drop_all()
            return 0
        subscribed = self._by_name.get(pattern.text)
        if subscribed is None:
            subscribed = self._by_name[pattern.text] = {}
            self.index.add(pattern.text)
        subscribed[subscriber] = None
        self.forget(pattern.text)
        return len(subscribed)

    def leave(self, pattern: Pattern, subscriber: S) -> int:
        """Undo `enter`; return the number of remaining subscribers of the channel by name, 0 for a pattern."""
        if not pattern.is_name:
            self._by_pattern.remove(pattern, subscriber)
            self._drop_all()
            return 0
        subscribed = self._by_name[pattern.text]
        del subscribed[subscriber]
        if not subscribed:
            del self._by_name[pattern.text]
            self.index.remove(pattern.text)
        self.forget(pattern.text)
        return len(subscribed)

    def forget(self, name: str) -> None:
        """Drop the cached recipients of a channel, to be rebuilt on next use."""
        self._kept.pop(name, None)
