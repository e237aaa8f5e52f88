"""The key set of an issuer: fetched on demand, cached and refreshed."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.auth.tokens.fetch import Fetch
from pushd.auth.tokens.jwks import MAX_KEYS, SetKey, read_jwks
from pushd.auth.tokens.keys import Verifier
from pushd.errors import Unavailable

__all__ = ["FRESH_S", "PAUSE_S", "RETRY_S", "KeySet"]

FRESH_S = 3600.0
"""Time after which the key set is fetched again, in seconds."""

PAUSE_S = 30.0
"""Minimum time between two fetches, in seconds, so that tokens with unknown keys cause no flood."""

RETRY_S = 5.0
"""Minimum time between two fetches while there is no key set, in seconds."""


class KeySet:
    """The key set of a section with ``jwks_url``."""

    _log = Logger()

    def __init__(self, name: str, url: str, algorithm: str, *, fetch: Fetch, seconds: Callable[[], float]) -> None:
        """Fetch nothing yet. `name` is the name of the section, `seconds` a monotonic clock."""
        self._name = name
        self._url = url
        self._algorithm = algorithm
        self._fetch = fetch
        self._seconds = seconds
        self._keys: tuple[SetKey, ...] | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._waiting: list[Deferred[None]] | None = None  # None: no fetch is pending
        self._trouble: Unavailable | None = None
        self.generation = 0
        """Number of changes of the keys."""

    def has_kid(self, kid: str) -> bool:
        """Return whether a key has the id `kid`."""
        return any(key.kid == kid for key in self._keys or ())

    def verifiers(self, kid: str | None) -> list[Verifier]:
        """Return the keys with the id `kid` or without an id; all keys if `kid` is None."""
        return [key.verifier for key in self._keys or () if kid is None or key.kid in (kid, None)]

    @property
    def trouble(self) -> Unavailable | None:
        """The error while there are no keys at all; else None."""
        if self._keys is not None:
            return None
        why = "they were not fetched yet" if self._trouble is None else self._trouble.detail
        left_s = max(self._tried_at + RETRY_S - self._seconds(), 1.0)
        return Unavailable(f"the keys of key {self._name} cannot be had: {why}", retry_s=left_s, code="keys_down")

    def keep_fresh(self) -> None:
        """Fetch the key set in the background if it is old; the cached keys remain in use."""
        now = self._seconds()
        is_old = self._keys is not None and now - self._fetched_at >= FRESH_S
        if is_old and self._waiting is None and now - self._tried_at >= PAUSE_S:
            self._begin()

    def is_worth_fetching(self, kid: str | None) -> bool:
        """Return whether to wait for `fetched`: no cached key matches `kid`, and a fetch is pending or allowed."""
        if self.verifiers(kid):
            return False
        pause_s = RETRY_S if self._keys is None else PAUSE_S
        return self._waiting is not None or self._seconds() - self._tried_at >= pause_s

    def fetched(self) -> Deferred[None]:
        """Fetch the key set, or join a pending fetch. The Deferred fires when it ends, also after an error."""
        waiting: Deferred[None] = Deferred()
        if self._waiting is None:
            self._begin(waiting)
        else:
            self._waiting.append(waiting)
        return waiting

    def _begin(self, *waiting: Deferred[None]) -> None:
        self._waiting = list(waiting)
        self._tried_at = self._seconds()
        fetched = maybeDeferred(self._fetch, self._url)
        fetched.addCallback(self._take).addErrback(self._fail).addCallback(self._tell)

    def _take(self, text: bytes) -> None:
        keys = read_jwks(text, self._algorithm)
        if keys != self._keys:
            self.generation += 1
            if not keys:
                self._log.warn(
                    "the key set of [key:{key}] has no key for {algorithm}: {url}",
                    key=self._name,
                    algorithm=self._algorithm,
                    url=self._url,
                )
            if len(keys) == MAX_KEYS:
                self._log.warn(
                    "of the key set of [key:{key}], only the first {count} keys are used: {url}",
                    key=self._name,
                    count=MAX_KEYS,
                    url=self._url,
                )
        self._keys = keys
        self._fetched_at = self._seconds()
        if self._trouble is not None:
            self._trouble = None
            self._log.info("the keys of [key:{key}] could be fetched again: {url}", key=self._name, url=self._url)

    def _fail(self, failure: Failure) -> None:
        is_known = self._trouble is not None
        if isinstance(failure.value, Unavailable):
            self._trouble = failure.value
        else:
            self._log.failure("fetching the keys of [key:{key}] failed", failure, key=self._name)
            self._trouble = Unavailable("an error of pushd itself")
        if not is_known:
            self._log.warn(
                "the keys of [key:{key}] cannot be fetched: {url}: {why}; {rest}",
                key=self._name,
                url=self._url,
                why=self._trouble.detail,
                rest="no token of it is taken" if self._keys is None else "those that are there go on serving",
            )

    def _tell(self, nothing: None) -> None:
        waiting, self._waiting = self._waiting or (), None
        for one in waiting:
            one.callback(None)
