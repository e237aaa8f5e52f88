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
        "The address to listen at, as a Twisted server endpoint; required. Escape a colon inside a value with a "
        "backslash, as in tcp6:8080:interface=\\:\\:1. Without interface=, a tcp endpoint is open to the whole "
        "network. Instead of an ssl: endpoint, use tcp: with tls = yes.",
        needs_restart=True,
    )

    tls: bool = option(FLAG, "no", "Whether to serve TLS.", needs_restart=True)

    certificate: str | None = option(
        PATH,
        "",
        "The file with the certificate and its chain, in PEM. With tls = yes and neither certificate nor key, "
        "pushd makes a self-signed certificate and keeps it in the state directory.",
    )

    key: str | None = option(PATH, "", "The file with the private key of the certificate, in PEM.")
    """None exactly if `certificate` is None."""

    serves: str = option(
        choice("everything", "operations"),
        "everything",
        "What the listener serves. operations: only /healthz, /readyz and /metrics, which need no rights, so "
        "restrict who can reach them, and /status with /connections, for operators with a token, whatever "
        "anonymous allows.",
        needs_restart=True,
    )

    client_ca: str | None = option(
        PATH,
        "",
        "The file with the certificates, in PEM, of the authorities that sign client certificates. It enables "
        "mutual TLS: the subject of a client's certificate is the user, as in CN=alice,O=Example. certified in "
        "[auth] sets the rights of such clients.",
    )

    client_certificate: str = option(
        choice("required", "optional"),
        "required",
        "With client_ca: whether clients without a certificate are rejected in the TLS handshake, or served as "
        "anonymous clients.",
    )

    proxy_protocol: bool = option(
        FLAG,
        "no",
        "Whether connections from the addresses in [proxies] begin with a header of the PROXY protocol, version "
        "1 or 2, with the client's address. Connections from other addresses are closed.",
        needs_restart=True,
    )


@dataclass(frozen=True, slots=True)
class Site:
    """The static files and their HTTP features."""

    root: str | None = option(
        PATH,
        "",
        "A directory of static files to serve under /. Files whose names begin with a dot, and links to outside "
        "the directory, are not served. Empty: none.",
    )

    demo: bool = option(
        FLAG,
        "yes",
        "Whether to serve the built-in demo page, and its channel clock, when there is no root.",
    )

    early_hints: bool = option(
        FLAG,
        "no",
        "Whether to send 103 Early Hints to HTTP/1.1 clients as well; some of them mistake it for the response. "
        "HTTP/2 clients always get it.",
    )

    strict_transport_s: float = option(
        duration(0, 36500 * 86400),
        "0s",
        "How long browsers that connected over TLS must use TLS only (Strict-Transport-Security), such as 730d. "
        "It affects the whole host name, at every port. 0: the header is not sent.",
    )


@dataclass(frozen=True, slots=True)
class Http2:
    """Options of HTTP/2."""

    websocket: bool = option(
        FLAG,
        "no",
        "Whether a WebSocket can be one stream of an HTTP/2 connection (RFC 8441). Browsers then open WebSockets "
        "on the connection that they have; otherwise they open another one, over HTTP/1.1.",
    )


@dataclass(frozen=True, slots=True)
class PushList:
    """The resources pushed or hinted with a page."""

    path: str
    """Path of the page."""

    resources: tuple[str, ...] = option(
        listing("paths such as /style.css or /app.js", parse_resource),
        None,
        "The paths on this server of the resources of the page; required. Their types are derived from the file "
        "name extensions; .mjs is a module.",
    )


@dataclass(frozen=True, slots=True)
class Log:
    """Options of the log."""

    level: str = option(
        choice("debug", "info", "warn", "error", "critical"), "info", "The lowest level that is logged."
    )

    format: str = option(
        choice("auto", "text", "json"),
        "auto",
        "The format of log lines. text: for people, in colours on a terminal. json: one JSON object per line. "
        "auto: for the journal, with priorities and without times, if standard output or else standard error is "
        "connected to it; otherwise text.",
        needs_restart=True,
    )

    requests: bool = option(
        FLAG,
        "no",
        "Whether to log every HTTP request when it is complete, and to give it an id in X-Request-ID.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration."""

    state_directory: str | None = option(
        PATH,
        "",
        "The directory for data that must survive a restart, such as the self-signed certificate. If empty, it "
        "is $STATE_DIRECTORY, which systemd sets; else $XDG_STATE_HOME/pushd; else ~/.local/state/pushd. Only "
        "one daemon at a time can use it.",
        needs_restart=True,
    )
    """None: see `pushd.config.loader.state_directory`."""

    store: str = option(
        choice("sqlite", "memory"),
        "sqlite",
        "Where events are kept. sqlite: in the file pushd.db in the state directory, so that clients can resume "
        "after a restart. memory: they are lost when the daemon stops.",
        needs_restart=True,
    )

    durability: str = option(
        choice("process", "power"),
        "process",
        "What an acknowledged event survives. process: the end of the daemon, even by kill -9; if the machine "
        "fails, the latest events may be lost, which clients are notified of. power: also that, because pushd "
        "waits for the disk before it acknowledges. Without effect with store = memory.",
        needs_restart=True,
    )

    store_size_bytes: int = option(
        size(1024 * 1024, 2**44),
        "1GiB",
        "The approximate maximum size of the events of all channels, counted as in [channels] history_bytes. "
        "Each channel with events counts as well, with twice its name and 128 bytes (928 with store = memory). "
        "Above it, the oldest events of all channels are removed. The file on the disk is up to half as large "
        "again, and the write-ahead log beside it takes about a sixteenth (4 to 64 MiB; set at the start).",
    )

    store_memory_bytes: int = option(
        size(1024 * 1024),
        "64MiB",
        "The approximate size of the latest events also kept in memory, so that resuming clients need no disk "
        "reads.",
        needs_restart=True,
    )

    stop_timeout_s: float = option(
        duration(),
        "5s",
        "How long connections may take to receive their pending data when the daemon stops.",
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
