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

    history_size: int = option(count(), "100", "How many events are kept, the latest ones. 0: none.")

    history_bytes: int = option(
        replace(size(1024, 2**40), suffix=""),
        "64MiB",
        "How much the events that are kept may take. Each counts with its data, its type and 128 bytes. An id "
        "that a publisher gave counts twice, with the name of the channel and 40 bytes. With store = memory an "
        "event counts with 400 bytes more, or 900 if it has such an id.",
    )
    """The size is counted by `pushd.bus.history.size_of`."""

    history_age_s: float = option(duration(0, 36500 * 86400), "1h", "How long an event is kept. 0: not at all.")

    on_overflow: str = option(
        choice("close", "latest"),
        "close",
        "What becomes of a subscriber for whom more is waiting than [limits] outbox. close: its connection is "
        "closed as too slow, and it may come back and go on from the last event that it got, so that it loses "
        "nothing. latest: it stays connected, and the older half of what is waiting for it from such channels "
        "is dropped; that is for channels on which only the latest counts.",
    )

    presence: str = option(
        choice("operator", "subscribers", "events"),
        "operator",
        "Who is told who is subscribed to a channel. operator: who has that right, for GET "
        "/channels/CHANNEL/presence. subscribers: everybody who may subscribe to the channel. events: the "
        "same, and whenever a client subscribes to the channel by its name, or does so no more, an event of "
        "the type pushd.join or pushd.leave is published to it.",
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
