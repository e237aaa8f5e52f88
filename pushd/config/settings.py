"""What the operator decides, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

from pushd.channels import Pattern

__all__ = [
    "Auth",
    "ChannelOverride",
    "ChannelRules",
    "ChannelSettings",
    "Config",
    "Http2",
    "Limits",
    "Listener",
    "Log",
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


@dataclass(frozen=True, slots=True)
class Site:
    """What is served besides channels."""

    root: str | None
    """The path of the directory of static files, if there is one."""

    demo: bool
    """Whether to serve the demo page and the channel ``clock`` if there is no `root`."""

    early_hints: bool
    """Whether clients of HTTP/1.1 get 103 Early Hints too."""


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
class ChannelSettings:
    """What is kept of one channel."""

    history_size: int
    """How many events, at most."""

    history_bytes: int
    """How much they take, at most, as `pushd.history.size_of` counts."""

    history_age_s: float
    """How long an event is kept, in seconds."""

    on_overflow: str
    """What becomes of a subscriber that is too slow: ``close``, or ``latest``: it misses older events."""


@dataclass(frozen=True, slots=True)
class ChannelOverride:
    """What is different for the channels that a pattern matches; None: nothing is."""

    pattern: Pattern
    """Which channels."""

    history_size: int | None = None
    """How many events are kept."""

    history_bytes: int | None = None
    """How much they take."""

    history_age_s: float | None = None
    """How long an event is kept, in seconds."""

    on_overflow: str | None = None
    """What becomes of a subscriber that is too slow."""

    def apply(self, settings: ChannelSettings) -> ChannelSettings:
        """Answer what `settings` are with this override."""
        return ChannelSettings(
            settings.history_size if self.history_size is None else self.history_size,
            settings.history_bytes if self.history_bytes is None else self.history_bytes,
            settings.history_age_s if self.history_age_s is None else self.history_age_s,
            settings.on_overflow if self.on_overflow is None else self.on_overflow,
        )


@dataclass(frozen=True, slots=True)
class ChannelRules:
    """What is kept of every channel."""

    usual: ChannelSettings
    """What applies to a channel unless an override says something else."""

    overrides: tuple[ChannelOverride, ...] = ()
    """Which channels are different, in the order of the file: later ones win."""

    def settings(self, name: str) -> ChannelSettings:
        """Answer what applies to the channel `name`."""
        settings = self.usual
        for override in self.overrides:
            if override.pattern.matches(name):
                settings = override.apply(settings)
        return settings


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken from clients, and how long they are waited for."""

    event_size_bytes: int
    """The largest data of one event, in bytes."""

    batch_size_bytes: int
    """The largest body of ``POST /publish``, in bytes; not less than `event_size_bytes`."""

    outbox_bytes: int
    """How many bytes may wait for one subscriber before it is closed as too slow."""

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


@dataclass(frozen=True, slots=True)
class Auth:
    """Who may do what."""

    anonymous: frozenset[str]
    """What anybody may do: any of ``publish`` and ``subscribe``."""

    hosts: tuple[str, ...]
    """Further names of the daemon: ``host`` or ``host:port``, in lower case."""

    origins: tuple[str, ...]
    """Web origins whose pages may use the daemon, as browsers write them; ``*``: any."""


@dataclass(frozen=True, slots=True)
class Log:
    """What is logged."""

    level: str
    """The least important level: ``debug``, ``info``, ``warn``, ``error`` or ``critical``."""

    requests: bool
    """Whether every HTTP request is."""


@dataclass(frozen=True, slots=True)
class Config:
    """All that the operator decides."""

    state_directory: str | None
    """Where what outlives the daemon is kept; None: see `pushd.config.reading.state_directory`."""

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
    log: Log
