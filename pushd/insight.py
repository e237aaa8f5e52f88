"""The insight: what the daemon shows of itself, and at which paths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.web.resource import IResource

from pushd.api.health import Health, Ready
from pushd.api.metrics import Metrics, OpenMetrics
from pushd.gate import Gate
from pushd.readiness import Readiness

__all__ = ["Insight"]


@dataclass(frozen=True, slots=True)
class Insight:
    """What can be seen from outside."""

    counts: Callable[[], dict[str, int]]
    """Answers a few counts, for everybody."""

    readiness: Readiness
    """Whether the daemon is ready."""

    exposition: Callable[[], bytes]
    """Answers the metrics."""

    def for_everybody(self) -> dict[bytes, IResource]:
        """Make what is served without rights anywhere."""
        return {b"healthz": Health(self.counts), b"readyz": Ready(self.readiness)}

    def behind(self, gate: Gate) -> dict[bytes, IResource]:
        """Make what is served beside everything else, to those who may see it."""
        return {**self.for_everybody(), b"metrics": Metrics(gate, self.exposition)}

    def of_operations(self) -> dict[bytes, IResource]:
        """Make what is served where there is nothing else: without rights."""
        return {**self.for_everybody(), b"metrics": OpenMetrics(self.exposition)}
