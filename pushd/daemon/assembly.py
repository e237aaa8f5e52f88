"""Composition root: builds the components of the daemon from the configuration."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

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
    in_turns,
    owner_of,
)
from pushd.config import Config, Limits
from pushd.daemon.components import Components, StoreParts
from pushd.daemon.file_limits import plan
from pushd.daemon.ingress import Ingress, new_ingress
from pushd.daemon.integrations import ALONE, Integrations
from pushd.daemon.pages import client_pages, operations_pages
from pushd.errors import Refused
from pushd.server import ConnectionLimiter, PushdSite, TimerWheel, UnreadResponses
from pushd.sessions import Presence, SessionLimits, SessionRegistry
from pushd.store import SqlitePublisher, Store, Worker, new_epoch

__all__ = ["assemble", "configure"]

_log = Logger()

_MAX_OPERATIONS = 32
"""Connection limit of the admin listeners, separate from that of the clients."""


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
    """
    limits = config.limits
    log = _log_of(config, archive := _archive_of(store), seconds, now)
    counters = Counters() if counters is None else counters
    bus = _bus(limits, log, counters, reactor, turn)
    storage = None if store is None else _storage(config, bus, reactor, *store)
    publisher = DirectPublisher(bus) if storage is None else storage.journal
    wheel = TimerWheel(seconds, reactor.callLater, bus.turn)
    presence = bus.watch = Presence(
        publisher, reactor.callLater, lambda name: log.settings(name).presence, integrations.notifier
    )
    sessions = SessionRegistry(
        bus,
        wheel,
        reactor.callLater,
        max_outbox_bytes=limits.outbox_bytes,
        now=now,
        prefix=new_epoch(),
        bounds=_bounds(limits),
        presence=presence,
    )
    archive.later = partial(_in_steps, sessions, "it freed events")
    ingress = new_ingress(config, sessions, publisher, integrations)
    operators = _operators(sessions, lambda: len(site.connections), storage, now)
    root, serving = client_pages(config, ingress, reactor, operators)
    site = PushdSite(
        root,
        reactor,
        wheel=wheel,
        limiter=ingress.limiter,
        is_proxy=ingress.trust.is_trusted,
        serving=serving,
        counters=counters,
        now=now,
        bodies=ingress.bodies,
        answers=UnreadResponses(limits.answers_bytes, limits.share_percent, plan(config).site_files),
    )
    operations = _operations(config, reactor, ingress, operators, integrations)
    tick: Callable[[], None] = partial(
        _tick, ReactorLag(counters.lag, seconds), demo.Clock(bus, publisher, now), site
    )
    every_second = (wheel.turn, _expires(bus, reactor), tick, operators.watchers.tick, *_tends(storage))
    return Components(
        bus, publisher, sessions, site, every_second, presence, ingress, operators, operations, storage
    )


def configure(parts: Components, config: Config, integrations: Integrations, reactor: IReactorTime) -> None:
    """Apply another configuration to a running daemon, except for options that need a restart.

    Open connections keep the limits that they started with. Those whose anonymous grants were withdrawn are closed.
    """
    limits, bus, ingress = config.limits, parts.bus, parts.ingress
    max_bytes = config.store_size_bytes
    work = bus.log.configuring(config.channels.settings, max_channels=limits.channels, max_bytes=max_bytes)
    _in_steps(parts.sessions, "it reloaded", work)
    bus.limit(
        max_subscribed=limits.subscriptions,
        max_held_bytes=limits.outbox_bytes,
        max_names=limits.channels,
        share_percent=limits.share_percent,
    )
    parts.sessions.limit(max_outbox_bytes=limits.outbox_bytes, bounds=_bounds(limits))
    before, certified = ingress.guard.anonymous.grants, ingress.guard.certified
    ingress.configure(config, parts.publisher, integrations)
    parts.sessions.regrant(before, ingress.guard.anonymous.grants)
    parts.sessions.regrant(certified, ingress.guard.certified)
    parts.site.answers.limit(limits.answers_bytes, limits.share_percent, plan(config).site_files)
    parts.site.configure(*client_pages(config, ingress, reactor, parts.operators))
    parts.operations.configure(*operations_pages(config, ingress, parts.operators, integrations))


def _tick(lag: ReactorLag, clock: demo.Clock, site: PushdSite) -> None:
    lag.tick()
    if site.serving.has_demo:
        clock.tick()


def _expires(bus: Bus, reactor: IReactorTime) -> Callable[[], None]:
    return in_turns(bus.log.expire, reactor.callLater, bus.turn)


def _bus(
    limits: Limits, log: EventLog[Subscription], counters: Counters, reactor: IReactorTime, turn: Turn | None
) -> Bus:
    return Bus(
        log,
        max_subscribed=limits.subscriptions,
        max_held_bytes=limits.outbox_bytes,
        failed=_subscriber_failed,
        counters=counters,
        names=Shares("names of channels", "[limits] channels", limits.channels, limits.share_percent),
        owner=owner_of,
        call_later=reactor.callLater,
        turn=turn,
    )


def _operations(
    config: Config,
    reactor: IReactorTime,
    ingress: Ingress,
    operators: OperatorEndpoints,
    integrations: Integrations,
) -> PushdSite:
    """Return the site of the admin listeners; it does not update the counters."""
    wheel = ingress.admission.sessions.wheel
    root, serving = operations_pages(config, ingress, operators, integrations)
    return PushdSite(
        root,
        reactor,
        wheel=wheel,
        limiter=ConnectionLimiter(_MAX_OPERATIONS, 0, wheel),
        serving=serving,
        now=ingress.admission.sessions.now,
    )


def _tends(storage: StoreParts | None) -> list[Callable[[], None]]:
    return [] if storage is None else [storage.journal.tend]


def _archive_of(store: tuple[Store, Worker] | None) -> HistoryStorage:
    return MemoryStorage() if store is None else store[0].archive


def _in_steps(sessions: SessionRegistry, what: str, work: Generator[None, None, None]) -> None:
    """Run `work` in steps in the background, and log a failure."""
    done = sessions.steps.run(work)
    done.addErrback(lambda failure: _log.failure("a fault in pushd while {what}", failure, what=what))


def _log_of(
    config: Config, archive: HistoryStorage, seconds: Callable[[], float], now: Callable[[], float]
) -> EventLog[Subscription]:
    return EventLog(
        state=LogState(new_epoch()),
        archive=archive,
        settings=config.channels.settings,
        now=now,
        seconds=seconds,
        max_channels=config.limits.channels,
        max_bytes=config.store_size_bytes,
    )


def _storage(config: Config, bus: Bus, reactor: IReactorTime, store: Store, worker: Worker) -> StoreParts:
    writes_in_thread = config.durability == "power"
    return StoreParts(
        store, worker, SqlitePublisher(bus, store, reactor.callLater, worker, writes_in_thread=writes_in_thread)
    )


def _bounds(limits: Limits) -> SessionLimits:
    return SessionLimits(limits.connections_per_address, limits.connections_per_user)


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
