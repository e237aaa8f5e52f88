"""What schemathesis has to be told of the interface, because OpenAPI has no words for it."""

from __future__ import annotations

import json
import os
from collections import deque
from itertools import count
from typing import Any

import requests
import schemathesis
from schemathesis import CheckContext, DeserializationContext, HookContext, Response, SerializationContext
from schemathesis.core import NOT_SET

__all__: list[str] = []

_Case = schemathesis.Case[Any]
_NDJSON = "application/x-ndjson"
_MAX_STREAMS = 5
_LINE_MAY_BE = {422, 429}
"""The statuses of a line that is right."""


@schemathesis.serializer(_NDJSON)
def _lines(context: SerializationContext, value: Any) -> bytes:
    lines = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@schemathesis.deserializer(_NDJSON)
def _read_lines(context: DeserializationContext, response: Response) -> list[Any]:
    return [json.loads(line) for line in response.content.splitlines() if line]


@schemathesis.deserializer("application/octet-stream")
def _read_bytes(context: DeserializationContext, response: Response) -> str:
    return response.content.decode("latin-1")


@schemathesis.hook
def before_call(context: HookContext, case: _Case, kwargs: dict[str, Any]) -> None:
    """Make right what OpenAPI cannot say."""
    name = case.operation.definition.raw.get("operationId")
    for query in (case.query, kwargs.get("params")):
        if query and name == "publish":
            query.pop("access_token", None)  # the token is in Authorization, and two are refused
    if name == "publish":
        _say_once(case)
    elif name == "publishMany" and _is_right(case):
        _publish_lines_or_one(case)
    elif name == "listChannels" and case.query and "channel" in case.query and _is_right(case):
        case.query = {"channel": case.query["channel"]}
    elif name == "subscribeSse" and case.query and _is_right(case):
        for alias in [one for one in case.query if one.lower().replace("-", "") == "lasteventid"][1:]:
            del case.query[alias]
    elif name == "closeConnections" and not case.query:
        case.query = {"user": "nobody"}
    elif name in ("seeConnection", "closeConnection") and _is_right(case):
        case.path_parameters = {"id": _new_connection(case)}
    elif name == "openWebSocket":
        kwargs["hooks"] = {"response": _leave_websocket}
        if _is_right(case) and case.query.get("format") == "raw" and not case.query.get("channel"):
            case.query["channel"] = ["news"]


def _is_right(case: _Case) -> bool:
    return case.meta is None or case.meta.generation.mode.is_positive


def _publish_lines_or_one(case: _Case) -> None:
    """Name channels in the query for the data of one event, and not for lines, which have their own."""
    query = dict(case.query or {})
    if case.media_type == _NDJSON and case.body is not NOT_SET:
        case.query = {name: value for name, value in query.items() if name not in ("channel", "id", "event")}
    elif not query.get("channel"):
        case.query = {**query, "channel": ["news"]}


def _say_once(case: _Case) -> None:
    """Say an id or a type in the query or in a header, not in both."""
    for name, header in (("id", "Event-ID"), ("event", "Event-Type")):
        if case.query and case.headers and name in case.query:
            case.headers.pop(header, None)


_streams: deque[requests.Response] = deque()
_numbers = count(1)


def _new_connection(case: _Case) -> str:
    """Connect, and answer the id of the connection."""
    url, channel = case.operation.schema.get_base_url(), f"held-{next(_numbers)}"
    rights = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    _streams.append(requests.get(f"{url}/sse?channel={channel}", headers=rights, stream=True, timeout=30))
    if len(_streams) > _MAX_STREAMS:
        _streams.popleft().close()
    found = requests.get(f"{url}/connections?channel={channel}", headers=rights, timeout=30).json()
    return str(found["connections"][0]["connection"])


def _leave_websocket(response: requests.Response, **kwargs: Any) -> None:
    """Make no other request over a connection that speaks WebSocket now."""
    if response.status_code == 101:
        response.raw.close()


@schemathesis.check
def lines_are_answered(context: CheckContext, response: Response, case: _Case) -> None:
    """See that each line of a batch is answered, and a right one not refused."""
    if case.operation.definition.raw.get("operationId") != "publishMany" or response.status_code != 200:
        return
    body = response.request.body
    assert isinstance(body, bytes)
    asked = [line for line in body.split(b"\n") if line.strip()]
    answers = [json.loads(line) for line in response.content.splitlines()]
    assert len(answers) == len(asked), f"{len(asked)} lines are answered by {len(answers)}"
    if _is_right(case):
        refused = [one["error"] for one in answers if "error" in one]
        assert all(one["status"] in _LINE_MAY_BE for one in refused), refused
