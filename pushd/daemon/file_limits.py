"""How the files that may be open (``ulimit -n``) are divided among what clients occupy."""

from __future__ import annotations

from dataclasses import dataclass
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
from urllib.parse import urlsplit

from pushd.config import Config

__all__ = ["Plan", "plan"]

_SPARE_FILES = 128
"""How many files are left for everything else.

64 connections that are told why they are not served, 32 of listeners for operations, 12 of the process (standard
streams, epoll, log, pid file), 5 of the store, 10 look-ups of names, and 5 others: listeners, key sets that are
fetched, and the connection for notifications.
"""

_OTHERS = 5
"""How many listeners and key sets are in `_SPARE_FILES`; for each more there is one file more."""

_MAX_IDLE = 100
"""How many idle connections to each host of the application are kept (`pushd.auth.webhooks.client`)."""

_MAX_SITE_FILES = 4096
"""How many large files of the site are sent at once, if there are descriptors for any number."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many there may be of everything that takes a descriptor for a client."""

    files: int | None
    """How many files may be open; None: any number."""

    connections: int
    """Connections of clients; 0: any number."""

    questions: int
    """Questions to the application that wait for an answer, each with a connection of its own."""

    site_files: int
    """Large files of the site that are being sent."""

    complaint: str | None = None
    """What does not fit, and what to do about it."""

    @property
    def summary(self) -> str:
        """How many connections there may be, and how many files, of which each of them is one."""
        most = f"at most {self.connections}" if self.connections else "any number of"
        files = "any number of" if self.files is None else self.files
        return f"{most} connections at once: {files} files may be open"


def plan(config: Config) -> Plan:
    """Divide the files that may be open.

    Of those that are not spare, questions to the application get up to a quarter, large files of the site an
    eighth, and connections the others, or as many as ``[limits] connections`` says.
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
        # an idle connection is used before another is made, so those to one host are questions that wait no more
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
