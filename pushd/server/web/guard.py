"""The gate: which requests are served at all, and who sends them.

A web page anywhere can make its visitor's browser send requests to addresses that only the visitor can reach,
with the visitor's cookies. So two things are checked first: ``Host`` (a page may have had its own name resolve to
this machine, which is called DNS rebinding) and ``Origin`` (a page may call this one by its right name). Browsers
set both and pages cannot change them; other clients send their own. Then a token, a client certificate, or neither
says who it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address
from time import time
from typing import Protocol, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.web.http_headers import Headers

from pushd.bus import ClientInfo, Grants, Identity, Work, owner_of
from pushd.config import Auth
from pushd.errors import BadRequest, Forbidden, TooMany, Unauthorized
from pushd.server.net.addresses import ClientAddress
from pushd.server.net.client_certificates import Certificate
from pushd.server.request import Request
from pushd.server.web.wildcards import Wildcards

__all__ = ["RequestGuard", "Tokens", "Trust"]

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[a-z0-9_.~%:\[\]-]+")
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)  # RFC 6750, section 2.1
_PREFLIGHT_AGE_S = 600
_SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_EXPOSED = (
    b"location, event-id, event-type, event-position, idempotent-replayed, retry-after, www-authenticate, "
    b"x-request-id"
)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110, section 5.6.2
_MAX_ASKED_BYTES = 1024
"""How much of what a preflight asks for is looked at."""

_TAKEN = b"authorization, content-type, event-id, event-type, last-event-id"


class Tokens(Protocol):
    """What knows whom a token stands for: `pushd.auth.tokens.authenticator.Tokens`."""

    def identify(self, token: str) -> Identity | Deferred[Identity]:
        """Answer it, now or later; raise `Unauthorized` if the token is not valid."""


class Trust(Protocol):
    """What knows where a client is: `pushd.server.net.trusted_proxies.TrustedProxies`."""

    is_any: bool
    """Whether there is any proxy that is believed."""

    def client_address(self, peer: IAddress, headers: Headers) -> str:
        """Return its IP address, or ``unix``."""


T = TypeVar("T")

_FREE_STEPS = 4000
"""How many channels or events a request may look at."""

_STEPS_PER_READ = 25
"""How many more count as another request. To look at one takes about 10 microseconds."""


class Rates(Protocol):
    """How often clients do something: `pushd.auth.rate_limits.TokenBuckets`."""

    def take(self, key: str, count: int = 1) -> float:
        """Count it and return 0; or return after how many seconds it would be allowed."""

    def owe(self, key: str, count: int) -> None:
        """Count it, whether it would be allowed or not."""


class RequestGuard:
    """Lets requests in."""

    _reads: Rates | None = None

    def __init__(
        self, auth: Auth, trust: Trust, tokens: Tokens | None = None, now: Callable[[], float] = time
    ) -> None:
        """Let in as `auth` says; `tokens` knows whom each stands for: without it, none is looked at.

        `now` returns the time in seconds since 1970.
        """
        self._trust = trust
        self._now = now
        self.configure(auth, tokens)

    def configure(self, auth: Auth, tokens: Tokens | None) -> None:
        """Let in as these say from now on."""
        self._hosts = Wildcards(auth.hosts)
        self._origins = Wildcards(auth.origins)
        self._takes_any_origin = "*" in auth.origins
        self._cookie = None if auth.cookie is None else auth.cookie.encode("ascii")
        self._tokens = tokens
        self.anonymous = Identity(
            Grants.of(
                auth.anonymous, auth.anonymous_publish, auth.anonymous_subscribe, wants_token=tokens is not None
            )
        )
        """What anybody is who shows nothing."""
        self.certified = Grants.of(
            auth.certified, auth.certified_publish, auth.certified_subscribe, origin="[auth] certified"
        )
        """What clients with a certificate may do."""

    def readmit(self, request: Request) -> Deferred[None] | None:
        """Find out again what the ``caller`` of a request may do that takes long: see `admit`.

        Its token may have expired, and the configuration may have changed.
        """
        if request.method == b"OPTIONS":
            return None
        host, origin = _single_header(request, b"host"), _single_header(request, b"origin")
        return self._identify(
            request, None if origin is None else origin.lower(), None if host is None else host.lower()
        )

    def admit(self, request: Request) -> Deferred[None] | None:
        """Find out who sends a request, as its ``caller``; raise `Refused` if it is not served.

        That is done at once or, if it takes longer, when the answer is. Sets the headers by which a browser lets a
        page of an allowed origin read the answer (CORS).
        """
        host = self._check_host(request)
        origin = _single_header(request, b"origin")
        if origin is not None:
            origin = origin.lower()
            self._check_origin(request, origin, host)
        connection = request.connection
        request.caller = ClientInfo(
            self.anonymous, self._place(request) if self._trust.is_any else connection.place
        )
        if request.method == b"OPTIONS":
            return None  # a browser asks before it shows a token
        return self._identify(request, origin, host)

    def _identify(self, request: Request, origin: str | None, host: str | None) -> Deferred[None] | None:
        """Have the ``caller`` of a request be who it shows that it is, now or later."""
        connection = request.connection
        token = None if self._tokens is None else self._token(request, origin, host)
        certificate = connection.certificate
        if certificate is not None and certificate.expires_at <= self._now():
            raise Unauthorized("the client certificate has expired; connect again with a new one")
        if token is not None:
            return self._show(request.caller, token, certificate)
        if certificate is not None:
            self._check_page(request, origin, host, "a client certificate")
            request.caller.identity = Identity(
                self.certified, certificate.subject, certified_until=certificate.expires_at
            )
        else:
            request.caller.identity = self.anonymous
        return None

    def limit_reads(self, reads: Rates | None) -> None:
        """Limit requests that read by `reads` from now on; None: any number."""
        self._reads = reads

    def charge_read(self, caller: ClientInfo) -> None:
        """Count a request of `caller` that reads, or raise `TooMany`. Operators are exempt."""
        owner = owner_of(caller)
        if self._reads is None or owner is None or caller.grants.is_operator:
            return
        wait_s = self._reads.take(owner)
        if wait_s:
            raise TooMany(f"{owner} reads too often: see [limits] read_rate", retry_s=wait_s)

    def reading(self, caller: ClientInfo, work: Work[T]) -> Work[T]:
        """Do `work` for `caller`, in steps, and count it as further requests that read if it takes very many."""
        owner = owner_of(caller)
        if self._reads is None or owner is None or caller.grants.is_operator:
            return (yield from work)
        steps = 0
        try:
            while True:
                try:
                    next(work)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                steps += 1
                yield
        finally:
            if steps > _FREE_STEPS and self._reads is not None:
                self._reads.owe(owner, (steps - _FREE_STEPS) // _STEPS_PER_READ)

    def _place(self, request: Request) -> ClientAddress:
        peer = request.getClientAddress()
        return ClientAddress.of(peer, self._trust.client_address(peer, request.requestHeaders))

    def _show(self, caller: ClientInfo, token: str, certificate: Certificate | None) -> Deferred[None] | None:
        """Have `caller` be whom the token stands for, now or when that is answered."""
        identity = self.identify(token)

        def identified(identity: Identity) -> None:
            until = None if certificate is None else certificate.expires_at
            caller.identity = identity if until is None else replace(identity, certified_until=until)

        if isinstance(identity, Identity):
            identified(identity)
            return None
        return identity.addCallback(identified)

    def identify(self, token: str) -> Identity | Deferred[Identity]:
        """Return whom a token stands for, now or later; raise `Unauthorized` if it is not valid."""
        if self._tokens is None:
            raise Unauthorized("a token, but there is no [key:NAME] to check it with", is_token_wrong=True)
        return self._tokens.identify(token)

    # Where a token may be

    def _token(self, request: Request, origin: str | None, host: str | None) -> str | None:
        headers = request.requestHeaders
        in_header = _single_header(request, b"authorization")
        in_query: list[bytes] | None = request.args.get(b"access_token")
        if in_header is not None and in_query is not None:
            raise BadRequest("a token in Authorization and in access_token; wanted one (RFC 6750, section 2)")
        if in_header is not None:
            bearer = _BEARER.fullmatch(in_header)
            if bearer is None:
                raise Unauthorized("Authorization is not of the form Bearer TOKEN (RFC 6750, section 2.1)")
            return str(bearer[1])
        if in_query is not None:
            if len(in_query) > 1:
                raise BadRequest(f"access_token is there {len(in_query)} times; wanted once", "access_token")
            return in_query[0].decode("utf-8", "replace")
        if self._cookie is not None and headers.hasHeader(b"cookie"):
            return self._token_in_cookie(request, self._cookie, origin, host)
        return None

    def _token_in_cookie(self, request: Request, name: bytes, origin: str | None, host: str | None) -> str | None:
        """Return a token that the browser sends by itself, if a page that may use it is behind the request."""
        values = _cookies(request, name)
        if not values:
            return None
        if len(set(values)) > 1:
            raise BadRequest(f"the cookie {name.decode('ascii')} is there {len(values)} times", "Cookie")
        is_upgrade = request.requestHeaders.hasHeader(b"upgrade") or request.method == b"CONNECT"
        if origin is None and (request.method not in _SAFE_METHODS or is_upgrade):
            raise Forbidden("a token in a cookie needs an Origin, which is missing", "Origin")
        self._check_page(request, origin, host, "a token in a cookie")
        return values[0].decode("utf-8", "replace")

    def _check_page(self, request: Request, origin: str | None, host: str | None, what: str) -> None:
        """Raise `Forbidden` if a browser has shown `what` by itself, for a page that may not use it.

        Wildcards do not count: a name that nobody looks after any more may be in the hands of somebody else.
        """
        name = "" if host is None else _without_port(host)
        if host is not None and not {host, name} & (self._hosts.exact | _own_names(request.getHost())):
            raise Forbidden(
                f"{what} needs a Host that is named without a wildcard; to allow it: [auth] hosts = {name}", "Host"
            )
        if origin is None:
            site = _single_header(request, b"sec-fetch-site")
            if site not in (None, "same-origin", "none"):
                raise Forbidden(f"{what} needs an Origin, which is missing from a request that is {site}", "Origin")
        elif origin not in self._origins.exact and not _is_own(request, origin, host):
            raise Forbidden(
                f"{what}, from a page of {origin!r}, which [auth] origins lets in only by a wildcard; "
                f"to let it use that: [auth] origins = {origin}",
                "Origin",
            )

    # Host and Origin

    def _check_host(self, request: Request) -> str | None:
        host = _single_header(request, b"host")
        if host is None:
            if request.clientproto == b"HTTP/1.0":
                return None  # no browser speaks it
            raise BadRequest("the Host header is missing (RFC 9112, section 3.2)", "Host")
        host = host.lower()
        name = _without_port(host)
        exact = self._hosts.exact  # almost always enough; asking for wildcards takes a call each
        if host in exact or name in exact or name in _own_names(request.getHost()):
            return host
        if host not in self._hosts and name not in self._hosts:
            raise Forbidden(
                f"Host {host!r} is not a name of this server; to allow it: [auth] hosts = {name}", "Host"
            )
        return host

    def cors_fields(self, origin: str) -> list[tuple[bytes, bytes]]:
        """Return the header fields by which a page of `origin` may read an answer; none if it may not."""
        if origin not in self._origins and not (self._takes_any_origin and _ORIGIN.fullmatch(origin)):
            return []
        fields = [
            (b"access-control-allow-origin", origin.encode("ascii", "replace")),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"origin"),
        ]
        if self._cookie is not None and origin in self._origins.exact:
            fields.append((b"access-control-allow-credentials", b"true"))
        return fields

    def _check_origin(self, request: Request, origin: str, host: str | None) -> None:
        fields = self.cors_fields(origin)
        if fields:
            for name, value in fields:
                request.responseHeaders.addRawHeader(name, value)
            if request.method == b"OPTIONS":
                request.setHeader(b"access-control-allow-methods", b"GET, POST, DELETE")
                request.setHeader(b"access-control-allow-headers", _taken(request))
                request.setHeader(b"access-control-max-age", b"%d" % _PREFLIGHT_AGE_S)
        elif not _is_own(request, origin, host):
            raise Forbidden(
                f"Origin {origin!r} is not this server's own; to allow its pages: [auth] origins = {origin}",
                "Origin",
            )


def _taken(request: Request) -> bytes:
    """Return the names of the headers that a page of an allowed origin may send: pushd's, and those it asks for.

    Tools add their own to every request, such as traceparent or sentry-trace. To refuse them would protect nobody:
    the origin is allowed.
    """
    lines = request.requestHeaders.getRawHeaders(b"access-control-request-headers", [])
    asked = b",".join(lines)[:_MAX_ASKED_BYTES].lower().split(b",")
    own = _TAKEN.split(b", ")
    more = [name for name in (one.strip() for one in asked) if _TOKEN.fullmatch(name) and name not in own]
    return b", ".join([*own, *dict.fromkeys(more)])


def _is_own(request: Request, origin: str, host: str | None) -> bool:
    """Return whether a page of `origin` is of the server that was addressed as `host`.

    Without TLS here, there may be some in front. With it, a page that came without may be anybody's.
    """
    return origin == f"https://{host}" or (origin == f"http://{host}" and not request.isSecure())


def _cookies(request: Request, name: bytes) -> list[bytes]:
    """Return the values of a cookie (RFC 6265, section 5.4), of which there may be some for different paths."""
    found = []
    for line in request.requestHeaders.getRawHeaders(b"cookie", []):
        for pair in line.split(b";"):
            key, equals, value = pair.strip().partition(b"=")
            if equals and key == name:
                found.append(value.strip(b'"'))
    return found


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
    """Return ``host`` of ``host:port``; an IPv6 address stands in brackets (RFC 3986, section 3.2.2)."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _own_names(address: IAddress) -> frozenset[str]:
    """Return the names that a connection made to `address` may call the server by."""
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
