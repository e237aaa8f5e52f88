"""What an HTTP/1.1 connection writes, and who is at its ends.

It uses some of the private names of twisted.web: `tests/unit/server/test_http1.py` pins each.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from twisted.internet.interfaces import IAddress
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers

from pushd.server.net.addresses import ClientAddress
from pushd.server.net.client_certificates import Certificate, certificate_of
from pushd.server.net.writer import Writer, writer

__all__ = ["WritingChannel"]

_JOINED_BYTES = 64 * 1024
"""How much of what is to be sent is joined."""


class WritingChannel(HTTPChannel):
    """The half of the connection that writes: `pushd.server.http1.connection.HTTP1` is the other.

    What is written while requests are read is joined: the answer to a request, or to all that came together, goes
    out as one piece.
    """

    def __init__(self) -> None:
        super().__init__()
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

    @cached_property
    def place(self) -> ClientAddress:
        """Where the client is."""
        return ClientAddress.of(self.getPeer())

    def getPeer(self) -> IAddress:
        """Override: return who asks."""
        return self._addresses[0]

    def getHost(self) -> IAddress:
        """Override: return which address was asked."""
        return self._addresses[1]

    @cached_property
    def certificate(self) -> Certificate | None:
        """The certificate that the client has shown, if it has."""
        return certificate_of(self.transport)

    # Writing

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Override: a response begins. What comes next sends it: some of the body, `body_writer` or the end."""
        if not self.persistent:
            headers.setRawHeaders(b"connection", [b"close"])
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
        """Return what takes the rest of a body, in chunks if it has them."""
        self._flush()
        return self._writer

    def loseConnection(self) -> None:
        """Override: close once everything is written, and read nothing more."""
        self.persistent = False
        self._flush()
        super().loseConnection()

    def _flush(self) -> None:
        if self._unsent:
            data = b"".join(self._unsent)
            self._unsent.clear()
            self._unsent_bytes = 0
            self._writer.write(data)
