"""The HTTP/1.1 connection: twisted.web's, with limits that explain themselves and a way out to WebSocket."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers

from pushd.connections import Speaker, Upgraded
from pushd.errors import BadRequest, Refused, TooLarge
from pushd.frames import json_line
from pushd.peer import peer_name
from pushd.writethrough import Writer, writer

__all__ = ["HTTP1"]

_LINGER_S = 5.0
"""How long a client whose request was refused may go on sending before the connection is closed."""

_LINGER_BYTES = 8 * 1024 * 1024
"""How much of what it still sends is read and thrown away."""

_JOINED_BYTES = 64 * 1024
"""How much of what is to be sent is joined."""


class HTTP1(HTTPChannel):
    """One HTTP/1.1 connection.

    What is written while it reads is sent when it has read: the answer to a request, or to all that came together,
    goes out as one piece.
    """

    log = Logger()
    abortTimeout = 5

    is_tunnel = False

    hand_to: Callable[[Speaker], None]
    """Has something else speak on this connection from now on."""

    def __init__(self, max_body_bytes: int) -> None:
        """Make a connection that takes bodies of up to `max_body_bytes`."""
        super().__init__()
        self._max_body_bytes = max_body_bytes
        self._upgraded: Speaker | None = None
        self._discarded: int | None = None
        """How much was thrown away since a request was refused; None if none was."""
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._is_reading = False

    def connectionMade(self) -> None:
        """Override: the connection begins."""
        self._writer = writer(self.transport)
        super().connectionMade()

    @cached_property
    def _addresses(self) -> tuple[IAddress, IAddress]:
        return super().getPeer(), super().getHost()

    def getPeer(self) -> IAddress:
        """Override: answer who asks."""
        return self._addresses[0]

    def getHost(self) -> IAddress:
        """Override: answer which address was asked."""
        return self._addresses[1]

    # Requests that are refused before they are read

    def allHeadersReceived(self) -> None:
        """Override: twisted.web has read the head of a request."""
        if self.length is not None and self.length > self._max_body_bytes:
            self.refuse_body()
        else:
            super().allHeadersReceived()

    def check_body(self, size: int) -> bool:
        """Tell whether a body of unknown length may be `size` bytes long; refuse its request if not."""
        if size > self._max_body_bytes:
            self.refuse_body()
        return self._discarded is None

    def refuse_body(self) -> None:
        """Answer that the body is too large."""
        self._refuse(TooLarge(f"the body is larger than {self._max_body_bytes} bytes, see [limits]"))

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Override: what twisted.web cannot parse is answered with a reason too."""
        self._refuse(BadRequest("not a valid HTTP/1.1 request, or its head is larger than 16 KiB"))

    def _refuse(self, refused: Refused) -> None:
        """Answer a request that has not been read to its end, and throw away what still comes.

        If the connection were closed while the client is still sending, it would be reset, and the client
        might never see the answer (RFC 9112, section 9.6).
        """
        if self._discarded is not None or self.transport is None:
            return
        self._discarded = 0
        self._drop_bodies()
        self.log.info(
            "refused a request from {peer}: {detail}", peer=peer_name(self.getPeer()), detail=refused.detail
        )
        body = json_line(refused.problem())
        head = (
            f"HTTP/1.1 {refused.status} {refused.title}\r\n"
            "Content-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.write(head.encode("ascii") + body)
        self.setTimeout(_LINGER_S)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Override: a line of the head is longer than twisted.web reads."""
        self._respondToBadRequestAndDisconnect()

    def allContentReceived(self) -> None:
        """Override: the request is complete, unless it has been refused meanwhile."""
        if self._discarded is None:
            super().allContentReceived()

    def _drop_bodies(self) -> None:
        for request in self.requests:
            request.drop_body()

    def _discard(self, data: bytes) -> None:
        self._discarded = (self._discarded or 0) + len(data)
        if self._discarded > _LINGER_BYTES:
            self.loseConnection()

    def timeoutConnection(self) -> None:
        """Override: no request came for too long, or the client does not take what was written."""
        self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)
        self.loseConnection()

    def end(self) -> None:
        """Close the connection once everything is written, or at last when the client does not take it."""
        self.setTimeout(_LINGER_S)
        self.loseConnection()

    def finish(self) -> None:
        """Close the connection once the request at hand, if there is one, has been answered."""
        self.persistent = False
        if not self.requests:
            self.end()

    def abort(self) -> None:
        """Close the connection now."""
        transport = ITCPTransport(self.transport, None)
        if transport is not None:
            transport.abortConnection()

    def upgrade(self, speaker: Upgraded, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Answer the request at hand with ``101`` and `fields`, and hand the connection to `speaker`.

        To be called from the ``render`` of the request, of which nothing is kept (RFC 9110, section 7.8).
        """
        assert self.transport is not None
        self.setTimeout(None)
        self.requests.clear()
        self._networkProducer.unregisterProducer()  # type: ignore[attr-defined]
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade"]
        lines += [b"%b: %b" % field for field in fields]
        self._unsent.append(b"\r\n".join(lines) + b"\r\n\r\n")
        self._flush()
        self._upgraded = speaker
        self.hand_to(speaker)

    # Where the bytes go

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Override: a response begins. What comes next sends it: some of the body, `body_writer` or the end."""
        lines = [b"%b %b %b" % (version, code, reason)]
        lines += [b"%b: %b" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
        self._unsent.append(b"\r\n".join(lines) + b"\r\n\r\n")

    def write(self, data: bytes) -> None:
        """Override: more of a response is there."""
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if not self._is_reading or self._unsent_bytes > _JOINED_BYTES:
            self._flush()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Override: the same in pieces."""
        self.write(b"".join(iovec))

    def body_writer(self) -> Writer:
        """Answer what takes the rest of a body, in chunks if it has them."""
        self._flush()
        return self._writer

    def requestDone(self, request: object) -> None:
        """Override: a response is complete."""
        if not self._is_reading:
            self._flush()
        super().requestDone(request)

    def loseConnection(self) -> None:
        """Override: close once everything is written."""
        self._flush()
        super().loseConnection()

    def _send100Continue(self) -> None:
        """Override: a client waits to be asked for its body."""
        self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _flush(self) -> None:
        if self._unsent:
            data = b"".join(self._unsent)
            self._unsent.clear()
            self._unsent_bytes = 0
            self._writer.write(data)

    def dataReceived(self, data: bytes) -> None:
        """Override: bytes have come."""
        if self._discarded is not None:
            self._discard(data)
            return
        if self._is_reading:  # again, what came behind a request that has been answered
            super().dataReceived(data)
            return
        self._is_reading = True
        try:
            super().dataReceived(data)
        finally:
            self._is_reading = False
            self._flush()

    def rawDataReceived(self, data: bytes) -> None:
        """Override: more bytes were behind the head of a request."""
        if self._upgraded is not None:
            self._upgraded.dataReceived(data)
        elif self._discarded is not None:
            self._discard(data)
        else:
            super().rawDataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """Override: a line of a head has come."""
        if self._discarded is None:
            super().lineReceived(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: the connection has ended."""
        self._drop_bodies()
        super().connectionLost(reason)
