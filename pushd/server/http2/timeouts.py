"""The timeouts of one connection, checked by one timer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from pushd.errors import TimedOut
from pushd.server.http2.errors import Code
from pushd.server.http2.limits import Limits
from pushd.server.net.timers import Timer, TimerWheel

if TYPE_CHECKING:
    from pushd.server.http2.codec import Codec
    from pushd.server.http2.scheduler import Scheduler
    from pushd.server.http2.stream import Stream

__all__ = ["ConnectionTimeouts", "Watched"]

_EACH_S = 2.0

_MEASURED_S = 30.0
"""The period over which the client's read rate of all responses is measured."""


class Watched(Protocol):
    """Interface of the watched connection."""

    codec: Codec
    scheduler: Scheduler[Stream]
    blocked_since: float | None

    @property
    def streams(self) -> Mapping[int, Stream]:
        """Streams whose responses are not fully sent."""

    @property
    def head_at_hand(self) -> int | None:
        """The number of the partly received header block; None if there is none."""

    def is_held_up(self, stream: Stream) -> bool:
        """Return whether a request body may only continue once other bodies are complete."""

    def refused(self, detail: str) -> None:
        """Log a refusal."""

    def reset(self, stream: Stream, code: Code) -> None:
        """Reset a stream."""

    def close(self, code: Code, text: str = "") -> None:
        """Send GOAWAY with the reason and close the connection."""

    def drained(self) -> None:
        """Reject new requests."""

    def abort(self) -> None:
        """Abort the connection."""


class ConnectionTimeouts:
    """Checks the timeouts of a connection every two seconds.

    A silent event stream whose client can receive more never times out.
    """

    __slots__ = (
        "_alarm",
        "_began",
        "_connection",
        "_data_bytes",
        "_drained_at",
        "_head",
        "_head_since",
        "_idle_since",
        "_is_slow",
        "_limits",
        "_looked_at",
        "_measured_at",
        "_moved_at",
        "_seconds",
        "_seen_bytes",
        "_wheel",
    )

    def __init__(
        self, connection: Watched, limits: Limits, wheel: TimerWheel, seconds: Callable[[], float]
    ) -> None:
        """Watch `connection` from `begin` to `end`."""
        self._connection = connection
        self._limits = limits
        self._wheel = wheel
        self._seconds = seconds
        self._alarm: Timer | None = None
        self._began = self._idle_since = self._head_since = seconds()
        self._head: int | None = None
        self._drained_at: float | None = None
        self._looked_at = self._measured_at = self._began
        self._data_bytes, self._is_slow = 0, False
        self._seen_bytes, self._moved_at = 0, self._began

    def begin(self) -> None:
        """Start the timer."""
        self._alarm = self._wheel.call_in(_EACH_S, self._look)

    def end(self) -> None:
        """Cancel the timer."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def idle(self) -> None:
        """Called when the last request has ended; the idle timeout starts."""
        self._idle_since = self._seconds()

    def draining(self) -> None:
        """Called when GOAWAY was sent for a graceful shutdown; the drain timeout starts."""
        self._drained_at = self._seconds() + self._limits.drain_timeout_s
        self.end()
        self._alarm = self._wheel.call_in(self._limits.drain_timeout_s, self._look)

    def _look(self) -> None:
        self._alarm = self._wheel.call_in(_EACH_S, self._look)
        now, timeouts, connection = self._seconds(), self._limits.timeouts, self._connection
        if not connection.codec.is_begun and now - self._began >= timeouts.head_timeout_s:
            connection.refused("no HTTP/2 preface in time")
            connection.close(Code.NO_ERROR, "too late")
        elif self._is_head_late(now):
            connection.refused(f"a header block was not complete within {timeouts.head_timeout_s:g} s")
            connection.close(Code.ENHANCE_YOUR_CALM, "a header block was not complete in time, see [limits]")
        elif not connection.streams:
            if now - self._idle_since >= timeouts.request_timeout_s:
                connection.close(Code.NO_ERROR, "idle")
        else:
            self._look_at_streams(now)
        self._look_at_answers(now)
        if self._drained_at is not None and now >= self._drained_at:
            self._drained_at = None
            connection.drained()

    def _is_head_late(self, now: float) -> bool:
        """Return whether a header block is overdue; until it is complete, no other frame can be read."""
        head = self._connection.head_at_hand
        if head is None or head != self._head:
            self._head, self._head_since = head, now
            return False
        return now - self._head_since >= self._limits.timeouts.head_timeout_s - _EACH_S

    def _look_at_streams(self, now: float) -> None:
        limits, connection = self._limits, self._connection
        blocked = connection.blocked_since
        if blocked is not None and now - blocked >= limits.stall_timeout_s:
            connection.refused("the client read nothing for too long")
            connection.abort()
            return
        if connection.codec.data_bytes != self._seen_bytes:
            self._seen_bytes, self._moved_at = connection.codec.data_bytes, now
        is_moving = now - self._moved_at < limits.stall_timeout_s
        for stream in connection.scheduler.stalled(now - limits.stall_timeout_s):
            if is_moving and connection.codec.has_own_room(stream.stream_id):
                continue  # it waits for other streams: see _look_at_answers
            connection.refused(f"the client opened no window for stream {stream.stream_id} for too long")
            connection.reset(stream, Code.CANCEL)
        for stream in list(connection.streams.values()):
            if stream.is_read:
                continue
            if connection.is_held_up(stream):
                stream.began_at = now
            most_s = limits.timeouts.body_s(stream.received)
            if now - stream.began_at >= most_s:
                text = f"only {stream.received} bytes of the body arrived within {most_s:.0f} s, see [limits]"
                stream.refuse(TimedOut(text))

    def _look_at_answers(self, now: float) -> None:
        """Reset the streams whose responses the client reads too slowly.

        Time that a response waits for others, while its own window is open, counts only if the client reads these
        too slowly, too.
        """
        connection, timeouts = self._connection, self._limits.timeouts
        passed_s, since_s = now - self._looked_at, now - self._measured_at
        self._looked_at = now
        if since_s >= _MEASURED_S:
            size, self._data_bytes = connection.codec.data_bytes - self._data_bytes, connection.codec.data_bytes
            self._measured_at, self._is_slow = now, size < timeouts.answer_rate_bytes * since_s
        for stream in list(connection.streams.values()):
            if not (stream.held.size and stream.outgoing.size):
                continue
            if connection.codec.has_own_room(stream.stream_id) and not self._is_slow:
                continue
            stream.waited_s += passed_s
            if stream.waited_s >= timeouts.answer_s(stream.sent_bytes):
                text = f"read {stream.sent_bytes} bytes of the response on stream {stream.stream_id}"
                connection.refused(f"the client {text} in {stream.waited_s:.0f} s, less than [limits] answer_rate")
                connection.reset(stream, Code.CANCEL)
