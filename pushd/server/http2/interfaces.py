"""Interface between a stream and its connection."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from pushd.server.access_log import UnreadRequest
from pushd.server.http2.codec import Codec
from pushd.server.http2.errors import Code
from pushd.server.http2.hpack_encoder import FieldEncoder
from pushd.server.http2.promises import Promises, Told
from pushd.server.net.connection_info import ConnectionInfo
from pushd.server.unread_responses import UnreadResponses

__all__ = ["StreamOwner"]

StreamT = TypeVar("StreamT")


class StreamOwner(Protocol[StreamT]):
    """Interface of the connection that owns a stream."""

    site: Any
    """The `twisted.web.server.Site` that serves the requests."""

    codec: Codec
    encoder: FieldEncoder
    info: ConnectionInfo
    answers: UnreadResponses
    promises: Promises

    @property
    def is_crowded(self) -> bool:
        """Whether many responses wait for the client."""

    def wake(self, stream: StreamT) -> None:
        """Schedule a stream to send its pending data."""

    def request_read(self, stream: StreamT) -> None:
        """Called when a request is complete, or is not read further."""

    def holds(self, stream: StreamT, size: int) -> None:
        """Called when the unfinished messages of a stream hold `size` bytes."""

    def reset(self, stream: StreamT, code: Code) -> None:
        """Reset a stream."""

    def done(self, stream: StreamT) -> None:
        """Called when a response is fully sent."""

    def refused(self, detail: str, unread: UnreadRequest | None = None) -> None:
        """Log a refusal: of an `unread` request, or the one that `detail` describes."""

    def promise_room(self, parent: StreamT) -> int:
        """Return how many promises a stream can make now."""

    def promise(self, parent: StreamT, block: bytes, told: Told) -> StreamT:
        """Promise the response to the request in `block`; there must be room for it."""
