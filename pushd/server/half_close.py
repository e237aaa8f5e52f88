"""Half-closed connections: end a lasting response when its client has stopped reading."""

from __future__ import annotations

from pushd.server.request import Request

__all__ = ["outlast"]


def outlast(request: Request) -> None:
    """End `request` once its client closes its half of the connection, even if it already has.

    Use it for responses that last as long as the client reads: a half-close is the only immediate sign that the
    client has stopped reading.
    """
    request.is_lasting = True
    if request.connection.has_input_ended:
        request.connection.abort()
