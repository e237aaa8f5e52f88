"""The entrance: what every client comes past, made and configured in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pushd.auth import ApprovedPublisher, AskingToPublish, CommandRates, RateLimitedPublisher, TokenBuckets, Waiting
from pushd.bus import Publisher, SwappablePublisher
from pushd.config import Config, Limits
from pushd.daemon.file_limits import plan
from pushd.daemon.integrations import Integrations
from pushd.server import ConnectionLimiter, IncompleteBodies, RequestGuard, TrustedProxies
from pushd.sessions import Admission, SessionRegistry

__all__ = ["Ingress", "new_entrance"]


@dataclass(frozen=True, slots=True)
class Ingress:
    """What clients come past. It goes by the configuration that holds at the moment."""

    trust: TrustedProxies
    """Which proxies are believed."""

    turnstile: ConnectionLimiter
    """How many connections there may be."""

    gate: RequestGuard
    """Who sends a request."""

    door: Admission
    """Which subscribers are let in."""

    publisher: SwappablePublisher
    """What clients publish with."""

    waiting: Waiting
    """The events of clients that wait for the application."""

    bodies: IncompleteBodies
    """What is held of requests and messages that are not complete."""

    def configure(self, config: Config, publisher: Publisher, outside: Integrations) -> None:
        """Apply another configuration; clients publish with `publisher` behind what guards it."""
        limits, seconds = config.limits, self.door.sessions.wheel.seconds
        self.trust.configure(config.proxies)
        self.turnstile.limit(plan(config).connections, limits.connections_per_address)
        self.gate.configure(config.auth, outside.tokens)
        self.gate.limit_reads(_reads(limits, seconds))
        publishes = _publishes(limits, seconds)
        self.door.configure(_connects(limits, seconds), outside.asking, publishes, _commands(limits, seconds))
        self.bodies.limit(limits.bodies_bytes, limits.share_percent)
        self.waiting.limit(limits.share_percent, config.hooks.questions)
        self.publisher.replace(_guarded(publisher, outside.asking, publishes, self.waiting, self.door.sessions))


def new_entrance(config: Config, sessions: SessionRegistry, publisher: Publisher, outside: Integrations) -> Ingress:
    """Make what clients come past to `sessions` and `publisher`."""
    limits, trust, wheel = config.limits, TrustedProxies(config.proxies), sessions.wheel
    most, most_per_address = plan(config).connections, limits.connections_per_address
    publishes = _publishes(limits, wheel.seconds)
    gate = RequestGuard(config.auth, trust, outside.tokens, sessions.now)
    gate.limit_reads(_reads(limits, wheel.seconds))
    waiting = Waiting(limits.share_percent, config.hooks.questions)
    return Ingress(
        trust,
        ConnectionLimiter(most, most_per_address, wheel, trust.is_trusted, sessions.figures),
        gate,
        Admission(
            sessions, _connects(limits, wheel.seconds), outside.asking, publishes, _commands(limits, wheel.seconds)
        ),
        SwappablePublisher(_guarded(publisher, outside.asking, publishes, waiting, sessions)),
        waiting,
        IncompleteBodies(limits.bodies_bytes, limits.share_percent),
    )


def _guarded(
    publisher: Publisher,
    asking: AskingToPublish | None,
    rates: TokenBuckets | None,
    waiting: Waiting,
    sessions: SessionRegistry,
) -> Publisher:
    """Return what clients publish with: what is too much is refused first, then the application is asked."""
    if asking is not None and asking.asks_publish:
        publisher = ApprovedPublisher(publisher, asking, waiting, sessions.refresh)
    return publisher if rates is None else RateLimitedPublisher(publisher, rates)


def _connects(limits: Limits, seconds: Callable[[], float]) -> TokenBuckets | None:
    return _buckets(limits.connect_rate, limits.connect_burst, seconds)


def _reads(limits: Limits, seconds: Callable[[], float]) -> TokenBuckets | None:
    return _buckets(limits.read_rate, limits.read_burst, seconds)


def _commands(limits: Limits, seconds: Callable[[], float]) -> CommandRates | None:
    return CommandRates(limits.command_rate, limits.command_burst, seconds) if limits.command_rate else None


def _publishes(limits: Limits, seconds: Callable[[], float]) -> TokenBuckets | None:
    return _buckets(limits.publish_rate, limits.publish_burst, seconds)


def _buckets(rate: float, burst: int, seconds: Callable[[], float]) -> TokenBuckets | None:
    return TokenBuckets(rate, burst, seconds) if rate else None
