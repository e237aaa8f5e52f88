"""A part of systemd: what starts a daemon, hears how it is, and has sockets that outlive it."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import monotonic

from tests.e2e.daemon import Daemon, running
from tests.e2e.programs import eventually

__all__ = ["Systemd", "Told", "listening", "supervised"]

_START = """
import fcntl, os, sys

copies = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in sys.argv[1].split(",") if number]
for place, copy in enumerate(copies, 3):
    os.dup2(copy, place)
os.closerange(3 + len(copies), 4096)
for name in "LISTEN_PID", "WATCHDOG_PID":
    if name in os.environ:
        os.environ[name] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the daemon, with its number in its environment, and its descriptors from 3 on (sd_listen_fds(3))."""


@dataclass(frozen=True, slots=True)
class Told:
    """One datagram that came from the daemon."""

    time: float
    """When it came, by the clock that never jumps."""

    text: str
    """What it says."""

    @property
    def keys(self) -> list[str]:
        """What it is about."""
        return [line.partition("=")[0] for line in self.text.splitlines()]


class Systemd:
    """Hears what the daemon tells."""

    def __init__(self, directory: Path, at_ready: Callable[[], None]) -> None:
        """Listen in `directory`, and call `at_ready` as soon as the daemon says that it is ready."""
        self.address = str(directory / "notify")
        self.told: list[Told] = []
        """What was told, in order."""
        self._at_ready = at_ready
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._thread = Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while text := self._socket.recv(65536).decode():
            if text == "READY=1":
                self._at_ready()
            self.told.append(Told(monotonic(), text))

    def about(self, *keys: str) -> list[Told]:
        """Return what was told about one of `keys`."""
        return [told for told in list(self.told) if set(told.keys) & set(keys)]

    @property
    def states(self) -> list[str]:
        """What the daemon said of its life, in order."""
        names = "READY", "RELOADING", "STOPPING"
        return [key for told in list(self.told) for key in told.keys if key in names]

    def wait_for(self, *states: str) -> None:
        """Wait until what the daemon said of its life is `states`."""
        eventually(lambda: self.states == list(states), f"it has told {states}, after {self.states}")

    def close(self) -> None:
        """End."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self.address)
        self._thread.join(10)
        self._socket.close()


@contextmanager
def supervised(
    sections: str = "",
    *,
    sockets: Mapping[str, socket.socket] | None = None,
    watchdog_s: float = 0,
    at_ready: Callable[[], None] = lambda: None,
    through: Sequence[str] = (),
    **options: object,
) -> Iterator[tuple[Daemon, Systemd]]:
    """Run a daemon as systemd does: it is told where to say how it is, and is given `sockets` by their names.

    `through` is a command that becomes the daemon.
    """
    given = dict(sockets or {})
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="systemd-")))
        systemd = Systemd(directory, at_ready)
        stack.callback(systemd.close)
        variables = {"NOTIFY_SOCKET": systemd.address, "PYTHONFAULTHANDLER": "1"}
        if watchdog_s:
            variables |= {"WATCHDOG_USEC": str(int(watchdog_s * 1_000_000)), "WATCHDOG_PID": ""}
        if given:
            variables |= {"LISTEN_FDS": str(len(given)), "LISTEN_FDNAMES": ":".join(given), "LISTEN_PID": ""}
        numbers = [it.fileno() for it in given.values()]
        started_by = [sys.executable, "-c", _START, ",".join(map(str, numbers)), *through]
        daemon = stack.enter_context(
            running(
                sections,
                variables=variables,
                started_by=started_by,
                descriptors=numbers,
                **options,  # type: ignore[arg-type]  # those of `running`
            )
        )
        yield daemon, systemd


def listening(address: str | tuple[str, int], family: int = socket.AF_INET, backlog: int = 4096) -> socket.socket:
    """Open a socket as a socket unit does."""
    opened = socket.socket(family)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind(address)
    opened.listen(backlog)
    return opened
