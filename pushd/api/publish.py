"""Publishing over HTTP: ``POST /channels/{channel}`` and, many at once, ``POST /publish``."""

from __future__ import annotations

from pushd.bus import Bus, Published
from pushd.errors import BadRequest, Refused
from pushd.event import Draft
from pushd.frames import json_line
from pushd.gate import Gate
from pushd.messages import check_size, parse_draft, parse_object
from pushd.request import Request
from pushd.resource import Endpoint, answer, decoded, json_answer, parameter, path_of_event

__all__ = ["PublishMany", "publish_one"]


def _published(result: Published) -> dict[str, object]:
    """Answer what a publisher is told, as JSON shows it."""
    return {
        "id": result.id,
        "channel": result.channel,
        "offset": result.offset,
        "subscribers": result.subscribers,
    }


def publish_one(request: Request, bus: Bus, channel: str, max_bytes: int) -> bytes:
    """Publish the body of `request`, whatever its content type, to `channel`.

    Optional ``event`` and ``id`` come as query parameters or as headers ``Event-Type`` and ``Event-ID``.
    """
    data = request.body()
    check_size(data, max_bytes)
    draft = Draft.checked(
        (channel,), data, type=_option(request, "event", "Event-Type"), id=_option(request, "id", "Event-ID")
    )
    result = bus.publish(draft, request.grants)
    request.setHeader(b"location", path_of_event(result.channel, result.id).encode("ascii"))
    return json_answer(request, _published(result), status=201)


def _option(request: Request, name: str, header: str) -> str | None:
    in_query = parameter(request, name)
    values = request.requestHeaders.getRawHeaders(header.encode("ascii"), [])
    if len(values) + (in_query is not None) > 1:
        raise BadRequest(f"more than one {name}: wanted it in the query or in {header}, once", name)
    return decoded(values[0], header) if values else in_query


class PublishMany(Endpoint):
    """NDJSON in, NDJSON out: an answer for each line, in order, either what was published or an error.

    A line that is wrong changes nothing and does not stop the others. Empty lines are passed over.
    """

    def __init__(self, gate: Gate, bus: Bus, *, max_event_bytes: int) -> None:
        """Publish to `bus`, each event of up to `max_event_bytes`."""
        super().__init__(gate)
        self._bus = bus
        self._max_event_bytes = max_event_bytes

    def render_POST(self, request: Request) -> bytes:
        """Publish every line."""
        lines = [line for line in request.body().split(b"\n") if line.strip()]
        if not lines:
            raise BadRequest("the body is empty; wanted NDJSON, one event a line")
        answers = [json_line(self._publish(line, request)) for line in lines]
        return answer(request, b"".join(answers), "application/x-ndjson")

    def _publish(self, line: bytes, request: Request) -> dict[str, object]:
        try:
            draft = parse_draft(parse_object(line))
            check_size(draft.data, self._max_event_bytes)
            return _published(self._bus.publish(draft, request.grants))
        except Refused as refused:
            return {"error": refused.problem()}
