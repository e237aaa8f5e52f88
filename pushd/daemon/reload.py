"""Reload: reads the configuration and every file that it names again, and applies them, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.config import Config, changed_options, fixed_differences
from pushd.daemon.assembly import reconfigure
from pushd.daemon.components import Components
from pushd.daemon.file_limits import plan
from pushd.daemon.integrations import Commit, Integrations
from pushd.daemon.pages import check_site
from pushd.errors import ConfigError, StartFailed
from pushd.server import Port

__all__ = ["Reloader"]

_log = Logger()

_MOST_LISTED = 20
"""Maximum number of options named in one log line after a reload."""


class Reloader:
    """The running configuration, and its replacement by that of the file.

    ========  ========================================  ==============================
    State     ``config``                                ``note``
    ========  ========================================  ==============================
    current   that of the file                          empty
    rejected  that before the last reload, which failed  the error
    partial   that of the file                          the options that need a restart
    ========  ========================================  ==============================

    Each reload leads to any of the states; the daemon starts as ``current``.
    """

    def __init__(
        self,
        config: Config,
        parts: Components,
        ports: Sequence[Port],
        reactor: IReactorTime,
        *,
        reread: Callable[[], Config],
        reach: Callable[[Config], tuple[Integrations, Commit]],
    ) -> None:
        """Apply what `reread` and `reach` return to `parts` and `ports`, which were made from `config`."""
        self.config = self._started_with = config
        """The running configuration."""
        self.note = ""
        """Why the running configuration differs from the file, for the status."""
        self.log_from: Callable[[str], None] = lambda level: None
        """Set the level of the log."""
        self._parts = parts
        self._ports = ports
        self._reactor = reactor
        self._reread = reread
        self._reach = reach

    def reload(self) -> None:
        """Read everything again and apply it; on an error, change nothing and log the error."""
        try:
            config, integrations, commits = self._read_again()
        except (ConfigError, StartFailed) as error:
            _log.error("not reloaded, everything stays as it was: {error}", error=error)
            self.note = f"; not reloaded: {error}"
            return
        self.note = ""
        before, self.config = self.config, config
        for commit in commits:
            commit()
        notifier = self._parts.presence.notifier
        reconfigure(self._parts, config, integrations, self._reactor)
        if notifier is not None and notifier is not integrations.notifier:
            Deferred.fromCoroutine(notifier.close(before.hooks.retry_for_s)).addErrback(_reload_failed)
        for port in self._ports:
            port.set_silence(config.limits.silence_s)
        self._log_changes(changed_options(before, config), fixed_differences(self._started_with, config))
        if (complaint := plan(config).complaint) not in (None, plan(before).complaint):
            _log.warn("{line}", line=complaint)
        self.log_from(config.log.level)

    def _read_again(self) -> tuple[Config, Integrations, list[Commit]]:
        """Read all again, and return it with the calls that apply it; raise `ConfigError` or `StartFailed`."""
        config = self._reread()
        check_site(config)
        integrations, commit = self._reach(config)
        commits = [commit]
        listeners = {listener.name: listener for listener in config.listeners}
        for port in self._ports:
            listener = listeners.get(port.listener.name)
            if listener is not None and listener.tls == port.listener.tls:
                now = port.listener
                commits.append(port.renewed(replace(listener, endpoint=now.endpoint, serves=now.serves)))
        return config, integrations, commits

    def _log_changes(self, changed: list[str], fixed: list[str]) -> None:
        """Log the options `changed` by a reload; `fixed` are those that need a restart."""
        applied = [option for option in changed if option not in fixed]
        text = f"reloaded the configuration{': applied ' if applied else ''}{_listed(applied)}"
        if fixed:
            self.note = f"; restart pushd to apply {_listed(fixed)}"
            _log.warn("{line}", line=text + self.note)
        else:
            _log.info("{line}", line=text)


def _listed(options: list[str]) -> str:
    """Return the names of `options` on one line, at most `_MOST_LISTED` of them."""
    more = f" and {len(options) - _MOST_LISTED} more" if len(options) > _MOST_LISTED else ""
    return ", ".join(options[:_MOST_LISTED]) + more


def _reload_failed(failure: Failure) -> None:
    _log.failure("a fault in pushd after it reloaded its configuration", failure)
