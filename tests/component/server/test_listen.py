"""Listening: from an endpoint to a port, and what the operator is told if there is none."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.test.iosim import FakeTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from zope.interface import implementer

from pushd.config.settings import Listener
from pushd.errors import StartFailed
from pushd.server.net import tls
from pushd.server.net.connection_limits import ConnectionLimiter
from pushd.server.net.listen import Port, prepare
from pushd.server.net.timers import TimerWheel
from pushd.server.net.writer import TLSFactory
from pushd.server.web.site import PushdSite, Serving
from tests.rigs.builders import PATIENCE
from tests.rigs.certificates import Authority
from tests.unit.server.test_tls import forgive_deprecated_certificates


@implementer(IListeningPort)
class OpenPort:
    """A port of the reactor that is open in memory only."""

    def __init__(self, address: IAddress) -> None:
        self.address = address
        self.stops = 0
        self.stopped: Deferred[None] | None = None

    def startListening(self) -> None:
        """Be open already."""

    def stopListening(self) -> Deferred[None] | None:
        """Count, and answer when the test says so, or at once."""
        self.stops += 1
        return self.stopped

    def getHost(self) -> IAddress:
        """Return the address."""
        return self.address


class Reactor(MemoryReactorClock):
    """A reactor in memory, whose ports have the addresses that real ones have."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[OpenPort] = []
        self.error: Exception | None = None
        """What goes wrong with every port."""
        self.taken: int | None = None
        """The port that is in use."""

    def _listen(self, address: IAddress) -> OpenPort:
        if self.error is not None:
            raise self.error
        self.open.append(OpenPort(address))
        return self.open[-1]

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Override: take the address from the interface."""
        if port == self.taken:
            raise CannotListenError(interface, port, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))
        super().listenTCP(port, factory, backlog, interface)
        port = port or 49152
        if ":" in interface:
            return self._listen(IPv6Address("TCP", interface, port))
        return self._listen(IPv4Address("TCP", interface or "0.0.0.0", port))

    def listenUNIX(
        self, address: str, factory: IProtocolFactory, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> IListeningPort:
        """Override: as above."""
        super().listenUNIX(address, factory, backlog, mode, wantPID)
        return self._listen(UNIXAddress(address))


def no_certificate() -> tuple[str, str]:
    """Return what is asked for only if it is needed."""
    raise AssertionError("nobody wanted a certificate")


class ListenCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.factory: Factory[Protocol] | PushdSite = Factory.forProtocol(Protocol)
        self.factories_behind_proxies: list[IProtocolFactory] = []
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        forgive_deprecated_certificates(self)

    def prepare(self, endpoint: str, *, tls: bool = False) -> Port:
        """Prepare a port for a factory in memory."""
        listener = Listener("main", endpoint, tls)
        self_signed = self.self_signed if tls else no_certificate
        return self.prepare_listener(listener, self_signed)

    def prepare_listener(self, listener: Listener, self_signed: Callable[[], tuple[str, str]]) -> Port:
        """Prepare the port of `listener`."""
        return prepare(
            listener, self.factory, self.reactor, self_signed, silence_s=40, behind_proxy=self.behind_proxy
        )

    def behind_proxy(self, factory: IProtocolFactory) -> IProtocolFactory:
        """Record the listeners behind a proxy."""
        self.factories_behind_proxies.append(factory)
        return Factory.forProtocol(Protocol)

    def self_signed(self) -> tuple[str, str]:
        """Make a certificate."""
        return tls.self_signed(self.directory)

    def assertUrl(self, endpoint: str, url: str, *, tls: bool = False) -> None:
        port = self.prepare(endpoint, tls=tls)
        port.open()
        self.assertEqual(port.url, url)

    def assertOneLine(self, error: StartFailed, *says: str) -> None:
        text = str(error)
        self.assertEqual(len(text.splitlines()), 1, text)
        for part in ("[listen:main]", *says):
            self.assertIn(part, text)


class OpenTests(ListenCase):
    def test_nothing_listens_before_it_is_opened(self) -> None:
        port = self.prepare("tcp:8080")
        self.assertEqual(self.reactor.open, [])
        port.open()
        self.assertEqual(len(self.reactor.open), 1)

    def test_it_listens_where_the_endpoint_says_for_the_factory(self) -> None:
        self.prepare("tcp:8080:interface=127.0.0.1:backlog=7").open()
        self.assertEqual(self.reactor.tcpServers, [(8080, self.factory, 7, "127.0.0.1")])

    def backlog(self, endpoint: str) -> int:
        """Return how many connections may wait to be accepted there."""
        self.prepare(endpoint).open()
        servers = self.reactor.unixServers if endpoint.startswith("unix") else self.reactor.tcpServers
        backlog: int = servers[-1][2]
        return backlog

    def test_more_connections_may_wait_than_twisted_lets_unless_the_endpoint_says_how_many(self) -> None:
        for endpoint in ("tcp:80", "tcp:80:interface=127.0.0.1", "tcp6:80", "unix:/x", "unix:/x:mode=660"):
            self.assertEqual((self.backlog(endpoint), self.backlog(f"{endpoint}:backlog=7")), (4096, 7))

    def test_an_endpoint_may_say_by_place_how_many_connections_may_wait(self) -> None:
        for endpoint in ("tcp:80:127.0.0.1:7", "tcp6:80:7", "unix:/x:660:7"):
            self.assertEqual(self.backlog(endpoint), 7)

    def test_the_url_of_an_address_has_its_host_and_port(self) -> None:
        self.assertUrl("tcp:8080:interface=127.0.0.1", "http://127.0.0.1:8080")
        self.assertUrl("tcp:8443:interface=192.0.2.7", "https://192.0.2.7:8443", tls=True)

    def test_the_url_of_an_ipv6_address_has_brackets(self) -> None:
        self.assertUrl("tcp6:8080:interface=\\:\\:1", "http://[::1]:8080")
        self.assertUrl("tcp:8080:interface=2001\\:db8\\:\\:7", "http://[2001:db8::7]:8080")

    def test_the_url_of_every_interface_is_that_of_this_machine(self) -> None:
        self.assertUrl("tcp:8080", "http://localhost:8080")
        self.assertUrl("tcp:8080:interface=0.0.0.0", "http://localhost:8080")
        self.assertUrl("tcp6:8443", "https://localhost:8443", tls=True)
        self.assertUrl("tcp6:8080:interface=\\:\\:", "http://localhost:8080")

    def test_the_url_has_the_port_that_the_system_chose(self) -> None:
        self.assertUrl("tcp:0:interface=127.0.0.1", "http://127.0.0.1:49152")

    def test_a_unix_socket_is_for_the_user_and_the_group_unless_it_has_a_mode(self) -> None:
        for endpoint, mode in (
            ("unix:/x", 0o660),
            ("unix:/x:backlog=7", 0o660),
            ("unix:/x:mode=666", 0o666),
            ("unix:/x:600", 0o600),
            ("unix:/x:666:7", 0o666),
        ):
            self.prepare(endpoint).open()
            self.assertEqual(self.reactor.unixServers[-1][3], mode, endpoint)

    def test_the_url_of_a_unix_socket_is_its_path(self) -> None:
        self.assertUrl("unix:/run/pushd.sock", "http+unix:///run/pushd.sock")
        self.assertUrl("unix:/run/pushd.sock", "https+unix:///run/pushd.sock", tls=True)


class CannotOpenTests(ListenCase):
    def test_a_port_that_is_taken_fails_the_start_with_what_the_system_says(self) -> None:
        self.reactor.taken = 8080
        error = self.assertRaises(StartFailed, self.prepare("tcp:8080").open)
        self.assertEqual(
            str(error),
            "[listen:main] tcp:8080: cannot listen: Address already in use; choose another port, with endpoint in "
            "[listen:main] of the file of --config",
        )

    def test_an_error_that_is_a_text_fails_the_start(self) -> None:
        self.reactor.error = CannotListenError(None, "/x", "Cannot acquire lock")
        error = self.assertRaises(StartFailed, self.prepare("unix:/x").open)
        self.assertEqual(str(error), "[listen:main] unix:/x: cannot listen: Cannot acquire lock")

    def test_no_unix_socket_has_a_lock_file_whose_number_might_be_that_of_another_process(self) -> None:
        for place in range(4):
            for lockfile in ("", ":lockfile=0", ":lockfile=1"):
                arguments = ("unix", f"{self.directory}/a\\=\\:b", "660", "7")
                self.prepare(":".join(arguments[: max(2, place + 1)]) + lockfile).open()
                path, _, backlog, mode, has_lock = self.reactor.unixServers[-1]
                self.assertEqual((path, has_lock), (f"{self.directory}/a=:b", False))
                self.assertEqual((mode, backlog), (0o660, 7 if place > 2 else 4096))
        self.prepare(f"unix:{self.directory}/x:660:7:1").open()
        self.assertFalse(self.reactor.unixServers[-1][4])
        self.assertRaises(StartFailed, self.prepare, f"unix:{self.directory}/x:lockfile=x")

    def test_whatever_else_goes_wrong_fails_the_start(self) -> None:
        for wrong in (
            OverflowError("bind(): port must be 0-65535."),
            OSError(2, "No such file"),
            UnicodeError("x"),
        ):
            self.reactor.error = wrong
            error = self.assertRaises(StartFailed, self.prepare("tcp:8080").open)
            self.assertOneLine(error, "tcp:8080: cannot listen: ", getattr(wrong, "strerror", None) or str(wrong))

    def test_a_socket_that_systemd_did_not_pass_fails_the_start_when_it_is_opened(self) -> None:
        for endpoint in ("systemd:domain=INET:index=99", "systemd:domain=INET:name=nosuch"):
            error = self.assertRaises(StartFailed, self.prepare(endpoint).open)
            self.assertOneLine(error, f"{endpoint}: cannot listen: systemd has passed no such socket; ", "none")

    def test_a_port_that_could_not_be_opened_can_be_closed(self) -> None:
        self.reactor.error = CannotListenError("", 8080, OSError(errno.EACCES, "Permission denied"))
        port = self.prepare("tcp:80")
        self.assertRaises(StartFailed, port.open)
        self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(port.close())))


class CannotPrepareTests(ListenCase):
    def assertNoEndpoint(self, endpoint: str) -> None:
        error = self.assertRaises(StartFailed, self.prepare, endpoint)
        self.assertOneLine(error, f"endpoint = {endpoint}: not a Twisted server endpoint: ")

    def test_what_is_not_an_endpoint_of_twisted_fails_the_start(self) -> None:
        for endpoint in (
            "",
            ":",
            "8080",
            "tcp",
            "tcp:http",
            "tcp:1:2:3:4",
            "http:80",
            "tcp:80:nosuch=1",
            "tcp:80=1",
        ):
            self.assertNoEndpoint(endpoint)

    def test_an_argument_of_the_wrong_kind_fails_the_start(self) -> None:
        for endpoint in ("tcp:80:backlog=many", "unix:/x:mode=9", "unix:/x:nosuch=1", "haproxy:nosuch:80"):
            self.assertNoEndpoint(endpoint)

    def test_a_socket_of_systemd_without_a_domain_or_a_name_fails_the_start(self) -> None:
        for endpoint in ("systemd:domain=INET", "systemd:name=http", "systemd:domain=INET:name=a:index=1"):
            self.assertNoEndpoint(endpoint)

    def test_an_endpoint_whose_files_are_missing_fails_the_start(self) -> None:
        self.assertNoEndpoint("haproxy:ssl:443:privateKey=/nosuch/server.pem")


class CloseTests(ListenCase):
    def close(self, port: Port) -> Deferred[None]:
        """Close a port."""
        return Deferred.fromCoroutine(port.close())

    def test_closing_stops_listening(self) -> None:
        port = self.prepare("tcp:8080")
        port.open()
        self.assertIsNone(self.successResultOf(self.close(port)))
        self.assertEqual(self.reactor.open[0].stops, 1)

    def test_closing_again_does_nothing(self) -> None:
        port = self.prepare("tcp:8080")
        port.open()
        for _ in range(2):
            self.assertIsNone(self.successResultOf(self.close(port)))
        self.assertEqual(self.reactor.open[0].stops, 1)

    def test_one_that_was_never_open_can_be_closed(self) -> None:
        self.assertIsNone(self.successResultOf(self.close(self.prepare("tcp:8080"))))

    def test_closing_waits_until_it_is_closed(self) -> None:
        port = self.prepare("tcp:8080")
        port.open()
        stopped: Deferred[None] = Deferred()
        self.reactor.open[0].stopped = stopped
        closing = self.close(port)
        self.assertNoResult(closing)
        self.assertIsNone(self.successResultOf(self.close(port)))
        stopped.callback(None)
        self.assertIsNone(self.successResultOf(closing))

    def test_it_may_be_opened_again(self) -> None:
        port = self.prepare("tcp:8080")
        for count in (1, 2):
            port.open()
            self.assertEqual(len(self.reactor.open), count)
            self.successResultOf(self.close(port))


class TlsTests(ListenCase):
    def setUp(self) -> None:
        super().setUp()
        self.factory = PushdSite(
            Resource(),
            self.reactor,
            wheel=TimerWheel(self.reactor.seconds),
            limiter=ConnectionLimiter(0, 0, TimerWheel(self.reactor.seconds)),
            serving=Serving(100, PATIENCE),
        )

    def negotiate(self, offered: list[bytes]) -> tuple[bytes, bool]:
        """Shake hands with the port; answer the protocol that was chosen, and whether the handshake ended well."""
        port = self.prepare("tcp:8443", tls=True)
        port.open()
        _, factory, _, _ = self.reactor.tcpServers[-1]
        server = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        assert server is not None
        wire = FakeTransport(server, isServer=True)
        server.makeConnection(wire)
        context = SSL.Context(SSL.TLS_METHOD)
        if offered:
            context.set_alpn_protos(offered)
        client, is_done = SSL.Connection(context, None), False
        client.set_connect_state()
        for _ in range(4):
            with contextlib.suppress(SSL.WantReadError):
                client.do_handshake()
                is_done = True
            with contextlib.suppress(SSL.WantReadError):
                server.dataReceived(client.bio_read(65536))
            if (data := wire.getOutBuffer()) is not None:
                client.bio_write(data)
        return client.get_alpn_proto_negotiated(), is_done

    def test_a_client_that_offers_what_browsers_offer_gets_http_2(self) -> None:
        self.assertEqual(self.negotiate([b"h2", b"http/1.1"]), (b"h2", True))

    def test_a_client_that_offers_http_1_1_only_gets_it(self) -> None:
        self.assertEqual(self.negotiate([b"http/1.1"]), (b"http/1.1", True))

    def test_a_client_that_offers_nothing_is_served_too(self) -> None:
        self.assertEqual(self.negotiate([]), (b"", True))

    def test_the_factory_is_wrapped_only_if_the_listener_speaks_tls(self) -> None:
        for speaks_tls, kind in ((False, PushdSite), (True, TLSFactory)):
            self.prepare("tcp:1", tls=speaks_tls).open()
            self.assertIs(type(self.reactor.tcpServers[-1][1]), kind)

    def test_the_header_of_a_proxy_comes_before_tls_and_only_where_it_is_configured(self) -> None:
        for speaks_tls, kind in ((False, PushdSite), (True, TLSFactory)):
            listener = Listener("main", "tcp:1", speaks_tls, proxy_protocol=True)
            self.prepare_listener(listener, self.self_signed).open()
            self.assertIs(type(self.factories_behind_proxies[-1]), kind)
            self.assertIs(type(self.reactor.tcpServers[-1][1]), Factory)
            self.prepare("tcp:1", tls=speaks_tls)
        self.assertEqual(len(self.factories_behind_proxies), 2)

    def test_a_configured_certificate_is_used_instead_of_the_self_signed_one(self) -> None:
        certificate, key = self.self_signed()
        listener = Listener("main", "tcp:8443", True, certificate, key)
        self.prepare_listener(listener, no_certificate)

    def test_the_authorities_of_clients_are_those_that_are_configured(self) -> None:
        path = Authority().write(Path(self.directory), "ca")
        for word, is_required in (("required", True), ("optional", False)):
            listener = Listener("main", "tcp:8443", True, client_ca=path, client_certificate=word)
            self.prepare_listener(listener, self.self_signed).open()
            factory: Any = self.reactor.tcpServers[-1][1]
            mode = factory._creatorCallable(factory.buildProtocol(None)).get_context().get_verify_mode()
            self.assertEqual(bool(mode & SSL.VERIFY_FAIL_IF_NO_PEER_CERT), is_required)
            self.assertTrue(mode & SSL.VERIFY_PEER)

    def test_authorities_that_are_none_fail_the_start(self) -> None:
        certificate, _ = self.self_signed()
        for path, why in (("/nosuch.pem", "cannot be read"), (certificate, "not that of an authority")):
            listener = Listener("main", "tcp:8443", True, client_ca=path)
            error = self.assertRaises(StartFailed, self.prepare_listener, listener, self.self_signed)
            self.assertOneLine(error, f"[listen:main] {path}", why)

    def test_authorities_that_are_none_any_more_do_not_end_the_trust_in_the_old_ones(self) -> None:
        path = Authority().write(Path(self.directory), "ca")
        listener = Listener("main", "tcp:8443", True, client_ca=path)
        port = self.prepare_listener(listener, self.self_signed)
        port.renewed(listener)()
        Path(path).write_text("")
        self.assertOneLine(
            self.assertRaises(StartFailed, port.renewed, listener), f"[listen:main] {path}", "not a PEM"
        )

    def test_a_certificate_that_cannot_be_served_with_fails_the_start(self) -> None:
        certificate, _ = self.self_signed()
        for paths in (("/nosuch.crt", "/nosuch.key"), (certificate, certificate)):
            listener = Listener("main", "tcp:8443", True, *paths)
            begin = partial(self.prepare_listener, listener, no_certificate)
            error = self.assertRaises(StartFailed, begin)
            self.assertTrue(str(error).startswith(f"[listen:main] {paths[0]}"), error)
