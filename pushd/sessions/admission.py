"""Admission: decide whether a client may subscribe or read (grants, limits, rate, webhook)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from twisted.internet.defer import Deferred

from pushd.auth import CommandRates, WebhookAuthorizer, take
from pushd.bus import (
    ClientInfo,
    Identity,
    Pattern,
    TokenBuckets,
    Transport,
    Work,
    key_of,
    limit_key,
    owner_of,
    sequence_in,
    when_here,
)
from pushd.errors import Forbidden, TooMany
from pushd.sessions.interfaces import ConnectedSubscriber
from pushd.sessions.long_work import unless_done
from pushd.sessions.registry import SessionRegistry

__all__ = ["Admission"]

_ALL = Pattern.parse("**")


class Admission:
    """Decides which clients may subscribe and read."""

    def __init__(
        self,
        sessions: SessionRegistry,
        connects: TokenBuckets | None = None,
        authorizer: WebhookAuthorizer | None = None,
        publishes: TokenBuckets | None = None,
        commands: CommandRates | None = None,
    ) -> None:
        """Admit clients to `sessions`, at the rate of `connects` and as `authorizer` authorizes.

        `publishes` limits the rate of subscriptions to channels that publish joins; `commands` that of commands.
        """
        self.sessions = sessions
        """The admitted subscribers."""
        self.configure(connects, authorizer, publishes, commands)

    def configure(
        self,
        connects: TokenBuckets | None,
        authorizer: WebhookAuthorizer | None,
        publishes: TokenBuckets | None,
        commands: CommandRates | None = None,
    ) -> None:
        """Use these limits and webhooks from now on."""
        self._connects, self._publishes, self._commands = connects, publishes, commands
        self._authorizer = authorizer

    @property
    def _asks_subscribe(self) -> bool:
        return self._authorizer is not None and self._authorizer.asks_subscribe

    def admit(
        self,
        caller: ClientInfo,
        transport: Transport,
        patterns: Sequence[Pattern],
        since: str,
        is_gone: Callable[[], bool] = lambda: False,
        read: Callable[[], Work[None]] | None = None,
    ) -> Deferred[None] | None:
        """Admit `caller`, to start with `patterns`; raise `Refused` if it may not. None means admitted at once.

        The steps: local checks; the webhooks; long reading, which is `read` or else prepares the replay. `caller`
        counts as connected from the first webhook on, so that the limits hold when it is registered. No step
        begins once `is_gone` returns true: the client has disconnected.
        """
        patterns = list(dict.fromkeys(patterns))
        sessions, authorizer = self.sessions, self._authorizer
        sessions.bus.check_count(len(patterns))
        caller.transport = transport
        sessions.name(caller)
        sessions.check_room(caller)
        self._check_rate(caller)
        if authorizer is None or not authorizer.asks_connect:  # that webhook may add grants
            _check(caller, patterns)
        if read is None:
            read = self._replay(caller, patterns, since)
        if authorizer is None or not (authorizer.asks_connect or authorizer.asks_subscribe):
            if read is None:
                return None
            return unless_done(Deferred.fromCoroutine(self._wait(None, caller, patterns, since, is_gone, read)))
        sessions.bus.check_names([pattern.text for pattern in patterns if pattern.is_name], caller)
        return Deferred.fromCoroutine(self._wait(authorizer, caller, patterns, since, is_gone, read))

    async def _wait(
        self,
        authorizer: WebhookAuthorizer | None,
        caller: ClientInfo,
        patterns: Sequence[Pattern],
        since: str,
        is_gone: Callable[[], bool],
        read: Callable[[], Work[None]] | None,
    ) -> None:
        """Do the steps of `admit` that may take several turns of the reactor."""
        sessions = self.sessions
        if authorizer is not None and authorizer.asks_connect:
            with sessions.reserve(caller):
                caller.identity = await self.identity(caller, caller.identity)
            if is_gone():
                return
            sessions.check_room(caller)  # as the user that the webhook returned
            _check(caller, patterns)
        with sessions.reserve(caller):
            if authorizer is not None:
                await self._ask_each(
                    authorizer, caller, patterns if authorizer.asks_subscribe else (), since, is_gone
                )
            if read is not None and not is_gone():
                await sessions.steps.run(read(), is_gone, owner_of(caller))
        sessions.regrant_late(caller)

    def _replay(
        self, caller: ClientInfo, patterns: Sequence[Pattern], since: str, others: Sequence[Pattern] = ()
    ) -> Callable[[], Work[None]] | None:
        """Return the work that prepares the replay for `caller`; None if it does not take long.

        A publisher's id takes long even in one channel: its event may have to be fetched.
        """
        is_own = since in ("latest", "earliest") or sequence_in(since) is not None
        if since == "latest" or (is_own and all(pattern.is_name for pattern in patterns)):
            return None
        has_own_starts = caller.transport.has_own_starts
        together = [[pattern] for pattern in patterns] if has_own_starts else [patterns]

        def prepare() -> Work[None]:
            caller.prepared = prepared = {}
            log, among = self.sessions.bus.log, [[*patterns, *others]]
            among += [list(self.readable(caller))] if has_own_starts else []
            place = yield from when_here(partial(log.where, since, *among))
            try:
                for each in together:
                    prepared[key_of(each, since)] = yield from log.preparing(each, since, place)
            except GeneratorExit:  # the client has disconnected
                for one in prepared.values():
                    log.discard(one.replay)
                raise

        return prepare

    def do(
        self,
        work: Callable[[], Work[None]],
        waiting: Deferred[None] | None = None,
        is_gone: Callable[[], bool] = lambda: False,
        owner: str | None = None,
    ) -> Deferred[None] | None:
        """Run `work` for `owner` after `waiting`, over several turns; return None if it is already done."""
        steps = self.sessions.steps
        if waiting is None:
            return unless_done(steps.run(work(), is_gone, owner))

        async def do_later() -> None:
            await waiting
            if not is_gone():
                await steps.run(work(), is_gone, owner)

        return Deferred.fromCoroutine(do_later())

    def _check_rate(self, caller: ClientInfo) -> None:
        if self._connects is None:
            return
        key = limit_key(caller.place.address)
        if key is None or caller.identity.grants.is_operator:
            return
        if caller.transport.is_polling:
            return  # each poll connects anew; they count as reads, see `pushd.server.web.resource.Endpoint.charge`
        wait_s = self._connects.take(key)
        if wait_s:
            raise TooMany(
                f"{key} connects too often: see [limits] connect_rate", retry_s=wait_s, code="rate_limited"
            )

    def _check_join(self, caller: ClientInfo, pattern: Pattern) -> None:
        """Raise `TooMany` if `caller` exceeds the rate for channels that publish joins: each join is an event."""
        if self._publishes is None or not pattern.is_name:
            return
        if self.sessions.bus.log.settings(pattern.text).presence == "events":
            too_many = take(self._publishes, caller, is_join=True)
            if too_many is not None:
                raise too_many

    def charge_command(self, caller: ClientInfo) -> None:
        """Count a command of `caller`, an admitted client; raise `TooMany` over the rate limit."""
        if self._commands is not None:
            self._commands.charge(caller)

    async def identity(self, caller: ClientInfo, identity: Identity) -> Identity:
        """Return the identity that the webhook gives `caller` for `identity`; without a webhook, `identity`."""
        authorizer = self._authorizer
        if authorizer is None or not authorizer.asks_connect:
            return identity
        return await authorizer.before_connect(caller.appearing_as(identity))

    def subscribe(self, subscriber: ConnectedSubscriber, pattern: Pattern, since: str) -> Deferred[None] | None:
        """Allow `subscriber`, an admitted subscriber, to subscribe to `pattern`; raise `Refused` if it may not."""
        caller, authorizer = subscriber.caller, self._authorizer
        _check(caller, [pattern])
        self._check_join(caller, pattern)
        waiting, others = None, [Pattern.parse(text) for text in subscriber.subscription.texts]
        if authorizer is not None and authorizer.asks_subscribe:
            subscriber.subscription.check([pattern], since)
            waiting = Deferred.fromCoroutine(authorizer.before_subscribe(caller, pattern.text, since))
            waiting.addCallback(lambda _: self.sessions.refresh(caller))
        prepare = self._replay(caller, [pattern], since, others)
        if prepare is None:
            return waiting
        return self.do(prepare, waiting, lambda: subscriber.end_reason is not None, owner_of(caller))

    def read(
        self,
        caller: ClientInfo,
        patterns: Sequence[Pattern],
        since: str,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> Deferred[None] | None:
        """Allow `caller` to read `patterns` without a session; raise `Refused` if it may not."""
        patterns = list(dict.fromkeys(patterns))
        _check(caller, patterns)
        self.sessions.bus.check_count(len(patterns))
        authorizer = self._authorizer
        if authorizer is None or not authorizer.asks_subscribe:
            return None
        return Deferred.fromCoroutine(self._ask_each(authorizer, caller, patterns, since, is_gone))

    def readable(self, caller: ClientInfo) -> Sequence[Pattern]:
        """Return the patterns that `caller` may read; none if a webhook authorizes each subscription."""
        return () if self._asks_subscribe else caller.identity.grants.subscribe.patterns

    def look(self, caller: ClientInfo, name: str) -> Deferred[None] | None:
        """Allow `caller` to read the state and presence of a channel.

        Operators may; other clients may if they may subscribe to the channel. Raise `Refused` otherwise.
        """
        if caller.grants.is_operator:
            return None
        return self.read(caller, [Pattern.parse(name)], "latest")

    def look_at_all(self, caller: ClientInfo) -> None:
        """Raise `Refused` unless `caller` may list the channels.

        If a webhook authorizes each subscription, only operators may: it is not called for the thousands of a list.
        """
        if caller.grants.is_operator:
            return
        _check(caller, [_ALL])
        if self._asks_subscribe:
            raise Forbidden("no right to list the channels: with [hooks] before_subscribe, only operators have it")

    async def _ask_each(
        self,
        authorizer: WebhookAuthorizer,
        caller: ClientInfo,
        patterns: Sequence[Pattern],
        since: str,
        is_gone: Callable[[], bool],
    ) -> None:
        for pattern in patterns:
            if is_gone():
                return
            await authorizer.before_subscribe(caller, pattern.text, since)
        self.sessions.refresh(caller)
        _check(caller, patterns)


def _check(caller: ClientInfo, patterns: Sequence[Pattern]) -> None:
    """Raise `Refused` if `caller` may not subscribe to one of `patterns`; the bus checks again."""
    grants = caller.identity.grants
    for pattern in patterns:
        grants.check_subscribe(pattern.text)
