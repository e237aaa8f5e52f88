"""Sockets of systemd: which one is meant, and that it stays whole when the daemon ends."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.internet import endpoints
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import SynchronousTestCase

from pushd.server.net.systemd_sockets import SystemdEndpoint, UnixPort, unclaimed


def address_of(port: IListeningPort) -> IPv4Address | IPv6Address:
    """Return where a TCP port listens."""
    address = port.getHost()
    assert isinstance(address, IPv4Address | IPv6Address)
    return address


class InheritedCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = f"{directory.name}/http.sock"
        self.reactor = EPollReactor()
        self.addCleanup(self.reactor.removeAll)

    @contextmanager
    def passed(self, **sockets: socket.socket) -> Iterator[None]:
        """Pass sockets to Twisted, as systemd does; their numbers are copies, which it closes."""
        copies = [os.dup(it.fileno()) for it in sockets.values()]
        parser = endpoints._SystemdParser  # it has read the environment when it was imported
        self.patch(parser, "_sddaemon", ListenFDs(copies, tuple(sockets)))
        self.names = tuple(sockets)
        yield
        for copy in copies:
            try:
                os.close(copy)
            except OSError:
                continue

    def tcp(self, family: int = socket.AF_INET, *, listens: bool = True) -> socket.socket:
        """Open a socket on the loopback interface."""
        found = socket.socket(family)
        self.addCleanup(found.close)
        found.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        if listens:
            found.listen(9)
        return found

    def unix(self) -> socket.socket:
        """Open a Unix socket whose file is for its owner only."""
        found = socket.socket(socket.AF_UNIX)
        self.addCleanup(found.close)
        found.bind(self.path)
        Path(self.path).chmod(0o600)
        found.listen(9)
        return found

    def listen(self, description: str) -> IListeningPort:
        """Listen at a socket that was passed."""
        endpoint = SystemdEndpoint(self.reactor, description, self.names)
        return self.successResultOf(endpoint.listen(Factory.forProtocol(Protocol)))

    def assertCannot(self, description: str, *says: str) -> None:
        endpoint = SystemdEndpoint(self.reactor, description, self.names)
        failure = self.failureResultOf(endpoint.listen(Factory.forProtocol(Protocol)), LookupError)
        for part in says:
            self.assertIn(part, str(failure.value))

    def stop(self, port: IListeningPort) -> None:
        """Stop listening, as the reactor does."""
        stopping = port.stopListening()
        for _ in range(3):
            self.reactor.runUntilCurrent()
        if stopping is not None:
            self.successResultOf(stopping)


class WhichTests(InheritedCase):
    def test_it_is_found_by_its_name_or_its_number(self) -> None:
        one, other = self.tcp(), self.tcp()
        for description in ("systemd:domain=INET:name=b", "systemd:domain=INET:index=1", "systemd:INET:1"):
            with self.passed(a=one, b=other):
                port = self.listen(description)
                self.assertEqual(address_of(port).port, other.getsockname()[1])
                self.stop(port)

    def test_one_of_ipv6_may_be_called_either(self) -> None:
        for domain in ("INET", "INET6"):
            with self.passed(http=self.tcp(socket.AF_INET6)):
                port = self.listen(f"systemd:domain={domain}:name=http")
                self.assertEqual(address_of(port).host, "::1")
                self.stop(port)

    def test_a_name_that_was_not_passed_is_told_with_those_that_were(self) -> None:
        with self.passed(http=self.tcp(), https=self.tcp()):
            self.assertCannot("systemd:domain=INET:name=nosuch", "no such socket; it has passed http, https")
            self.assertCannot("systemd:domain=INET:index=2", "no such socket")

    def test_two_with_the_same_name_are_refused(self) -> None:
        with self.passed(http=self.tcp()):
            self.names = ("http", "http")
            self.assertCannot(
                "systemd:domain=INET:name=http", "2 sockets with the name http", "FileDescriptorName="
            )

    def test_one_of_another_kind_is_refused(self) -> None:
        with self.passed(tcp=self.tcp(), unix=self.unix(), mute=self.tcp(listens=False)):
            self.assertCannot("systemd:domain=UNIX:name=tcp", "an AF_INET socket; expected UNIX")
            self.assertCannot("systemd:domain=INET:name=unix", "an AF_UNIX socket; expected INET")
            self.assertCannot("systemd:domain=INET:name=mute", "no socket that listens; expected INET")

    def test_those_that_nobody_listens_at_are_known(self) -> None:
        names = ("a", "b", "c", "d")
        said = ["systemd:domain=INET:name=a", "systemd:domain=UNIX:index=2", "tcp:80", "systemd:INET:9"]
        self.assertEqual(unclaimed(names, said), ["b", "d"])


class StaysTests(InheritedCase):
    def test_after_the_end_a_tcp_socket_still_takes_connections(self) -> None:
        ours = self.tcp()
        with self.passed(http=ours):
            self.stop(self.listen("systemd:domain=INET:name=http"))
        with socket.create_connection(ours.getsockname(), 1):
            ours.accept()[0].close()

    def test_after_the_end_a_unix_socket_still_takes_connections_and_is_as_it_was(self) -> None:
        ours = self.unix()
        with self.passed(http=ours):
            port = self.listen("systemd:domain=UNIX:name=http")
            self.assertIsInstance(port, UnixPort)
            self.assertEqual(port.getHost(), UNIXAddress(self.path))
            self.stop(port)
        self.assertEqual(stat.S_IMODE(Path(self.path).stat().st_mode), 0o600)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)
            ours.accept()[0].close()

    def test_the_length_of_the_queue_is_left_alone(self) -> None:
        ours = self.unix()
        ours.listen(0)
        with self.passed(http=ours):
            port = self.listen("systemd:domain=UNIX:name=http")
        first, second = (socket.socket(socket.AF_UNIX) for _ in range(2))
        with first, second:
            first.connect(self.path)
            second.setblocking(False)
            self.assertRaises(BlockingIOError, second.connect, self.path)
        self.stop(port)

    def test_the_number_that_systemd_has_passed_is_closed(self) -> None:
        for kind, domain in ((self.tcp(), "INET"), (self.unix(), "UNIX")):
            with self.passed(http=kind):
                (number,) = endpoints._SystemdParser._sddaemon.inheritedDescriptors()
                port = self.listen(f"systemd:domain={domain}:name=http")
                self.assertRaises(OSError, os.fstat, number)
                self.stop(port)
