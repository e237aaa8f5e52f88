"""Refusals that an ``EventSource`` survives: a stream that says when to come back, and ends.

Browsers take any status but 200 as final: after a 503 an ``EventSource`` never connects again (WHATWG HTML,
section 9.2.2). After a stream that ends it does, once its ``retry`` is over.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from random import random

from pushd.bus import limit_key
from pushd.errors import NoRoom, Refused, TimedOut, TooMany, Unavailable
from pushd.wire import json_bytes, sse_block

__all__ = ["EventSourceRetry", "Field"]

Field = tuple[bytes, bytes]
"""The name of a header field, in lower case, and its value."""

_TEMPORARY = (Unavailable, TooMany, TimedOut, NoRoom)
"""What may be otherwise the next time."""

_PATH = b"/sse"
_LONGEST_S = 60.0
"""Up to which a client is told to wait twice as long each time."""

_MOST_ADDRESSES = 4096
"""How many addresses are remembered; of more, those that were refused longest ago are forgotten."""

_is_zero = re.compile(rb";[ \t]*q=0(?:\.0{0,3})?[ \t]*(?:;|$)", re.IGNORECASE).search


class EventSourceRetry:
    """Knows who has to be told to come back in a stream, and when."""

    def __init__(self, seconds: Callable[[], float], random: Callable[[], float] = random) -> None:
        """Remember who was refused when; `seconds` is a clock that never jumps."""
        self._seconds = seconds
        self._random = random
        self._refused: OrderedDict[str, tuple[float, float, float]] = OrderedDict()
        """By address: how long it is told to wait, from when on twice as long, and when it is forgotten."""
        self.configure(2.0, 5.0)

    def configure(
        self, retry_s: float, spread_s: float, cors: Callable[[str], Sequence[Field]] = lambda origin: ()
    ) -> None:
        """Have clients wait for `retry_s` and a random part of `spread_s` at least.

        `cors` returns the fields by which a page of an origin may read an answer.
        """
        self._retry_s, self._spread_s, self.cors = retry_s, spread_s, cors

    def __len__(self) -> int:
        """Count the addresses that are remembered."""
        return len(self._refused)

    def is_for(
        self, refused: Refused, method: bytes, target: bytes, values: Callable[[bytes], Sequence[bytes]]
    ) -> bool:
        """Return whether a request that is `refused` for now is that of a native ``EventSource``.

        That accepts nothing but event streams, and the Fetch standard adds ``Cache-Control: no-cache`` for it,
        which ``fetch()`` does not send. Other clients want the true status. `values` returns those of a header.
        """
        if not isinstance(refused, _TEMPORARY) or method != b"GET" or target.partition(b"?")[0] != _PATH:
            return False
        caching = b",".join(values(b"cache-control")).lower().split(b",")
        return b"no-cache" in map(bytes.strip, caching) and _accepts_streams_only(values(b"accept"))

    def answer(self, refused: Refused, address: str, request_id: str) -> tuple[list[Field], bytes]:
        """Return the header fields and the body of the stream, for a client at `address`."""
        retry_s = self._wait_s(address, refused.retry_s or 0.0) + self._random() * self._spread_s
        problem = {**refused.problem(), "retry_after": round(retry_s, 3), "request_id": request_id}
        closed = sse_block(json_bytes(problem).decode(), type="pushd.closed")
        body = b"retry: %d\n" % round(retry_s * 1000) + closed
        fields = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-store, no-transform"),
            (b"x-accel-buffering", b"no"),
            (b"pushd-status", b"%d" % refused.status),
            (b"x-request-id", request_id.encode("ascii")),
            (b"content-length", b"%d" % len(body)),
        ]
        return fields, body

    def _wait_s(self, address: str, least_s: float) -> float:
        """Return how long a client at `address` has to wait, twice as long for each time that it has come back.

        Many clients may have one address: what is refused before the first of them can be back counts as once.
        """
        now_s, key = self._seconds(), limit_key(address) or address
        wait_s, doubled_s, forgotten_s = self._refused.pop(key, (0.0, 0.0, 0.0))
        least_s = max(least_s, self._retry_s)
        if now_s >= forgotten_s:
            wait_s, doubled_s = least_s, now_s + least_s
        elif now_s >= doubled_s:
            wait_s = max(least_s, min(2 * wait_s, _LONGEST_S))
            doubled_s = now_s + wait_s
        else:
            wait_s = max(least_s, wait_s)
        self._refused[key] = wait_s, doubled_s, now_s + 2 * wait_s + 2 * self._spread_s
        if len(self._refused) > _MOST_ADDRESSES:
            self._refused.popitem(last=False)
        return wait_s

    def succeeded(self, address: str) -> None:
        """Forget that clients at `address` were refused: one was not."""
        if self._refused:
            self._refused.pop(limit_key(address) or address, None)


def _accepts_streams_only(accept: Sequence[bytes]) -> bool:
    """Return whether ``Accept`` has event streams, and neither ``*/*`` nor problem documents."""
    ranges = {}
    for part in b",".join(accept).split(b","):
        ranges[part.partition(b";")[0].strip().lower()] = not _is_zero(part)
    if ranges.get(b"*/*") or ranges.get(b"application/problem+json"):
        return False
    return bool(ranges.get(b"text/event-stream", ranges.get(b"text/*")))
