"""The lock of the state directory: one process uses it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from pushd.errors import StartFailed

__all__ = ["lock"]


def lock(directory: Path) -> IO[str]:
    """Lock the state directory until this process ends; raise `StartFailed` if another process has locked it."""
    path = directory / "pushd.lock"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(path, "a+", encoding="ascii")  # noqa: SIM115  held for as long as the process lives
    except OSError as error:
        raise StartFailed(f"{path}: cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        pid = file.read(20).strip()
        file.close()
        raise StartFailed(
            f"another pushd{f', process {pid},' if pid.isdecimal() else ''} uses the state directory {directory}; "
            "stop it, or give this one its own, see [pushd] state_directory"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
