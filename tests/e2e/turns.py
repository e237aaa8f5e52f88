"""The longest turn of a real daemon, as `tests.e2e.measured_twistd` measures it."""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ["SCRIPT", "Turns"]

SCRIPT = Path(__file__).with_name("measured_twistd.py")
"""What runs twistd."""

_FIGURES = struct.Struct("<3q")


class Turns:
    """How long the turns of one daemon have been since the last `reset`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        """The file that the daemon writes to."""
        self.reset()

    def reset(self) -> None:
        """Begin anew. The file keeps its place, because the daemon has it mapped."""
        with open(self.path, "r+b" if self.path.exists() else "wb") as file:
            file.write(_FIGURES.pack(0, 0, 0))

    def _counters(self) -> tuple[int, int, int]:
        cpu, wall, turns = _FIGURES.unpack(self.path.read_bytes())
        return cpu, wall, turns

    @property
    def longest_ms(self) -> float:
        """The most CPU time of the reactor's thread in one turn: does not depend on what else the machine does."""
        return self._counters()[0] / 1e6

    @property
    def longest_wall_ms(self) -> float:
        """The longest turn by the clock: has what waits for the disk, and for the machine."""
        return self._counters()[1] / 1e6

    @property
    def count(self) -> int:
        """How many turns there were."""
        return self._counters()[2]
