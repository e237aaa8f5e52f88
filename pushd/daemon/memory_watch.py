"""The memory watch: checks whether the kernel grants more memory, and logs when it does not.

It detects the limits of the process (``ulimit -v``, ``prlimit --as``) and of a machine without overcommit. It
cannot detect the limit of a control group: there, the kernel kills the process without a failed allocation.
"""

from __future__ import annotations

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pushd.bus import ENOUGH_BYTES, Headroom

__all__ = ["can_have", "watch"]

_log = Logger()


def can_have(size: int) -> bool:
    """Return whether the kernel grants the process `size` more bytes.

    They are released untouched. malloc is not used: it would keep the memory, and change its thresholds.
    """
    try:
        mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS).close()
    except (OSError, MemoryError, OverflowError):
        return False
    return True


def watch(memory: Headroom, reactor: Any) -> LoopingCall:
    """Connect `memory` to the kernel and the log; return the loop, not yet started, that repeats the check."""
    memory.ask, memory.changed = can_have, _changed
    memory.look()
    looks = LoopingCall(memory.look)
    looks.clock = reactor
    return looks


def _changed(is_short: bool) -> None:
    if is_short:
        _log.warn(
            "memory is short: less than {size} MiB can be had, see the limits of the process",
            size=ENOUGH_BYTES >> 20,
        )
    else:
        _log.info("memory is not short any more")
