"""The options of ``[auth]``, ``[key:NAME]`` and ``[proxies]``."""

from __future__ import annotations

from dataclasses import dataclass

from pushd.bus import Pattern
from pushd.config.addresses import parse_host_pattern, parse_network, parse_origin
from pushd.config.option import option
from pushd.config.types import NAME, PATH, PATTERNS, SECRET, TEXT, choice, duration, listing, url, words

__all__ = ["Auth", "Key", "Proxies"]

RIGHTS = words("operator", "publish", "subscribe")


@dataclass(frozen=True, slots=True)
class Auth:
    """Authentication and default grants."""

    anonymous: frozenset[str] = option(
        RIGHTS,
        "operator, publish, subscribe",
        "The rights of clients without a token. publish: publish to every channel. subscribe: subscribe to every "
        "channel and read its history. operator: manage channels and connections. The default applies only while "
        "every listener is on the loopback interface or a Unix socket and [proxies] trusts nobody; otherwise "
        "this option is required. Empty: no rights. A reverse proxy makes a local listener reachable from other "
        "machines: behind one, set this option.",
    )

    anonymous_publish: tuple[Pattern, ...] = option(
        PATTERNS, "", "The channels that clients without a token may publish to."
    )

    anonymous_subscribe: tuple[Pattern, ...] = option(
        PATTERNS, "", "The channels that clients without a token may subscribe to."
    )

    certified: frozenset[str] = option(
        RIGHTS,
        "publish, subscribe",
        "The rights of clients with a certificate; see client_ca in [listen:NAME].",
    )

    certified_publish: tuple[Pattern, ...] = option(
        PATTERNS, "", "The channels that clients with a certificate may publish to."
    )

    certified_subscribe: tuple[Pattern, ...] = option(
        PATTERNS, "", "The channels that clients with a certificate may subscribe to."
    )

    cookie: str | None = option(
        NAME,
        "",
        "The name of a cookie that may carry a token. A request with it is accepted only if its Origin is "
        "pushd's own or listed in origins, and its Host is pushd's own or listed in hosts; entries with "
        "wildcards do not count. Empty: cookies are ignored.",
    )

    leeway_s: float = option(
        duration(0, 3600),
        "10s",
        "The maximum clock difference to the issuer of tokens, when exp and nbf are checked.",
    )

    hosts: tuple[str, ...] = option(
        listing("hosts such as push.example.com, push.example.com:8443 or *.example.com", parse_host_pattern),
        "",
        "Additional names of this server in the Host header, each a host or host:port without a scheme; a name "
        "without a port matches every port. A leading *. matches one or more labels: *.example.com matches "
        "a.example.com and a.b.example.com, but not example.com; at least two labels must follow. IPv6 addresses "
        "are written in brackets. Always accepted are the address of the connection and, on the loopback "
        "interface, localhost. Requests with any other name are rejected.",
    )

    origins: tuple[str, ...] = option(
        listing(
            "origins such as https://www.example.com, https://*.example.com or http://localhost:*, or *",
            parse_origin,
        ),
        "",
        "Web origins whose pages may use pushd, each scheme://host or scheme://host:port, as in the Origin "
        "header; they get CORS headers. A leading *. in the host matches one or more labels, as in hosts; :* "
        "matches any port, and * any origin. For requests with a cookie or a client certificate, only entries of "
        "hosts and origins without a wildcard count. Requests from pages of other origins, except pushd's own, "
        "are rejected.",
    )


@dataclass(frozen=True, slots=True)
class Key:
    """A key or key set to verify tokens; exactly one secret, file or URL is set."""

    name: str
    """Name in the log."""

    algorithm: str = option(
        choice(*(f"{kind}{size}" for kind in ("HS", "RS", "PS", "ES") for size in (256, 384, 512)), "EdDSA"),
        None,
        "The only algorithm accepted in tokens signed with this key; required.",
    )

    secret: str | None = option(
        SECRET,
        "",
        "The secret of HS256, HS384 or HS512: at least 32, 48 or 64 bytes. It is never printed.",
    )

    secret_file: str | None = option(
        PATH,
        "",
        "The file with the secret; trailing white space is ignored.",
    )

    public_key_file: str | None = option(
        PATH,
        "",
        "The file with the public key, in PEM, for the other algorithms.",
    )

    jwks_url: str | None = option(
        url("https", "http to this machine"),
        "",
        "The URL of the public keys, a JSON Web Key Set (RFC 7517).",
    )

    issuer: str | None = option(TEXT, "", "The required value of the claim iss. Empty: any value.")

    audience: str | None = option(
        TEXT,
        "",
        "The required value of the claim aud, or one of its values. Empty: tokens with aud are rejected.",
    )


@dataclass(frozen=True, slots=True)
class Proxies:
    """The reverse proxies in front of the daemon."""

    trusted: tuple[str, ...] = option(
        listing("networks such as 10.0.0.0/8 or 192.0.2.7 or fd00::/8, or unix", parse_network),
        "",
        "The addresses of the proxies; unix means every Unix socket. Headers with client addresses are ignored "
        "if they come from any other address.",
    )

    header: str = option(
        choice("x-forwarded-for", "forwarded", "none"),
        "x-forwarded-for",
        "The header with the client's address, which the proxies must set themselves: the last address in it "
        "that is not a trusted proxy is the client's. forwarded: the header of RFC 7239.",
    )
