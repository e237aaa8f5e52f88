"""What a token claims, once it is known who signed it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pushd.auth.tokens.jws import kind_of, quote, wrong
from pushd.bus import MAX_PATTERNS, ChannelScope, Grants, Identity, Pattern
from pushd.errors import BadRequest
from pushd.wire import json_bytes

__all__ = ["MAX_PAYLOAD_BYTES", "MAX_USER_BYTES", "Times", "check_audience", "read_identity", "read_times"]

MAX_USER_BYTES = 255
"""How long the name of a user may be."""

MAX_PAYLOAD_BYTES = 4096
"""How long the payload may be, in JSON."""

_MAX_DEPTH = 32
"""How deeply the payload may be nested."""

_MAX_TIME_S = 2.0**53
_MEMBERS = ("publish", "subscribe", "operator", "payload")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Times:
    """When a token counts, in seconds since 1970."""

    expires_at: float | None
    """Until when: the claim ``exp``."""

    not_before: float | None
    """From when on: ``nbf``."""

    made_at: float | None
    """When it was made: ``iat``."""

    def check(self, now: float, leeway_s: float) -> None:
        """Raise `Unauthorized` unless the token counts `now`, by clocks that differ by `leeway_s` at most."""
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
    """Read ``exp``, ``nbf`` and ``iat``, none of which has to be there."""
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
    """Raise `Unauthorized` unless ``aud`` is `wanted`, or has it; if that is None, unless there is none."""
    audience = claims.get("aud", [])
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(one, str) for one in audiences):
        raise wrong("aud is neither text nor a list of texts")
    if wanted in audiences or (wanted is None and not audiences):
        return
    shown = ", ".join(quote(one) for one in audiences[:3]) + ", ..." * (len(audiences) > 3)
    wish = f"wanted {wanted!r}" if wanted is not None else "wanted none, because the key has no audience"
    raise wrong(f"aud is {shown or 'missing'}; {wish}")


def read_identity(claims: Mapping[str, Any], times: Times, *, leeway_s: float, origin: str) -> Identity:
    """Read who it is and what it may do; `origin` is for who is refused something."""
    said = claims.get("pushd", {})
    if not isinstance(said, dict):
        raise wrong(f"pushd is {kind_of(said)}; wanted an object with any of {', '.join(_MEMBERS)}")
    for name in said:
        if name not in _MEMBERS:
            nearest = get_close_matches(name[:64].lower(), _MEMBERS, 1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"wanted any of {', '.join(_MEMBERS)}"
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
    if _CONTROL.search(user) or _is_not_unicode(user):
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
    """Raise `Unauthorized` unless `payload` can be shown to others."""
    level, depth = [payload], 0
    while level := [inner for value in level for inner in _inner(value)]:
        depth += 1
        if depth > _MAX_DEPTH:
            raise wrong(f"payload in pushd is nested more than {_MAX_DEPTH} levels deep")
    size = len(json_bytes({"": payload})) - len(b'{"":}')
    if size > MAX_PAYLOAD_BYTES:
        raise wrong(f"payload in pushd has {size} bytes; wanted {MAX_PAYLOAD_BYTES} at most")


def _inner(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
