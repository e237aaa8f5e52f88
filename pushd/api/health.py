"""Whether the daemon lives, ``GET /healthz``, and whether it can do what it is there for, ``GET /readyz``."""

from __future__ import annotations

from collections.abc import Callable

from pushd.readiness import Readiness
from pushd.request import Request
from pushd.resource import Answering, json_answer, unlogged_problem

__all__ = ["Health", "Ready"]


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


class Ready(Answering):
    """Answers ``200`` while everything works, and else ``503`` with the reason.

    It is not behind the gate either. Who asks does so all the time, so that the reason is neither logged nor
    counted.
    """

    isLeaf = True

    def __init__(self, readiness: Readiness) -> None:
        """Show `readiness`."""
        super().__init__()
        self._readiness = readiness

    def render_GET(self, request: Request) -> bytes:
        """Answer ``{"status":"ready"}`` or a problem document."""
        request.setHeader(b"cache-control", b"no-store")
        why_not = self._readiness.why_not
        if why_not is None:
            return json_answer(request, {"status": "ready"})
        return unlogged_problem(request, why_not)
