"""systemd: readiness, status and watchdog notifications, and inherited sockets.

A notification is one datagram (sd_notify(3)) to the socket named by the environment variable ``NOTIFY_SOCKET``.
Without it, notifications do nothing. No function here raises.
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
"""Interval of status notifications, in seconds."""

_STEP_S = 30
"""Timeout requested for each step of a start, in seconds; a step takes about 0.1 s."""

_MAX_STATUS = 1000
"""Maximum length of a status, in characters."""

_SEND_TIMEOUT = struct.pack("ll", 1, 0)
"""Send timeout for notifications that must not be lost: one second, as a timeval."""


class Systemd:
    """The service manager that started the daemon, if one did."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        pid: int | None = None,
        nanoseconds: Callable[[], int] = lambda: clock_gettime_ns(CLOCK_MONOTONIC),
    ) -> None:
        """Read `environ`; `pid` is this process, and `nanoseconds` the monotonic clock."""
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._nanoseconds = nanoseconds
        self._socket: socket | None = None
        self._status = ""
        self.watchdog_s = _watchdog_s(environ, os.getpid() if pid is None else pid)
        """Watchdog timeout, after which systemd kills the daemon, in seconds; 0: no watchdog."""
        self.sockets = _sockets(environ)
        """Names of the listening sockets passed by systemd, in order."""

    def ready(self) -> None:
        """Notify that the start or a reload is complete."""
        self._tell("READY=1")

    def starting(self, channels: int) -> None:
        """Notify of progress of the start, with the number of restored channels; request another 30 seconds."""
        self._tell(f"EXTEND_TIMEOUT_USEC={_STEP_S * 1_000_000}\nSTATUS=restored {channels} channels")

    def reloading(self) -> None:
        """Notify that a reload begins; call `ready` when it is complete."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={self._nanoseconds() // 1000}")

    def stopping(self, timeout_s: float) -> None:
        """Notify that the daemon stops; request `timeout_s` for it, whatever the unit sets."""
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(timeout_s * 1_000_000)}")

    def failed(self, error: Exception) -> None:
        """Notify why the start failed, with the errno that caused it, if any; then close the socket."""
        number = _errno(error)
        self._tell(f"STATUS={_line(str(error))}" + (f"\nERRNO={number}" if number else ""))
        self.close()

    def status(self, text: str) -> None:
        """Notify of the state of the daemon, in one line, if it changed."""
        if text != self._status and self._tell(f"STATUS={_line(text)}", waits=False):
            self._status = text

    def alive(self) -> None:
        """Ping the watchdog."""
        self._tell("WATCHDOG=1", waits=False)

    def close(self) -> None:
        """Close the notification socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, state: str, *, waits: bool = True) -> bool:
        """Send one datagram; return whether it was sent. If the socket is full, wait one second, or not at all."""
        if self._address is None:
            return False
        try:
            if self._socket is None:  # kept open, to work at the file limit too
                self._socket = socket(AF_UNIX, SOCK_DGRAM)
                self._socket.setsockopt(SOL_SOCKET, SO_SNDTIMEO, _SEND_TIMEOUT)
            self._socket.sendto(state.encode("utf-8", "replace"), 0 if waits else MSG_DONTWAIT, self._address)
        except OSError as error:
            if waits:
                _log.warn(
                    "could not tell systemd {state}: {reason}", state=state.split("=")[0], reason=error.strerror
                )
            return False
        return True


class SystemdStatus:
    """Sends the status regularly, and pings the watchdog from the reactor."""

    def __init__(self, systemd: Systemd, reactor: IReactorTime, counters: Callable[[], str]) -> None:
        """Send the line that `counters` returns."""
        self._systemd = systemd
        self._counters = counters
        self._signs, self._statuses = LoopingCall(systemd.alive), LoopingCall(self.issue)
        self._signs.clock = self._statuses.clock = reactor

    def start(self) -> None:
        """Start; ping the watchdog twice per watchdog timeout."""
        if self._systemd.watchdog_s:
            self._signs.start(self._systemd.watchdog_s / 2).addErrback(_failed)
        self._statuses.start(_STATUS_EVERY_S).addErrback(_failed)

    def issue(self) -> None:
        """Send the status now."""
        self._systemd.status(self._counters())

    def stop(self) -> None:
        """Stop."""
        for loop in self._signs, self._statuses:
            if loop.running:
                loop.stop()


def _failed(failure: Failure) -> None:
    _log.failure("a fault in pushd, in what is told systemd", failure)


def _address(text: str) -> bytes | None:
    """Return the address of the socket: a path or, with ``@``, an abstract name; None: no socket."""
    address = os.fsencode(text)
    if address[:1] not in (b"/", b"@"):
        return None
    return b"\0" + address[1:] if address[:1] == b"@" else address


def _watchdog_s(environ: Mapping[str, str], pid: int) -> float:
    """Return the watchdog timeout in seconds, as sd_watchdog_enabled(3) defines it; 0: none."""
    try:
        is_meant = int(environ.get("WATCHDOG_PID", pid)) == pid
        period_us = int(environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return 0
    return period_us / 1_000_000 if is_meant and 0 < period_us < 2**64 - 1 else 0


def _sockets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the sockets passed to this process.

    Twisted has already read their number, and removed ``LISTEN_PID`` if it was this process. It keeps the names.
    """
    names = environ.get("LISTEN_FDNAMES", "")
    return tuple(names.split(":")) if names and "LISTEN_PID" not in environ else ()


def _line(text: str) -> str:
    """Return `text` as one line: a second line would be another assignment of the notification."""
    return " ".join(text.split())[:_MAX_STATUS]


def _errno(error: BaseException | None) -> int:
    """Return the errno of the `OSError` that caused `error`, or 0."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return 0 if error is None else error.errno or 0
