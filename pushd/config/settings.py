"""The configuration as frozen dataclasses, which declare the options."""

from __future__ import annotations

from dataclasses import dataclass

from pushd.config.access import Auth, Key, Proxies
from pushd.config.addresses import parse_resource
from pushd.config.channel_rules import ChannelRules
from pushd.config.hooks import Hooks
from pushd.config.limits import Limits
from pushd.config.option import option
from pushd.config.types import ENDPOINT, FLAG, PATH, choice, duration, listing, size

__all__ = ["Config", "Http2", "Listener", "Log", "PushList", "Site"]


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener."""

    name: str
    """Name in the log."""

    endpoint: str = option(
        ENDPOINT,
        None,
        "Where to listen, in Twisted's notation for server endpoints; it must be said. A colon inside a "
        "value is written with a backslash before it, as in tcp6:8080:interface=\\:\\:1. Without "
        "interface=, a tcp endpoint is open to the whole network. Instead of an ssl: endpoint, use tcp: "
        "and tls = yes.",
        needs_restart=True,
    )

    tls: bool = option(FLAG, "no", "Whether to speak TLS.", needs_restart=True)

    certificate: str | None = option(
        PATH,
        "",
        "The file with the certificate and its chain, in PEM. With tls = yes, and neither this nor a "
        "key, the daemon makes a self-signed certificate and keeps it in the state directory.",
    )

    key: str | None = option(PATH, "", "The file with the private key of the certificate, in PEM.")
    """None exactly if `certificate` is None."""

    serves: str = option(
        choice("everything", "operations"),
        "everything",
        "What is served there. operations: only /healthz, /readyz and /metrics, all without rights, so that "
        "only those must reach it who may see them, and /status with /connections, for operators who show a "
        "token, whatever anonymous says.",
        needs_restart=True,
    )

    client_ca: str | None = option(
        PATH,
        "",
        "The file with the certificates, in PEM, of the authorities that clients' certificates must come "
        "from. Clients are then asked for one (mutual TLS), and its subject is the user, as in "
        "CN=alice,O=Example. What they may do is said by certified in [auth].",
    )

    client_certificate: str = option(
        choice("required", "optional"),
        "required",
        "With client_ca: whether clients without a certificate are refused, in the TLS handshake, or served "
        "like anybody.",
    )

    proxy_protocol: bool = option(
        FLAG,
        "no",
        "Whether connections from the addresses in [proxies] begin with a header of the PROXY protocol, "
        "version 1 or 2, which says where the client is. Connections from other addresses are closed then.",
        needs_restart=True,
    )


@dataclass(frozen=True, slots=True)
class Site:
    """The static files and their HTTP features."""

    root: str | None = option(
        PATH,
        "",
        "A directory of static files, to be served under /. Files whose names begin with a dot are not served, "
        "nor are links that lead out of it. Empty: none.",
    )

    demo: bool = option(
        FLAG,
        "yes",
        "Whether to serve the built-in demo page, and the channel clock that it shows, when there is no root.",
    )

    early_hints: bool = option(
        FLAG,
        "no",
        "Whether 103 Early Hints goes to clients of HTTP/1.1 as well; some of them take it for the response. "
        "Those of HTTP/2 get it anyway.",
    )

    strict_transport_s: float = option(
        duration(0, 36500 * 86400),
        "0s",
        "For how long browsers that came with TLS are to come back with nothing else, as in 730d "
        "(Strict-Transport-Security). That binds the whole name of the host, at every port, so it is for you "
        "to say. 0: they are not told.",
    )


@dataclass(frozen=True, slots=True)
class Http2:
    """Options of HTTP/2."""

    websocket: bool = option(
        FLAG,
        "no",
        "Whether a WebSocket can be one stream of a connection (RFC 8441). Browsers that see it offered open "
        "theirs that way, on the connection that they have; without it they open another one, over HTTP/1.1.",
    )


@dataclass(frozen=True, slots=True)
class PushList:
    """The resources pushed or hinted with a page."""

    path: str
    """Path of the page."""

    resources: tuple[str, ...] = option(
        listing("paths such as /style.css or /app.js", parse_resource),
        None,
        "The paths of what the page needs, on this server; it must be said. What they are is seen by their "
        "endings; .mjs stands for a module.",
    )


@dataclass(frozen=True, slots=True)
class Log:
    """Options of the log."""

    level: str = option(
        choice("debug", "info", "warn", "error", "critical"), "info", "The least important events that are logged."
    )

    format: str = option(
        choice("auto", "text", "json"),
        "auto",
        "How lines are written. text: as people read them, in colours on a terminal. json: one JSON object "
        "a line. auto: for the journal if standard output, or else standard error, is connected to it, "
        "without the time, which it adds, and with priorities; else text.",
        needs_restart=True,
    )

    requests: bool = option(
        FLAG,
        "no",
        "Whether to log every HTTP request, when it is answered, and to give it an id in X-Request-ID.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration."""

    state_directory: str | None = option(
        PATH,
        "",
        "Where the daemon keeps what must outlive it, such as its self-signed certificate. If this is "
        "empty, it is $STATE_DIRECTORY, which systemd sets; else $XDG_STATE_HOME/pushd; else "
        "~/.local/state/pushd. Only one daemon at a time can use it.",
        needs_restart=True,
    )
    """None: see `pushd.config.loader.state_directory`."""

    store: str = option(
        choice("sqlite", "memory"),
        "sqlite",
        "Where events are kept. sqlite: in the file pushd.db in the state directory, so that clients that come "
        "back after a restart get what they have missed. memory: they end with the daemon.",
        needs_restart=True,
    )

    durability: str = option(
        choice("process", "power"),
        "process",
        "What an event has survived when its publisher is told that it was published. process: the end of the "
        "daemon, even by kill -9; if the machine fails, what was published last may be lost, which clients are "
        "told then. power: that too, because the daemon waits for the disk each time. With store = memory it "
        "means nothing.",
        needs_restart=True,
    )

    store_size_bytes: int = option(
        size(1024 * 1024, 2**44),
        "1GiB",
        "About how much the events of all channels may take, counted as in [channels] history_bytes. Each "
        "channel that has any counts as well, with twice its name and 128 bytes (928 with store = memory). "
        "When it is more, the oldest events of all go. The file on the disk has up to half as much again, and "
        "the log of what is written, beside it, about a sixteenth (4 to 64 MiB; set at the start).",
    )

    store_memory_bytes: int = option(
        size(1024 * 1024),
        "64MiB",
        "About how much of that is also kept in memory, the latest events, so that they need not be read from "
        "the disk for clients that come back.",
        needs_restart=True,
    )

    stop_timeout_s: float = option(
        duration(),
        "5s",
        "How long connections get to take what is waiting for them when the daemon stops.",
    )

    listeners: tuple[Listener, ...]
    """The listeners, at least one, in the order of the file."""

    site: Site
    http2: Http2
    pushes: tuple[PushList, ...]
    """The resources of pages, in the order of the file."""

    channels: ChannelRules
    limits: Limits
    auth: Auth
    keys: tuple[Key, ...]
    """The keys of tokens, in the order of the file."""

    proxies: Proxies
    hooks: Hooks
    log: Log
