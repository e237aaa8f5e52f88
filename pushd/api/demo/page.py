"""The demo: a page to try pushd with, and a clock that shows at once that it moves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pushd.bus import DAEMON, Bus, Draft, Publisher
from pushd.server import link_to

__all__ = ["ASSETS", "CLOCK", "FIELDS", "PAGES", "Clock"]

CLOCK = "clock"
"""The channel of the clock."""

PAGES = Path(__file__).parent / "static"
"""The directory of the demo page."""


ASSETS = {
    "/": (
        link_to("/base.css"),
        link_to("/demo.css"),
        link_to("/demo.js", "rel=modulepreload"),
        link_to("/feeds.js", "rel=modulepreload"),
    )
}
"""What goes with the page."""


FIELDS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
"""The header fields of its answers: what is not its own does not run in it, and nobody puts it into a frame."""


class Clock:
    """Publishes the time."""

    def __init__(self, bus: Bus, publisher: Publisher, now: Callable[[], float]) -> None:
        """Publish what `now` answers, in seconds since 1970, if anybody on `bus` wants it."""
        self._bus = bus
        self._publisher = publisher
        self._now = now

    def tick(self) -> None:
        """Publish the time in ISO 8601, if anybody is subscribed. To be called every second."""
        if self._bus.has_audience(CLOCK):
            time = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="seconds")
            self._publisher.publish(Draft((CLOCK,), time.encode(), True), DAEMON, lambda outcome: None)
