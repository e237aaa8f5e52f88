"""Composition root: builds the components of the daemon from the configuration."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from pushd.api import (
    ChannelList,
    Gauges,
    History,
    OneEvent,
    OperatorEndpoints,
    PresenceEndpoint,
    PrometheusExposition,
    PublishMany,
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
from pushd.config import Config, Limits, Site
from pushd.daemon.file_limits import plan
from pushd.daemon.ingress import Ingress, new_ingress
from pushd.daemon.integrations import ALONE, Integrations
from pushd.errors import Refused
from pushd.server import (
    Assets,
    ConnectionLimiter,
    PushdSite,
    RequestGuard,
    Serving,
    TimerWheel,
    Turns,
    UnreadResponses,
    link_to,
    tree,
)
from pushd.sessions import Presence, SessionLimits, SessionRegistry
from pushd.store import SqlitePublisher, Store, Worker, new_epoch
from pushd.transports import EventPush, JsonStream, LongPoll, ServerSentEvents, WebSocket

__all__ = ["Components", "StoreParts", "assemble", "configure"]

_log = Logger()

_MAX_OPERATIONS = 32
"""Connection limit of the admin listeners, separate from that of the clients."""


@dataclass(frozen=True, slots=True)
class StoreParts:
    """A store, its worker and its publisher."""

    store: Store
    """The store of events."""

    worker: Worker
    """The thread that runs the blocking calls of the store."""

    journal: SqlitePublisher
    """The publisher that writes to the store."""


@dataclass(frozen=True, slots=True)
class Components:
    """The components of the daemon, without ports and timers."""

    bus: Bus
    """The event bus."""

    publisher: DirectPublisher | SqlitePublisher
    """The publisher of the daemon itself, without rate limit and webhook."""

    sessions: SessionRegistry
    """The sessions of the connected subscribers."""

    site: PushdSite
    """The site of the client listeners."""

    every_second: tuple[Callable[[], None], ...]
    """Functions to call every second."""

    presence: Presence
    """Presence, which publishes joins and leaves."""

    ingress: Ingress
    """The checks that every client passes."""

    operators: OperatorEndpoints
    """Health, metrics and status endpoints."""

    operations: PushdSite
    """The site of the admin listeners."""

    storage: StoreParts | None = None
    """The store and its parts; None: events are kept in memory only."""


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
    site = PushdSite(
        _tree(config, ingress, reactor, operators),
        reactor,
        wheel=wheel,
        limiter=ingress.limiter,
        is_proxy=ingress.trust.is_trusted,
        serving=_serving(config, ingress),
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
    return PushdSite(
        _operations_tree(config, ingress, operators, integrations),
        reactor,
        wheel=wheel,
        limiter=ConnectionLimiter(_MAX_OPERATIONS, 0, wheel),
        serving=_plainly(config),
        now=ingress.admission.sessions.now,
    )


def _operations_tree(
    config: Config, ingress: Ingress, operators: OperatorEndpoints, integrations: Integrations
) -> IResource:
    """Return the pages of admin listeners, where anonymous clients have no grants, whatever ``[auth]`` sets."""
    auth = replace(config.auth, anonymous=frozenset(), anonymous_publish=(), anonymous_subscribe=())
    guard = RequestGuard(auth, ingress.trust, integrations.tokens, ingress.admission.sessions.now)
    return tree(operators.of_operations(guard, ingress.admission, config.limits), None)


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
    parts.site.configure(_tree(config, ingress, reactor, parts.operators), _serving(config, ingress))
    parts.operations.configure(_operations_tree(config, ingress, parts.operators, integrations), _plainly(config))


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


def _has_demo(site: Site) -> bool:
    return site.root is None and site.demo


def _files(site: Site) -> tuple[Path | None, Sequence[tuple[bytes, bytes]]]:
    """Return the directory of static files, or None, and their additional header fields."""
    if site.root is not None:
        return Path(site.root), ()
    return (demo.PAGES, demo.FIELDS) if site.demo else (None, ())


def _assets(config: Config) -> Assets:
    lists = {page.path: [link_to(path) for path in page.resources] for page in config.pushes}
    links = {**(demo.ASSETS if _has_demo(config.site) else {}), **lists}
    return Assets(links, hints_over_http1=config.site.early_hints)


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


def _tree(config: Config, ingress: Ingress, reactor: IReactorTime, operators: OperatorEndpoints) -> IResource:
    seen = operators.behind(ingress.guard, ingress.admission, config.limits)
    return tree({**_endpoints(config, ingress, reactor), **seen}, *_files(config.site))


def _serving(config: Config, ingress: Ingress) -> Serving:
    return Serving(
        max_body_bytes=config.limits.batch_size_bytes,
        timeouts=config.limits.timeouts,
        logs_requests=config.log.requests,
        assets=_assets(config),
        has_demo=_has_demo(config.site),
        websocket_over_http2=config.http2.websocket,
        strict_transport_s=config.site.strict_transport_s,
        retry_s=config.limits.retry_s,
        reconnect_spread_s=config.limits.reconnect_spread_s,
        cors=ingress.guard.cors_fields,
    )


def _plainly(config: Config) -> Serving:
    """Return the settings of the admin listeners."""
    limits = config.limits
    return Serving(max_body_bytes=0, timeouts=limits.timeouts, logs_requests=config.log.requests)


def _endpoints(config: Config, ingress: Ingress, reactor: IReactorTime) -> dict[bytes, IResource]:
    """Return the endpoints by their first path segment."""
    guard, admission, publisher = ingress.guard, ingress.admission, ingress.publisher
    limits = config.limits
    turns = Turns(reactor.callLater, admission.sessions.wheel.reactor_turn)
    return {
        b"channels": ChannelList(guard, admission, publisher, max_event_bytes=limits.event_size_bytes),
        b"history": History(guard, admission),
        b"event": OneEvent(guard, admission),
        b"presence": PresenceEndpoint(guard, admission),
        b"publish": PublishMany(
            guard,
            publisher,
            max_event_bytes=limits.event_size_bytes,
            max_channels=limits.channels_per_event,
            turns=turns,
            seconds=admission.sessions.wheel.seconds,
        ),
        b"ws": WebSocket(
            guard,
            admission,
            publisher,
            max_event_bytes=limits.event_size_bytes,
            max_channels=limits.channels_per_event,
            heartbeat_s=limits.heartbeat_s,
            ping_timeout_s=limits.ping_timeout_s,
            timeouts=limits.timeouts,
            bodies=ingress.bodies,
            turns=turns,
        ),
        b"sse": ServerSentEvents(guard, admission, retry_s=limits.retry_s, heartbeat_s=limits.heartbeat_s),
        b"stream": JsonStream(guard, admission, heartbeat_s=limits.heartbeat_s),
        b"poll": LongPoll(guard, admission, timeout_s=limits.poll_timeout_s),
        b"push": EventPush(guard, admission, heartbeat_s=limits.heartbeat_s, call_later=reactor.callLater),
    }
