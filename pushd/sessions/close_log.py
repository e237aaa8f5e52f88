"""Log lines for subscribers that have ended: a few at once, the rest over the next turns of the reactor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from twisted.logger import Logger

from pushd.bus import Later
from pushd.server import TimerWheel
from pushd.sessions.interfaces import ConnectedSubscriber

__all__ = ["CloseLog"]

_log = Logger(namespace="pushd.sessions")

_END = "{transport} of {peer} ended after {duration_s} s and {bytes} bytes: {reason}"
_END_OF_USER = "{transport} of {peer} as {user} ended after {duration_s} s and {bytes} bytes: {reason}"

_PER_TURN = 20
"""Maximum number of ends logged in one turn of the reactor."""

_AT_ONCE_S = 0.005
"""Period in seconds in which `_PER_TURN` ends are logged at once; further ends wait for the next turns."""


class CloseLog:
    """Logs why subscribers have ended, in slices: other clients do not wait while thousands end together."""

    def __init__(self, wheel: TimerWheel, call_later: Later) -> None:
        """Create the log; `wheel` provides the clock, `call_later` is the reactor's."""
        self._wheel = wheel
        self._call_later = call_later
        self._waiting: deque[Callable[[], None]] = deque()
        self._count, self._since_s = 0, 0.0
        self.is_stopping = False
        """True during shutdown: every end is logged at once, because the reactor is about to stop."""

    def log(self, subscriber: ConnectedSubscriber, why: str) -> None:
        """Log that `subscriber` has ended."""
        caller, now_s = subscriber.caller, self._wheel.seconds()
        line = partial(
            _log.info,
            _END if caller.user is None else _END_OF_USER,
            transport=caller.transport.name,
            peer=caller.name,
            duration_s=round(now_s - caller.since_s, 1),
            reason=why,
            connection=caller.id,
            bytes=subscriber.sent_bytes,
            **({} if caller.user is None else {"user": caller.user}),
        )
        if now_s - self._since_s > _AT_ONCE_S:
            self._since_s, self._count = now_s, 0
        self._count += 1
        if self.is_stopping or (self._count <= _PER_TURN and not self._waiting):
            line()
            return
        if not self._waiting:
            self._call_later(0, self._log_some)
        self._waiting.append(line)

    def _log_some(self) -> None:
        for _ in range(len(self._waiting) if self.is_stopping else _PER_TURN):
            if not self._waiting:
                return
            self._waiting.popleft()()
        if self._waiting:
            self._call_later(0, self._log_some)
