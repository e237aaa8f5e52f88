"""The twistd plugin, ``twistd pushd``: the only module that imports the reactor."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, TypeVar

from twisted.application.service import IService, MultiService
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.components import Componentized

import twisted
from pushd import __version__
from pushd.auth import TokenRequest, choose_key, mint
from pushd.bus import Counters, Turn, memory
from pushd.config import PATTERNS, Config, OptionType, default, duration, parse_bytes, print_config, state_directory
from pushd.daemon import Collector, Daemon, IntegrationLoader, PidFile, Systemd, assemble, watch
from pushd.errors import ConfigError, StartFailed
from pushd.log import Observer, observer_for
from pushd.server import check_directory, serve_few
from pushd.store import Store, Worker, check

__all__ = ["Options", "makeService"]

T = TypeVar("T")

_log = Logger()
_LIFETIME = duration(1, 366 * 86400)


class Options(usage.Options):
    """The command line of ``twistd pushd``."""

    synopsis = "[options]"
    longdesc = "Push events to clients over WebSocket, Server-Sent Events and plain HTTP."
    optParameters = [
        ["config", "c", None, "The ini file; without one, built-in defaults on 127.0.0.1:8080 and :8443."],
        ["key", None, None, "With --token: the NAME of the [key:NAME] that signs it, if several could."],
        ["user", None, None, "With --token: the user that it is for."],
        ["publish", None, None, "With --token: channels and patterns to publish to, separated by commas."],
        ["subscribe", None, None, "With --token: channels and patterns to subscribe to, separated by commas."],
        ["expires", None, None, "With --token: how long it lasts, as 10m or 7d; 1h if it is not said."],
    ]
    optFlags = [
        ["check", None, "Check the configuration and everything that it names, and exit."],
        ["print-config", None, "Print the whole configuration with all defaults, and exit."],
        ["token", None, "Print a token to try things with, signed with a secret of the ini file, and exit."],
        ["operator", None, "With --token: give the right to look after channels and connections."],
    ]

    pidfile: PidFile | None = None
    """The pid file, unless it is disabled or pushd only runs a command such as ``--check``."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Override: exit with one line on an error; twistd would print its whole help first."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"pushd: {self._explained(str(error))}") from None

    def _explained(self, error: str) -> str:
        """Return an error of Twisted's option parser, with the closest option as a suggestion."""
        unknown = re.search(r"option -?-?(\S+) not recognized", error)
        names = sorted(name.rstrip("=") for name in self.longOpt)
        close = get_close_matches(unknown[1], names, 1, 0.5) if unknown else []
        meant = f"did you mean --{close[0]}? " if close else ""
        if "rong number of arguments" in error:
            error = "unexpected argument; all of pushd's options begin with --"
        return f"{error}; {meant}twistd pushd --help shows all options"

    def opt_version(self) -> NoReturn:
        """Print the version of pushd, and exit."""
        print(f"pushd {__version__} (Twisted {twisted.__version__}, Python {platform.python_version()})")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Override: read the configuration here, where an error is one line instead of a traceback."""
        try:
            self["configuration"] = _configuration(self["config"])
            if self["print-config"]:
                print(print_config(self["configuration"]), end="")
                raise SystemExit(0)
            if self["check"]:
                self._check()
                raise SystemExit(0)
            if self["token"]:
                print(self._token())
                raise SystemExit(0)
            for name in ("key", "user", "publish", "subscribe", "expires", "operator"):
                if self[name]:
                    raise ConfigError(f"--{name} goes with --token")
            if self.parent is not None:
                self._take_over(self.parent)
        except (ConfigError, StartFailed) as error:
            raise _end_of(error) from None

    def _take_over(self, twistd: usage.Options) -> None:
        """Replace twistd's own log by the configured one, and its pid file by a locked one."""
        if twistd.get("logger") == "pushd.log.observer":
            twistd["logger"] = None  # then twistd uses the observer of the service
        if twistd.get("pidfile"):
            self.pidfile = PidFile(twistd["pidfile"])
            twistd["pidfile"] = ""  # twistd refuses to start if any process has the number in the file

    def _token(self) -> str:
        """Return the token specified on the command line."""
        key = choose_key(self["configuration"].keys, self["key"])
        token_request = TokenRequest(
            self["user"],
            self._argument("publish", PATTERNS, ""),
            self._argument("subscribe", PATTERNS, ""),
            bool(self["operator"]),
            self._argument("expires", _LIFETIME, "1h"),
        )
        return mint(key, token_request, time.time())

    def _argument(self, name: str, kind: OptionType[T], default: str) -> T:
        """Parse the option `name` in the syntax of the ini file; raise `ConfigError` if it is invalid."""
        text = default if self[name] is None else self[name]
        try:
            return kind.parse(text)
        except ValueError as error:
            but = f", not {str(error)!r}" if str(error) != text else ""
            raise ConfigError(f"--{name} {text}: wanted {kind.form}{but}") from None

    def _check(self) -> None:
        """Check everything needed to start, and print the result; raise `StartFailed` on an error."""
        config: Config = self["configuration"]
        state = state_directory(config, os.environ)
        check_directory(state)
        with TemporaryDirectory() as directory:  # a certificate made by the check is not kept
            _daemon(self, directory)
        print(f"{self['config'] or 'the built-in configuration'} is fine")
        checked = check(Path(state)) if config.store == "sqlite" else None
        if checked is not None:
            if checked.damages:
                raise SystemExit("\n".join(f"pushd: the store {checked.path}: {line}" for line in checked.damages))
            print(checked.summary)


def _configuration(path: str | None) -> Config:
    """Read the ini file at `path`, or return the defaults if it is None; raise `ConfigError` on an error."""
    if path is None:
        return default()
    try:
        with open(path, "rb") as file:
            return parse_bytes(file.read(), path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _end_of(error: ConfigError | StartFailed) -> SystemExit:
    """Report the error to systemd, and return the exception that ends the process with one line."""
    Systemd(os.environ).failed(error)
    return SystemExit(f"pushd: {error}")


def _store(config: Config, directory: str, counters: Counters) -> tuple[Store, Worker] | None:
    """Return the store in the state directory `directory`; None if the configuration has none."""
    if config.store != "sqlite":
        return None
    worker = Worker(reactor)
    store = Store(
        Path(directory),
        is_safe=config.durability == "power",
        recent_bytes=config.store_memory_bytes,
        size_bytes=config.store_size_bytes,
        now=time.time,
        seconds=time.monotonic,
        counters=counters,
        in_thread=worker.read,
    )
    return store, worker


def _daemon(options: Options, directory: str) -> Daemon:
    """Return the configured daemon, with the state directory `directory`.

    Raises `StartFailed` if something that it needs is missing.
    """
    config: Config = options["configuration"]
    counters, seconds, now = Counters(), time.monotonic, time.time
    store = _store(config, directory, counters)
    reach = IntegrationLoader(reactor, seconds=seconds, now=now, counters=counters)
    integrations, commit = reach(config)
    commit()
    turn = Turn(seconds)
    parts = assemble(
        config,
        reactor,
        seconds=seconds,
        now=now,
        store=store,
        integrations=integrations,
        counters=counters,
        turn=turn,
    )
    looks = watch(memory, reactor)
    collector = Collector(time.thread_time)
    reactor.callWhenRunning(serve_few, reactor, turn, collector.look)
    reactor.callWhenRunning(collector.start)
    reactor.callWhenRunning(looks.start, 1.0)
    systemd = Systemd(os.environ)
    filename = None if options["config"] is None else os.path.abspath(options["config"])
    return Daemon(
        config,
        parts,
        reactor,
        state_directory=directory,
        fail=_failing(options, systemd),
        filename=filename,
        reread=lambda: _configuration(filename),
        reach=reach,
        systemd=systemd,
    )


def _failing(options: Options, systemd: Systemd) -> Callable[[StartFailed], NoReturn]:
    """Return a function that reports an error, and ends the process before the reactor runs."""
    twistd: Mapping[str, Any] = options.parent or {}

    def fail(error: StartFailed) -> NoReturn:
        systemd.failed(error)
        if options.pidfile is not None:
            options.pidfile.remove()
        if not twistd.get("nodaemon"):
            _log.critical("{error}", error=error)
            sys.excepthook = lambda *exception: None  # the default hook adds a traceback
            raise error  # twistd's parent process waits for the error, and prints it
        print(f"pushd: {error}", file=sys.__stderr__)  # sys.stderr is redirected to the log
        if twistd.get("logfile") or twistd.get("syslog"):
            _log.critical("{error}", error=error)
        raise SystemExit(1)

    return fail


class _Logged(MultiService):
    """The service that twistd runs: the daemon with its log observer and pid file."""

    def __init__(self, daemon: Daemon, observer: ILogObserver | None, pidfile: PidFile | None) -> None:
        super().__init__()
        self._observer = observer
        self._pidfile = pidfile
        daemon.setServiceParent(self)

    def setServiceParent(self, parent: object) -> None:
        """Override: set the observer on the application, where twistd looks for one."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Override: write the pid file here, after twistd has forked into the background."""
        if self._pidfile is not None:
            self._pidfile.write()
            reactor.addSystemEventTrigger("after", "shutdown", self._pidfile.remove)
        super().privilegedStartService()


def _obey_signals(daemon: Daemon, reopen: Callable[[], object]) -> None:
    """Reload the configuration at SIGHUP, which would end twistd; stop draining at a second SIGTERM or SIGINT.

    SIGHUP also calls `reopen`, for a log file that was rotated.
    """
    threads = IReactorFromThreads(reactor)

    def hang_up() -> None:
        reopen()
        daemon.reload()

    signal.signal(signal.SIGHUP, lambda number, frame: threads.callFromThread(hang_up))

    def hurry_at_next() -> None:
        for number in signal.SIGTERM, signal.SIGINT:
            signal.signal(number, lambda number, frame: threads.callFromThread(daemon.hurry))

    reactor.addSystemEventTrigger("before", "shutdown", hurry_at_next)


def _call_from_thread(call: Callable[[], object]) -> None:
    IReactorFromThreads(reactor).callFromThread(call)


def _nothing() -> None:
    """Do nothing: there is no log file."""


def _twistd() -> str:
    """Return the command that started this process, usable in another terminal."""
    path = os.path.abspath(sys.argv[0])
    if not os.path.basename(path).startswith("twistd"):
        path = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "twistd")
    return "twistd" if shutil.which("twistd") == path else path


def _call_in_a_second(call: Callable[[], None]) -> None:
    """Schedule `call` on the reactor in one second; safe to call from any thread."""
    _call_from_thread(lambda: IReactorTime(reactor).callLater(1, call))


def makeService(options: Options) -> IService:
    """Return the service that twistd runs."""
    try:
        daemon = _daemon(options, state_directory(options["configuration"], os.environ))
    except (ConfigError, StartFailed) as error:
        if options.pidfile is not None:
            options.pidfile.remove()
        raise _end_of(error) from None
    seen, reopen = None, _nothing
    if options.parent is not None:
        seen = observer_for(options.parent, options["configuration"].log, _call_from_thread)
    if isinstance(seen, Observer):
        daemon.reloader.log_from = seen.begin_at
        seen.floodgate.call_later = _call_in_a_second
        daemon.suggests = seen.is_for_people
        reopen = seen.reopen
    daemon.twistd = _twistd()
    reactor.callWhenRunning(_obey_signals, daemon, reopen)
    return _Logged(daemon, seen, options.pidfile)
