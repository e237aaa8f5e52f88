"""The half of the adapter to Autobahn that receives bytes: see `pushd.transports.websocket.connection`."""

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
"""Maximum number of plain messages read before other clients have their turn."""

_MAX_UNANSWERED, _FEW_UNANSWERED = 2000, 1000
"""Reading pauses at the first number of unanswered events, and resumes at the second: each uses memory."""

_SHORT_BYTES = 4096
"""Input up to this size holds few messages: the clock is read only after them."""

_PIECE_BYTES = 512
"""Size of the pieces passed to Autobahn, as they may hold many frames."""


class Reading:
    """Reads bytes, for a few milliseconds in each turn of the reactor, and counts incomplete messages.

    It precedes Autobahn's protocol in the class order. The names declared here are Autobahn's, some private, as
    Autobahn does not publish its parser's state; the tests of `pushd.transports.websocket.connection` pin them.
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
    """Starts the closing handshake."""

    abort: Callable[[], None]
    """Ends the connection now."""

    _timeouts: Timeouts
    _wheel: TimerWheel
    _bodies: IncompleteBodies
    _held: IncompleteBody | None = None
    _turns: Turns
    _late: Backlog | None = None
    _watch: MessageTimeout | None = None
    _is_too_much = False
    _is_stopped = False

    unanswered = 0
    """Number of the client's events whose publishing is unanswered."""

    held_close: tuple[int, bytes] | None = None
    """The client's close frame, while replies to earlier messages are outstanding."""

    has_heard = False
    """True if any bytes were received since it was last set to False."""

    @property
    def held_bytes(self) -> int:
        """Return the size of an incomplete message or frame, including its waiting bytes."""
        if self.failedByMe:
            return 0
        held: int = self.message_data_total_length if self.inside_message else len(self.data)
        return held if self._late is None else held + self._late.size

    @property
    def _kept_bytes(self) -> int:
        """Return the bytes kept in memory, without the part of the current frame that is not received yet."""
        frame = self.current_frame
        if not self.inside_message or frame is None or frame.opcode > 7:
            return self.held_bytes
        came: int = self.held_bytes - frame.length + self.current_frame_masker.pointer()
        return came

    def dataReceived(self, data: bytes) -> None:
        """Override: called with received bytes."""
        self.has_heard = True
        if self._late is not None:
            self._late.received(data)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Process `data` until the time of this turn is used; the rest waits in a `Backlog`."""
        has_begun = len(data) > _SHORT_BYTES
        if has_begun:
            self._turns.begin()
        while data and not self._is_too_much and self.held_close is None:
            is_stopped = False
            if self._is_between:
                data, is_stopped = self._take_messages(data)
            if data and not is_stopped:
                size = self._piece_bytes
                self._dataReceived(data[:size])  # skips the overridden method, which formats an unused log message
                if self.held_close is None:
                    self._watch_rest(min(size, len(data)))
                data = data[size:]
            if data:
                if not has_begun:
                    self._turns.begin()
                    has_begun = True
                if self.unanswered >= _MAX_UNANSWERED or not self._turns.may_go_on():
                    self._late = Backlog(data, self.transport)
                    self._turns.later(self._go_on, self.abort)
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
        """Called when an event was answered: resume reading if it was paused for that."""
        self.unanswered -= 1
        if self._is_stopped and self.unanswered <= _FEW_UNANSWERED:
            self._is_stopped = False
            self._turns.later(self._go_on, self.abort)

    @property
    def _piece_bytes(self) -> int:
        """Return the size of the next piece for Autobahn: a few frames, or the rest of a long frame."""
        frame = self.current_frame
        rest: int = 0 if frame is None else frame.length - self.current_frame_masker.pointer()
        return max(_PIECE_BYTES, rest)

    @property
    def _is_between(self) -> bool:
        """Return whether the connection is between two messages, with no bytes of the next one."""
        return not self.data and self.current_frame is None and not self.inside_message

    def _watch_rest(self, size: int) -> None:
        """Start the timeout of an incomplete message, and count its bytes; release both for a complete one."""
        if self._is_between:
            if self._held is not None:
                self._held.release()
            if self._watch is not None:
                self._watch.completed()
        else:
            self._hold()
            if self._watch is None:
                self._watch = MessageTimeout(self._timeouts, self._wheel, self._close_late)
            self._watch.came(size)

    def _hold(self) -> None:
        """Count the bytes kept of a message; over the limit, close the connection and stop reading."""
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
        """Read the plain messages at the start of `data`; return the rest, and whether it may start with more.

        This is the fast path; Autobahn, the slow path, takes ten times as long (see `plain_message`).
        """
        stop = count = 0
        while self.state == self.STATE_OPEN and (message := plain_message(data, stop, self.maxMessagePayloadSize)):
            opcode, payload, stop = message
            self.onMessage(payload, opcode == BINARY)
            count += 1
            if count == _MESSAGES:
                return data[stop:], True
        return data[stop:] if stop else data, False
