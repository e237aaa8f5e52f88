"""Division of the file limit (``ulimit -n``) among connections, webhooks and files of the site."""

from __future__ import annotations

from dataclasses import dataclass
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
from urllib.parse import urlsplit

from pushd.config import Config

__all__ = ["Plan", "plan"]

_SPARE_FILES = 128
"""Number of files reserved for everything else.

64 connections being rejected, 32 of admin listeners, 12 of the process (standard streams, epoll, log, pid file), 5
of the store, 10 name look-ups, and 5 others: listeners, fetched key sets, and the connection for notifications.
"""

_OTHERS = 5
"""Number of listeners and key sets included in `_SPARE_FILES`; each further one adds a file."""

_MAX_IDLE = 100
"""Maximum number of idle connections to each host of the application (`pushd.auth.webhooks.client`)."""

_MAX_SITE_FILES = 4096
"""Maximum number of large files of the site sent at once, however many files may be open."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Limits for everything that uses a file descriptor for a client."""

    files: int | None
    """File limit of the process; None: unlimited."""

    connections: int
    """Connections of clients; 0: unlimited."""

    questions: int
    """Pending authorization webhooks, each with its own connection."""

    site_files: int
    """Large files of the site sent at once."""

    complaint: str | None = None
    """Options that exceed the file limit, with the remedy; None: everything fits."""

    @property
    def summary(self) -> str:
        """The connection limit and the file limit, in one line."""
        most = f"at most {self.connections}" if self.connections else "any number of"
        files = "any number of" if self.files is None else self.files
        return f"{most} connections at once: {files} files may be open"


def plan(config: Config) -> Plan:
    """Return the division of the file limit of the process.

    Of the files not reserved, authorization webhooks get up to a quarter, large files of the site an eighth, and
    connections the rest, or the number in ``[limits] connections``.
    """
    files, _ = getrlimit(RLIMIT_NOFILE)
    hooks, connections = config.hooks, config.limits.connections
    if files == RLIM_INFINITY:
        return Plan(None, connections, hooks.questions, _MAX_SITE_FILES)
    free = max(files - _spare(config), files // 2)
    site_files = max(1, min(_MAX_SITE_FILES, free // 8))
    for_site = site_files if config.site.root is not None else 0
    asked = [url for url in (hooks.before_connect, hooks.before_subscribe, hooks.before_publish) if url is not None]
    hosts = {urlsplit(url).netloc for url in (*asked, hooks.after) if url is not None}
    questions, idle = hooks.questions, 0
    if asked:
        # idle connections are reused first, so those to one host are within the number of webhooks
        idle = min(_MAX_IDLE, free // 16) * (len(hosts) - 1)
        left = free - for_site - idle - connections if connections else 0
        questions = max(1, min(questions, max(left, free // 4)))
    for_questions = questions + idle if asked else 0
    most = connections or max(1, free - for_site - for_questions)
    return Plan(
        files,
        most,
        questions,
        site_files,
        _complaint(config, files, most + for_site + for_questions + files - free, questions),
    )


def _spare(config: Config) -> int:
    key_sets = sum(1 for key in config.keys if key.jwks_url is not None)
    return _SPARE_FILES + max(0, len(config.listeners) + key_sets + 1 - _OTHERS)


def _complaint(config: Config, files: int, needed: int, questions: int) -> str | None:
    what = []
    if needed > files:
        what.append(f"[limits] connections = {config.limits.connections} wants {needed} files in all")
    if questions < config.hooks.questions:
        what.append(f"there is room for {questions} of [hooks] questions = {config.hooks.questions}")
    if not what:
        return None
    return f"only {files} files may be open: {', and '.join(what)}; raise ulimit -n (with systemd, LimitNOFILE=)"
