"""pushd, a push server: one event bus over WebSocket, Server-Sent Events and plain HTTP."""

__all__ = ["__version__"]

__version__ = "0.1.0"
