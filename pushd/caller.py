"""The caller: who sends a request or keeps a connection, and where it comes from."""

from __future__ import annotations

from pushd.access import EVERYTHING, Grants, Identity

__all__ = ["DAEMON", "Caller"]


class Caller:
    """One client, as far as it is known. Its identity may change while it is connected, by a new token."""

    __slots__ = ("address", "id", "identity", "name", "since", "transport")

    def __init__(self, identity: Identity, address: str, name: str) -> None:
        self.identity = identity
        """Who it is, and what it may do."""
        self.address = address
        """Its IP address as text, also behind a trusted proxy; ``unix`` for a Unix socket."""
        self.name = name
        """What it is called in the log, as ``192.0.2.1:40312``."""
        self.id: str | None = None
        """The id of its connection, if it is a subscriber that was let in."""
        self.transport = "http"
        """What it speaks: ``websocket``, ``sse``, ``stream``, ``poll``, ``push``, or ``http`` for a plain request."""
        self.since = 0.0
        """When it was let in, in seconds since 1970."""

    @property
    def grants(self) -> Grants:
        """What it may do."""
        return self.identity.grants

    @property
    def user(self) -> str | None:
        """What its user is called, if somebody vouches for that."""
        return self.identity.user


DAEMON = Caller(Identity(EVERYTHING), "", "pushd itself")
"""The daemon itself."""
