"""Publishing over HTTP: ``POST /channels/{channel}`` and, many at once, ``POST /publish``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from pushd.access import Grants
from pushd.bus import Bus, Published
from pushd.errors import BadRequest, Refused
from pushd.event import Draft
from pushd.frames import json_line
from pushd.gate import Gate
from pushd.messages import check_size, parse_draft, parse_object
from pushd.request import Request
from pushd.resource import Endpoint, answer, decoded, json_answer, parameter, path_of_event

__all__ = ["PublishMany", "publish_one"]

CallLater = Callable[[float, Callable[[], None]], object]
"""The reactor's ``callLater``."""

_LINES_PER_TURN = 500
"""How many events of a batch are published before the reactor has its turn."""

_BYTES_PER_TURN = 256 * 1024
"""How many bytes of a batch are; a subscriber's outbox must be able to hold them."""


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
        (channel,), data, type=_option(request, "event", b"Event-Type"), id=_option(request, "id", b"Event-ID")
    )
    result = bus.publish(draft, request.grants)
    request.setHeader(b"location", path_of_event(result.channel, result.id).encode("ascii"))
    return json_answer(request, _published(result), status=201)


def _option(request: Request, name: str, header: bytes) -> str | None:
    in_query = parameter(request, name) if request.args else None
    values = request.requestHeaders.getRawHeaders(header, [])
    if len(values) + (in_query is not None) > 1:
        wanted = f"wanted it in the query or in {header.decode('ascii')}, once"
        raise BadRequest(f"more than one {name}: {wanted}", name)
    return decoded(values[0], header.decode("ascii")) if values else in_query


class PublishMany(Endpoint):
    """NDJSON in, NDJSON out: an answer for each line, in order, either what was published or an error.

    A line that is wrong changes nothing and does not stop the others. Empty lines are passed over. A long batch
    takes many turns of the reactor, so that the others go on and subscribers can take what was published.
    """

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {}

    def __init__(self, gate: Gate, bus: Bus, *, max_event_bytes: int, call_later: CallLater) -> None:
        """Publish to `bus`, each event of up to `max_event_bytes`. `call_later` is the reactor's."""
        super().__init__(gate)
        self._bus = bus
        self._max_event_bytes = max_event_bytes
        self._call_later = call_later

    def render_POST(self, request: Request) -> bytes | int:
        """Publish every line; a short batch at once."""
        lines = [line for line in request.body().split(b"\n") if line.strip()]
        if not lines:
            raise BadRequest("the body is empty; wanted NDJSON, one event a line")
        answers = self._publish_some(lines, request.grants)
        if not lines:
            return answer(request, answers, "application/x-ndjson")
        request.setHeader(b"content-type", b"application/x-ndjson")
        batch = _Batch(request, lines, self._publish_some, self._call_later)
        request.notifyFinish().addErrback(batch.gone)
        request.registerProducer(batch, True)
        request.write(answers)
        batch.resumeProducing()
        return NOT_DONE_YET

    def _publish_some(self, lines: list[bytes], grants: Grants) -> bytes:
        """Publish as many `lines` as fit into one turn of the reactor, and take them away; answer for each."""
        answers, size = [], 0
        for line in lines[:_LINES_PER_TURN]:
            answers.append(json_line(self._publish(line, grants)))
            size += len(line)
            if size > _BYTES_PER_TURN:
                break
        del lines[: len(answers)]
        return b"".join(answers)

    def _publish(self, line: bytes, grants: Grants) -> dict[str, object]:
        try:
            draft = parse_draft(parse_object(line))
            check_size(draft.data, self._max_event_bytes)
            return _published(self._bus.publish(draft, grants))
        except Refused as refused:
            return {"error": refused.problem()}


@implementer(IPushProducer)
class _Batch:
    """A request whose lines are published a few at a time, as long as its client takes the answers."""

    def __init__(
        self,
        request: Request,
        lines: list[bytes],
        publish: Callable[[list[bytes], Grants], bytes],
        call_later: CallLater,
    ) -> None:
        """Write what `publish` answers to the `lines`, some of which it takes away each time."""
        self._request = request
        self._lines = lines
        self._publish = publish
        self._call_later = call_later
        self._is_paused = True
        self._is_waiting = False

    def _turn(self) -> None:
        self._is_waiting = False
        if self._is_paused:
            return
        request = self._request
        request.write(self._publish(self._lines, request.grants))
        if self._lines:
            self._wait()
        else:
            self._is_paused = True
            request.unregisterProducer()
            request.finish()

    def _wait(self) -> None:
        if not self._is_paused and not self._is_waiting:
            self._is_waiting = True
            self._call_later(0, self._turn)

    def pauseProducing(self) -> None:
        """Wait: the client does not take the answers."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self._is_paused = False
        self._wait()

    def stopProducing(self) -> None:
        """Stop: the client has gone. What was published stays so."""
        self._is_paused = True

    def gone(self, reason: Failure) -> None:
        """Learn that the client has gone."""
        self.stopProducing()
