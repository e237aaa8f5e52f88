"""The protocols over one WebSocket after the handshake: JSON messages both ways, or raw data."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pushd.bus import (
    ClientInfo,
    CloseCause,
    CloseReason,
    Draft,
    Encoder,
    Identity,
    Outcome,
    Pattern,
    StartPosition,
    owner_of,
)
from pushd.errors import BadRequest, Forbidden, NotFound, Refused, TooMany
from pushd.server import RequestRecord
from pushd.sessions import Session
from pushd.transports.websocket.commands import Publish, Renew, Subscribe, Unsubscribe, parse_command, parse_ref
from pushd.transports.websocket.connection import WebSocketConnection
from pushd.transports.websocket.greeting import PING, hello
from pushd.transports.websocket.pings import Pinging
from pushd.transports.websocket.settings import WebSocketSettings
from pushd.wire import Ref, check_size, parse_object, websocket_data, websocket_event, websocket_message

__all__ = ["JsonProtocol", "RawProtocol"]

_log = Logger()

_MAX_WAITING = 100
"""Maximum number of messages that wait for a longer command."""

_SWITCHED = 101
"""Status of a handshake in the request log, over HTTP/2 too."""


class _Dialogue(Pinging):
    """The base of both protocols: a `WebSocketListener`. Subclasses define the messages."""

    __slots__ = ("access_record", "session", "speaks_v1")

    encode: Encoder

    def __init__(
        self,
        websocket: WebSocketConnection,
        settings: WebSocketSettings,
        caller: ClientInfo,
        *,
        speaks_v1: bool = False,
    ) -> None:
        super().__init__(websocket, settings)
        self.speaks_v1 = speaks_v1
        """Whether the subprotocol is ``pushd.v1``: the client understands messages that it did not ask for."""
        self.session = Session(settings.admission.sessions, websocket, self.encode, caller)
        self.access_record: RequestRecord | None = None
        """Logs the handshake at the end of the connection; None if requests are not logged."""

    @property
    def owner(self) -> str | None:
        """Return the owner charged for the client's resources."""
        return owner_of(self.session.caller)

    def subscribe(self, patterns: list[Pattern], since: str) -> None:
        """Register the session, and subscribe to the channels in the query of the handshake."""
        raise NotImplementedError

    def received(self, payload: bytes, is_binary: bool) -> None:
        """Called with a complete message."""
        raise NotImplementedError

    def opened(self) -> None:
        """Called when the handshake is done; events already delivered are written at the end of the turn."""
        self.websocket.transport.registerProducer(self.session, True)

    @property
    def takes_more(self) -> bool:
        """Return whether the client reads (no back-pressure)."""
        return not self.session.is_paused

    def send(self, frame: bytes) -> None:
        """Send a frame that is not an event."""
        self.session.send(frame)

    def wrote(self, size: int) -> None:
        """Count `size` bytes sent without the session."""
        self.session.wrote(size)

    def closing(self, reason: CloseReason | None) -> None:
        """Called when a close frame was sent: stop sending."""
        if reason is not None:
            self._ends(reason)
        self.session.finish()

    def _ends(self, reason: CloseReason) -> None:
        """Record `reason`, unless one is recorded already."""
        if self.session.end_reason is None:
            self.session.end_reason = reason

    def lost(self) -> None:
        """Called when the connection has ended."""
        self.stop_pinging()
        self.session.ended()
        if self.access_record is not None:
            caller = self.session.caller
            self.access_record.ended(_SWITCHED, self.session.sent_bytes, caller.name, caller.user)

    def silent(self) -> None:
        """Override: close the connection of a client that does not answer pings."""
        self._ends(CloseReason(CloseCause.SILENT, "no answer to a ping"))
        self.websocket.abort()

    @property
    def is_answering(self) -> bool:
        """Return whether replies to received messages are outstanding."""
        return self.websocket.unanswered > 0

    def _answered(self) -> None:
        """Called after a delayed reply: reply to a held close frame once no reply is outstanding."""
        if self.websocket.held_close is not None and not self.is_answering:
            self.websocket.answer_close()


_Waiting = Awaitable[Callable[[], None]]
"""A command that takes longer; its result is the function that completes it."""
_Unfinished = tuple[_Waiting, Ref]


class JsonProtocol(_Dialogue):
    """JSON messages: subscribe, unsubscribe, publish and renew, each with a reply that repeats its ``ref``."""

    __slots__ = ("_is_busy", "_later", "_later_bytes")

    encode = staticmethod(websocket_event)

    def __init__(
        self,
        websocket: WebSocketConnection,
        settings: WebSocketSettings,
        caller: ClientInfo,
        *,
        speaks_v1: bool = False,
    ) -> None:
        """Override: start without waiting commands."""
        super().__init__(websocket, settings, caller, speaks_v1=speaks_v1)
        self._is_busy = False
        self._later: deque[tuple[bytes, bool]] | None = None
        self._later_bytes = 0

    def subscribe(self, patterns: list[Pattern], since: str) -> None:
        """Subscribe to each pattern, and send the greeting, and the replies as for subscribe commands."""
        starts = self.session.enter([[pattern] for pattern in patterns], since, self._readable)
        if self.speaks_v1:
            self.session.send(hello(self._settings, self.session.caller))
        for pattern, start in zip(patterns, starts, strict=True):
            self._subscribed(pattern, start, None)

    def ping(self) -> None:
        """Override: a page does not see pings, so one of ``pushd.v1`` gets a message if it got no other."""
        settings = self._settings
        if self.speaks_v1 and settings.wheel.has_reached(self.session.wrote_s + settings.heartbeat_s):
            self.session.send(PING)
        super().ping()

    @property
    def _readable(self) -> Sequence[Pattern]:
        """The patterns that the client may read.

        It may subscribe to further channels one by one, and `since` may be the id of an event in those.
        """
        return self._settings.admission.readable(self.session.caller)

    def _subscribe(self, pattern: Pattern, since: str, ref: Ref) -> None:
        self._subscribed(pattern, self.session.subscribe([pattern], since, self._readable), ref)

    def _subscribed(self, pattern: Pattern, start: StartPosition, ref: Ref) -> None:
        self._answer(
            {
                "type": "subscribed",
                "channel": pattern.text,
                "position": start.position,
                "recovered": start.recovered,
            },
            ref,
        )

    def _answer(self, message: dict[str, object], ref: Ref) -> None:
        if ref is not None:
            message["ref"] = ref
        self.session.send(websocket_message(message))

    def received(self, payload: bytes, is_binary: bool) -> None:
        """Called with a command. An invalid command gets an error reply, and the connection stays open."""
        if self._is_busy:
            if not self._wait(payload, is_binary):
                self._take(payload, is_binary, is_too_much=True)
        elif (unfinished := self._take(payload, is_binary)) is not None:
            self._is_busy = True
            Deferred.fromCoroutine(self._finish(unfinished)).addErrback(self.websocket.failed)

    def _take(self, payload: bytes, is_binary: bool, *, is_too_much: bool = False) -> _Unfinished | None:
        """Execute a command, or send an error reply; return a command that has to wait.

        ``[limits] publish_rate`` counts events; all other messages, even invalid events, count as commands.
        """
        message: dict[str, object] = {}
        is_charged = False
        try:
            if is_binary:
                raise BadRequest("a binary message; expected JSON in a text message, or format=raw")
            message = parse_object(payload, self._settings.max_event_bytes, self._settings.max_channels)
            if is_too_much:
                raise TooMany("too many messages are pending; wait for the answers to them", retry_s=1)
            if message.get("type") != "publish":
                is_charged = True
                self._settings.admission.charge_command(self.session.caller)
            waiting = self._obey(message)
        except Refused as refused:
            self._refuse(refused if is_charged else self._charged(refused), _ref_of(message))
            return None
        return None if waiting is None else (waiting, _ref_of(message))

    def _charged(self, refused: Refused) -> Refused:
        """Count a refused message as a command; return `refused`, or `TooMany` over the rate limit."""
        try:
            self._settings.admission.charge_command(self.session.caller)
        except TooMany as too_many:
            return too_many
        return refused

    @property
    def is_answering(self) -> bool:
        """Override: return True also while a longer command runs."""
        return self._is_busy or super().is_answering

    # Longer commands, and the messages that wait for them

    def _wait(self, payload: bytes, is_binary: bool) -> bool:
        """Queue a message; return False if there is no room for it."""
        if self._later is None:
            self._later = deque()
        size = self._later_bytes + len(payload)
        if len(self._later) >= _MAX_WAITING or size > max(self._settings.max_event_bytes * 2, len(payload)):
            return False
        self._later.append((payload, is_binary))
        self._later_bytes = size
        return True

    async def _finish(self, unfinished: _Unfinished | None) -> None:
        """Complete a longer command once its result is known, then execute the queued messages."""
        while unfinished is not None:
            waiting, ref = unfinished
            try:
                go_on = await waiting
                while (tidied := self.session.tidied()) is not None:
                    await tidied
                if not self.session.is_closed:
                    go_on()
            except Refused as refused:
                self._refuse(refused, ref)
            unfinished = None
            while self._later and unfinished is None and not self.session.is_closed:
                payload, is_binary = self._later.popleft()
                self._later_bytes -= len(payload)
                unfinished = self._take(payload, is_binary)
        self._is_busy = False
        self._answered()

    def _refuse(self, refused: Refused, ref: Ref) -> None:
        self._settings.admission.sessions.counters.refuse(refused)
        _log.info("refused a message of {peer}: {detail}", peer=self.websocket.client_name, detail=refused.detail)
        self._answer({"type": "error", **refused.problem()}, ref)

    def _published(self, ref: Ref, outcome: Outcome) -> None:
        self.websocket.one_answered()
        if isinstance(outcome, Refused):
            self._refuse(outcome, ref)
        else:
            message: dict[str, object] = {"type": "published", "id": outcome.id, "offset": outcome.offset}
            if outcome.is_duplicate:
                message["duplicate"] = True
            self._answer(message, ref)
        if self.websocket.held_close is not None:
            self._answered()

    def _obey(self, message: dict[str, object]) -> _Waiting | None:
        """Execute a command; if it takes longer, return an awaitable of the function that completes it."""
        caller = self.session.caller
        identity = caller.identity
        if not identity.grants.publish.texts and message.get("type") == "publish":
            identity.grants.check_publish_anywhere()  # before parsing the event, which takes longer
        command = parse_command(message, self._settings.max_channels)
        if identity.expires_at is not None and not isinstance(command, Renew):
            self._settings.admission.sessions.check_time(caller)  # the expiry timer is late by a second or two
        ref = command.ref
        if isinstance(command, Publish):
            draft = command.draft
            if len(draft.data) * 6 > self._settings.max_event_bytes:
                check_size(draft.data, self._settings.max_event_bytes, is_text=draft.is_text)
            self._settings.publisher.publish(draft, caller, partial(self._published, ref))
            self.websocket.unanswered += 1  # 0 again if the reply was sent at once
        elif isinstance(command, Subscribe):
            pattern, since = command.pattern, command.since
            subscribe = partial(self._subscribe, pattern, since, ref)
            waiting = self._settings.admission.subscribe(self.session, pattern, since) or self.session.tidied()
            if waiting is not None:
                return waiting.addCallback(lambda _: subscribe)
            subscribe()
        elif isinstance(command, Unsubscribe):
            if not self.session.unsubscribe(command.channel):
                raise NotFound(f"not subscribed to {command.channel!r}", "channel")
            self._answer({"type": "unsubscribed", "channel": command.channel}, ref)
        else:
            return self._renew(command)
        return None

    async def _renew(self, command: Renew) -> Callable[[], None]:
        """Identify the client by a new token; return the function that applies it."""
        identity = self._settings.guard.identify(command.token)
        if not isinstance(identity, Identity):
            identity = await identity
        identity = replace(identity, certified_until=self.session.caller.identity.certified_until)
        identity = await self._settings.admission.identity(self.session.caller, identity)
        if identity.user != self.session.caller.user:
            raise Forbidden(
                f"the token is of the user {identity.user!r}, not of {self.session.caller.user!r}", "token"
            )
        return partial(self._renewed, identity, command.ref)

    def _renewed(self, identity: Identity, ref: Ref) -> None:
        self.session.caller.identity = identity
        self._settings.admission.sessions.expire_later(self.session)
        for text in self.session.revoke():
            detail = "the new token does not grant it"
            self._answer({"type": "unsubscribed", "channel": text, "detail": detail}, None)
        self._answer({"type": "renewed", "expires": identity.expires_at}, ref)


def _ref_of(message: dict[str, object]) -> Ref:
    """Return the ``ref`` of a refused message; None if it is missing or invalid."""
    try:
        return parse_ref(message)
    except Refused:
        return None


class RawProtocol(_Dialogue):
    """Raw data both ways. The format has no error messages: an error closes the connection, with its reason."""

    __slots__ = ("_lost_position", "_patterns")

    encode = staticmethod(websocket_data)

    def subscribe(self, patterns: list[Pattern], since: str) -> None:
        """Subscribe to all patterns; the client's messages are published to the channel, if there is only one."""
        self._patterns = patterns
        self._lost_position = not self.session.enter([patterns], since)[0].recovered

    def opened(self) -> None:
        """Override: close the connection if the position was lost, as the format cannot report a gap."""
        super().opened()
        if self._lost_position:
            self._refuse("since: events after this position were lost; start with earliest or latest")

    def received(self, payload: bytes, is_binary: bool) -> None:
        """Publish a message."""
        if len(self._patterns) != 1 or not self._patterns[0].is_name:
            self._refuse("publishing in raw format requires exactly one channel name in the query")
            return
        try:
            self._settings.admission.sessions.check_time(self.session.caller)
            check_size(payload, self._settings.max_event_bytes, is_text=not is_binary)
            draft = Draft.checked((self._patterns[0].text,), payload, is_text=not is_binary)
        except Refused as refused:
            self._refuse(refused.detail)
        else:
            self._settings.publisher.publish(draft, self.session.caller, self._published)
            self.websocket.unanswered += 1

    def _published(self, outcome: Outcome) -> None:
        self.websocket.one_answered()
        if isinstance(outcome, Refused):
            cause = CloseCause.TOO_MANY if isinstance(outcome, TooMany) else CloseCause.REFUSED
            self.session.close(CloseReason(cause, outcome.detail))
        self._answered()

    def _refuse(self, text: str) -> None:
        self.session.close(CloseReason(CloseCause.REFUSED, text))
