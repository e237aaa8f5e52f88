"""Performance requirements of pushd: ratios within one run, and a few sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.results import Results

__all__ = ["BOUNDS", "Bound", "Verdict", "judge"]

_OUTBOX_BYTES = 1024 * 1024
"""``[limits] outbox`` of pushd, by default."""

_KB = 1024


@dataclass(frozen=True, slots=True)
class Bound:
    """A requirement on the results of a run."""

    text: str
    """The measured value and what it is compared with, in words."""

    relation: str
    """``at most``, ``at least`` or ``less than``."""

    limit: float
    """The limit of the value."""

    value: Callable[[Results], float | None]
    """Returns the measured value, or None without one."""

    unit: str = ""
    """The unit of limit and value; empty for a ratio."""

    def holds(self, value: float) -> bool:
        """Return whether `value` meets the requirement."""
        if self.relation == "at least":
            return value >= self.limit
        return value < self.limit if self.relation == "less than" else value <= self.limit


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a bound in one run."""

    bound: Bound
    """The requirement."""

    value: float | None
    """The measured value, or None without one."""

    @property
    def text(self) -> str:
        """The outcome in words."""
        if self.value is None:
            return "not measured"
        return "holds" if self.bound.holds(self.value) else "**does not hold**"


def _ratio(case: str, name: str, peer: str) -> Callable[[Results], float | None]:
    return lambda results: results.ratio((case, "pushd", name), (case, peer, name))


def _to_twisted(case: str) -> Callable[[Results], float | None]:
    name = "events_per_s"
    return lambda results: results.ratio((case, "pushd", name), ("publish-post", "twisted.web", name))


def _fan_out(transport: str, title: str) -> Iterator[Bound]:
    case, large = f"{transport}-1000", f"{transport}-10000"
    one, many = f"{title}, 1 in flight: CPU per delivery", f"{title}, 16 in flight"
    yield Bound(f"{one} ÷ bare C loop", "at most", 1.4, _ratio(case, "1:cpu_us", "floor"))
    yield Bound(f"{one} ÷ nchan", "less than", 1, _ratio(case, "1:cpu_us", "nchan"))
    yield Bound(f"{one} ÷ ws", "less than", 1, _ratio(case, "1:cpu_us", "ws"))
    yield Bound(f"{many}: CPU per delivery ÷ bare C loop", "at most", 0.35, _ratio(case, "16:cpu_us", "floor"))
    yield Bound(f"{many}: deliveries per second ÷ nchan", "at least", 2, _ratio(case, "16:per_s", "nchan"))
    yield Bound(
        f"{title}, 10,000 subscribers: time until the last one has the event ÷ bare C loop",
        "at most",
        1.5,
        _ratio(large, "1:last_p50_ms", "floor"),
    )


def _over_tls() -> Iterator[Bound]:
    case, connecting = "websocket-tls-1000", "connect-websocket-tls"
    title = "WebSocket over TLS"
    yield Bound(
        f"{title}, 1 in flight: CPU per delivery ÷ nchan", "at most", 1.6, _ratio(case, "1:cpu_us", "nchan")
    )
    yield Bound(
        f"{title}, 16 in flight: CPU per delivery ÷ nchan", "at most", 0.3, _ratio(case, "16:cpu_us", "nchan")
    )
    yield Bound(
        f"{title}, handshake and upgrade: CPU ÷ nchan",
        "at most",
        2.5,
        _ratio(connecting, "connect_cpu_us", "nchan"),
    )
    yield Bound(
        f"{title}, an idle connection: resident memory ÷ nchan", "at most", 1, _ratio(connecting, "bytes", "nchan")
    )


def _connections() -> Iterator[Bound]:
    yield Bound(
        "WebSocket, handshake: CPU ÷ aiohttp",
        "at most",
        1.2,
        _ratio("connect-websocket", "connect_cpu_us", "aiohttp"),
    )
    for transport, title, limit in (("websocket", "WebSocket", 10), ("sse", "SSE", 8)):
        yield Bound(
            f"{title}, an idle connection: resident memory",
            "at most",
            limit,
            _resident(f"connect-{transport}"),
            "KB",
        )


def _resident(case: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        found = results.median(case, "pushd", "bytes")
        return None if found is None else found / _KB

    return value


def _publishing() -> Iterator[Bound]:
    base = "events per second ÷ plain twisted.web"
    yield Bound(f"POST: {base}", "at least", 1.5, _to_twisted("publish-post"))
    yield Bound(f"Publishing over WebSocket: {base}", "at least", 5, _to_twisted("publish-websocket"))
    yield Bound(f"POST of many lines: {base}", "at least", 25, _to_twisted("publish-batch"))


def _storing() -> Iterator[Bound]:
    base = "events per second with the store ÷ without"
    for case, title, limit in (
        ("publish-post", "POST", 0.5),
        ("publish-websocket", "Publishing over WebSocket", 0.5),
        ("publish-batch", "POST of many lines", 0.6),
    ):
        yield Bound(f"{title}: {base}", "at least", limit, _stored(case))


def _stored(case: str) -> Callable[[Results], float | None]:
    name = "events_per_s"
    return lambda results: results.ratio((case, "pushd-store", name), (case, "pushd", name))


def _beside_stalled() -> Iterator[Bound]:
    yield Bound(
        "2,000 readers beside 2,000 that do not read: p99 ÷ p99 without them",
        "at most",
        2,
        lambda results: results.ratio(("stalled", "pushd", "1:p99_ms"), ("readers", "pushd", "1:p99_ms")),
    )
    yield Bound(
        "The same: memory that those who do not read take, each, in outboxes", "at most", 1, _stalled_outboxes
    )


def _stalled_outboxes(results: Results) -> float | None:
    mine = results.median("stalled", "pushd", "peak_bytes")
    without = results.median("readers", "pushd", "peak_bytes")
    return None if mine is None or without is None else (mine - without) / 2000 / _OUTBOX_BYTES


BOUNDS: tuple[Bound, ...] = (
    *_fan_out("websocket", "WebSocket"),
    *_fan_out("sse", "SSE"),
    *_over_tls(),
    *_connections(),
    *_publishing(),
    *_storing(),
    *_beside_stalled(),
)
"""All requirements."""


def judge(results: Results) -> list[Verdict]:
    """Compare the results with every bound."""
    return [Verdict(bound, bound.value(results)) for bound in BOUNDS]
