"""Publishing one event over HTTP: the body of a request, to the channels in its path or query."""

from __future__ import annotations

import re
from functools import partial

from twisted.web.server import NOT_DONE_YET

from pushd.bus import Draft, Outcome, Publisher
from pushd.errors import BadRequest, Refused
from pushd.server import Request, answer_later, answer_problem, decoded, json_answer, parameter, path_of_event
from pushd.wire import check_size

__all__ = ["publish_one", "shown"]

_KEY = re.compile(rb"""([!#-+./-:A-Z^-z|~-]+)|"((?:[ !#-\[\]-~]|\\["\\])*)\"""")
"""A value of ``Idempotency-Key``: without quotes, or the content of the quotes."""


def shown(outcome: Outcome) -> dict[str, object]:
    """Return the outcome of publishing as a JSON object."""
    if isinstance(outcome, Refused):
        return {"error": outcome.problem()}
    members: dict[str, object] = {
        "id": outcome.id,
        "channel": outcome.channel,
        "offset": outcome.offset,
        "subscribers": outcome.subscribers,
    }
    if outcome.is_duplicate:
        members["duplicate"] = True
    return members


def publish_one(request: Request, publisher: Publisher, channels: tuple[str, ...], max_bytes: int) -> int:
    """Publish the body of `request`, whatever its content type, to `channels`.

    The optional ``event`` and ``id`` are query parameters or the headers ``Event-Type`` and ``Event-ID``. Without
    an id, ``Idempotency-Key`` is the id.
    """
    data = request.body()
    check_size(data, max_bytes)
    event_id = _option(request, "id", b"Event-ID")
    if event_id is None and request.requestHeaders.hasHeader(b"idempotency-key"):
        event_id = _idempotency_key(request)
    draft = Draft.checked(channels, data, type=_option(request, "event", b"Event-Type"), id=event_id)
    publisher.publish(draft, request.caller, partial(_answer_one, request))
    return NOT_DONE_YET


def _answer_one(request: Request, outcome: Outcome) -> None:
    if isinstance(outcome, Refused):
        if not request.is_gone:
            answer_later(request, answer_problem(request, outcome))
        return
    document = shown(outcome)
    request.setHeader(b"location", path_of_event(outcome.channel, outcome.id).encode("ascii"))
    if outcome.is_duplicate:
        request.setHeader(b"idempotent-replayed", b"true")
    answer_later(request, json_answer(request, document, status=200 if outcome.is_duplicate else 201))


def _option(request: Request, name: str, header: bytes) -> str | None:
    in_query = parameter(request, name) if request.args else None
    values = request.requestHeaders.getRawHeaders(header, [])
    if len(values) + (in_query is not None) > 1:
        expected = f"expected it in the query or in {header.decode('ascii')}, once"
        raise BadRequest(f"more than one {name}; {expected}", name)
    return decoded(values[0], header.decode("ascii")) if values else in_query


def _idempotency_key(request: Request) -> str:
    """Return the value of ``Idempotency-Key``: a string (RFC 9651, section 3.3.3), or the same without quotes."""
    values = request.requestHeaders.getRawHeaders(b"idempotency-key", [])
    found = _KEY.fullmatch(values[0]) if len(values) == 1 else None
    if found is None:
        raise BadRequest("Idempotency-Key is not a string; expected one, in double quotes", "Idempotency-Key")
    bare, quoted = found.groups()
    return str((bare or re.sub(rb"\\(.)", rb"\1", quoted)).decode("ascii"))
