"""The gate: which requests are served at all, and with what rights.

While rights are anonymous, whoever can send a request has them. A web page anywhere can make its visitor's
browser send requests to addresses that only the visitor can reach, so two things are checked: ``Host`` (a page
may have had its own name resolve to this machine, which is called DNS rebinding) and ``Origin`` (a page may
call this one by its right name). Browsers set both and pages cannot change them; other clients send their own.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.web.server import Request

from pushd.access import Grants
from pushd.errors import BadRequest, Forbidden

__all__ = ["Gate"]

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[a-z0-9_.~%:\[\]-]+")
_PREFLIGHT_AGE_S = 600


class Gate:
    """Lets requests in."""

    def __init__(self, grants: Grants, hosts: tuple[str, ...], origins: tuple[str, ...]) -> None:
        """Give `grants` to everybody who is let in.

        `hosts` are further names of this server, each with a port or without; `origins` are the web origins
        whose pages may use it besides its own, and ``*`` means all.
        """
        self._grants = grants
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origins)

    def admit(self, request: Request) -> Grants:
        """Answer the rights of a request; raise `Forbidden` or `BadRequest` if it is not served.

        Sets the headers by which a browser lets a page of an allowed origin read the answer (CORS).
        """
        host = self._check_host(request)
        origin = _single_header(request, b"origin")
        if origin is not None:
            self._check_origin(request, origin.lower(), host)
        return self._grants

    def _check_host(self, request: Request) -> str | None:
        host = _single_header(request, b"host")
        if host is None:
            if request.clientproto == b"HTTP/1.0":
                return None  # no browser speaks it
            raise BadRequest("the Host header is missing (RFC 9112, section 3.2)", "Host")
        host = host.lower()
        name = _without_port(host)
        if not {host, name} & self._hosts and name not in _own_names(request.getHost()):
            raise Forbidden(
                f"Host {host!r} is not a name of this server; to allow it: [auth] hosts = {name}", "Host"
            )
        return host

    def _check_origin(self, request: Request, origin: str, host: str | None) -> None:
        if origin in self._origins or ("*" in self._origins and _ORIGIN.fullmatch(origin)):
            request.setHeader(b"access-control-allow-origin", origin.encode("ascii", "replace"))
            request.setHeader(
                b"access-control-expose-headers", b"location, event-id, event-type, event-position, retry-after"
            )
            request.responseHeaders.addRawHeader(b"vary", b"origin")
            if request.method == b"OPTIONS":
                request.setHeader(b"access-control-allow-methods", b"GET, POST, DELETE")
                request.setHeader(
                    b"access-control-allow-headers", b"content-type, event-id, event-type, last-event-id"
                )
                request.setHeader(b"access-control-max-age", b"%d" % _PREFLIGHT_AGE_S)
        elif origin not in (f"http://{host}", f"https://{host}"):
            raise Forbidden(
                f"Origin {origin!r} is not this server's own; to allow its pages: [auth] origins = {origin}",
                "Origin",
            )


def _single_header(request: Request, name: bytes) -> str | None:
    values = request.requestHeaders.getRawHeaders(name)
    if not values:
        return None
    if len(values) > 1:
        title = name.decode("ascii").title()
        raise BadRequest(f"{title} is there {len(values)} times; wanted once", title)
    value: str = values[0].decode("ascii", "backslashreplace")
    return value


def _without_port(host: str) -> str:
    """Answer ``host`` of ``host:port``; an IPv6 address stands in brackets (RFC 3986, section 3.2.2)."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _own_names(address: IAddress) -> frozenset[str]:
    """Answer the names that a connection made to `address` may call the server by."""
    if not isinstance(address, IPv4Address | IPv6Address):
        return frozenset({"localhost"})  # a Unix socket has no name; curl says localhost
    return _names_of_ip(address.host)


@lru_cache
def _names_of_ip(host: str) -> frozenset[str]:
    ip = ip_address(host.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = ip if mapped is None else mapped
    literal = f"[{ip}]" if ip.version == 6 else str(ip)
    return _LOOPBACK_NAMES | {literal} if ip.is_loopback else frozenset({literal})
