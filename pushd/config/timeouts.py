"""Timeouts and minimum transfer rates of clients."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Timeouts"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts and minimum transfer rates of requests and responses, the same for every version of HTTP."""

    head_timeout_s: float
    """Timeout of the head of a request, from its first byte, and of a TLS handshake, in seconds."""

    request_timeout_s: float
    """Idle timeout of a connection without a request, and grace period of a body or response, in seconds."""

    body_rate_bytes: int
    """Minimum transfer rate of a request body, in bytes per second."""

    answer_rate_bytes: int = 1024
    """Minimum rate at which a response must be read, in bytes per second, after `request_timeout_s`."""

    def answer_s(self, size: int) -> float:
        """Return the timeout of a pending response, in seconds, after the client has read `size` bytes of it."""
        return self.request_timeout_s + size / self.answer_rate_bytes

    def body_s(self, size: int) -> float:
        """Return the timeout of a body or message, in seconds, after `size` bytes of it were received."""
        return self.request_timeout_s + size / self.body_rate_bytes
