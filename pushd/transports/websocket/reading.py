"""What a WebSocket reads: the half of the adapter to Autobahn that takes bytes (see
`pushd.transports.websocket.connection`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pushd.bus import CloseCause, CloseReason
from pushd.config import Timeouts
from pushd.errors import Refused
from pushd.server import IncompleteBodies, IncompleteBody, TimerWheel, Turns
from pushd.transports.websocket.backlog import Backlog
from pushd.transports.websocket.message_timeout import MessageTimeout
from pushd.transports.websocket.whole_message import plain_message
from pushd.wire import BINARY

__all__ = ["Reading"]

_MESSAGES = 64
"""How many plain messages are taken before others may have their turn."""

_MAX_UNANSWERED, _FEW_UNANSWERED = 2000, 1000
"""After how many unanswered events nothing more is read, and when it is again: each takes memory until then."""

_SHORT_BYTES = 4096
"""What is no longer holds few messages, so that the time is looked at only behind these."""

_PIECE_BYTES = 512
"""How much Autobahn gets at once of what may be many frames."""


class Reading:
    """Takes bytes, a few milliseconds of them in each turn of the reactor, and counts what is not complete.

    It stands before Autobahn's protocol, of which it uses the names that are declared here:
    `pushd.transports.websocket.connection` has it tested that they are there.
    """

    # Autobahn's
    STATE_OPEN: int
    STATE_CLOSED: int
    state: int
    data: bytes
    current_frame: Any
    current_frame_masker: Any
    inside_message: bool
    message_data: Any
    message_data_total_length: int
    failedByMe: bool
    onMessage: Any
    _dataReceived: Any

    listener: Any
    """A `pushd.transports.websocket.connection.WebSocketListener`."""

    transport: Any
    maxMessagePayloadSize: int

    close: Callable[[CloseReason], None]
    """Begins the closing handshake."""

    _patience: Timeouts
    _wheel: TimerWheel
    _bodies: IncompleteBodies
    _held: IncompleteBody | None = None
    _turns: Turns
    _late: Backlog | None = None
    _watch: MessageTimeout | None = None
    _is_too_much = False
    _is_stopped = False

    unanswered = 0
    """How many events of the client are being published."""

    held_close: tuple[int, bytes] | None = None
    """The close frame that the client has sent, while something that came before it is not answered."""

    has_heard = False
    """True if anything came from the client since somebody set it to false."""

    @property
    def held_bytes(self) -> int:
        """How much is kept of what has come, of a message or a frame that is not complete."""
        if self.failedByMe:
            return 0
        held: int = self.message_data_total_length if self.inside_message else len(self.data)
        return held if self._late is None else held + self._late.size

    @property
    def _kept_bytes(self) -> int:
        """How much is kept, without what is still to come of a frame that has begun."""
        frame = self.current_frame
        if not self.inside_message or frame is None or frame.opcode > 7:
            return self.held_bytes
        came: int = self.held_bytes - frame.length + self.current_frame_masker.pointer()
        return came

    def dataReceived(self, data: bytes) -> None:
        """Override: bytes have come."""
        self.has_heard = True
        if self._late is not None:
            self._late.received(data)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Take what has come, as far as it goes in this turn of the reactor; the rest is late."""
        has_begun = len(data) > _SHORT_BYTES
        if has_begun:
            self._turns.begin()
        while data and not self._is_too_much and self.held_close is None:
            is_stopped = False
            if self._is_between:
                data, is_stopped = self._take_messages(data)
            if data and not is_stopped:
                size = self._piece_bytes
                self._dataReceived(
                    data[:size]
                )  # what the method overridden does beside formats a message for nobody
                if self.held_close is None:
                    self._watch_rest(min(size, len(data)))
                data = data[size:]
            if data:
                if not has_begun:
                    self._turns.begin()
                    has_begun = True
                if self.unanswered >= _MAX_UNANSWERED or not self._turns.may_go_on():
                    self._late = Backlog(data, self.transport)
                    self._turns.later(self._go_on)
                    return

    def _go_on(self) -> None:
        self._is_stopped = self.unanswered >= _MAX_UNANSWERED
        if self._is_stopped:
            return
        late, self._late = self._late, None
        if late is not None and self.state != self.STATE_CLOSED:
            self._take(late.end())
            if self._late is None:
                self.transport.resumeProducing()

    def one_answered(self) -> None:
        """Note that an event was answered; go on with what is late, if that has waited for answers."""
        self.unanswered -= 1
        if self._is_stopped and self.unanswered <= _FEW_UNANSWERED:
            self._is_stopped = False
            self._turns.later(self._go_on)

    @property
    def _piece_bytes(self) -> int:
        """How much Autobahn gets at once: a few frames, or the rest of a long one."""
        frame = self.current_frame
        rest: int = 0 if frame is None else frame.length - self.current_frame_masker.pointer()
        return max(_PIECE_BYTES, rest)

    @property
    def _is_between(self) -> bool:
        """Whether nothing has come of what comes next."""
        return not self.data and self.current_frame is None and not self.inside_message

    def _watch_rest(self, size: int) -> None:
        """Have the rest of a message come in time, and count what has come."""
        if self._is_between:
            if self._held is not None:
                self._held.release()
            if self._watch is not None:
                self._watch.completed()
        else:
            self._hold()
            if self._watch is None:
                self._watch = MessageTimeout(self._patience, self._wheel, self._close_late)
            self._watch.came(size)

    def _hold(self) -> None:
        """Count what is kept of a message, or close: then nothing more is read."""
        if self._held is None:
            self._held = self._bodies.new(self.listener.owner)
        try:
            self._held.resize(self._kept_bytes)
        except Refused as refused:
            self._is_too_much = True
            self.close(CloseReason(CloseCause.TOO_MANY, refused.detail))
            self.message_data = []
            self._held.release()
            self.transport.loseConnection()

    def _close_late(self, text: str) -> None:
        self.close(CloseReason(CloseCause.REFUSED, text))

    def _take_messages(self, data: bytes) -> tuple[bytes, bool]:
        """Take plain messages that `data` begins with; return the rest, and whether it may begin with more."""
        stop = count = 0
        while self.state == self.STATE_OPEN and (message := plain_message(data, stop, self.maxMessagePayloadSize)):
            opcode, payload, stop = message
            self.onMessage(payload, opcode == BINARY)
            count += 1
            if count == _MESSAGES:
                return data[stop:], True
        return data[stop:] if stop else data, False
