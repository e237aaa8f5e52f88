"""Whether the daemon lives: ``GET /healthz``."""

from __future__ import annotations

from collections.abc import Callable

from pushd.request import Request
from pushd.resource import Answering, json_answer

__all__ = ["Health"]


class Health(Answering):
    """Answers ``200`` as long as the reactor turns, with a few counts.

    It is not behind the gate: it gives no rights, and a load balancer calls it by whatever name it likes.
    """

    isLeaf = True

    def __init__(self, counts: Callable[[], dict[str, int]]) -> None:
        """Show what `counts` answers."""
        super().__init__()
        self._counts = counts

    def render_GET(self, request: Request) -> bytes:
        """Answer ``{"status":"ok",...}``."""
        request.setHeader(b"cache-control", b"no-store")
        return json_answer(request, {"status": "ok", **self._counts()})
