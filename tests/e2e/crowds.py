"""Thousands of clients in one process that do the same thing in the same moment: each a socket and a few bytes."""

from __future__ import annotations

import resource
import selectors
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from urllib.parse import urlsplit

from tests.e2e.daemon import Daemon

__all__ = ["Crowd", "all_at_once", "may_open"]

_SETTLE_S = 60.0
"""How long all of them may take, on a busy machine."""


def may_open(files: int) -> bool:
    """Raise how many files may be open to `files`; return whether that is possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        return False
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return True


@contextmanager
def all_at_once(daemon: Daemon) -> Iterator[None]:
    """Hold the daemon; when it goes on, everything that was done meanwhile has happened in one moment for it."""
    daemon.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        daemon.signal(signal.SIGCONT)


class Crowd:
    """So many connections to the listener at `url`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 0)
        self.clients: list[socket.socket] = []

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *exception: object) -> None:
        self.leave()

    def come(self, count: int) -> None:
        """Connect so many more; the kernel does it by itself as far as the port's backlog goes."""
        for _ in range(count):
            client = socket.create_connection(self._address, 30)
            client.setblocking(False)
            self.clients.append(client)

    def say(self, *texts: bytes) -> None:
        """Send one of `texts` from each, in turn."""
        for number, client in enumerate(self.clients):
            with suppress(OSError):
                client.send(texts[number % len(texts)])

    def leave(self) -> None:
        """Disconnect all."""
        for client in self.clients:
            client.close()
        self.clients = []

    def hear(self, is_enough: Callable[[bytes], bool], *, seconds: float = _SETTLE_S) -> Sequence[bytes]:
        """Read until each has heard enough or was disconnected; return what each has heard."""
        heard = dict.fromkeys(self.clients, b"")
        end = monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for one in self.clients:
                selector.register(one, selectors.EVENT_READ, one)
            while selector.get_map():
                assert monotonic() < end, f"{len(selector.get_map())} of {len(heard)} have not heard enough"
                for key, _ in selector.select(1):
                    client: socket.socket = key.data
                    try:
                        data = client.recv(65536)
                    except BlockingIOError:
                        continue
                    except OSError:
                        data = b""
                    heard[client] += data
                    if not data or is_enough(heard[client]):
                        selector.unregister(client)
        return list(heard.values())

    def until_let_in(self, daemon: Daemon, count: int | None = None) -> None:
        """Wait until the daemon has as many connections (and the one that asks)."""
        wanted = len(self.clients) if count is None else count
        end = monotonic() + _SETTLE_S
        while abs(daemon.get("/healthz")["connections"] - wanted) > 1:
            assert monotonic() < end
            sleep(0.05)
