"""Client addresses and their names in the log."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from pushd.bus import MAX_CACHED, UNIX, parse_ip, record

__all__ = ["ClientAddress", "UnknownAddress", "address_of", "peer_name"]


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class UnknownAddress:
    """The address of a client that is unknown to its proxy."""

    proxy: IAddress
    """The address of the proxy."""


@record()
class ClientAddress:
    """The address of a client."""

    address: str
    """The IP address, or `UNIX`."""

    rest: int | str
    """The port; or the name in the log, if that is not ``address:port``."""

    @classmethod
    def of(cls, peer: IAddress, address: str | None = None) -> ClientAddress:
        """Return the address of `peer`, or of a client at `address` behind it."""
        direct = address_of(peer)
        if address is not None and address != direct:
            return cls(address, f"{address} by way of {peer_name(peer)}")
        if isinstance(peer, IPv4Address | IPv6Address) and peer.host == direct:
            return cls(direct, peer.port)
        return cls(direct, peer_name(peer))

    @property
    def name(self) -> str:
        """The name in the log. Built on use, to save memory for thousands of idle connections."""
        return self.rest if isinstance(self.rest, str) else _named(self.address, self.rest)


def peer_name(address: IAddress) -> str:
    """Return ``127.0.0.1:40312`` or ``[::1]:40312``, or ``a Unix socket``, whose clients have no name."""
    if isinstance(address, IPv4Address | IPv6Address):
        return _named(address.host, address.port)
    if isinstance(address, UnknownAddress):
        return f"somebody behind {peer_name(address.proxy)}"
    return "a Unix socket"


def _named(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address_of(peer: IAddress) -> str:
    """Return the IP address of `peer`, or `UNIX`."""
    if isinstance(peer, IPv4Address):
        host: str = peer.host
        return host
    if isinstance(peer, IPv6Address):
        return _usual(peer.host)
    if isinstance(peer, UnknownAddress):
        return address_of(peer.proxy)
    return UNIX


@lru_cache(MAX_CACHED)
def _usual(host: str) -> str:
    return str(parse_ip(host.partition("%")[0]))
