"""A log that does not grow with what others do: a line a second of each kind."""

from __future__ import annotations

from functools import partial

from twisted.logger import Logger

from pushd.wheel import Wheel

__all__ = ["Sparing"]


class Sparing:
    """Logs the first of what happens often, and then every second how many there were."""

    def __init__(self, log: Logger, wheel: Wheel) -> None:
        """Write to `log`."""
        self._log = log
        self._wheel = wheel
        self._left_out: dict[str, int] = {}

    def info(self, kind: str, text: str, **fields: object) -> None:
        """Log `text` with its `fields`, unless something of that `kind` was logged in this second."""
        if kind in self._left_out:
            self._left_out[kind] += 1
            return
        self._log.info(text, **fields)
        self._left_out[kind] = 0
        self._wheel.call_in(1, partial(self._look, kind, text, fields))

    def _look(self, kind: str, text: str, fields: dict[str, object]) -> None:
        count = self._left_out[kind]
        if not count:
            del self._left_out[kind]
            return
        self._log.info(text + ", and {count} more like this", count=count, **fields)
        self._left_out[kind] = 0
        self._wheel.call_in(1, partial(self._look, kind, text, fields))
