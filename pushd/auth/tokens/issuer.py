"""Verification of tokens by one section ``[key:NAME]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from pushd.auth.identity_input import quote
from pushd.auth.tokens.claims import Times, check_audience, read_identity, read_times
from pushd.auth.tokens.fetch import Fetch
from pushd.auth.tokens.jws import CompactJws
from pushd.auth.tokens.keys import Verifier, read_key
from pushd.auth.tokens.keyset import KeySet
from pushd.bus import Identity
from pushd.config import Key
from pushd.errors import Unauthorized, Unavailable

__all__ = ["MAX_UNNAMED", "Nearness", "Rejection", "TokenIssuer", "VerifiedToken"]

MAX_UNNAMED = 10
"""Maximum number of keys in a set that are tried for a token without ``kid``."""


class Nearness(IntEnum):
    """The first check that a token fails; the section with the highest value provides the error message."""

    KEY = 0
    """No key matches the token."""
    SIGNATURE = 1
    """The signature is wrong."""
    AUDIENCE = 2
    """The signature is right; the audience is wrong."""
    TIME = 3
    """The audience is right; the token has expired or is not yet valid."""
    CLAIMS = 4
    """The token is valid now; its claims are malformed."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """The reason why a section rejects a token."""

    nearness: Nearness
    """The check that failed."""

    detail: str
    """What is wrong and what is expected."""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A verified token."""

    section: TokenIssuer
    """The section that verified the token."""

    generation: int
    """The `TokenIssuer.generation` of the section at that time."""

    times: Times
    """The validity period."""

    identity: Identity
    """The identity of the client with this token."""


class TokenIssuer:
    """The key or key set of one section."""

    def __init__(self, key: Key, *, leeway_s: float, fetch: Fetch, seconds: Callable[[], float]) -> None:
        """Read the key, unless it is fetched; raise `StartFailed` if it is invalid."""
        self.key = key
        """The configuration of the section."""
        self.name = key.name
        self.algorithm = key.algorithm
        self.issuer = key.issuer
        self._audience = key.audience
        self.leeway_s = leeway_s
        """Accepted clock difference, in seconds."""
        self._fixed: list[Verifier] = []
        self.keys: KeySet | None = None
        """The fetched key set, if ``jwks_url`` is set."""
        if key.jwks_url is None:
            self._fixed.append(read_key(key))
        else:
            self.keys = KeySet(key.name, key.jwks_url, key.algorithm, fetch=fetch, seconds=seconds)

    @property
    def generation(self) -> int:
        """Number of changes of the keys; a cached verification is valid for one generation only."""
        return 0 if self.keys is None else self.keys.generation

    @property
    def trouble(self) -> Unavailable | None:
        """The error while there are no keys at all; else None."""
        return None if self.keys is None else self.keys.trouble

    def keep_fresh(self) -> None:
        """Fetch the key set in the background if it is old."""
        if self.keys is not None:
            self.keys.keep_fresh()

    def is_named(self, kid: str) -> bool:
        """Return whether the header ``kid`` names this section or one of its keys."""
        return kid == self.name or (self.keys is not None and self.keys.has_kid(kid))

    def is_worth_fetching(self, kid: str | None) -> bool:
        """Return whether to fetch the key set for a token with this ``kid``."""
        return self.keys is not None and self.keys.is_worth_fetching(self._kid_within(kid))

    def judge(self, token: CompactJws, now: float) -> VerifiedToken | Rejection:
        """Verify `token` at the time `now`; return the result, or the reason of the rejection."""
        kid = self._kid_within(token.kid)
        verifiers = self._fixed if self.keys is None else self.keys.verifiers(kid)
        if not verifiers:
            return Rejection(Nearness.KEY, self._no_key(kid))
        if kid is None and len(verifiers) > MAX_UNNAMED:
            return Rejection(
                Nearness.KEY, f"kid is missing; wanted that of one of the {len(verifiers)} keys of {self}"
            )
        if not any(verifier.has_signed(token.signed, token.signature) for verifier in verifiers):
            return Rejection(
                Nearness.SIGNATURE, f"the signature is wrong; wanted one with {self} ({self.algorithm})"
            )
        return self._believe(token, now)

    def _believe(self, token: CompactJws, now: float) -> VerifiedToken | Rejection:
        """Check the claims of a token whose signature is right."""
        nearness = Nearness.AUDIENCE
        try:
            check_audience(token.claims, self._audience)
            nearness = Nearness.TIME
            times = read_times(token.claims)
            times.check(now, self.leeway_s)
            nearness = Nearness.CLAIMS
            origin = f"the token of {self}"
            identity = read_identity(token.claims, times, leeway_s=self.leeway_s, origin=origin)
        except Unauthorized as error:
            return Rejection(nearness, error.detail)
        return VerifiedToken(self, self.generation, times, identity)

    def _kid_within(self, kid: str | None) -> str | None:
        """Return the ``kid`` of a key within the section; None if the token names no key or just the section."""
        return None if kid == self.name else kid

    def _no_key(self, kid: str | None) -> str:
        if kid is None:
            return f"the key set of {self} has no key for {self.algorithm}"
        return f"kid is {quote(kid)}; wanted that of a key of {self}"

    def __str__(self) -> str:
        """Return the name of the section for messages."""
        return f"key {self.name}"
