"""Clients' certificates: whose are taken, what their owners are called, and that nobody becomes somebody else."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import Any
from unittest.mock import patch

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived
from hypothesis import assume, given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from zope.interface import directlyProvides

from pushd.errors import StartFailed
from pushd.server.net import connection_info, tls
from pushd.server.net.client_certificates import certificate_of, subject_text
from pushd.server.net.connection_limits import ConnectionLimiter
from pushd.server.net.timers import TimerWheel
from pushd.server.net.tls import Authorities, Credentials
from pushd.server.net.writer import TLSFactory
from pushd.server.web.site import PushdSite, Serving
from tests.rigs.builders import PATIENCE
from tests.rigs.certificates import Authority, Issued, name_of
from tests.unit.server.test_tls import forgive_deprecated_certificates

ALICE = "CN=alice,O=Example"
PEER = IPv4Address("TCP", "192.0.2.1", 40000)
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class WhoAsks(Resource):
    """Answers who asks."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """See `Resource`."""
        request.setHeader(b"content-type", b"text/plain")
        certificate = request.connection.info.certificate
        return repr(None if certificate is None else certificate.subject).encode()


class Wire(StringTransport):
    """What carries the bytes of one connection."""

    def __init__(self) -> None:
        super().__init__(peerAddress=PEER)
        directlyProvides(self, ITCPTransport)

    def setTcpNoDelay(self, enabled: object) -> None:
        """See `ITCPTransport`."""

    def abortConnection(self) -> None:
        """See `ITCPTransport`."""
        self.disconnecting = True


class PythonClient:
    """The end of a client, made of Python's TLS."""

    def __init__(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, session=session)
        self.do_handshake, self.read, self.write = self.tls.do_handshake, self.tls.read, self.tls.write
        self.take, self.give = self._incoming.write, self._outgoing.read


class OpenSSLClient:
    """The same made of pyOpenSSL, by which each connection of a context may have another certificate or none."""

    def __init__(self, context: SSL.Context, issued: Issued | None, session: SSL.Session | None = None) -> None:
        self.connection = SSL.Connection(context)
        if issued is not None:
            self.connection.use_certificate(issued.certificate)
            self.connection.use_privatekey(issued.key)
        if session is not None:
            self.connection.set_session(session)
        self.connection.set_connect_state()
        self.take = self.connection.bio_write

    def _do(self, action: Any, *arguments: Any) -> Any:
        try:
            return action(*arguments)
        except SSL.WantReadError:
            raise ssl.SSLWantReadError from None
        except SSL.Error as error:
            raise ssl.SSLError(str(error)) from None

    def do_handshake(self) -> None:
        """See `ssl.SSLObject`."""
        self._do(self.connection.do_handshake)

    def read(self, size: int) -> bytes:
        """See `ssl.SSLObject`."""
        data: bytes = self._do(self.connection.recv, size)
        return data

    def write(self, data: bytes) -> None:
        """See `ssl.SSLObject`."""
        self._do(self.connection.send, data)

    def give(self) -> bytes:
        """Return what is to be sent."""
        try:
            return self.connection.bio_read(65536)
        except SSL.WantReadError:
            return b""


class Talk:
    """One connection of a client to a site."""

    def __init__(self, factory: TLSFactory, client: PythonClient | OpenSSLClient) -> None:
        """Shake hands."""
        self.client: Any = client
        self.server: Any = factory.buildProtocol(PEER)
        self._clock: Any = factory._clock
        self._wire = Wire()
        self.is_over = False
        self.error: Exception | None = None
        self.server.makeConnection(self._wire)
        self._run(client.do_handshake)

    def _run(self, action: Callable[[], object]) -> None:
        """Make the client act, and transfer the bytes of both ends until neither sends more."""
        for _ in range(6):
            try:
                action()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self.error = error
            self._carry()

    def _carry(self) -> None:
        if self.is_over:
            return
        data = self.client.give()
        if data:
            self.server.dataReceived(data)
        self._clock.advance(0)
        if self._wire.value():
            self.client.take(self._wire.value())
            self._wire.clear()
        if self._wire.disconnecting:
            self.end()

    def say(self, data: bytes) -> bytes:
        """Send `data`; return what comes."""
        parts: list[bytes] = []
        try:
            self.client.write(data)
        except ssl.SSLError as error:
            self.error = error
        self._run(lambda: parts.append(self.client.read(65536)))
        return b"".join(parts)

    def who(self) -> str | None:
        """Ask over HTTP/1.1 who asks; None if there is no answer."""
        answer = self.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return answer.partition(b"\r\n\r\n")[2].decode() or None

    def who_over_http2(self) -> str | None:
        """The same over HTTP/2."""
        h2 = H2Connection(H2Configuration())
        h2.initiate_connection()
        names = {":method": "GET", ":path": "/", ":scheme": "https", ":authority": "a"}
        h2.send_headers(1, list(names.items()), end_stream=True)
        events = h2.receive_data(self.say(h2.data_to_send()))
        return b"".join(it.data for it in events if isinstance(it, DataReceived)).decode() or None

    def end(self) -> None:
        """End the connection."""
        if not self.is_over:
            self.is_over = True
            self.server.connectionLost(Failure(ConnectionDone()))


class CertifiedCase(SynchronousTestCase):
    ca: Authority
    alice: Issued
    issuer: Authority

    @classmethod
    def setUpClass(cls) -> None:
        cls.ca = Authority()
        cls.alice = cls.ca.issue("alice")
        cls.issuer = Authority("Server CA")

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        forgive_deprecated_certificates(self)
        server = self.issuer.issue("server", purposes=[ExtendedKeyUsageOID.SERVER_AUTH])
        self.server = server.write(self.directory, "server")
        self.clock = MemoryReactorClock()
        self.limiter = ConnectionLimiter(0, 0, TimerWheel(self.clock.seconds))
        self.site = PushdSite(
            WhoAsks(),
            self.clock,
            wheel=TimerWheel(self.clock.seconds),
            limiter=self.limiter,
            serving=Serving(100, PATIENCE),
        )
        self.credentials = self.authorizer(self.ca.pem)
        self.lines: list[str] = []

    def renew(self) -> None:
        """Read the authorities again."""
        self.credentials.renewed(lambda: self.server, Authorities(str(self.directory / "ca.pem"), True))()

    def authorizer(self, authorities: bytes | None, *, is_required: bool = True) -> Credentials:
        """Make credentials with which clients are asked for certificates of `authorities`, if that is not None."""
        path = self.directory / "ca.pem"
        if authorities is None:
            return Credentials(lambda: self.server)
        path.write_bytes(authorities)
        return Credentials(lambda: self.server, Authorities(str(path), is_required))

    def client(
        self, issued: Issued | None = None, version: ssl.TLSVersion | None = None, alpn: str = "http/1.1"
    ) -> ssl.SSLContext:
        """Make what a client with a certificate begins connections with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols([alpn])
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if issued is not None:
            context.load_cert_chain(*issued.write(self.directory, "client"))
        return context

    def connect(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Talk:
        """Connect a client made of Python's TLS."""
        return self.talk(PythonClient(context, session))

    def talk(self, client: PythonClient | OpenSSLClient) -> Talk:
        """Connect a client; what is logged comes to `lines`."""
        with capturedLogs() as logs:
            talk = Talk(TLSFactory(self.credentials, False, self.site, clock=self.clock), client)
            self.addCleanup(talk.end)
        self.lines = [formatEvent(event) for event in logs]
        return talk

    @property
    def handshakes(self) -> dict[str, int]:
        """How many handshakes were counted, by what came of them."""
        return dict(self.limiter.counters.handshakes)

    def assert_is(self, issued: Issued | None, user: str | None) -> None:
        for version in VERSIONS:
            talk = self.connect(self.client(issued, version))
            self.assertEqual(talk.who(), repr(user), version)
            self.assertEqual(self.lines, [])

    def assert_refuses(self, issued: Issued | None, line: str) -> None:
        for version in VERSIONS:
            talk = self.connect(self.client(issued, version))
            self.assertEqual((talk.who(), talk.is_over), (None, True), version)
            self.assertIsInstance(talk.error, ssl.SSLError)
            self.assertEqual(self.lines, [line])
            self.assertEqual(len(self.site.connections), 0)


NO_CERTIFICATE = "refused a TLS handshake with 192.0.2.1:40000: it has no certificate, which client_ca requires"
OF_ALICE = f"refused the certificate of 192.0.2.1:40000, {ALICE}: "


class HandshakeTests(CertifiedCase):
    def test_the_subject_is_the_user(self) -> None:
        self.assert_is(self.alice, ALICE)

    def test_handshakes_are_counted_by_what_came_of_them(self) -> None:
        self.connect(self.client(self.alice))
        self.connect(self.client(self.alice, alpn="h2"))
        self.assertEqual(self.handshakes, {"completed": 2})
        self.connect(self.client(None, ssl.TLSVersion.TLSv1_2))
        self.assertEqual(self.handshakes, {"completed": 2, "failed": 1})

    def test_over_http_2_too(self) -> None:
        for is_required in (True, False):
            self.credentials = self.authorizer(self.ca.pem, is_required=is_required)
            talk = self.connect(self.client(self.alice, alpn="h2"))
            self.assertEqual((talk.client.tls.selected_alpn_protocol(), talk.who_over_http2()), ("h2", repr(ALICE)))
        self.assertEqual(self.connect(self.client(alpn="h2")).who_over_http2(), "None")

    def test_without_one_a_client_is_refused_if_it_is_required(self) -> None:
        self.assert_refuses(None, NO_CERTIFICATE)

    def test_without_one_a_client_is_nobody_if_it_is_optional(self) -> None:
        self.credentials = self.authorizer(self.ca.pem, is_required=False)
        self.assert_is(None, None)
        self.assert_is(self.alice, ALICE)

    def test_who_is_not_asked_is_nobody(self) -> None:
        self.credentials = self.authorizer(None)
        self.assert_is(self.alice, None)

    def test_who_asks_is_found_out_once_for_a_connection(self) -> None:
        with patch.object(connection_info, "certificate_of", wraps=certificate_of) as it:
            talk = self.connect(self.client(self.alice))
            self.assertEqual([talk.who() for _ in range(3)], [repr(ALICE)] * 3)
        self.assertEqual(it.call_count, 1)

    def test_browsers_are_told_which_authorities_are_wanted(self) -> None:
        client = OpenSSLClient(SSL.Context(SSL.TLS_METHOD), self.alice)
        self.assertEqual(self.talk(client).who(), repr(ALICE))
        names = [name.get_components() for name in client.connection.get_client_ca_list()]
        self.assertEqual(names, [[(b"O", b"Example"), (b"CN", b"Example CA")]])


class RefusalTests(CertifiedCase):
    """With an optional certificate, a wrong one is refused all the same."""

    def assert_refuses(self, issued: Issued | None, line: str) -> None:
        for is_required in (True, False):
            self.credentials = self.authorizer(self.ca.pem, is_required=is_required)
            super().assert_refuses(issued, line)

    def test_of_another_authority(self) -> None:
        self.assert_refuses(Authority("Other CA").issue(), OF_ALICE + "unable to get issuer cert locally")

    def test_of_another_authority_of_the_same_name(self) -> None:
        self.assert_refuses(Authority("Example CA").issue(), OF_ALICE + "unable to get issuer cert locally")

    def test_of_an_authority_that_the_client_brings_along(self) -> None:
        other = Authority("Other CA")
        issued = other.issue()
        issued = Issued(issued.certificate, issued.key, (other.certificate,))
        line = "refused the certificate of 192.0.2.1:40000, CN=Other CA,O=Example: self signed cert in chain"
        self.assert_refuses(issued, line)

    def test_of_itself(self) -> None:
        other = Authority("alice")
        self.assert_refuses(Issued(other.certificate, other._key), OF_ALICE + "depth zero self signed cert")

    def test_of_somebody_who_has_a_certificate(self) -> None:
        mallory = Authority("mallory", self.ca)
        leaf = self.ca.issue("mallory", is_authority=False)
        mallory._key, mallory.certificate = leaf.key, leaf.certificate
        issued = mallory.issue("alice")
        line = "refused the certificate of 192.0.2.1:40000, CN=mallory,O=Example: invalid ca"
        self.assert_refuses(Issued(issued.certificate, issued.key, (leaf.certificate,)), line)

    def test_of_an_authority_of_the_system(self) -> None:
        other = Authority("System CA")
        with patch.dict(os.environ, {"SSL_CERT_FILE": other.write(self.directory, "system")}):
            self.assert_refuses(other.issue(), OF_ALICE + "unable to get issuer cert locally")

    def test_of_the_authority_of_the_servers_certificate(self) -> None:
        self.assert_refuses(self.issuer.issue(), OF_ALICE + "unable to get issuer cert locally")

    def test_expired(self) -> None:
        self.assert_refuses(self.ca.issue(from_days=-2, to_days=-1), OF_ALICE + "cert has expired")

    def test_not_yet_valid(self) -> None:
        self.assert_refuses(self.ca.issue(from_days=1, to_days=2), OF_ALICE + "cert not yet valid")

    def test_for_servers(self) -> None:
        issued = self.ca.issue(purposes=[ExtendedKeyUsageOID.SERVER_AUTH])
        self.assert_refuses(issued, OF_ALICE + "invalid purpose")

    def test_without_a_subject(self) -> None:
        issued = self.ca.issue(x509.Name([]))
        self.assert_refuses(issued, "refused the certificate of 192.0.2.1:40000: it has no subject")

    def test_with_a_subject_that_is_too_long(self) -> None:
        units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "x" * 60) for _ in range(5)]
        issued = self.ca.issue(x509.Name([*units, *name_of("alice")]))
        line = "refused the certificate of 192.0.2.1:40000: its subject is longer than 255 bytes"
        self.assert_refuses(issued, line)


class ChainTests(CertifiedCase):
    def test_one_for_whatever_and_one_for_clients_and_servers_are_taken(self) -> None:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        for purposes in ([], both):
            self.assert_is(self.ca.issue(purposes=purposes), ALICE)

    def test_the_client_brings_what_leads_to_the_root(self) -> None:
        self.assert_is(Authority("Below", self.ca).issue(), ALICE)

    def test_an_authority_need_not_be_a_root(self) -> None:
        below, beside = Authority("Below", self.ca), Authority("Beside", self.ca)
        self.credentials = self.authorizer(below.pem)
        self.assert_is(below.issue(), ALICE)
        for issued in (beside.issue(), self.alice):
            self.assertIsNone(self.connect(self.client(issued)).who())
            self.assertIn("unable to get", self.lines[0])

    def test_there_may_be_several(self) -> None:
        other = Authority("Other CA")
        self.credentials = self.authorizer(self.ca.pem + other.pem)
        self.assert_is(self.alice, ALICE)
        self.assert_is(other.issue("bob"), "CN=bob,O=Example")


class SessionTests(CertifiedCase):
    """Nobody gets an identity from a session of an earlier connection."""

    def session_of(self, context: ssl.SSLContext, user: str | None) -> ssl.SSLSession:
        """Return the session of a connection."""
        talk = self.connect(context)
        self.assertEqual(talk.who(), repr(user))
        session: ssl.SSLSession | None = talk.client.tls.session
        assert session is not None
        return session

    def test_a_client_that_comes_back_with_its_session_is_who_it_was(self) -> None:
        for version in VERSIONS:
            context = self.client(self.alice, version)
            talk = self.connect(context, self.session_of(context, ALICE))
            self.assertEqual((talk.who(), talk.client.tls.session_reused), (repr(ALICE), False))

    def test_a_session_does_not_stand_for_a_certificate(self) -> None:
        for is_required, user in ((True, None), (False, "None")):
            for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
                self.credentials = self.authorizer(self.ca.pem, is_required=is_required)
                context = SSL.Context(SSL.TLS_METHOD)
                context.set_min_proto_version(version)
                context.set_max_proto_version(version)
                first = OpenSSLClient(context, self.alice)
                self.assertEqual(self.talk(first).who(), repr(ALICE))
                session = first.connection.get_session()
                assert session is not None
                self.assertEqual(self.talk(OpenSSLClient(context, None, session)).who(), user)

    def test_a_session_from_where_nobody_is_asked_is_nobodys(self) -> None:
        for version in VERSIONS:
            self.credentials = self.authorizer(None)
            context = self.client(None, version)
            session = self.session_of(context, None)
            self.credentials = self.authorizer(self.ca.pem)
            talk = self.connect(context, session)
            self.assertEqual((talk.who(), self.lines), (None, [NO_CERTIFICATE]))

    def test_a_session_does_not_outlive_the_trust_in_its_authority(self) -> None:
        for version in VERSIONS:
            self.credentials = self.authorizer(self.ca.pem)
            context = self.client(self.alice, version)
            session = self.session_of(context, ALICE)
            (self.directory / "ca.pem").write_bytes(Authority("Other CA").pem)
            self.renew()
            self.assertIsNone(self.connect(context, session).who())
            self.assertEqual(self.lines, [OF_ALICE + "unable to get issuer cert locally"])


class ExpiryTests(CertifiedCase):
    """A connection does not outlive the certificate that it began with."""

    def setUp(self) -> None:
        super().setUp()
        started, self.wheel = time(), TimerWheel(self.clock.seconds)
        self.site = PushdSite(
            WhoAsks(),
            self.clock,
            wheel=self.wheel,
            limiter=self.limiter,
            serving=Serving(100, PATIENCE),
            now=lambda: started + self.clock.seconds(),
        )

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.wheel.turn()

    def test_it_is_ended_then_over_either_version(self) -> None:
        for alpn in ("http/1.1", "h2"):
            talk = self.connect(self.client(self.ca.issue(to_days=40 / 86400), alpn=alpn))
            self.assertEqual((talk.who_over_http2 if alpn == "h2" else talk.who)(), repr(ALICE))
            self.wait(35)
            self.assertEqual(len(self.site.connections), 1)
            self.wait(10)
            talk._carry()
            self.wait(10)  # in which it is aborted, since this client does not end its TLS
            talk._carry()
            self.assertEqual(len(self.site.connections), 0, alpn)
            self.assertEqual(len(self.wheel), 0)

    def test_one_that_ends_before_leaves_nothing(self) -> None:
        for alpn in ("http/1.1", "h2"):
            self.connect(self.client(self.alice, alpn=alpn)).end()
            self.assertEqual(len(self.wheel), 0)

    def test_it_is_good_as_long_as_every_certificate_of_its_chain(self) -> None:
        below = Authority("Below", self.ca)  # both authorities for a day
        talk = self.connect(self.client(below.issue(to_days=30)))
        (connection,) = self.site.connections
        certificate = connection.info.certificate  # type: ignore[attr-defined]
        self.assertEqual(certificate.subject, ALICE)
        self.assertLess(certificate.expires_at, time() + 1.01 * 86400)
        self.assertEqual(talk.who(), repr(ALICE))


class ReloadTests(CertifiedCase):
    def test_the_authorities_are_read_again(self) -> None:
        other = Authority("Other CA")
        before = self.connect(self.client(self.alice))
        (self.directory / "ca.pem").write_bytes(other.pem)
        self.renew()
        self.assertIsNone(self.connect(self.client(self.alice)).who())
        self.assert_is(other.issue("bob"), "CN=bob,O=Example")
        self.assertEqual(before.who(), repr(ALICE))

    def test_if_they_are_no_good_the_old_ones_stay(self) -> None:
        for data in (None, b"", self.alice.pem):
            path = self.directory / "ca.pem"
            path.unlink(missing_ok=True)
            if data is not None:
                path.write_bytes(data)
            self.assertRaises(StartFailed, self.renew)
            self.assert_is(self.alice, ALICE)


class FileTests(CertifiedCase):
    """What is wrong with a file is one line."""

    def assert_says(self, data: bytes | None, *parts: str) -> None:
        path = self.directory / "wrong.pem"
        if data is not None:
            path.write_bytes(data)
        for is_required in (True, False):
            load = lambda: tls.load(*self.server, Authorities(str(path), is_required))  # noqa: B023, E731
            text = str(self.assertRaises(StartFailed, load))
            self.assertEqual(len(text.splitlines()), 1)
            for part in (str(path), *parts):
                self.assertIn(part, text)

    def test_one_that_is_missing(self) -> None:
        self.assert_says(None, "cannot be read: No such file or directory")

    def test_one_without_a_certificate(self) -> None:
        for data in (b"", b"hello\n", b"\xff\0", Path(self.server[1]).read_bytes()):
            self.assert_says(data, "not a PEM certificate")

    def test_one_with_a_certificate_that_is_of_no_authority(self) -> None:
        self.assert_says(self.alice.pem, "certificate 1 is not that of an authority")
        self.assert_says(self.ca.pem + self.alice.pem, "certificate 2 is not that of an authority")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16)  # 64 bytes at most: X.520
ATTRIBUTES = st.builds(
    x509.NameAttribute,
    st.sampled_from([NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME]),
    TEXTS,
)
RDNS = st.lists(ATTRIBUTES, min_size=1, max_size=2, unique_by=lambda it: it.oid).map(x509.RelativeDistinguishedName)
SUBJECTS = st.lists(RDNS, min_size=1, max_size=3).map(x509.Name)


class SubjectTests(SynchronousTestCase):
    def test_it_is_written_as_in_rfc_4514(self) -> None:
        for name, text in (
            (name_of("alice"), "CN=alice,O=Example"),
            (name_of("alice", None), "CN=alice"),
            (name_of('a,b+c="d";<e>\\'), r"CN=a\,b\+c=\"d\"\;\<e\>\\,O=Example"),
            (name_of(" #a "), r"CN=\ #a\ ,O=Example"),
            (name_of("Jörg 😀"), "CN=Jörg 😀,O=Example"),
        ):
            self.assertEqual(subject_text(name), text)

    def test_what_does_not_print_is_escaped(self) -> None:
        text = subject_text(name_of("a\r\nb\0c\x7f\u202ed\u2028e\u00a0f"))
        self.assertEqual(text, r"CN=a\0D\0Ab\00c\7F\E2\80\AEd\E2\80\A8e\C2\A0f,O=Example")

    def test_it_has_255_bytes_at_most(self) -> None:
        attributes = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "ö" * 30) for _ in range(3)]
        rest = 255 - len(subject_text(x509.Name(attributes)).encode()) - len(",CN=")
        for more, is_good in ((0, True), (1, False)):
            name = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, "x" * (rest + more))])
            if is_good:
                self.assertEqual(len(subject_text(name).encode()), 255)
            else:
                self.assertRaises(ValueError, subject_text, name)

    @given(SUBJECTS)
    def test_it_prints_and_stands_for_one_subject_only(self, name: x509.Name) -> None:
        try:
            text = subject_text(name)
        except ValueError:
            assume(False)
        self.assertTrue(text.isprintable())
        ae = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ä")])
        if x509.Name.from_rfc4514_string(r"CN=\C3\A4") == ae:  # cryptography before 47 reads two characters
            self.assertEqual(x509.Name.from_rfc4514_string(text), name)

    def test_a_connection_without_tls_has_none(self) -> None:
        for transport in (None, StringTransport()):
            self.assertIsNone(certificate_of(transport))
