"""Server push on one stream: responses to requests that the client is about to send."""

from __future__ import annotations

from typing import Any

from pushd.server.http2.head import Head
from pushd.server.http2.interfaces import StreamOwner
from pushd.server.http2.promises import COPIED, Answer, Promises, Told, promised

__all__ = ["Promising"]


class Promising:
    """The part of a `pushd.server.http2.stream.Stream` that makes promises."""

    __slots__ = ()

    stream_id: int
    urgency: int
    _carrier: StreamOwner[Any]
    _head: Head | None

    @property
    def is_pushed(self) -> bool:
        """Whether the server promised this stream."""
        return self.stream_id % 2 == 0

    @property
    def takes_promises(self) -> bool:
        """Whether the client accepts pushes and this stream can carry promises."""
        head, codec = self._head, self._carrier.codec
        return head is not None and head.authority is not None and codec.takes_promises(self.stream_id)

    @property
    def promise_room(self) -> int:
        """How many promises this stream can make now."""
        return self._carrier.promise_room(self) if self.takes_promises else 0

    @property
    def promises(self) -> Promises:
        """The promises of the connection, where a caller can wait for room."""
        return self._carrier.promises

    def promise(self, path: bytes, told: Told, answer: Answer | None = None) -> bool:
        """Promise the response to ``GET`` of `path`, with its query; return False if there is no room.

        Without an `answer`, the site responds to a request with the `COPIED` fields of this one. With an
        `answer`, these fields have no effect and are omitted. `told` is called with the outcome.
        """
        if self.promise_room <= 0:
            return False
        carrier, parent = self._carrier, self._head
        assert parent is not None and parent.authority is not None
        fields = [field for field in parent.fields if field[0] in COPIED] if answer is None else []
        block = carrier.encoder.promise(parent.authority, path, fields, is_secure=carrier.info.is_secure)
        pushed = carrier.promise(self, block, told)
        if answer is None:
            pushed.begin(promised(parent.authority, path, fields), True)
        else:
            pushed.answer(b"200", answer.fields, answer.body, is_held=False)
        return True
