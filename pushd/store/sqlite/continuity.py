"""Continuity: finding out whether the store is all that was acknowledged, or clients know of more.

Positions that clients hold must not come to mean something else. They would if the store lost its end: an older
copy was put back, or the machine lost its power before everything was on the disk. These tell:

- The seal, a number that is in the store and in a file beside it, and grows now and then. In an older copy
  of the store it is behind.
- When the file of the seal was changed (its ctime, which nobody can set), which the store knows. If a copy was
  written over both files, that of the seal has another one.
- The inode of the file, which the store knows. A copy has another one, even if the seal was copied with it.
- The id of the kernel's boot. If it is another one, and not everything was on the disk, the end may be lost.
- The mark (`pushd.store.sqlite.watermark`): what was acknowledged. If some of that is missing, the store says
something else.

After any of these the log gets a new epoch, and every older position is answered as not recovered.
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
    """What the store says of itself."""

    seal: int
    """As it was written last."""

    sealed_s: int
    """When the file of the seal was changed, in seconds since 1970; 0 if that is not known."""

    inode: int
    """Of its file."""

    boot: str
    """The id of the boot in which it was written."""

    is_safe: bool
    """True if everything that was acknowledged is on the disk."""


def new_epoch() -> str:
    """Return a new epoch."""
    return "".join(secrets.choice(_EPOCH_ALPHABET) for _ in range(10))


def boot_id() -> str:
    """Return what stands for this boot of the machine; empty if the kernel does not say."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def doubt(marks: ContinuityMarks, database: Path, directory: Path) -> str | None:
    """Return why something that was acknowledged may be missing in the store; None if nothing is."""
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
    """Return the seal beside the store, None if there is none."""
    try:
        return int((directory / _FILE_NAME).read_text("ascii").removesuffix(_WITH_MARK))
    except (OSError, ValueError):
        return None


def remove_seal(directory: Path) -> None:
    """Remove the seal beside the store, which gets a new epoch by that; raise `OSError` if that cannot be done.

    It waits until that is on the disk.
    """
    (directory / _FILE_NAME).unlink(missing_ok=True)
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def has_mark(directory: Path) -> bool:
    """Return whether the store was left by a pushd that writes a mark; before 0.2 there was none."""
    try:
        return (directory / _FILE_NAME).read_text("ascii").endswith(_WITH_MARK)
    except (OSError, ValueError):
        return False


def next_seal(stored: int, directory: Path) -> int:
    """Return the seal to go on with: a new one, unless the last one has not come into its file."""
    seal = read_seal(directory)
    return stored if seal == stored - 1 else max(stored, seal or 0) + 1


def write_seal(directory: Path, seal: int) -> int:
    """Replace the seal beside the store; answer when that was, for the store to know.

    It waits until the seal is on the disk: without it nothing is believed.
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
    return int(os.stat(path).st_ctime)  # not all file systems know more than seconds
