"""The checks that every client passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pushd.auth import ApprovedPublisher, CommandRates, RateLimitedPublisher, Waiting, WebhookAuthorizer
from pushd.bus import Publisher, SwappablePublisher, TokenBuckets
from pushd.config import Auth, Config, Limits, Proxies
from pushd.daemon.file_limits import plan
from pushd.daemon.integrations import Integrations
from pushd.server import ConnectionLimiter, IncompleteBodies, RequestGuard, TrustedProxies
from pushd.sessions import Admission, SessionRegistry

__all__ = ["Ingress", "new_ingress"]


@dataclass(frozen=True, slots=True)
class Ingress:
    """The checks that clients pass, according to the current configuration."""

    trust: TrustedProxies
    """Trusted proxies."""

    limiter: ConnectionLimiter
    """Connection limits."""

    guard: RequestGuard
    """Authentication of requests, and their rate limit."""

    admission: Admission
    """Admission of subscribers."""

    publisher: SwappablePublisher
    """The publisher for clients, with rate limit and webhook."""

    waiting: Waiting
    """Events that wait for the application."""

    bodies: IncompleteBodies
    """Incomplete requests and messages held in memory."""

    def configure(self, config: Config, publisher: Publisher, integrations: Integrations) -> None:
        """Apply a configuration; clients publish with `publisher`, behind rate limit and webhook."""
        limits, seconds = config.limits, self.admission.sessions.wheel.seconds
        self.trust.configure(config.proxies)
        self.limiter.limit(plan(config).connections, limits.connections_per_address)
        self.guard.configure(config.auth, integrations.tokens)
        self.guard.limit_reads(_reads(limits, seconds))
        publishes = _publishes(limits, seconds)
        self.admission.configure(
            _connects(limits, seconds), integrations.authorizer, publishes, _commands(limits, seconds)
        )
        self.bodies.limit(limits.bodies_bytes, limits.share_percent)
        self.waiting.limit(limits.share_percent, config.hooks.questions)
        self.publisher.replace(
            _guarded(publisher, integrations.authorizer, publishes, self.waiting, self.admission.sessions)
        )


def new_ingress(sessions: SessionRegistry, publisher: Publisher) -> Ingress:
    """Return the checks in front of `sessions` and `publisher`, without limits or grants until configured."""
    trust, wheel = TrustedProxies(Proxies()), sessions.wheel
    nobody = Auth(anonymous=frozenset(), certified=frozenset())
    return Ingress(
        trust,
        ConnectionLimiter(0, 0, wheel, trust.is_trusted, sessions.counters),
        RequestGuard(nobody, trust, None, sessions.now),
        Admission(sessions),
        SwappablePublisher(publisher),
        Waiting(0, 0),
        IncompleteBodies(0, 0),
    )


def _guarded(
    publisher: Publisher,
    authorizer: WebhookAuthorizer | None,
    rates: TokenBuckets | None,
    waiting: Waiting,
    sessions: SessionRegistry,
) -> Publisher:
    """Return the publisher for clients: the rate limit applies first, then the webhook."""
    if authorizer is not None and authorizer.asks_publish:
        publisher = ApprovedPublisher(publisher, authorizer, waiting, sessions.refresh)
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
