"""The answers of one HTTP/1.1 connection: what they hold while the client does not read, and how long they may."""

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
    """One HTTP/1.1 connection whose answers count, and are to be read in time.

    It is told that the client reads too slowly by its transport, which pauses it while more than 64 KiB wait. An
    answer of less than that does not count: there is one at a time.
    """

    least_held_bytes = 64 * 1024
    """The smallest answer that counts."""

    _log = Logger()

    def __init__(
        self,
        max_body_bytes: int,
        patience: Timeouts,
        wheel: TimerWheel,
        answers: UnreadResponses,
        sparing: RateLimitedLog,
    ) -> None:
        """Override: answers count in `answers`."""
        super().__init__(max_body_bytes, patience, wheel)
        self._patience, self._wheel, self._sparing = patience, wheel, sparing
        self._held = Held(answers)
        self._is_live = self.has_input_ended = False
        self._slow: Timer | None = None
        self._paused_at_s, self._waiting_bytes = 0.0, 0

    def hold(self, caller: ClientInfo | None, size: int) -> None:
        """Count an answer of `size` bytes to `caller`; raise `TooMany` or `Unavailable` if that is too much."""
        owner = self.site.owner_of_peer(self.getPeer()) if caller is None else owner_of(caller)
        self._held.take(owner, size)
        self._flush = self._flush_held  # type: ignore[method-assign]

    def _flush_held(self) -> None:
        """Send the answer that is held. Mostly it is taken at once; if not, `resumeProducing` tells when it is."""
        super()._flush()
        del self._flush
        if not self._waitingForTransport:
            self._held.shrink(0)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Override: a producer that goes by itself is a subscriber's session, which its outbox bounds."""
        self._is_live = streaming
        super().registerProducer(producer, streaming)

    def pauseProducing(self) -> None:
        """Override: the client does not take what was written."""
        super().pauseProducing()
        self._look_later()

    def _look_later(self) -> None:
        if not self._is_live and self._slow is None:
            self._paused_at_s, self._waiting_bytes = self._wheel.seconds(), waiting_bytes(self.transport)
            self._slow = self._wheel.call_in(self._patience.request_timeout_s, self._look_at_answer)

    def _look_at_answer(self) -> None:
        taken = max(0, self._waiting_bytes - waiting_bytes(self.transport))
        passed_s = self._wheel.seconds() - self._paused_at_s
        left_s = self._patience.answer_s(taken) - passed_s
        if left_s > 0:
            self._slow = self._wheel.call_in(left_s, self._look_at_answer)
            return
        self._slow = None
        self._sparing.info(
            f"slow answer {self.place.address}",
            "closed {peer}: it took {taken} bytes of an answer in {passed_s} s, less than [limits] answer_rate",
            peer=self.place.name,
            taken=taken,
            passed_s=round(passed_s),
        )
        self.abort()

    def idle(self) -> None:
        """Override: whoever still reads the answer is not idle, although no request comes."""
        if self._slow is not None:
            self._watch.sees(NOTHING)
        else:
            super().idle()

    # A client that sends nothing more

    def input_ended(self) -> bool:
        """Learn that the client sends nothing more; return whether it is to get an answer, or more of one.

        Requests that have come as a whole are answered; then the connection closes. Whoever ends its half within a
        request has gone, and so has a subscriber, for that is how it says so (RFC 9112, section 9.6).
        """
        self.has_input_ended = True
        if self._has_to_wait or self._is_deferred:
            self._read = self._read_last  # type: ignore[method-assign]
            return not any(request.is_lasting for request in self.requests)
        self._end_input()
        return True

    def _read_last(self) -> None:
        """Take what has come, and close when all is answered. Of what is not whole, nothing more comes."""
        super()._read()
        if not (self._is_reading or self._has_to_wait or self._is_deferred or self._is_lost):
            self._end_input()

    def _end_input(self) -> None:
        self._watch.pause()
        self._drop_bodies()
        self._head = None  # whoever is asked about it need not answer
        self.loseConnection()

    def loseConnection(self) -> None:
        """Override: close once everything is written, which has to be read in time."""
        super().loseConnection()
        if waiting_bytes(self.transport):
            self._look_later()

    def forceAbortClient(self) -> None:
        """Override: close what did not close in order. Twisted would log a line for each such connection."""
        self._abortingCall = None
        self.abort()

    def _stop_looking(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def resumeProducing(self) -> None:
        """Override: everything was taken."""
        self._stop_looking()
        self._held.shrink(0)
        super().resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: the connection has ended.

        A file that is being sent is stopped here: after `loseConnection` the transport knows nothing of it, and it
        would be asked for more, and fail, for ever.
        """
        self._stop_looking()
        self._held.shrink(0)
        if self._requestProducer is not None and not self._is_live:
            self._requestProducer.stopProducing()
        super().connectionLost(reason)
        self._chunks = self._requestProducer = None  # which refer to this connection: cycles
        for name in "_flush", "_read":  # see `hold` and `input_ended`; those are some, too
            vars(self).pop(name, None)
