"""The write path: the peer gets the same bytes as by ``transport.write``, in fewer steps."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from tempfile import TemporaryDirectory
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pushd.server.net import tls
from pushd.server.net.writer import TLSFactory, writer
from tests.rigs.effort import examples
from tests.rigs.producers import Producer
from tests.unit.server.test_tls import forgive_deprecated_certificates

PLENTY = 1 << 40
OPENSSL: Any = SSL

Write = Callable[[bytes], None]
"""What takes bytes for a peer."""


@dataclass
class Socket:
    """A socket whose kernel takes as much as the test says."""

    room: int = PLENTY
    is_broken: bool = False
    sent: bytearray = field(default_factory=bytearray)
    sends: int = 0

    def send(self, data: bytes) -> int:
        """Take as much of `data` as there is room for."""
        if self.is_broken:
            raise BrokenPipeError(errno.EPIPE, "broken")
        if data and not self.room:
            raise BlockingIOError(errno.EAGAIN, "full")
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.sent += taken
        self.sends += 1
        return len(taken)

    def fileno(self) -> int:
        """Return what no system call is made with."""
        return -1

    def setblocking(self, flag: int) -> None:
        """Do nothing."""

    def setsockopt(self, *options: object) -> None:
        """Do nothing."""

    def shutdown(self, how: int) -> None:
        """Take no more."""
        self.is_broken = True

    def close(self) -> None:
        """Do nothing."""


class Reactor(Clock):
    """Has connections write when the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: dict[Any, None] = {}

    def addReader(self, reader: object) -> None:
        """Do nothing."""

    removeReader = addReader

    def addWriter(self, one: object) -> None:
        """Have `one` write in the next turn."""
        self.writers[one] = None

    def removeWriter(self, one: object) -> None:
        """Do not any more."""
        self.writers.pop(one, None)

    def turn(self) -> None:
        """Do what a reactor does in one turn."""
        self.advance(0)
        for one in list(self.writers):
            reason = one.doWrite()
            if reason is not None:
                self.removeWriter(one)
                one.connectionLost(Failure(reason))


class Peer(Protocol):
    """Notes that its connection has ended; that never happens within a write."""

    is_lost = False
    is_writing = False
    is_answering: bool | None = None
    """Whether it has something to say to a client that has ended its half; None: it was not asked."""

    def input_ended(self) -> bool:
        """Return whether the connection goes on."""
        is_answering, self.is_answering = self.is_answering, None
        return bool(is_answering)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: note it."""
        assert not self.is_writing
        self.is_lost = True


class SocketRig:
    """One connection over a socket of the test's."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.socket = Socket()
        self.peer = Peer()
        self.producer = Producer()
        self.transport = Connection(cast(Any, self.socket), self.peer, cast(Any, self.reactor))
        self.transport.connected = 1
        self.written = bytearray()

    def write(self, data: bytes, write: Write) -> None:
        """Write `data` and note it."""
        self.written += data
        self.peer.is_writing = True
        write(data)
        self.peer.is_writing = False

    def drain(self) -> None:
        """Let the kernel take all."""
        self.socket.room = PLENTY
        for _ in range(20):
            self.reactor.turn()


Step = tuple[str, int]

sizes = st.one_of(st.integers(1, 20), st.integers(1, 300_000))
gentle = st.one_of(
    st.tuples(st.sampled_from(["through", "through", "plain", "room"]), sizes),
    st.tuples(st.sampled_from(["turn", "full", "register", "unregister"]), st.just(0)),
)
ends = st.tuples(st.sampled_from(["lose", "half"]), st.just(0))
violent = st.tuples(st.sampled_from(["abort", "break"]), st.just(0))


def run(steps: list[Step], *, is_through: bool) -> SocketRig:
    """Take `steps` with a connection, writing through or with the transport's own write."""
    rig = SocketRig()
    through: Write = writer(rig.transport).write if is_through else rig.transport.write
    number, is_open = 0, True
    for name, size in steps:
        if name in ("through", "plain") and is_open:
            number += 1
            data = (b"%d," % number) * (size // 2 + 1)
            rig.write(data, through if name == "through" else rig.transport.write)
        elif name == "room":
            rig.socket.room = size
        elif name == "full":
            rig.socket.room = 0
        elif name == "turn":
            rig.reactor.turn()
        elif name == "register" and rig.transport.producer is None and is_open:
            rig.transport.registerProducer(rig.producer, True)
        elif name == "unregister":
            rig.transport.unregisterProducer()
        elif name == "lose":
            rig.transport.unregisterProducer()  # with one that is paused, Twisted would not close
            rig.transport.loseConnection()
            is_open = False  # what is written after that may go or not: nobody does so
        elif name == "half" and rig.transport.connected and is_open:
            rig.transport.loseWriteConnection()
            is_open = False  # nor does anybody do this again
        elif name == "abort":
            rig.transport.abortConnection()
        elif name == "break":
            rig.socket.is_broken = True
    rig.drain()
    return rig


class PropertyTests(SynchronousTestCase):
    """Whatever happens, in whatever order."""

    @examples(300)
    @given(st.lists(st.one_of(gentle, gentle, gentle, ends), max_size=30))
    def test_the_peer_gets_the_same_bytes_in_the_same_order(self, steps: list[Step]) -> None:
        through, plain = run(steps, is_through=True), run(steps, is_through=False)
        self.assertEqual(through.socket.sent, plain.socket.sent)
        self.assertEqual(through.peer.is_lost, plain.peer.is_lost)
        self.assertEqual(through.transport.connected, plain.transport.connected)

    @examples(300)
    @given(st.lists(st.one_of(gentle, gentle, gentle, ends, violent), max_size=30))
    def test_a_connection_that_breaks_had_the_beginning_of_the_same_bytes(self, steps: list[Step]) -> None:
        through, plain = run(steps, is_through=True), run(steps, is_through=False)
        self.assertTrue(through.socket.sent.startswith(plain.socket.sent))
        self.assertTrue(through.written.startswith(through.socket.sent))
        if through.peer.is_lost and "break" not in dict(steps):
            self.assertTrue(plain.peer.is_lost)

    @examples(300)
    @given(st.lists(gentle, max_size=40))
    def test_a_producer_that_was_paused_is_resumed_in_the_end(self, steps: list[Step]) -> None:
        rig = run([("register", 0), *(step for step in steps if "register" not in step[0])], is_through=True)
        told = [name for name, _ in groupby(rig.producer.told)]
        self.assertEqual(told, ["pause", "resume"] * (len(told) // 2))

    def test_a_producer_is_paused_when_much_waits(self) -> None:
        rig = SocketRig()
        rig.socket.room = 0
        rig.transport.registerProducer(rig.producer, True)
        writer(rig.transport).write(bytes(rig.transport.bufferSize + 1))
        self.assertEqual(rig.producer.told, ["pause"])
        rig.drain()
        self.assertEqual(rig.producer.told, ["pause", "resume"])


class SocketTests(SynchronousTestCase):
    """What one write does."""

    def setUp(self) -> None:
        self.rig = SocketRig()
        self.write = writer(self.rig.transport).write

    def test_what_the_kernel_takes_is_sent_at_once_and_the_reactor_has_nothing_to_do(self) -> None:
        self.write(b"abc")
        self.assertEqual(self.rig.socket.sent, b"abc")
        self.assertEqual(self.rig.reactor.writers, {})

    def test_what_the_kernel_does_not_take_waits_in_the_transport(self) -> None:
        self.rig.socket.room = 2
        self.write(b"abc")
        self.write(b"def")
        self.assertEqual(self.rig.socket.sent, b"ab")
        self.assertIn(self.rig.transport, self.rig.reactor.writers)
        self.rig.drain()
        self.assertEqual(self.rig.socket.sent, b"abcdef")
        self.assertEqual(self.rig.reactor.writers, {})

    def test_of_much_that_the_kernel_does_not_take_there_is_no_copy(self) -> None:
        data = b"abc" * 100_000
        for is_one_of_many in (False, True):
            self.setUp()
            self.rig.socket.room = 2
            way = writer(self.rig.transport)
            if is_one_of_many:
                way.write_later(data, way.send(data))
            else:
                way.write(data)
            self.assertTrue(self.rig.transport.dataBuffer is data)
            self.write(b"def")
            self.assertEqual(self.rig.socket.sent, b"ab")
            self.rig.drain()
            self.assertTrue(self.rig.socket.sent == data + b"def")
            self.assertEqual(self.rig.reactor.writers, {})

    def test_of_much_that_the_kernel_does_not_take_nothing_is_sent_before_what_waits(self) -> None:
        self.rig.socket.room = 0
        self.write(b"abc")
        writer(self.rig.transport).write_later(b"." * 300_000, 100_000)
        self.rig.drain()
        self.assertTrue(self.rig.socket.sent == b"abc" + b"." * 200_000)

    def test_what_waits_goes_first(self) -> None:
        self.rig.transport.write(b"abc")
        self.write(b"def")
        self.assertEqual(self.rig.socket.sent, b"")
        self.rig.drain()
        self.assertEqual(self.rig.socket.sent, b"abcdef")

    def test_a_fault_of_the_socket_ends_the_connection_in_a_turn_of_its_own(self) -> None:
        self.rig.socket.is_broken = True
        self.rig.write(b"abc", self.write)
        self.assertFalse(self.rig.peer.is_lost)
        self.rig.reactor.turn()
        self.assertTrue(self.rig.peer.is_lost)

    def test_nothing_is_sent_once_the_connection_was_aborted_or_has_ended(self) -> None:
        self.rig.transport.abortConnection()
        self.write(b"abc")
        self.rig.drain()
        self.assertTrue(self.rig.peer.is_lost)
        self.write(b"def")
        self.assertEqual(self.rig.socket.sent, b"")

    def test_other_transports_write_for_themselves(self) -> None:
        transport = StringTransport()
        writer(transport).write(b"abc")
        self.assertEqual(transport.value(), b"abc")

    def test_twisted_still_has_the_names_that_it_relies_on(self) -> None:
        transport = self.rig.transport
        self.assertEqual((transport.dataBuffer, transport._tempDataLen), (b"", 0))
        self.assertEqual((transport.connected, transport.disconnecting, transport._aborting), (1, 0, False))
        transport.write(b"abc")
        self.assertEqual(transport._tempDataLen, 3)
        self.rig.socket.room = 2
        self.rig.reactor.turn()
        self.assertEqual((transport.dataBuffer, transport.offset, transport._tempDataLen), (b"abc", 2, 0))


class TlsSocketRig(SocketRig):
    """The same with TLS on top, and a client that decrypts."""

    directory = TemporaryDirectory()
    credentials: tls.Credentials | None = None

    def __init__(self, version: int = SSL.TLS1_3_VERSION) -> None:
        super().__init__()
        if TlsSocketRig.credentials is None:
            TlsSocketRig.credentials = tls.Credentials(lambda: tls.self_signed(self.directory.name))
        factory = TLSFactory(TlsSocketRig.credentials, False, Factory.forProtocol(Peer), clock=self.reactor)
        protocol: Any = factory.buildProtocol(cast(Any, None))
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        self.tls: Any = protocol
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(version)
        self.client = SSL.Connection(context)
        self.client.set_connect_state()
        self.read = 0
        for _ in range(3):
            self.exchange()
        self.records = 0

    def exchange(self) -> None:
        """Carry what is in either direction; the client must have something to say."""
        with contextlib.suppress(SSL.WantReadError):
            self.client.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            self.tls.dataReceived(self.client.bio_read(1 << 20))
        self.reactor.turn()
        self.carry()

    def end_input(self, *, is_said: bool = True) -> None:
        """Have the client end its half, of TLS if it `is_said` there, and of the socket."""
        if is_said:
            self.client.shutdown()
            self.tls.dataReceived(self.client.bio_read(1 << 20))
        self.transport.readConnectionLost(Failure(ConnectionDone()))
        self.reactor.turn()

    def carry(self) -> None:
        """Carry what was sent to the client."""
        if len(self.socket.sent) > self.read:
            self.client.bio_write(bytes(self.socket.sent[self.read :]))
            self.read = len(self.socket.sent)

    def received(self) -> bytes:
        """Return what the client decrypts."""
        self.carry()
        parts = []
        while True:
            try:
                parts.append(self.client.recv(1 << 16))
            except (SSL.WantReadError, SSL.ZeroReturnError):
                return b"".join(parts)


class TlsTests(SynchronousTestCase):
    """The same over TLS."""

    def setUp(self) -> None:
        forgive_deprecated_certificates(self)

    def test_one_write_is_one_record_and_one_send_at_once(self) -> None:
        rig = TlsSocketRig()
        sends, before = rig.socket.sends, len(rig.socket.sent)
        writer(rig.tls).write(b"abc" * 1000)
        self.assertEqual(rig.socket.sends, sends + 1)
        sent = bytes(rig.socket.sent[before:])
        self.assertEqual((sent[0], int.from_bytes(sent[3:5], "big")), (23, len(sent) - 5), "one record of data")
        self.assertEqual(rig.received(), b"abc" * 1000)

    def test_the_shortest_way_sends_one_record_too(self) -> None:
        rig = TlsSocketRig()
        sends, before = rig.socket.sends, len(rig.socket.sent)
        for number in range(3):
            self.assertEqual(writer(rig.tls).send(b"%d" % number * 1000), 1000)
            self.assertEqual(rig.socket.sends, sends + 1 + number)
        sent = bytes(rig.socket.sent[before:])
        self.assertEqual(int.from_bytes(sent[3:5], "big") + 5, len(sent) // 3, "one record of data")
        self.assertEqual(rig.received(), b"0" * 1000 + b"1" * 1000 + b"2" * 1000)

    def test_the_shortest_way_leaves_the_others_in_order(self) -> None:
        rig = TlsSocketRig()
        way = writer(rig.tls)
        rig.tls.write(b"a")
        way.send(b"b")
        way.send(b"c" * 40_000)
        way.write(b"d")
        rig.socket.room = 3
        way.send(b"e")
        way.send(b"f")
        rig.drain()
        self.assertEqual(rig.received(), b"ab" + b"c" * 40_000 + b"def")

    def test_a_full_record_fits_where_it_is_put(self) -> None:
        for size in (16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1):
            rig = TlsSocketRig()
            writer(rig.tls).send(b"x" * size)
            self.assertEqual(rig.received(), b"x" * size)

    def test_a_client_that_has_ended_its_half_may_get_an_answer(self) -> None:
        rig = TlsSocketRig()
        peer: Any = rig.tls.wrappedProtocol
        peer.is_answering = True
        rig.end_input()
        self.assertFalse(peer.is_lost)
        writer(rig.tls).write(b"answer")
        self.assertEqual(rig.received(), b"answer")
        rig.tls.loseConnection()
        rig.drain()
        self.assertTrue(peer.is_lost)
        rig.received()
        self.assertTrue(rig.client.get_shutdown() & SSL.RECEIVED_SHUTDOWN, "TLS has ended properly")

    def test_without_an_answer_it_ends_at_once_and_properly(self) -> None:
        rig = TlsSocketRig()
        peer: Any = rig.tls.wrappedProtocol
        peer.is_answering = False
        rig.end_input()
        rig.received()
        self.assertTrue(peer.is_lost)
        self.assertTrue(rig.client.get_shutdown() & SSL.RECEIVED_SHUTDOWN)

    def test_before_tls_1_3_and_without_its_end_nobody_is_asked(self) -> None:
        for version, is_said in (SSL.TLS1_2_VERSION, True), (SSL.TLS1_3_VERSION, False):
            with self.subTest(version=version):
                rig = TlsSocketRig(version)
                peer: Any = rig.tls.wrappedProtocol
                peer.is_answering = True
                rig.end_input(is_said=is_said)
                self.assertTrue(peer.is_lost)
                self.assertTrue(peer.is_answering)

    def test_openssl_and_twisted_still_have_the_names_that_the_shortest_way_relies_on(self) -> None:
        rig = TlsSocketRig()
        self.assertEqual((rig.tls._appSendBuffer, rig.tls._aggregator._buffer), ([], []))
        self.assertEqual((rig.tls.disconnecting, rig.tls._lostTLSConnection), (False, False))
        connection = rig.tls._tlsConnection
        self.assertEqual(OPENSSL._lib.SSL_write(connection._ssl, b"abc", 3), 3)
        self.assertGreater(OPENSSL._lib.BIO_read(connection._from_ssl, OPENSSL._ffi.new("char[]", 100), 100), 3)

    def test_a_connection_that_has_ended_refers_to_no_producer_and_its_reason_to_no_frames(self) -> None:
        rig = TlsSocketRig()
        rig.tls.registerProducer(Producer(), True)
        self.assertIsNotNone(rig.tls._producer)
        try:
            raise SSL.SysCallError(-1, "Unexpected EOF")
        except SSL.SysCallError:
            reason = Failure()
        rig.tls._tlsShutdownFinished(reason)
        self.assertIsNone(reason.tb)
        self.assertIsNone(getattr(reason.value, "__traceback__", reason))
        rig.tls.connectionLost(connectionDone)
        self.assertIsNone(rig.tls._producer)

    def test_what_is_longer_than_a_record_is_one_send_all_the_same(self) -> None:
        rig = TlsSocketRig()
        sends = rig.socket.sends
        writer(rig.tls).write(bytes(100_000))
        self.assertEqual(rig.socket.sends, sends + 1)
        self.assertEqual(rig.received(), bytes(100_000))

    def test_pieces_by_the_ordinary_way_are_joined_and_go_before_what_is_written_through(self) -> None:
        rig = TlsSocketRig()
        rig.tls.write(b"a")
        rig.tls.write(b"b")
        sends = rig.socket.sends
        writer(rig.tls).write(b"c")
        self.assertEqual(rig.socket.sends, sends + 2)
        self.assertEqual(rig.received(), b"abc")

    def test_what_was_written_before_the_handshake_comes_after_it(self) -> None:
        class Eager(Peer):
            def connectionMade(self) -> None:
                transport = self.transport
                assert transport is not None
                writer(transport).write(b"abc")
                transport.write(b"def")

        rig = TlsSocketRig()
        assert TlsSocketRig.credentials is not None
        factory = TLSFactory(TlsSocketRig.credentials, False, Factory.forProtocol(Eager), clock=rig.reactor)
        other = TlsSocketRig.__new__(TlsSocketRig)
        SocketRig.__init__(other)
        other.tls = factory.buildProtocol(cast(Any, None))
        other.transport.protocol = other.tls
        other.tls.makeConnection(other.transport)
        other.client, other.read = SSL.Connection(SSL.Context(SSL.TLS_METHOD)), 0
        other.client.set_connect_state()
        for _ in range(3):
            rig.reactor.turn()
            other.exchange()
        self.assertEqual(other.received(), b"abcdef")

    @examples(60)
    @given(st.lists(st.one_of(gentle, gentle, gentle, ends), max_size=25))
    def test_the_client_decrypts_what_was_written_before_the_close_in_order(self, steps: list[Step]) -> None:
        rig = TlsSocketRig()
        way, number, is_open = writer(rig.tls), 0, True
        for name, size in steps:
            if name in ("through", "plain"):
                number += 1
                data = (b"%d," % number) * (size // 2 + 1)
                if name == "plain":
                    rig.tls.write(data)
                elif number % 2:
                    way.write(data)
                else:
                    self.assertEqual(way.send(data), len(data))
                rig.written += data if is_open else b""
            elif name in ("room", "full"):
                rig.socket.room = size
            elif name == "turn":
                rig.reactor.turn()
            elif name == "lose":
                rig.tls.loseConnection()
                is_open = False
        rig.drain()
        self.assertEqual(rig.received(), bytes(rig.written))

    def test_a_producer_hears_from_the_socket(self) -> None:
        rig = TlsSocketRig()
        rig.tls.registerProducer(rig.producer, True)
        rig.socket.room = 0
        writer(rig.tls).write(bytes(200_000))
        self.assertEqual(rig.producer.told, ["pause"])
        rig.drain()
        self.assertEqual(rig.producer.told, ["pause", "resume"])
        self.assertEqual(rig.received(), bytes(200_000))

    def test_a_lost_connection_takes_nothing(self) -> None:
        rig = TlsSocketRig()
        rig.tls.abortConnection()
        way = writer(cast(ITransport, rig.tls))
        way.send(b"xyz")
        rig.drain()
        way.write(b"abc")
        self.assertEqual(rig.received(), b"")
