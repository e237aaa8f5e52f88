"""Settings of channels: defaults, and overrides by pattern."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pushd.bus import Pattern
from pushd.config.option import option
from pushd.config.types import choice, count, duration, size

__all__ = ["ChannelOverride", "ChannelRules", "ChannelSettings"]


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """The settings of one channel."""

    history_size: int = option(
        count(), "100", "The maximum number of events kept; the oldest are removed first. 0: no history."
    )

    history_bytes: int = option(
        replace(size(1024, 2**40), suffix=""),
        "64MiB",
        "The maximum size of the events kept. Each counts with its data, its type and 128 bytes. An id set by "
        "the publisher counts twice, with the name of the channel and 40 bytes. With store = memory, add 400 "
        "bytes for each event, or 900 if it has such an id.",
    )
    """The size is counted by `pushd.bus.history.size_of`."""

    history_age_s: float = option(duration(0, 36500 * 86400), "1h", "How long an event is kept. 0: no history.")

    on_overflow: str = option(
        choice("close", "latest"),
        "close",
        "What happens when more than [limits] outbox is pending for a subscriber. close: its connection is "
        "closed as too slow; it can reconnect and resume after the last event it received, so that it loses "
        "nothing. latest: it stays connected, and the older half of its pending events from such channels is "
        "dropped, for channels where only the latest event matters.",
    )

    presence: str = option(
        choice("operator", "subscribers", "events"),
        "operator",
        "Which clients may see the subscribers of a channel, at GET /channels/CHANNEL/presence. operator: "
        "operators. subscribers: also every client that may subscribe to the channel. events: the same, and an "
        "event of the type pushd.join or pushd.leave is published to the channel whenever a client subscribes to "
        "it by name or unsubscribes.",
    )


@dataclass(frozen=True, slots=True)
class ChannelOverride:
    """Settings for the channels that match a pattern."""

    pattern: Pattern
    """The pattern of the channels."""

    changes: Mapping[str, Any]
    """The overridden fields of `ChannelSettings`, by name."""

    def apply(self, settings: ChannelSettings) -> ChannelSettings:
        """Return `settings` with this override applied."""
        return replace(settings, **self.changes)


@dataclass(frozen=True, slots=True)
class ChannelRules:
    """The settings of all channels."""

    usual: ChannelSettings
    """The defaults."""

    overrides: tuple[ChannelOverride, ...] = ()
    """The overrides, in the order of the file; later ones have precedence."""

    def settings(self, name: str) -> ChannelSettings:
        """Return the settings of the channel `name`."""
        settings = self.usual
        for override in self.overrides:
            if override.pattern.matches(name):
                settings = override.apply(settings)
        return settings
