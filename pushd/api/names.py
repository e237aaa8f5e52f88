"""The channels that a request names in its query."""

from __future__ import annotations

from pushd.bus import check_name
from pushd.errors import BadRequest
from pushd.server import Request, decoded, parameter

__all__ = ["named_channel", "named_channels"]


def named_channel(request: Request) -> str:
    """Return the channel of the query; raise `BadRequest` if it is missing."""
    name = parameter(request, "channel")
    if name is None:
        raise BadRequest("channel is missing; expected ?channel=NAME", "channel")
    return check_name(name)


def named_channels(request: Request, max_channels: int) -> tuple[str, ...]:
    """Return the channels of the query, for one event; none for a batch."""
    values: list[bytes] = request.args.get(b"channel", [])
    if len(values) > max_channels:
        limit = f"[limits] channels_per_event is {max_channels}"
        raise BadRequest(f"{len(values)} channels; {limit}", "channel")
    if not values:
        for name in ("event", "id"):
            if name.encode("ascii") in request.args:
                raise BadRequest(f"{name} in the query requires channel; in a batch, each line has its own", name)
    elif any(b"ndjson" in one.lower() for one in request.requestHeaders.getRawHeaders(b"content-type", [])):
        raise BadRequest("channel in the query is for one event; expected either lines or channel", "channel")
    return tuple(check_name(decoded(value, "channel")) for value in values)
