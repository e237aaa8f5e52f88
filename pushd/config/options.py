"""The option table: the source of the parser, the sample file and the reference page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pushd.config.addresses import parse_resource
from pushd.config.option import Option, Section
from pushd.config.options_access import AUTH, HOOKS, KEY, LIMITS, PROXIES
from pushd.config.types import ENDPOINT, FLAG, PATH, choice, count, duration, listing, size

__all__ = ["LISTENERS", "SECTIONS"]

_PUSHD = Section(
    "pushd",
    "The daemon as a whole.",
    (
        Option(
            "state_directory",
            PATH,
            "",
            "Where the daemon keeps what must outlive it, such as its self-signed certificate. If this is "
            "empty, it is $STATE_DIRECTORY, which systemd sets; else $XDG_STATE_HOME/pushd; else "
            "~/.local/state/pushd. Only one daemon at a time can use it.",
        ),
        Option(
            "store",
            choice("sqlite", "memory"),
            "sqlite",
            "Where events are kept. sqlite: in the file pushd.db in the state directory, so that clients that come "
            "back after a restart get what they have missed. memory: they end with the daemon.",
        ),
        Option(
            "durability",
            choice("process", "power"),
            "process",
            "What an event has survived when its publisher is told that it was published. process: the end of the "
            "daemon, even by kill -9; if the machine fails, what was published last may be lost, which clients are "
            "told then. power: that too, because the daemon waits for the disk each time. With store = memory it "
            "means nothing.",
        ),
        Option(
            "store_size",
            size(1024 * 1024, 2**44),
            "1GiB",
            "About how much the events of all channels may take, counted as in [channels] history_bytes. Each "
            "channel that has any counts as well, with twice its name and 128 bytes (928 with store = memory). "
            "When it is more, the oldest events of all go. The file on the disk has up to half as much again, and "
            "the log of what is written, beside it, about a sixteenth (4 to 64 MiB; set at the start).",
        ),
        Option(
            "store_memory",
            size(1024 * 1024),
            "64MiB",
            "About how much of that is also kept in memory, the latest events, so that they need not be read from "
            "the disk for clients that come back.",
        ),
        Option(
            "stop_timeout",
            duration(),
            "5s",
            "How long connections get to take what is waiting for them when the daemon stops.",
        ),
    ),
)

LISTENERS: Mapping[str, Mapping[str, str]] = {
    "http": {"endpoint": "tcp:8080:interface=127.0.0.1"},
    "https": {"endpoint": "tcp:8443:interface=127.0.0.1", "tls": "yes"},
}
"""The default listeners, used if the file has none: options by name."""

_LISTEN = Section(
    "listen",
    "A place to listen at. NAME stands for it in the log: 1 to 32 of the characters a-z, 0-9, _ and -. "
    "Without any such section there are two, http and https, that only this machine can reach; as soon as "
    "there is one, those two are gone.",
    (
        Option(
            "endpoint",
            ENDPOINT,
            None,
            "Where to listen, in Twisted's notation for server endpoints; it must be said. A colon inside a "
            "value is written with a backslash before it, as in tcp6:8080:interface=\\:\\:1. Without "
            "interface=, a tcp endpoint is open to the whole network. Instead of an ssl: endpoint, use tcp: "
            "and tls = yes.",
        ),
        Option("tls", FLAG, "no", "Whether to speak TLS."),
        Option(
            "certificate",
            PATH,
            "",
            "The file with the certificate and its chain, in PEM. With tls = yes, and neither this nor a "
            "key, the daemon makes a self-signed certificate and keeps it in the state directory.",
        ),
        Option("key", PATH, "", "The file with the private key of the certificate, in PEM."),
        Option(
            "serves",
            choice("everything", "operations"),
            "everything",
            "What is served there. operations: only /healthz, /readyz and /metrics, all without rights, so that "
            "only those must reach it who may see them, and /status with /connections, for operators who show a "
            "token, whatever anonymous says.",
        ),
        Option(
            "client_ca",
            PATH,
            "",
            "The file with the certificates, in PEM, of the authorities that clients' certificates must come "
            "from. Clients are then asked for one (mutual TLS), and its subject is the user, as in "
            "CN=alice,O=Example. What they may do is said by certified in [auth].",
        ),
        Option(
            "client_certificate",
            choice("required", "optional"),
            "required",
            "With client_ca: whether clients without a certificate are refused, in the TLS handshake, or served "
            "like anybody.",
        ),
        Option(
            "proxy_protocol",
            FLAG,
            "no",
            "Whether connections from the addresses in [proxies] begin with a header of the PROXY protocol, "
            "version 1 or 2, which says where the client is. Connections from other addresses are closed then.",
        ),
    ),
    "NAME",
    LISTENERS,
)

_SITE = Section(
    "site",
    "What the daemon serves besides channels.",
    (
        Option(
            "root",
            PATH,
            "",
            "A directory of static files, to be served under /. Files whose names begin with a dot are not served, "
            "nor are links that lead out of it. Empty: none.",
        ),
        Option(
            "demo",
            FLAG,
            "yes",
            "Whether to serve the built-in demo page, and the channel clock that it shows, when there is no root.",
        ),
        Option(
            "early_hints",
            FLAG,
            "no",
            "Whether 103 Early Hints goes to clients of HTTP/1.1 as well; some of them take it for the response. "
            "Those of HTTP/2 get it anyway.",
        ),
        Option(
            "strict_transport",
            duration(0, 36500 * 86400),
            "0s",
            "For how long browsers that came with TLS are to come back with nothing else, as in 730d "
            "(Strict-Transport-Security). That binds the whole name of the host, at every port, so it is for you "
            "to say. 0: they are not told.",
        ),
    ),
)

_HTTP2 = Section(
    "http2",
    "What is different over HTTP/2, which listeners with TLS speak to clients that do.",
    (
        Option(
            "websocket",
            FLAG,
            "no",
            "Whether a WebSocket can be one stream of a connection (RFC 8441). Browsers that see it offered open "
            "theirs that way, on the connection that they have; without it they open another one, over HTTP/1.1.",
        ),
    ),
)

_PUSH = Section(
    "push",
    "What goes with the page at PATH, which is written as in a URL and begins with /. Over HTTP/2 it is pushed to "
    "clients that take pushes, once for each connection; the others get 103 Early Hints and Link headers. "
    "So does whatever a resource names itself in a header Link with rel=preload, unless it says nopush.",
    (
        Option(
            "resources",
            listing("paths such as /style.css or /app.js", parse_resource),
            None,
            "The paths of what the page needs, on this server; it must be said. What they are is seen by their "
            "endings; .mjs stands for a module.",
        ),
    ),
    "PATH",
    {"/": {"resources": "/style.css, /app.js"}},
)

_CHANNELS = Section(
    "channels",
    "What is kept of every channel, so that a client that comes back gets what it has missed, what becomes of one "
    "that is too slow, and who is told who is there.",
    (
        Option("history_size", count(), "100", "How many events are kept, the latest ones. 0: none."),
        Option(
            "history_bytes",
            replace(size(1024, 2**40), suffix=""),
            "64MiB",
            "How much the events that are kept may take. Each counts with its data, its type and 128 bytes. An id "
            "that a publisher gave counts twice, with the name of the channel and 40 bytes. With store = memory an "
            "event counts with 400 bytes more, or 900 if it has such an id.",
        ),
        Option("history_age", duration(0, 36500 * 86400), "1h", "How long an event is kept. 0: not at all."),
        Option(
            "on_overflow",
            choice("close", "latest"),
            "close",
            "What becomes of a subscriber for whom more is waiting than [limits] outbox. close: its connection is "
            "closed as too slow, and it may come back and go on from the last event that it got, so that it loses "
            "nothing. latest: it stays connected, and the older half of what is waiting for it from such channels "
            "is dropped; that is for channels on which only the latest counts.",
        ),
        Option(
            "presence",
            choice("operator", "subscribers", "events"),
            "operator",
            "Who is told who is subscribed to a channel. operator: who has that right, for GET "
            "/channels/CHANNEL/presence. subscribers: everybody who may subscribe to the channel. events: the "
            "same, and whenever a client subscribes to the channel by its name, or does so no more, an event of "
            "the type pushd.join or pushd.leave is published to it.",
        ),
    ),
)

_CHANNELS_OF_PATTERN = Section(
    "channels",
    "The same for the channels whose name PATTERN matches. In it, * stands for one segment and ** for any "
    "number of them; segments are separated by /, . or : characters. Where several sections match, they "
    "apply in the order of the file, and later ones win. An option that is not said here stays as it is "
    "without this section.",
    tuple(replace(option, default=None, doc=f"As in [channels]. {option.doc}") for option in _CHANNELS.options),
    "PATTERN",
    {
        "logs/**": {
            "history_size": "1000",
            "history_bytes": "64MiB",
            "history_age": "1d",
            "on_overflow": "close",
            "presence": "operator",
        },
        "prices/*": {
            "history_size": "1",
            "history_bytes": "64MiB",
            "history_age": "1h",
            "on_overflow": "latest",
            "presence": "operator",
        },
    },
)

_LOG = Section(
    "log",
    "What is logged.",
    (
        Option(
            "level",
            choice("debug", "info", "warn", "error", "critical"),
            "info",
            "The least important events that are logged.",
        ),
        Option(
            "format",
            choice("auto", "text", "json"),
            "auto",
            "How lines are written. text: as people read them, in colours on a terminal. json: one JSON object "
            "a line. auto: for the journal if standard output, or else standard error, is connected to it, "
            "without the time, which it adds, and with priorities; else text.",
        ),
        Option(
            "requests",
            FLAG,
            "no",
            "Whether to log every HTTP request, when it is answered, and to give it an id in X-Request-ID.",
        ),
    ),
)

SECTIONS = (
    _PUSHD,
    _LISTEN,
    _SITE,
    _HTTP2,
    _PUSH,
    _CHANNELS,
    _CHANNELS_OF_PATTERN,
    LIMITS,
    AUTH,
    KEY,
    PROXIES,
    HOOKS,
    _LOG,
)
"""The whole option table, in the order of the reference page."""
