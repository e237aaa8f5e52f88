"""The daemon as a Twisted service."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import random

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.config import Config
from pushd.daemon.components import Components, StoreParts
from pushd.daemon.file_limits import plan
from pushd.daemon.integrations import Commit, Integrations, alone
from pushd.daemon.pages import check_site
from pushd.daemon.reload import Reloader
from pushd.daemon.shutdown import Shutdown
from pushd.daemon.startup_hints import greeting
from pushd.daemon.systemd import Systemd, SystemdStatus
from pushd.errors import StartFailed
from pushd.server import Port, ProxyProtocolSettings, prepare, tls, unclaimed
from pushd.store import leave

__all__ = ["Daemon"]

_log = Logger()


class Daemon(Service):
    """The daemon's life cycle: opens the ports and the store, runs the timers, and reports its state to systemd.

    ========  =================================  ======================================
    State     Attributes                         Next state
    ========  =================================  ======================================
    prepared  none                               running, by ``startService``
    running   ``running``, ``_store`` with one   stopping, by ``stopService``
    stopping  not ``running``                    closed, when the `Shutdown` is complete
    ========  =================================  ======================================

    A `Reloader` reloads the configuration while the daemon is running.
    """

    def __init__(
        self,
        config: Config,
        parts: Components,
        reactor: IReactorTime,
        *,
        state_directory: str,
        fail: Callable[[StartFailed], None],
        filename: str | None = None,
        random: Callable[[], float] = random,
        reread: Callable[[], Config] | None = None,
        reach: Callable[[Config], tuple[Integrations, Commit]] = alone,
        systemd: Systemd | None = None,
    ) -> None:
        """Prepare the ports of `config`, and check everything that can be checked before they are opened.

        `fail` is called if a port cannot be opened, and ends the process. `filename` is the file that `config` was
        read from. `random` returns numbers from 0 to 1. To reload, `reread` returns the current configuration and
        `reach` makes the integrations; without them, only the files named in `config` are read again. State changes
        are reported to `systemd`.
        Raises `StartFailed` if a certificate is unusable, or an endpoint or the site does not exist.
        """
        check_site(config)
        self._filename = filename
        self._state_directory = Path(state_directory)
        self._parts = parts
        self._reactor = reactor
        self._fail = fail
        self.twistd, self.suggests = "twistd", True
        """The command that starts pushd, and whether to log commands to try."""
        self._systemd = Systemd({}) if systemd is None else systemd
        self._systemd_status = SystemdStatus(self._systemd, reactor, self._counters)
        self._store: StoreParts | None = None
        self._ports = self._prepared(config, state_directory)
        self._loops = [self._loop(call) for call in parts.every_second]
        self.reloader = Reloader(
            config, parts, self._ports, reactor, reread=reread or (lambda: config), reach=reach
        )
        """The running configuration."""
        self._shutdown = Shutdown(parts, self._ports, reactor, random=random, stop_timers=self._stop_loops)

    def _prepared(self, config: Config, state_directory: str) -> list[Port]:
        """Return the ports of the listeners, not yet open."""
        limits, trust, wheel = config.limits, self._parts.ingress.trust, self._parts.sessions.wheel
        sites = {"everything": self._parts.site, "operations": self._parts.operations}
        proxy_settings = {
            serves: ProxyProtocolSettings(trust, it.connections, wheel, limits.head_timeout_s)
            for serves, it in sites.items()
        }
        return [
            prepare(
                listener,
                sites[listener.serves],
                self._reactor,
                partial(tls.self_signed, state_directory),
                silence_s=limits.silence_s,
                behind_proxy=proxy_settings[listener.serves],
                sockets=self._systemd.sockets,
            )
            for listener in config.listeners
        ]

    def _loop(self, call: Callable[[], None]) -> LoopingCall:
        loop = LoopingCall(call)
        loop.clock = self._reactor
        return loop

    def privilegedStartService(self) -> None:
        """Override: open all ports or none."""
        super().privilegedStartService()
        try:
            for port in self._ports:
                port.open()
        except StartFailed as error:
            self._give_up(error)

    def _give_up(self, error: StartFailed) -> None:
        for port in self._ports:
            Deferred.fromCoroutine(port.close())
        self._fail(error)

    def startService(self) -> None:
        """Override: open the store and start the timers; called before the reactor runs."""
        super().startService()
        storage = self._parts.storage
        if storage is not None:
            try:
                storage.store.open(self._parts.bus.log, self._systemd.starting)
            except StartFailed as error:
                self._give_up(error)
                return
            self._store = storage
            storage.worker.start()
        else:
            leave(self._state_directory)
        for loop in self._loops:
            self._start(loop)
        self._reactor.callLater(0, self._ready)  # once the reactor runs and the signal handlers are installed

    def _ready(self) -> None:
        if self.running:
            self._parts.operators.readiness.started()
            self._greet()
            self._systemd.ready()
            self._systemd_status.start()

    def _counters(self) -> str:
        """Return the state of the daemon in one line, for systemd."""
        parts = self._parts
        connections = f"connections: {len(parts.site.connections)}"
        if not self.running:
            return f"stopping; {connections}"
        log = parts.bus.log
        events = f"subscribers: {parts.bus.subscribers}, channels: {len(log)}, events: {log.sequence}"
        return f"{connections}, {events}{self.reloader.note}"

    def _start(self, loop: LoopingCall) -> None:
        loop.start(1, now=False).addErrback(self._loop_failed, loop)

    def _stop_loops(self) -> None:
        for loop in self._loops:
            if loop.running:
                loop.stop()

    def _loop_failed(self, failure: Failure, loop: LoopingCall) -> None:
        _log.failure("a fault in pushd, in what is done every second", failure)
        self._start(loop)

    def _greet(self) -> None:
        """Log the listeners and commands to try."""
        self._say_room()
        for line in greeting(
            self.reloader.config, self._ports, self._filename, twistd=self.twistd, suggests=self.suggests
        ):
            _log.info("{line}", line=line)
        for name in unclaimed(
            self._systemd.sockets, [listener.endpoint for listener in self.reloader.config.listeners]
        ):
            _log.warn(
                "nobody listens at the socket {name} of systemd, and who connects to it waits in vain; wanted a "
                "listener with endpoint = systemd:domain=INET:name={name}",
                name=name,
            )

    def _say_room(self) -> None:
        """Log the maximum number of connections, and warn if the file limit is too low for the configuration."""
        room = plan(self.reloader.config)
        _log.info("{line}", line=room.summary)
        if room.complaint is not None:
            _log.warn("{line}", line=room.complaint)

    def reload(self) -> None:
        """Read the configuration and every file that it names again, and apply them; on an error, log the error."""
        if not self.running:
            return
        self._systemd.reloading()
        try:
            self.reloader.reload()
        finally:
            self._systemd.ready()
            self._systemd_status.issue()

    def stopService(self) -> Deferred[None]:
        """Override: shut down gracefully; fires when connections and store are closed, or their timeouts expire."""
        super().stopService()
        self._parts.operators.readiness.stopping()
        return Deferred.fromCoroutine(self._stop()).addErrback(self._stop_failed)

    def _stop_failed(self, failure: Failure) -> None:
        _log.failure("a fault in pushd while it stopped", failure)

    def hurry(self) -> None:
        """Stop draining and abort the connections; called on a second SIGTERM or SIGINT."""
        self._shutdown.hurry()

    async def _stop(self) -> None:
        config = self.reloader.config
        self._systemd.stopping(self._shutdown.longest_s(config))
        self._systemd_status.issue()
        await self._shutdown.run(config, self._store)
        self._systemd_status.stop()
        self._systemd.close()
