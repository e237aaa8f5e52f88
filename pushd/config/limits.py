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
        "The largest data of one event. Unless this is more than 1016KiB, the data may also take no more than "
        "that in JSON (escaped, or as base64): messages then fit into the 1 MiB that WebSocket clients such as "
        "Python's accept by default.",
    )

    batch_size_bytes: int = option(
        size(1),
        "16MiB",
        "The largest body of any request; a POST to /publish holds many events. At least event_size.",
    )

    bodies_bytes: int = option(
        size(1),
        "256MiB",
        "How much of requests and WebSocket messages that are not complete is held in memory, of all clients; "
        "one user or address may hold share of it, which must be enough for one batch_size. What is more is "
        "answered 503 or 429. An eighth more is kept for short ones.",
    )

    outbox_bytes: int = option(
        size(1024),
        "1MiB",
        "How much may wait for one subscriber. What becomes of one for whom more is waiting is said by "
        "on_overflow in [channels].",
    )

    connections: int = option(
        count(),
        "0",
        "How many connections the daemon has at once; others are answered 503. 0: as many as files may be open "
        "(ulimit -n), less 128, or half as many if that is more, and less what is kept for questions to the "
        "application and large files of a site.",
    )

    connections_per_address: int = option(
        count(),
        "1000",
        "How many connections one address of IPv4, or one /64 network of IPv6, has at once; others are "
        "answered 429. Behind a proxy, these are those of subscribers, by what the proxy says of them. "
        "Loopback addresses and Unix sockets are not counted. 0: any number.",
    )

    connections_per_user: int = option(
        count(),
        "100",
        "How many subscribers one user, as a token or a certificate names it, has connected at once; others "
        "are answered 429. 0: any number.",
    )

    share_percent: int = option(
        PERCENT,
        "10%",
        "How much of each bounded resource that clients share (unfinished bodies, unread answers, questions to "
        "the application, waiting notifications) one user may occupy, or one address without a user; addresses "
        "count as above.",
    )

    connect_rate: float = option(
        RATE,
        "300",
        "How many subscribers may connect in a second from one address, counted as above; others are answered "
        "429. Requests to /poll count for read_rate instead. 0: any number.",
    )

    connect_burst: int = option(count(1), "1000", "How many may come at once before connect_rate counts.")

    read_rate: float = option(
        RATE,
        "2000",
        "How many requests to /poll, to the history, state or presence of a channel, for one event or for the "
        "list of channels, and HEAD requests to the other endpoints of subscribers, one user may send in a "
        "second, or one address without a user; others are answered 429. 0: any number.",
    )

    read_burst: int = option(count(1), "4000", "How many may come at once before read_rate counts.")

    publish_rate: float = option(
        RATE,
        "0",
        "How many events one user, or one address without a user, may publish in a second, an event to several "
        "channels counting for each; others are refused with 429. 0: any number.",
    )

    publish_burst: int = option(count(1), "1000", "How many may come at once before publish_rate counts.")

    command_rate: float = option(
        RATE,
        "100",
        "How many messages that do not publish (subscribe, unsubscribe, renew, and wrong ones) one WebSocket "
        "may send in a second; others are refused with 429. One user, or one address without a user, may send "
        "10 times as many over all its WebSockets. 0: any number.",
    )

    command_burst: int = option(
        count(1),
        "1000",
        "How many one WebSocket may send at once before command_rate counts; one user or address, 100 times as "
        "many.",
    )

    channels_per_event: int = option(
        count(1),
        "100",
        "How many channels one event may be published to; others are refused with 400. Each of them counts for "
        "publish_rate.",
    )

    channels: int = option(
        count(1),
        "100000",
        "How many channels the daemon keeps in memory. As many names "
        "without a channel may be subscribed to, of which one user or address may occupy its share.",
    )

    subscriptions: int = option(
        count(1),
        "100",
        "How many channels or patterns one connection may subscribe to.",
    )

    heartbeat_s: float = option(
        duration(1),
        "20s",
        "No connection is silent for longer than this, whatever was sent on it before: a WebSocket client gets "
        "a ping, one of Server-Sent Events a comment, one of NDJSON an empty line. It must be shorter than the "
        "time-outs of the proxies in between.",
    )

    ping_timeout_s: float = option(
        duration(1),
        "20s",
        "A WebSocket client that sends nothing for this long after a ping is dropped; pings come at each "
        "heartbeat. A client of any kind "
        "whose machine takes nothing of what is sent to it for heartbeat and this together is dropped without "
        "a word.",
    )

    poll_timeout_s: float = option(duration(1), "20s", "How long a request to /poll waits for an event.")

    retry_s: float = option(
        duration(0.1),
        "2s",
        "How long clients of Server-Sent Events are told to wait before they connect again.",
    )

    reconnect_spread_s: float = option(
        duration(),
        "5s",
        "When the daemon stops, clients are told to wait for retry and a time up to this in addition, each for "
        "another one, so that they do not all come back at once.",
    )

    request_timeout_s: float = option(
        duration(1),
        "60s",
        "An HTTP connection on which no complete request arrives for this long is closed.",
    )

    head_timeout_s: float = option(
        duration(1),
        "10s",
        "How long the head of a request may take from its first byte, and a TLS handshake in all.",
    )

    body_rate_bytes: int = option(
        size(1),
        "1KiB",
        "How much of the body of a request must come in a second, on average after request_timeout.",
    )

    answers_bytes: int = option(
        size(1024 * 1024),
        "256MiB",
        "How many bytes of answers may wait for clients that do not read them; of one user or address, share "
        "of them. A request whose answer would be too much is answered 429 or 503. Streams of subscribers do "
        "not count: outbox bounds them.",
    )

    answer_rate_bytes: int = option(
        size(1),
        "1KiB",
        "How much of an answer must be read in a second, on average after request_timeout; a client that reads "
        "less loses the connection, or over HTTP/2 the stream. Streams of subscribers do not count.",
    )

    @property
    def silence_s(self) -> float:
        """The time after which a client that acknowledges nothing is disconnected, in seconds."""
        return self.heartbeat_s + self.ping_timeout_s

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts and minimum transfer rates of clients."""
        return Timeouts(self.head_timeout_s, self.request_timeout_s, self.body_rate_bytes, self.answer_rate_bytes)
