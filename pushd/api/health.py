"""Health checks: liveness at ``GET /healthz``, readiness at ``GET /readyz``."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from pushd.errors import Refused, Unavailable
from pushd.server import Answering, Request, RequestGuard, json_answer, unlogged_problem

__all__ = ["Health", "Readiness", "Ready"]


class Readiness:
    """The readiness of the daemon: ready between its start and its shutdown, while the store accepts events."""

    def __init__(self, store_failure: Callable[[], Refused | None]) -> None:
        """Start as not ready; `store_failure` returns why nothing can be published, or None."""
        self._store_failure = store_failure
        self._phase: Unavailable | None = Unavailable("the server is starting")

    def started(self) -> None:
        """Called when the start is complete."""
        self._phase = None

    def stopping(self) -> None:
        """Called when the shutdown starts."""
        self._phase = Unavailable("the server is going away", code="shutting_down")

    @property
    def why_not(self) -> Unavailable | None:
        """Return why the daemon is not ready; None if it is."""
        if self._phase is not None:
            return self._phase
        failure = self._store_failure()
        return (
            None
            if failure is None
            else Unavailable(f"nothing can be published: {failure.detail}", code="store_down")
        )


class _Probed(Answering):
    """An endpoint for load balancers: no grant is needed; with a gate, the request must name this server."""

    isLeaf = True

    def __init__(self, guard: RequestGuard | None) -> None:
        """Serve the clients that `guard` admits; None serves everybody, as an admin listener does."""
        super().__init__()
        self._guard = guard

    def admit(self, request: Request) -> Deferred[None] | None:
        """Override: check the request with the gate, if there is one."""
        return None if self._guard is None else self._guard.admit(request)


class Health(_Probed):
    """``200`` while the reactor runs; with counts for operators, or for everybody without a gate."""

    def __init__(self, guard: RequestGuard | None, counts: Callable[[], dict[str, int]]) -> None:
        """Show the result of `counts`."""
        super().__init__(guard)
        self._counts = counts

    def render_GET(self, request: Request) -> bytes:
        """Return ``{"status":"ok",...}``."""
        is_shown = self._guard is None or request.caller.grants.is_operator
        return json_answer(request, {"status": "ok", **(self._counts() if is_shown else {})})


class Ready(_Probed):
    """``200`` while the daemon is ready, otherwise ``503`` with the reason.

    Probes repeat all the time, so the reason is neither logged nor counted.
    """

    def __init__(self, guard: RequestGuard | None, readiness: Readiness) -> None:
        """Show `readiness`."""
        super().__init__(guard)
        self._readiness = readiness

    def render_GET(self, request: Request) -> bytes:
        """Return ``{"status":"ready"}`` or a problem document."""
        why_not = self._readiness.why_not
        if why_not is None:
            return json_answer(request, {"status": "ready"})
        return unlogged_problem(request, why_not)
