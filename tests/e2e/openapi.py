"""The description of the HTTP interface, as a scanner takes it that knows less of OpenAPI and finds no examples."""

from __future__ import annotations

from typing import Any

from tests.rigs.openapi import Operation, operations

__all__ = ["CHANNEL", "EVENT", "document"]

CHANNEL = "scan"
"""The channel that all the examples are about."""

EVENT = "first"
"""The id of its first event."""

_VALUES = {
    "channel": CHANNEL,
    "since": "earliest",
    "limit": "3",
    "after": "a",
    "prefix": "s",
    "user": "scanner",
    "transport": "sse",
    "address": "127.0.0.1",
    "event": "note",
    "id": "second",
    "format": "json",
}
"""What parameters are, unless it is said below."""

_VALUES_OF = {
    "deleteChannel": {"channel": "gone"},
    "deleteChannelByQuery": {"channel": "gone"},
    "readEvent": {"id": EVENT},
    "readEventByQuery": {"id": EVENT},
    "seeConnection": {"id": "1"},
    "closeConnection": {"id": "1"},
    "closeConnections": {"user": "nobody", "channel": "gone"},
}

_LEFT_OUT = {
    "publishMany": {"channel", "id", "event"},
    "listChannels": {"channel"},
    "subscribeSse": {"lastEventId", "lastEventID", "last-event-id", "Last-Event-ID"},
}
"""Parameters that are refused beside the others of the operation, or beside its body."""

_BODIES = {
    "publish": ("application/x-www-form-urlencoded", {"a": "b"}),
    "publishMany": ("application/json", {"channel": CHANNEL, "data": "hello", "event": "note", "id": "third"}),
}
"""What is sent; one line of JSON is JSON."""


def _said(operation: Operation) -> dict[str, Any]:
    values = {**_VALUES, **_VALUES_OF.get(operation.name, {})}
    said: dict[str, Any] = {
        "parameters": [
            {**one, "schema": {"type": "string", "default": values[one["name"]]}}
            for one in operation.parameters
            if one["in"] != "header" and one["name"] not in _LEFT_OUT.get(operation.name, ())
        ],
        "responses": {"default": {"description": "see docs/openapi.yaml"}},
    }
    assert (operation.name in _BODIES) == bool(operation.content), operation
    if operation.content:
        content_type, members = _BODIES[operation.name]
        properties = {name: {"type": "string", "default": example} for name, example in members.items()}
        said["requestBody"] = {"content": {content_type: {"schema": {"type": "object", "properties": properties}}}}
    return said


def document() -> dict[str, Any]:
    """Make the document: every operation that is described, with an example of each parameter, and the pages."""
    paths: dict[str, Any] = {"/": {"get": {"responses": {"default": {"description": "a page"}}}}}
    for operation in operations():
        paths.setdefault(operation.path, {})[operation.method.lower()] = _said(operation)
    return {"openapi": "3.0.0", "info": {"title": "pushd", "version": "0"}, "paths": paths}
