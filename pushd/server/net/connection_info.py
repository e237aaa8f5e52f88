"""The facts of a connection, which are the same for all its requests."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IAddress, ISSLTransport, ITransport

from pushd.bus import limit_key, record
from pushd.server.net.addresses import ClientAddress
from pushd.server.net.client_certificates import Certificate, certificate_of

__all__ = ["ConnectionInfo"]


@record()
class ConnectionInfo:
    """The facts of a connection, known once a PROXY header and a TLS handshake are complete."""

    peer: IAddress
    """The address of the direct sender: the client or a proxy."""

    host: IAddress
    """The address that the client connected to."""

    place: ClientAddress
    """The address of the direct sender, as in limits and in the log."""

    is_secure: bool
    """Whether the connection is encrypted."""

    certificate: Certificate | None
    """The client certificate, if any."""

    owner: str | None
    """The owner that limits charge before the client is known; None for a trusted proxy, which clients share."""

    @classmethod
    def of(cls, transport: ITransport, is_proxy: Callable[[IAddress], bool]) -> ConnectionInfo:
        """Return the facts of the connection of `transport`; `is_proxy` tells trusted proxies from clients."""
        peer = transport.getPeer()
        place = ClientAddress.of(peer)
        return cls(
            peer,
            transport.getHost(),
            place,
            ISSLTransport(transport, None) is not None,
            certificate_of(transport),
            None if is_proxy(peer) else limit_key(place.address),
        )
