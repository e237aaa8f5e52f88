"""The door: which clients may subscribe, read and look, by rights, room, rates and the application's answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from pushd.auth import CommandRates, take
from pushd.bus import ClientInfo, Identity, Pattern, Work, key_of, limit_key, owner_of
from pushd.errors import Forbidden, TooMany
from pushd.server import Request
from pushd.sessions.long_work import unless_done
from pushd.sessions.registry import ConnectedSubscriber, SessionRegistry

__all__ = ["Admission", "Asking", "Rates", "outlast"]

_ALL = Pattern.parse("**")


class Asking(Protocol):
    """What asks the application: `pushd.auth.webhooks.authorizer.WebhookAuthorizer`."""

    @property
    def asks_connect(self) -> bool:
        """Whether it is asked about subscribers that come."""

    @property
    def asks_subscribe(self) -> bool:
        """Whether it is asked about each channel."""

    async def before_connect(self, caller: ClientInfo) -> Identity:
        """Return who it is for the application; raise `Refused` if it may not come."""

    async def before_subscribe(self, caller: ClientInfo, channel: str, since: str) -> None:
        """Raise `Refused` if it may not subscribe."""


class Rates(Protocol):
    """What knows how often something was done by whom: `pushd.auth.rate_limits.TokenBuckets`."""

    def take(self, key: str, count: int = 1) -> float:
        """Take note that it is done, and answer 0; or answer after how many seconds it could be."""


class Admission:
    """Where subscribers come in."""

    def __init__(
        self,
        sessions: SessionRegistry,
        connects: Rates | None = None,
        asking: Asking | None = None,
        publishes: Rates | None = None,
        commands: CommandRates | None = None,
    ) -> None:
        """Let them in to `sessions`, as often as `connects` says, and as the application answers.

        Who is in subscribes to channels that say so themselves as often as `publishes` says, and sends commands as
        often as `commands` says.
        """
        self.sessions = sessions
        """Those who are in."""
        self.configure(connects, asking, publishes, commands)

    def configure(
        self,
        connects: Rates | None,
        asking: Asking | None,
        publishes: Rates | None,
        commands: CommandRates | None = None,
    ) -> None:
        """Go by these from now on."""
        self._connects, self._publishes, self._commands = connects, publishes, commands
        self._asking = asking

    @property
    def _asks_subscribe(self) -> bool:
        return self._asking is not None and self._asking.asks_subscribe

    def enter(
        self,
        caller: ClientInfo,
        transport: str,
        patterns: Sequence[Pattern],
        since: str,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> Deferred[None] | None:
        """Let `caller` in to begin with `patterns`, now or when that is answered; raise `Refused` if it may not.

        Everything that can be decided here is decided before the application is asked. Between two questions
        `is_gone` tells whether the client has disconnected; then no more are asked.
        """
        patterns = list(dict.fromkeys(patterns))
        self.sessions.bus.check_count(len(patterns))
        caller.transport = transport
        self.sessions.name(caller)
        self.sessions.check_room(caller)
        self._check_rate(caller)
        asking = self._asking
        is_asked = asking is not None and (asking.asks_connect or asking.asks_subscribe)
        if asking is None or not asking.asks_connect:  # which may grant more than the caller has
            _check(caller, patterns)
        waiting = None
        if asking is not None and is_asked:
            self.sessions.bus.check_names([pattern.text for pattern in patterns if pattern.is_name], caller)
            waiting = Deferred.fromCoroutine(self._ask(asking, caller, patterns, since, is_gone))
        return waiting if transport == "poll" else self._prepare(caller, patterns, since, waiting, is_gone)

    def _prepare(
        self,
        caller: ClientInfo,
        patterns: Sequence[Pattern],
        since: str,
        waiting: Deferred[None] | None,
        is_gone: Callable[[], bool],
        others: Sequence[Pattern] = (),
    ) -> Deferred[None] | None:
        """Find out what `caller` is going to read, after what it is `waiting` for, if that may take long."""
        if since == "latest" or all(pattern.is_name for pattern in patterns):
            return waiting

        is_websocket = caller.transport == "websocket"  # which subscribes to one after the other
        together = [[pattern] for pattern in patterns] if is_websocket else [patterns]

        def prepare() -> Work[None]:
            caller.prepared = prepared = {}
            log, among = self.sessions.bus.log, [[*patterns, *others]]
            among += [list(self.readable(caller))] if is_websocket else []
            try:
                for each in together:
                    prepared[key_of(each, since)] = yield from log.preparing(each, since, *among)
            except GeneratorExit:  # the client has gone
                for one in prepared.values():
                    log.discard(one.replay)
                raise

        return self.do(prepare, waiting, is_gone, owner_of(caller))

    def do(
        self,
        work: Callable[[], Work[None]],
        waiting: Deferred[None] | None = None,
        is_gone: Callable[[], bool] = lambda: False,
        owner: str | None = None,
    ) -> Deferred[None] | None:
        """Do what `work` makes for `owner`, in several turns, after what is waited for; None if it is done."""
        steps = self.sessions.steps
        if waiting is None:
            return unless_done(steps.run(work(), is_gone, owner))

        async def do_later() -> None:
            await waiting
            if not is_gone():
                await steps.run(work(), is_gone, owner)

        return Deferred.fromCoroutine(do_later())

    def _check_rate(self, caller: ClientInfo) -> None:
        key = limit_key(caller.address)
        if self._connects is None or key is None or caller.grants.is_operator:
            return
        if caller.transport == "poll":
            return  # each poll connects anew; they count as reads, see `pushd.server.web.resource.Endpoint.charge`
        wait_s = self._connects.take(key)
        if wait_s:
            raise TooMany(f"{key} connects too often: see [limits] connect_rate", retry_s=wait_s)

    def _check_join(self, caller: ClientInfo, pattern: Pattern) -> None:
        """Raise `TooMany` if `caller` subscribes too often to channels that say so: each is an event for all."""
        if self._publishes is None or not pattern.is_name:
            return
        if self.sessions.bus.log.settings(pattern.text).presence == "events":
            too_many = take(self._publishes, caller, is_join=True)
            if too_many is not None:
                raise too_many

    async def _ask(
        self,
        asking: Asking,
        caller: ClientInfo,
        patterns: Sequence[Pattern],
        since: str,
        is_gone: Callable[[], bool],
    ) -> None:
        """Ask about a client that counts as connected meanwhile, so that no more are asked about than may be."""
        release = self.sessions.reserve(caller)
        try:
            caller.identity = await self.identity(caller, caller.identity)
            if is_gone():
                return
            release()
            release = self.sessions.reserve(caller)  # as the user that the application has made of it
            _check(caller, patterns)
            await self._ask_each(asking, caller, patterns if asking.asks_subscribe else (), since, is_gone)
        finally:
            release()

    def charge_command(self, caller: ClientInfo) -> None:
        """Count a command of `caller`, who is in, or raise `TooMany`."""
        if self._commands is not None:
            self._commands.charge(caller)

    async def identity(self, caller: ClientInfo, identity: Identity) -> Identity:
        """Return what the application makes of `identity`, which `caller` shows."""
        asking = self._asking
        if asking is None or not asking.asks_connect:
            return identity
        return await asking.before_connect(caller.appearing_as(identity))

    def subscribe(self, guest: ConnectedSubscriber, pattern: Pattern, since: str) -> Deferred[None] | None:
        """Let `guest`, who is in, subscribe, now or when that is answered; raise `Refused` if it may not."""
        caller, asking = guest.caller, self._asking
        _check(caller, [pattern])
        self._check_join(caller, pattern)
        waiting, others = None, [Pattern.parse(text) for text in guest.subscription.texts]
        if asking is not None and asking.asks_subscribe:
            guest.subscription.check([pattern], since)
            waiting = Deferred.fromCoroutine(asking.before_subscribe(caller, pattern.text, since))
            waiting.addCallback(lambda _: self.sessions.refresh(caller))
        return self._prepare(caller, [pattern], since, waiting, lambda: guest.end_reason is not None, others)

    def read(
        self,
        caller: ClientInfo,
        patterns: Sequence[Pattern],
        since: str,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> Deferred[None] | None:
        """Let `caller`, who does not come in, read, now or when that is answered; raise `Refused` if it may not."""
        patterns = list(dict.fromkeys(patterns))
        _check(caller, patterns)
        self.sessions.bus.check_count(len(patterns))
        asking = self._asking
        if asking is None or not asking.asks_subscribe:
            return None
        return Deferred.fromCoroutine(self._ask_each(asking, caller, patterns, since, is_gone))

    def readable(self, caller: ClientInfo) -> Sequence[Pattern]:
        """Return patterns of the channels that `caller` may read, as far as that is known without asking."""
        return () if self._asks_subscribe else caller.grants.subscribe.patterns

    def look(self, caller: ClientInfo, name: str) -> Deferred[None] | None:
        """Let `caller` see what a channel is like and who is there, now or when that is answered.

        Operators may; others if they may subscribe to it. Raises `Refused`.
        """
        if caller.grants.is_operator:
            return None
        return self.read(caller, [Pattern.parse(name)], "latest")

    def look_at_all(self, caller: ClientInfo) -> None:
        """Raise `Refused` unless `caller` may see which channels there are.

        An application that is asked about each channel is not asked about the thousands of a list: then only
        operators see it.
        """
        if caller.grants.is_operator:
            return
        _check(caller, [_ALL])
        if self._asks_subscribe:
            raise Forbidden("no right to list the channels: with [hooks] before_subscribe, only operators have it")

    async def _ask_each(
        self,
        asking: Asking,
        caller: ClientInfo,
        patterns: Sequence[Pattern],
        since: str,
        is_gone: Callable[[], bool],
    ) -> None:
        for pattern in patterns:
            if is_gone():
                return
            await asking.before_subscribe(caller, pattern.text, since)
        self.sessions.refresh(caller)
        _check(caller, patterns)


def _check(caller: ClientInfo, patterns: Sequence[Pattern]) -> None:
    """Raise `Refused` before anybody is let in who may not subscribe; the bus looks again."""
    for pattern in patterns:
        caller.grants.check_subscribe(pattern.text)


def outlast(request: Request) -> None:
    """Have `request` end when its client sends nothing more over its connection, which it may have done already.

    That is for answers that go on, or wait, for as long as the client listens. To end its half is how it says that
    it does not any more, and nothing else shows that at once.
    """
    request.is_lasting = True
    if request.connection.has_input_ended:
        request.connection.abort()
