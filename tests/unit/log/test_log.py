"""The log: where it goes, from which level on, and how its lines look."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.application.service import Application
from twisted.logger import ILogObserver, LogBeginner, Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.python.syslog import SyslogObserver
from twisted.scripts import _twistd_unix
from twisted.trial.unittest import SynchronousTestCase

from pushd.config.settings import Log
from pushd.log.lines import plain
from pushd.log.observers import LogFile, Observer, observer, observer_for
from twisted import logger

ESCAPE = "\x1b"
LEVELS = ("debug", "info", "warn", "error", "critical")


def forgive_log_files(case: SynchronousTestCase) -> None:
    """Undo at the end of `case` what twistd does for the rest of its life when it logs to a file."""
    original = LogFile.__init__

    def init(file: LogFile, path: str) -> None:
        original(file, path)
        case.addCleanup(file.close)

    case.patch(LogFile, "__init__", init)
    case.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))


def observing(twistd_options: dict[str, Any], level: str = "info", form: str = "auto") -> ILogObserver:
    """Return the observer for options of twistd and of ``[log]``."""
    return observer_for(twistd_options, Log(level, form, False), lambda call: None)


class LogCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(os, "environ", {"TERM": "xterm"})
        forgive_log_files(self)
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "pushd.log"
        self.stdout = io.StringIO()
        self.patch(sys, "stdout", self.stdout)

    def written(self, twistd_options: dict[str, Any], level: str) -> None:
        """Log one line of each level."""
        here = Logger("here", observer=observing(twistd_options, level))
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
        self.assertTrue(ILogObserver.providedBy(observing({"nodaemon": True})))

    def test_the_level_counts_for_every_namespace(self) -> None:
        observer = observing({"nodaemon": True}, "warn")
        for namespace in ("pushd.server.web.site", "twisted", "pushd"):
            Logger(namespace, observer=observer).info("no")
            Logger(namespace, observer=observer).warn("a line of {here!r}", here=namespace)
        self.assertLines(self.stdout.getvalue(), "'pushd.server.web.site'", "'twisted'", "'pushd'")


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
        error = self.assertRaises(SystemExit, observing, {"nodaemon": False, "logfile": "-"})
        self.assertIn("cannot log to stdout", str(error))


class FileTests(LogCase):
    def test_a_file_is_rotated_at_sigusr1_in_a_turn_of_the_reactor(self) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        calls: list[Callable[[], object]] = []
        here = Logger(
            "here", observer=observer_for({"logfile": str(self.path)}, Log("info", "auto", False), calls.append)
        )
        here.info("before")
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual(len(calls), 1)
        calls[0]()
        here.info("after")
        self.assertIn("before", self.path.with_name("pushd.log.1").read_text())
        self.assertRegex(self.path.read_text(), r"\A\S+ \[here#info\] after\n\Z")

    def file(self) -> LogFile:
        """Return the log file, with a line in it."""
        file = LogFile(str(self.path))
        file.write("one\n")
        return file

    def test_at_sigusr1_a_file_that_was_moved_away_is_left_and_the_path_is_opened(self) -> None:
        moved = self.path.with_name("pushd.log-20261130")
        for is_there in (False, True):
            file = self.file()
            self.path.rename(moved)
            if is_there:
                self.path.touch()
            file.write("two\n")
            file.rotate()
            file.write("three\n")
            self.assertEqual((moved.read_text(), self.path.read_text()), ("one\ntwo\n", "three\n"))
            self.assertEqual(sorted(os.listdir(self.path.parent)), ["pushd.log", "pushd.log-20261130"])
            self.path.unlink()

    def test_otherwise_it_is_rotated_and_so_are_the_older_ones(self) -> None:
        file = self.file()
        for number in range(2, 12):
            file.rotate()
            file.write(f"{number}\n")
        older = [self.path.with_name(f"pushd.log.{number}").read_text() for number in range(1, 11)]
        self.assertEqual((self.path.read_text(), older), ("11\n", [*(f"{n}\n" for n in range(10, 1, -1)), "one\n"]))

    def test_a_file_that_was_truncated_has_no_hole(self) -> None:
        file = self.file()
        os.truncate(self.path, 0)
        file.write("two\n")
        self.assertEqual(self.path.read_bytes(), b"two\n")

    def test_if_the_path_cannot_be_opened_the_old_file_goes_on(self) -> None:
        file = self.file()
        moved = self.path.with_name("moved")
        self.path.rename(moved)
        self.path.mkdir()
        with logger.capturedLogs() as events:
            file.rotate()
        self.assertIn("cannot be opened: Is a directory", str(logger.formatEvent(events[0])))
        file.write("two\n")
        self.assertEqual(moved.read_text(), "one\ntwo\n")

    def test_it_does_not_rotate_by_itself(self) -> None:
        file = self.file()
        file.write("x" * 3_000_000)
        file.write("x")
        self.assertEqual(os.listdir(self.path.parent), ["pushd.log"])

    def test_what_twistd_says_of_ports_is_left_out(self) -> None:
        here = Logger("log_legacy", observer=observing({"logfile": str(self.path)}))
        for text in ("PushdSite starting on 8080", "PushdSite (TLS) starting on 8443", "Site starting on '/run/s'"):
            here.info("{log_text}", log_text=text)
        here.info("{log_text}", log_text="(TCP Port 8080 Closed)")
        Logger("here", observer=observing({"logfile": str(self.path)})).info("I am starting on time")
        self.assertEqual(
            [line.split("] ")[1] for line in self.path.read_text().splitlines()],
            ["(TCP Port 8080 Closed)", "I am starting on time"],
        )

    def test_who_obeys_that_signal_already_goes_on(self) -> None:
        before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        observing({"logfile": str(self.path)})
        self.assertEqual(signal.getsignal(signal.SIGUSR1), signal.SIG_IGN)

    def test_it_has_no_colours_and_no_priorities(self) -> None:
        os.environ["JOURNAL_STREAM"] = "1:1"
        Logger("here", observer=observing({"nodaemon": True, "logfile": str(self.path)})).error("oh")
        self.assertRegex(self.path.read_text(), r"\A[-0-9]+T[0-9:]+[+-]\d{4} \[here#error\] oh\n\Z")


class LevelChangeTests(LogCase):
    def test_the_level_can_be_another_while_it_runs(self) -> None:
        output = io.StringIO()
        it = Observer(output, plain, "warn")
        here = Logger("here", observer=it)
        here.info("no")
        it.begin_at("debug")
        here.debug("yes")
        it.begin_at("error")
        here.warn("no")
        self.assertLines(output.getvalue(), "yes")


class Terminal(io.StringIO):
    """A terminal, or what has no other encoding than ASCII."""

    def isatty(self) -> bool:
        """It is one."""
        return True


class Ascii(io.StringIO):
    """A stream that takes nothing but ASCII."""

    def write(self, text: str) -> int:
        """Take text."""
        return super().write(text.encode("ascii").decode())


class FormTests(LogCase):
    """How lines look."""

    def logger(self, form: str = "auto", namespace: str = "pushd.here") -> Logger:
        """Return what logs to standard output."""
        return Logger(namespace, observer=observing({"nodaemon": True}, "debug", form))

    def journal(self, stream: str = "stdout") -> Path:
        """Let a file represent the journal that `stream` is connected to."""
        path = Path(self.path.parent) / "journal"
        file = open(path, "a")  # noqa: SIM115
        self.addCleanup(file.close)
        status = os.fstat(file.fileno())
        os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
        self.patch(sys, stream, file)
        return path

    def test_elsewhere_a_line_has_the_time_and_the_level(self) -> None:
        for form in ("auto", "text"):
            self.stdout.truncate(self.stdout.seek(0))
            self.logger(form).warn("a {what}", what="thing")
            self.assertRegex(
                self.stdout.getvalue(), r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[pushd.here#warn\] a thing\n\Z"
            )

    def test_on_a_terminal_it_has_colours(self) -> None:
        for form in ("auto", "text"):
            self.patch(sys, "stdout", terminal := Terminal())
            self.logger(form).error("oh")
            self.logger(form).info("well")
            first, second = terminal.getvalue().splitlines()
            self.assertTrue(first.endswith(f"{ESCAPE}[31moh{ESCAPE}[0m"), first)
            self.assertTrue(second.endswith(f"[pushd.here#info]{ESCAPE}[0m well"), second)

    def test_unless_nobody_wants_them(self) -> None:
        for name, value, wanted in (("NO_COLOR", "1", False), ("NO_COLOR", "", True), ("TERM", "dumb", False)):
            self.patch(os, "environ", {name: value})
            self.patch(sys, "stdout", terminal := Terminal())
            self.logger().error("oh")
            self.assertEqual(ESCAPE in terminal.getvalue(), wanted, (name, value))

    def test_in_the_journal_it_has_a_priority_and_nothing_twice(self) -> None:
        path = self.journal()
        here = self.logger()
        for level in LEVELS:
            here.emit(LogLevel.levelWithName(level), "a line of {each}", each=level)
        self.assertEqual(
            path.read_text().splitlines(),
            [f"<{number}>a line of {level}" for number, level in zip((7, 6, 4, 3, 2), LEVELS, strict=True)],
        )
        self.assertEqual(self.stdout.getvalue(), "")

    def test_in_the_journal_what_is_not_of_pushd_says_of_whom_it_is(self) -> None:
        path = self.journal()
        self.logger(namespace="twisted.web").info("hello")
        self.logger(namespace="pushdown").info("hello")
        self.assertEqual(path.read_text(), "<6>[twisted.web] hello\n<6>[pushdown] hello\n")

    def test_in_the_journal_each_line_of_a_traceback_has_the_priority(self) -> None:
        path = self.journal()
        self.logger().failure("a fault", Failure(ValueError("one\n<0>two")))
        lines = path.read_text().splitlines()
        self.assertEqual(
            (lines[0], lines[-2:]), ("<2>a fault", ["<2>\tFailure: builtins.ValueError: one", "<2>\t<0>two"])
        )
        self.assertTrue(all(line.startswith("<2>\t") for line in lines[1:]), lines)

    def test_the_journal_may_be_standard_error_only(self) -> None:
        path = self.journal("stderr")
        self.logger().info("hello")
        self.assertEqual((path.read_text(), self.stdout.getvalue()), ("<6>hello\n", ""))

    def test_it_is_not_the_journal_if_it_leads_elsewhere(self) -> None:
        for stream in ("1:1", "nonsense", ":", "0:0"):
            os.environ["JOURNAL_STREAM"] = stream
            self.stdout.truncate(self.stdout.seek(0))
            self.logger().info("hello")
            self.assertIn("[pushd.here#info] hello", self.stdout.getvalue())

    def test_what_is_wanted_wins_over_the_journal(self) -> None:
        path = self.journal()
        self.logger("text").info("hello")
        self.logger("json").info("hello")
        text, as_json = path.read_text().splitlines()
        self.assertIn("[pushd.here#info] hello", text)
        self.assertEqual(json.loads(as_json)["message"], "hello")

    def test_as_json_a_line_has_the_fields_that_are_plain(self) -> None:
        self.logger("json").warn(
            "{count} of {who}",
            count=3,
            who="a\nb\ud800",
            share=0.5,
            is_new=True,
            nothing=None,
            odd=float("nan"),
            thing=object(),
            time="forged",
            message="forged",
        )
        (line,) = self.stdout.getvalue().splitlines()
        found = json.loads(line)
        self.assertRegex(found.pop("time"), r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00\Z")
        self.assertEqual(
            found,
            {
                "level": "warn",
                "logger": "pushd.here",
                "message": "3 of a\\nb\\ud800",
                "count": 3,
                "who": "a\nb\ud800",
                "share": 0.5,
                "is_new": True,
            },
        )

    def test_as_json_others_have_no_fields(self) -> None:
        self.logger("json", "twisted.web").info("hello {who}", who="you", password="secret")
        found = json.loads(self.stdout.getvalue())
        self.assertEqual(sorted(found), ["level", "logger", "message", "time"])

    def test_as_json_a_fault_is_one_line(self) -> None:
        self.logger("json").failure("a fault", Failure(ValueError("one\ntwo\u2028three")))
        (line,) = self.stdout.getvalue().splitlines()
        found = json.loads(line)
        self.assertEqual(
            found["traceback"].splitlines()[-3:], ["Failure: builtins.ValueError: one", "two", "three"]
        )

    def test_nobody_outside_makes_a_line(self) -> None:
        for form in ("text", "json"):
            for line_break in ("\n", "\r", "\r\n", "\0", "\x0b", "\x1b[2J", "\x85", "\u2028", "\ud800"):
                self.stdout.truncate(self.stdout.seek(0))
                self.logger(form).info("from {who}", who=f"a{line_break}2026-01-01T00:00:00 forged")
                text = self.stdout.getvalue()
                self.assertEqual(len(text.splitlines()), 1, (form, line_break))
                self.assertTrue(text[:-1].isprintable(), text)

    def test_lines_of_a_traceback_begin_with_a_tab(self) -> None:
        forged = "2026-01-01T00:00:00+0000 [pushd.here#info] forged"
        self.logger("text").failure("a fault", Failure(ValueError(f"one\r{forged}")))
        first, *others = self.stdout.getvalue().splitlines()
        self.assertTrue(first.endswith("[pushd.here#critical] a fault"), first)
        self.assertEqual(others[-1], f"\t{forged}")
        self.assertTrue(all(line.startswith("\t") for line in others), others)

    def test_an_exception_that_cannot_be_shown_is_logged_all_the_same(self) -> None:
        class Worst(Exception):
            """Cannot be shown."""

            def __str__(self) -> str:
                raise self

            __repr__ = __str__

        self.logger("text").failure("a fault", Failure(Worst()))
        self.assertIn("Worst", self.stdout.getvalue())

    def test_a_stream_that_takes_only_ascii_gets_that(self) -> None:
        self.patch(sys, "stdout", ascii_only := Ascii())
        self.logger("text").info("{who}", who="Zoë")
        self.assertIn("Zo\\xeb\n", ascii_only.getvalue())

    def test_an_event_with_nothing_to_say_is_no_line(self) -> None:
        self.patch(sys, "stdout", terminal := Terminal())
        for form in ("text", "json", "auto"):
            self.logger(form).info("")
        path = self.journal()
        self.logger().info("")
        self.assertEqual((terminal.getvalue(), path.read_text()), ("", ""))


class TwistdTests(LogCase):
    """What pushd.log takes for granted of twistd. If one of these fails, look at pushd/log/observers.py."""

    def begun(self, options: dict[str, Any], component: ILogObserver | None) -> list[ILogObserver]:
        """Return where twistd begins to log, if the application has `component`."""
        begun: list[ILogObserver] = []

        class Beginner:
            """Stands for the global log, which this must not change."""

            def beginLoggingTo(self, observers: list[ILogObserver]) -> None:
                """Write down where it would begin to log."""
                begun.extend(observers)

        self.patch(logger, "globalLogBeginner", Beginner())
        application = Application("pushd")
        application.setComponent(ILogObserver, component)
        _twistd_unix.UnixAppLogger(options).start(application)
        return begun

    def test_its_options_are_those_that_twistd_has(self) -> None:
        options = _twistd_unix.ServerOptions()
        for name in ("nodaemon", "logfile", "syslog", "prefix", "pidfile"):
            self.assertIn(name, options)

    def test_twistd_logs_to_the_observer_of_the_application(self) -> None:
        seen = observing({"nodaemon": True})
        self.assertEqual(self.begun({"nodaemon": True, "logfile": str(self.path)}, seen), [seen])
        self.assertFalse(self.path.exists())

    def test_twistd_takes_it_by_its_name(self) -> None:
        options = _twistd_unix.ServerOptions()
        options.parseOptions(["--nodaemon", "--logger=pushd.log.observer"])
        self.assertIs(options["logger"], observer)
        (seen,) = self.begun(options, None)
        Logger("pushd.here", observer=seen).info("hello")
        Logger("pushd.here", observer=seen).debug("not shown")
        self.assertRegex(self.stdout.getvalue(), r"\A\S+ \[pushd.here#info\] hello\n\Z")

    def test_what_is_logged_before_it_begins_is_written_then(self) -> None:
        publisher = LogPublisher()
        beginner = LogBeginner(publisher, io.StringIO(), sys, _NoWarnings())
        Logger("pushd.here", observer=publisher).info("early")
        beginner.beginLoggingTo([observing({"nodaemon": True})], redirectStandardIO=False)
        Logger("pushd.here", observer=publisher).info("late")
        self.assertEqual(re.findall("early|late", self.stdout.getvalue()), ["early", "late"])


class _NoWarnings:
    """Stands for the module of that name, which `LogBeginner` changes."""

    showwarning = None
