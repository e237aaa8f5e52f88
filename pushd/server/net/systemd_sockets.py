"""Socket activation: listening sockets opened by systemd, which outlive the daemon.

Uses private names of Twisted, whose own port would change or close such a socket.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from socket import AF_INET, AF_INET6, AF_UNIX, SO_ACCEPTCONN, SOCK_STREAM, SOL_SOCKET, socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from pushd.config import parse_endpoint

__all__ = ["SystemdEndpoint", "UnixPort", "unclaimed"]

_DOMAINS = {"INET": (AF_INET, AF_INET6), "INET6": (AF_INET, AF_INET6), "UNIX": (AF_UNIX,)}


class UnixPort(unix.Port):
    """A port on a Unix socket that belongs to systemd.

    Twisted's own port would change the file's mode and the backlog when it starts, and when it stops shut down the
    socket for every process and remove the file.
    """

    _shouldShutdown = False

    def startListening(self) -> None:
        """Override: start accepting; the socket is listening already."""
        tcp._reservedFD.reserve()
        given, self._preexistingSocket = self._preexistingSocket, None
        assert self.factory is not None and given is not None
        self.factory.doStart()
        self.connected = True
        self.socket = given
        self.fileno = given.fileno  # type: ignore[method-assign]  # as Twisted does
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """Override: close the port and keep the file."""
        tcp.Port.connectionLost(self, reason)


@implementer(IStreamServerEndpoint)
class SystemdEndpoint:
    """The endpoint of a socket passed by systemd, by name (``FileDescriptorName=``) or by index."""

    def __init__(self, reactor: Any, description: str, passed: Sequence[str]) -> None:
        """Use `description`, such as ``systemd:domain=INET:name=http``; `passed` are the names of all sockets."""
        self._reactor = reactor
        self._description = description
        self._passed = passed

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Start listening; the Deferred fails with a `LookupError` and the reason if no such socket was passed."""
        return execute(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        descriptor = self._descriptor()
        family = self._family(descriptor)
        os.set_blocking(descriptor, False)
        port: IListeningPort
        if family == AF_UNIX:
            port = UnixPort._fromListeningDescriptor(self._reactor, descriptor, factory)
            port.startListening()
        else:
            port = self._reactor.adoptStreamPort(descriptor, family, factory)
        os.close(descriptor)  # the port has a duplicate
        return port

    def _descriptor(self) -> int:
        name = _name(self._description, self._passed)
        if self._passed.count(name) > 1:
            raise LookupError(
                f"systemd has passed {self._passed.count(name)} sockets with the name {name}; expected one: a "
                "socket unit with one ListenStream= and a FileDescriptorName= of its own"
            )
        try:
            descriptor: int = serverFromString(self._reactor, self._description).fileno  # found by Twisted
        except LookupError:
            others = f"it has passed {', '.join(self._passed)}" if self._passed else "it has passed none"
            raise LookupError(f"systemd has passed no such socket; {others}") from None
        return descriptor

    def _family(self, descriptor: int) -> int:
        """Return the address family of a socket; INET and INET6 both allow IPv4 and IPv6, as configured."""
        domain = parse_endpoint(self._description).argument("domain", 1)
        with socket(fileno=os.dup(descriptor)) as found:
            listens = found.type == SOCK_STREAM and found.getsockopt(SOL_SOCKET, SO_ACCEPTCONN)
            if not listens or found.family not in _DOMAINS[domain]:
                what = f"an {found.family.name} socket" if listens else "no socket that listens"
                raise LookupError(f"systemd has passed {what}; expected {domain}")
            return found.family


def unclaimed(passed: Sequence[str], descriptions: Sequence[str]) -> list[str]:
    """Return the names of the passed sockets that no endpoint of `descriptions` uses."""
    claimed = {_name(text, passed) for text in descriptions if parse_endpoint(text).type == "systemd"}
    return [name for name in passed if name not in claimed]


def _name(description: str, passed: Sequence[str]) -> str:
    """Return the name of the socket in `description`; empty if its index is out of range."""
    endpoint = parse_endpoint(description)
    index = endpoint.argument("index", 2)
    if index:
        return passed[int(index)] if int(index) < len(passed) else ""
    return endpoint.argument("name", 3)
