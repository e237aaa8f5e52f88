"""HTTP/1.1 responses to slow clients: the memory they hold, and the time they have."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.bus import ClientInfo, owner_of
from pushd.config import Timeouts
from pushd.server.http1.connection import HTTP1
from pushd.server.http1.timeouts import NOTHING
from pushd.server.net.connection_limits import RateLimitedLog
from pushd.server.net.timers import Timer, TimerWheel
from pushd.server.net.writer import waiting_bytes
from pushd.server.unread_responses import Held, UnreadResponses

__all__ = ["HTTP1Answers"]


class HTTP1Answers(HTTP1):
    """One HTTP/1.1 connection that limits unread responses in size and time.

    The transport signals back-pressure: it pauses the connection while more than 64 KiB are buffered. Smaller
    responses are not counted, because a connection has only one at a time.
    """

    least_held_bytes = 64 * 1024
    """The smallest response that is counted."""

    _log = Logger()

    def __init__(
        self,
        max_body_bytes: int,
        timeouts: Timeouts,
        wheel: TimerWheel,
        answers: UnreadResponses,
        limited_log: RateLimitedLog,
    ) -> None:
        """Override: count unread responses in `answers`; log slow clients to `limited_log`."""
        super().__init__(max_body_bytes, timeouts, wheel)
        self._timeouts, self._wheel, self._limited_log = timeouts, wheel, limited_log
        self._held = Held(answers)
        self._is_live = self.has_input_ended = False
        self._slow: Timer | None = None
        self._paused_at_s, self._waiting_bytes = 0.0, 0

    def hold(self, caller: ClientInfo | None, size: int) -> None:
        """Count a response of `size` bytes to `caller`; raise `TooMany` or `Unavailable` above the limit."""
        owner = self.info.owner if caller is None else owner_of(caller)
        self._held.take(owner, size)
        self._flush = self._flush_held  # type: ignore[method-assign]

    def _flush_held(self) -> None:
        """Send the counted response and release it if the kernel accepts it; else `resumeProducing` does."""
        super()._flush()
        del self._flush
        if not self._waitingForTransport:
            self._held.shrink(0)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Override: exempt push producers; those are subscriber sessions, which their outbox bounds."""
        self._is_live = streaming
        super().registerProducer(producer, streaming)

    def pauseProducing(self) -> None:
        """Override: called when the client reads too slowly. Start the response timeout."""
        super().pauseProducing()
        self._look_later()

    def _look_later(self) -> None:
        if not self._is_live and self._slow is None:
            self._paused_at_s, self._waiting_bytes = self._wheel.seconds(), waiting_bytes(self.transport)
            self._slow = self._wheel.call_in(self._timeouts.request_timeout_s, self._look_at_answer)

    def _look_at_answer(self) -> None:
        taken = max(0, self._waiting_bytes - waiting_bytes(self.transport))
        passed_s = self._wheel.seconds() - self._paused_at_s
        left_s = self._timeouts.answer_s(taken) - passed_s
        if left_s > 0:
            self._slow = self._wheel.call_in(left_s, self._look_at_answer)
            return
        self._slow = None
        self._limited_log.info(
            f"slow answer {self.info.place.address}",
            "closed {peer}: it read {taken} bytes of a response in {passed_s} s, less than [limits] answer_rate",
            peer=self.info.place.name,
            taken=taken,
            passed_s=round(passed_s),
        )
        self.abort()

    def idle(self) -> None:
        """Override: keep the connection while the client is still reading a response."""
        if self._slow is not None:
            self._watch.sees(NOTHING)
        else:
            super().idle()

    # Half-closed connections

    def input_ended(self) -> bool:
        """Called when the client closes its half of the connection; return whether a response is still due.

        Complete requests are served, then the connection closes. A client that closes its half within a request
        has disconnected, and so has a subscriber (RFC 9112, section 9.6).
        """
        self.has_input_ended = True
        if self._has_to_wait or self._is_deferred:
            self._read = self._read_last  # type: ignore[method-assign]
            return not any(request.is_lasting for request in self.requests)
        self._end_input()
        return True

    def _read_last(self) -> None:
        """Parse the buffered input, and close after the last complete request; the client sends no more."""
        super()._read()
        if not (self._is_reading or self._has_to_wait or self._is_deferred or self._is_lost):
            self._end_input()

    def _end_input(self) -> None:
        self._watch.pause()
        self._drop_bodies()
        self._head = None  # a pending decision about it has no effect now
        self.loseConnection()

    def loseConnection(self) -> None:
        """Override: close once the output is sent, within the response timeout."""
        super().loseConnection()
        if waiting_bytes(self.transport):
            self._look_later()

    def forceAbortClient(self) -> None:
        """Override: abort a connection that did not close in time, without Twisted's log line for each."""
        self._abortingCall = None
        self.abort()

    def _stop_looking(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def resumeProducing(self) -> None:
        """Override: called when the client has read everything."""
        self._stop_looking()
        self._held.shrink(0)
        super().resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: called when the connection is lost.

        Stops the file that is being sent: after `loseConnection` the transport no longer knows that producer, and
        it would be resumed and fail forever.
        """
        self._stop_looking()
        self._held.shrink(0)
        if self._requestProducer is not None and not self._is_live:
            self._requestProducer.stopProducing()
        super().connectionLost(reason)
        self._chunks = self._requestProducer = None  # both refer to this connection: break the cycles
        for name in "_flush", "_read":  # set by `hold` and `input_ended`: cycles, too
            vars(self).pop(name, None)
