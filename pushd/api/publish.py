"""Publishing over HTTP: ``POST /publish``, a batch of events or, with ``?channel=``, one event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from sys import maxsize
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from pushd.api.batch_lines import Lines
from pushd.api.batch_tally import Tally
from pushd.api.names import named_channels
from pushd.api.publish_one import publish_one, shown
from pushd.bus import ClientInfo, Counters, Draft, Outcome, Publisher
from pushd.errors import BadRequest, Refused, TooLarge
from pushd.server import (
    Endpoint,
    Request,
    RequestGuard,
    Turns,
    answer,
    answer_later,
    answer_problem,
    unlogged_problem,
)
from pushd.wire import SHORT_BYTES, check_size, json_line, longest_message, parse_draft, parse_object

__all__ = ["PublishMany"]

_log = Logger()

_TURN_S = 0.003
"""Time to parse lines in one turn of the reactor, in seconds; publishing and replying take as long again."""

_BYTES_PER_LOOK, _BYTES_PER_LINE = 4096, 512
"""Bytes between two readings of the clock, and the bytes added per line: so it is read after 8 short lines."""

_LARGE_BYTES = 512 * 1024
"""The lines of a larger body are parsed in a later turn than the end of the body: joining it takes long."""

_CHANNELS_PER_TURN = 200
"""Maximum number of channels of all events of one turn: publishing takes time for each channel."""

_MAX_REFUSED = 100
"""Number of consecutive refused lines after which the rest of a batch is not read."""

_WRONG = frozenset({400, 401, 403, 413, 422})
"""Statuses of lines refused because of an error of the client, not because of a limit."""


class PublishMany(Endpoint):
    """NDJSON in, NDJSON out: a reply for each line, in order, with the published event or an error.

    The status is 200 if no line was refused and 207 if some were. If all were, it is the one that they share, or
    422, and of a single line, the body is a problem document. A batch that takes several turns is answered before
    all outcomes are known: with 207, and a summary as the last line.

    An invalid line changes nothing and does not stop the batch; `_MAX_REFUSED` in a row do. Empty lines are
    skipped. A long batch takes many turns of the reactor, so that other clients are served and subscribers keep up.

    With ``?channel=``, once or repeatedly, the body is the data of one event, as at ``/channels/{channel}``.
    """

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {"POST": frozenset({"channel", "event", "id"})}

    def __init__(
        self,
        guard: RequestGuard,
        publisher: Publisher,
        *,
        max_event_bytes: int,
        max_channels: int,
        turns: Turns,
        seconds: Callable[[], float],
    ) -> None:
        """Publish with `publisher`, each event of up to `max_event_bytes` to up to `max_channels`.

        All batches share the time of `turns`; `seconds` is a monotonic clock.
        """
        super().__init__(guard)
        self._publisher = publisher
        self._max_event_bytes = max_event_bytes
        self._max_channels = max_channels
        self._turns = turns
        self._seconds = seconds

    def body_limit(self, request: Request) -> int:
        """Override: limit one event to its maximum size, and a batch only as any body."""
        if request.method != b"POST":
            return super().body_limit(request)
        channels = named_channels(request, self._max_channels)
        if channels:
            for channel in channels:
                request.caller.grants.check_publish(channel)
            request.body_field = "data"
            return self._max_event_bytes
        request.caller.grants.check_publish_anywhere()
        return maxsize

    def render_POST(self, request: Request) -> int:
        """Publish every line; a short batch within this turn."""
        channels = named_channels(request, self._max_channels)
        if channels:
            return publish_one(request, self._publisher, channels, self._max_event_bytes)
        request.caller.grants.check_publish_anywhere()
        body = request.body(is_kept=True)
        lines = Lines(body, longest_message(self._max_event_bytes, self._max_channels))
        if not lines.are_left:
            raise _no_lines()
        bounds = self._max_event_bytes, self._max_channels
        reading = _Reading(request, self._publisher, lines, *bounds, self._seconds, self._turns)
        batch = _Batch(request, reading, partial(self.guard.readmit, request), self._turns)
        batch.begin(is_large=len(body) > _LARGE_BYTES)
        return NOT_DONE_YET


def _no_lines() -> BadRequest:
    return BadRequest("the body is empty; expected NDJSON, one event per line")


class _Reading:
    """Publishes the lines of one request, some of them in each turn of the reactor."""

    def __init__(
        self,
        request: Request,
        publisher: Publisher,
        lines: Lines,
        max_event_bytes: int,
        max_channels: int,
        seconds: Callable[[], float],
        turns: Turns,
    ) -> None:
        self._request = request
        self._publisher = publisher
        self._turns = turns
        self._max_event_bytes = max_event_bytes
        self._max_channels = max_channels
        self._longest = longest_message(max_event_bytes, max_channels)
        self._seconds = seconds
        self._row = 0
        """Number of consecutive refused lines, up to the last line read."""
        self.lines = lines
        """The remaining lines."""
        self.tally = Tally()
        """What became of the others."""

    def publish(self, refused: Refused | None, done: Callable[[bytes], None]) -> None:
        """Publish the lines of one turn, or refuse them all with `refused`; call `done` with the replies."""
        caller, lines = self._request.caller, self.lines
        taken = lines.take()
        try:
            caller.grants.check_publish_anywhere()
        except Refused as nowhere:
            refused = refused or nowhere
        answers: list[Outcome | None] = [None] * len(taken)
        drafts, places, row, channels = list[Draft](), list[int](), self._row, 0
        max_bytes, max_channels, longest = self._max_event_bytes, self._max_channels, self._longest
        until_s, unlooked = min(self._seconds() + _TURN_S, self._turns.until_s), 0
        for place, line in enumerate(taken):
            if (
                row >= _MAX_REFUSED
                or channels >= _CHANNELS_PER_TURN
                or (unlooked >= _BYTES_PER_LOOK and self._seconds() > until_s)
            ):
                lines.put_back(taken[place:])
                del answers[place:]
                break
            size = len(line)
            unlooked = size + _BYTES_PER_LINE + (unlooked if unlooked < _BYTES_PER_LOOK else 0)
            try:
                if refused is not None:
                    raise refused
                if size > longest:
                    raise TooLarge(f"a line of more than {longest} bytes; [limits] event_size is {max_bytes}")
                draft = parse_draft(
                    parse_object(line, max_bytes if size > SHORT_BYTES else None, max_channels), max_channels
                )
                if size * 3 > max_bytes:  # fast path: the data of a short line needs no check
                    check_size(draft.data, max_bytes, is_text=draft.is_text)
            except Refused as wrong:
                answers[place] = wrong.outcome()
                row += 1
            else:
                drafts.append(draft)
                places.append(place)
                if draft.channels[1:]:  # events of one channel are limited by the lines per turn
                    channels += len(draft.channels)
                row = 0

        def published(outcomes: list[Outcome]) -> None:
            for place, outcome in zip(places, outcomes, strict=True):
                answers[place] = outcome
            self._answered(answers, done)

        self._publisher.publish_all(drafts, caller, published)

    def _answered(self, outcomes: Sequence[Outcome | None], done: Callable[[bytes], None]) -> None:
        """Call `done` with the replies; drop the rest of the batch after `_MAX_REFUSED` client errors in a row."""
        answers = [json_line(shown(one)) for one in outcomes if one is not None]
        refused = [one for one in outcomes if isinstance(one, Refused)]
        self.tally.count(outcomes, refused)
        if not refused:
            self._row = 0
            done(b"".join(answers))
            return
        for one in outcomes:
            self._row = self._row + 1 if isinstance(one, Refused) and one.status in _WRONG else 0
        if self._row >= _MAX_REFUSED and self.lines.are_left:
            self.lines.drop()
            detail = f"{self._row} lines in a row were refused; the lines after them were not read"
            refused.append(BadRequest(detail))
            self.tally.count((), refused[-1:])
            answers.append(json_line(shown(refused[-1])))
        _log_refused(refused, len(outcomes), self._request.caller, self._request.counters)
        done(b"".join(answers))


def _log_refused(refused: Sequence[Refused], count: int, caller: ClientInfo, counters: Counters) -> None:
    """Count the refused lines, and log their number among `count` and the reason of the first."""
    for outcome in refused:
        counters.refuse(outcome)
    _log.info(
        "refused {count} of {total} lines of a batch from {peer}, the first of them: {status} {detail}",
        count=len(refused),
        total=count,
        peer=caller.name,
        status=refused[0].status,
        detail=refused[0].detail,
    )


@implementer(IPushProducer)
class _Batch:
    """A request whose lines are published a few per turn, while its client reads the replies.

    The grants of the client are checked again in each turn: its token may have expired, or the configuration may
    have changed.
    """

    def __init__(
        self,
        request: Request,
        reading: _Reading,
        readmit: Callable[[], Deferred[None] | None],
        turns: Turns,
    ) -> None:
        """Publish the lines of `reading`; `readmit` checks the client's grants again."""
        self._request = request
        self._reading = reading
        self._readmit = readmit
        self._turns = turns
        self._has_begun = False
        """True once the response has started."""
        self._is_paused = False
        self._is_waiting = True

    def begin(self, *, is_large: bool) -> None:
        """Publish the first lines, now if this turn has time; those of a large batch, in a later turn."""
        self._turns.begin()
        if is_large:  # a call scheduled during a read runs in the same turn
            self._turns.later(self._later, self._abort)
        elif not self._turns.may_go_on():
            self._later()
        else:
            self._reading.publish(None, self._answered)
            self._turns.may_go_on()  # the next work of this turn gets the rest of its time

    def _later(self) -> None:
        self._turns.later(self._turn, self._abort)

    def _abort(self) -> None:
        if not self._request.is_gone:
            self._request.connection.abort()

    def _turn(self) -> None:
        self._is_waiting = False
        if self._is_paused or self._request.is_gone:
            return
        self._is_waiting = True
        try:
            waiting = self._readmit()
        except Refused as refused:
            self._publish(refused)
            return
        if waiting is None:
            self._publish(None)
        else:
            waiting.addCallbacks(lambda _: None, _refusal_of).addCallback(self._reading.publish, self._answered)
            waiting.addErrback(self._failed)

    def _publish(self, refused: Refused | None) -> None:
        """Publish the next lines; if memory is exhausted, respond 503."""
        try:
            self._reading.publish(refused, self._answered)
        except MemoryError:
            self._failed(Failure())

    def _failed(self, failure: Failure) -> None:
        if not self._request.is_gone:
            self._request.processingFailed(failure)

    def _answered(self, answers: bytes) -> None:
        self._is_waiting = False
        request, are_left = self._request, self._reading.lines.are_left
        if request.is_gone:
            return
        if are_left and not (answers or self._has_begun):
            self._wait()  # only white space so far
        elif are_left:
            self._write(answers)
            self._wait()
        elif self._has_begun:
            request.write(answers + self._reading.tally.summary)
            self._is_paused = True
            request.unregisterProducer()
            request.finish()
        elif answers:
            answer_later(request, self._answer_all(answers))
        else:
            answer_later(request, answer_problem(request, _no_lines()))

    def _answer_all(self, answers: bytes) -> bytes:
        """Return the response to a request all of whose outcomes are known."""
        request, tally = self._request, self._reading.tally
        status, refusal = 207 if tally.refused else 200, tally.refusal
        if refusal is not None:
            problem = unlogged_problem(request, refusal)  # each line is counted and logged already
            if tally.refused == 1:
                return problem
            status = refusal.status
        if tally.refused:
            request.setHeader(b"publish-refused", b"%d" % tally.refused)
        return answer(request, answers, "application/x-ndjson", status)

    def _write(self, answers: bytes) -> None:
        """Write `answers`, but not the last ones."""
        request = self._request
        if not self._has_begun:
            self._has_begun = True
            request.setResponseCode(207)  # the other outcomes are not known yet
            request.setHeader(b"content-type", b"application/x-ndjson")
            request.setHeader(b"cache-control", b"no-store")
            request.notifyFinish().addErrback(self.gone)
            request.registerProducer(self, True)
        request.write(answers)

    def _wait(self) -> None:
        if not self._is_paused and not self._is_waiting:
            self._is_waiting = True
            self._later()

    def pauseProducing(self) -> None:
        """Called when the client does not read the replies: pause."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Called when the client reads the replies again: resume."""
        self._is_paused = False
        self._wait()

    def stopProducing(self) -> None:
        """Called when the client has disconnected: stop. Published events stay published."""
        self._is_paused = True

    def gone(self, reason: Failure) -> None:
        """Called when the client has disconnected."""
        self.stopProducing()


def _refusal_of(failure: Failure) -> Refused:
    """Return the reason why a client is no longer admitted; raise any other exception."""
    failure.trap(Refused)
    refused = failure.value
    assert isinstance(refused, Refused)
    return refused
