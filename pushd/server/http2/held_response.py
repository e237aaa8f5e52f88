"""The memory that one response holds until the client reads it."""

from __future__ import annotations

from typing import Any

from pushd.bus import ClientInfo, owner_of
from pushd.server.http2.errors import Code
from pushd.server.http2.interfaces import StreamOwner
from pushd.server.http2.scheduler import Outgoing
from pushd.server.unread_responses import NOTHING, OVERHEAD_BYTES, Held

__all__ = ["Holding"]


_SHORT_BYTES = 4096
"""The largest response that counts as short."""


class Holding:
    """The part of a `pushd.server.http2.stream.Stream` that counts held response bytes."""

    __slots__ = ("_is_refused", "held")

    stream_id: int
    outgoing: Outgoing
    _carrier: StreamOwner[Any]
    _request: Any
    _producer: Any
    _pull: Any
    _is_refused: bool

    least_held_bytes = 0

    def hold(self, caller: ClientInfo | None, size: int) -> None:
        """Count a response of `size` bytes to `caller`; raise `TooMany` or `Unavailable` over the limit."""
        if self._producer is None and self._pull is None:
            owner = self._carrier.info.owner if caller is None else owner_of(caller)
            self._own_held().take(owner, size + OVERHEAD_BYTES)

    def _hold(self, size: int) -> bool:
        """Count a response that no session produces. Over the limit, refuse the response and return False.

        A response as short as a refusal is sent even over the limit, unless many streams wait.
        """
        held = self._own_held()
        more = size + OVERHEAD_BYTES - held.size
        if more <= 0 or held.can_take(self.owner, more):
            return True
        if size <= _SHORT_BYTES and not self._carrier.is_crowded:
            return True
        self._carrier.refused(f"no room for the response on stream {self.stream_id}, see [limits] answers")
        self._is_refused = True  # the stream is reset once the response is complete
        self.outgoing.clear()
        if self._pull is not None:
            self._carrier.reset(self, Code.ENHANCE_YOUR_CALM)
        return False

    held: Held
    """The bytes held while the response waits for the client, unless a session produces the response."""

    def _own_held(self) -> Held:
        if self.held is NOTHING:
            self.held = Held(self._carrier.answers)
        return self.held

    @property
    def owner(self) -> str | None:
        """The owner that the response counts for."""
        caller = getattr(self._request, "caller", None)
        return self._carrier.info.owner if caller is None else owner_of(caller)
