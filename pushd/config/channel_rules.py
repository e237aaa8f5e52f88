"""What is kept of each channel: what applies to all of them, and what is different for some."""

from __future__ import annotations

from dataclasses import dataclass

from pushd.bus import Pattern

__all__ = ["ChannelOverride", "ChannelRules", "ChannelSettings"]


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """What is kept of one channel."""

    history_size: int
    """How many events, at most."""

    history_bytes: int
    """How much they take, at most, as `pushd.bus.history.size_of` counts."""

    history_age_s: float
    """How long an event is kept, in seconds."""

    on_overflow: str
    """What becomes of a subscriber that is too slow: ``close``, or ``latest``: it misses older events."""

    presence: str = "operator"
    """Who is told who is there: ``operator``, ``subscribers``, or ``events``: these, and by events too."""


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

    presence: str | None = None
    """Who is told who is there."""

    def apply(self, settings: ChannelSettings) -> ChannelSettings:
        """Return what `settings` are with this override."""
        return ChannelSettings(
            settings.history_size if self.history_size is None else self.history_size,
            settings.history_bytes if self.history_bytes is None else self.history_bytes,
            settings.history_age_s if self.history_age_s is None else self.history_age_s,
            settings.on_overflow if self.on_overflow is None else self.on_overflow,
            settings.presence if self.presence is None else self.presence,
        )


@dataclass(frozen=True, slots=True)
class ChannelRules:
    """What is kept of every channel."""

    usual: ChannelSettings
    """What applies to a channel unless an override says something else."""

    overrides: tuple[ChannelOverride, ...] = ()
    """Which channels are different, in the order of the file: later ones win."""

    def settings(self, name: str) -> ChannelSettings:
        """Return what applies to the channel `name`."""
        settings = self.usual
        for override in self.overrides:
            if override.pattern.matches(name):
                settings = override.apply(settings)
        return settings
