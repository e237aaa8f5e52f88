"""Unix sockets: replace the one that a killed daemon left, and leave that of a living one alone."""

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
"""How long a directory is waited for that another program has locked."""


@implementer(IStreamServerEndpoint)
class UnixEndpoint:
    """The endpoint of a socket in the file system.

    There is no lock file beside it: the directory is locked while it is decided whether somebody listens, and until
    this daemon does. So of several that start at once, one gets the socket.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, path: str) -> None:
        """Listen with `endpoint`, at `path`, which must not be one with a lock file."""
        self._endpoint = endpoint
        self._path = os.path.abspath(path)

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Begin to listen, at once; raise `OSError` if somebody does already."""
        with _locked(os.path.dirname(self._path)):
            _remove_stale(self._path)
            listening: Deferred[IListeningPort] = self._endpoint.listen(factory)
            return listening


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Have the directory locked among pushd's own as long as the context lasts."""
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
    """Remove a socket that nobody listens at; raise `OSError` if that is not what is at `path`."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(EADDRINUSE, f"{path} exists, and is not a socket; remove it, or use another path")
    if found.st_uid != os.geteuid():
        raise OSError(EADDRINUSE, f"{path} belongs to another user, number {found.st_uid}; remove it")
    with closing(socket(AF_UNIX, SOCK_STREAM)) as probe:
        probe.setblocking(False)  # the queue of somebody who listens may be full, which is an error then
        if probe.connect_ex(path) == ECONNREFUSED:
            os.unlink(path)
            return
    raise OSError(EADDRINUSE, "another program listens there")


def keep_file(port: IListeningPort, found: os.stat_result | None) -> bool:
    """Have `port` leave the file at its path when it closes, if that is not `found`, which it made; return whether.

    Twisted removes whatever is there then, such as the socket of the next daemon. Relies on a private name of
    Twisted's, and on its taking a path that begins with NUL for one outside of the file system.
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
