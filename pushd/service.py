"""The daemon: everything put together from the configuration, started and stopped in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import random

from twisted.application.service import Service
from twisted.internet.defer import Deferred
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
from pushd.errors import StartFailed
from pushd.eventlog import EventLog, State
from pushd.gate import Gate
from pushd.listen import prepare
from pushd.publisher import Direct, Publisher
from pushd.reasons import Cause, Reason
from pushd.session import Sessions
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

_log = Logger()


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
    grants = Grants(publish="publish" in auth.anonymous, subscribe="subscribe" in auth.anonymous)
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
        """Override: answer when everybody is gone, after `[pushd] stop_timeout` at the latest."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        """Stop in order: take nobody new, tell everybody, let them take what was written, then close."""
        for port in self._ports:
            await port.close()
        connections = self._parts.site.connections
        _log.info("stopping; {count} connections are open", count=len(connections))
        self._parts.sessions.close(self._farewell)
        for connection in connections:
            connection.finish()
        ended = connections.ended().addTimeout(self._config.stop_timeout_s, self._reactor)
        try:
            await ended
        except NotInTime:
            _log.warn("aborting {count} connections that did not drain in time", count=len(connections))
            for connection in connections:
                connection.abort()
        for loop in self._loops:
            if loop.running:
                loop.stop()
        await self._close_store()

    def _farewell(self) -> Reason:
        """Answer what one client is told: each is asked to come back at another time."""
        limits = self._config.limits
        retry_s = limits.retry_s + self._random() * limits.reconnect_spread_s
        return Reason(Cause.STOPPING, "the server is going away", retry_s)

    async def _close_store(self) -> None:
        parts = self._parts
        if parts.journal is not None and parts.store is not None and parts.worker is not None:
            await parts.journal.finish()
            parts.worker.stop()
            parts.store.close()
