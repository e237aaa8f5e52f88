"""Metrics: ``GET /metrics``, in the Prometheus text format."""

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
    """The metrics for operators, at public listeners."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {}

    def __init__(self, guard: RequestGuard, exposition: Callable[[], bytes]) -> None:
        """Show the result of `exposition` to operators that `guard` admits."""
        super().__init__(guard)
        self._exposition = exposition

    def render_GET(self, request: Request) -> bytes:
        """Return all of them."""
        request.caller.grants.check_operator("see the metrics")
        return _answer(request, self._exposition())


class OpenMetrics(Answering):
    """The metrics without grants, at admin listeners: only authorized clients can reach these."""

    isLeaf = True
    parameters: ClassVar[Mapping[str, frozenset[str]]] = {}

    def __init__(self, exposition: Callable[[], bytes]) -> None:
        """Show the result of `exposition`."""
        super().__init__()
        self._exposition = exposition

    def render_GET(self, request: Request) -> bytes:
        """Return all of them."""
        return _answer(request, self._exposition())
