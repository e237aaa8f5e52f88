"""The answers of one HTTP/1.1 connection: what they hold while the client does not read, and how long they may."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.answers import Answers, Held
from pushd.caller import Caller
from pushd.http1 import HTTP1
from pushd.http1watch import NOTHING
from pushd.patience import Patience
from pushd.peer import owner_of
from pushd.sparing import Sparing
from pushd.wheel import Alarm, Wheel
from pushd.writethrough import waiting_bytes

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
        self, max_body_bytes: int, patience: Patience, wheel: Wheel, answers: Answers, sparing: Sparing
    ) -> None:
        """Override: answers count in `answers`."""
        super().__init__(max_body_bytes, patience, wheel)
        self._patience, self._wheel, self._sparing = patience, wheel, sparing
        self._held = Held(answers)
        self._is_live = False
        self._slow: Alarm | None = None
        self._paused_at_s, self._waiting_bytes = 0.0, 0

    def hold(self, caller: Caller | None, size: int) -> None:
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
        vars(self).pop("_flush", None)  # see `hold`; that is one, too
