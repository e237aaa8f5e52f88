"""The demo: a page to try pushd, and a channel that publishes the time."""

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
"""Links to the assets of the page, sent with it."""


FIELDS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
"""Header fields of its responses: they allow no foreign scripts and no framing."""


class Clock:
    """Publishes the time."""

    def __init__(self, bus: Bus, publisher: Publisher, now: Callable[[], float]) -> None:
        """Publish the time of `now`, in seconds since 1970, if `bus` has subscribers to it."""
        self._bus = bus
        self._publisher = publisher
        self._now = now

    def tick(self) -> None:
        """Called every second: publish the time in ISO 8601, if the channel has subscribers."""
        if self._bus.has_audience(CLOCK):
            time = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="seconds")
            self._publisher.publish(Draft((CLOCK,), time.encode(), True), DAEMON, lambda outcome: None)
