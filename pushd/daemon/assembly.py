"""Composition root: builds the components of the daemon from the configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from pushd.api import (
    Gauges,
    OperatorEndpoints,
    PrometheusExposition,
    ReactorLag,
    Readiness,
    StatusSnapshot,
    Watchers,
)
from pushd.api import demo_page as demo
from pushd.bus import (
    Bus,
    Counters,
    DirectPublisher,
    EventLog,
    HistoryStorage,
    LogState,
    MemoryStorage,
    Shares,
    Subscriber,
    Subscription,
    Turn,
    Work,
    in_turns,
    owner_of,
)
from pushd.config import Config, Limits, default
from pushd.daemon.components import Components, StoreParts
from pushd.daemon.file_limits import plan
from pushd.daemon.ingress import new_ingress
from pushd.daemon.integrations import ALONE, Integrations
from pushd.daemon.pages import client_pages, operations_pages
from pushd.errors import Refused
from pushd.server import ConnectionLimiter, PushdSite, Serving, TimerWheel
from pushd.sessions import Presence, SessionLimits, SessionRegistry
from pushd.store import SqlitePublisher, Store, Worker, new_epoch

__all__ = ["assemble", "reconfigure"]

_log = Logger()

_MAX_OPERATIONS = 32
"""Connection limit of the admin listeners, separate from that of the clients."""

_NOTHING = Serving(max_body_bytes=0, timeouts=Limits().timeouts)
"""The options of a site until it is configured."""


def assemble(
    config: Config,
    reactor: IReactorTime,
    *,
    seconds: Callable[[], float],
    now: Callable[[], float],
    store: tuple[Store, Worker] | None = None,
    integrations: Integrations = ALONE,
    counters: Counters | None = None,
    turn: Turn | None = None,
) -> Components:
    """Build and connect the components, which share the time budget of the reactor's `turn`.

    `seconds` is a monotonic clock; `now` returns the time in seconds since 1970. Events are kept in the `store`, or
    in memory without one. Counters are in `counters`.

    The components are built unconfigured: `configure` sets every option, as at a reload.
    """
    log = _log_of(archive := _archive_of(store), seconds, now)
    counters = Counters() if counters is None else counters
    bus = _bus(log, counters, reactor, turn)
    storage = None if store is None else _storage(config, bus, reactor, *store)
    publisher = DirectPublisher(bus) if storage is None else storage.journal
    wheel = TimerWheel(seconds, reactor.callLater, bus.turn)
    presence = bus.watch = Presence(publisher, reactor.callLater, lambda name: log.settings(name).presence)
    sessions = SessionRegistry(
        bus, wheel, reactor.callLater, max_outbox_bytes=0, now=now, prefix=new_epoch(), presence=presence
    )
    archive.later = partial(_in_steps, sessions, "it freed events")
    ingress = new_ingress(sessions, publisher)
    operators = _operators(sessions, lambda: len(site.connections), storage, now)
    site = PushdSite(
        Resource(),
        reactor,
        wheel=wheel,
        limiter=ingress.limiter,
        is_proxy=ingress.trust.is_trusted,
        serving=_NOTHING,
        counters=counters,
        now=now,
        bodies=ingress.bodies,
    )
    limiter = ConnectionLimiter(_MAX_OPERATIONS, 0, wheel)
    operations = PushdSite(Resource(), reactor, wheel=wheel, limiter=limiter, serving=_NOTHING, now=now)
    tick: Callable[[], None] = partial(
        _tick, ReactorLag(counters.lag, seconds), demo.Clock(bus, publisher, now), site
    )
    every_second = (wheel.turn, _expires(bus, reactor), tick, operators.watchers.tick, *_tends(storage))
    parts = Components(
        bus, publisher, sessions, site, every_second, presence, ingress, operators, operations, storage
    )
    configure(parts, config, integrations, reactor)
    return parts


def configure(parts: Components, config: Config, integrations: Integrations, reactor: IReactorTime) -> None:
    """Apply a configuration, at the start and at a reload, except for options that need a restart.

    Open connections keep the limits that they started with.
    """
    limits, bus, ingress = config.limits, parts.bus, parts.ingress
    max_bytes = config.store_size_bytes
    work = bus.log.configuring(config.channels.settings, max_channels=limits.channels, max_bytes=max_bytes)
    _in_steps(parts.sessions, "it reloaded", work)  # done at once at the start, when there are no channels
    bus.limit(
        max_subscribed=limits.subscriptions,
        max_held_bytes=limits.outbox_bytes,
        max_names=limits.channels,
        share_percent=limits.share_percent,
    )
    bounds = SessionLimits(limits.connections_per_address, limits.connections_per_user)
    parts.sessions.limit(max_outbox_bytes=limits.outbox_bytes, bounds=bounds)
    parts.presence.notifier = integrations.notifier
    ingress.configure(config, parts.publisher, integrations)
    parts.site.answers.limit(limits.answers_bytes, limits.share_percent, plan(config).site_files)
    parts.site.configure(*client_pages(config, ingress, reactor, parts.operators))
    parts.operations.configure(*operations_pages(config, ingress, parts.operators, integrations))


def reconfigure(parts: Components, config: Config, integrations: Integrations, reactor: IReactorTime) -> None:
    """Apply another configuration to a running daemon; close subscribers whose grants it withdraws."""
    sessions, guard = parts.sessions, parts.ingress.guard
    anonymous, certified = guard.anonymous.grants, guard.certified
    configure(parts, config, integrations, reactor)
    sessions.regrant(anonymous, guard.anonymous.grants)
    sessions.regrant(certified, guard.certified)


def _tick(lag: ReactorLag, clock: demo.Clock, site: PushdSite) -> None:
    lag.tick()
    if site.serving.has_demo:
        clock.tick()


def _expires(bus: Bus, reactor: IReactorTime) -> Callable[[], None]:
    return in_turns(bus.log.expire, reactor.callLater, bus.turn)


def _bus(log: EventLog[Subscription], counters: Counters, reactor: IReactorTime, turn: Turn | None) -> Bus:
    return Bus(
        log,
        max_subscribed=0,
        max_held_bytes=0,
        failed=_subscriber_failed,
        counters=counters,
        names=Shares("names of channels", "[limits] channels", 0, 0),
        owner=owner_of,
        call_later=reactor.callLater,
        turn=turn,
    )


def _tends(storage: StoreParts | None) -> list[Callable[[], None]]:
    return [] if storage is None else [storage.journal.tend]


def _archive_of(store: tuple[Store, Worker] | None) -> HistoryStorage:
    return MemoryStorage() if store is None else store[0].archive


def _in_steps(sessions: SessionRegistry, what: str, work: Work[None]) -> None:
    """Run `work` in steps in the background, and log a failure."""
    done = sessions.steps.run(work)
    done.addErrback(lambda failure: _log.failure("a fault in pushd while {what}", failure, what=what))


def _log_of(
    archive: HistoryStorage, seconds: Callable[[], float], now: Callable[[], float]
) -> EventLog[Subscription]:
    return EventLog(
        state=LogState(new_epoch()),
        archive=archive,
        settings=default().channels.settings,
        now=now,
        seconds=seconds,
        max_channels=0,
        max_bytes=0,
    )


def _storage(config: Config, bus: Bus, reactor: IReactorTime, store: Store, worker: Worker) -> StoreParts:
    writes_in_thread = config.durability == "power"
    return StoreParts(
        store, worker, SqlitePublisher(bus, store, reactor.callLater, worker, writes_in_thread=writes_in_thread)
    )


def _subscriber_failed(subscriber: Subscriber, error: Exception) -> None:
    _log.failure("dropped {subscriber}, which failed", Failure(error), subscriber=subscriber)


def _operators(
    sessions: SessionRegistry, connections: Callable[[], int], storage: StoreParts | None, now: Callable[[], float]
) -> OperatorEndpoints:
    bus = sessions.bus

    def counts() -> dict[str, int]:
        return {"connections": connections(), "subscribers": bus.subscribers, "channels": len(bus.log)}

    def store_failure() -> Refused | None:
        return None if storage is None else storage.journal.health.failure

    readiness = Readiness(store_failure)
    gauges = Gauges(sessions, connections, None if storage is None else storage.store.path)
    exposition = PrometheusExposition(bus, gauges, lambda: readiness.why_not is None)
    return OperatorEndpoints(counts, readiness, exposition, Watchers(StatusSnapshot(bus, gauges, now)))
