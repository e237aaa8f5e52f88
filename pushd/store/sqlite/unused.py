"""Invalidate an existing store that is not used because events are kept in memory."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from twisted.logger import Logger

from pushd.errors import StartFailed
from pushd.store.sqlite import continuity
from pushd.store.sqlite.database import FILE_NAME
from pushd.store.sqlite.lock import lock

__all__ = ["leave"]

_log = Logger()


def leave(directory: Path) -> None:
    """Let the store in `directory`, if any, begin a new epoch when it is used again.

    Call it when events are kept in memory instead: the store lacks them, so a client that missed them must not be
    reported as recovered. A store that another daemon uses is unchanged.
    """
    path = directory / FILE_NAME
    if not path.exists() or continuity.read_seal(directory) is None:
        return
    try:
        held = lock(directory)
    except StartFailed:
        return
    with closing(held):
        try:
            continuity.remove_seal(directory)
        except OSError as error:
            _log.warn(
                "the store {path} is not used, and will not know of what is published now: {error}; remove the "
                "seal beside it before it is used again",
                path=str(path),
                error=error,
            )
        else:
            _log.info("the store {path} is not used; it will begin a new epoch", path=str(path))
