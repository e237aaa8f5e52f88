"""Retryable rejections for ``EventSource``: a stream that sets ``retry`` and ends.

Browsers treat every status except 200 as final: after a 503, an ``EventSource`` never reconnects (WHATWG HTML,
section 9.2.2). After the end of a stream it reconnects, once its ``retry`` time is over.
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
"""The temporary refusals: a retry may succeed."""

_PATH = b"/sse"
_LONGEST_S = 60.0
"""The maximum of the exponential backoff, in seconds."""

_MOST_ADDRESSES = 4096
"""How many addresses are remembered; above that, the least recently refused is forgotten."""

_is_zero = re.compile(rb";[ \t]*q=0(?:\.0{0,3})?[ \t]*(?:;|$)", re.IGNORECASE).search


class EventSourceRetry:
    """Selects the rejected clients that get a stream, and computes their backoff with jitter."""

    def __init__(self, seconds: Callable[[], float], random: Callable[[], float] = random) -> None:
        """Use `seconds`, a monotonic clock, and `random`, which returns a number from 0 to 1."""
        self._seconds = seconds
        self._random = random
        self._refused: OrderedDict[str, tuple[float, float, float]] = OrderedDict()
        """By address: its wait, the time from which that wait doubles, and the time when the entry expires."""
        self.configure(2.0, 5.0)

    def configure(
        self, retry_s: float, spread_s: float, cors: Callable[[str], Sequence[Field]] = lambda origin: ()
    ) -> None:
        """Make clients wait at least `retry_s` plus a jitter of up to `spread_s` seconds.

        `cors` returns the CORS headers for an origin.
        """
        self._retry_s, self._spread_s, self.cors = retry_s, spread_s, cors

    def __len__(self) -> int:
        """Return the number of remembered addresses."""
        return len(self._refused)

    def is_for(
        self, refused: Refused, method: bytes, target: bytes, values: Callable[[bytes], Sequence[bytes]]
    ) -> bool:
        """Return whether a temporarily `refused` request was sent by a native ``EventSource``.

        An ``EventSource`` accepts event streams only, and the Fetch standard adds ``Cache-Control: no-cache`` for
        it, which ``fetch()`` does not send. Other clients get the true status. `values` returns a header's values.
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
        """Return the wait of a client at `address`, in seconds; it doubles with each rejected reconnect.

        Many clients may share an address: rejections before the first of them can reconnect count as one.
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
        """Called when a client at `address` is accepted; resets the backoff of that address."""
        if self._refused:
            self._refused.pop(limit_key(address) or address, None)


def _accepts_streams_only(accept: Sequence[bytes]) -> bool:
    """Return whether ``Accept`` lists event streams, and neither ``*/*`` nor problem documents."""
    ranges = {}
    for part in b",".join(accept).split(b","):
        ranges[part.partition(b";")[0].strip().lower()] = not _is_zero(part)
    if ranges.get(b"*/*") or ranges.get(b"application/problem+json"):
        return False
    return bool(ranges.get(b"text/event-stream", ranges.get(b"text/*")))
