"""An `EventSource`: what a browser makes of the body of a response."""

from __future__ import annotations

import json
import re
from codecs import getincrementaldecoder
from dataclasses import dataclass
from typing import Any

__all__ = ["EventStream", "SseEvent"]


@dataclass(frozen=True)
class SseEvent:
    """An event that an `EventSource` dispatches."""

    type: str
    data: str
    last_event_id: str


class EventStream:
    """What an `EventSource` makes of the body of a response: WHATWG HTML, section 9.2.6."""

    def __init__(self, body: bytes) -> None:
        self.events: list[SseEvent] = []
        """Those that follow ``pushd.open``."""
        self.opened: dict[str, Any] | None = None
        """The data of ``pushd.open``, with which it begins."""
        self.comments: list[str] = []
        self.retry_ms: int | None = None
        self.last_event_id = ""
        self._id, self._type = "", ""
        self._data: list[str] = []
        text = getincrementaldecoder("utf-8")("replace").decode(body)
        for line in re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff"))[:-1]:
            if not line:
                self._dispatch()
            elif line.startswith(":"):
                self.comments.append(line[1:])
            else:
                name, _, value = line.partition(":")
                self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data and self._type == "pushd.open":
            assert not self.events and self.opened is None
            self.opened = json.loads("\n".join(self._data))
            assert self.opened is not None and self.opened["position"] == self._id
        elif self._data:
            self.events.append(SseEvent(self._type or "message", "\n".join(self._data), self._id))
        self._type, self._data = "", []
