"""One channel of the bus: its offsets and its history."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from pushd.bus.event import Entry, Event
from pushd.bus.history import History, RetentionLimits
from pushd.bus.linked_list import Link

__all__ = ["Channel", "Idle", "Settings"]

S = TypeVar("S")


class Settings(RetentionLimits, Protocol):
    """The configuration of a channel, as far as the bus needs it."""

    @property
    def on_overflow(self) -> str:
        """The policy for a slow subscriber: ``close`` it, or ``latest``: skip its older events."""

    @property
    def presence(self) -> str:
        """The audience of presence: ``operator``; ``subscribers``; or ``events``: subscribers, and as events."""


class Channel(Link, Generic[S]):
    """The state of one channel in the bus. `S` is the type of its subscriptions.

    The channel is a link in the list of channels that had an event, ordered by the latest event.

    ==================  ==========================================================================
    Flag                Set while
    ==================  ==========================================================================
    ``is_heard``        a client is subscribed to the channel by name
    ``is_staged``       events for the channel are in a batch that is not committed
    ``awaits_expiry``   the retention queue tracks when the oldest entry expires
    ``awaits_room``     the retention queue tracks the channel for trimming by total size
    ==================  ==========================================================================
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
        """The offset of the latest event that the channel ever had."""
        self.history = history
        self.size_bytes = 0
        """The share of this channel in the size of all events, in bytes: see `pushd.bus.retention`."""
        self.is_heard = False
        """True while a client is subscribed to the channel by name."""
        self.idle: Idle[S] | None = None
        """The place of the channel among the idle channels, None if it is not idle."""
        self.is_staged = False
        """True while a batch has uncommitted events for the channel: see `pushd.bus.batch`."""
        self.awaits_expiry = False
        """True if the retention queue tracks when the oldest entry expires."""
        self.awaits_room = False
        """True if the retention queue tracks the channel for trimming when the log is too large."""

    @property
    def is_idle(self) -> bool:
        """True if the channel has no event, retained or staged."""
        return not self.history and not self.is_staged

    def entry(self, event: Event, offset: int, seconds: float) -> Entry:
        """Return the entry of `event` at `offset`, without adding it to the history."""
        settings = self.settings
        return Entry(event, self.name, offset, seconds + settings.history_age_s, settings.on_overflow == "latest")


class Idle(Link, Generic[S]):
    """The place of a channel among the channels without events."""

    __slots__ = ("channel", "is_heard")

    def __init__(self, channel: Channel[S]) -> None:
        super().__init__()
        self.channel = channel
        self.is_heard = channel.is_heard
        """The value of `Channel.is_heard` when the channel became idle here."""
