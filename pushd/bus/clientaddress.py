"""Client addresses: parse them, and return the key that limits count them by."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address as IPv4
from ipaddress import IPv6Address as IPv6
from ipaddress import ip_address, ip_network

__all__ = ["MAX_CACHED", "UNIX", "limit_key", "parse_ip"]

UNIX = "unix"
"""The address of a client on a Unix socket without a known IP address."""


MAX_CACHED = 4096
"""The number of addresses whose `limit_key` is cached."""


def parse_ip(text: str) -> IPv4 | IPv6:
    """Parse an IP address; an IPv4-mapped IPv6 address becomes IPv4. Raises `ValueError`."""
    if "%" in text:
        raise ValueError(text)  # a zone id has no meaning on another machine and may be any text
    address = ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, IPv6) else None
    return address if mapped is None else mapped


@lru_cache(MAX_CACHED)
def limit_key(address: str) -> str | None:
    """Return the key by which limits count the connections of `address`: an IP address or `UNIX`.

    The key is the address, or for IPv6 its /64 network, because one client has all addresses of a /64. Loopback
    addresses and Unix sockets are not counted: None.
    """
    if address == UNIX:
        return None
    ip = parse_ip(address)
    if ip.is_loopback:
        return None
    return str(ip) if ip.version == 4 else str(ip_network((int(ip) >> 64 << 64, 64)))
