"""Who is being replayed to: its replay is made tidy in steps, and read only when that is done."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from pushd.bus.clientinfo import ClientInfo
from pushd.bus.replay import Replay
from pushd.bus.search import Work, drain

__all__ = ["DoLater", "Done", "Replaying", "at_once"]

Done = Callable[[Exception | None], None]
"""Learn that a work is done, or why it failed."""

DoLater = Callable[[Work[None], Callable[[], bool], ClientInfo, Done], None]
"""Do a work in steps for a caller, unless it is gone by then, and tell the end of it."""


def at_once(work: Work[None], is_gone: Callable[[], bool], caller: ClientInfo, done: Done) -> None:
    """Do all steps of a work now: a `DoLater`."""
    drain(work)
    done(None)


class _Bus(Protocol):
    """What is known here of the bus."""

    @property
    def do_later(self) -> DoLater:
        """What does a work in steps."""


class Replaying:
    """One subscriber, as far as it is replayed to."""

    __slots__ = ("_replay", "then")

    caller: ClientInfo

    _replay: Replay | None

    then: dict[Callable[[], None], None] | None
    """What is to be called once the replay is tidy; None if nothing is being done about it."""

    @property
    def is_replaying(self) -> bool:
        """True until everything since the position has been delivered."""
        return self._replay is not None

    @property
    def is_readable(self) -> bool:
        """True if there is a replay, and it may be read now."""
        return self._replay is not None and self._replay.is_tidy

    def when_tidy(self, go_on: Callable[[], None]) -> bool:
        """Have `go_on` called once there is nothing in the way of the replay, or of subscribing to more.

        Return False if that is so now.
        """
        if self.then is None:
            return False
        self.then[go_on] = None
        return True

    def _tidy(self, bus: _Bus) -> None:
        """Make the replay tidy, if it is not."""
        replay = self._replay
        if replay is not None and not replay.is_tidy and self.then is None:
            self.then = {}
            tidied = partial(self._tidied, bus, replay)
            bus.do_later(replay.tidying(self._matches), lambda: self._replay is not replay, self.caller, tidied)

    def _tidied(self, bus: _Bus, replay: Replay, error: Exception | None) -> None:
        then, self.then = self.then or {}, None
        if error is not None and self._replay is replay:
            self._fail(error)
        self._tidy(bus)  # what was begun meanwhile
        for go_on in then:
            if not self.when_tidy(go_on):
                go_on()

    def _matches(self, name: str) -> bool:
        """Return whether the channel `name` is wanted."""
        raise NotImplementedError

    def _fail(self, error: Exception) -> None:
        """End: the replay cannot be made tidy."""
        raise NotImplementedError
