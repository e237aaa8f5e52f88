"""What keeps clients from filling the log: a line a second of each client and cause, and the number of the rest."""

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
"""How many clients and causes are told apart within a second; all others together count as one client."""

_EXEMPT = frozenset({"pushd.requests"})
"""The operator asked for a line of each request ([log] requests)."""

_OF_OPERATORS = frozenset({"pushd.daemon.service", "pushd.tap"})
"""What logs only at the start, at a reload and at the stop, and then possibly much."""

_BURST_OF_NOBODY = 5
"""How many lines of one cause are written in a second if they name no client: one may cause them all the same."""

_BURSTS = {"pushd.sessions": 20}
"""How many lines of one client are written in a second, if more than one.

The ends of subscribers that an application closes together are worth a line each.
"""

_SECOND_S = 0.95
"""What counts as a second: timers are late by some milliseconds, now more and now less."""

_OTHERS = "others"
_NOBODY = "nobody"

_LONGEST = 500
"""How many characters of a value are written: clients choose paths, methods and messages, which may be large."""

_MAX_REASONS = 8
"""How many reasons of one client and kind of line are told apart within a second; all others count as one."""

_REASON = re.compile(r"[A-Za-z ,-]{0,48}")
"""What is taken of a detail: the words before what the client sent, which is quoted, or a number."""

_NOT_ACCEPTED = ("EMFILE ", "Re-reserving EMFILE ", "Could not accept ")
"""How Twisted's lines begin about connections for which there is no file descriptor."""

_Key = tuple[str, str, str, str]
"""The namespace, the kind of line, the client and the reason."""


@dataclass(slots=True)
class _Seen:
    """What was logged of one client and cause in this second."""

    since_s: float
    written: int = 0
    left_out: int = 0
    latest: LogEvent | None = None
    """The latest event that was left out."""


class _Reasons:
    """Which reasons there were in this second: what a client sends does not make ever more of them."""

    def __init__(self) -> None:
        self._since_s = 0.0
        self._known: dict[tuple[str, str, str], set[str]] = {}

    def bounded(self, key: _Key, now_s: float) -> _Key:
        """Return `key`, without its reason if there were too many."""
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
    """Passes on the events of the log, except those that a client causes again and again.

    The cause of an event is its text before the values are put into it, its ``status``, and the first words of its
    ``detail``; the client is the address (of IPv6: the network) in its field ``peer``. A fault, which has a
    traceback, counts as one cause whoever the client is; so do all lines of Twisted about connections that it could
    not accept.
    """

    def __init__(
        self,
        write: Callable[[LogEvent], None],
        seconds: Callable[[], float] = monotonic,
        call_later: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """Pass events on to `write`; `call_later` makes a call in a second, in the thread of the reactor.

        Without `call_later`, the number of those that were left out comes with the next event.
        """
        self._write = write
        self._seconds = seconds
        self.call_later = call_later
        self._seen: dict[_Key, _Seen] = {}
        self._reasons = _Reasons()
        self._is_called = False

    def __call__(self, event: LogEvent) -> None:
        """Take an event: write it, or count it."""
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
        """Write the latest that was left out of each client and cause, as the line of this second."""
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
        """Forget those of which there was nothing for a second."""
        old = [key for key, seen in self._seen.items() if not seen.left_out and now_s - seen.since_s >= _SECOND_S]
        for key in old:
            del self._seen[key]


def _key(event: LogEvent) -> _Key | None:
    """Return what an event is counted by; None if it is written in any case."""
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
    client = _NOBODY if peer is None else _client(str(peer))
    reason = _REASON.match(str(event.get("detail", event.get("log_text", ""))))
    return namespace, f"{cause} {event.get('status', '')}", client, reason[0] if reason else ""


def _burst(key: _Key) -> int:
    """Return how many lines are written in a second of what is counted by `key`."""
    if not key[2]:  # a fault, or of Twisted
        return 1
    return _BURST_OF_NOBODY if key[2] == _NOBODY else _BURSTS.get(key[0], 1)


def _cut(event: LogEvent) -> LogEvent:
    """Return an event whose values are not longer than is read: a client must not fill the log with few lines."""
    long = {
        name: f"{value[:_LONGEST]}... ({len(value)} characters)"
        for name, value in event.items()
        if isinstance(value, str) and len(value) > _LONGEST and not name.startswith("log_") and name != "line"
    }
    return {**event, **long} if long else event


@lru_cache(4096)
def _client(peer: str) -> str:
    """Return which client a peer is, as it is called in the log: without its port, one of IPv6 by its network."""
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
