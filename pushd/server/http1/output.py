"""The write path of an HTTP/1.1 connection, and the addresses of its ends.

It uses private names of twisted.web, for want of a public seam; `tests/component/server/test_http1.py` pins each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers

from pushd.server.net.connection_info import ConnectionInfo
from pushd.server.net.writer import Writer, writer

__all__ = ["WritingChannel"]

_JOINED_BYTES = 64 * 1024
"""How many bytes of output are joined at most."""


class WritingChannel(HTTPChannel):
    """The writing half of a connection; `pushd.server.http1.connection.HTTP1` is the reading half.

    Output written while requests are parsed is joined: the responses to pipelined requests take one write.
    """

    info: ConnectionInfo
    """The facts of the connection."""

    site: Any
    """The `twisted.web.server.Site` that serves the requests."""

    def __init__(self) -> None:
        super().__init__()
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._is_reading = False

    def connectionMade(self) -> None:
        """Override: called when the connection is established."""
        assert self.transport is not None
        self.info = ConnectionInfo.of(self.transport, self.site.is_proxy)
        self._writer = writer(self.transport)
        super().connectionMade()

    def getPeer(self) -> IAddress:
        """Override: return the address of the direct sender."""
        return self.info.peer

    def getHost(self) -> IAddress:
        """Override: return the address that the client connected to."""
        return self.info.host

    def isSecure(self) -> bool:
        """Override: return whether the connection is encrypted."""
        return self.info.is_secure

    # Writing

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Override: buffer the head of a response. The next write, `body_writer` or the end sends it."""
        if not self.persistent:
            headers.setRawHeaders(b"connection", [b"close"])
        lines = [b"%b %b %b" % (version, code, reason)]
        lines += [b"%b: %b" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
        self._unsent.append(b"\r\n".join(lines) + b"\r\n\r\n")

    def write(self, data: bytes) -> None:
        """Override: write part of a response, joined with other output while requests are parsed."""
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if not self._is_reading or self._unsent_bytes > _JOINED_BYTES:
            self._flush()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Override: write several pieces of a response."""
        self.write(b"".join(iovec))

    def body_writer(self) -> Writer:
        """Flush the output, and return the writer for the rest of a body; the caller adds chunks."""
        self._flush()
        return self._writer

    def loseConnection(self) -> None:
        """Override: close once the output is sent, and read no more requests."""
        self.persistent = False
        self._flush()
        super().loseConnection()

    def _flush(self) -> None:
        if self._unsent:
            data = b"".join(self._unsent)
            self._unsent.clear()
            self._unsent_bytes = 0
            self._writer.write(data)
