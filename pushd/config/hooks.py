"""The options of ``[hooks]``."""

from __future__ import annotations

from dataclasses import dataclass

from pushd.config.option import option
from pushd.config.types import PATH, SECRET, choice, count, duration, url, words

__all__ = ["Hooks"]

_NOTICES = ("connect", "disconnect", "occupied", "subscribe", "unsubscribe", "vacated")


@dataclass(frozen=True, slots=True)
class Hooks:
    """Webhooks of the application."""

    before_connect: str | None = option(
        url("https", "http"), "", "Authorization webhook called before a subscriber connects."
    )

    before_subscribe: str | None = option(
        url("https", "http"), "", "Authorization webhook called before a client subscribes to a channel."
    )

    before_publish: str | None = option(
        url("https", "http"), "", "Authorization webhook called before an event from a client is published."
    )

    after: str | None = option(url("https", "http"), "", "Webhook for notifications.")

    after_events: frozenset[str] = option(
        words(*_NOTICES), ", ".join(_NOTICES), "The kinds of notifications to send."
    )

    secret: str | None = option(
        SECRET,
        "",
        "The secret that signs the requests (Standard Webhooks): whsec_ and 24 to 64 bytes in base64. Any "
        "webhook requires it, here or in secret_file. It is never printed.",
    )
    """None exactly if `secret_file` or no URL is set."""

    secret_file: str | None = option(
        PATH,
        "",
        "The file with the secret; trailing white space is ignored.",
    )

    timeout_s: float = option(duration(0.1, 60), "2s", "The timeout of a request to the application.")

    questions: int = option(
        count(1, 100_000),
        "1000",
        "The maximum number of pending authorization requests, each with a connection of its own; at most a "
        "quarter of the open-file limit, or the files that client connections leave. One user or address may "
        "have [limits] share of them pending. Clients above either limit get 429 or 503.",
    )

    when_down: str = option(
        choice("deny", "allow"),
        "deny",
        "The decision when the application does not respond: deny rejects the client with 503, allow accepts it.",
    )

    retry_for_s: float = option(
        duration(0, 7 * 86400),
        "5m",
        "How long a notification is retried, with increasing backoff, before it is dropped.",
    )

    queue: int = option(
        count(1, 10**7),
        "30000",
        "The maximum number of queued notifications; one user or address may have [limits] share of them. When "
        "the queue is full, the oldest notification of the user or address with the most is dropped, and the "
        "application is notified of the number dropped.",
    )

    breaker_failures: int = option(
        count(1),
        "5",
        "The number of consecutive failures that opens the circuit breaker: the application counts as down, and "
        "receives no authorization requests for breaker_pause.",
    )

    breaker_pause_s: float = option(
        duration(0.1, 3600),
        "5s",
        "How long the circuit breaker stays open before one request tries the application again.",
    )
