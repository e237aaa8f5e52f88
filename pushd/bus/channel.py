"""One channel of the bus: its offsets and its history."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from pushd.bus.event import Entry, Event
from pushd.bus.history import History, RetentionLimits
from pushd.bus.linked_list import Link

__all__ = ["Channel", "Idle", "Settings"]

S = TypeVar("S")


class Settings(RetentionLimits, Protocol):
    """What the bus wants to know of the configuration of a channel."""

    @property
    def on_overflow(self) -> str:
        """What becomes of a subscriber that is too slow: ``close``, or ``latest``: it misses older events."""

    @property
    def presence(self) -> str:
        """Who is told who is there: ``operator``, ``subscribers``, or ``events``: these, and by events too."""


class Channel(Link, Generic[S]):
    """What the bus knows of one channel. `S` is what is subscribed to it.

    It has its place in the order of the channels that had an event.
    """

    __slots__ = (
        "awaits_expiry",
        "awaits_room",
        "history",
        "idle",
        "is_heard",
        "is_staged",
        "name",
        "offset",
        "settings",
        "size_bytes",
    )

    def __init__(self, name: str, settings: Settings, history: History, *, offset: int) -> None:
        super().__init__()
        self.name = name
        self.settings = settings
        self.offset = offset
        """The offset of the latest event it ever had."""
        self.history = history
        self.size_bytes = 0
        """How much of the size of all events is counted as this channel's: see `pushd.bus.retention`."""
        self.is_heard = False
        """True while anybody is subscribed to it by its name."""
        self.idle: Idle[S] | None = None
        """Its place among those that have no events, if it is one of them."""
        self.is_staged = False
        """True while events are on their way into it: see `pushd.bus.batch`."""
        self.awaits_expiry = False
        """True if the log is going to look when its oldest entry has become too old."""
        self.awaits_room = False
        """True if the log knows where it stands among those that are trimmed when the whole log is too large."""

    @property
    def is_idle(self) -> bool:
        """True if it has no event, nor one on its way."""
        return not self.history and not self.is_staged

    def entry(self, event: Event, offset: int, seconds: float) -> Entry:
        """Make the entry of `event` at `offset`, which is not in the history yet."""
        settings = self.settings
        return Entry(event, self.name, offset, seconds + settings.history_age_s, settings.on_overflow == "latest")


class Idle(Link, Generic[S]):
    """The place of a channel among those without events."""

    __slots__ = ("channel", "is_heard")

    def __init__(self, channel: Channel[S]) -> None:
        super().__init__()
        self.channel = channel
        self.is_heard = channel.is_heard
        """What `Channel.is_heard` was when it got this place."""
