"""Trusted proxies: find the client's address in ``Forwarded`` or ``X-Forwarded-For``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv4Address as IPv4
from ipaddress import IPv4Network, IPv6Network, ip_network
from ipaddress import IPv6Address as IPv6

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.web.http_headers import Headers

from pushd.bus import UNIX, parse_ip
from pushd.config import Proxies
from pushd.errors import BadRequest
from pushd.server.net.addresses import address_of

__all__ = ["TrustedProxies"]

_CACHED = 4096
"""How many header values the cache holds."""

_CACHED_BYTES = 256
"""The longest header value that is cached."""

_MAPPED = IPv6Network("::ffff:0:0/96")

_PORT = re.compile(r"[0-9]{1,5}|_[A-Za-z0-9._-]+")
_OBFUSCATED = re.compile(r"_[A-Za-z0-9._-]+")
_NODE = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]+)(?::(.*))?")

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_PAIR = re.compile(rf"[\t ]*+(?:({_TOKEN})=({_TOKEN}|{_QUOTED})[\t ]*+)?([;,]|\Z)")
_ESCAPED = re.compile(r"\\(.)")


class TrustedProxies:
    """The trusted proxies."""

    def __init__(self, proxies: Proxies) -> None:
        """Trust `proxies`."""
        self.configure(proxies)

    def configure(self, proxies: Proxies) -> None:
        """Replace the trusted proxies, for later requests."""
        self._has_unix = UNIX in proxies.trusted
        self._networks = tuple(_network(text) for text in proxies.trusted if text != UNIX)
        self.is_any = bool(proxies.trusted)
        """Whether any proxy is trusted."""
        self._header = None if proxies.header == "none" or not self.is_any else proxies.header.encode("ascii")
        self._is_in = lru_cache(_CACHED)(self._search)
        self._cached_client = lru_cache(_CACHED)(self._client)

    def is_trusted(self, address: IAddress) -> bool:
        """Return whether `address` is that of a trusted proxy."""
        if not self.is_any:
            return False
        if isinstance(address, IPv4Address | IPv6Address):
            return self._is_in(address_of(address))
        return self._has_unix and isinstance(address, UNIXAddress)

    def _search(self, host: str) -> bool:
        return self._has(parse_ip(host))

    def _has(self, ip: IPv4 | IPv6) -> bool:
        return any(ip in network for network in self._networks)

    def client_address(self, peer: IAddress, headers: Headers) -> str:
        """Return the IP address of the client that sent a request over a connection from `peer`, or ``unix``.

        If the peer is trusted, this is the last address in the header that is not a trusted proxy's, or the first
        if all are. Entries before one that is missing, ``unknown`` or obfuscated (RFC 7239, section 6) are not
        trusted. Raises `BadRequest` if the header is malformed.
        """
        if self._header is None or not self.is_trusted(peer):
            return address_of(peer)
        values = headers.getRawHeaders(self._header)
        if not values:
            return address_of(peer)
        find = self._cached_client if sum(map(len, values)) <= _CACHED_BYTES else self._client
        return find(address_of(peer), tuple(values))

    def _client(self, known: str, values: tuple[bytes, ...]) -> str:
        entries = _forwarded if self._header == b"forwarded" else _x_forwarded_for
        for value in reversed(values):
            for ip in entries(value.decode("latin-1")):
                if ip is None:
                    return known
                known = str(ip)
                if not self._has(ip):
                    return known
        return known


def _network(text: str) -> IPv4Network | IPv6Network:
    """Parse a network; an IPv4-mapped IPv6 network becomes an IPv4 network."""
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - 96))
    return network


def _x_forwarded_for(value: str) -> Iterator[IPv4 | IPv6 | None]:
    """Parse a comma-separated list of addresses and yield them, last first; None for an unknown client."""
    for entry in reversed(value.split(",")):
        text = entry.strip("\t ")
        if not text:
            continue  # RFC 9110, section 5.6.1
        try:
            yield parse_ip(text) if text.count(":") > 1 and not text.startswith("[") else _node(text)
        except ValueError:
            raise BadRequest(
                f"X-Forwarded-For has {text!r}; expected an IP address, with or without a port", "X-Forwarded-For"
            ) from None


def _node(text: str) -> IPv4 | IPv6 | None:
    """Parse a node (RFC 7239, section 6); raise `ValueError` if malformed. None is an unknown or hidden client."""
    match = _NODE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    name, port = match.groups()
    if port is not None and (not _PORT.fullmatch(port) or (port.isdigit() and int(port) > 65535)):
        raise ValueError(text)
    if name.lower() == "unknown" or _OBFUSCATED.fullmatch(name):
        return None
    address = name.strip("[]")
    if ("[" in name) != (":" in address):
        raise ValueError(text)
    return parse_ip(address)


def _forwarded(value: str) -> Iterator[IPv4 | IPv6 | None]:
    """Parse ``Forwarded`` (RFC 7239, section 4) and yield its addresses, last first; None without ``for``.

    The whole line must be well-formed. A client cannot hide the proxy's element behind an open quotation mark,
    because the unbalanced quote makes the line malformed.
    """
    try:
        elements = list(_elements(value))
        for element in reversed(elements):
            if element:
                text = element.get("for")
                yield None if text is None else _node(text)
    except ValueError:
        shown = value if len(value) <= 100 else f"{value[:50]} ... {value[-50:]}"
        raise BadRequest(f"Forwarded is {shown!r}; expected the syntax of RFC 7239", "Forwarded") from None


def _elements(value: str) -> Iterator[dict[str, str]]:
    """Yield the parameters of each element by lower-case name; raise `ValueError` if malformed or repeated."""
    element: dict[str, str] = {}
    end = 0
    while True:
        match = _PAIR.match(value, end)
        if match is None:
            raise ValueError(value)
        name, text, mark = match.groups()
        if name is not None:
            if name.lower() in element:
                raise ValueError(value)
            element[name.lower()] = _ESCAPED.sub(r"\1", text[1:-1]) if text.startswith('"') else text
        end = match.end()
        if mark == ";":
            continue
        yield element
        element = {}
        if not mark:
            return
