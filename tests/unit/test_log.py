"""The log: twistd's own, without the lines below a level. Pins what pushd.log relies on in twistd."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.application.service import Application
from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.python.log import textFromEventDict
from twisted.python.logfile import LogFile
from twisted.python.syslog import SyslogObserver
from twisted.scripts import _twistd_unix
from twisted.trial.unittest import SynchronousTestCase

from pushd.log import leveled_observer
from twisted import logger

LEVELS = ("debug", "info", "warn", "error", "critical")


def forgive_log_files(case: SynchronousTestCase) -> None:
    """Undo at the end of `case` what twistd does for the rest of its life when it logs to a file."""
    original = LogFile.fromFullPath

    def from_full_path(path: str) -> LogFile:
        file: LogFile = original(path)
        case.addCleanup(file.close)
        return file

    case.patch(LogFile, "fromFullPath", from_full_path)
    case.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))


class LogCase(SynchronousTestCase):
    def setUp(self) -> None:
        forgive_log_files(self)
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "pushd.log"
        self.stdout = io.StringIO()
        self.patch(sys, "stdout", self.stdout)
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))

    def written(self, twistd_options: dict[str, Any], level: str) -> None:
        """Log one line of each level."""
        here = Logger("here", observer=leveled_observer(twistd_options, level))
        for each in LEVELS:
            here.emit(LogLevel.levelWithName(each), "a line of {each}", each=each)

    def assertLines(self, text: str, *levels: str) -> None:
        found = [line.rpartition(" ")[2] for line in text.splitlines()]
        self.assertEqual(found, list(levels), text)


class LevelTests(LogCase):
    def test_the_lines_of_the_level_and_above_are_written(self) -> None:
        for place, level in enumerate(LEVELS):
            self.stdout.truncate(self.stdout.seek(0))
            self.written({"nodaemon": True}, level)
            self.assertLines(self.stdout.getvalue(), *LEVELS[place:])

    def test_it_is_an_observer_of_the_new_kind(self) -> None:
        self.assertTrue(ILogObserver.providedBy(leveled_observer({"nodaemon": True}, "info")))

    def test_the_level_counts_for_every_namespace(self) -> None:
        observer = leveled_observer({"nodaemon": True}, "warn")
        for namespace in ("pushd.site", "twisted", "pushd"):
            Logger(namespace, observer=observer).info("no")
            Logger(namespace, observer=observer).warn("a line of {here!r}", here=namespace)
        self.assertLines(self.stdout.getvalue(), "'pushd.site'", "'twisted'", "'pushd'")


class PlaceTests(LogCase):
    def test_in_the_foreground_it_goes_to_standard_output(self) -> None:
        for logfile in (None, "", "-"):
            self.stdout.truncate(self.stdout.seek(0))
            self.written({"nodaemon": True, "logfile": logfile}, "error")
            self.assertLines(self.stdout.getvalue(), "error", "critical")

    def test_it_goes_to_the_file_that_twistd_was_told(self) -> None:
        for nodaemon in (True, False):
            self.written({"nodaemon": nodaemon, "logfile": str(self.path)}, "error")
            self.assertLines(self.path.read_text(), *["error", "critical"] * (2 - nodaemon))
        self.assertEqual(self.stdout.getvalue(), "")

    def test_it_goes_to_syslog_with_the_prefix_that_twistd_was_told(self) -> None:
        opened: list[object] = []
        lines: list[str] = []
        self.patch(SyslogObserver, "openlog", lambda observer, prefix, options, facility: opened.append(prefix))
        self.patch(SyslogObserver, "syslog", lambda observer, priority, line: lines.append(line))
        self.written({"syslog": True, "prefix": "pushd", "logfile": str(self.path)}, "warn")
        self.assertEqual(opened, ["pushd"])
        self.assertLines("\n".join(lines), "warn", "error", "critical")
        self.assertFalse(self.path.exists())

    def test_a_daemon_that_is_told_to_log_to_standard_output_does_not_start(self) -> None:
        error = self.assertRaises(SystemExit, leveled_observer, {"nodaemon": False, "logfile": "-"}, "info")
        self.assertIn("cannot log to stdout", str(error))


class ReliedOnTests(LogCase):
    """What pushd.log takes for granted of twistd. If one of these fails, look at pushd/log.py."""

    def test_the_logger_of_twistd_makes_an_observer_from_its_options(self) -> None:
        made = _twistd_unix.UnixAppLogger({"nodaemon": True, "logfile": "-"})
        self.assertTrue(ILogObserver.providedBy(made._getLogObserver()))

    def test_it_is_the_one_that_twistd_uses(self) -> None:
        self.assertIs(_twistd_unix.UnixApplicationRunner.loggerFactory, _twistd_unix.UnixAppLogger)

    def test_for_syslog_it_is_of_the_old_kind(self) -> None:
        self.patch(SyslogObserver, "openlog", lambda *_: None)
        lines: list[str | None] = []
        self.patch(SyslogObserver, "emit", lambda observer, event: lines.append(textFromEventDict(event)))
        made = _twistd_unix.UnixAppLogger({"syslog": True})
        self.assertFalse(ILogObserver.providedBy(made._getLogObserver()))
        self.written({"syslog": True}, "critical")
        self.assertEqual(lines, ["a line of critical"])

    def test_its_options_are_those_that_twistd_has(self) -> None:
        options = _twistd_unix.ServerOptions()
        for name in ("nodaemon", "logfile", "syslog", "prefix", "pidfile"):
            self.assertIn(name, options)

    def test_twistd_logs_to_the_observer_of_the_application(self) -> None:
        begun: list[object] = []

        class Beginner:
            """Stands for the global log, which this must not change."""

            def beginLoggingTo(self, observers: list[object]) -> None:
                """Write down where it would begin to log."""
                begun.extend(observers)

        self.patch(logger, "globalLogBeginner", Beginner())
        application = Application("pushd")
        observer = leveled_observer({"nodaemon": True}, "info")
        application.setComponent(ILogObserver, observer)
        _twistd_unix.UnixAppLogger({"nodaemon": True, "logfile": str(self.path)}).start(application)
        self.assertEqual(begun, [observer])
        self.assertFalse(self.path.exists())
