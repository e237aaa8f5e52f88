"""The audience: who gets what is published to a channel."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pushd.bus.event import Entry
from pushd.bus.many_patterns import ManyPatterns
from pushd.bus.name_index import NameIndex
from pushd.bus.partitioned_dict import PARTS, PartitionedDict
from pushd.bus.patterns import Pattern

__all__ = ["Recipient", "RecipientIndex", "Recipients"]


_FREED_AT_ONCE = 1000
"""How many audiences are freed at once; that takes about 0.1 ms."""


class Recipient(Protocol):
    """One that takes entries, for itself or for several that want the same."""

    @property
    def deliver(self) -> Callable[[Entry], None]:
        """Take an entry."""


R = TypeVar("R", bound=Recipient)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Recipients(Generic[R]):
    """Who gets an entry."""

    recipients: tuple[R, ...]
    """Each gets it once."""

    count: int
    """How many subscribers that are."""


class RecipientIndex(Generic[R, S]):
    """Who is subscribed to what. The audience of a channel is made when it is first wanted.

    It is kept until a subscription changes. A change of a pattern drops all of them; if these are many, they are
    freed a few at a time, because freeing 100,000 at once takes 10 ms.
    """

    def __init__(self, channels: Container[str], recipient: Callable[[S], R], max_kept: Callable[[], int]) -> None:
        """Begin without subscribers.

        `recipient` returns who takes entries for one subscriber. About `max_kept` audiences are kept, of names
        that are those of `channels` or that somebody is subscribed to.
        """
        self._channels = channels
        self._recipient = recipient
        self._max_kept = max_kept
        self._by_name: PartitionedDict[str, dict[S, None]] = PartitionedDict()
        self.index = NameIndex()
        """The names that anybody is subscribed to, in order."""
        self._by_pattern: ManyPatterns[S] = ManyPatterns()
        self._kept: PartitionedDict[str, Recipients[R]] = PartitionedDict()
        self._dropped: list[dict[str, Recipients[R]]] = []  # those to be freed

    def of(self, name: str) -> Recipients[R]:
        """Return who gets the events of the channel `name`."""
        part = self._kept.parts[hash(name) % PARTS]
        audience = part[name] if name in part else None  # noqa: SIM401  `get` would be a call
        if audience is None:
            members = dict.fromkeys(self.by_name(name))
            if self._by_pattern:
                members.update(dict.fromkeys(self._by_pattern.match(name)))
            audience = Recipients(tuple(dict.fromkeys(map(self._recipient, members))), len(members))
            if members or name in self._channels:
                if len(self._kept) > self._max_kept():  # most are of channels that were given up
                    self._drop_all()
                self._kept[name] = audience
            if self._dropped:
                self._free(2)
        return audience

    def _drop_all(self) -> None:
        if len(self._kept) <= _FREED_AT_ONCE:
            self._kept.clear()
        else:
            self._dropped += filter(None, self._kept.parts)
            self._kept = PartitionedDict()
        if self._dropped:
            self._free(_FREED_AT_ONCE)

    def _free(self, count: int) -> None:
        """Free some of the audiences that were dropped."""
        while count > 0 and self._dropped:
            dropped = self._dropped[-1]
            for _ in range(min(count, len(dropped))):
                dropped.popitem()
                count -= 1
            if not dropped:
                self._dropped.pop()

    def of_each(self, entries: list[Entry]) -> list[Recipients[R]]:
        """Return who gets each entry of one event; nobody gets two of them."""
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
        """Return who is subscribed to the channel `name` by its name."""
        return self._by_name.get(name) or ()

    def has_name(self, name: str) -> bool:
        """Return whether anybody is subscribed to the channel `name` by its name."""
        return name in self._by_name

    @property
    def names(self) -> Collection[str]:
        """The names that anybody is subscribed to."""
        return self._by_name

    def enter(self, pattern: Pattern, subscriber: S) -> int:
        """Add a subscriber; return how many are subscribed to its channel by name, 0 for a pattern."""
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
        """Undo `enter`; return how many are still subscribed to its channel by name, 0 for a pattern."""
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
        """Make the audience of a channel anew when it is wanted."""
        self._kept.pop(name, None)
