"""What the operator decides, as frozen dataclasses."""

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
    """A place to listen at."""

    name: str
    """What stands for it in the log."""

    endpoint: str
    """Where, as a Twisted server endpoint string."""

    tls: bool = False
    """Whether to speak TLS."""

    certificate: str | None = None
    """The path of the PEM file with the certificate chain; None with `tls`: the self-signed one."""

    key: str | None = None
    """The path of the PEM file with the private key; None exactly if `certificate` is."""

    serves: str = "everything"
    """What is served: ``everything`` or ``operations``."""

    client_ca: str | None = None
    """The path of the PEM file with the authorities of clients' certificates; None: they are not asked for one."""

    client_certificate: str = "required"
    """With `client_ca`: ``required`` or ``optional``."""

    proxy_protocol: bool = False
    """Whether connections of trusted proxies begin with a header of the PROXY protocol, and there are no others."""


@dataclass(frozen=True, slots=True)
class Site:
    """What is served besides channels."""

    root: str | None
    """The path of the directory of static files, if there is one."""

    demo: bool
    """Whether to serve the demo page and the channel ``clock`` if there is no `root`."""

    early_hints: bool
    """Whether clients of HTTP/1.1 get 103 Early Hints too."""

    strict_transport_s: float
    """For how long browsers are to come back with TLS only; 0: they are not told so."""


@dataclass(frozen=True, slots=True)
class Http2:
    """What is different over HTTP/2."""

    websocket: bool
    """Whether a WebSocket can be one stream of a connection."""


@dataclass(frozen=True, slots=True)
class PushList:
    """What goes with a page."""

    path: str
    """Of the page."""

    resources: tuple[str, ...]
    """The paths of what goes with it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken from clients, and how long they are waited for."""

    event_size_bytes: int
    """The largest data of one event, in bytes."""

    batch_size_bytes: int
    """The largest body of ``POST /publish``, in bytes; not less than `event_size_bytes`."""

    bodies_bytes: int
    """How many bytes of unfinished requests and messages are held."""

    outbox_bytes: int
    """How many bytes may wait for one subscriber before it is closed as too slow."""

    connections: int
    """How many connections there may be; 0: as many as files may be open, less some."""

    connections_per_address: int
    """How many of them one address may have; 0: any number."""

    connections_per_user: int
    """How many subscribers one user may have connected; 0: any number."""

    share_percent: int
    """How much of each shared resource one user or address may occupy, in percent."""

    connect_rate: float
    """How many subscribers may connect from one address, per second; 0: any number."""

    connect_burst: int
    """How many of them may come at once."""

    read_rate: float
    """How many requests that read one user or address may send, per second; 0: any number."""

    read_burst: int
    """How many of them may come at once."""

    publish_rate: float
    """How many events one user or address may publish, per second; 0: any number."""

    publish_burst: int
    """How many of them may come at once."""

    command_rate: float
    """How many commands one WebSocket may send, per second; 0: any number."""

    command_burst: int
    """How many of them may come at once."""

    channels_per_event: int
    """How many channels one event may be published to."""

    channels: int
    """How many channels are kept in memory."""

    subscriptions: int
    """How many channels or patterns one connection may subscribe to."""

    heartbeat_s: float
    """How often an idle connection hears from the daemon, in seconds."""

    ping_timeout_s: float
    """How long a WebSocket client may send nothing after a ping, in seconds."""

    poll_timeout_s: float
    """How long ``/poll`` waits for an event, in seconds."""

    retry_s: float
    """How long SSE clients are told to wait before they reconnect, in seconds."""

    reconnect_spread_s: float
    """Over how long they are told to spread that when the daemon stops, in seconds."""

    request_timeout_s: float
    """How long an HTTP connection may go without a complete request, in seconds."""

    head_timeout_s: float
    """How long the head of a request may take, and a TLS handshake, in seconds."""

    body_rate_bytes: int
    """How much of a body must come, in bytes per second, on average after `request_timeout_s`."""

    answers_bytes: int
    """How many bytes of answers may wait for clients that do not read them."""

    answer_rate_bytes: int
    """How much of an answer must be taken, in bytes per second, on average after `request_timeout_s`."""

    @property
    def patience(self) -> Timeouts:
        """How long clients are waited for."""
        return Timeouts(self.head_timeout_s, self.request_timeout_s, self.body_rate_bytes, self.answer_rate_bytes)


@dataclass(frozen=True, slots=True)
class Auth:
    """Who may do what."""

    anonymous: frozenset[str]
    """What anybody may do: any of ``operator``, ``publish`` and ``subscribe``."""

    anonymous_publish: tuple[Pattern, ...]
    """To which channels anybody may publish, if not to all."""

    anonymous_subscribe: tuple[Pattern, ...]
    """To which channels anybody may subscribe, if not to all."""

    certified: frozenset[str]
    """What clients with a certificate may do."""

    certified_publish: tuple[Pattern, ...]
    """To which channels they may publish, if not to all."""

    certified_subscribe: tuple[Pattern, ...]
    """To which channels they may subscribe, if not to all."""

    cookie: str | None
    """The name of the cookie that may hold a token."""

    leeway_s: float
    """By how much the clock of who makes tokens may differ, in seconds."""

    hosts: tuple[str, ...]
    """Further names of the daemon: ``host`` or ``host:port``, in lower case."""

    origins: tuple[str, ...]
    """Web origins whose pages may use the daemon, as browsers write them; ``*``: any."""


@dataclass(frozen=True, slots=True)
class Key:
    """What tokens are checked with, by just one of the secrets, files and URLs."""

    name: str
    """What stands for it in the log."""

    algorithm: str
    """The only one that tokens may be signed with, as ``HS256``."""

    secret: str | None = field(default=None, repr=False)
    """The secret itself, of HS256, HS384 or HS512."""

    secret_file: str | None = None
    """The path of the file that holds it."""

    public_key_file: str | None = None
    """The path of the PEM file with the public key."""

    jwks_url: str | None = None
    """Where public keys are fetched from."""

    issuer: str | None = None
    """What the claim ``iss`` must be; None: anything."""

    audience: str | None = None
    """What the claim ``aud`` must be or have; None: there must be none."""


@dataclass(frozen=True, slots=True)
class Proxies:
    """The reverse proxies in front of the daemon."""

    trusted: tuple[str, ...]
    """Their addresses and networks; ``unix``: every Unix socket."""

    header: str
    """Where they say where the client is: ``x-forwarded-for``, ``forwarded`` or ``none``."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the application is asked and told."""

    before_connect: str | None
    """The URL that is asked before a subscriber is connected, if one is; so are the others."""

    before_subscribe: str | None
    before_publish: str | None
    after: str | None
    """The URL that is told afterwards."""

    after_events: frozenset[str]
    """Of what: any of ``connect``, ``disconnect``, ``subscribe``, ``unsubscribe``, ``occupied``, ``vacated``."""

    secret: str | None = field(repr=False)
    """What requests are signed with, as ``whsec_...``; None exactly if `secret_file` is there or no URL is."""

    secret_file: str | None
    """The path of the file that holds it."""

    timeout_s: float
    """How long an answer may take, in seconds."""

    questions: int
    """How many questions may wait for their answers."""

    when_down: str
    """What counts as the answer of an application that does not answer: ``deny`` or ``allow``."""

    retry_for_s: float
    """For how long it is tried to tell something, in seconds."""

    queue: int
    """How much may wait to be told."""

    breaker_failures: int
    """After how many failures in a row the application is not asked for a while."""

    breaker_pause_s: float
    """For how long, in seconds."""


@dataclass(frozen=True, slots=True)
class Log:
    """What is logged."""

    level: str
    """The least important level: ``debug``, ``info``, ``warn``, ``error`` or ``critical``."""

    format: str
    """How: ``auto``, ``text`` or ``json``."""

    requests: bool
    """Whether every HTTP request is."""


@dataclass(frozen=True, slots=True)
class Config:
    """All that the operator decides."""

    state_directory: str | None
    """Where what outlives the daemon is kept; None: see `pushd.config.loader.state_directory`."""

    store: str
    """Where events are kept: ``sqlite`` or ``memory``."""

    durability: str
    """What an acknowledged event has survived: the end of the ``process``, or loss of ``power``."""

    store_size_bytes: int
    """About how much the events of all channels take, at most."""

    store_memory_bytes: int
    """About how much of that is kept in memory as well."""

    stop_timeout_s: float
    """How long connections get to drain when the daemon stops, in seconds."""

    listeners: tuple[Listener, ...]
    """Where to listen: one place at least, in the order of the file."""

    site: Site
    http2: Http2
    pushes: tuple[PushList, ...]
    """What goes with pages, in the order of the file."""

    channels: ChannelRules
    limits: Limits
    auth: Auth
    keys: tuple[Key, ...]
    """What tokens are checked with, in the order of the file."""

    proxies: Proxies
    hooks: Hooks
    log: Log
