"""The sections ``[key:NAME]``: how near a token comes to what each of them takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from pushd.auth.tokens.claims import Times, check_audience, read_identity, read_times
from pushd.auth.tokens.fetch import Fetch
from pushd.auth.tokens.jws import CompactJws, quote
from pushd.auth.tokens.keys import Verifier, read_key
from pushd.auth.tokens.keyset import KeySet
from pushd.bus import Identity
from pushd.config import Key
from pushd.errors import Unauthorized, Unavailable

__all__ = ["MAX_UNNAMED", "Nearness", "Rejection", "TokenIssuer", "VerifiedToken"]

MAX_UNNAMED = 10
"""How many keys of a set are tried for a token that does not say which."""


class Nearness(IntEnum):
    """How far a token came."""

    KEY = 0
    """There is no key for it."""
    SIGNATURE = 1
    """It is signed by somebody else."""
    AUDIENCE = 2
    """It is signed by the right one, for somebody else."""
    TIME = 3
    """It is for this server, but not now."""
    CLAIMS = 4
    """What it claims cannot be understood."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a section does not take a token."""

    nearness: Nearness
    """How far it came."""

    detail: str
    """What was wrong and what was wanted."""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a token proves."""

    section: TokenIssuer
    """By whom."""

    generation: int
    """Which keys that section had."""

    times: Times
    """When it counts."""

    identity: Identity
    """Who shows it."""


class TokenIssuer:
    """One section."""

    def __init__(self, key: Key, *, leeway_s: float, fetch: Fetch, seconds: Callable[[], float]) -> None:
        """Read the key, if it is in a file; raise `StartFailed` if that is no good."""
        self.key = key
        """What the configuration says of it."""
        self.name = key.name
        self.algorithm = key.algorithm
        self.issuer = key.issuer
        self._audience = key.audience
        self.leeway_s = leeway_s
        """By how much clocks may differ, in seconds."""
        self._fixed: list[Verifier] = []
        self.keys: KeySet | None = None
        """What is fetched, if its keys are."""
        if key.jwks_url is None:
            self._fixed.append(read_key(key))
        else:
            self.keys = KeySet(key.name, key.jwks_url, key.algorithm, fetch=fetch, seconds=seconds)

    @property
    def generation(self) -> int:
        """How often its keys have changed."""
        return 0 if self.keys is None else self.keys.generation

    @property
    def trouble(self) -> Unavailable | None:
        """Why there are no keys at all, if there are none."""
        return None if self.keys is None else self.keys.trouble

    def keep_fresh(self) -> None:
        """Fetch its keys in the background if they are old."""
        if self.keys is not None:
            self.keys.keep_fresh()

    def is_named(self, kid: str) -> bool:
        """Return whether the header ``kid`` means this section."""
        return kid == self.name or (self.keys is not None and self.keys.has_kid(kid))

    def is_worth_fetching(self, kid: str | None) -> bool:
        """Return whether its keys should be fetched for a token with this ``kid``."""
        return self.keys is not None and self.keys.is_worth_fetching(self._kid_within(kid))

    def judge(self, token: CompactJws, now: float) -> VerifiedToken | Rejection:
        """Return what the token proves, or why nothing."""
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
        """Return what a token proves that is signed by the right one."""
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
        """Return which of its keys is meant, if the token says."""
        return None if kid == self.name else kid

    def _no_key(self, kid: str | None) -> str:
        if kid is None:
            return f"the key set of {self} has no key for {self.algorithm}"
        return f"kid is {quote(kid)}; wanted that of a key of {self}"

    def __str__(self) -> str:
        """Say which it is."""
        return f"key {self.name}"
