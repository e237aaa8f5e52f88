"""The pid file, locked as long as the daemon runs."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from pushd.errors import StartFailed

__all__ = ["PidFile"]

_LONGEST = 32
"""Maximum size of a pid file, in bytes."""

_OTHERS = "to run several, give each its own: twistd --pidfile=FILE, or --pidfile= for none"


class PidFile:
    """A file with the number of this process.

    Its lock (flock(2)), which ends with the process, determines whether the daemon runs. The number does not: in a
    container, a killed daemon and the next one are both process 1. The number ends with a newline, unlike in a file
    of twistd itself, so a file that ends with a newline and is not locked is stale.
    """

    def __init__(self, path: str, proc: str = "/proc") -> None:
        """Lock the file at `path`, or create it; raise `StartFailed` if a running daemon holds it.

        `proc` is the mount point of the proc file system.
        """
        self._path = os.path.abspath(path)
        self._proc = Path(proc)
        self._is_held = True
        try:
            self._file = self._locked()
        except OSError as error:
            reason = "it is a symbolic link" if os.path.islink(self._path) else error.strerror
            raise StartFailed(
                f"pid file {self._path}: cannot be used: {reason}; use another: twistd --pidfile=FILE, or "
                "--pidfile= for none"
            ) from None
        try:
            self._check()
        except StartFailed:
            os.close(self._file)
            raise

    def _locked(self) -> int:
        """Open and lock the file at the path; return its descriptor."""
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(self._path, flags, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = os.pread(file, _LONGEST, 0).strip()
                os.close(file)
                which = f", process {int(text)}," if text.isdigit() else ""
                raise StartFailed(f"another pushd{which} has the pid file {self._path}; {_OTHERS}") from None
            except OSError:
                os.close(file)
                raise
            if self._is_at_path(file):
                return file
            os.close(file)  # the daemon that held the file removed it meanwhile

    def _is_at_path(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def _check(self) -> None:
        """Raise `StartFailed` if the file is not a pid file, or belongs to another running twistd."""
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode):
            raise StartFailed(f"pid file {self._path}: not a regular file")
        if found.st_uid != os.geteuid():
            raise StartFailed(
                f"pid file {self._path}: belongs to another user, number {found.st_uid}; remove it, or use "
                "another: twistd --pidfile=FILE"
            )
        text = os.pread(self._file, _LONGEST + 1, 0)
        if text and not (text.strip().isdigit() and len(text) <= _LONGEST):
            raise StartFailed(f"pid file {self._path}: has something else than the number of a process")
        if text and not text.endswith(b"\n") and self._is_twistd(int(text)):
            raise StartFailed(f"another twistd, process {int(text)}, has the pid file {self._path}; {_OTHERS}")

    def _is_twistd(self, pid: int) -> bool:
        """Return whether process `pid` may be the twistd that wrote the file; if in doubt, return True."""
        if pid == os.getpid():
            return False
        try:
            command = (self._proc / str(pid) / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return not (self._proc / "self").exists()
        except OSError:
            return True
        return b"twist" in command

    def write(self) -> None:
        """Write the number of this process; called after twistd has forked into the background."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode("ascii"), 0)

    def remove(self) -> None:
        """Remove the file and release the lock. It is idempotent, and keeps a file of another daemon."""
        if not self._is_held:
            return
        self._is_held = False
        try:
            if self._is_at_path(self._file):
                os.unlink(self._path)
        except OSError:  # after a chroot, or without permission; an empty file counts as stale
            os.ftruncate(self._file, 0)
        os.close(self._file)
