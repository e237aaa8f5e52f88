"""Settings of channels: defaults, and overrides by pattern."""

from __future__ import annotations

from dataclasses import dataclass

from pushd.bus import Pattern

__all__ = ["ChannelOverride", "ChannelRules", "ChannelSettings"]


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """The settings of one channel."""

    history_size: int
    """Maximum number of events in the history."""

    history_bytes: int
    """Maximum size of the history in bytes, as counted by `pushd.bus.history.size_of`."""

    history_age_s: float
    """Maximum age of an event in the history, in seconds."""

    on_overflow: str
    """Action on outbox overflow: ``close``, or ``latest``: the subscriber loses older events."""

    presence: str = "operator"
    """Access to presence: ``operator``, ``subscribers``, or ``events``: subscribers, with join and leave events."""


@dataclass(frozen=True, slots=True)
class ChannelOverride:
    """Settings for the channels that match a pattern; None: not overridden."""

    pattern: Pattern
    """The pattern of the channels."""

    history_size: int | None = None
    """See `ChannelSettings.history_size`."""

    history_bytes: int | None = None
    """See `ChannelSettings.history_bytes`."""

    history_age_s: float | None = None
    """See `ChannelSettings.history_age_s`, in seconds."""

    on_overflow: str | None = None
    """See `ChannelSettings.on_overflow`."""

    presence: str | None = None
    """See `ChannelSettings.presence`."""

    def apply(self, settings: ChannelSettings) -> ChannelSettings:
        """Return `settings` with this override applied."""
        return ChannelSettings(
            settings.history_size if self.history_size is None else self.history_size,
            settings.history_bytes if self.history_bytes is None else self.history_bytes,
            settings.history_age_s if self.history_age_s is None else self.history_age_s,
            settings.on_overflow if self.on_overflow is None else self.on_overflow,
            settings.presence if self.presence is None else self.presence,
        )


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
