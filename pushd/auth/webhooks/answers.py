"""Parsing and validation of the application's responses to webhooks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from pushd.auth.identity_input import Invalid, check_payload, read_scope, read_user
from pushd.bus import Draft, Grants, Identity, check_type
from pushd.errors import BadRequest, Forbidden, PushdError, Refused, TooLarge, TooMany, Unauthorized
from pushd.wire import check_size, parse_draft, parse_object

__all__ = [
    "CONNECT",
    "MAX_REASON_CHARACTERS",
    "PUBLISH",
    "SUBSCRIBE",
    "Answer",
    "NoAnswer",
    "Post",
    "changed_draft",
    "changed_identity",
    "read_answer",
]

MAX_REASON_CHARACTERS = 200
"""Maximum length of a reason passed on to the client, in characters."""

MAX_EXPIRES_IN_S = 10.0**9
"""Maximum lifetime of grants, in seconds."""

SUBSCRIBE = frozenset({"allow", "reason"})
"""Members allowed in a response to ``before_subscribe``."""

CONNECT = SUBSCRIBE | {"user", "payload", "publish", "subscribe", "operator", "expires_in"}
"""Members allowed in a response to ``before_connect``."""

PUBLISH = SUBSCRIBE | {"data", "data_base64", "event"}
"""Members allowed in a response to ``before_publish``."""

_ORIGIN = "[hooks] before_connect"
_REFUSALS: dict[int, Callable[[str, float | None], Refused]] = {
    401: lambda reason, retry_s: Unauthorized(reason),
    403: lambda reason, retry_s: Forbidden(reason),
    429: lambda reason, retry_s: TooMany(reason, retry_s=retry_s, code="rate_limited"),
}


class NoAnswer(PushdError):
    """The application gave no response, or an invalid one. The text is for the log."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of the application, not yet validated."""

    status: int
    """HTTP status."""

    body: bytes = b""
    """Body, of a bounded size."""

    retry_after_s: float | None = None
    """``Retry-After``, in seconds; None: not sent."""


Post = Callable[[str, str, bytes], Awaitable[Answer]]
"""Posts a body; the arguments are URL, message id and body. Raises `NoAnswer` if that fails."""


def read_answer(answer: Answer, known: Set[str]) -> dict[str, Any]:
    """Return the members of a response, all of which must be among `known`.

    Raises `Refused` if the application denies the request, and `NoAnswer` if the response is invalid.
    """
    refusal = _REFUSALS.get(answer.status)
    if refusal is not None:
        raise refusal(_reason(_members_or_none(answer.body)), answer.retry_after_s)
    if not 200 <= answer.status < 300:
        raise NoAnswer(f"the status is {answer.status}")
    if not answer.body:
        return {}
    try:
        members = parse_object(answer.body)
    except BadRequest as error:
        raise NoAnswer(f"the answer is {error.detail}") from None
    if not members.keys() <= known:
        unknown = sorted(members.keys() - known)[0]
        raise NoAnswer(f"the answer has the unknown member {unknown[:64]!r}; known are {', '.join(sorted(known))}")
    _check_kind(members, "reason", str, "a string")
    _check_kind(members, "allow", bool, "true or false")
    if not members.get("allow", True):
        raise Forbidden(_reason(members))
    return members


def _members_or_none(body: bytes) -> dict[str, Any]:
    """Return the members of a body; {} if it is not JSON, because the status is sufficient."""
    try:
        return parse_object(body)
    except BadRequest:
        return {}


def _reason(members: dict[str, Any]) -> str:
    """Return the reason given by the application, on one line, with nonprintable characters replaced."""
    reason = members.get("reason")
    text = reason if isinstance(reason, str) else ""
    printing = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printing.split())[:MAX_REASON_CHARACTERS] or "the application does not allow it"


def _check_kind(members: dict[str, Any], name: str, kind: type, wanted: str) -> None:
    if name in members and not isinstance(members[name], kind):
        raise NoAnswer(f"{name} of the answer is of another kind; wanted {wanted}")


# before_connect


def changed_identity(identity: Identity, members: dict[str, Any], now: float) -> Identity:
    """Return `identity` with the changes of the application; raise `NoAnswer` if they are invalid.

    `now` is the time in seconds since 1970.
    """
    changes: dict[str, Any] = {}
    try:
        if "user" in members:
            user = members["user"]
            changes["user"] = None if user is None else read_user(user, "user of the answer")
        if "payload" in members:
            changes["payload"] = members["payload"]
            check_payload(members["payload"], "payload of the answer")
        if members.keys() & {"publish", "subscribe", "operator"}:
            changes["grants"] = _grants(identity.grants, members)
    except Invalid as error:
        raise NoAnswer(str(error)) from None
    if "expires_in" in members:
        changes["expires_at"] = now + _expires_in_s(members["expires_in"])
    return replace(identity, **changes)


def _expires_in_s(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not isfinite(value) or not 0 < value <= MAX_EXPIRES_IN_S:  # type: ignore[arg-type, operator]
        raise NoAnswer("expires_in of the answer: wanted a number of seconds above 0, up to 10^9")
    return float(value)  # type: ignore[arg-type]


def _grants(grants: Grants, members: dict[str, Any]) -> Grants:
    _check_kind(members, "operator", bool, "true or false")
    is_all = members.keys() >= {"publish", "subscribe"}
    publish, subscribe = (
        read_scope(members[name], f"{name} of the answer") if name in members else before
        for name, before in (("publish", grants.publish), ("subscribe", grants.subscribe))
    )
    return Grants(
        publish,
        subscribe,
        members.get("operator", grants.is_operator),
        _ORIGIN if is_all else f"{grants.origin} with {_ORIGIN}",
        grants.wants_token and not is_all,
    )


# before_publish


def changed_draft(draft: Draft, members: dict[str, Any], max_event_bytes: int) -> Draft:
    """Return `draft` with the changes of the application; raise `NoAnswer` if they make it invalid."""
    if not members.keys() & {"data", "data_base64", "event"}:
        return draft
    try:
        data, is_text = draft.data, draft.is_text
        if members.keys() & {"data", "data_base64"}:
            given: dict[str, Any] = {name: members[name] for name in ("data", "data_base64") if name in members}
            published = parse_draft({"channel": draft.channels[0], **given}, 1)
            data, is_text = published.data, published.is_text
            check_size(data, max_event_bytes)
        kind = members.get("event", draft.type)
        if not isinstance(kind, str | None):
            raise NoAnswer("event of the answer is of another kind; wanted null or a string")
        if kind is not None:
            check_type(kind)
    except (BadRequest, TooLarge) as error:
        raise NoAnswer(f"the event of the answer: {error.detail}") from None
    sent = None if draft.id is None else draft.fingerprint()  # a retry is recognized by its original content
    return Draft(draft.channels, data, is_text, kind, draft.id, sent)
