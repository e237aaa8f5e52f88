"""A producer that records its calls."""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

__all__ = ["Producer"]


@implementer(IPushProducer)
class Producer:
    """Records the calls of the transport in `told`."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        """Record ``pause``."""
        self.told.append("pause")

    def resumeProducing(self) -> None:
        """Record ``resume``."""
        self.told.append("resume")

    def stopProducing(self) -> None:
        """Record ``stop``."""
        self.told.append("stop")
