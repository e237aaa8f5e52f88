"""The options of limits, authentication, proxies and webhooks."""

from __future__ import annotations

from pushd.config.addresses import parse_host_pattern, parse_network, parse_origin
from pushd.config.option import Option, Section
from pushd.config.types import (
    NAME,
    PATH,
    PATTERNS,
    PERCENT,
    RATE,
    SECRET,
    TEXT,
    choice,
    count,
    duration,
    listing,
    size,
    url,
    words,
)

__all__ = ["AUTH", "HOOKS", "KEY", "LIMITS", "PROXIES"]

RIGHTS = words("operator", "publish", "subscribe")
_NOTICES = ("connect", "disconnect", "occupied", "subscribe", "unsubscribe", "vacated")


LIMITS = Section(
    "limits",
    "How much the daemon takes from its clients, and how long it waits for them.",
    (
        Option(
            "event_size",
            size(1),
            "1000KiB",
            "The largest data of one event. Unless this is more than 1016KiB, the data may also take no more than "
            "that in JSON (escaped, or as base64): messages then fit into the 1 MiB that WebSocket clients such as "
            "Python's accept by default.",
        ),
        Option(
            "batch_size",
            size(1),
            "16MiB",
            "The largest body of any request; a POST to /publish holds many events. At least event_size.",
        ),
        Option(
            "bodies",
            size(1),
            "256MiB",
            "How much of requests and WebSocket messages that are not complete is held in memory, of all clients; "
            "one user or address may hold share of it, which must be enough for one batch_size. What is more is "
            "answered 503 or 429. An eighth more is kept for short ones.",
        ),
        Option(
            "outbox",
            size(1024),
            "1MiB",
            "How much may wait for one subscriber. What becomes of one for whom more is waiting is said by "
            "on_overflow in [channels].",
        ),
        Option(
            "connections",
            count(),
            "0",
            "How many connections the daemon has at once; others are answered 503. 0: as many as files may be open "
            "(ulimit -n), less 128, or half as many if that is more, and less what is kept for questions to the "
            "application and large files of a site.",
        ),
        Option(
            "connections_per_address",
            count(),
            "1000",
            "How many connections one address of IPv4, or one /64 network of IPv6, has at once; others are "
            "answered 429. Behind a proxy, these are those of subscribers, by what the proxy says of them. "
            "Loopback addresses and Unix sockets are not counted. 0: any number.",
        ),
        Option(
            "connections_per_user",
            count(),
            "100",
            "How many subscribers one user, as a token or a certificate names it, has connected at once; others "
            "are answered 429. 0: any number.",
        ),
        Option(
            "share",
            PERCENT,
            "10%",
            "How much of each bounded resource that clients share (unfinished bodies, unread answers, questions to "
            "the application, waiting notifications) one user may occupy, or one address without a user; addresses "
            "count as above.",
        ),
        Option(
            "connect_rate",
            RATE,
            "300",
            "How many subscribers may connect in a second from one address, counted as above; others are answered "
            "429. Requests to /poll count for read_rate instead. 0: any number.",
        ),
        Option("connect_burst", count(1), "1000", "How many may come at once before connect_rate counts."),
        Option(
            "read_rate",
            RATE,
            "2000",
            "How many requests to /poll, to the history, state or presence of a channel, for one event or for the "
            "list of channels, and HEAD requests to the other endpoints of subscribers, one user may send in a "
            "second, or one address without a user; others are answered 429. 0: any number.",
        ),
        Option("read_burst", count(1), "4000", "How many may come at once before read_rate counts."),
        Option(
            "publish_rate",
            RATE,
            "0",
            "How many events one user, or one address without a user, may publish in a second, an event to several "
            "channels counting for each; others are refused with 429. 0: any number.",
        ),
        Option("publish_burst", count(1), "1000", "How many may come at once before publish_rate counts."),
        Option(
            "command_rate",
            RATE,
            "100",
            "How many messages that do not publish (subscribe, unsubscribe, renew, and wrong ones) one WebSocket "
            "may send in a second; others are refused with 429. One user, or one address without a user, may send "
            "10 times as many over all its WebSockets. 0: any number.",
        ),
        Option(
            "command_burst",
            count(1),
            "1000",
            "How many one WebSocket may send at once before command_rate counts; one user or address, 100 times as "
            "many.",
        ),
        Option(
            "channels_per_event",
            count(1),
            "100",
            "How many channels one event may be published to; others are refused with 400. Each of them counts for "
            "publish_rate.",
        ),
        Option(
            "channels",
            count(1),
            "100000",
            "How many channels the daemon keeps in memory. As many names "
            "without a channel may be subscribed to, of which one user or address may occupy its share.",
        ),
        Option("subscriptions", count(1), "100", "How many channels or patterns one connection may subscribe to."),
        Option(
            "heartbeat",
            duration(1),
            "20s",
            "No connection is silent for longer than this, whatever was sent on it before: a WebSocket client gets "
            "a ping, one of Server-Sent Events a comment, one of NDJSON an empty line. It must be shorter than the "
            "time-outs of the proxies in between.",
        ),
        Option(
            "ping_timeout",
            duration(1),
            "20s",
            "A WebSocket client that sends nothing for this long after a ping is dropped; pings come at each "
            "heartbeat. A client of any kind "
            "whose machine takes nothing of what is sent to it for heartbeat and this together is dropped without "
            "a word.",
        ),
        Option("poll_timeout", duration(1), "20s", "How long a request to /poll waits for an event."),
        Option(
            "retry",
            duration(0.1),
            "2s",
            "How long clients of Server-Sent Events are told to wait before they connect again.",
        ),
        Option(
            "reconnect_spread",
            duration(),
            "5s",
            "When the daemon stops, clients are told to wait for retry and a time up to this in addition, each for "
            "another one, so that they do not all come back at once.",
        ),
        Option(
            "request_timeout",
            duration(1),
            "60s",
            "An HTTP connection on which no complete request arrives for this long is closed.",
        ),
        Option(
            "head_timeout",
            duration(1),
            "10s",
            "How long the head of a request may take from its first byte, and a TLS handshake in all.",
        ),
        Option(
            "body_rate",
            size(1),
            "1KiB",
            "How much of the body of a request must come in a second, on average after request_timeout.",
        ),
        Option(
            "answers",
            size(1024 * 1024),
            "256MiB",
            "How many bytes of answers may wait for clients that do not read them; of one user or address, share "
            "of them. A request whose answer would be too much is answered 429 or 503. Streams of subscribers do "
            "not count: outbox bounds them.",
        ),
        Option(
            "answer_rate",
            size(1),
            "1KiB",
            "How much of an answer must be read in a second, on average after request_timeout; a client that reads "
            "less loses the connection, or over HTTP/2 the stream. Streams of subscribers do not count.",
        ),
    ),
)

AUTH = Section(
    "auth",
    "Who may do what.",
    (
        Option(
            "anonymous",
            RIGHTS,
            "operator, publish, subscribe",
            "What anybody may do who can reach the daemon. publish: to every channel. subscribe: to every "
            "channel, and read its history. operator: look after channels and connections. The default holds only "
            "while every listener is on the loopback interface or a unix socket, and [proxies] trusts nobody; "
            "otherwise this must be said. Empty: nothing. A reverse proxy opens a listener on this machine to "
            "others: with one in front, say what you want.",
        ),
        Option(
            "anonymous_publish",
            PATTERNS,
            "",
            "The channels to which anybody may publish.",
        ),
        Option(
            "anonymous_subscribe",
            PATTERNS,
            "",
            "The channels to which anybody may subscribe.",
        ),
        Option(
            "certified",
            RIGHTS,
            "publish, subscribe",
            "What clients may do that show a certificate; see client_ca in [listen:NAME].",
        ),
        Option("certified_publish", PATTERNS, "", "The channels to which they may publish."),
        Option("certified_subscribe", PATTERNS, "", "The channels to which they may subscribe."),
        Option(
            "cookie",
            NAME,
            "",
            "The name of a cookie that may hold a token. Such a request is only served if its Origin is the "
            "daemon's own or one of origins, and its Host one of hosts; wildcards do not count here. Empty: no "
            "cookie does.",
        ),
        Option(
            "leeway",
            duration(0, 3600),
            "10s",
            "By how much the clock of who makes tokens may differ, where exp and nbf are looked at.",
        ),
        Option(
            "hosts",
            listing("hosts such as push.example.com, push.example.com:8443 or *.example.com", parse_host_pattern),
            "",
            "Further names by which clients may address the daemon, each a host or host:port, without a "
            "scheme; without a port, the name counts at every port. *. at the beginning stands for one or more "
            "labels: *.example.com is a.example.com and a.b.example.com, but not example.com; at least two labels "
            "must follow. An IPv6 address stands in brackets. Its "
            "own are the address that a client connected to and, on the loopback interface, localhost. "
            "Requests by any other name are refused.",
        ),
        Option(
            "origins",
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
        ),
    ),
)

KEY = Section(
    "key",
    "A key that tokens (JWT) are checked with. NAME stands for it in the log and in the command that makes "
    "tokens: 1 to 32 of the characters a-z, 0-9, _ and -. Just one of secret, secret_file, public_key_file and "
    "jwks_url must be said.",
    (
        Option(
            "algorithm",
            choice(*(f"{kind}{size}" for kind in ("HS", "RS", "PS", "ES") for size in (256, 384, 512)), "EdDSA"),
            None,
            "The only algorithm that tokens may be signed with; it must be said.",
        ),
        Option(
            "secret",
            SECRET,
            "",
            "The secret of HS256, HS384 or HS512: at least 32, 48 or 64 bytes. It is never shown.",
        ),
        Option("secret_file", PATH, "", "A file that holds it; white space at its end does not count."),
        Option("public_key_file", PATH, "", "The file with the public key, in PEM, for the other algorithms."),
        Option(
            "jwks_url",
            url("https", "http to this machine"),
            "",
            "Where the public keys are fetched from, as a JSON Web Key Set (RFC 7517).",
        ),
        Option("issuer", TEXT, "", "What the claim iss must be. Empty: anything."),
        Option("audience", TEXT, "", "What the claim aud must be or have. Empty: there must be none."),
    ),
    "NAME",
    {"app": {"algorithm": "HS256", "secret_file": "/etc/pushd/app.secret"}},
)

PROXIES = Section(
    "proxies",
    "The reverse proxies in front of the daemon, which say where clients are.",
    (
        Option(
            "trusted",
            listing("networks such as 10.0.0.0/8 or 192.0.2.7 or fd00::/8, or unix", parse_network),
            "",
            "The addresses of the proxies; unix stands for every Unix socket. What others say is not believed.",
        ),
        Option(
            "header",
            choice("x-forwarded-for", "forwarded", "none"),
            "x-forwarded-for",
            "The header in which they say it, and which they must set themselves: the last address in it that is "
            "not one of theirs is the client's. forwarded is that of RFC 7239.",
        ),
    ),
)

HOOKS = Section(
    "hooks",
    "The application is asked whether clients may do something, and told what they have done, by POST requests "
    "with JSON; docs/hooks.rst says more. Empty: it is not.",
    (
        Option("before_connect", url("https", "http"), "", "Asked before a subscriber is connected."),
        Option("before_subscribe", url("https", "http"), "", "Asked before it is subscribed to a channel."),
        Option("before_publish", url("https", "http"), "", "Asked before an event of a client is published."),
        Option("after", url("https", "http"), "", "Told afterwards what has happened."),
        Option("after_events", words(*_NOTICES), ", ".join(_NOTICES), "Of what it is told."),
        Option(
            "secret",
            SECRET,
            "",
            "What the requests are signed with, as Standard Webhooks has it: whsec_ and 24 to 64 bytes in base64. "
            "It must be said with any URL, here or in secret_file, and is never shown.",
        ),
        Option("secret_file", PATH, "", "A file that holds it; white space at its end does not count."),
        Option("timeout", duration(0.1, 60), "2s", "How long an answer may take."),
        Option(
            "questions",
            count(1, 100_000),
            "1000",
            "How many questions wait for their answers at once, of which each has a connection of its own; at most "
            "a quarter of the files that may be open, or what connections leave of them. Of "
            "one user or address, [limits] share of them do; the client is answered 429 or 503 if there are more.",
        ),
        Option(
            "when_down",
            choice("deny", "allow"),
            "deny",
            "What counts as the answer of an application that is asked and does not answer: deny with 503, or "
            "allow.",
        ),
        Option(
            "retry_for",
            duration(0, 7 * 86400),
            "5m",
            "For how long it is tried to tell something, with growing pauses, before it is dropped.",
        ),
        Option(
            "queue",
            count(1, 10**7),
            "30000",
            "How much waits to be told, and of one user or address, [limits] share of it. When it is more, the "
            "oldest is dropped of the user or address of which the most waits, and the application is told how "
            "much.",
        ),
        Option(
            "breaker_failures",
            count(1),
            "5",
            "After how many failures in a row the application counts as down, and is not asked for a while.",
        ),
        Option("breaker_pause", duration(0.1, 3600), "5s", "For how long, before one question tries it again."),
    ),
)
