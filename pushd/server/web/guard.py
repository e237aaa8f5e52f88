"""The request guard: check ``Host`` and ``Origin``, and authenticate the client.

Any web page can make its visitor's browser send requests to addresses that only the visitor can reach, with the
visitor's cookies. Two headers are therefore checked first: ``Host`` against DNS rebinding (a page's own name that
resolves to this machine) and ``Origin`` against cross-site requests. Browsers set both and pages cannot change
them; other clients set any value. A token or a client certificate then identifies the client; without
either, the client is anonymous.
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

from pushd.bus import ClientInfo, Grants, Identity, TokenBuckets, Work, owner_of
from pushd.config import Auth
from pushd.errors import BadRequest, Forbidden, TooMany, Unauthorized, Unavailable
from pushd.server.net.addresses import ClientAddress
from pushd.server.net.client_certificates import Certificate
from pushd.server.net.connection_info import ConnectionInfo
from pushd.server.net.trusted_proxies import TrustedProxies
from pushd.server.request import Request
from pushd.server.web.credentials import cookies, explicit_token, is_upgrade
from pushd.server.web.wildcards import Wildcards

__all__ = ["RequestGuard", "Tokens"]

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[a-z0-9_.~%:\[\]-]+")
_PREFLIGHT_AGE_S = 600
_SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_EXPOSED = (
    b"location, event-id, event-type, event-position, idempotent-replayed, publish-refused, retry-after, "
    b"www-authenticate, x-request-id"
)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110, section 5.6.2
_MAX_ASKED_BYTES = 1024
"""How many bytes of ``Access-Control-Request-Headers`` are evaluated in a preflight."""

_TAKEN = b"authorization, content-type, event-id, event-type, idempotency-key, last-event-id"


class Tokens(Protocol):
    """Verifies tokens: `pushd.auth.tokens.authenticator.Tokens`."""

    def identify(self, token: str) -> Identity | Deferred[Identity]:
        """Return the identity of a token, now or later; raise `Unauthorized` if the token is invalid."""


T = TypeVar("T")

_FREE_STEPS = 4000
"""How many channels or events one request may examine without extra cost."""

_STEPS_PER_READ = 25
"""How many further ones count as one more request. One takes about 10 microseconds."""


class RequestGuard:
    """Admits requests: checks ``Host`` and ``Origin``, identifies the client, and applies the read rate limit."""

    _reads: TokenBuckets | None = None

    def __init__(
        self, auth: Auth, trust: TrustedProxies, tokens: Tokens | None = None, now: Callable[[], float] = time
    ) -> None:
        """Apply `auth`; verify tokens with `tokens`, or ignore tokens if that is None.

        `now` returns the time in seconds since 1970.
        """
        self._trust = trust
        self._now = now
        self.configure(auth, tokens)

    def configure(self, auth: Auth, tokens: Tokens | None) -> None:
        """Replace the configuration, for later requests."""
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
        """The identity of clients without a token or certificate."""
        self.certified = Grants.of(
            auth.certified, auth.certified_publish, auth.certified_subscribe, origin="[auth] certified"
        )
        """The grants of clients with a certificate."""

    def readmit(self, request: Request) -> Deferred[None] | None:
        """Identify the ``caller`` of a request again, after its body was received: see `admit`.

        The token may have expired since, and the configuration may have changed.
        """
        if request.method == b"OPTIONS":
            return None
        host, origin = _single_header(request, b"host"), _single_header(request, b"origin")
        origin, host = None if origin is None else origin.lower(), None if host is None else host.lower()
        return self._identify(request, request.connection.info.certificate, origin, host)

    def admit(self, request: Request) -> Deferred[None] | None:
        """Check a request and set its ``caller``, now or when the Deferred fires; raise `Refused` if denied.

        Sets the CORS headers, by which a browser lets a page of an allowed origin read the response.
        """
        info = request.connection.info
        host = self._check_host(request, info)
        origin = _single_header(request, b"origin")
        if origin is not None:
            origin = origin.lower()
            self._check_origin(request, info, origin, host)
        place = self._place(info, request.requestHeaders) if self._trust.is_any else info.place
        request.caller = ClientInfo(self.anonymous, place)
        if request.method == b"OPTIONS":
            return None  # a preflight has no token
        return self._identify(request, info.certificate, origin, host)

    def _identify(
        self, request: Request, certificate: Certificate | None, origin: str | None, host: str | None
    ) -> Deferred[None] | None:
        """Set the identity of a request's ``caller`` from its token or certificate, now or later."""
        token = None if self._tokens is None else self._token(request, origin, host)
        if certificate is not None and certificate.expires_at <= self._now():
            raise Unauthorized(
                "the client certificate has expired; connect again with a new one", code="token_expired"
            )
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

    def limit_reads(self, reads: TokenBuckets | None) -> None:
        """Set the rate limit of read requests; None removes it."""
        self._reads = reads

    def charge_read(self, caller: ClientInfo) -> None:
        """Count a read request of `caller`, or raise `TooMany`. Operators are exempt."""
        owner = owner_of(caller)
        if self._reads is None or owner is None or caller.grants.is_operator:
            return
        wait_s = self._reads.take(owner)
        if wait_s:
            raise TooMany(f"{owner} reads too often: see [limits] read_rate", retry_s=wait_s, code="rate_limited")

    def reading(self, caller: ClientInfo, work: Work[T]) -> Work[T]:
        """Do `work` for `caller` in steps; count steps beyond 4000 as further read requests."""
        owner = owner_of(caller)
        if self._reads is None or owner is None or caller.grants.is_operator:
            return (yield from work)
        steps, error = 0, None
        try:
            while True:
                try:
                    missing = next(work) if error is None else work.throw(error)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                steps, error = steps + 1, None
                try:
                    yield missing
                except Unavailable as failure:
                    error = failure
        finally:
            if steps > _FREE_STEPS and self._reads is not None:
                self._reads.owe(owner, (steps - _FREE_STEPS) // _STEPS_PER_READ)

    def _place(self, info: ConnectionInfo, headers: Headers) -> ClientAddress:
        return ClientAddress.of(info.peer, self._trust.client_address(info.peer, headers))

    def _show(self, caller: ClientInfo, token: str, certificate: Certificate | None) -> Deferred[None] | None:
        """Set the identity of `caller` to that of the token, now or when the Deferred fires."""
        identity = self.identify(token)

        def identified(identity: Identity) -> None:
            until = None if certificate is None else certificate.expires_at
            caller.identity = identity if until is None else replace(identity, certified_until=until)

        if isinstance(identity, Identity):
            identified(identity)
            return None
        return identity.addCallback(identified)

    def identify(self, token: str) -> Identity | Deferred[Identity]:
        """Return the identity of a token, now or later; raise `Unauthorized` if the token is invalid."""
        if self._tokens is None:
            raise Unauthorized("a token, but there is no [key:NAME] to check it with", is_token_wrong=True)
        return self._tokens.identify(token)

    # Tokens: explicit or in a cookie

    def _token(self, request: Request, origin: str | None, host: str | None) -> str | None:
        token = explicit_token(request, _single_header(request, b"authorization"))
        if token is None and self._cookie is not None and request.requestHeaders.hasHeader(b"cookie"):
            return self._token_in_cookie(request, self._cookie, origin, host)
        return token

    def _token_in_cookie(self, request: Request, name: bytes, origin: str | None, host: str | None) -> str | None:
        """Return the token in the cookie `name`; raise `Forbidden` if the requesting page may not use it."""
        values = cookies(request, name)
        if not values:
            return None
        if len(set(values)) > 1:
            raise BadRequest(
                f"the cookie {name.decode('ascii')} appears {len(values)} times; expected once", "Cookie"
            )
        if origin is None and (request.method not in _SAFE_METHODS or is_upgrade(request)):
            raise Forbidden("a token in a cookie requires an Origin, which is missing", "Origin")
        self._check_page(request, origin, host, "a token in a cookie")
        return values[0].decode("utf-8", "replace")

    def _check_page(self, request: Request, origin: str | None, host: str | None, what: str) -> None:
        """Raise `Forbidden` if the browser added `what` by itself for a page that may not use it.

        Wildcards do not count here: an abandoned subdomain may have been taken over.
        """
        info, name = request.connection.info, "" if host is None else _without_port(host)
        if host is not None and not {host, name} & (self._hosts.exact | _own_names(info.host)):
            raise Forbidden(
                f"{what} requires a Host listed in [auth] hosts without a wildcard; "
                f"to allow it: [auth] hosts = {name}",
                "Host",
            )
        if origin is None:
            site = _single_header(request, b"sec-fetch-site")
            if site not in (None, "same-origin", "none"):
                raise Forbidden(
                    f"{what} requires an Origin, which is missing from a request that is {site}", "Origin"
                )
        elif origin not in self._origins.exact and not _is_own(info, origin, host):
            raise Forbidden(
                f"{what} from a page of {origin!r}, which [auth] origins allows only by a wildcard; "
                f"to allow it: [auth] origins = {origin}",
                "Origin",
            )

    # Host and Origin

    def _check_host(self, request: Request, info: ConnectionInfo) -> str | None:
        host = _single_header(request, b"host")
        if host is None:
            if request.clientproto == b"HTTP/1.0":
                return None  # no browser uses HTTP/1.0
            raise BadRequest("the Host header is missing (RFC 9112, section 3.2)", "Host")
        host = host.lower()
        name = _without_port(host)
        exact = self._hosts.exact  # fast path; the wildcards below cost a call each
        if host in exact or name in exact or name in _own_names(info.host):
            return host
        if host not in self._hosts and name not in self._hosts:
            raise Forbidden(
                f"Host {host!r} is not a name of this server; to allow it: [auth] hosts = {name}", "Host"
            )
        return host

    def cors_fields(self, origin: str) -> list[tuple[bytes, bytes]]:
        """Return the CORS headers for a page of `origin`; an empty list if `origin` is not allowed."""
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

    def _check_origin(self, request: Request, info: ConnectionInfo, origin: str, host: str | None) -> None:
        fields = self.cors_fields(origin)
        if fields:
            for name, value in fields:
                request.responseHeaders.addRawHeader(name, value)
            if request.method == b"OPTIONS":
                request.setHeader(b"access-control-allow-methods", b"GET, POST, DELETE")
                request.setHeader(b"access-control-allow-headers", _taken(request))
                request.setHeader(b"access-control-max-age", b"%d" % _PREFLIGHT_AGE_S)
        elif not _is_own(info, origin, host):
            raise Forbidden(
                f"Origin {origin!r} is not this server's own; to allow its pages: [auth] origins = {origin}",
                "Origin",
            )


def _taken(request: Request) -> bytes:
    """Return the headers that a page of an allowed origin may send: pushd's and the requested ones.

    Tracing tools add headers of their own to every request, such as traceparent or sentry-trace. Rejecting them
    would protect nothing, because the origin is allowed.
    """
    lines = request.requestHeaders.getRawHeaders(b"access-control-request-headers", [])
    asked = b",".join(lines)[:_MAX_ASKED_BYTES].lower().split(b",")
    own = _TAKEN.split(b", ")
    more = [name for name in (one.strip() for one in asked) if _TOKEN.fullmatch(name) and name not in own]
    return b", ".join([*own, *dict.fromkeys(more)])


def _is_own(info: ConnectionInfo, origin: str, host: str | None) -> bool:
    """Return whether `origin` is this server, addressed as `host`.

    Over plain HTTP, both schemes match, because a proxy may terminate TLS. Over TLS, a page loaded without it may
    be forged, so that only ``https`` matches.
    """
    return origin == f"https://{host}" or (origin == f"http://{host}" and not info.is_secure)


def _single_header(request: Request, name: bytes) -> str | None:
    values = request.requestHeaders.getRawHeaders(name)
    if not values:
        return None
    if len(values) > 1:
        title = name.decode("ascii").title()
        raise BadRequest(f"{title} appears {len(values)} times; expected once", title)
    value: str = values[0].decode("ascii", "backslashreplace")
    return value


def _without_port(host: str) -> str:
    """Return ``host`` of ``host:port``; an IPv6 address is in brackets (RFC 3986, section 3.2.2)."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _own_names(address: IAddress) -> frozenset[str]:
    """Return the host names that are valid for a connection to `address`."""
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
