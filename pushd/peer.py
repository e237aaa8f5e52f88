"""How the other end of a connection is named in the log."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

__all__ = ["peer_name"]


def peer_name(address: IAddress) -> str:
    """Answer ``127.0.0.1:40312``, ``[::1]:40312`` or, as one of its peers has no name, ``a Unix socket``."""
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    return "a Unix socket"
