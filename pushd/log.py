"""The log: where it goes, and from which level on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

from pushd.config.settings import Log
from pushd.loglines import Form, coloured, for_journal, json_text, plain

__all__ = ["Observer", "observer", "observer_for"]


class _Output(Protocol):
    def write(self, text: str) -> object:
        """Take text."""

    def flush(self) -> object:
        """Write it."""


@implementer(ILogObserver)
class Observer:
    """Writes the events of a level and above."""

    def __init__(self, output: _Output, form: Form, level: str) -> None:
        """Write to `output` what `form` makes of the events of `level` and above."""
        self._output = output
        self._form = form
        self._level = LogLevel.levelWithName(level)

    def begin_at(self, level: str) -> None:
        """Write the events of `level` and above from now on."""
        self._level = LogLevel.levelWithName(level)

    def __call__(self, event: LogEvent) -> None:
        """Write an event. See `ILogObserver`."""
        level = event.get("log_level")
        if level is None or level < self._level:
            return
        text = self._form(event)
        if not text:
            return
        try:
            self._output.write(text)
        except UnicodeEncodeError:  # standard output may be ASCII
            self._output.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        self._output.flush()


def observer() -> ILogObserver:
    """Answer an observer that writes to standard output, or error if only that is the journal.

    For ``twistd --logger=pushd.log.observer``; with ``twistd pushd``, the level and the format are those of the
    configuration.
    """
    return _standard("auto", "info", os.environ)


def observer_for(
    twistd_options: Mapping[str, Any], log: Log, call_from_thread: Callable[[Callable[[], object]], object]
) -> ILogObserver:
    """Answer an observer that writes where twistd's own options say: to a file, syslog or standard output.

    `call_from_thread` is the reactor's: the file is rotated at SIGUSR1, as twistd does.
    """
    if twistd_options.get("syslog"):
        return _syslog(twistd_options.get("prefix", ""), log.level)
    path, is_daemon = twistd_options.get("logfile") or "", not twistd_options.get("nodaemon")
    if path == "-" and is_daemon:
        raise SystemExit("Daemons cannot log to stdout, exiting!")
    if path in ("", "-") and not is_daemon:
        return _standard(log.format, log.level, os.environ)
    file = LogFile.fromFullPath(path or "twistd.log")
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda number, frame: call_from_thread(file.rotate))
    return Observer(file, json_text if log.format == "json" else plain, log.level)


def _syslog(prefix: str, level: str) -> ILogObserver:
    from twisted.python.syslog import SyslogObserver  # not on every system

    predicate = LogLevelFilterPredicate(defaultLogLevel=LogLevel.levelWithName(level))
    legacy: Any = SyslogObserver(prefix).emit
    filtered: ILogObserver = FilteringLogObserver(LegacyLogObserverWrapper(legacy), [predicate])
    return filtered


def _standard(form: str, level: str, environ: Mapping[str, str]) -> Observer:
    """Answer what writes to standard output, or to standard error if only that is the journal."""
    output = sys.stdout
    if form == "json":
        return Observer(output, json_text, level)
    if form == "auto":
        for stream in sys.stdout, sys.stderr:
            if _is_journal(stream, environ):
                return Observer(stream, for_journal, level)
    return Observer(output, coloured if _takes_colours(output, environ) else plain, level)


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether what is written there goes to journald as it is: see JOURNAL_STREAM in systemd.exec(5)."""
    said = environ.get("JOURNAL_STREAM")
    if not said:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):  # it is closed, or no file
        return False
    return said == f"{status.st_dev}:{status.st_ino}"


def _takes_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether colours are seen there, and wanted: see https://no-color.org."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
