"""Log observers: the destination of the log, its format and its level."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from glob import escape, iglob
from io import FileIO
from typing import Any, Protocol, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
)
from zope.interface import implementer

from pushd.config import Log
from pushd.log.flood_limit import FloodLimit
from pushd.log.lines import Form, coloured, for_journal, json_text, plain

__all__ = ["LogFile", "Observer", "observer", "observer_for"]

_log = Logger()

_STARTING = re.compile(r"\S+( \(TLS\))? starting on \S+").fullmatch


class _Output(Protocol):
    def write(self, text: str) -> object:
        """Write `text`, possibly to a buffer."""

    def flush(self) -> object:
        """Write the buffer."""


@implementer(ILogObserver)
class Observer:
    """Writes events of a level and above."""

    def __init__(self, output: _Output, form: Form, level: str, *, is_for_people: bool = False) -> None:
        """Write events of `level` and above to `output`, formatted by `form`.

        `is_for_people`: whether somebody is likely to read the log as it is written.
        """
        self.is_for_people = is_for_people
        self.reopen: Callable[[], object] = lambda: None
        """Reopens the log file, if there is one and it was rotated."""
        self._output = output
        self._form = form
        self._level = LogLevel.levelWithName(level)
        self.floodgate = FloodLimit(self._write)
        """The rate limit of the log."""

    def begin_at(self, level: str) -> None:
        """Set the level: write further events of `level` and above."""
        self._level = LogLevel.levelWithName(level)

    def __call__(self, event: LogEvent) -> None:
        """Write an event unless it is below the level or over the rate limit. See `ILogObserver`."""
        level = event.get("log_level")
        if level is not None and level >= self._level and not _is_said_twice(event):
            self.floodgate(event)

    def _write(self, event: LogEvent) -> None:
        text = self._form(event)
        if not text:
            return
        try:
            self._output.write(text)
        except UnicodeEncodeError:  # standard output may be ASCII
            self._output.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        self._output.flush()


def _is_said_twice(event: LogEvent) -> bool:
    """Return whether it is Twisted's line about a new port, which pushd logs itself."""
    return event.get("log_namespace") == "log_legacy" and _STARTING(event.get("log_text") or "") is not None


@implementer(ILogFilterPredicate)
class _Once:
    """Filters out lines that pushd logs itself."""

    def __call__(self, event: LogEvent) -> Any:
        """Return whether the event is logged. See `ILogFilterPredicate`."""
        return PredicateResult.no if _is_said_twice(event) else PredicateResult.maybe


class LogFile:
    """A log file that other programs may rotate.

    It is opened for appending, so that it has no hole after truncation (``copytruncate`` of logrotate).
    """

    def __init__(self, path: str) -> None:
        """Open or create the file at `path`."""
        self._path = os.path.abspath(path)
        self._file = self._opened()

    def _opened(self) -> FileIO:
        return open(self._path, "ab", buffering=0)

    def write(self, text: str) -> None:
        """Append `text`."""
        self._file.write(text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def reopen(self) -> bool:
        """Reopen the path if the file was moved or removed; return whether it was."""
        try:
            if os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path)):
                return False
        except OSError:
            pass
        try:
            file = self._opened()
        except OSError as error:
            _log.error("{path}: cannot be opened: {reason}", path=self._path, reason=error.strerror)
            return True
        self._file, before = file, self._file
        before.close()
        return True

    def rotate(self) -> None:
        """Called at SIGUSR1: reopen the path. If the file is still there, it is renamed to ``.1`` first."""
        if self.reopen():
            return
        endings = (path.removeprefix(f"{self._path}.") for path in iglob(f"{escape(self._path)}.*"))
        numbers = sorted(int(ending) for ending in endings if ending.isdecimal())
        try:
            for number in reversed(numbers):
                os.rename(f"{self._path}.{number}", f"{self._path}.{number + 1}")
            os.rename(self._path, f"{self._path}.1")
        except OSError as error:
            _log.error("{path}: cannot be renamed: {reason}", path=self._path, reason=error.strerror)
        self.reopen()


def observer() -> ILogObserver:
    """Return an observer that writes to standard output, or to standard error if only that is the journal.

    For ``twistd --logger=pushd.log.observer``; ``twistd pushd`` uses the level and format of the configuration.
    """
    return _standard("auto", "info", os.environ)


def observer_for(
    twistd_options: Mapping[str, Any], log: Log, call_from_thread: Callable[[Callable[[], object]], object]
) -> ILogObserver:
    """Return an observer for the destination set by twistd's options: a file, syslog or standard output.

    `call_from_thread` is the reactor's: the file is rotated at SIGUSR1, as twistd does.
    """
    if twistd_options.get("syslog"):
        return _syslog(twistd_options.get("prefix", ""), log.level)
    path, is_daemon = twistd_options.get("logfile") or "", not twistd_options.get("nodaemon")
    if path == "-" and is_daemon:
        raise SystemExit("Daemons cannot log to stdout, exiting!")
    if path in ("", "-") and not is_daemon:
        return _standard(log.format, log.level, os.environ)
    file = LogFile(path or "twistd.log")
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda number, frame: call_from_thread(file.rotate))
    observer = Observer(file, json_text if log.format == "json" else plain, log.level)
    observer.reopen = file.reopen
    return observer


def _syslog(prefix: str, level: str) -> ILogObserver:
    from twisted.python.syslog import SyslogObserver  # the module does not exist on every system

    predicate = LogLevelFilterPredicate(defaultLogLevel=LogLevel.levelWithName(level))
    legacy: Any = SyslogObserver(prefix).emit
    filtered: ILogObserver = FilteringLogObserver(LegacyLogObserverWrapper(legacy), [_Once(), predicate])
    return FloodLimit(filtered)


def _standard(form: str, level: str, environ: Mapping[str, str]) -> Observer:
    """Return an observer for standard output, or for standard error if only that is the journal."""
    output = sys.stdout
    if form == "json":
        return Observer(output, json_text, level)
    if form == "auto":
        for stream in sys.stdout, sys.stderr:
            if _is_journal(stream, environ):
                return Observer(stream, for_journal, level)
    form_of_text = coloured if _takes_colours(output, environ) else plain
    return Observer(output, form_of_text, level, is_for_people=True)


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether `stream` goes directly to journald: see JOURNAL_STREAM in systemd.exec(5)."""
    said = environ.get("JOURNAL_STREAM")
    if not said:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):  # the stream is closed, or is not a file
        return False
    return said == f"{status.st_dev}:{status.st_ino}"


def _takes_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether `stream` shows colours and they are not disabled: see https://no-color.org."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
