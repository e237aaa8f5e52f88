"""The insight: what the daemon shows of itself, and at which paths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.web.resource import IResource

from pushd.api.connections import ConnectionList
from pushd.api.health import Health, Readiness, Ready
from pushd.api.metrics.endpoint import Metrics, OpenMetrics
from pushd.api.status.events import StatusEvents, Watchers
from pushd.api.status.page import status_page
from pushd.config import Limits
from pushd.server import RequestGuard
from pushd.sessions import Admission

__all__ = ["OperatorEndpoints"]


@dataclass(frozen=True, slots=True)
class OperatorEndpoints:
    """What can be seen from outside."""

    counts: Callable[[], dict[str, int]]
    """Answers a few counts."""

    readiness: Readiness
    """Whether the daemon is ready."""

    exposition: Callable[[], bytes]
    """Answers the metrics."""

    watchers: Watchers
    """Who is told each second how the daemon is."""

    def for_everybody(self, gate: RequestGuard | None) -> dict[bytes, IResource]:
        """Make what is served without rights anywhere, by `gate`; None: where there are no rights at all."""
        return {b"healthz": Health(gate, self.counts), b"readyz": Ready(gate, self.readiness)}

    def for_operators(
        self, gate: RequestGuard, door: Admission, limits: Limits, *, publishes: bool
    ) -> dict[bytes, IResource]:
        """Make what is served to operators, by `gate` and `door`; `publishes`: they can publish, too."""
        events = StatusEvents(
            gate,
            door,
            self.watchers,
            retry_s=limits.retry_s,
            heartbeat_s=limits.heartbeat_s,
            publishes=publishes,
        )
        return {b"connections": ConnectionList(gate, door.sessions), b"status": status_page(events)}

    def behind(self, gate: RequestGuard, door: Admission, limits: Limits) -> dict[bytes, IResource]:
        """Make what is served beside everything else, to those who may see it."""
        operators = self.for_operators(gate, door, limits, publishes=True)
        return {**self.for_everybody(gate), **operators, b"metrics": Metrics(gate, self.exposition)}

    def of_operations(self, gate: RequestGuard, door: Admission, limits: Limits) -> dict[bytes, IResource]:
        """Make what is served where there is nothing else: without rights, but for what is for operators."""
        operators = self.for_operators(gate, door, limits, publishes=False)
        return {**self.for_everybody(None), **operators, b"metrics": OpenMetrics(self.exposition)}
