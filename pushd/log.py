"""The log: twistd's, with the lines below a level left out. It relies on private names of twistd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogLevel,
    LogLevelFilterPredicate,
)
from twisted.scripts._twistd_unix import UnixAppLogger

__all__ = ["leveled_observer"]


def leveled_observer(twistd_options: Mapping[str, Any], level: str) -> ILogObserver:
    """Answer an observer that writes the lines of `level` and above.

    They go where twistd's own options say: a file, syslog or standard output.
    """
    observer = UnixAppLogger(twistd_options)._getLogObserver()
    if not ILogObserver.providedBy(observer):
        observer = LegacyLogObserverWrapper(observer)
    predicate = LogLevelFilterPredicate(defaultLogLevel=LogLevel.levelWithName(level))
    filtered: ILogObserver = FilteringLogObserver(observer, [predicate])
    return filtered
