"""The readiness: whether the daemon can do now what it is there for."""

from __future__ import annotations

from collections.abc import Callable

from pushd.errors import Refused, Unavailable

__all__ = ["Readiness"]


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
        """Answer why it is not ready; None if it is."""
        if self._phase is not None:
            return self._phase
        failure = self._store_failure()
        return None if failure is None else Unavailable(f"nothing can be published: {failure.detail}")
