"""One channel of the bus: its offsets, its history, and who is subscribed to it by name."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from pushd.event import Entry, Event
from pushd.history import History

__all__ = ["Channel", "Settings"]

S = TypeVar("S")


class Settings(Protocol):
    """What the bus wants to know of the configuration of a channel."""

    @property
    def history_size(self) -> int:
        """How many events it keeps at most."""

    @property
    def history_age_s(self) -> float:
        """How long it keeps an event, in seconds."""

    @property
    def on_overflow(self) -> str:
        """What becomes of a subscriber that is too slow: ``close``, or ``latest``: it misses older events."""


class Channel(Generic[S]):
    """What the bus knows of one channel. `S` is what is subscribed to it."""

    __slots__ = ("awaits_expiry", "history", "name", "offset", "settings", "subscribed")

    def __init__(self, name: str, settings: Settings, *, offset: int, dropped: int) -> None:
        self.name = name
        self.settings = settings
        self.offset = offset
        """The offset of the latest event it ever had."""
        self.history = History(dropped)
        self.subscribed: dict[S, None] = {}
        """Who is subscribed to it by its name."""
        self.awaits_expiry = False
        """True if the log is going to look when its oldest entry has become too old."""

    @property
    def sequence(self) -> int:
        """The place in the log of its latest event."""
        latest = self.history.latest
        return self.history.dropped if latest is None else latest.event.sequence

    @property
    def is_idle(self) -> bool:
        """True if nobody would miss it: nothing kept, nobody subscribed by name."""
        return not self.history and not self.subscribed

    def add(self, event: Event, seconds: float) -> Entry:
        """Give `event` the next offset and append it to the history, which the log then trims."""
        self.offset += 1
        settings = self.settings
        expires_s, may_be_missed = seconds + settings.history_age_s, settings.on_overflow == "latest"
        entry = Entry(event, self.name, self.offset, expires_s, may_be_missed)
        self.history.append(entry)
        return entry

    def drop_surplus(self, seconds: float) -> list[Entry]:
        """Drop the oldest entries, as far as they are over the limits of count or age; answer them."""
        return self.history.trim(self.settings.history_size, seconds)
