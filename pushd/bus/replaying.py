"""The replay state of one subscriber: a replay is made tidy in steps and read only when tidy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial

from pushd.bus.clientinfo import ClientInfo
from pushd.bus.replay import Replay
from pushd.bus.work import NotInMemory, Work, drain

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
    """The replay part of a subscription.

    =========  =========  ==========================================================
    `_replay`  `then`     state
    =========  =========  ==========================================================
    None       None       live
    a replay   None       readable, unless changes were recorded: see `_tidy`
    a replay   a dict     a job makes it tidy, or waits for entries: not readable
    None       a dict     live or closed; the job ends soon, without any effect
    =========  =========  ==========================================================
    """

    __slots__ = ("_replay", "then")

    caller: ClientInfo

    _replay: Replay | None

    then: dict[Callable[[], None], None] | None
    """The callbacks to run once the replay is readable; None while no job makes it so."""

    @property
    def is_replaying(self) -> bool:
        """True until all events since the position have been delivered."""
        return self._replay is not None

    @property
    def is_readable(self) -> bool:
        """True if there is a replay, and it may be read now."""
        return self._replay is not None and self.then is None and self._replay.is_tidy

    def when_tidy(self, go_on: Callable[[], None]) -> bool:
        """Call `go_on` once the replay may be read, or extended by another subscription.

        Return False, without calling `go_on`, if it may now.
        """
        if self.then is None:
            return False
        self.then[go_on] = None
        return True

    def _tidy(self, do_later: DoLater) -> None:
        """Start to make the replay tidy, unless it is tidy or a job does so already."""
        replay = self._replay
        if replay is not None and not replay.is_tidy and self.then is None:
            self._prepare(do_later, replay, replay.tidying(self._matches))

    def _fetch(self, do_later: DoLater, missing: NotInMemory) -> None:
        """Start to wait for the next entry of the replay, which must be readable and has raised `missing`."""
        assert self._replay is not None
        self._prepare(do_later, self._replay, self._replay.fetching(missing))

    def _prepare(self, do_later: DoLater, replay: Replay, work: Work[None]) -> None:
        """Do `work`, after which the replay is readable."""
        self.then = {}
        prepared = partial(self._prepared, do_later, replay)
        do_later(work, lambda: self._replay is not replay, self.caller, prepared)

    def _prepared(self, do_later: DoLater, replay: Replay, error: Exception | None) -> None:
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
