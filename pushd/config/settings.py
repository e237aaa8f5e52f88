"""The configuration as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field

from pushd.bus import Pattern
from pushd.config.channel_rules import ChannelRules
from pushd.config.timeouts import Timeouts

__all__ = [
    "Auth",
    "Config",
    "Hooks",
    "Http2",
    "Key",
    "Limits",
    "Listener",
    "Log",
    "Proxies",
    "PushList",
    "Site",
]


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener."""

    name: str
    """Name in the log."""

    endpoint: str
    """The Twisted server endpoint string."""

    tls: bool = False
    """Whether TLS is used."""

    certificate: str | None = None
    """Path of the PEM file with the certificate chain; None with `tls`: the self-signed certificate."""

    key: str | None = None
    """Path of the PEM file with the private key; None exactly if `certificate` is None."""

    serves: str = "everything"
    """``everything``, or ``operations`` for an admin listener."""

    client_ca: str | None = None
    """Path of the PEM file with the CAs of client certificates; None: clients need no certificate."""

    client_certificate: str = "required"
    """With `client_ca`: ``required`` or ``optional``."""

    proxy_protocol: bool = False
    """Whether only connections from trusted proxies, with a PROXY protocol header, are accepted."""


@dataclass(frozen=True, slots=True)
class Site:
    """The static files and their HTTP features."""

    root: str | None
    """Path of the directory of static files; None: no static files."""

    demo: bool
    """Whether the demo page and the channel ``clock`` are served if `root` is None."""

    early_hints: bool
    """Whether HTTP/1.1 clients also get 103 Early Hints."""

    strict_transport_s: float
    """Max-age of ``Strict-Transport-Security``, in seconds; 0: not sent."""


@dataclass(frozen=True, slots=True)
class Http2:
    """Options of HTTP/2."""

    websocket: bool
    """Whether WebSocket over an HTTP/2 stream is supported."""


@dataclass(frozen=True, slots=True)
class PushList:
    """The resources pushed or hinted with a page."""

    path: str
    """Path of the page."""

    resources: tuple[str, ...]
    """Paths of the resources."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits and timeouts of clients."""

    event_size_bytes: int
    """Maximum size of the data of one event, in bytes."""

    batch_size_bytes: int
    """Maximum size of a request body, in bytes; at least `event_size_bytes`."""

    bodies_bytes: int
    """Maximum size of all incomplete requests and messages in memory, in bytes."""

    outbox_bytes: int
    """Maximum size of the outbox of one subscriber, in bytes; see `ChannelSettings.on_overflow`."""

    connections: int
    """Connection limit; 0: derived from the file limit (`pushd.daemon.file_limits`)."""

    connections_per_address: int
    """Connection limit of one address; 0: unlimited."""

    connections_per_user: int
    """Limit of connected subscribers of one user; 0: unlimited."""

    share_percent: int
    """Maximum share of each shared resource for one user or address, in percent."""

    connect_rate: float
    """Rate limit of connecting subscribers of one address, per second; 0: unlimited."""

    connect_burst: int
    """Burst of this rate limit."""

    read_rate: float
    """Rate limit of read requests of one user or address, per second; 0: unlimited."""

    read_burst: int
    """Burst of this rate limit."""

    publish_rate: float
    """Rate limit of events published by one user or address, per second; 0: unlimited."""

    publish_burst: int
    """Burst of this rate limit."""

    command_rate: float
    """Rate limit of commands on one WebSocket, per second; 0: unlimited."""

    command_burst: int
    """Burst of this rate limit."""

    channels_per_event: int
    """Maximum number of channels of one event."""

    channels: int
    """Maximum number of channels in memory."""

    subscriptions: int
    """Maximum number of channels and patterns that one connection subscribes to."""

    heartbeat_s: float
    """Heartbeat interval of an idle connection, in seconds."""

    ping_timeout_s: float
    """Ping timeout of a WebSocket client, in seconds."""

    poll_timeout_s: float
    """Timeout of ``/poll`` without an event, in seconds."""

    retry_s: float
    """Reconnection time sent to SSE clients, in seconds."""

    reconnect_spread_s: float
    """Jitter added to the reconnection time when the daemon stops, in seconds."""

    request_timeout_s: float
    """Idle timeout of an HTTP connection without a complete request, in seconds."""

    head_timeout_s: float
    """Timeout of the head of a request and of a TLS handshake, in seconds."""

    body_rate_bytes: int
    """Minimum average transfer rate of a body after `request_timeout_s`, in bytes per second."""

    answers_bytes: int
    """Maximum size of all responses that clients have not yet read, in bytes."""

    answer_rate_bytes: int
    """Minimum average rate at which a response is read after `request_timeout_s`, in bytes per second."""

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts and minimum transfer rates of clients."""
        return Timeouts(self.head_timeout_s, self.request_timeout_s, self.body_rate_bytes, self.answer_rate_bytes)


@dataclass(frozen=True, slots=True)
class Auth:
    """Authentication and default grants."""

    anonymous: frozenset[str]
    """Grants of anonymous clients: any of ``operator``, ``publish`` and ``subscribe``."""

    anonymous_publish: tuple[Pattern, ...]
    """Channels that anonymous clients may publish to, unless `anonymous` allows all."""

    anonymous_subscribe: tuple[Pattern, ...]
    """Channels that anonymous clients may subscribe to, unless `anonymous` allows all."""

    certified: frozenset[str]
    """Grants of clients with a certificate."""

    certified_publish: tuple[Pattern, ...]
    """Channels that clients with a certificate may publish to, unless `certified` allows all."""

    certified_subscribe: tuple[Pattern, ...]
    """Channels that clients with a certificate may subscribe to, unless `certified` allows all."""

    cookie: str | None
    """Name of the cookie that may hold a token; None: no cookie."""

    leeway_s: float
    """Accepted clock difference to the issuers of tokens, in seconds."""

    hosts: tuple[str, ...]
    """Additional names of the daemon: ``host`` or ``host:port``, in lower case."""

    origins: tuple[str, ...]
    """Web origins with access to the daemon, in the form sent by browsers; ``*``: any."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key or key set to verify tokens; exactly one secret, file or URL is set."""

    name: str
    """Name in the log."""

    algorithm: str
    """The only accepted algorithm of signatures, such as ``HS256``."""

    secret: str | None = field(default=None, repr=False)
    """The secret, for HS256, HS384 or HS512."""

    secret_file: str | None = None
    """Path of the file with the secret."""

    public_key_file: str | None = None
    """Path of the PEM file with the public key."""

    jwks_url: str | None = None
    """URL of the key set."""

    issuer: str | None = None
    """Required value of the claim ``iss``; None: any."""

    audience: str | None = None
    """Required value or member of the claim ``aud``; None: the claim must be absent."""


@dataclass(frozen=True, slots=True)
class Proxies:
    """The reverse proxies in front of the daemon."""

    trusted: tuple[str, ...]
    """Addresses and networks of the proxies; ``unix``: every Unix socket."""

    header: str
    """Header with the address of the client: ``x-forwarded-for``, ``forwarded`` or ``none``."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Webhooks of the application."""

    before_connect: str | None
    """URL of the authorization webhook for connecting; None: no webhook. The same for the next two."""

    before_subscribe: str | None
    before_publish: str | None
    after: str | None
    """URL of notifications; None: no notifications."""

    after_events: frozenset[str]
    """Any of ``connect``, ``disconnect``, ``subscribe``, ``unsubscribe``, ``occupied``, ``vacated``."""

    secret: str | None = field(repr=False)
    """The secret that signs requests, ``whsec_...``; None exactly if `secret_file` or no URL is set."""

    secret_file: str | None
    """Path of the file with the secret."""

    timeout_s: float
    """Timeout of a webhook, in seconds."""

    questions: int
    """Maximum number of pending authorization webhooks."""

    when_down: str
    """Decision while the application does not respond: ``deny`` or ``allow``."""

    retry_for_s: float
    """Time limit of retries of a notification, in seconds."""

    queue: int
    """Maximum number of waiting notifications."""

    breaker_failures: int
    """Number of failures in a row that opens the circuit breaker."""

    breaker_pause_s: float
    """Time that the circuit breaker stays open, in seconds."""


@dataclass(frozen=True, slots=True)
class Log:
    """Options of the log."""

    level: str
    """The lowest level logged: ``debug``, ``info``, ``warn``, ``error`` or ``critical``."""

    format: str
    """Line format: ``auto``, ``text`` or ``json``."""

    requests: bool
    """Whether every HTTP request is logged."""


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    state_directory: str | None
    """Path of the state directory; None: see `pushd.config.loader.state_directory`."""

    store: str
    """Store of events: ``sqlite`` or ``memory``."""

    durability: str
    """Failure that an acknowledged event survives: the end of the ``process``, or loss of ``power``."""

    store_size_bytes: int
    """Approximate maximum size of the events of all channels, in bytes."""

    store_memory_bytes: int
    """Approximate size of the latest events also kept in memory, in bytes."""

    stop_timeout_s: float
    """Time for connections to drain when the daemon stops, in seconds."""

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
