"""A bus over a store in a directory, without a daemon, on clocks in hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from pushd.bus.bus import Bus
from pushd.bus.clientinfo import DAEMON
from pushd.bus.event import Entry
from pushd.bus.eventlog import EventLog, LogState
from pushd.bus.position import HistoryPage
from pushd.bus.publisher import Outcome
from pushd.bus.subscription import Subscription
from pushd.errors import Refused
from pushd.store.sqlite.journal import SqlitePublisher
from pushd.store.sqlite.store import Store
from tests.rigs.builders import STARTED, Kept, draft, patterns

__all__ = ["StoreRig"]


class StoreRig:
    """A bus over a store, opened."""

    def __init__(
        self,
        directory: Path,
        *,
        kept: dict[str, Kept] | None = None,
        default: Kept | None = None,
        is_safe: bool = False,
        started: float = STARTED,
        recent_bytes: int = 1 << 20,
        max_bytes: int = 1 << 40,
        max_channels: int = 1000,
    ) -> None:
        """Open the store in `directory`; it is `started`, in seconds since 1970."""
        self.clock = Clock()
        self.wall = started
        """The time of day when the clock that never jumps stands at 0; set it, and the system clock jumps."""
        by_name, otherwise = kept or {}, default or Kept()
        self.store = Store(
            directory, is_safe=is_safe, recent_bytes=recent_bytes, now=self.now, seconds=self.clock.seconds
        )
        self.log: EventLog[Subscription] = EventLog(
            state=LogState("replaced!!"),  # by that of the store
            archive=self.store.archive,
            settings=lambda name: by_name.get(name, otherwise),
            now=self.now,
            seconds=self.clock.seconds,
            max_channels=max_channels,
            max_bytes=max_bytes,
        )
        self.bus = Bus(self.log, max_subscribed=100, max_held_bytes=1000, failed=self._failed)
        self.journal = SqlitePublisher(self.bus, self.store, self.clock.callLater, _at_once, writes_in_thread=False)
        self.store.open(self.log)

    def now(self) -> float:
        """Return the time of day."""
        return self.wall + self.clock.seconds()

    def _failed(self, subscriber: object, error: Exception) -> None:
        raise error

    def publish(self, *channels: str, data: bytes = b"x", id: str | None = None) -> Outcome:
        """Publish one event in a turn of its own; return what its publisher is told."""
        (outcome,) = self.publish_together((channels, data, id))
        return outcome

    def publish_together(self, *events: tuple[tuple[str, ...], bytes, str | None]) -> list[Outcome]:
        """Publish several events in one turn."""
        outcomes: list[Outcome] = []
        for channels, data, event_id in events:
            self.journal.publish(draft(*channels, data=data, id=event_id), DAEMON, outcomes.append)
        self.turn()
        assert len(outcomes) == len(events)
        return outcomes

    def publish_each(self, channel: str, *each: bytes) -> None:
        """Publish several events, each in a turn of its own; all must succeed."""
        for data in each:
            outcome = self.publish(channel, data=data)
            assert not isinstance(outcome, Refused), outcome

    def turn(self) -> None:
        """Let the reactor run until there is nothing left to do at this moment."""
        self.clock.advance(0)
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def wait(self, seconds: int) -> None:
        """Let time pass, second by second."""
        for _ in range(seconds):
            self.clock.advance(1)
            self.log.expire()
            self.journal.tend()
            self.turn()

    def read(self, *texts: str, since: str = "earliest") -> HistoryPage:
        """Read what there is."""
        return self.log.read(patterns(*texts), since, 1000)

    def datas(self, *texts: str) -> list[bytes]:
        """Return the data of everything there is."""
        return [entry.event.data for entry in self.entries(*texts)]

    def entries(self, *texts: str) -> list[Entry]:
        """Return everything there is."""
        return self.read(*texts).entries

    def close(self) -> None:
        """Close the store, as at the end of a daemon."""
        self.store.close()

    def crash(self) -> None:
        """Let go of the store as kill -9 would: nothing more is written."""
        store = self.store
        files = [store.path, store.path.with_name(f"{store.path.name}-wal")]
        contents = [path.read_bytes() for path in files]
        for connection in (store._reader, store._past_reader, store._mover, store._writer):
            connection.close()  # which moves everything into the first file
        for path, content in zip(files, contents, strict=True):
            path.write_bytes(content)
        store._mark.close()
        store._lock.close()


def _at_once(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    return execute(function, *arguments)
