"""The cases of the suite and the servers measured in each."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["CASES", "QUICK", "Case"]


@dataclass(frozen=True, slots=True)
class Case:
    """A measurement, repeated for each peer with a fresh server."""

    name: str
    """The name in the results and on the command line."""

    title: str
    """The heading in the report."""

    peers: tuple[str, ...]
    """The names of the measured servers."""

    mode: str
    """The mode of the load client: ``fanout``, ``connect`` or ``publish``."""

    transport: str = "websocket"
    """The transport of subscribers: ``websocket``, ``sse`` or ``http2``."""

    tls: bool = False
    """Whether subscribers connect over TLS."""

    way: str = "own"
    """How events are published; ``own`` is the most common way of each peer."""

    subscribers: int = 1000
    """The number of subscribers."""

    connecting: int = 4000
    """The largest number of subscribers that connect at the same time."""

    in_flight: tuple[int, ...] = (1, 16)
    """The numbers of events in flight, measured one after the other on the same connections."""

    seconds: float = 1.2
    """The duration of each measurement, in seconds."""

    settle_s: float = 0.3
    """The pause after all subscribers are connected, in seconds."""

    payload_bytes: int = 100
    """The size of an event's data, in bytes."""

    rate: float = 0.0
    """Events published per second, however many are in flight; 0: the next as soon as one has arrived."""

    stalled: int = 0
    """The number of further subscribers that read nothing."""

    batch: int = 1
    """The number of events in one request."""

    publishers: int = 1
    """The number of publishing connections."""

    outstanding: int = 1
    """The number of unanswered requests on each publishing connection."""


_PUSHD = ("pushd", "pushd-store", "pushd-power")
_ALL = ("pushd", "floor", "nchan", "ws", "websockets", "aiohttp")
_SSE = ("pushd", "floor", "nchan", "ws", "aiohttp")
_TLS = ("pushd", "nchan", "ws", "websockets", "aiohttp")
_TLS_SSE = ("pushd", "nchan", "ws", "aiohttp")


def _fan_out() -> list[Case]:
    small = [
        Case("websocket-1000", "WebSocket, 1,000 subscribers", _ALL, "fanout"),
        Case("sse-1000", "Server-Sent Events, 1,000 subscribers", _SSE, "fanout", "sse"),
        Case("websocket-tls-1000", "WebSocket over TLS, 1,000 subscribers", _TLS, "fanout", tls=True),
        Case("sse-tls-1000", "Server-Sent Events over TLS, 1,000 subscribers", _TLS_SSE, "fanout", "sse", tls=True),
    ]
    large = [
        replace(
            case,
            name=case.name.replace("1000", "10000"),
            title=case.title.replace("1,000", "10,000"),
            peers=tuple(peer for peer in case.peers if peer in ("pushd", "floor", "nchan", "ws")),
            subscribers=10000,
            seconds=2.5,
            settle_s=1.0,
        )
        for case in small
    ]
    by_post = replace(
        small[0],
        name="websocket-1000-post",
        title="WebSocket, 1,000 subscribers, published by POST",
        peers=("pushd", "nchan"),
        way="post",
    )
    return [*small, *large, by_post]


_CONNECT = Case(
    "connect-websocket",
    "WebSocket: 4,000 clients connect at once",
    _ALL,
    "connect",
    subscribers=4000,
    settle_s=2.0,
)

_CONNECTING = [
    _CONNECT,
    replace(
        _CONNECT,
        name="connect-sse",
        title="Server-Sent Events: 4,000 clients connect at once",
        peers=_SSE,
        transport="sse",
    ),
    replace(
        _CONNECT,
        name="connect-websocket-tls",
        title="WebSocket over TLS: 2,000 clients connect at once",
        peers=_TLS,
        tls=True,
        subscribers=2000,
    ),
    replace(
        _CONNECT,
        name="connect-sse-tls",
        title="Server-Sent Events over TLS: 2,000 clients connect at once",
        peers=_TLS_SSE,
        transport="sse",
        tls=True,
        subscribers=2000,
    ),
]

_POST = Case(
    "publish-post",
    "POST, one event in each, 16 connections",
    (*_PUSHD, "twisted.web", "nchan", "ws", "aiohttp"),
    "publish",
    way="post",
    publishers=16,
)

_PUBLISHING = [
    _POST,
    replace(
        _POST,
        name="publish-batch",
        title="POST, 1,000 events in each, one connection",
        peers=_PUSHD,
        way="batch",
        batch=1000,
        publishers=1,
    ),
    replace(
        _POST,
        name="publish-websocket",
        title="WebSocket messages, one connection, 64 unanswered",
        peers=_PUSHD,
        way="websocket",
        publishers=1,
        outstanding=64,
    ),
]

_READERS = Case(
    "readers",
    "2,000 WebSocket subscribers, 20 events of 10,000 bytes a second",
    ("pushd", "nchan", "ws"),
    "fanout",
    subscribers=2000,
    in_flight=(1,),
    seconds=10.0,
    payload_bytes=10000,
    rate=20.0,
)

CASES: tuple[Case, ...] = (
    *_fan_out(),
    Case(
        "latency-websocket",
        "WebSocket, 1,000 subscribers, 20 events a second",
        _ALL,
        "fanout",
        in_flight=(1,),
        seconds=2.5,
        rate=20.0,
    ),
    Case(
        "latency-sse",
        "Server-Sent Events, 1,000 subscribers, 20 events a second",
        _SSE,
        "fanout",
        "sse",
        in_flight=(1,),
        seconds=2.5,
        rate=20.0,
    ),
    *_CONNECTING,
    *_PUBLISHING,
    Case(
        "http2-1000",
        "Server-Sent Events over HTTP/2, 10 connections with 100 streams each",
        ("pushd", "nchan"),
        "fanout",
        "http2",
        tls=True,
    ),
    _READERS,
    replace(
        _READERS, name="stalled", title=f"The same beside 2,000 that do not read: {_READERS.title}", stalled=2000
    ),
)
"""All cases, in the order in which they run."""


def _quick(case: Case) -> Case:
    peers = tuple(peer for peer in case.peers if peer in ("pushd", "floor", "nchan", "twisted.web"))
    return replace(case, peers=peers, seconds=0.8, settle_s=min(case.settle_s, 0.5), subscribers=1000)


QUICK: tuple[Case, ...] = tuple(
    _quick(case)
    for case in CASES
    if case.name
    in (
        "websocket-1000",
        "sse-1000",
        "websocket-tls-1000",
        "connect-websocket",
        "publish-post",
        "publish-batch",
        "publish-websocket",
    )
)
"""The cases of a quick run, which takes a minute."""
