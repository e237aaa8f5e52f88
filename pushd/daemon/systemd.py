"""systemd: what it is told of the daemon's life, and what it gave to the daemon.

Telling is sd_notify(3): a datagram to the socket that the service manager names in the environment. Where there is
none, nothing is told; nothing here raises.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from socket import AF_UNIX, MSG_DONTWAIT, SO_SNDTIMEO, SOCK_DGRAM, SOL_SOCKET, socket
from time import CLOCK_MONOTONIC, clock_gettime_ns

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["Systemd", "SystemdStatus"]

_log = Logger()

_STATUS_EVERY_S = 5
"""How often the figures are told."""

_STEP_S = 30
"""How long each step of a start may take, in seconds; it takes about 0.1."""

_MAX_STATUS = 1000
"""How many characters of a text are told."""

_PATIENCE = struct.pack("ll", 1, 0)
"""How long to wait for a service manager that does not take what must not be lost: a second, as a timeval."""


class Systemd:
    """The service manager that started the daemon, if one did."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        pid: int | None = None,
        nanoseconds: Callable[[], int] = lambda: clock_gettime_ns(CLOCK_MONOTONIC),
    ) -> None:
        """Read what it says in `environ`; `pid` is this process, and `nanoseconds` its clock."""
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._nanoseconds = nanoseconds
        self._socket: socket | None = None
        self._status = ""
        self.watchdog_s = _watchdog_s(environ, os.getpid() if pid is None else pid)
        """After how long without a sign of life the daemon is killed; 0: never."""
        self.sockets = _sockets(environ)
        """The names of the listening sockets that it passed, in order."""

    def ready(self) -> None:
        """Tell that everything works, after the start or a reload."""
        self._tell("READY=1")

    def starting(self, channels: int) -> None:
        """Tell that the start goes on, and how many channels it has restored: it may take another 30 seconds."""
        self._tell(f"EXTEND_TIMEOUT_USEC={_STEP_S * 1_000_000}\nSTATUS=restored {channels} channels")

    def reloading(self) -> None:
        """Tell that a reload begins; `ready` is to follow."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={self._nanoseconds() // 1000}")

    def stopping(self, timeout_s: float) -> None:
        """Tell that the daemon stops, and that it may take `timeout_s`, whatever the unit says."""
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(timeout_s * 1_000_000)}")

    def failed(self, error: Exception) -> None:
        """Tell why there is no start, with the number of the system's error below it, if there is one, and end."""
        number = _errno(error)
        self._tell(f"STATUS={_line(str(error))}" + (f"\nERRNO={number}" if number else ""))
        self.close()

    def status(self, text: str) -> None:
        """Tell how the daemon is, in one line, unless it is as it was."""
        if text != self._status and self._tell(f"STATUS={_line(text)}", waits=False):
            self._status = text

    def alive(self) -> None:
        """Give a sign of life."""
        self._tell("WATCHDOG=1", waits=False)

    def close(self) -> None:
        """Give back what telling takes."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, state: str, *, waits: bool = True) -> bool:
        """Send one datagram; if the service manager is behind, wait a second for it, or not at all."""
        if self._address is None:
            return False
        try:
            if self._socket is None:  # is kept, so that it can be told also when no more files can be opened
                self._socket = socket(AF_UNIX, SOCK_DGRAM)
                self._socket.setsockopt(SOL_SOCKET, SO_SNDTIMEO, _PATIENCE)
            self._socket.sendto(state.encode("utf-8", "replace"), 0 if waits else MSG_DONTWAIT, self._address)
        except OSError as error:
            if waits:
                _log.warn(
                    "could not tell systemd {state}: {reason}", state=state.split("=")[0], reason=error.strerror
                )
            return False
        return True


class SystemdStatus:
    """Tells the service manager regularly how the daemon is, and that the reactor turns."""

    def __init__(self, systemd: Systemd, reactor: IReactorTime, figures: Callable[[], str]) -> None:
        """Tell what `figures` answers, one line."""
        self._systemd = systemd
        self._figures = figures
        self._signs, self._statuses = LoopingCall(systemd.alive), LoopingCall(self.issue)
        self._signs.clock = self._statuses.clock = reactor

    def start(self) -> None:
        """Begin; the signs of life come twice as often as they must."""
        if self._systemd.watchdog_s:
            self._signs.start(self._systemd.watchdog_s / 2).addErrback(_failed)
        self._statuses.start(_STATUS_EVERY_S).addErrback(_failed)

    def issue(self) -> None:
        """Tell the figures now."""
        self._systemd.status(self._figures())

    def stop(self) -> None:
        """End."""
        for loop in self._signs, self._statuses:
            if loop.running:
                loop.stop()


def _failed(failure: Failure) -> None:
    _log.failure("a fault in pushd, in what is told systemd", failure)


def _address(text: str) -> bytes | None:
    """Return where datagrams go: a path or, with ``@``, an abstract name; None: nowhere."""
    address = os.fsencode(text)
    if address[:1] not in (b"/", b"@"):
        return None
    return b"\0" + address[1:] if address[:1] == b"@" else address


def _watchdog_s(environ: Mapping[str, str], pid: int) -> float:
    """Read the watchdog's time as sd_watchdog_enabled(3) does."""
    try:
        is_meant = int(environ.get("WATCHDOG_PID", pid)) == pid
        period_us = int(environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return 0
    return period_us / 1_000_000 if is_meant and 0 < period_us < 2**64 - 1 else 0


def _sockets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the sockets that were passed to this process.

    Twisted has read how many they are, and taken ``LISTEN_PID`` away if that was this process. It leaves the names.
    """
    names = environ.get("LISTEN_FDNAMES", "")
    return tuple(names.split(":")) if names and "LISTEN_PID" not in environ else ()


def _line(text: str) -> str:
    """Return `text` as one line: with another, it could say something else."""
    return " ".join(text.split())[:_MAX_STATUS]


def _errno(error: BaseException | None) -> int:
    """Return the number of the error of the system that led to `error`, or 0."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return 0 if error is None else error.errno or 0
