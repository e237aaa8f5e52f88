"""The daemon: started and stopped in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import random
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as NotInTime
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.bus import CloseCause, CloseReason
from pushd.config import Config, changed_options, fixed_differences
from pushd.daemon.assembly import Components, StoreParts, configure
from pushd.daemon.file_limits import plan
from pushd.daemon.integrations import Commit, Integrations, alone
from pushd.daemon.startup_hints import greeting
from pushd.daemon.systemd import Systemd, SystemdStatus
from pushd.errors import ConfigError, StartFailed, Unavailable
from pushd.server import ProxyProtocolSettings, prepare, tls, unclaimed
from pushd.store import leave

__all__ = ["Daemon"]

T = TypeVar("T")

_log = Logger()

_CLOSE_PORT_S = 1.0
"""How long it may take to stop listening at one place."""

_ACKNOWLEDGE_S = 1.0
"""How long what was published before the stop is waited for before everybody is told."""

_TELL_S = 2.0
"""How long it may take to tell the application that everybody has gone."""

_CLOSE_STORE_S = 10.0
"""How long it may take to write what is still to be written and close the store."""

_MOST_LISTED = 20
"""How many options are named in a line of the log after a reload."""

_SPARE_S = 5.0
"""How much longer than all of that systemd is asked to wait for the end."""


class Daemon(Service):
    """The daemon's life: open the ports, turn the timers, and at the end let everybody go in order."""

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
        """Prepare the ports of `config`, which is everything that can be checked before they are opened.

        `fail` is called if they cannot be, and ends the process. `filename` is where `config` was read from.
        `random` answers numbers from 0 to 1. To reload, `reread` answers the configuration as it is then, and
        `reach` makes what reaches beyond the daemon; without them, only what the present one names is read again.
        `systemd` is told how it goes.
        Raises `StartFailed` if a certificate cannot be served with, or an endpoint or the site does not exist.
        """
        _check_site(config)
        self._config = self._started_with = config
        self._reread = reread or (lambda: config)
        self._reach = reach
        self._filename = filename
        self._state_directory = Path(state_directory)
        self._parts = parts
        self._reactor = reactor
        self._fail = fail
        self._random = random
        self.log_from: Callable[[str], None] = lambda level: None
        """Has the log begin at a level."""
        self.twistd, self.suggests = "twistd", True
        """The command that starts pushd, and whether the log suggests commands to try."""
        self._systemd = Systemd({}) if systemd is None else systemd
        self._bulletin = SystemdStatus(self._systemd, reactor, self._figures)
        self._not_reloaded = ""  # why the present configuration is not the one in the file
        self._is_store_open = False
        self._is_hurried = False
        self._awaited: Deferred[None] | None = None
        limits, trust, wheel = config.limits, parts.entrance.trust, parts.sessions.wheel
        sites = {"everything": parts.site, "operations": parts.operations}
        receptions = {
            serves: ProxyProtocolSettings(trust, it.connections, wheel, limits.head_timeout_s)
            for serves, it in sites.items()
        }
        self._ports = [
            prepare(
                listener,
                sites[listener.serves],
                reactor,
                partial(tls.self_signed, state_directory),
                silence_s=limits.heartbeat_s + limits.ping_timeout_s,
                behind_proxy=receptions[listener.serves],
                sockets=self._systemd.sockets,
            )
            for listener in config.listeners
        ]
        self._loops = [self._loop(call) for call in parts.every_second]

    def _loop(self, call: Callable[[], None]) -> LoopingCall:
        loop = LoopingCall(call)
        loop.clock = self._reactor
        return loop

    def privilegedStartService(self) -> None:
        """Override: open the ports, all or none."""
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
        """Override: the reactor is about to run."""
        super().startService()
        storage = self._parts.storage
        if storage is not None:
            try:
                storage.store.open(self._parts.bus.log, self._systemd.starting)
            except StartFailed as error:
                self._give_up(error)
                return
            self._is_store_open = True
            storage.worker.start()
        else:
            leave(self._state_directory)
        for loop in self._loops:
            self._start(loop)
        self._reactor.callLater(0, self._ready)  # when the reactor runs, and signals do what they should

    def _ready(self) -> None:
        if self.running:
            self._parts.insight.readiness.started()
            self._greet()
            self._systemd.ready()
            self._bulletin.start()

    def _figures(self) -> str:
        """Return how it is, in one line."""
        parts = self._parts
        connections = f"connections: {len(parts.site.connections)}"
        if not self.running:
            return f"stopping; {connections}"
        log = parts.bus.log
        events = f"subscribers: {parts.bus.subscribers}, channels: {len(log)}, events: {log.sequence}"
        return f"{connections}, {events}{self._not_reloaded}"

    def _start(self, loop: LoopingCall) -> None:
        loop.start(1, now=False).addErrback(self._loop_failed, loop)

    def _loop_failed(self, failure: Failure, loop: LoopingCall) -> None:
        _log.failure("a fault in pushd, in what is done every second", failure)
        self._start(loop)

    def _greet(self) -> None:
        """Say what listens where, and what to try."""
        self._say_room()
        for line in greeting(self._config, self._ports, self._filename, twistd=self.twistd, suggests=self.suggests):
            _log.info("{line}", line=line)
        for name in unclaimed(self._systemd.sockets, [listener.endpoint for listener in self._config.listeners]):
            _log.warn(
                "nobody listens at the socket {name} of systemd, and who connects to it waits in vain; wanted a "
                "listener with endpoint = systemd:domain=INET:name={name}",
                name=name,
            )

    def _say_room(self) -> None:
        """Log how many connections there may be, and what does not fit in the files that may be open."""
        room = plan(self._config)
        _log.info("{line}", line=room.summary)
        if room.complaint is not None:
            _log.warn("{line}", line=room.complaint)

    def reload(self) -> None:
        """Read the configuration and everything that it names again, and go by that; or say why not."""
        if not self.running:
            return
        self._systemd.reloading()
        try:
            self._reload()
        finally:
            self._systemd.ready()
            self._bulletin.issue()

    def _reload(self) -> None:
        try:
            config, outside, commits = self._read_again()
        except (ConfigError, StartFailed) as error:
            _log.error("not reloaded, everything stays as it was: {error}", error=error)
            self._not_reloaded = f"; not reloaded: {error}"
            return
        self._not_reloaded = ""
        applied = changed_options(self._config, config)
        before, self._config = self._config, config
        for commit in commits:
            commit()
        telling = self._parts.attendance.replace(outside.telling)
        if telling is not None and telling is not outside.telling:
            Deferred.fromCoroutine(telling.close(before.hooks.retry_for_s)).addErrback(self._reload_failed)
        configure(self._parts, config, outside, self._reactor)
        for port in self._ports:
            port.set_silence(config.limits.heartbeat_s + config.limits.ping_timeout_s)
        self._tell_what_changed(applied, list(fixed_differences(self._started_with, config)))
        if (complaint := plan(config).complaint) not in (None, plan(before).complaint):
            _log.warn("{line}", line=complaint)
        self.log_from(config.log.level)

    def _tell_what_changed(self, changed: list[str], fixed: list[str]) -> None:
        """Log which options were `changed` by a reload, and which of all that are `fixed` wait for a restart."""
        applied = [option for option in changed if option not in fixed]
        text = f"reloaded the configuration{': applied ' if applied else ''}{_listed(applied)}"
        if fixed:
            self._not_reloaded = f"; restart pushd to apply {_listed(fixed)}"
            _log.warn("{line}", line=text + self._not_reloaded)
        else:
            _log.info("{line}", line=text)

    def _read_again(self) -> tuple[Config, Integrations, list[Commit]]:
        """Read everything; answer it, and what has it hold. Raises `ConfigError` or `StartFailed`."""
        config = self._reread()
        _check_site(config)
        outside, commit = self._reach(config)
        commits = [commit]
        listeners = {listener.name: listener for listener in config.listeners}
        for port in self._ports:
            listener = listeners.get(port.listener.name)
            if listener is not None and listener.tls == port.listener.tls:
                now = port.listener
                commits.append(port.renewed(replace(listener, endpoint=now.endpoint, serves=now.serves)))
        return config, outside, commits

    def _reload_failed(self, failure: Failure) -> None:
        _log.failure("a fault in pushd after it reloaded its configuration", failure)

    def stopService(self) -> Deferred[None]:
        """Override: return when everybody is gone and the store is closed, or when neither can be waited for."""
        super().stopService()
        self._parts.insight.readiness.stopping()
        return Deferred.fromCoroutine(self._stop()).addErrback(self._stop_failed)

    def _stop_failed(self, failure: Failure) -> None:
        _log.failure("a fault in pushd while it stopped", failure)

    def hurry(self) -> None:
        """Abort the connections that are waited for, if it stops."""
        self._is_hurried = True
        if self._awaited is not None:
            self._awaited.cancel()

    async def _stop(self) -> None:
        """Stop in order: take nobody new, tell everybody, let them take what was written, then close."""
        timeout_s = self._config.stop_timeout_s
        deadline_s = self._reactor.seconds() + timeout_s
        closing_s = len(self._ports) * _CLOSE_PORT_S
        self._systemd.stopping(closing_s + _ACKNOWLEDGE_S + timeout_s + _TELL_S + _CLOSE_STORE_S + _SPARE_S)
        self._bulletin.issue()
        await self._close_ports("everything")
        connections, storage = self._parts.site.connections, self._parts.storage
        _log.info("stopping; {count} connections are open", count=len(connections))
        if storage is not None:
            await self._within(min(_ACKNOWLEDGE_S, timeout_s), storage.journal.written())
        self._parts.attendance.stop()
        self._parts.sessions.close(self._farewell)
        connections.finish()
        await self._drain(deadline_s)
        await self._parts.attendance.close(0 if self._is_hurried else _TELL_S)
        await self._close_ports("operations")  # which has shown how it goes
        for connection in self._parts.operations.connections:
            connection.abort()
        for loop in self._loops:
            if loop.running:
                loop.stop()
        await self._close_store()
        self._bulletin.stop()
        self._systemd.close()

    async def _close_ports(self, serves: str) -> None:
        """Stop listening where that is served."""
        for port in self._ports:
            if port.listener.serves != serves:
                continue
            if not await self._within(_CLOSE_PORT_S, Deferred.fromCoroutine(port.close())):
                _log.error("could not stop listening at {url}", url=port.url)

    async def _drain(self, deadline_s: float) -> None:
        """Wait until the connections have ended; end those that do not until `deadline_s`."""
        connections, storage = self._parts.site.connections, self._parts.storage
        self._awaited = connections.ended()
        if self._is_hurried:
            self._awaited.cancel()
        if await self._within(max(0, deadline_s - self._reactor.seconds()), self._awaited):
            return
        if storage is not None:
            self._refuse_more(storage)
        why = "pushd was told to stop again" if self._is_hurried else "they did not drain in time"
        _log.warn("aborting {count} connections: {why}", count=len(connections), why=why)
        for connection in connections:
            connection.abort()

    def _refuse_more(self, storage: StoreParts) -> None:
        """Publish nothing that comes now, such as what the application was still asked about."""
        reason = self._farewell()
        storage.journal.refuse(Unavailable(reason.text, retry_s=reason.retry_s))

    async def _within(self, timeout_s: float, waiting: Deferred[T]) -> bool:
        """Wait for something, but not for longer than `timeout_s`; tell whether it is done."""
        try:
            await waiting.addTimeout(timeout_s, self._reactor)
        except (NotInTime, CancelledError):
            return False
        return True

    def _farewell(self) -> CloseReason:
        """Return what one client is told: each is asked to come back at another time."""
        limits = self._config.limits
        retry_s = limits.retry_s + self._random() * limits.reconnect_spread_s
        return CloseReason(CloseCause.STOPPING, "the server is going away", retry_s)

    async def _close_store(self) -> None:
        """Write what is still to be written and close the store, unless its disk does not answer."""
        storage = self._parts.storage
        if storage is None or not self._is_store_open:
            return
        deadline_s = self._reactor.seconds() + _CLOSE_STORE_S
        is_closed = await self._within(_CLOSE_STORE_S, storage.journal.finish())
        self._refuse_more(storage)
        if is_closed:
            left_s = deadline_s - self._reactor.seconds()
            is_closed = await self._within(max(0, left_s), storage.worker(storage.store.close))
        if is_closed:
            storage.worker.stop()
            _log.info("the store is closed")
        else:
            _log.error(
                "the store did not answer for {timeout_s} s, and is left as if pushd had been killed: what was "
                "acknowledged is in it",
                timeout_s=_CLOSE_STORE_S,
            )


def _listed(options: list[str]) -> str:
    """Return the names in one line of a bounded length."""
    more = f" and {len(options) - _MOST_LISTED} more" if len(options) > _MOST_LISTED else ""
    return ", ".join(options[:_MOST_LISTED]) + more


def _check_site(config: Config) -> None:
    """Raise `StartFailed` if there is no such directory."""
    if config.site.root is not None and not Path(config.site.root).is_dir():
        raise StartFailed(f"[site] root = {config.site.root}: not a directory")
