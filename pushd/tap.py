"""The twistd plugin: ``twistd pushd``. The only module that imports the reactor."""

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
from typing import Any, NoReturn

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
    """The pid file, if there is to be one and pushd is to be started."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Override: end with one line at an error; twistd would print all of the help before it."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"pushd: {self._explained(str(error))}") from None

    def _explained(self, error: str) -> str:
        """Return an error of Twisted's parser with the options that may have been meant."""
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
        """Override: read the configuration, here because an error has a better form here than later."""
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
        """Take what twistd would do by itself: the log, as configured, and the pid file, under a lock."""
        if twistd.get("logger") == "pushd.log.observer":
            twistd["logger"] = None  # twistd asks the service then, which knows the configuration
        if twistd.get("pidfile"):
            self.pidfile = PidFile(twistd["pidfile"])
            twistd["pidfile"] = ""  # or twistd would refuse to start if the number in it is that of some process

    def _token(self) -> str:
        """Make the token that the command line asks for."""
        key = choose_key(self["configuration"].keys, self["key"])
        wish = TokenRequest(
            self["user"],
            self._argument("publish", PATTERNS, ""),
            self._argument("subscribe", PATTERNS, ""),
            bool(self["operator"]),
            self._argument("expires", _LIFETIME, "1h"),
        )
        return mint(key, wish, time.time())

    def _argument(self, name: str, kind: OptionType, default: str) -> Any:
        """Read an option as the ini file has it; raise `ConfigError` if that is not possible."""
        text = default if self[name] is None else self[name]
        try:
            return kind.parse(text)
        except ValueError as error:
            but = f", not {str(error)!r}" if str(error) != text else ""
            raise ConfigError(f"--{name} {text}: wanted {kind.form}{but}") from None

    def _check(self) -> None:
        """Check everything that a start needs, and say what was found; raise `StartFailed` if it is not fine."""
        config: Config = self["configuration"]
        state = state_directory(config, os.environ)
        check_directory(state)
        with TemporaryDirectory() as directory:  # a check makes no certificate to keep
            _daemon(self, directory)
        print(f"{self['config'] or 'the built-in configuration'} is fine")
        checked = check(Path(state)) if config.store == "sqlite" else None
        if checked is not None:
            if checked.damages:
                raise SystemExit("\n".join(f"pushd: the store {checked.path}: {line}" for line in checked.damages))
            print(checked.summary)


def _configuration(path: str | None) -> Config:
    """Read the ini file, or answer the built-in configuration if there is none; raise `ConfigError`."""
    if path is None:
        return default()
    try:
        with open(path, "rb") as file:
            return parse_bytes(file.read(), path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _end_of(error: ConfigError | StartFailed) -> SystemExit:
    """Tell systemd why there is no start, and answer what ends the process with one line."""
    Systemd(os.environ).failed(error)
    return SystemExit(f"pushd: {error}")


def _daemon(options: Options, directory: str) -> Daemon:
    """Make the daemon as configured, with its own certificate in `directory`.

    Raises `StartFailed` if something that it needs is not there.
    """
    config: Config = options["configuration"]
    store, figures = None, Counters()
    if config.store == "sqlite":
        kept = Store(
            Path(directory),
            is_safe=config.durability == "power",
            recent_bytes=config.store_memory_bytes,
            size_bytes=config.store_size_bytes,
            now=time.time,
            seconds=time.monotonic,
            figures=figures,
        )
        store = kept, Worker(reactor)
    seconds, now = time.monotonic, time.time
    reach = IntegrationLoader(reactor, seconds=seconds, now=now, figures=figures)
    outside, commit = reach(config)
    commit()
    turn = Turn(seconds)
    parts = assemble(
        config, reactor, seconds=seconds, now=now, store=store, outside=outside, figures=figures, turn=turn
    )
    looks = watch(memory, reactor)
    collector = Collector(time.thread_time)
    reactor.callWhenRunning(serve_few, reactor, turn, collector.look)
    reactor.callWhenRunning(collector.start)
    reactor.callWhenRunning(looks.start, 1.0)
    twistd: Mapping[str, Any] = options.parent or {}
    systemd = Systemd(os.environ)

    def fail(error: StartFailed) -> NoReturn:
        """Say why there is no start, and end the process before the reactor runs."""
        systemd.failed(error)
        if options.pidfile is not None:
            options.pidfile.remove()
        if not twistd.get("nodaemon"):
            _log.critical("{error}", error=error)
            sys.excepthook = lambda *exception: None  # which would add a traceback to it
            raise error  # twistd's parent process waits to be told, and prints it
        print(f"pushd: {error}", file=sys.__stderr__)  # in place of sys.stderr is the log
        if twistd.get("logfile") or twistd.get("syslog"):
            _log.critical("{error}", error=error)
        raise SystemExit(1)

    filename = None if options["config"] is None else os.path.abspath(options["config"])
    return Daemon(
        config,
        parts,
        reactor,
        state_directory=directory,
        fail=fail,
        filename=filename,
        reread=lambda: _configuration(filename),
        reach=reach,
        systemd=systemd,
    )


class _Logged(MultiService):
    """What twistd runs: the daemon, with the log and the pid file that it wants."""

    def __init__(self, daemon: Daemon, observer: ILogObserver | None, pidfile: PidFile | None) -> None:
        super().__init__()
        self._observer = observer
        self._pidfile = pidfile
        daemon.setServiceParent(self)

    def setServiceParent(self, parent: object) -> None:
        """Override: twistd gives the application, which is where it looks for an observer."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Override: this process is the one that stays, also in the background."""
        if self._pidfile is not None:
            self._pidfile.write()
            reactor.addSystemEventTrigger("after", "shutdown", self._pidfile.remove)
        super().privilegedStartService()


def _obey_signals(daemon: Daemon, reopen: Callable[[], object]) -> None:
    """Have SIGHUP, which would end twistd, reload the configuration, and a second SIGTERM end the waiting.

    SIGHUP calls `reopen` as well, for a log file that was moved away.
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
    """Return the command that started this, as it can be used in another terminal."""
    path = os.path.abspath(sys.argv[0])
    if not os.path.basename(path).startswith("twistd"):
        path = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "twistd")
    return "twistd" if shutil.which("twistd") == path else path


def _call_in_a_second(call: Callable[[], None]) -> None:
    """Have the reactor make a call in a second; what asks for it may be in another thread."""
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
        daemon.log_from = seen.begin_at
        seen.floodgate.call_later = _call_in_a_second
        daemon.suggests = seen.is_for_people
        reopen = seen.reopen
    daemon.twistd = _twistd()
    reactor.callWhenRunning(_obey_signals, daemon, reopen)
    return _Logged(daemon, seen, options.pidfile)
