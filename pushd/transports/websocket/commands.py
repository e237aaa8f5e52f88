"""Parse the commands of clients over WebSocket."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pushd.bus import Draft, Pattern, record
from pushd.errors import BadRequest
from pushd.wire import (
    DRAFT_FIELDS,
    MAX_CHANNELS,
    MAX_REF_CHARACTERS,
    Ref,
    check_fields,
    check_since,
    json_type,
    optional_text_field,
    parse_draft,
    text_field,
)

__all__ = ["Command", "Publish", "Renew", "Subscribe", "Unsubscribe", "parse_command", "parse_ref"]


@dataclass(frozen=True, slots=True)
class Subscribe:
    """``{"type":"subscribe","channel":..,"since"?:..,"ref"?:..}``"""

    pattern: Pattern
    """The channel or pattern."""

    since: str
    """The position to start at."""

    ref: Ref
    """Identifies the reply."""


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """``{"type":"unsubscribe","channel":..,"ref"?:..}``"""

    channel: str
    """The channel or pattern, as in the subscribe command."""

    ref: Ref
    """Identifies the reply."""


@record()
class Publish:
    """``{"type":"publish","channel":..,"data":..,"event"?:..,"id"?:..,"ref"?:..}``"""

    draft: Draft
    """The event."""

    ref: Ref
    """Identifies the reply."""


@dataclass(frozen=True, slots=True)
class Renew:
    """``{"type":"renew","token":..,"ref"?:..}``"""

    token: str = field(repr=False)
    """The new token."""

    ref: Ref
    """Identifies the reply."""


Command = Subscribe | Unsubscribe | Publish | Renew


_PUBLISH_FIELDS = DRAFT_FIELDS | {"type", "ref"}


def parse_ref(message: dict[str, Any]) -> Ref:
    """Return the ``ref`` of a command: a string, an integer, or None if it is missing."""
    ref = message.get("ref")
    if ref is None or (isinstance(ref, str) and len(ref) <= MAX_REF_CHARACTERS and ref.isprintable()):
        return ref
    if isinstance(ref, int) and not isinstance(ref, bool) and abs(ref) < 2**53:
        return ref
    wanted = f"a text of up to {MAX_REF_CHARACTERS} printable characters or a whole number of up to 53 bits"
    raise BadRequest(f"ref is a JSON {json_type(ref)} of another form; expected {wanted}", "ref")


def parse_command(message: dict[str, Any], max_channels: int = MAX_CHANNELS) -> Command:
    """Parse a command of the WebSocket protocol; raise `BadRequest`, which names the invalid field.

    An event may have up to `max_channels` channels.
    """
    ref = parse_ref(message)
    kind = text_field(message, "type")
    if kind == "subscribe":
        check_fields(message, {"type", "channel", "since", "ref"})
        since = optional_text_field(message, "since")
        pattern = Pattern.parse(text_field(message, "channel"))
        return Subscribe(pattern, "latest" if since is None else check_since(since), ref)
    if kind == "unsubscribe":
        check_fields(message, {"type", "channel", "ref"})
        return Unsubscribe(Pattern.parse(text_field(message, "channel")).text, ref)
    if kind == "publish":
        return Publish(parse_draft(message, max_channels, _PUBLISH_FIELDS), ref)
    if kind == "renew":
        check_fields(message, {"type", "token", "ref"})
        return Renew(text_field(message, "token"), ref)
    raise BadRequest(f"unknown type {kind!r}; expected subscribe, unsubscribe, publish or renew", "type")
