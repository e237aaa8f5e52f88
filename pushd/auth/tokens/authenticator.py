"""Authentication by token, with all sections ``[key:NAME]``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

from twisted.internet.defer import Deferred

from pushd.auth.identity_input import kind_of, quote
from pushd.auth.tokens.fetch import Fetch
from pushd.auth.tokens.issuer import Nearness, Rejection, TokenIssuer, VerifiedToken
from pushd.auth.tokens.jws import CompactJws, check_size, read_compact, wrong
from pushd.bus import Identity
from pushd.config import Key
from pushd.errors import Refused, Unauthorized

__all__ = ["MAX_KEPT", "Tokens"]

MAX_KEPT = 4096
"""Maximum number of cached verified tokens."""


class Tokens:
    """Verifies tokens, and caches verified ones by their SHA-256 digest."""

    def __init__(
        self,
        keys: Sequence[Key],
        *,
        leeway_s: float,
        now: Callable[[], float],
        seconds: Callable[[], float],
        fetch: Fetch,
        max_kept: int = MAX_KEPT,
        before: Tokens | None = None,
    ) -> None:
        """Read the files of `keys`; raise `StartFailed` if one is invalid.

        `now` returns the time in seconds since 1970, `seconds` is a monotonic clock, `leeway_s` the accepted clock
        difference to the issuer, and `fetch` fetches key sets. Key sets already fetched by `before` are reused.
        """
        kept: Iterable[TokenIssuer] = (
            () if before is None else (section for section in before._sections if section.keys is not None)
        )
        fetched = {(section.key, section.leeway_s): section for section in kept}
        self._sections: list[TokenIssuer] = [
            fetched.get((key, leeway_s)) or TokenIssuer(key, leeway_s=leeway_s, fetch=fetch, seconds=seconds)
            for key in keys
        ]
        self._leeway_s = leeway_s
        self._now = now
        self._max_kept = max_kept
        self._kept: OrderedDict[bytes, VerifiedToken] = OrderedDict()

    def identify(self, token: str) -> Identity | Deferred[Identity]:
        """Return the identity that `token` proves, or a Deferred of it if a key set must be fetched first.

        Raises, or fails with, `Unauthorized` if the token is invalid, `Unavailable` if the keys cannot be fetched.
        Neither message quotes the token.
        """
        check_size(token)
        digest = sha256(token.encode()).digest()
        proof = self._kept.get(digest)
        # fast path: a cached token skips parsing and signature check, the slow path below
        if proof is not None and proof.generation == proof.section.generation:
            proof.section.keep_fresh()
            try:
                proof.times.check(self._now(), self._leeway_s)
            except Unauthorized:
                del self._kept[digest]
                raise
            self._kept.move_to_end(digest)
            return proof.identity
        shown = read_compact(token)
        sections = self._fitting(shown)
        for section in sections:
            section.keep_fresh()
        found = self._judge(shown, sections)
        if isinstance(found, VerifiedToken):
            return self._keep(digest, found)
        lacking = [section for section in sections if section.is_worth_fetching(shown.kid)]
        if found.nearness <= Nearness.SIGNATURE and lacking:
            return Deferred.fromCoroutine(self._fetch(digest, shown, sections, lacking))
        raise _refusal(found, sections)

    async def _fetch(
        self, digest: bytes, shown: CompactJws, sections: Sequence[TokenIssuer], lacking: Sequence[TokenIssuer]
    ) -> Identity:
        """Fetch the key sets of `lacking`, and verify the token again."""
        for fetched in [section.keys.fetched() for section in lacking if section.keys is not None]:
            await fetched
        found = self._judge(shown, _named(shown, sections))
        if isinstance(found, VerifiedToken):
            return self._keep(digest, found)
        raise _refusal(found, sections)

    def _fitting(self, shown: CompactJws) -> Sequence[TokenIssuer]:
        """Return the sections that match ``alg`` and ``iss``, at least one; raise `Unauthorized` if none does."""
        if not self._sections:
            raise wrong("no token is taken, because no [key:NAME] is configured; wanted a request without one")
        fitting = [section for section in self._sections if section.algorithm == shown.algorithm]
        if not fitting:
            wanted = _or(f"{section.algorithm} ({section})" for section in self._sections)
            raise wrong(f"alg is {quote(shown.algorithm)}; wanted {wanted}")
        issued = [section for section in fitting if section.issuer in (None, shown.claims.get("iss"))]
        if not issued:
            issuer = shown.claims.get("iss", "")
            said = quote(issuer) if isinstance(issuer, str) else kind_of(issuer)
            wanted = _or(f"{section.issuer!r} ({section})" for section in fitting)
            raise wrong(f"iss is {said if 'iss' in shown.claims else 'missing'}; wanted {wanted}")
        return _named(shown, issued)

    def _judge(self, shown: CompactJws, sections: Sequence[TokenIssuer]) -> VerifiedToken | Rejection:
        """Return the token as verified by the first of `sections` that accepts it, or the nearest rejection."""
        now = self._now()
        misses = []
        for section in sections:
            found = section.judge(shown, now)
            if isinstance(found, VerifiedToken):
                return found
            misses.append(found)
        return max(misses, key=lambda miss: miss.nearness)

    def _keep(self, digest: bytes, proof: VerifiedToken) -> Identity:
        self._kept[digest] = proof
        if len(self._kept) > self._max_kept:
            self._kept.popitem(last=False)
        return proof.identity


def _named(shown: CompactJws, sections: Sequence[TokenIssuer]) -> Sequence[TokenIssuer]:
    """Return the `sections` named by the header ``kid``, or all if it names none."""
    if shown.kid is None:
        return sections
    return [section for section in sections if section.is_named(shown.kid)] or sections


def _refusal(miss: Rejection, sections: Sequence[TokenIssuer]) -> Refused:
    """Return the error for a rejected token; missing keys have precedence."""
    if miss.nearness <= Nearness.SIGNATURE:
        for section in sections:
            if section.trouble is not None:
                return section.trouble
    return wrong(miss.detail)


def _or(texts: Iterable[str]) -> str:
    return " or ".join(texts)
