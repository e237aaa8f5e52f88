"""What a stream knows of its connection."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from twisted.internet.interfaces import IAddress

from pushd.server.access_log import UnreadRequest
from pushd.server.http2.codec import Codec
from pushd.server.http2.errors import Code
from pushd.server.http2.hpack_encoder import FieldEncoder
from pushd.server.http2.promises import Promises, Told
from pushd.server.net.client_certificates import Certificate
from pushd.server.unread_responses import UnreadResponses

__all__ = ["StreamOwner"]

StreamT = TypeVar("StreamT")


class StreamOwner(Protocol[StreamT]):
    """The connection of a stream."""

    site: Any
    """The `twisted.web.server.Site` that answers."""

    codec: Codec
    encoder: FieldEncoder
    peer: IAddress
    host: IAddress
    is_secure: bool
    certificate: Certificate | None
    answers: UnreadResponses
    owner: str | None
    promises: Promises

    @property
    def is_crowded(self) -> bool:
        """Whether many answers wait for the client."""

    def wake(self, stream: StreamT) -> None:
        """Have a stream send what it has, soon."""

    def request_read(self, stream: StreamT) -> None:
        """Learn that a request is there with all its body, or will not be read on."""

    def holds(self, stream: StreamT, size: int) -> None:
        """Learn that of the messages that came on a stream, `size` bytes are held."""

    def reset(self, stream: StreamT, code: Code) -> None:
        """End a stream at once."""

    def done(self, stream: StreamT) -> None:
        """Learn that all of the response was sent."""

    def refused(self, detail: str, unread: UnreadRequest | None = None) -> None:
        """Log why something was refused: an `unread` request, or something else."""

    def promise_room(self, parent: StreamT) -> int:
        """Return how many promises can be made on a stream now."""

    def promise(self, parent: StreamT, block: bytes, told: Told) -> StreamT:
        """Promise the response to the request of `block`, for which there is room."""
