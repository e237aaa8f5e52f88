"""The command line of ``twistd pushd``, and what it gives to twistd."""

from __future__ import annotations

import errno
import io
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.application.service import Application, IService, IServiceCollection, MultiService
from twisted.logger import ILogObserver, Logger, LogLevel, capturedLogs, formatEvent
from twisted.python.syslog import SyslogObserver
from twisted.trial.unittest import SynchronousTestCase

from pushd import __version__, tap
from pushd.config.loader import default, parse
from pushd.errors import StartFailed
from pushd.tap import Options, makeService
from tests.component.server.test_listen import Reactor
from tests.rigs.bare_store import StoreRig
from tests.unit.daemon.test_systemd import Manager
from tests.unit.log.test_log import forgive_log_files
from tests.unit.server.test_tls import forgive_deprecated_certificates

PLAIN = "[listen:http]\nendpoint = tcp:8080:interface=127.0.0.1\n"


class TapCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.state = self.directory / "state"
        self.environ = {"STATE_DIRECTORY": str(self.state)}
        self.patch(os, "environ", self.environ)
        self.stdout = io.StringIO()
        self.patch(sys, "stdout", self.stdout)
        forgive_deprecated_certificates(self)
        forgive_log_files(self)

    def config(self, text: str | bytes) -> str:
        """Write an ini file and answer its path."""
        path = self.directory / "pushd.ini"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def options(self, *arguments: str, twistd: dict[str, Any] | None = None) -> Options:
        """Read the command line; `twistd` are the options of twistd itself."""
        options = Options()
        options.parent = twistd  # type: ignore[assignment]  # a mapping is enough
        options.parseOptions(list(arguments))
        return options

    def service(self, text: str, **twistd: Any) -> IService:
        """Make the service for a configuration, as twistd does in the foreground."""
        twistd.setdefault("nodaemon", True)
        return makeService(self.options("--config", self.config(text), twistd=twistd))

    def assertOneLine(self, error: SystemExit, *says: str) -> None:
        """Check that Python ends with one line for the operator, and with status 1."""
        self.assertIsInstance(error.code, str)
        text = str(error)
        self.assertTrue(text.startswith("pushd: "), text)
        self.assertEqual(len(text.splitlines()), 1, text)
        for part in says:
            self.assertIn(part, text)


class OptionsTests(TapCase):
    def assertEnds(self, text: str | bytes, *says: str, option: str = "") -> None:
        arguments = ["--config", self.config(text), *([option] if option else [])]
        self.assertOneLine(self.assertRaises(SystemExit, self.options, *arguments), *says)

    def test_without_a_file_the_defaults_apply(self) -> None:
        self.assertEqual(self.options()["configuration"], default())

    def test_the_file_is_read(self) -> None:
        for flag in ("--config", "-c"):
            found = self.options(flag, self.config(PLAIN))["configuration"]
            self.assertEqual(found, parse(PLAIN, "x"))

    def test_reading_it_says_and_makes_nothing(self) -> None:
        self.options()
        self.assertEqual((self.stdout.getvalue(), self.state.exists()), ("", False))

    def test_an_error_in_the_file_ends_with_one_line_that_names_the_place(self) -> None:
        self.assertEnds("[limits]\noutbox = many\n", "pushd.ini: [limits] outbox = many: wanted ")
        self.assertEnds("[nosuch]\n", "pushd.ini: [nosuch]: ")
        self.assertEnds("[limits]\nnosuch = 1\n", "[limits] nosuch = 1: ")
        self.assertEnds("endpoint\n", "pushd.ini: line 1: ")
        self.assertEnds(b"[site]\nroot = \xff\n", "pushd.ini: line 2: ", "UTF-8")
        self.assertEnds("[listen:a]\nendpoint = tcp:80\n", "[auth]")

    def test_an_error_is_told_before_the_configuration_is_printed_or_checked(self) -> None:
        for option in ("--check", "--print-config"):
            self.assertEnds("[limits]\noutbox = many\n", "[limits] outbox", option=option)
            self.assertEqual(self.stdout.getvalue(), "")

    def test_a_file_that_cannot_be_read_ends_with_one_line_that_names_it(self) -> None:
        for path, why in (
            (self.directory / "nosuch", "No such file or directory"),
            (self.directory, "Is a directory"),
        ):
            error = self.assertRaises(SystemExit, self.options, "--config", str(path))
            self.assertEqual(str(error), f"pushd: {path}: cannot be read: {why}")

    def test_an_unknown_option_ends_with_one_line_that_names_the_nearest(self) -> None:
        for argument, says in (
            ("--nosuch", "pushd: option --nosuch not recognized; twistd pushd --help"),
            ("--konfig=x", "not recognized; did you mean --config?"),
            ("--print-confg", "did you mean --print-config?"),
            ("-z", "option -z not recognized; twistd pushd --help"),
            ("--config", "option --config requires argument; twistd pushd --help"),
            ("--check=1", "must not have an argument"),
            ("argument", "unexpected argument"),
        ):
            self.assertOneLine(self.assertRaises(SystemExit, self.options, argument), says)
            self.assertEqual(self.stdout.getvalue(), "")

    def test_the_version_is_that_of_pushd(self) -> None:
        error = self.assertRaises(SystemExit, self.options, "--version")
        self.assertEqual(error.code, 0)
        self.assertTrue(self.stdout.getvalue().startswith(f"pushd {__version__} (Twisted "))


class PrintConfigTests(TapCase):
    def assertPrints(self, *arguments: str) -> str:
        error = self.assertRaises(SystemExit, self.options, *arguments, "--print-config")
        self.assertEqual(error.code, 0)
        return self.stdout.getvalue()

    def test_what_is_printed_is_read_as_the_same_configuration(self) -> None:
        self.assertEqual(parse(self.assertPrints(), "x"), default())

    def test_a_file_is_printed_with_all_defaults(self) -> None:
        text = self.assertPrints("--config", self.config(PLAIN))
        self.assertEqual(parse(text, "x"), parse(PLAIN, "x"))
        self.assertIn("outbox = 1MiB\n", text)

    def test_nothing_is_made(self) -> None:
        self.assertPrints()
        self.assertFalse(self.state.exists())

    def test_it_can_be_had_without_a_state_directory(self) -> None:
        self.environ.clear()
        self.assertPrints()


class CheckTests(TapCase):
    def assertNotFine(self, text: str, *says: str) -> None:
        error = self.assertRaises(SystemExit, self.options, "--config", self.config(text), "--check")
        self.assertOneLine(error, *says)
        self.assertEqual(self.stdout.getvalue(), "")

    def test_what_is_fine_is_said_to_be(self) -> None:
        path = self.config(PLAIN)
        for arguments, name in (((), "the built-in configuration"), (("--config", path), path)):
            self.stdout.truncate(self.stdout.seek(0))
            error = self.assertRaises(SystemExit, self.options, *arguments, "--check")
            self.assertEqual((error.code, self.stdout.getvalue()), (0, f"{name} is fine\n"))

    def test_what_the_file_names_must_be_there(self) -> None:
        https = f"{PLAIN}tls = yes\ncertificate = /nosuch.crt\nkey = /nosuch.key\n"
        self.assertNotFine(https, "/nosuch.crt: cannot be read: No such file or directory")
        self.assertNotFine(f"{PLAIN}[site]\nroot = /nosuch\n", "[site] root = /nosuch: not a directory")
        auth = "[auth]\nanonymous = publish\n"
        self.assertNotFine(f"[listen:a]\nendpoint = nosuch:80\n{auth}", "[listen:a] endpoint = nosuch:80: ")

    def test_the_state_directory_must_be_known_and_nothing_is_made_in_it(self) -> None:
        self.environ["STATE_DIRECTORY"] = str(self.directory / "state")
        error = self.assertRaises(
            SystemExit, self.options, "--config", self.config(f"{PLAIN}tls = yes\n"), "--check"
        )
        self.assertEqual((error.code, (self.directory / "state").exists()), (0, False))
        self.stdout.truncate(self.stdout.seek(0))
        self.environ["STATE_DIRECTORY"] = f"{self.config(PLAIN)}/below"
        self.assertNotFine(PLAIN, "/below: cannot be written: ", "is not a directory")
        self.environ.clear()
        self.assertNotFine(PLAIN, "state_directory", "wanted one of them")

    def assertChecked(self, text: str = PLAIN) -> SystemExit:
        error: SystemExit = self.assertRaises(SystemExit, self.options, "--config", self.config(text), "--check")
        return error

    def test_the_store_is_read_and_what_it_has_is_said(self) -> None:
        stored = StoreRig(self.state)
        self.addCleanup(stored.close)
        stored.publish_each("a", b"123", b"45")
        self.assertEqual(self.assertChecked().code, 0)
        last = self.stdout.getvalue().splitlines()[-1]
        self.assertEqual(last, f"the store {self.state}/pushd.db is fine: channels: 1, events: 2, bytes: 5")

    def test_each_damage_of_the_store_is_a_line(self) -> None:
        stored = StoreRig(self.state)
        stored.publish_each("a", b"1", b"2", b"3")
        stored.close()
        with closing(sqlite3.connect(self.state / "pushd.db")) as connection, connection:
            connection.execute("UPDATE block SET checksum = 0 WHERE first_sequence > 1")
        lines = str(self.assertChecked().code).splitlines()
        where = f"pushd: the store {self.state}/pushd.db"
        damaged = "of channel 'a' are damaged: their checksum is another"
        self.assertEqual(lines, [f"{where}: events {place} {damaged}" for place in ("2 to 2", "3 to 3")])
        self.assertEqual(self.assertChecked(f"[pushd]\nstore = memory\n{PLAIN}").code, 0)

    def test_a_store_that_cannot_be_read_is_said_in_one_line(self) -> None:
        self.state.mkdir()
        (self.state / "pushd.db").write_bytes(b"hello" * 1000)
        self.assertOneLine(
            self.assertChecked(), "pushd.db is damaged: file is not a database. Put a copy of it back"
        )


class MakeServiceTests(TapCase):
    def test_the_application_gets_a_service_and_the_observer_of_the_log(self) -> None:
        application = Application("pushd")
        service = self.service(PLAIN)
        service.setServiceParent(application)
        self.assertEqual(list(IServiceCollection(application)), [service])
        self.assertTrue(ILogObserver.providedBy(application.getComponent(ILogObserver)))

    def test_the_observer_has_the_level_that_is_configured_and_goes_where_twistd_was_told(self) -> None:
        application, path = Application("pushd"), self.directory / "twistd.log"
        self.service(f"{PLAIN}[log]\nlevel = warn\n", logfile=str(path)).setServiceParent(application)
        logger = Logger(observer=application.getComponent(ILogObserver))
        logger.info("not this")
        logger.warn("but this")
        text = path.read_text()
        self.assertEqual((text.count("\n"), text[-9:]), (1, "but this\n"))

    def test_a_parent_that_is_no_application_gets_the_service_only(self) -> None:
        parent, service = MultiService(), self.service(PLAIN)
        service.setServiceParent(parent)
        self.assertEqual(list(parent), [service])

    def test_without_twistd_the_log_is_left_alone(self) -> None:
        application = Application("pushd")
        makeService(self.options("--config", self.config(PLAIN))).setServiceParent(application)
        self.assertIsNone(application.getComponent(ILogObserver, None))

    def test_twistd_is_left_no_other_observer_of_pushd_to_ask(self) -> None:
        for given, left in (("pushd.log.observer", None), ("my.observer", "my.observer"), (None, None)):
            twistd = {"nodaemon": True, "logger": given}
            self.options(twistd=twistd)
            self.assertEqual(twistd["logger"], left)

    def test_what_is_missing_ends_with_one_line(self) -> None:
        error = self.assertRaises(SystemExit, self.service, f"{PLAIN}[site]\nroot = /nosuch\n")
        self.assertOneLine(error, "[site] root = /nosuch: not a directory")

    def test_the_self_signed_certificate_is_made_in_the_state_directory(self) -> None:
        self.service(f"{PLAIN}tls = yes\n")
        self.assertEqual(sorted(os.listdir(self.state)), ["self-signed.crt", "self-signed.key"])

    def test_a_state_directory_that_is_not_known_ends_with_one_line(self) -> None:
        self.environ.clear()
        self.assertOneLine(self.assertRaises(SystemExit, self.service, PLAIN), "state_directory")


class FailingPortTests(TapCase):
    def setUp(self) -> None:
        super().setUp()
        reactor = Reactor()
        reactor.taken = 8080
        self.patch(tap, "reactor", reactor)
        self.stderr = io.StringIO()
        self.patch(sys, "__stderr__", self.stderr)
        self.pidfile = self.directory / "twistd.pid"
        self.why = "[listen:http] tcp:8080:interface=127.0.0.1: cannot listen: Address already in use; "
        self.why += "choose another port, with endpoint in [listen:http] of the file of --config"

    def start(self, error_type: type[BaseException] = SystemExit, **twistd: Any) -> list[str]:
        """Start the service as twistd does before the reactor runs; answer the critical lines of the log."""
        service = self.service(PLAIN, **twistd)
        self.assertEqual(self.pidfile.exists(), bool(twistd.get("pidfile")))
        with capturedLogs() as events:
            error = self.assertRaises(error_type, service.privilegedStartService)
        if isinstance(error, SystemExit):
            self.assertEqual(error.code, 1)
        return [str(formatEvent(event)) for event in events if event["log_level"] is LogLevel.critical]

    def test_in_the_foreground_it_ends_with_one_line_on_the_real_standard_error(self) -> None:
        self.start()
        self.assertEqual((self.stderr.getvalue(), self.stdout.getvalue()), (f"pushd: {self.why}\n", ""))

    def test_the_line_is_logged_unless_the_log_is_the_terminal(self) -> None:
        self.assertEqual(self.start(), [])
        self.assertEqual(self.start(logfile=str(self.directory / "log")), [self.why])
        self.patch(SyslogObserver, "openlog", lambda *_: None)
        self.assertEqual(self.start(syslog=True), [self.why])

    def test_no_pid_file_stays(self) -> None:
        self.start(pidfile=str(self.pidfile))
        self.assertFalse(self.pidfile.exists())
        self.assertRaises(SystemExit, self.service, f"{PLAIN}[site]\nroot = /nosuch\n", pidfile=str(self.pidfile))
        self.assertFalse(self.pidfile.exists())

    def test_there_need_be_no_pidfile(self) -> None:
        for pidfile in (None, "", str(self.pidfile)):
            self.start(pidfile=pidfile)

    def test_in_the_background_the_error_is_left_to_twistd_which_tells_its_parent_process(self) -> None:
        lines = self.start(StartFailed, nodaemon=False, logfile=str(self.directory / "log"))
        self.assertEqual((lines, self.stderr.getvalue()), ([self.why], ""))

    def test_systemd_is_told_why(self) -> None:
        with closing(Manager(f"{self.directory}/notify").socket) as manager:
            self.environ["NOTIFY_SOCKET"] = f"{self.directory}/notify"
            self.start()
            self.assertEqual(manager.recv(9999).decode(), f"STATUS={self.why}\nERRNO={errno.EADDRINUSE}")
            self.assertRaises(SystemExit, self.options, "--config", "/nosuch")
            told = f"STATUS=/nosuch: cannot be read: No such file or directory\nERRNO={errno.ENOENT}"
            self.assertEqual(manager.recv(9999).decode(), told)
            self.assertRaises(SystemExit, self.service, f"{PLAIN}[site]\nroot = /nosuch\n")
            self.assertEqual(manager.recv(9999).decode(), "STATUS=[site] root = /nosuch: not a directory")
