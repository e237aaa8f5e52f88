"""Whether the daemon lives, ``GET /healthz``, and whether it can do what it is there for, ``GET /readyz``."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from pushd.errors import Refused, Unavailable
from pushd.server import Answering, Request, RequestGuard, json_answer, unlogged_problem

__all__ = ["Health", "Readiness", "Ready"]


class Readiness:
    """It is ready from the end of its start to the beginning of its stop, while its store takes events."""

    def __init__(self, store_failure: Callable[[], Refused | None]) -> None:
        """Be about to start; `store_failure` answers why nothing can be published, if that is so."""
        self._store_failure = store_failure
        self._phase: Unavailable | None = Unavailable("the server is starting")

    def started(self) -> None:
        """Learn that everything works."""
        self._phase = None

    def stopping(self) -> None:
        """Learn that the end has begun."""
        self._phase = Unavailable("the server is going away")

    @property
    def why_not(self) -> Unavailable | None:
        """Return why it is not ready; None if it is."""
        if self._phase is not None:
            return self._phase
        failure = self._store_failure()
        return None if failure is None else Unavailable(f"nothing can be published: {failure.detail}")


class _Probed(Answering):
    """What load balancers ask: without any right, but by a name of this server unless there is no gate."""

    isLeaf = True

    def __init__(self, gate: RequestGuard | None) -> None:
        """Serve those whom `gate` lets in; None: everybody, as a listener for operations does."""
        super().__init__()
        self._gate = gate

    def admit(self, request: Request) -> Deferred[None] | None:
        """Override: ask the gate."""
        return None if self._gate is None else self._gate.admit(request)


class Health(_Probed):
    """Answers ``200`` as long as the reactor turns, with a few counts for operators or, without a gate, all."""

    def __init__(self, gate: RequestGuard | None, counts: Callable[[], dict[str, int]]) -> None:
        """Show what `counts` answers."""
        super().__init__(gate)
        self._counts = counts

    def render_GET(self, request: Request) -> bytes:
        """Return ``{"status":"ok",...}``."""
        is_shown = self._gate is None or request.caller.grants.is_operator
        return json_answer(request, {"status": "ok", **(self._counts() if is_shown else {})})


class Ready(_Probed):
    """Answers ``200`` while everything works, and else ``503`` with the reason.

    Who asks does so all the time, so that the reason is neither logged nor counted.
    """

    def __init__(self, gate: RequestGuard | None, readiness: Readiness) -> None:
        """Show `readiness`."""
        super().__init__(gate)
        self._readiness = readiness

    def render_GET(self, request: Request) -> bytes:
        """Return ``{"status":"ready"}`` or a problem document."""
        why_not = self._readiness.why_not
        if why_not is None:
            return json_answer(request, {"status": "ready"})
        return unlogged_problem(request, why_not)
