"""The HTTP interface as an OpenAPI document, for programs that find their way by one."""

from __future__ import annotations

from typing import Any

__all__ = ["document"]

CHANNEL = "scan"
"""The channel that all the examples are about."""

EVENT = "first"
"""The id of its first event."""


def _parameter(name: str, example: str, place: str = "query") -> dict[str, Any]:
    schema = {"type": "string", "default": example}
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _operation(*parameters: dict[str, Any], body: dict[str, Any] | None = None) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "parameters": list(parameters),
        "responses": {"default": {"description": "see docs/http.rst"}},
    }
    if body is not None:
        operation["requestBody"] = {"content": body}
    return operation


def _object(**members: str) -> dict[str, Any]:
    properties = {name: {"type": "string", "default": example} for name, example in members.items()}
    return {"schema": {"type": "object", "properties": properties}}


def document() -> dict[str, Any]:
    """Make the document: every operation that is served, with an example of each parameter."""
    channel, event = _parameter("channel", CHANNEL, "path"), _parameter("id", EVENT, "path")
    page = (_parameter("after", "a"), _parameter("limit", "3"))
    wanted = (_parameter("channel", CHANNEL), _parameter("since", "earliest"))
    filters = {"user": "scanner", "channel": CHANNEL, "transport": "sse", "address": "127.0.0.1"}
    who = tuple(_parameter(name, example) for name, example in filters.items())
    names = (_parameter("event", "note"), _parameter("id", "second"))
    batch = {"application/json": _object(channel=CHANNEL, data="hello", event="note", id="third")}
    paths = {
        "/": {"get": _operation()},
        "/healthz": {"get": _operation()},
        "/channels": {"get": _operation(_parameter("prefix", "s"), *page)},
        "/channels/{channel}": {
            "get": _operation(channel),
            "post": _operation(channel, *names, body={"application/x-www-form-urlencoded": _object(a="b")}),
            "delete": _operation(_parameter("channel", "gone", "path")),
        },
        "/channels/{channel}/events": {
            "get": _operation(channel, _parameter("since", "earliest"), _parameter("limit", "3"))
        },
        "/channels/{channel}/events/{id}": {"get": _operation(channel, event)},
        "/channels/{channel}/presence": {"get": _operation(channel, *page)},
        "/connections": {"get": _operation(*who, *page), "delete": _operation(_parameter("user", "nobody"))},
        "/connections/{id}": {"get": _operation(_parameter("id", "1", "path"))},
        "/publish": {"post": _operation(body=batch)},
        "/poll": {"get": _operation(*wanted, _parameter("limit", "3"))},
        **{f"/{name}": {"get": _operation(*wanted)} for name in ("sse", "stream", "push", "ws")},
    }
    return {"openapi": "3.0.0", "info": {"title": "pushd", "version": "0"}, "paths": paths}
