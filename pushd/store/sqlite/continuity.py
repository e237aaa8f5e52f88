"""Continuity: detect whether the store lacks acknowledged events.

The positions that clients hold must keep their meaning. They lose it if the store loses its end: an older copy was
restored, or power failed before everything was on the disk. Five checks detect this:

- The seal: a number in the store and in a file beside it, which grows now and then. An older copy of the store
  has an older seal.
- The ctime of the seal file, which no program can set; the store records it. If both files were overwritten by
  a copy, the seal file has another ctime.
- The inode of the store file, which the store records. A copy has another inode, even if the seal was copied, too.
- The kernel's boot id. After a reboot, if not everything was on the disk, the end may be lost.
- The mark (`pushd.store.sqlite.watermark`): a summary of the acknowledged transactions. If some are missing,
  the store has another summary.

If any check fails, the log gets a new epoch, and every older position is reported as not recovered.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ContinuityMarks",
    "boot_id",
    "doubt",
    "has_mark",
    "new_epoch",
    "next_seal",
    "read_seal",
    "remove_seal",
    "write_seal",
]

_EPOCH_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FILE_NAME = "pushd.seal"
_WITH_MARK = " marked\n"


@dataclass(frozen=True, slots=True)
class ContinuityMarks:
    """The continuity data in the store."""

    seal: int
    """The seal written last."""

    sealed_s: int
    """The ctime of the seal file, in seconds since 1970; 0 if unknown."""

    inode: int
    """The inode of the store file."""

    boot: str
    """The id of the boot in which the store was last opened."""

    is_safe: bool
    """True if everything acknowledged is on the disk."""


def new_epoch() -> str:
    """Return a new epoch."""
    return "".join(secrets.choice(_EPOCH_ALPHABET) for _ in range(10))


def boot_id() -> str:
    """Return the kernel's boot id; empty if unavailable."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def doubt(marks: ContinuityMarks, database: Path, directory: Path) -> str | None:
    """Return why acknowledged events may be missing in the store; None if there is no doubt."""
    seal = read_seal(directory)
    if seal is None:
        return f"{directory / _FILE_NAME} is missing"
    if seal not in (marks.seal, marks.seal - 1):
        return "it is an older copy"
    if marks.sealed_s and seal == marks.seal and _changed_s(directory / _FILE_NAME) != marks.sealed_s:
        return f"{directory / _FILE_NAME} was put there by somebody else"
    if os.stat(database).st_ino != marks.inode:
        return "its file is a copy"
    boot = boot_id()
    if not marks.is_safe and (boot != marks.boot or not boot):
        return "the machine was started anew before everything was on the disk"
    return None


def read_seal(directory: Path) -> int | None:
    """Return the number in the seal file, None if it is missing or malformed."""
    try:
        return int((directory / _FILE_NAME).read_text("ascii").removesuffix(_WITH_MARK))
    except (OSError, ValueError):
        return None


def remove_seal(directory: Path) -> None:
    """Remove the seal file, so that the store begins a new epoch; raise `OSError` on failure.

    Wait until the removal is on the disk.
    """
    (directory / _FILE_NAME).unlink(missing_ok=True)
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def has_mark(directory: Path) -> bool:
    """Return whether the store was last used by a pushd that writes a mark; before 0.2 there was none."""
    try:
        return (directory / _FILE_NAME).read_text("ascii").endswith(_WITH_MARK)
    except (OSError, ValueError):
        return False


def next_seal(stored: int, directory: Path) -> int:
    """Return the next seal: a new one, unless the last one was not written to the seal file."""
    seal = read_seal(directory)
    return stored if seal == stored - 1 else max(stored, seal or 0) + 1


def write_seal(directory: Path, seal: int) -> int:
    """Replace the seal file; return its ctime in seconds, which the store records.

    Wait until the seal is on the disk: without the seal, the store is not trusted.
    """
    path = directory / _FILE_NAME
    new = path.with_suffix(".new")
    with open(new, "w", encoding="ascii") as file:
        file.write(f"{seal}{_WITH_MARK}")
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    return _changed_s(path)


def _changed_s(path: Path) -> int:
    return int(os.stat(path).st_ctime)  # not all file systems have a finer resolution
