"""Who may do what."""

from __future__ import annotations

from dataclasses import dataclass

from pushd.errors import Forbidden

__all__ = ["EVERYTHING", "Grants"]


@dataclass(frozen=True, slots=True)
class Grants:
    """The rights of one client. The bus asks them for every operation."""

    publish: bool
    """True if the client may publish to every channel, and delete it."""

    subscribe: bool
    """True if the client may subscribe to every channel, and read its history and state."""

    def check_publish(self, channel: str) -> None:
        """Raise `Forbidden` unless the client may publish to `channel`."""
        if not self.publish:
            raise Forbidden(f"no right to publish to {channel!r}: [auth] anonymous does not have publish")

    def check_subscribe(self, pattern: str) -> None:
        """Raise `Forbidden` unless the client may subscribe to `pattern`."""
        if not self.subscribe:
            raise Forbidden(f"no right to subscribe to {pattern!r}: [auth] anonymous does not have subscribe")


EVERYTHING = Grants(publish=True, subscribe=True)
"""The rights of the daemon itself."""
