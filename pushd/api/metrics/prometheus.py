"""The metrics in the Prometheus text format, by `prometheus_client`.

pushd counts in plain integers, as the objects of the library take a lock for each number. They are made of these
counters on request, in a registry of pushd's own. `_boot_time` is a private name, overridden because the library
reads ``/proc/stat``; `tests/component/api/test_prometheus.py` pins it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import product
from re import sub
from time import CLOCK_BOOTTIME, clock_gettime, time
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from pushd import __version__
from pushd.api.metrics.gauges import Gauges, GaugeSnapshot
from pushd.bus import Bus, CloseCause, Histogram
from pushd.errors import Refused

__all__ = ["TRANSPORTS", "PrometheusExposition"]

TRANSPORTS = ("websocket", "sse", "stream", "poll", "push")
"""Transports of subscribers."""

_HOOKS = (
    *product(("before_connect", "before_subscribe", "before_publish"), ("allowed", "denied", "failed", "unasked")),
    ("after", "told"),
    ("after", "dropped"),
    ("after", "cancelled"),
)
_LIMITS = ("connections", "connections_per_address")
_HANDSHAKES = ("completed", "failed", "timed_out")
_ENDS = (None, *CloseCause)


class PrometheusExposition:
    """Formats all metrics."""

    def __init__(self, bus: Bus, gauges: Gauges, is_ready: Callable[[], bool]) -> None:
        """Show the counters of `bus`, the gauges of `gauges`, and whether the daemon is ready."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_CounterCollector(bus, gauges, is_ready))
        self._registry.register(_Process(registry=None))

    def __call__(self) -> bytes:
        """Return the text, in the format 0.0.4, which every scraper supports."""
        text: bytes = generate_latest(self._registry)
        return text


class _Process(ProcessCollector):
    """The metrics of the process, even without ``/proc/stat``, as in the systemd unit.

    The library reads that file for the boot time of the machine.
    """

    def _boot_time(self) -> float:
        return time() - clock_gettime(CLOCK_BOOTTIME)


class _CounterCollector(Collector):
    """The metrics of pushd."""

    def __init__(self, bus: Bus, gauges: Gauges, is_ready: Callable[[], bool]) -> None:
        self._counters = bus.counters
        self._bus = bus
        self._gauges = gauges
        self._is_ready = is_ready

    def collect(self) -> Iterator[Metric]:
        """Make the metrics from the counters and gauges."""
        build = {"version": __version__, "python": ".".join(map(str, sys.version_info[:3])), "twisted": _TWISTED}
        yield _gauge("build_info", "Version information; always 1.", build, {tuple(build.values()): 1})
        yield GaugeMetricFamily(
            "pushd_ready", "1 if /readyz responds with 200, otherwise 0.", int(self._is_ready())
        )
        present = self._gauges.take()
        yield from self._of_connections(present)
        yield from self._of_subscribers(present)
        yield from self._of_events(present)
        yield from self._of_what_is_around(present)

    def _of_connections(self, present: GaugeSnapshot) -> Iterator[Metric]:
        counters = self._counters
        yield GaugeMetricFamily("pushd_connections", "Open connections.", present.connections)
        yield CounterMetricFamily("pushd_connections_accepted", "Accepted connections.", counters.accepted)
        yield _counter(
            "connections_turned_away",
            "Rejected connections, by the option in [limits].",
            ["limit"],
            {(limit,): counters.turned_away[limit] for limit in _LIMITS},
        )
        yield _counter(
            "tls_handshakes",
            "TLS handshakes, by outcome.",
            ["outcome"],
            {(outcome,): counters.handshakes[outcome] for outcome in _HANDSHAKES},
        )
        yield _counter(
            "http_responses",
            "HTTP responses, by status.",
            ["code"],
            {(str(code),): count for code, count in sorted(counters.answered.items())},
        )
        yield _counter(
            "refused",
            "Refused requests, lines of batches and WebSocket messages, by kind of error.",
            ["reason"],
            {(_name(kind),): counters.refused[kind] for kind in _kinds(Refused)},
        )

    def _of_subscribers(self, present: GaugeSnapshot) -> Iterator[Metric]:
        counters = self._counters
        yield _gauge(
            "subscribers",
            "Connected subscribers, by transport.",
            ["transport"],
            {(transport,): present.subscribers[transport] for transport in TRANSPORTS},
        )
        yield _counter(
            "subscribers_connected",
            "Accepted subscribers, by transport.",
            ["transport"],
            {(transport,): counters.connected[transport] for transport in TRANSPORTS},
        )
        yield _counter(
            "subscribers_ended",
            "Disconnected subscribers, by transport and reason.",
            ["transport", "reason"],
            {
                (transport, "gone" if cause is None else cause.name.lower()): counters.ended[transport, cause]
                for transport in TRANSPORTS
                for cause in _ENDS
            },
        )
        yield GaugeMetricFamily(
            "pushd_subscriptions",
            "Subscriptions to channels and patterns, of all subscribers.",
            present.subscriptions,
        )
        yield GaugeMetricFamily("pushd_outbox_bytes", "Size of all outboxes, in bytes.", present.outbox_bytes)

    def _of_events(self, present: GaugeSnapshot) -> Iterator[Metric]:
        counters, bus = self._counters, self._bus
        yield CounterMetricFamily("pushd_events_published", "Published events.", counters.published)
        yield _counter(
            "events_delivered",
            "Events delivered to subscribers, counted per subscriber.",
            ["when"],
            {("live",): counters.delivered, ("replay",): counters.replayed},
        )
        yield _counter(
            "events_dropped",
            "Events that subscribers missed, counted per subscriber.",
            ["reason"],
            {("latest",): counters.missed, ("too_slow",): counters.too_slow, ("failed",): bus.failures},
        )
        yield CounterMetricFamily("pushd_written_bytes", "Bytes written to subscribers.", counters.written_bytes)
        yield _histogram(
            "publish_latency_seconds",
            "Time from the receipt of an event to its write to the last subscriber.",
            counters.latency,
        )
        yield GaugeMetricFamily("pushd_channels", "Channels with state.", present.channels)
        yield GaugeMetricFamily(
            "pushd_events_retained_bytes",
            "Approximate size of the retained events of all channels.",
            present.events_bytes,
        )

    def _of_what_is_around(self, present: GaugeSnapshot) -> Iterator[Metric]:
        counters = self._counters
        yield _gauge(
            "store_size_bytes",
            "Size of the files of the store.",
            ["file"],
            {("database",): present.database_bytes, ("journal",): present.journal_bytes},
        )
        yield _histogram("store_commit_seconds", "Duration of the transactions of the store.", counters.commits)
        yield CounterMetricFamily(
            "pushd_store_failed_commits", "Failed transactions of the store.", counters.failed_commits
        )
        yield _counter(
            "hook_outcomes",
            "Outcomes of webhooks, by the option in [hooks].",
            ["hook", "outcome"],
            {(hook, outcome): counters.hooks[hook, outcome] for hook, outcome in _HOOKS},
        )
        yield _histogram(
            "reactor_lag_seconds", "Event-loop lag: delay of a task that is due each second.", counters.lag
        )


_TWISTED = version("twisted")


def _kinds(kind: type[Refused]) -> Iterator[type[Refused]]:
    """Return all direct and indirect subclasses of `kind`."""
    for one in kind.__subclasses__():
        yield one
        yield from _kinds(one)


def _name(kind: type[Refused]) -> str:
    return sub("(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


def _gauge(name: str, text: str, labels: Iterable[str], values: Mapping[tuple[str, ...], int]) -> Metric:
    return _with_values(GaugeMetricFamily(f"pushd_{name}", text, labels=list(labels)), values)


def _counter(name: str, text: str, labels: Iterable[str], values: Mapping[tuple[str, ...], int]) -> Metric:
    return _with_values(CounterMetricFamily(f"pushd_{name}", text, labels=list(labels)), values)


def _with_values(family: Any, values: Mapping[tuple[str, ...], int]) -> Metric:
    for labels, value in values.items():
        family.add_metric(labels, value)
    metric: Metric = family
    return metric


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    """Make the metric, with cumulative buckets."""
    buckets, count = [], 0
    for bound, more in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        count += more
        buckets.append((bound, count))
    return HistogramMetricFamily(f"pushd_{name}", text, buckets=buckets, sum_value=histogram.sum)
