"""Tokens whose meaning the test says, and everything that is logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from pushd.auth.tokens.authenticator import Tokens
from pushd.bus.grants import Grants, Identity
from pushd.bus.patterns import Pattern
from pushd.errors import Unauthorized
from tests.rigs.subscribers import Subscriber

__all__ = ["FakeTokens", "identity", "logged", "with_token"]


def identity(
    *,
    publish: tuple[str, ...] = (),
    subscribe: tuple[str, ...] = (),
    operator: bool = False,
    user: str | None = "alice",
    expires_at: float | None = None,
    payload: object = None,
) -> Identity:
    """Make one with rights to channels and patterns."""
    words = ["operator"] if operator else []
    grants = Grants.of(
        words, map(Pattern.parse, publish), map(Pattern.parse, subscribe), origin="the token of the test"
    )
    return Identity(grants, user, payload, expires_at)


class FakeTokens(Tokens):
    """Knows some tokens; while it `is_slow`, it answers when the test says."""

    def __init__(self, **known: Identity | Exception) -> None:
        self.known: dict[str, Identity | Exception] = dict(known)
        self.is_slow = False
        self.now: Callable[[], float] | None = None
        """Answers the time, if one that has expired is refused."""
        self.shown: list[str] = []
        """Every token that it was asked about."""
        self._waiting: list[tuple[str, Deferred[Identity]]] = []

    def identify(self, token: str) -> Identity | Deferred[Identity]:
        """See `Tokens`."""
        self.shown.append(token)
        if self.is_slow:
            answer: Deferred[Identity] = Deferred()
            self._waiting.append((token, answer))
            return answer
        return self._find(token)

    def _find(self, token: str) -> Identity:
        found = self.known.get(token)
        if found is None:
            raise Unauthorized("nobody has signed it", is_token_wrong=True)
        if isinstance(found, Exception):
            raise found
        if self.now is not None and found.expires_at is not None and found.expires_at <= self.now():
            raise Unauthorized("it has expired", is_token_wrong=True)
        return found

    def __len__(self) -> int:
        """Count what was not answered yet."""
        return len(self._waiting)

    def answer(self, *, quick: bool = True) -> None:
        """Return what was asked so far; and from now on at once if `quick`."""
        self.is_slow = not quick
        waiting, self._waiting = self._waiting, []
        for token, deferred in waiting:
            try:
                found = self._find(token)
            except Exception:  # noqa: BLE001  as the real one does, whatever it is
                deferred.errback(Failure())
            else:
                deferred.callback(found)


@contextmanager
def logged() -> Iterator[list[str]]:
    """Write down all that is logged, at every level: as it is read, and all that is in it."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        failure = event.get("log_failure")
        traceback = "" if failure is None else failure.getTraceback()
        values = {name: value for name, value in event.items() if name not in ("log_logger", "log_source")}
        lines.append(f"{event['log_namespace']} {formatEvent(event)}\n{values!r}\n{traceback}")

    globalLogPublisher.addObserver(observe)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)


def with_token(kind: type[Subscriber], token: str) -> type[Subscriber]:
    """Make of a kind of subscriber one that shows a token in its query."""

    class Showing(kind):  # type: ignore[misc,valid-type]
        def connect(self) -> None:
            self.query += f"&{urlencode({'access_token': token})}"
            super().connect()

    return Showing
