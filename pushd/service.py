"""The daemon: everything put together from the configuration, started and stopped in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import random
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as NotInTime
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from pushd import demo, tls
from pushd.access import Grants
from pushd.api.channels import ChannelList
from pushd.api.health import Health
from pushd.api.publish import PublishMany
from pushd.archive import MemoryArchive
from pushd.assets import Assets, link_to
from pushd.bus import Bus
from pushd.config.settings import Config
from pushd.errors import StartFailed, Unavailable
from pushd.eventlog import EventLog, State
from pushd.gate import Gate
from pushd.listen import prepare
from pushd.publisher import Direct, Publisher
from pushd.reasons import Cause, Reason
from pushd.sessions import Sessions
from pushd.site import PushdSite, tree
from pushd.store.continuity import new_epoch
from pushd.store.journal import Journal
from pushd.store.store import Store
from pushd.store.worker import Worker
from pushd.subscription import Subscriber, Subscription
from pushd.transports.poll import LongPoll
from pushd.transports.push import EventPush
from pushd.transports.sse import ServerSentEvents
from pushd.transports.stream import JsonStream
from pushd.transports.websocket import WebSocket
from pushd.wheel import Wheel

__all__ = ["Daemon", "Parts", "assemble"]

T = TypeVar("T")

_log = Logger()

_CLOSE_PORT_S = 1.0
"""How long it may take to stop listening at one place."""

_ACKNOWLEDGE_S = 1.0
"""How long what was published before the stop is waited for before everybody is told."""

_CLOSE_STORE_S = 10.0
"""How long it may take to write what is still to be written and close the store."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the daemon consists of, without ports and timers."""

    bus: Bus
    """Where everything is published."""

    sessions: Sessions
    """Who is connected."""

    site: PushdSite
    """What is served."""

    every_second: tuple[Callable[[], None], ...]
    """What is to be called each second."""

    journal: Journal | None = None
    """What publishes into the store, if there is one."""

    store: Store | None = None
    """Where events are kept, if not only in memory."""

    worker: Worker | None = None
    """What works for the store in a thread."""


def assemble(
    config: Config,
    reactor: IReactorTime,
    *,
    seconds: Callable[[], float],
    now: Callable[[], float],
    store: Store | None = None,
    worker: Worker | None = None,
) -> Parts:
    """Put the parts together.

    `seconds` is a clock that never jumps; `now` is the time in seconds since 1970. Events are kept in `store`, for
    which `worker` works; without them, in memory.
    """
    log: EventLog[Subscription] = EventLog(
        state=State(new_epoch()),
        archive=MemoryArchive() if store is None else store.archive,
        settings=config.channels.settings,
        now=now,
        seconds=seconds,
        max_channels=config.limits.channels,
        max_bytes=config.store_size_bytes,
    )
    bus = Bus(
        log,
        max_subscribed=config.limits.subscriptions,
        max_held_bytes=config.limits.outbox_bytes,
        failed=_subscriber_failed,
    )
    journal = None
    if store is not None and worker is not None:
        journal = Journal(bus, store, reactor.callLater, worker, writes_in_thread=config.durability == "power")
    publisher: Publisher = Direct(bus) if journal is None else journal
    wheel = Wheel(seconds)
    sessions = Sessions(bus, wheel, reactor.callLater, max_outbox_bytes=config.limits.outbox_bytes)
    clock = demo.Clock(bus, publisher, now)
    has_demo = config.site.root is None and config.site.demo
    files = demo.PAGES if has_demo else None if config.site.root is None else Path(config.site.root)
    site = PushdSite(
        tree(_endpoints(config, sessions, publisher, reactor, lambda: _counts(site, bus)), files),
        reactor,
        wheel=wheel,
        max_body_bytes=config.limits.batch_size_bytes,
        request_timeout_s=config.limits.request_timeout_s,
        logs_requests=config.log.requests,
        assets=_assets(config, has_demo=has_demo),
        websocket_over_http2=config.http2.websocket,
    )
    tends = () if journal is None else (journal.tend,)
    every_second = (wheel.turn, log.expire, *tends, *((clock.tick,) if has_demo else ()))
    return Parts(bus, sessions, site, every_second, journal, store, worker)


def _assets(config: Config, *, has_demo: bool) -> Assets:
    lists = {page.path: [link_to(path) for path in page.resources] for page in config.pushes}
    links = {**(demo.ASSETS if has_demo else {}), **lists}
    return Assets(links, hints_over_http1=config.site.early_hints)


def _subscriber_failed(subscriber: Subscriber, error: Exception) -> None:
    _log.failure("dropped {subscriber}, which failed", Failure(error), subscriber=subscriber)


def _counts(site: PushdSite, bus: Bus) -> dict[str, int]:
    return {"connections": len(site.connections), "subscribers": bus.subscribers, "channels": len(bus.log)}


def _endpoints(
    config: Config,
    sessions: Sessions,
    publisher: Publisher,
    reactor: IReactorTime,
    counts: Callable[[], dict[str, int]],
) -> dict[bytes, IResource]:
    """Make what is served beside files."""
    limits, auth, bus = config.limits, config.auth, sessions.bus
    grants = Grants.of(auth.anonymous, auth.anonymous_publish, auth.anonymous_subscribe)
    gate = Gate(grants, auth.hosts, auth.origins)
    return {
        b"channels": ChannelList(gate, bus, publisher, max_event_bytes=limits.event_size_bytes),
        b"publish": PublishMany(
            gate, publisher, max_event_bytes=limits.event_size_bytes, call_later=reactor.callLater
        ),
        b"ws": WebSocket(
            gate,
            sessions,
            publisher,
            max_event_bytes=limits.event_size_bytes,
            heartbeat_s=limits.heartbeat_s,
            ping_timeout_s=limits.ping_timeout_s,
        ),
        b"sse": ServerSentEvents(gate, sessions, retry_s=limits.retry_s, heartbeat_s=limits.heartbeat_s),
        b"stream": JsonStream(gate, sessions, heartbeat_s=limits.heartbeat_s),
        b"poll": LongPoll(gate, sessions, timeout_s=limits.poll_timeout_s),
        b"push": EventPush(gate, sessions, heartbeat_s=limits.heartbeat_s, call_later=reactor.callLater),
        b"healthz": Health(counts),
    }


class Daemon(Service):
    """The daemon's life: open the ports, turn the timers, and at the end let everybody go in order."""

    def __init__(
        self,
        config: Config,
        parts: Parts,
        reactor: IReactorTime,
        *,
        state_directory: str,
        fail: Callable[[StartFailed], None],
        random: Callable[[], float] = random,
    ) -> None:
        """Prepare the ports of `config`, which is everything that can be checked before they are opened.

        `fail` is called if they cannot be, and ends the process. `random` answers numbers from 0 to 1. Raises
        `StartFailed` if a certificate cannot be served with, or an endpoint or the site does not exist.
        """
        if config.site.root is not None and not Path(config.site.root).is_dir():
            raise StartFailed(f"[site] root = {config.site.root}: not a directory")
        self._config = config
        self._parts = parts
        self._reactor = reactor
        self._fail = fail
        self._random = random
        self._is_store_open = False
        self._is_hurried = False
        self._awaited: Deferred[None] | None = None
        silence_s = config.limits.heartbeat_s + config.limits.ping_timeout_s
        self._ports = [
            prepare(listener, parts.site, reactor, partial(tls.self_signed, state_directory), silence_s=silence_s)
            for listener in config.listeners
        ]
        self._loops = [self._loop(call) for call in parts.every_second]

    def _loop(self, call: Callable[[], None]) -> LoopingCall:
        loop = LoopingCall(call)
        loop.clock = self._reactor
        return loop

    def privilegedStartService(self) -> None:
        """Override: open the ports, all or none."""
        super().privilegedStartService()
        try:
            for port in self._ports:
                port.open()
        except StartFailed as error:
            self._give_up(error)

    def _give_up(self, error: StartFailed) -> None:
        for port in self._ports:
            Deferred.fromCoroutine(port.close())
        self._fail(error)

    def startService(self) -> None:
        """Override: the reactor is about to run."""
        super().startService()
        parts = self._parts
        if parts.store is not None and parts.worker is not None:
            try:
                parts.store.open(parts.bus.log)
            except StartFailed as error:
                self._give_up(error)
                return
            self._is_store_open = True
            parts.worker.start()
        for loop in self._loops:
            self._start(loop)
        self._greet()

    def _start(self, loop: LoopingCall) -> None:
        loop.start(1, now=False).addErrback(self._loop_failed, loop)

    def _loop_failed(self, failure: Failure, loop: LoopingCall) -> None:
        _log.failure("a fault in pushd, in what is done every second", failure)
        self._start(loop)

    def _greet(self) -> None:
        """Say what listens where, and what to try."""
        urls = [port.url for port in self._ports]
        _log.info("pushd listens at {urls}", urls=" and ".join(urls))
        curl = self._ports[0].curl
        if self._config.site.root is None and self._config.site.demo:
            _log.info("open {url}/ in a browser, or try:", url=urls[0])
            _log.info("    {command}", command=curl("-N", "/sse?channel=clock"))
        _log.info("    {command}", command=curl("-d 'hello'", "/channels/news"))

    def reload(self) -> None:
        """Read the certificates again; connections that live keep what they have."""
        for port in self._ports:
            try:
                port.reload()
            except StartFailed as error:
                _log.error("{error}; the old certificate stays", error=error)
        _log.info("read the certificates again")

    def stopService(self) -> Deferred[None]:
        """Override: answer when everybody is gone and the store is closed, or when neither can be waited for."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop()).addErrback(self._stop_failed)

    def _stop_failed(self, failure: Failure) -> None:
        _log.failure("a fault in pushd while it stopped", failure)

    def hurry(self) -> None:
        """Abort the connections that are waited for, if it stops."""
        self._is_hurried = True
        if self._awaited is not None:
            self._awaited.cancel()

    async def _stop(self) -> None:
        """Stop in order: take nobody new, tell everybody, let them take what was written, then close."""
        timeout_s = self._config.stop_timeout_s
        deadline_s = self._reactor.seconds() + timeout_s
        for port in self._ports:
            if not await self._within(_CLOSE_PORT_S, Deferred.fromCoroutine(port.close())):
                _log.error("could not stop listening at {url}", url=port.url)
        connections, journal = self._parts.site.connections, self._parts.journal
        _log.info("stopping; {count} connections are open", count=len(connections))
        if journal is not None:
            await self._within(min(_ACKNOWLEDGE_S, timeout_s), journal.written())
        self._parts.sessions.close(self._farewell)
        for connection in connections:
            connection.finish()
        await self._drain(deadline_s)
        for loop in self._loops:
            if loop.running:
                loop.stop()
        await self._close_store()

    async def _drain(self, deadline_s: float) -> None:
        """Wait until the connections have ended; end those that do not until `deadline_s`."""
        connections, journal = self._parts.site.connections, self._parts.journal
        self._awaited = connections.ended()
        if self._is_hurried:
            self._awaited.cancel()
        if await self._within(max(0, deadline_s - self._reactor.seconds()), self._awaited):
            return
        if journal is not None:
            reason = self._farewell()
            journal.refuse(Unavailable(reason.text, retry_s=reason.retry_s))
        why = "pushd was told to stop again" if self._is_hurried else "they did not drain in time"
        _log.warn("aborting {count} connections: {why}", count=len(connections), why=why)
        for connection in connections:
            connection.abort()

    async def _within(self, timeout_s: float, waiting: Deferred[T]) -> bool:
        """Wait for something, but not for longer than `timeout_s`; tell whether it is done."""
        try:
            await waiting.addTimeout(timeout_s, self._reactor)
        except (NotInTime, CancelledError):
            return False
        return True

    def _farewell(self) -> Reason:
        """Answer what one client is told: each is asked to come back at another time."""
        limits = self._config.limits
        retry_s = limits.retry_s + self._random() * limits.reconnect_spread_s
        return Reason(Cause.STOPPING, "the server is going away", retry_s)

    async def _close_store(self) -> None:
        """Write what is still to be written and close the store, unless its disk does not answer."""
        parts = self._parts
        if parts.journal is None or parts.store is None or parts.worker is None or not self._is_store_open:
            return
        deadline_s = self._reactor.seconds() + _CLOSE_STORE_S
        is_closed = await self._within(_CLOSE_STORE_S, parts.journal.finish())
        if is_closed:
            left_s = deadline_s - self._reactor.seconds()
            is_closed = await self._within(max(0, left_s), parts.worker(parts.store.close))
        if is_closed:
            parts.worker.stop()
            _log.info("the store is closed")
        else:
            _log.error(
                "the store did not answer for {timeout_s} s, and is left as if pushd had been killed: what was "
                "acknowledged is in it",
                timeout_s=_CLOSE_STORE_S,
            )
