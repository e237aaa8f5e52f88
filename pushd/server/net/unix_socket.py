"""Unix sockets: replace the stale socket of a killed daemon, but never that of a running one."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from errno import EADDRINUSE, ECONNREFUSED
from socket import AF_UNIX, SOCK_STREAM, socket
from time import monotonic, sleep

from twisted.internet import unix
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

__all__ = ["UnixEndpoint", "keep_file"]

_PATIENCE_S = 2.0
"""How long to wait for a directory locked by another program, in seconds."""


@implementer(IStreamServerEndpoint)
class UnixEndpoint:
    """The endpoint of a socket in the file system.

    Instead of a lock file, the directory is locked from the check for a running daemon until this daemon listens.
    Of several daemons that start at once, exactly one gets the socket.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, path: str) -> None:
        """Listen with `endpoint` at `path`; `endpoint` must not use a lock file."""
        self._endpoint = endpoint
        self._path = os.path.abspath(path)

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Start listening at once; raise `OSError` if another program listens already."""
        with _locked(os.path.dirname(self._path)):
            _remove_stale(self._path)
            listening: Deferred[IListeningPort] = self._endpoint.listen(factory)
            return listening


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Hold an advisory lock on the directory, among pushd daemons, for the duration of the context."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = monotonic() + _PATIENCE_S
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if monotonic() > deadline:
                    raise OSError(EADDRINUSE, f"another program has locked the directory {directory}") from None
                sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: str) -> None:
    """Remove the stale socket at `path`, if any; raise `OSError` if `path` is in use or is not a socket."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(EADDRINUSE, f"{path} exists, and is not a socket; remove it, or use another path")
    if found.st_uid != os.geteuid():
        raise OSError(EADDRINUSE, f"{path} belongs to another user, number {found.st_uid}; remove it")
    with closing(socket(AF_UNIX, SOCK_STREAM)) as probe:
        probe.setblocking(False)  # with a full backlog, a non-blocking connect fails instead of waiting
        if probe.connect_ex(path) == ECONNREFUSED:
            os.unlink(path)
            return
    raise OSError(EADDRINUSE, "another program listens there")


def keep_file(port: IListeningPort, found: os.stat_result | None) -> bool:
    """Make `port` keep the file at its path on close if it is not `found`, its own file; return whether it is kept.

    Twisted removes any file at that path, such as the socket of the next daemon. Uses a private name, as Twisted
    has no option for it: a path that starts with NUL is abstract, outside of the file system.
    """
    if not isinstance(port, unix.Port) or found is None:
        return False
    path = port._bindPath
    try:
        is_own = os.path.samestat(found, os.lstat(path))
    except OSError:
        is_own = False
    if not is_own:
        port._bindPath = b"\0" + path
    return not is_own
