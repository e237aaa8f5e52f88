"""What the tests of the core are made of: a bus whose clock they turn, subscribers that write down events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.internet.task import Clock

from pushd.bus.bus import Bus, Published
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.closing import CloseCause, CloseReason
from pushd.bus.event import Draft, Entry, Event
from pushd.bus.eventlog import EventLog, LogState
from pushd.bus.grants import EVERYTHING, Grants, Identity
from pushd.bus.patterns import Pattern
from pushd.bus.position import HistoryPage, StartPosition
from pushd.bus.sizes import EVENT_BYTES
from pushd.bus.storage import HistoryStorage, MemoryStorage
from pushd.bus.subscriber import Subscriber
from pushd.bus.subscription import Subscription
from pushd.config.timeouts import Timeouts
from pushd.server.net.addresses import ClientAddress

__all__ = [
    "EPOCH",
    "PATIENCE",
    "BusRig",
    "Client",
    "Kept",
    "a_caller",
    "catch_up",
    "datas",
    "draft",
    "entry",
    "offsets",
    "patterns",
]

EPOCH = "0123456789"
"""The epoch of every log in the tests."""

PATIENCE = Timeouts(head_timeout_s=10, request_timeout_s=60, body_rate_bytes=1024)
"""How long clients are waited for, unless a test says something else."""

STARTED = 1_700_000_000.0
"""The time of day, in seconds since 1970, when the clock of a rig stands at 0."""


@dataclass
class Kept:
    """How much a channel keeps."""

    history_size: int = 100
    """How many events."""

    history_age_s: float = 3600.0
    """For how long, in seconds."""

    history_bytes: int = 1 << 30
    """How much its events may take, in bytes."""

    on_overflow: str = "close"
    """What becomes of slow subscribers."""

    presence: str = "operator"
    """Who is notified of joins and leaves."""


def a_caller(grants: Grants = EVERYTHING, address: str = "192.0.2.1", user: str | None = None) -> ClientInfo:
    """Make one that has some rights."""
    return ClientInfo(Identity(grants, user), ClientAddress(address, f"{address}:4711"))


def patterns(*texts: str) -> list[Pattern]:
    """Parse several patterns."""
    return [Pattern.parse(text) for text in texts]


def draft(*channels: str, data: bytes = b"x", type: str | None = None, id: str | None = None) -> Draft:
    """Make a checked draft for `channels`."""
    return Draft.checked(channels, data, type=type, id=id)


def entry(sequence: int, offset: int | None = None, *, channel: str = "a", data: bytes = b"x") -> Entry:
    """Make an entry at `sequence` of the log; its offset is the same if not given."""
    position, size = f"{EPOCH}-{sequence}", EVENT_BYTES + len(data)
    event = Event(position, position, data, True, None, STARTED, sequence, size)
    return Entry(event, channel, sequence if offset is None else offset, 3600.0)


def datas(entries: list[Entry]) -> list[bytes]:
    """Return the data of each entry."""
    return [entry.event.data for entry in entries]


def offsets(entries: list[Entry]) -> list[int]:
    """Return the offset of each entry."""
    return [entry.offset for entry in entries]


@dataclass(eq=False)
class Client:
    """A subscriber that writes down what it gets; `acts` and `at_close` are called then and may raise."""

    entries: list[Entry] = field(default_factory=list)
    """What was delivered."""

    reasons: list[CloseReason] = field(default_factory=list)
    """Why it was closed, each time."""

    acts: Callable[[Entry], object] = lambda entry: None
    """What it does within `deliver`."""

    at_close: Callable[[CloseReason], object] = lambda reason: None
    """What it does within `close`."""

    def deliver(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.acts(entry)

    def close(self, reason: CloseReason) -> None:
        self.reasons.append(reason)
        self.at_close(reason)

    @property
    def datas(self) -> list[bytes]:
        """The data of everything that was delivered."""
        return datas(self.entries)

    @property
    def causes(self) -> list[CloseCause]:
        """The causes of its ends."""
        return [reason.cause for reason in self.reasons]


class BusRig:
    """A bus over a log whose clock the test turns."""

    def __init__(
        self,
        *,
        kept: dict[str, Kept] | None = None,
        default: Kept | None = None,
        seconds: Callable[[], float] | None = None,
        max_channels: int = 1000,
        max_bytes: int = 1 << 40,
        max_subscribed: int = 100,
        max_held_bytes: int = 1000,
    ) -> None:
        """Begin; `kept` are the settings of channels by name, `default` those of all others."""
        self.clock = Clock()
        self.failed: list[tuple[Subscriber, Exception]] = []
        self.seconds = seconds or self.clock.seconds
        self._kept, self._default = kept or {}, default or Kept()
        self._max_channels, self._max_bytes = max_channels, max_bytes
        self._max_subscribed, self._max_held_bytes = max_subscribed, max_held_bytes
        self.archive = MemoryStorage()
        self.begin(self.archive)

    def now(self) -> float:
        """Return the time of day, in seconds since 1970."""
        return STARTED + self.clock.seconds()

    def begin(self, archive: HistoryStorage) -> None:
        """Make a log whose histories are in `archive`, and a bus over it."""
        self.log: EventLog[Subscription] = EventLog(
            state=LogState(EPOCH),
            archive=archive,
            settings=lambda name: self._kept.get(name, self._default),
            now=self.now,
            seconds=self.seconds,
            max_channels=self._max_channels,
            max_bytes=self._max_bytes,
        )
        self.bus = Bus(
            self.log,
            max_subscribed=self._max_subscribed,
            max_held_bytes=self._max_held_bytes,
            failed=lambda subscriber, error: self.failed.append((subscriber, error)),
        )

    def publish(self, *channels: str, data: bytes = b"x", id: str | None = None) -> Published:
        """Publish `data` with every right."""
        return self.bus.publish(draft(*channels, data=data, id=id), EVERYTHING)

    def publish_each(self, channel: str, *each: bytes) -> list[Published]:
        """Publish several events to one channel."""
        return [self.publish(channel, data=data) for data in each]

    def subscribe(
        self, *texts: str, since: str = "latest", client: Client | None = None, grants: Grants = EVERYTHING
    ) -> tuple[Client, Subscription, StartPosition]:
        """Subscribe a client to `texts`; what is replayed waits for `advance`."""
        client = client or Client()
        subscription = Subscription(self.bus, client, a_caller(grants))
        return client, subscription, subscription.add(patterns(*texts), since)

    def caught_up(self, *texts: str, since: str) -> tuple[Client, StartPosition]:
        """Subscribe a client to `texts` and replay everything to it."""
        client, subscription, start = self.subscribe(*texts, since=since)
        catch_up(subscription)
        return client, start

    def read(self, *texts: str, since: str = "earliest", limit: int = 1000) -> HistoryPage:
        """Read a page with every right."""
        return self.bus.read(patterns(*texts), since, limit, EVERYTHING)

    def retained(self, *texts: str) -> list[bytes]:
        """Return the data of everything that is kept."""
        return datas(self.read(*texts).entries)


def catch_up(subscription: Subscription) -> int:
    """Replay everything; return how many events that may have delivered at most."""
    count = 0
    while subscription.advance():
        count += 1
    return count
