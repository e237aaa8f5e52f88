"""The life of a connected subscriber: start, flush, back-pressure, close and end, whatever it is sent."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from pushd.bus import ClientInfo, CloseCause, CloseReason, Entry, Pattern, StartPosition, Subscription, memory
from pushd.server import Timer
from pushd.sessions.closed_connection import GONE
from pushd.sessions.interfaces import Connection
from pushd.sessions.registry import SessionRegistry

__all__ = ["SubscriberSession"]

_CLOSE_TIMEOUT_S = 10.0
"""How long a closing connection may take to send its remaining bytes, in seconds."""


@implementer(IPushProducer)
class SubscriberSession:
    """One connected subscriber: a `pushd.bus.Subscriber`, and the producer of its connection.

    Subclasses queue what the bus delivers, and send it in `_flush`.

    =============  ===================================================================
    is_paused      the transport applies back-pressure
    _is_unflushed  a flush is due at the end of the turn
    is_closed      no more is accepted; `farewell` follows, soon if there are many
    _is_parting    the connection is closing; the abort timer runs
    =============  ===================================================================
    """

    __slots__ = (
        "_abort_alarm",
        "_is_parting",
        "_is_unflushed",
        "_sessions",
        "_wrote_s",
        "caller",
        "connection",
        "end_reason",
        "is_closed",
        "is_paused",
        "own_sent_bytes",
        "subscription",
    )

    def __init__(self, sessions: SessionRegistry, connection: Connection, caller: ClientInfo) -> None:
        """Create a session on `connection`; `enter` registers it."""
        self._sessions = sessions
        self._is_unflushed = self._is_parting = False
        self._abort_alarm: Timer | None = None
        self._wrote_s = sessions.wheel.turned_s
        self.is_paused = False
        """True while the transport applies back-pressure."""
        self.is_closed = False
        """True once no more can be sent."""
        self.connection = connection
        self.caller = caller
        """The client and its grants."""
        self.end_reason: CloseReason | None = None
        """Why pushd ended the session; None if the client did."""
        self.own_sent_bytes = 0
        """Bytes sent to the client, except those sent through a fan-out group."""
        self.subscription = Subscription(sessions.bus, self, caller)

    def enter(
        self, groups: Sequence[Sequence[Pattern]], since: str, or_among: Sequence[Pattern] = ()
    ) -> list[StartPosition]:
        """Register the session and subscribe to `groups` of patterns; see `Subscription.add_each`.

        Raise `Refused`, without any change, if it may not subscribe.
        """
        starts = self.subscription.add_each(groups, since, or_among, partial(self._sessions.register, self))
        if starts:
            self._go_on()
        return starts

    def _go_on(self) -> None:
        """Flush later, and resume the replay once it may be read."""
        self._flush_later()
        if self.subscription.then is not None:
            self.subscription.when_tidy(self._flush_later)

    @property
    @abstractmethod
    def outbox_bytes(self) -> int:
        """Return the size of what waits to be sent, in bytes, counted as for the limits."""

    @property
    def sent_bytes(self) -> int:
        """Return the number of bytes sent to the client."""
        return self.own_sent_bytes

    def wrote(self, size: int) -> None:
        """Count `size` bytes that the connection wrote itself: the start and the end of the stream."""
        self.own_sent_bytes += size

    @property
    def wrote_s(self) -> float:
        """Return the time of the last write, by the timer wheel; now, while the session is paused."""
        return self._sessions.wheel.turned_s if self.is_paused else self._wrote_s

    @abstractmethod
    def deliver(self, entry: Entry) -> None:
        """Called by the bus with an event."""

    @abstractmethod
    def send(self, frame: bytes) -> None:
        """Send `frame`, which is not an event, after all earlier frames."""

    def _flush_later(self) -> None:
        if not self._is_unflushed and not self.is_paused:
            self._is_unflushed = True
            self._sessions.flush_later(self)

    def flush(self) -> int:
        """Send what waits, and the replay up to the limits of client and turn; return the cost, in sends."""
        self._is_unflushed = False
        try:
            return self._flush()
        except MemoryError:
            self._discard()  # the client resumes after the last event sent
            self.subscription.end_without_memory()
        return 1

    @abstractmethod
    def _flush(self) -> int:
        """Do the work of `flush`."""

    # The end

    def close(self, reason: CloseReason) -> None:
        """End the session: send what waits, then `reason`; a client that is too slow loses what waits."""
        is_too_slow = reason.cause is CloseCause.TOO_SLOW
        if not is_too_slow:
            self.subscription.take_pending()
        if self.is_closed:
            return
        self.end_reason = reason
        if not is_too_slow:
            self.farewell(reason)
            return
        self.is_closed = True
        self._sessions.counters.too_slow += self._give_up() + 1
        self._sessions.dismiss(self, reason)

    @abstractmethod
    def _give_up(self) -> int:
        """Called when the client is too slow: stop sending; return the number of events that wait."""

    def farewell(self, reason: CloseReason) -> None:
        """Send what waits, then `reason`, and close the connection."""
        self.finish()
        self.connection.close(reason)

    def finish(self) -> None:
        """Stop sending: the connection is closing. Abort it after `_CLOSE_TIMEOUT_S`.

        A response over HTTP/2 has ended by then: its unread bytes are left to the stall timeout of the connection.
        """
        if self._is_parting:
            return
        self._is_parting = True
        try:
            if not self.is_closed:
                self._send_rest()
        except MemoryError:
            memory.missed()
        self.is_closed = True
        self._discard()
        self.subscription.close()
        self._abort_alarm = self._sessions.wheel.call_in(_CLOSE_TIMEOUT_S, self.connection.abort)

    @abstractmethod
    def _send_rest(self) -> None:
        """Send what waits: the connection is about to close."""

    @abstractmethod
    def _discard(self) -> None:
        """Discard what waits."""

    def ended(self) -> None:
        """Called when the connection has ended, for any reason."""
        self.is_closed = self._is_parting = True
        self._discard()
        self.subscription.close()
        self._sessions.remove(self)
        if self._abort_alarm is not None:
            self._abort_alarm.cancel()
            self._abort_alarm = None
        # break the reference cycles: everything is freed now, and thousands of sessions cost no garbage collection
        self.connection = GONE
        self.subscription.forget()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Called when the transport's buffer is full: write no more."""
        self.is_paused = True

    def resumeProducing(self) -> None:
        """Called when the transport's buffer is empty: write again."""
        self._wrote_s = self._sessions.wheel.turned_s
        self.is_paused = False

    def stopProducing(self) -> None:
        """Called when the transport is gone; `ended` follows."""
        self.pauseProducing()
