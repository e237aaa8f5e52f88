"""The options of ``[limits]``."""

from __future__ import annotations

from dataclasses import dataclass

from pushd.config.option import option
from pushd.config.timeouts import Timeouts
from pushd.config.types import PERCENT, RATE, count, duration, size

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits and timeouts of clients."""

    event_size_bytes: int = option(
        size(1),
        "1000KiB",
        "The maximum size of the data of one event. Unless it is more than 1016KiB, the data as JSON (escaped, or "
        "in base64) may not exceed 1016KiB either: messages then fit into the 1 MiB that WebSocket clients such as "
        "Python's accept by default.",
    )

    batch_size_bytes: int = option(
        size(1),
        "16MiB",
        "The maximum size of a request body; a POST to /publish carries many events. At least event_size.",
    )

    bodies_bytes: int = option(
        size(1),
        "256MiB",
        "The maximum memory for incomplete requests and WebSocket messages of all clients. One user or address "
        "may use share of it, which must be enough for one batch_size. Requests above either limit get 503 or "
        "429. An additional eighth is reserved for short requests.",
    )

    outbox_bytes: int = option(
        size(1024),
        "1MiB",
        "The maximum size of the pending events of one subscriber. on_overflow in [channels] sets what happens "
        "above it.",
    )

    connections: int = option(
        count(),
        "0",
        "The maximum number of connections; further ones get 503. 0: as many as the open-file limit (ulimit -n) "
        "allows, minus 128 or half of it, whichever leaves more, and minus the files reserved for webhooks and "
        "for large files of a site.",
    )

    connections_per_address: int = option(
        count(),
        "1000",
        "The maximum number of connections of one IPv4 address or one IPv6 /64 network; further ones get 429. "
        "Behind a trusted proxy, only subscribers are counted, by the address in its header. Loopback addresses "
        "and Unix sockets are not counted. 0: unlimited.",
    )

    connections_per_user: int = option(
        count(),
        "100",
        "The maximum number of connected subscribers of one user, as named by a token or certificate; further "
        "ones get 429. 0: unlimited.",
    )

    share_percent: int = option(
        PERCENT,
        "10%",
        "The part of each bounded resource shared by clients (incomplete bodies, unread responses, pending "
        "webhooks, queued notifications) that one user may occupy, or one address without a user. Addresses are "
        "counted as in connections_per_address.",
    )

    connect_rate: float = option(
        RATE,
        "300",
        "The maximum rate of new subscribers from one address, per second, counted as in "
        "connections_per_address; further ones get 429. Requests to /poll count towards read_rate instead. 0: "
        "unlimited.",
    )

    connect_burst: int = option(
        count(1), "1000", "The number of subscribers that may connect at once before connect_rate applies."
    )

    read_rate: float = option(
        RATE,
        "2000",
        "The maximum rate of read requests of one user, or of one address without a user, per second: requests "
        "to /poll, for the history, state or presence of a channel, for one event or for the list of channels, "
        "and HEAD requests to the other subscriber endpoints. Further ones get 429. 0: unlimited.",
    )

    read_burst: int = option(
        count(1), "4000", "The number of read requests that may arrive at once before read_rate applies."
    )

    publish_rate: float = option(
        RATE,
        "0",
        "The maximum rate of events published by one user, or by one address without a user, per second; an "
        "event to several channels counts once for each. Further ones get 429. 0: unlimited.",
    )

    publish_burst: int = option(
        count(1), "1000", "The number of events that may be published at once before publish_rate applies."
    )

    command_rate: float = option(
        RATE,
        "100",
        "The maximum rate of messages on one WebSocket other than publish (subscribe, unsubscribe, renew, and "
        "invalid ones), per second; further ones get 429. One user, or one address without a user, may send 10 "
        "times as many over all its WebSockets. 0: unlimited.",
    )

    command_burst: int = option(
        count(1),
        "1000",
        "The number of such messages that one WebSocket may send at once before command_rate applies; one user "
        "or address, 100 times as many.",
    )

    channels_per_event: int = option(
        count(1),
        "100",
        "The maximum number of channels of one event; events with more get 400. Each channel counts towards "
        "publish_rate.",
    )

    channels: int = option(
        count(1),
        "100000",
        "The maximum number of channels in memory. The same number of names without a channel may be subscribed "
        "to; one user or address may occupy its share of them.",
    )

    subscriptions: int = option(
        count(1),
        "100",
        "The maximum number of channels and patterns that one connection may subscribe to.",
    )

    heartbeat_s: float = option(
        duration(1),
        "20s",
        "The maximum time without sending anything on a connection: then a WebSocket client gets a ping, an SSE "
        "client a comment, and an NDJSON client an empty line. It must be shorter than the idle timeouts of "
        "proxies in between.",
    )

    ping_timeout_s: float = option(
        duration(1),
        "20s",
        "How long after a ping a WebSocket client may send nothing before it is disconnected; a ping is sent at "
        "each heartbeat. A client of any kind that acknowledges no data at TCP level for heartbeat and "
        "ping_timeout together is disconnected as well.",
    )

    poll_timeout_s: float = option(duration(1), "20s", "How long a request to /poll waits for an event.")

    retry_s: float = option(
        duration(0.1),
        "2s",
        "The reconnection delay sent to SSE clients.",
    )

    reconnect_spread_s: float = option(
        duration(),
        "5s",
        "The maximum jitter added to retry when the daemon stops, different for each client, so that they do not "
        "all reconnect at once.",
    )

    request_timeout_s: float = option(
        duration(1),
        "60s",
        "The idle timeout of HTTP connections: one without a complete request for this long is closed.",
    )

    head_timeout_s: float = option(
        duration(1),
        "10s",
        "The timeout of the head of a request, from its first byte, and of a TLS handshake.",
    )

    body_rate_bytes: int = option(
        size(1),
        "1KiB",
        "The minimum transfer rate of a request body, per second, on average after request_timeout.",
    )

    answers_bytes: int = option(
        size(1024 * 1024),
        "256MiB",
        "The maximum size of the responses that clients have not read yet; one user or address may have share of "
        "it. Requests whose response would exceed either limit get 429 or 503. Streams of subscribers do not "
        "count; they are limited by outbox.",
    )

    answer_rate_bytes: int = option(
        size(1),
        "1KiB",
        "The minimum rate at which a response must be read, per second, on average after request_timeout; slower "
        "clients lose the connection, or over HTTP/2 the stream. Streams of subscribers do not count.",
    )

    @property
    def silence_s(self) -> float:
        """The time after which a client that acknowledges nothing is disconnected, in seconds."""
        return self.heartbeat_s + self.ping_timeout_s

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts and minimum transfer rates of clients."""
        return Timeouts(self.head_timeout_s, self.request_timeout_s, self.body_rate_bytes, self.answer_rate_bytes)
