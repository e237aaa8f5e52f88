"""The pages of the client listeners and of the admin listeners, and the options that they are served with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from pushd.api import (
    OPENAPI,
    ChannelList,
    Description,
    History,
    OneEvent,
    OperatorEndpoints,
    PresenceEndpoint,
    PublishMany,
)
from pushd.api import demo_page as demo
from pushd.config import Config, Site
from pushd.daemon.ingress import Ingress
from pushd.daemon.integrations import Integrations
from pushd.errors import StartFailed
from pushd.server import Assets, RequestGuard, Serving, Turns, link_to, tree
from pushd.transports import EventPush, JsonStream, LongPoll, ServerSentEvents, WebSocket

__all__ = ["check_site", "client_pages", "operations_pages"]


def check_site(config: Config) -> None:
    """Raise `StartFailed` if ``[site] root`` is not a directory."""
    if config.site.root is not None and not Path(config.site.root).is_dir():
        raise StartFailed(f"[site] root = {config.site.root}: not a directory")


def client_pages(
    config: Config, ingress: Ingress, reactor: IReactorTime, operators: OperatorEndpoints
) -> tuple[IResource, Serving]:
    """Return the pages of the client listeners, and their options."""
    seen = operators.behind(ingress.guard, ingress.admission, config.limits)
    root = tree({**_endpoints(config, ingress, reactor), **seen}, *_files(config.site))
    return root, Serving(
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


def operations_pages(
    config: Config, ingress: Ingress, operators: OperatorEndpoints, integrations: Integrations
) -> tuple[IResource, Serving]:
    """Return the pages of the admin listeners, and their options.

    Anonymous clients have no grants there, whatever ``[auth]`` sets.
    """
    auth = replace(config.auth, anonymous=frozenset(), anonymous_publish=(), anonymous_subscribe=())
    guard = RequestGuard(auth, ingress.trust, integrations.tokens, ingress.admission.sessions.now)
    root = tree(operators.of_operations(guard, ingress.admission, config.limits), None)
    return root, Serving(max_body_bytes=0, timeouts=config.limits.timeouts, logs_requests=config.log.requests)


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


def _endpoints(config: Config, ingress: Ingress, reactor: IReactorTime) -> dict[bytes, IResource]:
    """Return the endpoints by their first path segment."""
    guard, admission, publisher = ingress.guard, ingress.admission, ingress.publisher
    limits = config.limits
    turns = Turns(reactor.callLater, admission.sessions.wheel.reactor_turn)
    return {
        b"channels": ChannelList(guard, admission, publisher, max_event_bytes=limits.event_size_bytes),
        b"openapi.yaml": Description(guard, OPENAPI),
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
