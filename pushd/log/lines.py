"""Line formats of log events: text, journal and JSON.

One event is one line, whatever clients send: nonprintable characters are escaped. Only the traceback of a fault has
further lines, each starting with a tab, or in the journal with a priority and a tab.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from math import isfinite

from twisted.logger import LogEvent, LogLevel, formatEvent, formatTime
from twisted.python.failure import Failure

from pushd.errors import one_line
from pushd.wire import json_bytes

__all__ = ["Form", "coloured", "for_journal", "json_text", "plain"]

Form = Callable[[LogEvent], str]
"""Formats an event, with line endings; returns an empty string if it has no text."""

_PRIORITIES = {LogLevel.debug: 7, LogLevel.info: 6, LogLevel.warn: 4, LogLevel.error: 3, LogLevel.critical: 2}
"""The priorities of sd-daemon(3)."""

_COLOURS = {LogLevel.debug: "2", LogLevel.warn: "33", LogLevel.error: "31", LogLevel.critical: "1;31"}
"""SGR parameters (ECMA-48, section 8.3.117) of the levels that are highlighted."""

_MAX_TRACEBACK_LINES = 200
"""Maximum number of lines of a traceback: that of a recursion has thousands."""

_LONGEST_TRACEBACK_LINE = 500
"""Maximum length of such a line, in characters: the text of an exception may quote a client."""


def plain(event: LogEvent) -> str:
    """Return a line of text with time, logger and level."""
    return _text(event, "{head} {message}")


def coloured(event: LogEvent) -> str:
    """Return the line of `plain` for a terminal: the head is dim, and warnings and errors have a colour."""
    colour = _COLOURS.get(event.get("log_level"))
    return _text(event, "\x1b[2m{head}\x1b[0m " + (f"\x1b[{colour}m{{message}}\x1b[0m" if colour else "{message}"))


def _text(event: LogEvent, form: str) -> str:
    message, rest = _parts(event)
    if not message and not rest:
        return ""
    level = event.get("log_level")
    name = "-" if level is None else level.name
    head = f"{formatTime(event.get('log_time'))} [{one_line(_logger(event))}#{name}]"
    first = form.replace("{head}", head).replace("{message}", message, 1)
    return "\n\t".join([first, *rest]) + "\n"


def for_journal(event: LogEvent) -> str:
    """Return lines with priorities (sd-daemon(3)), without the time and daemon name, which journald adds."""
    message, rest = _parts(event)
    if not message and not rest:
        return ""
    priority = _PRIORITIES.get(event.get("log_level"), 6)
    origin = "" if _is_own(event) else f"[{one_line(_logger(event))}] "
    return "".join(f"<{priority}>{line}\n" for line in [origin + message, *(f"\t{line}" for line in rest)])


def json_text(event: LogEvent) -> str:
    """Return a JSON object on one line; for pushd's own events, it has all fields with plain values."""
    message, rest = _parts(event)
    if not message and not rest:
        return ""
    level = event.get("log_level")
    head: dict[str, object] = {
        "time": datetime.fromtimestamp(event.get("log_time", 0.0), UTC).isoformat(timespec="microseconds"),
        "level": None if level is None else level.name,
        "logger": _logger(event),
        "message": message,
    }
    fields = _fields(event) if _is_own(event) else {}
    traceback = {"traceback": "\n".join(rest)} if rest else {}
    text = json_bytes({**head, **fields, **traceback, **head}).decode()
    return (text if text.isprintable() else "".join(map(_in_json, text))) + "\n"


def _in_json(character: str) -> str:
    """Return `character`, escaped if it is nonprintable or ends a line for some readers (U+2028)."""
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _fields(event: LogEvent) -> dict[str, object]:
    omitted = {"time", "format", "system", "isError"}
    if event.get("log_format") == "{line}":
        omitted.add("line")  # equals the message
    return {
        name: value
        for name, value in event.items()
        if not name.startswith("log_") and _is_plain(value) and name not in omitted
    }


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and isfinite(value))


def _is_own(event: LogEvent) -> bool:
    return _logger(event).partition(".")[0] == "pushd"


def _logger(event: LogEvent) -> str:
    return str(event.get("log_namespace", "-"))


def _parts(event: LogEvent) -> tuple[str, list[str]]:
    """Return the message, as one line, and the lines of the traceback of a fault."""
    failure = event.get("log_failure")
    rest = _traceback(failure).splitlines() if isinstance(failure, Failure) else []
    if len(rest) > _MAX_TRACEBACK_LINES:
        half = _MAX_TRACEBACK_LINES // 2
        rest = [*rest[:half], f"... ({len(rest) - 2 * half} lines)", *rest[-half:]]
    return one_line(formatEvent(event)), [one_line(line[:_LONGEST_TRACEBACK_LINE]) for line in rest]


def _traceback(failure: Failure) -> str:
    try:
        return failure.getTraceback()
    except Exception as error:  # noqa: BLE001  the exception may have a __str__ that raises
        return f"{failure.type}: no traceback can be had: {type(error).__name__}"
