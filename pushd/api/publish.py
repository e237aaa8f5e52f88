"""Publishing over HTTP: ``POST /channels/{channel}`` and, many at once, ``POST /publish``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from pushd.caller import Caller
from pushd.errors import BadRequest, Refused
from pushd.event import Draft
from pushd.figures import Figures
from pushd.frames import json_line
from pushd.gate import Gate
from pushd.messages import check_size, parse_draft, parse_object
from pushd.publisher import Outcome, Publisher
from pushd.request import Request
from pushd.resource import (
    Endpoint,
    answer,
    answer_later,
    answer_problem,
    decoded,
    json_answer,
    parameter,
    path_of_event,
)

__all__ = ["PublishMany", "publish_one"]

_log = Logger()

CallLater = Callable[[float, Callable[[], None]], object]
"""The reactor's ``callLater``."""

_something = re.compile(rb"\S").search

_LINES_PER_TURN = 500
"""How many events of a batch are published before the reactor has its turn."""

_BYTES_PER_TURN = 256 * 1024
"""How many bytes of a batch are; a subscriber's outbox must be able to hold them."""


def _shown(outcome: Outcome) -> dict[str, object]:
    """Answer what a publisher is told, as JSON shows it."""
    if isinstance(outcome, Refused):
        return {"error": outcome.problem()}
    return {
        "id": outcome.id,
        "channel": outcome.channel,
        "offset": outcome.offset,
        "subscribers": outcome.subscribers,
    }


def publish_one(request: Request, publisher: Publisher, channel: str, max_bytes: int) -> int:
    """Publish the body of `request`, whatever its content type, to `channel`.

    Optional ``event`` and ``id`` come as query parameters or as headers ``Event-Type`` and ``Event-ID``.
    """
    data = request.body()
    check_size(data, max_bytes)
    draft = Draft.checked(
        (channel,), data, type=_option(request, "event", b"Event-Type"), id=_option(request, "id", b"Event-ID")
    )
    publisher.publish(draft, request.caller, partial(_answer_one, request))
    return NOT_DONE_YET


def _answer_one(request: Request, outcome: Outcome) -> None:
    if request.is_gone:
        return
    if isinstance(outcome, Refused):
        body = answer_problem(request, outcome)
    else:
        request.setHeader(b"location", path_of_event(outcome.channel, outcome.id).encode("ascii"))
        body = json_answer(request, _shown(outcome), status=201)
    answer_later(request, body)


def _option(request: Request, name: str, header: bytes) -> str | None:
    in_query = parameter(request, name) if request.args else None
    values = request.requestHeaders.getRawHeaders(header, [])
    if len(values) + (in_query is not None) > 1:
        wanted = f"wanted it in the query or in {header.decode('ascii')}, once"
        raise BadRequest(f"more than one {name}: {wanted}", name)
    return decoded(values[0], header.decode("ascii")) if values else in_query


class _Lines:
    """The lines of a body, without those that are empty. They are taken a few at a time: there may be millions."""

    __slots__ = ("_body", "_start")

    def __init__(self, body: bytes) -> None:
        self._body = body.rstrip()
        self._start = 0

    @property
    def are_left(self) -> bool:
        """Whether there are any that were not taken."""
        return self._start < len(self._body)

    def take(self) -> list[bytes]:
        """Take as many as fit into one turn, also of empty ones."""
        body, start = self._body, self._start
        stop = min(start + _BYTES_PER_TURN, len(body))
        first = _something(body, start, stop)
        if first is None:
            self._start = stop
            return []
        start = first.start()
        lines = body[start:stop].split(b"\n", _LINES_PER_TURN)
        last = stop - len(lines[-1])
        if len(lines) > _LINES_PER_TURN:
            lines.pop()
            self._start = last
        else:
            end = body.find(b"\n", stop)
            end = len(body) if end < 0 else end
            lines[-1] = body[last:end]
            self._start = end + 1
        return [line for line in lines if line.strip()]


class PublishMany(Endpoint):
    """NDJSON in, NDJSON out: an answer for each line, in order, either what was published or an error.

    A line that is wrong changes nothing and does not stop the others. Empty lines are passed over. A long batch
    takes many turns of the reactor, so that the others go on and subscribers can take what was published.
    """

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {}

    def __init__(self, gate: Gate, publisher: Publisher, *, max_event_bytes: int, call_later: CallLater) -> None:
        """Publish with `publisher`, each event of up to `max_event_bytes`. `call_later` is the reactor's."""
        super().__init__(gate)
        self._publisher = publisher
        self._max_event_bytes = max_event_bytes
        self._call_later = call_later

    def render_POST(self, request: Request) -> int:
        """Publish every line; a short batch at once."""
        lines = _Lines(request.body())
        if not lines.are_left:
            raise BadRequest("the body is empty; wanted NDJSON, one event a line")
        publish = partial(self._publish_some, request.figures)
        batch = _Batch(request, lines, publish, self._call_later)
        publish(lines, request.caller, batch.begin)
        return NOT_DONE_YET

    def _publish_some(self, figures: Figures, lines: _Lines, caller: Caller, done: Callable[[bytes], None]) -> None:
        """Publish as many `lines` as fit into one turn; tell `done` the answers."""
        taken = lines.take()
        answers: list[Outcome | None] = [None] * len(taken)
        drafts, places, max_bytes = list[Draft](), list[int](), self._max_event_bytes
        for place, line in enumerate(taken):
            try:
                draft = parse_draft(parse_object(line))
                check_size(draft.data, max_bytes)
            except Refused as refused:
                answers[place] = refused
            else:
                drafts.append(draft)
                places.append(place)

        def published(outcomes: list[Outcome]) -> None:
            for place, outcome in zip(places, outcomes, strict=True):
                answers[place] = outcome
            _log_refused(answers, caller, figures)
            done(b"".join([json_line(_shown(one)) for one in answers if one is not None]))

        self._publisher.publish_all(drafts, caller, published)


def _log_refused(answers: Sequence[Outcome | None], caller: Caller, figures: Figures) -> None:
    """Log that lines were refused, and why the first of them was: there may be thousands. Count them."""
    refused = [outcome for outcome in answers if isinstance(outcome, Refused)]
    for outcome in refused:
        figures.refuse(outcome)
    if refused:
        _log.info(
            "refused {count} of {total} lines of a batch from {peer}, the first of them: {status} {detail}",
            count=len(refused),
            total=len(answers),
            peer=caller.name,
            status=refused[0].status,
            detail=refused[0].detail,
        )


@implementer(IPushProducer)
class _Batch:
    """A request whose lines are published a few at a time, as long as its client takes the answers."""

    def __init__(
        self,
        request: Request,
        lines: _Lines,
        publish: Callable[[_Lines, Caller, Callable[[bytes], None]], None],
        call_later: CallLater,
    ) -> None:
        """Have `publish` publish the `lines`, some of which it takes each time."""
        self._request = request
        self._lines = lines
        self._publish = publish
        self._call_later = call_later
        self._is_paused = True
        self._is_waiting = False

    def begin(self, answers: bytes) -> None:
        """Answer the first lines, and go on if there are more."""
        request = self._request
        if request.is_gone:
            return
        if not self._lines.are_left:
            answer_later(request, answer(request, answers, "application/x-ndjson"))
            return
        request.setHeader(b"content-type", b"application/x-ndjson")
        request.notifyFinish().addErrback(self.gone)
        request.registerProducer(self, True)
        request.write(answers)
        self.resumeProducing()

    def _turn(self) -> None:
        self._is_waiting = False
        if self._is_paused:
            return
        self._is_waiting = True
        self._publish(self._lines, self._request.caller, self._answered)

    def _answered(self, answers: bytes) -> None:
        self._is_waiting = False
        request = self._request
        if request.is_gone:
            return
        request.write(answers)
        if self._lines.are_left:
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
