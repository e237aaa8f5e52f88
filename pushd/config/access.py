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
        "What anybody may do who can reach the daemon. publish: to every channel. subscribe: to every "
        "channel, and read its history. operator: look after channels and connections. The default holds only "
        "while every listener is on the loopback interface or a unix socket, and [proxies] trusts nobody; "
        "otherwise this must be said. Empty: nothing. A reverse proxy opens a listener on this machine to "
        "others: with one in front, say what you want.",
    )

    anonymous_publish: tuple[Pattern, ...] = option(PATTERNS, "", "The channels to which anybody may publish.")

    anonymous_subscribe: tuple[Pattern, ...] = option(PATTERNS, "", "The channels to which anybody may subscribe.")

    certified: frozenset[str] = option(
        RIGHTS,
        "publish, subscribe",
        "What clients may do that show a certificate; see client_ca in [listen:NAME].",
    )

    certified_publish: tuple[Pattern, ...] = option(PATTERNS, "", "The channels to which they may publish.")

    certified_subscribe: tuple[Pattern, ...] = option(PATTERNS, "", "The channels to which they may subscribe.")

    cookie: str | None = option(
        NAME,
        "",
        "The name of a cookie that may hold a token. Such a request is only served if its Origin is the "
        "daemon's own or one of origins, and its Host one of hosts; wildcards do not count here. Empty: no "
        "cookie does.",
    )

    leeway_s: float = option(
        duration(0, 3600),
        "10s",
        "By how much the clock of who makes tokens may differ, where exp and nbf are looked at.",
    )

    hosts: tuple[str, ...] = option(
        listing("hosts such as push.example.com, push.example.com:8443 or *.example.com", parse_host_pattern),
        "",
        "Further names by which clients may address the daemon, each a host or host:port, without a "
        "scheme; without a port, the name counts at every port. *. at the beginning stands for one or more "
        "labels: *.example.com is a.example.com and a.b.example.com, but not example.com; at least two labels "
        "must follow. An IPv6 address stands in brackets. Its "
        "own are the address that a client connected to and, on the loopback interface, localhost. "
        "Requests by any other name are refused.",
    )

    origins: tuple[str, ...] = option(
        listing(
            "origins such as https://www.example.com, https://*.example.com or http://localhost:*, or *",
            parse_origin,
        ),
        "",
        "Web origins whose pages may use the daemon, each scheme://host or scheme://host:port, as the "
        "header Origin has them; they get the headers of CORS. *. at the beginning of the host stands for one "
        "or more labels, as in hosts, :* for any port, and * for any origin. Where a browser shows a cookie or "
        "a client certificate, only hosts and origins without a wildcard count. Requests from "
        "pages of any other origin than the daemon's own are refused.",
    )


@dataclass(frozen=True, slots=True)
class Key:
    """A key or key set to verify tokens; exactly one secret, file or URL is set."""

    name: str
    """Name in the log."""

    algorithm: str = option(
        choice(*(f"{kind}{size}" for kind in ("HS", "RS", "PS", "ES") for size in (256, 384, 512)), "EdDSA"),
        None,
        "The only algorithm that tokens may be signed with; it must be said.",
    )

    secret: str | None = option(
        SECRET,
        "",
        "The secret of HS256, HS384 or HS512: at least 32, 48 or 64 bytes. It is never shown.",
    )

    secret_file: str | None = option(
        PATH,
        "",
        "A file that holds it; white space at its end does not count.",
    )

    public_key_file: str | None = option(
        PATH,
        "",
        "The file with the public key, in PEM, for the other algorithms.",
    )

    jwks_url: str | None = option(
        url("https", "http to this machine"),
        "",
        "Where the public keys are fetched from, as a JSON Web Key Set (RFC 7517).",
    )

    issuer: str | None = option(TEXT, "", "What the claim iss must be. Empty: anything.")

    audience: str | None = option(
        TEXT,
        "",
        "What the claim aud must be or have. Empty: there must be none.",
    )


@dataclass(frozen=True, slots=True)
class Proxies:
    """The reverse proxies in front of the daemon."""

    trusted: tuple[str, ...] = option(
        listing("networks such as 10.0.0.0/8 or 192.0.2.7 or fd00::/8, or unix", parse_network),
        "",
        "The addresses of the proxies; unix stands for every Unix socket. What others say is not believed.",
    )

    header: str = option(
        choice("x-forwarded-for", "forwarded", "none"),
        "x-forwarded-for",
        "The header in which they say it, and which they must set themselves: the last address in it that is "
        "not one of theirs is the client's. forwarded is that of RFC 7239.",
    )
