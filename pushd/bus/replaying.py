"""The replay state of one subscriber: a replay is made tidy in steps and read only when tidy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial

from pushd.bus.clientinfo import ClientInfo
from pushd.bus.replay import Replay
from pushd.bus.search import Work, drain

__all__ = ["DoLater", "Done", "Replaying", "at_once"]

Done = Callable[[Exception | None], None]
"""Called when a job is done, with the error if it failed."""

DoLater = Callable[[Work[None], Callable[[], bool], ClientInfo, Done], None]
"""Run a job in steps for a client, unless the client is gone by then; call `Done` at the end."""


def at_once(work: Work[None], is_gone: Callable[[], bool], caller: ClientInfo, done: Done) -> None:
    """Run all steps of a job now: a `DoLater`."""
    drain(work)
    done(None)


class Replaying:
    """The replay part of a subscription."""

    __slots__ = ("_replay", "then")

    caller: ClientInfo

    _replay: Replay | None

    then: dict[Callable[[], None], None] | None
    """The callbacks to run once the replay is tidy; None while no job makes it tidy."""

    @property
    def is_replaying(self) -> bool:
        """True until all events since the position have been delivered."""
        return self._replay is not None

    @property
    def is_readable(self) -> bool:
        """True if there is a replay, and it may be read now."""
        return self._replay is not None and self._replay.is_tidy

    def when_tidy(self, go_on: Callable[[], None]) -> bool:
        """Call `go_on` once the replay is tidy, and so may be read or extended by another subscription.

        Return False, without calling `go_on`, if it is tidy now.
        """
        if self.then is None:
            return False
        self.then[go_on] = None
        return True

    def _tidy(self, do_later: DoLater) -> None:
        """Start to make the replay tidy, unless it is tidy or a job does so already."""
        replay = self._replay
        if replay is not None and not replay.is_tidy and self.then is None:
            self.then = {}
            tidied = partial(self._tidied, do_later, replay)
            do_later(replay.tidying(self._matches), lambda: self._replay is not replay, self.caller, tidied)

    def _tidied(self, do_later: DoLater, replay: Replay, error: Exception | None) -> None:
        then, self.then = self.then or {}, None
        if error is not None and self._replay is replay:
            self.fail(error)
        self._tidy(do_later)  # changes recorded meanwhile
        for go_on in then:
            if not self.when_tidy(go_on):
                go_on()

    @abstractmethod
    def _matches(self, name: str) -> bool:
        """Return whether the subscriber is subscribed to the channel `name`."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """End the subscription because of `error`, such as a replay that cannot be made tidy."""
