"""The rate limit of the log: one line per second, client and cause, with the number of lines suppressed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic

from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from pushd.bus import limit_key, parse_ip

__all__ = ["FloodLimit"]

_MAX_KEYS = 1000
"""Maximum number of clients and causes distinguished in one second; all others count as one client."""

_EXEMPT = frozenset({"pushd.requests"})
"""Namespaces that are never suppressed: [log] requests asks for a line of each request."""

_OF_OPERATORS = frozenset({"pushd.daemon.service", "pushd.tap"})
"""Namespaces that log only at the start, a reload and the stop, then possibly many lines; not suppressed."""

_BURST_WITHOUT_CLIENT = 5
"""Maximum number of lines per second and cause that name no client; a client may still cause them."""

_BURSTS = {"pushd.sessions": 20}
"""Maximum number of lines per second and client by namespace, if more than one.

When an application closes several subscribers together, each close is logged.
"""

_SECOND_S = 0.95
"""Length of a second for this limit: timers are some milliseconds late, by a varying amount."""

_OTHERS = "others"
_NO_CLIENT = "no client"

_LONGEST = 500
"""Maximum length of a value, in characters: clients choose paths, methods and messages, which may be long."""

_MAX_REASONS = 8
"""Maximum number of reasons distinguished per second, client and kind of line; all others count as one."""

_REASON = re.compile(r"[A-Za-z ,-]{0,48}")
"""The part of a detail that is its reason: the words before a number or a quoted value from the client."""

_NOT_ACCEPTED = ("EMFILE ", "Re-reserving EMFILE ", "Could not accept ")
"""Prefixes of Twisted's lines about connections that it cannot accept without a file descriptor."""

_Key = tuple[str, str, str, str]
"""The namespace, the kind of line, the client and the reason."""


@dataclass(slots=True)
class _Seen:
    """The lines of one client and cause in the current second."""

    since_s: float
    written: int = 0
    left_out: int = 0
    latest: LogEvent | None = None
    """The latest suppressed event."""


class _Reasons:
    """The reasons of the current second, in bounded number: clients cannot make the set grow."""

    def __init__(self) -> None:
        self._since_s = 0.0
        self._known: dict[tuple[str, str, str], set[str]] = {}

    def bounded(self, key: _Key, now_s: float) -> _Key:
        """Return `key`, without its reason if there are too many."""
        if now_s - self._since_s >= _SECOND_S:
            self._since_s = now_s
            self._known.clear()
        without = key[:3]
        known = self._known.get(without)
        if known is None and len(self._known) < _MAX_KEYS:
            known = self._known[without] = set()
        if known is None or (len(known) >= _MAX_REASONS and key[3] not in known):
            return (*without, "")
        known.add(key[3])
        return key


@implementer(ILogObserver)
class FloodLimit:
    """Passes on log events, except those that a client causes repeatedly.

    The cause of an event is its format, its ``status``, and the first words of its ``detail``. The client is the
    address (of IPv6: the network) in its field ``peer``. A fault, which has a traceback, counts as one cause for
    all clients; so do all lines of Twisted about connections that it could not accept.
    """

    def __init__(
        self,
        write: Callable[[LogEvent], None],
        seconds: Callable[[], float] = monotonic,
        call_later: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """Pass events to `write`; `call_later` schedules a call in one second, in the thread of the reactor.

        Without `call_later`, the number of suppressed events is reported with the next event.
        """
        self._write = write
        self._seconds = seconds
        self.call_later = call_later
        self._seen: dict[_Key, _Seen] = {}
        self._reasons = _Reasons()
        self._is_called = False

    def __call__(self, event: LogEvent) -> None:
        """Write an event, or count it as suppressed."""
        event = _cut(event)
        key = _key(event)
        if key is None:
            self._write(event)
            return
        now_s = self._seconds()
        if key[3]:
            key = self._reasons.bounded(key, now_s)
        seen = self._seen.get(key)
        if seen is None and len(self._seen) >= _MAX_KEYS:
            self._forget(now_s)
            if len(self._seen) >= _MAX_KEYS:
                key = (key[0], key[1], _OTHERS, "")
                seen = self._seen.get(key)
        if seen is None or now_s - seen.since_s >= _SECOND_S:
            count = 0 if seen is None else seen.left_out
            event = _with_count(event, count)
            seen = self._seen[key] = _Seen(now_s)
        if seen.written < _burst(key):
            seen.written += 1
            self._write(event)
            return
        seen.left_out += 1
        seen.latest = event
        self._tell_later()

    def _tell_later(self) -> None:
        if self.call_later is not None and not self._is_called:
            self._is_called = True
            self.call_later(self._tell)

    def _tell(self) -> None:
        """Write the latest suppressed event of each client and cause, as its line of this second."""
        self._is_called = False
        now_s = self._seconds()
        for key, seen in list(self._seen.items()):
            if seen.latest is not None and now_s - seen.since_s >= _SECOND_S:
                count, latest = seen.left_out, seen.latest
                self._seen[key] = _Seen(now_s, written=_burst(key))
                self._write(_with_count(latest, count - 1))
        self._forget(now_s)
        if self._seen:
            self._tell_later()

    def _forget(self, now_s: float) -> None:
        """Remove clients and causes without an event for a second."""
        old = [key for key, seen in self._seen.items() if not seen.left_out and now_s - seen.since_s >= _SECOND_S]
        for key in old:
            del self._seen[key]


def _key(event: LogEvent) -> _Key | None:
    """Return the key that an event is counted by; None if it is never suppressed."""
    namespace = str(event.get("log_namespace", ""))
    if namespace in _EXEMPT:
        return None
    cause = str(event.get("log_format"))
    if cause.startswith(_NOT_ACCEPTED):
        return "twisted", "", "", ""
    if event.get("log_failure") is not None:
        return namespace, cause, "", ""
    peer = event.get("peer", event.get("url"))
    if peer is None and namespace in _OF_OPERATORS:
        return None
    client = _NO_CLIENT if peer is None else _client(str(peer))
    reason = _REASON.match(str(event.get("detail", event.get("log_text", ""))))
    return namespace, f"{cause} {event.get('status', '')}", client, reason[0] if reason else ""


def _burst(key: _Key) -> int:
    """Return the maximum number of lines per second for `key`."""
    if not key[2]:  # a fault, or a line of Twisted
        return 1
    return _BURST_WITHOUT_CLIENT if key[2] == _NO_CLIENT else _BURSTS.get(key[0], 1)


def _cut(event: LogEvent) -> LogEvent:
    """Return an event with long values shortened: a client must not fill the log with a few lines."""
    long = {
        name: f"{value[:_LONGEST]}... ({len(value)} characters)"
        for name, value in event.items()
        if isinstance(value, str) and len(value) > _LONGEST and not name.startswith("log_") and name != "line"
    }
    return {**event, **long} if long else event


@lru_cache(4096)
def _client(peer: str) -> str:
    """Return the client of a peer in the form used by the log: without port, an IPv6 address as its network."""
    name = peer.partition(" by way of ")[0]
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    try:
        address = str(parse_ip(name))
    except ValueError:
        return peer
    return limit_key(address) or address


def _with_count(event: LogEvent, count: int) -> LogEvent:
    if not count:
        return event
    text = event.get("log_format")
    return {**event, "log_format": f"{text}, and {{left_out}} more like this", "left_out": count}
