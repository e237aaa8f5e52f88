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

    before_connect: str | None = option(url("https", "http"), "", "Asked before a subscriber is connected.")

    before_subscribe: str | None = option(url("https", "http"), "", "Asked before it is subscribed to a channel.")

    before_publish: str | None = option(url("https", "http"), "", "Asked before an event of a client is published.")

    after: str | None = option(url("https", "http"), "", "Told afterwards what has happened.")

    after_events: frozenset[str] = option(words(*_NOTICES), ", ".join(_NOTICES), "Of what it is told.")

    secret: str | None = option(
        SECRET,
        "",
        "What the requests are signed with, as Standard Webhooks has it: whsec_ and 24 to 64 bytes in base64. "
        "It must be said with any URL, here or in secret_file, and is never shown.",
    )
    """None exactly if `secret_file` or no URL is set."""

    secret_file: str | None = option(
        PATH,
        "",
        "A file that holds it; white space at its end does not count.",
    )

    timeout_s: float = option(duration(0.1, 60), "2s", "How long an answer may take.")

    questions: int = option(
        count(1, 100_000),
        "1000",
        "How many questions wait for their answers at once, of which each has a connection of its own; at most "
        "a quarter of the files that may be open, or what connections leave of them. Of "
        "one user or address, [limits] share of them do; the client is answered 429 or 503 if there are more.",
    )

    when_down: str = option(
        choice("deny", "allow"),
        "deny",
        "What counts as the answer of an application that is asked and does not answer: deny with 503, or allow.",
    )

    retry_for_s: float = option(
        duration(0, 7 * 86400),
        "5m",
        "For how long it is tried to tell something, with growing pauses, before it is dropped.",
    )

    queue: int = option(
        count(1, 10**7),
        "30000",
        "How much waits to be told, and of one user or address, [limits] share of it. When it is more, the "
        "oldest is dropped of the user or address of which the most waits, and the application is told how "
        "much.",
    )

    breaker_failures: int = option(
        count(1),
        "5",
        "After how many failures in a row the application counts as down, and is not asked for a while.",
    )

    breaker_pause_s: float = option(duration(0.1, 3600), "5s", "For how long, before one question tries it again.")
