"""The audience: who gets what is published to a channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pushd.channels import Pattern, PatternTree
from pushd.event import Entry

__all__ = ["Audience", "Audiences", "Recipient"]


class Recipient(Protocol):
    """One that takes entries, for itself or for several that want the same."""

    @property
    def deliver(self) -> Callable[[Entry], None]:
        """Take an entry."""


R = TypeVar("R", bound=Recipient)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Audience(Generic[R]):
    """Who gets an entry."""

    recipients: tuple[R, ...]
    """Each gets it once."""

    count: int
    """How many subscribers that are."""


class Audiences(Generic[R, S]):
    """The audience of each channel, made when it is first wanted and kept until a subscription changes."""

    def __init__(
        self,
        by_name: Callable[[str], Iterable[S] | None],
        recipient: Callable[[S], R],
        max_kept: Callable[[], int],
    ) -> None:
        """Begin without patterns.

        `by_name` answers who subscribed to a channel by its name, None if it does not exist; `recipient` who takes
        entries for one of them. About `max_kept` audiences are kept.
        """
        self._by_name = by_name
        self._recipient = recipient
        self._max_kept = max_kept
        self._by_pattern: PatternTree[S] = PatternTree()
        self._kept: dict[str, Audience[R]] = {}

    def of(self, name: str) -> Audience[R]:
        """Answer who gets the events of the channel `name`."""
        audience = self._kept.get(name)
        if audience is None:
            subscribed = self._by_name(name)
            members = dict.fromkeys(subscribed or ())
            if self._by_pattern:
                members.update(dict.fromkeys(self._by_pattern.match(name)))
            audience = Audience(tuple(dict.fromkeys(map(self._recipient, members))), len(members))
            if subscribed is not None:
                if len(self._kept) > self._max_kept():  # most are of channels that were given up
                    self._kept.clear()
                self._kept[name] = audience
        return audience

    def of_each(self, entries: list[Entry]) -> list[Audience[R]]:
        """Answer who gets each entry of one event; nobody gets two of them."""
        if len(entries) == 1:
            return [self.of(entries[0].channel)]
        seen: set[R] = set()
        audiences = []
        for entry in entries:
            whole = self.of(entry.channel)
            recipients = tuple(one for one in whole.recipients if one not in seen)
            seen.update(recipients)
            audiences.append(Audience(recipients, whole.count - len(whole.recipients) + len(recipients)))
        return audiences

    def enter(self, pattern: Pattern, subscriber: S) -> None:
        """Note that `subscriber` has come to the channel, or to all that a pattern matches."""
        if pattern.is_name:
            self.forget(pattern.text)
        else:
            self._by_pattern.add(pattern, subscriber)
            self._kept.clear()

    def leave(self, pattern: Pattern, subscriber: S) -> None:
        """Note that `subscriber` has left."""
        if pattern.is_name:
            self.forget(pattern.text)
        else:
            self._by_pattern.remove(pattern, subscriber)
            self._kept.clear()

    def forget(self, name: str) -> None:
        """Make the audience of a channel anew when it is wanted."""
        self._kept.pop(name, None)
