"""The daemon as a Twisted service: ordered start, reload and graceful shutdown."""

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
"""Timeout for closing one listener, in seconds."""

_ACKNOWLEDGE_S = 1.0
"""Timeout for publishing events that wait at the stop, in seconds; clients are closed afterwards."""

_TELL_S = 2.0
"""Timeout for the last notifications to the application, in seconds."""

_CLOSE_STORE_S = 10.0
"""Timeout for writing all pending events and closing the store, in seconds."""

_MOST_LISTED = 20
"""Maximum number of options named in one log line after a reload."""

_SPARE_S = 5.0
"""Margin added to the sum of these timeouts in the stop timeout requested from systemd, in seconds."""


class Daemon(Service):
    """The daemon's life cycle: opens the ports, runs the timers, reloads, and drains connections at the stop.

    ========  ============================================  =========================================
    State     Attributes                                    Next state
    ========  ============================================  =========================================
    prepared  none                                          running, by ``startService``
    running   ``running``, ``_is_store_open`` with a store  stopping, by ``stopService``
    stopping  not ``running``; ``_awaited`` in the drain    closed, once drained or after the timeout
    hurried   ``_is_hurried`` as well                       closed, after aborting the connections
    ========  ============================================  =========================================
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
        """Set the level of the log."""
        self.twistd, self.suggests = "twistd", True
        """The command that starts pushd, and whether to log commands to try."""
        self._systemd = Systemd({}) if systemd is None else systemd
        self._systemd_status = SystemdStatus(self._systemd, reactor, self._counters)
        self._not_reloaded = ""  # why the running configuration differs from the file
        self._is_store_open = False
        self._is_hurried = False
        self._awaited: Deferred[None] | None = None
        limits, trust, wheel = config.limits, parts.ingress.trust, parts.sessions.wheel
        sites = {"everything": parts.site, "operations": parts.operations}
        proxy_settings = {
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
                behind_proxy=proxy_settings[listener.serves],
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
            self._is_store_open = True
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
        return f"{connections}, {events}{self._not_reloaded}"

    def _start(self, loop: LoopingCall) -> None:
        loop.start(1, now=False).addErrback(self._loop_failed, loop)

    def _loop_failed(self, failure: Failure, loop: LoopingCall) -> None:
        _log.failure("a fault in pushd, in what is done every second", failure)
        self._start(loop)

    def _greet(self) -> None:
        """Log the listeners and commands to try."""
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
        """Log the maximum number of connections, and warn if the file limit is too low for the configuration."""
        room = plan(self._config)
        _log.info("{line}", line=room.summary)
        if room.complaint is not None:
            _log.warn("{line}", line=room.complaint)

    def reload(self) -> None:
        """Read the configuration and every file that it names again, and apply them; on an error, log the error."""
        if not self.running:
            return
        self._systemd.reloading()
        try:
            self._reload()
        finally:
            self._systemd.ready()
            self._systemd_status.issue()

    def _reload(self) -> None:
        try:
            config, integrations, commits = self._read_again()
        except (ConfigError, StartFailed) as error:
            _log.error("not reloaded, everything stays as it was: {error}", error=error)
            self._not_reloaded = f"; not reloaded: {error}"
            return
        self._not_reloaded = ""
        applied = changed_options(self._config, config)
        before, self._config = self._config, config
        for commit in commits:
            commit()
        notifier = self._parts.presence.replace(integrations.notifier)
        if notifier is not None and notifier is not integrations.notifier:
            Deferred.fromCoroutine(notifier.close(before.hooks.retry_for_s)).addErrback(self._reload_failed)
        configure(self._parts, config, integrations, self._reactor)
        for port in self._ports:
            port.set_silence(config.limits.heartbeat_s + config.limits.ping_timeout_s)
        self._tell_what_changed(applied, list(fixed_differences(self._started_with, config)))
        if (complaint := plan(config).complaint) not in (None, plan(before).complaint):
            _log.warn("{line}", line=complaint)
        self.log_from(config.log.level)

    def _tell_what_changed(self, changed: list[str], fixed: list[str]) -> None:
        """Log the options `changed` by a reload; `fixed` are those that need a restart."""
        applied = [option for option in changed if option not in fixed]
        text = f"reloaded the configuration{': applied ' if applied else ''}{_listed(applied)}"
        if fixed:
            self._not_reloaded = f"; restart pushd to apply {_listed(fixed)}"
            _log.warn("{line}", line=text + self._not_reloaded)
        else:
            _log.info("{line}", line=text)

    def _read_again(self) -> tuple[Config, Integrations, list[Commit]]:
        """Read all again, and return it with the calls that apply it; raise `ConfigError` or `StartFailed`."""
        config = self._reread()
        _check_site(config)
        integrations, commit = self._reach(config)
        commits = [commit]
        listeners = {listener.name: listener for listener in config.listeners}
        for port in self._ports:
            listener = listeners.get(port.listener.name)
            if listener is not None and listener.tls == port.listener.tls:
                now = port.listener
                commits.append(port.renewed(replace(listener, endpoint=now.endpoint, serves=now.serves)))
        return config, integrations, commits

    def _reload_failed(self, failure: Failure) -> None:
        _log.failure("a fault in pushd after it reloaded its configuration", failure)

    def stopService(self) -> Deferred[None]:
        """Override: shut down gracefully; fires when connections and store are closed, or their timeouts expire."""
        super().stopService()
        self._parts.operators.readiness.stopping()
        return Deferred.fromCoroutine(self._stop()).addErrback(self._stop_failed)

    def _stop_failed(self, failure: Failure) -> None:
        _log.failure("a fault in pushd while it stopped", failure)

    def hurry(self) -> None:
        """Stop draining and abort the connections; called on a second SIGTERM or SIGINT."""
        self._is_hurried = True
        if self._awaited is not None:
            self._awaited.cancel()

    async def _stop(self) -> None:
        """Shut down in order: close listeners, write pending events, close sessions, drain, close the store."""
        timeout_s = self._config.stop_timeout_s
        deadline_s = self._reactor.seconds() + timeout_s
        closing_s = len(self._ports) * _CLOSE_PORT_S
        self._systemd.stopping(closing_s + _ACKNOWLEDGE_S + timeout_s + _TELL_S + _CLOSE_STORE_S + _SPARE_S)
        self._systemd_status.issue()
        await self._close_ports("everything")
        connections = self._parts.site.connections
        _log.info("stopping; {count} connections are open", count=len(connections))
        published: Deferred[None] = Deferred()
        self._parts.publisher.when_published(lambda: published.callback(None))
        await self._within(min(_ACKNOWLEDGE_S, timeout_s), published)
        self._parts.presence.stop()
        self._parts.sessions.close(self._farewell)
        connections.finish()
        await self._drain(deadline_s)
        await self._parts.presence.close(0 if self._is_hurried else _TELL_S)
        await self._close_ports("operations")  # open until here, to show the progress of the drain
        for connection in self._parts.operations.connections:
            connection.abort()
        for loop in self._loops:
            if loop.running:
                loop.stop()
        await self._close_store()
        self._systemd_status.stop()
        self._systemd.close()

    async def _close_ports(self, serves: str) -> None:
        """Close the listeners with this value of ``serves``."""
        for port in self._ports:
            if port.listener.serves != serves:
                continue
            if not await self._within(_CLOSE_PORT_S, Deferred.fromCoroutine(port.close())):
                _log.error("could not stop listening at {url}", url=port.url)

    async def _drain(self, deadline_s: float) -> None:
        """Wait until the connections have ended; abort those still open at `deadline_s`."""
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
        """Reject further events, such as those whose authorization webhook is still pending."""
        reason = self._farewell()
        storage.journal.refuse(Unavailable(reason.text, retry_s=reason.retry_s))

    async def _within(self, timeout_s: float, waiting: Deferred[T]) -> bool:
        """Wait for `waiting`, for `timeout_s` at most; return whether it finished in time."""
        try:
            await waiting.addTimeout(timeout_s, self._reactor)
        except (NotInTime, CancelledError):
            return False
        return True

    def _farewell(self) -> CloseReason:
        """Return the close reason for one client, with jitter in its retry time."""
        limits = self._config.limits
        retry_s = limits.retry_s + self._random() * limits.reconnect_spread_s
        return CloseReason(CloseCause.STOPPING, "the server is going away", retry_s)

    async def _close_store(self) -> None:
        """Write pending events and close the store; abandon it if the disk does not respond in time."""
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
    """Return the names of `options` on one line, at most `_MOST_LISTED` of them."""
    more = f" and {len(options) - _MOST_LISTED} more" if len(options) > _MOST_LISTED else ""
    return ", ".join(options[:_MOST_LISTED]) + more


def _check_site(config: Config) -> None:
    """Raise `StartFailed` if ``[site] root`` is not a directory."""
    if config.site.root is not None and not Path(config.site.root).is_dir():
        raise StartFailed(f"[site] root = {config.site.root}: not a directory")
