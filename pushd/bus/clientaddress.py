"""Client addresses: parse them, and find what limits count them by."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address as IPv4
from ipaddress import IPv6Address as IPv6
from ipaddress import ip_address, ip_network

__all__ = ["MAX_CACHED", "UNIX", "limit_key", "parse_ip"]

UNIX = "unix"
"""The address of who comes by a Unix socket, of whom nobody says where it is."""


MAX_CACHED = 4096
"""How many addresses are remembered in their usual form."""


def parse_ip(text: str) -> IPv4 | IPv6:
    """Read an IP address, or raise `ValueError`; one of IPv4 in the form of IPv6 is one of IPv4."""
    if "%" in text:
        raise ValueError(text)  # a zone, which means nothing on another machine and may be any text
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6) else None
    return address if mapped is None else mapped


@lru_cache(MAX_CACHED)
def limit_key(address: str) -> str | None:
    """Return what the connections of `address`, which is one of IP or `UNIX`, are counted by.

    This is the address, or with IPv6 its /64 network, of which one client has all addresses. It is None for
    loopback addresses and Unix sockets, which are not counted.
    """
    if address == UNIX:
        return None
    ip = parse_ip(address)
    if ip.is_loopback:
        return None
    return str(ip) if ip.version == 4 else str(ip_network((int(ip) >> 64 << 64, 64)))
