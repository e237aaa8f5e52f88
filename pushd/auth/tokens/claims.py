"""Validation of the claims of a token, after its signature was verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pushd.auth.identity_input import Invalid, check_payload, kind_of, quote, read_scope, read_user
from pushd.auth.tokens.jws import wrong
from pushd.bus import Grants, Identity
from pushd.errors import suggestion

__all__ = ["Times", "check_audience", "read_identity", "read_times"]

_MAX_TIME_S = 2.0**53
_MEMBERS = ("publish", "subscribe", "operator", "payload")


@dataclass(frozen=True, slots=True)
class Times:
    """The validity period of a token, in seconds since 1970."""

    expires_at: float | None
    """Expiry: the claim ``exp``."""

    not_before: float | None
    """Start: the claim ``nbf``."""

    made_at: float | None
    """Issue time: the claim ``iat``."""

    def check(self, now: float, leeway_s: float) -> None:
        """Raise `Unauthorized` unless the token is valid at `now`, with a clock difference up to `leeway_s`."""
        if self.expires_at is not None and now >= self.expires_at + leeway_s:
            expired_s = now - self.expires_at
            raise wrong(f"the token expired {expired_s:.0f} s ago (exp); wanted a new one", "token_expired")
        if self.not_before is not None and now < self.not_before - leeway_s:
            raise wrong(f"the token is not valid before {self.not_before - now:.0f} s from now (nbf)")
        if self.made_at is not None and now < self.made_at - leeway_s:
            raise wrong(
                f"the token was made {self.made_at - now:.0f} s from now (iat); wanted clocks that differ by "
                f"{leeway_s:g} s at most"
            )


def read_times(claims: Mapping[str, Any]) -> Times:
    """Return the claims ``exp``, ``nbf`` and ``iat``, all of them optional."""
    return Times(*(_read_time(claims, name) for name in ("exp", "nbf", "iat")))


def _read_time(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    time = claims[name]
    if type(time) not in (int, float):
        raise wrong(f"{name} is {kind_of(time)}; wanted a number of seconds since 1970")
    if not 0 <= time <= _MAX_TIME_S:
        raise wrong(f"{name} is out of range; wanted a number of seconds since 1970")
    return float(time)


def check_audience(claims: Mapping[str, Any], wanted: str | None) -> None:
    """Raise `Unauthorized` unless ``aud`` equals or contains `wanted`; if that is None, unless it is absent."""
    audience = claims.get("aud", [])
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
        raise wrong("aud is neither text nor a list of texts")
    if wanted in audiences or (wanted is None and not audiences):
        return
    shown = ", ".join(quote(one) for one in audiences[:3]) + ", ..." * (len(audiences) > 3)
    token_request = f"wanted {wanted!r}" if wanted is not None else "wanted none, because the key has no audience"
    raise wrong(f"aud is {shown or 'missing'}; {token_request}")


def read_identity(claims: Mapping[str, Any], times: Times, *, leeway_s: float, origin: str) -> Identity:
    """Return the user, grants and payload; `origin` names the source of the grants in error messages."""
    said = claims.get("pushd", {})
    if not isinstance(said, dict):
        raise wrong(f"pushd is {kind_of(said)}; wanted an object with any of {', '.join(_MEMBERS)}")
    for name in said:
        if name not in _MEMBERS:
            hint = suggestion(name, {it: it for it in _MEMBERS})
            raise wrong(f"pushd has a member {quote(name)}, which is not known: {hint}")
    is_operator = said.get("operator", False)
    if not isinstance(is_operator, bool):
        raise wrong(f"operator in pushd is {kind_of(is_operator)}; wanted true or false")
    try:
        publish = read_scope(said.get("publish", []), "publish in pushd")
        subscribe = read_scope(said.get("subscribe", []), "subscribe in pushd")
        payload = said.get("payload")
        check_payload(payload, "payload in pushd")
        user = read_user(claims["sub"], "sub") if "sub" in claims else None
    except Invalid as error:
        raise wrong(str(error)) from None
    expires_at = None if times.expires_at is None else times.expires_at + leeway_s
    return Identity(Grants(publish, subscribe, is_operator, origin), user, payload, expires_at)
