"""Validation of the claims of a token, after its signature was verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pushd.auth.identity_limits import (
    MAX_DEPTH,
    MAX_PAYLOAD_BYTES,
    MAX_USER_BYTES,
    has_control_characters,
    is_too_deep,
    payload_size,
)
from pushd.auth.tokens.jws import kind_of, quote, wrong
from pushd.bus import MAX_PATTERNS, ChannelScope, Grants, Identity, Pattern
from pushd.errors import BadRequest, suggestion

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
            raise wrong(f"the token expired {now - self.expires_at:.0f} s ago (exp); wanted a new one")
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
    grants = Grants(_read_reach(said, "publish"), _read_reach(said, "subscribe"), is_operator, origin)
    payload = said.get("payload")
    _check_payload(payload)
    expires_at = None if times.expires_at is None else times.expires_at + leeway_s
    return Identity(grants, _read_user(claims), payload, expires_at)


def _read_user(claims: Mapping[str, Any]) -> str | None:
    if "sub" not in claims:
        return None
    user = claims["sub"]
    if not isinstance(user, str):
        raise wrong(f"sub is {kind_of(user)}; wanted text")
    size = len(user.encode(errors="replace"))
    if not 1 <= size <= MAX_USER_BYTES:
        raise wrong(f"sub has {size} bytes; wanted 1 to {MAX_USER_BYTES}")
    if has_control_characters(user) or _is_not_unicode(user):
        raise wrong(f"sub is {quote(user)}; wanted text without control characters")
    return user


def _is_not_unicode(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _read_reach(said: Mapping[str, Any], right: str) -> ChannelScope:
    texts = said.get(right, [])
    if not isinstance(texts, list):
        raise wrong(f"{right} in pushd is {kind_of(texts)}; wanted a list of channels and patterns")
    if len(texts) > MAX_PATTERNS:
        raise wrong(f"{right} in pushd has {len(texts)} patterns; wanted {MAX_PATTERNS} at most")
    return ChannelScope(map(_reader(right), texts))


def _reader(right: str) -> Callable[[object], Pattern]:
    def read(text: object) -> Pattern:
        if not isinstance(text, str):
            raise wrong(f"{right} in pushd has {kind_of(text)}; wanted channels and patterns, which are text")
        try:
            return Pattern.parse(text)
        except BadRequest as error:
            raise wrong(f"{right} in pushd: {error.detail}") from None

    return read


def _check_payload(payload: object) -> None:
    """Raise `Unauthorized` if `payload` is too large or nested too deeply to be sent to others."""
    if is_too_deep(payload):
        raise wrong(f"payload in pushd is nested more than {MAX_DEPTH} levels deep")
    size = payload_size(payload)
    if size > MAX_PAYLOAD_BYTES:
        raise wrong(f"payload in pushd has {size} bytes; wanted {MAX_PAYLOAD_BYTES} at most")
