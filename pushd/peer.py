"""Who is at the other end of a connection: its name in the log, its address, and what it is counted by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address as IPv4
from ipaddress import IPv6Address as IPv6
from ipaddress import ip_address, ip_network

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from pushd.caller import Caller
from pushd.record import record

__all__ = ["UNIX", "Place", "UnknownAddress", "address_of", "limit_key", "owner_of", "parse_ip", "peer_name"]

UNIX = "unix"
"""The address of who comes by a Unix socket, of whom nobody says where it is."""

_CACHED = 4096
"""How many addresses are remembered in their usual form."""


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class UnknownAddress:
    """Where a client is of whom its proxy says that it does not know."""

    proxy: IAddress
    """Where the proxy is."""


@record()
class Place:
    """Where a client is."""

    address: str
    """Its IP address, or `UNIX`."""

    rest: int | str
    """Its port; or what it is called in the log, if that is something else than both."""

    @classmethod
    def of(cls, peer: IAddress, address: str | None = None) -> Place:
        """Make the place of `peer`, or, by way of it, of a client at `address`."""
        direct = address_of(peer)
        if address is not None and address != direct:
            return cls(address, f"{address} by way of {peer_name(peer)}")
        if isinstance(peer, IPv4Address | IPv6Address) and peer.host == direct:
            return cls(direct, peer.port)
        return cls(direct, peer_name(peer))

    @property
    def name(self) -> str:
        """What it is called in the log. It is made when it is wanted, as thousands of connections are idle."""
        return self.rest if isinstance(self.rest, str) else _named(self.address, self.rest)


def peer_name(address: IAddress) -> str:
    """Answer ``127.0.0.1:40312``, ``[::1]:40312`` or, as one of its peers has no name, ``a Unix socket``."""
    if isinstance(address, IPv4Address | IPv6Address):
        return _named(address.host, address.port)
    if isinstance(address, UnknownAddress):
        return f"somebody behind {peer_name(address.proxy)}"
    return "a Unix socket"


def _named(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address_of(peer: IAddress) -> str:
    """Answer the IP address of a peer, or `UNIX`."""
    if isinstance(peer, IPv4Address):
        host: str = peer.host
        return host
    if isinstance(peer, IPv6Address):
        return _usual(peer.host)
    if isinstance(peer, UnknownAddress):
        return address_of(peer.proxy)
    return UNIX


@lru_cache(_CACHED)
def _usual(host: str) -> str:
    return str(parse_ip(host.partition("%")[0]))


def parse_ip(text: str) -> IPv4 | IPv6:
    """Read an IP address, or raise `ValueError`; one of IPv4 in the form of IPv6 is one of IPv4."""
    if "%" in text:
        raise ValueError(text)  # a zone, which means nothing on another machine and may be any text
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6) else None
    return address if mapped is None else mapped


@lru_cache(_CACHED)
def limit_key(address: str) -> str | None:
    """Answer what the connections of `address`, which is one of IP or `UNIX`, are counted by.

    This is the address, or with IPv6 its /64 network, of which one client has all addresses. It is None for
    loopback addresses and Unix sockets, which are not counted.
    """
    if address == UNIX:
        return None
    ip = parse_ip(address)
    if ip.is_loopback:
        return None
    return str(ip) if ip.version == 4 else str(ip_network((int(ip) >> 64 << 64, 64)))


def owner_of(caller: Caller) -> str | None:
    """Return who is charged for what `caller` does or occupies: its user, else its `limit_key`; None for nobody."""
    return limit_key(caller.address) if caller.user is None else f"user {caller.user}"
