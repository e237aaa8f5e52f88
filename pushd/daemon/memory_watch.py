"""The watch over memory: asks the kernel whether there is more, and logs when there is not.

It knows the limits of the process (``ulimit -v``, ``prlimit --as``) and of a machine that does not overcommit. It
cannot know that of a control group: there the kernel ends a process without asking it.
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
    """Return whether the kernel gives the process `size` bytes more.

    They are given back untouched. malloc is not asked: it would keep them, and change its thresholds.
    """
    try:
        mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS).close()
    except (OSError, MemoryError, OverflowError):
        return False
    return True


def watch(memory: Headroom, reactor: Any) -> LoopingCall:
    """Let `memory` know; return what has it look again, once it is started."""
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
