"""Unix sockets: which are taken over, and which are not."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import closing
from errno import EADDRINUSE
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier, Thread
from unittest import skipUnless

from twisted.internet import unix
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pushd.server.net import unix_socket as unixsocket
from pushd.server.net.unix_socket import UnixEndpoint, keep_file


@implementer(IStreamServerEndpoint)
class RealEndpoint:
    """Listens with a socket of the system."""

    def __init__(self, path: Path, backlog: int) -> None:
        self.path = path
        self.backlog = backlog
        self.socket: socket.socket | None = None

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Bind and listen."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.path))
        self.socket.listen(self.backlog)
        return succeed(self.socket)  # type: ignore[arg-type]  # nobody looks at it


class UnixCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory(prefix="pushd-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.path = self.directory / "s"

    def listen(self, backlog: int = 16) -> socket.socket:
        """Listen at the path; return the socket."""
        endpoint = RealEndpoint(self.path, backlog)
        UnixEndpoint(endpoint, str(self.path)).listen(Factory.forProtocol(Protocol))
        assert endpoint.socket is not None
        self.addCleanup(endpoint.socket.close)
        return endpoint.socket

    def assertTaken(self, says: str) -> None:
        """Check that nobody can listen there, why, and that what is there stays."""
        found = os.lstat(self.path)
        error = self.assertRaises(OSError, self.listen)
        self.assertEqual(error.errno, EADDRINUSE)
        self.assertIn(says, str(error.strerror))
        self.assertTrue(os.path.samestat(os.lstat(self.path), found))


class StaleTests(UnixCase):
    def test_what_a_killed_daemon_left_is_replaced(self) -> None:
        for _ in range(3):
            self.listen().close()
        self.assertEqual(os.listdir(self.directory), ["s"])

    def test_the_one_of_a_living_daemon_is_not(self) -> None:
        listening = self.listen()
        self.assertTaken("another program listens there")
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(self.path))
            self.assertTaken("another program listens there")
        self.assertGreater(listening.fileno(), 0)

    def test_nor_that_of_a_daemon_that_takes_no_connections(self) -> None:
        self.listen(1)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(10)]
        for client in clients:
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect_ex(str(self.path))
        self.assertTaken("another program listens there")

    def test_nor_one_of_another_kind(self) -> None:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other:
            other.bind(str(self.path))
            self.assertTaken("another program listens there")

    def test_of_several_that_start_at_once_one_listens(self) -> None:
        for _ in range(20):
            self.listen().close()
            barrier, listening, refused = Barrier(4), list[socket.socket](), list[OSError]()

            def start(
                barrier: Barrier = barrier,
                listening: list[socket.socket] = listening,
                refused: list[OSError] = refused,
            ) -> None:
                barrier.wait()
                try:
                    listening.append(self.listen())
                except OSError as error:
                    refused.append(error)

            threads = [Thread(target=start) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual((len(listening), len(refused)), (1, 3))
            with closing(socket.socket(socket.AF_UNIX)) as client:
                client.connect(str(self.path))
                listening[0].accept()[0].close()
            listening[0].close()


class ForeignTests(UnixCase):
    def test_a_file_stays(self) -> None:
        self.path.write_text("important")
        self.assertTaken("is not a socket")
        self.assertEqual(self.path.read_text(), "important")

    def test_a_link_stays_and_so_does_what_it_leads_to(self) -> None:
        other = self.directory / "other"
        with closing(socket.socket(socket.AF_UNIX)) as bound:
            bound.bind(str(other))
        self.path.symlink_to(other)
        self.assertTaken("is not a socket")
        self.assertTrue(stat.S_ISSOCK(other.stat().st_mode))

    @skipUnless(os.geteuid() == 0, "only root can give files away")
    def test_the_socket_of_another_user_stays(self) -> None:
        self.listen().close()
        os.chown(self.path, 4711, -1)
        self.assertTaken("belongs to another user, number 4711")

    def test_a_directory_that_another_program_has_locked_is_not_waited_for_for_ever(self) -> None:
        self.patch(unixsocket, "_PATIENCE_S", 0.05)
        descriptor = os.open(self.directory, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self.listen_error = self.assertRaises(OSError, self.listen)
        self.assertIn("another program has locked the directory", str(self.listen_error))

    def test_a_directory_that_is_missing_is_said(self) -> None:
        self.path = self.directory / "nowhere" / "s"
        self.assertRaises(FileNotFoundError, self.listen)


class ClosingTests(UnixCase):
    def port(self) -> unix.Port:
        """Open a port of Twisted's."""
        port = unix.Port(os.fsencode(self.path), Factory.forProtocol(Protocol), reactor=MemoryReactor())
        port.startListening()
        return port

    def test_its_own_file_goes_and_that_of_the_next_daemon_stays(self) -> None:
        for is_replaced in (False, True):
            port = self.port()
            made = os.lstat(self.path)
            if is_replaced:
                self.path.unlink()
                self.listen()
            self.assertEqual(keep_file(port, made), is_replaced)
            port.connectionLost(None)
            self.assertEqual(self.path.exists(), is_replaced)

    def test_a_file_that_is_gone_already_is_no_error(self) -> None:
        port = self.port()
        made = os.lstat(self.path)
        self.path.unlink()
        self.assertTrue(keep_file(port, made))
        port.connectionLost(None)
