"""The endpoints for operators and probes, by path."""

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
    """The sources of the operator endpoints, and the resources made of them."""

    counts: Callable[[], dict[str, int]]
    """Returns the counts for ``/healthz``."""

    readiness: Readiness
    """The readiness of the daemon."""

    exposition: Callable[[], bytes]
    """Returns the text of the metrics."""

    watchers: Watchers
    """The clients of the status stream."""

    def for_everybody(self, guard: RequestGuard | None) -> dict[bytes, IResource]:
        """Return the resources that need no grants, behind `guard`; None on an admin listener."""
        return {b"healthz": Health(guard, self.counts), b"readyz": Ready(guard, self.readiness)}

    def for_operators(
        self, guard: RequestGuard, admission: Admission, limits: Limits, *, publishes: bool
    ) -> dict[bytes, IResource]:
        """Return the resources for operators, behind `guard` and `admission`; `publishes`: also publishing."""
        events = StatusEvents(
            guard,
            admission,
            self.watchers,
            retry_s=limits.retry_s,
            heartbeat_s=limits.heartbeat_s,
            publishes=publishes,
        )
        return {b"connections": ConnectionList(guard, admission.sessions), b"status": status_page(events)}

    def behind(self, guard: RequestGuard, admission: Admission, limits: Limits) -> dict[bytes, IResource]:
        """Return all these resources for a public listener; the metrics require an operator."""
        operators = self.for_operators(guard, admission, limits, publishes=True)
        return {**self.for_everybody(guard), **operators, b"metrics": Metrics(guard, self.exposition)}

    def of_operations(self, guard: RequestGuard, admission: Admission, limits: Limits) -> dict[bytes, IResource]:
        """Return the resources of an admin listener; probes and metrics need no grants."""
        operators = self.for_operators(guard, admission, limits, publishes=False)
        return {**self.for_everybody(None), **operators, b"metrics": OpenMetrics(self.exposition)}
