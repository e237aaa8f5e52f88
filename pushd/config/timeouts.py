"""How long clients are waited for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Timeouts"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The time that clients have for what they send: the same over every version of HTTP."""

    head_timeout_s: float
    """How long the head of a request may take from its first byte, and a TLS handshake in all, in seconds."""

    request_timeout_s: float
    """How long a connection may have no request, and what a body has beside `body_rate_bytes`, in seconds."""

    body_rate_bytes: int
    """How much of a body must come, in bytes per second."""

    answer_rate_bytes: int = 1024
    """How much of an answer that waits must be taken, in bytes per second, after `request_timeout_s`."""

    def answer_s(self, size: int) -> float:
        """Return how long an answer may wait of which `size` bytes were taken meanwhile."""
        return self.request_timeout_s + size / self.answer_rate_bytes

    def body_s(self, size: int) -> float:
        """Return how long a body, or a message, may take of which `size` bytes have come."""
        return self.request_timeout_s + size / self.body_rate_bytes
