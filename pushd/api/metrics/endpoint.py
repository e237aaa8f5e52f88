"""The metrics: ``GET /metrics``, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from pushd.server import Answering, Endpoint, Request, RequestGuard, answer

__all__ = ["Metrics", "OpenMetrics"]

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _answer(request: Request, text: bytes) -> bytes:
    request.setHeader(b"cache-control", b"no-store")
    return answer(request, text, _CONTENT_TYPE)


class Metrics(Endpoint):
    """For operators."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {}

    def __init__(self, gate: RequestGuard, exposition: Callable[[], bytes]) -> None:
        """Show what `exposition` answers to operators whom `gate` lets in."""
        super().__init__(gate)
        self._exposition = exposition

    def render_GET(self, request: Request) -> bytes:
        """Return all of them."""
        request.caller.grants.check_operator("see the metrics")
        return _answer(request, self._exposition())


class OpenMetrics(Answering):
    """For everybody, at listeners that serve operations: only those can reach them who may see it."""

    isLeaf = True
    parameters: ClassVar[Mapping[str, frozenset[str]]] = {}

    def __init__(self, exposition: Callable[[], bytes]) -> None:
        """Show what `exposition` answers."""
        super().__init__()
        self._exposition = exposition

    def render_GET(self, request: Request) -> bytes:
        """Return all of them."""
        return _answer(request, self._exposition())
