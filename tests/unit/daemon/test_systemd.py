"""What systemd is told, and what it passes."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from pushd.daemon.systemd import Systemd, SystemdStatus
from pushd.errors import StartFailed

PID = 4711


class Manager:
    """A service manager: what it is told waits in the queue of its socket."""

    def __init__(self, address: str) -> None:
        """Listen at `address`, as ``NOTIFY_SOCKET`` has it."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """Return the datagrams that have come."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return found


class SystemdCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = f"{directory.name}/notify"
        self.manager = Manager(self.path)
        self.addCleanup(self.manager.socket.close)
        self.systemd = self.make()

    def make(self, **environ: str) -> Systemd:
        """Make what the daemon knows of a service manager."""
        systemd = Systemd({"NOTIFY_SOCKET": self.path, **environ}, pid=PID, nanoseconds=lambda: 1_234_567_890_123)
        self.addCleanup(systemd.close)
        return systemd

    def assertTold(self, *datagrams: str) -> None:
        self.assertEqual(self.manager.heard(), list(datagrams))


class TellTests(SystemdCase):
    def test_each_state_is_one_datagram(self) -> None:
        self.systemd.starting(5000)
        self.systemd.ready()
        self.systemd.reloading()
        self.systemd.stopping(1.5)
        self.systemd.alive()
        self.systemd.status("12 clients")
        self.assertTold(
            "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=restored 5000 channels",
            "READY=1",
            "RELOADING=1\nMONOTONIC_USEC=1234567890",
            "STOPPING=1\nEXTEND_TIMEOUT_USEC=1500000",
            "WATCHDOG=1",
            "STATUS=12 clients",
        )

    def test_a_status_is_told_when_it_changes(self) -> None:
        for text in ("1", "1", "2", "1"):
            self.systemd.status(text)
        self.assertTold("STATUS=1", "STATUS=2", "STATUS=1")

    def test_a_status_is_one_line_and_bounded(self) -> None:
        self.systemd.status("one\nREADY=1\r\n\ttwo\0\udcff" + "x" * 5000)
        (datagram,) = self.manager.heard()
        self.assertTrue(datagram.startswith("STATUS=one READY=1 two\0?xx"))
        self.assertEqual(len(datagram), len("STATUS=") + 1000)

    @given(st.text())
    def test_no_text_says_anything_else(self, text: str) -> None:
        self.systemd.failed(StartFailed(text))
        (datagram,) = self.manager.heard()
        self.assertEqual(datagram.count("\n"), 0)
        self.assertTrue(datagram.startswith("STATUS="))

    def test_a_failure_has_the_number_of_the_error_below_it(self) -> None:
        def fail() -> None:
            try:
                Path("/nosuch").read_bytes()
            except OSError:
                raise StartFailed("no such") from None

        self.systemd.failed(self.assertRaises(StartFailed, fail))
        self.systemd.failed(StartFailed("it is full"))
        self.assertTold(f"STATUS=no such\nERRNO={errno.ENOENT}", "STATUS=it is full")

    def test_an_abstract_socket_is_found(self) -> None:
        address = f"@pushd-test-{os.getpid()}"
        manager = Manager(address)
        with closing(manager.socket):
            self.make(NOTIFY_SOCKET=address).ready()
            self.assertEqual(manager.heard(), ["READY=1"])

    def test_the_socket_of_a_new_manager_is_found(self) -> None:
        self.systemd.ready()
        Path(self.path).unlink()
        self.systemd.alive()
        new = Manager(self.path)
        with closing(new.socket):
            self.systemd.alive()
            self.assertEqual(new.heard(), ["WATCHDOG=1"])

    def test_its_socket_is_not_inherited_by_others(self) -> None:
        self.systemd.ready()
        assert self.systemd._socket is not None
        self.assertFalse(self.systemd._socket.get_inheritable())


class NobodyTests(SystemdCase):
    def test_without_an_address_nothing_is_told_and_no_file_opened(self) -> None:
        for address in ("", "vsock:2:1234", "relative", " /x"):
            systemd = self.make(NOTIFY_SOCKET=address)
            for tell in (systemd.ready, systemd.reloading, systemd.alive):
                tell()
            systemd.stopping(1)
            systemd.failed(StartFailed("x"))
            systemd.status("x")
            self.assertIsNone(systemd._socket)
        Systemd({}).ready()

    def test_an_address_where_nobody_is_raises_nothing(self) -> None:
        for address in ("/nosuch/notify", "@nosuch", f"/{'x' * 200}"):
            systemd = self.make(NOTIFY_SOCKET=address)
            with capturedLogs() as events:
                systemd.ready()
                systemd.alive()
            self.assertEqual([event["state"] for event in events], ["READY"])

    def test_a_manager_that_is_behind_holds_nothing_up_for_longer_than_a_second(self) -> None:
        for number in range(1000):
            self.systemd.status(str(number))
        began = monotonic()
        self.systemd.alive()
        self.assertLess(monotonic() - began, 0.3)
        with capturedLogs() as events:
            self.systemd.ready()
        self.assertEqual(len(events), 1)
        self.assertTrue(0.9 < monotonic() - began < 3)

    def test_a_status_that_was_not_taken_is_told_again(self) -> None:
        while self.systemd._tell("x", waits=False):
            pass
        self.systemd.status("late")
        self.manager.heard()
        self.systemd.status("late")
        self.assertTold("STATUS=late")


class WatchdogTests(SystemdCase):
    def watchdog_s(self, **environ: str) -> float:
        """Return the time of the watchdog in an environment."""
        return self.make(**environ).watchdog_s

    def test_the_time_is_that_of_the_environment(self) -> None:
        self.assertEqual(self.watchdog_s(WATCHDOG_USEC="30000000"), 30)
        self.assertEqual(self.watchdog_s(WATCHDOG_USEC="2500000", WATCHDOG_PID=str(PID)), 2.5)

    def test_that_of_another_process_does_not_count(self) -> None:
        self.assertEqual(self.watchdog_s(WATCHDOG_USEC="30000000", WATCHDOG_PID="1"), 0)

    def test_what_is_no_time_is_none(self) -> None:
        for text in ("0", "-1", "", "x", "1e6", str(2**64 - 1)):
            self.assertEqual(self.watchdog_s(WATCHDOG_USEC=text), 0, text)
        self.assertEqual(self.watchdog_s(WATCHDOG_USEC="1", WATCHDOG_PID="x"), 0)
        self.assertEqual(self.watchdog_s(), 0)


class SocketTests(SystemdCase):
    def test_the_names_are_those_that_were_passed_to_this_process(self) -> None:
        self.assertEqual(self.make(LISTEN_FDNAMES="http:https").sockets, ("http", "https"))
        self.assertEqual(self.make(LISTEN_FDNAMES="http", LISTEN_PID="1").sockets, ())
        self.assertEqual(self.make().sockets, ())


class BulletinTests(SystemdCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.counters = "1"

    def start(self, **environ: str) -> SystemdStatus:
        """Make one that tells what the test says, and start it."""
        bulletin = SystemdStatus(self.make(**environ), self.clock, lambda: self.counters)
        bulletin.start()
        return bulletin

    def test_signs_of_life_come_twice_in_the_time_of_the_watchdog(self) -> None:
        self.start(WATCHDOG_USEC="4000000")
        self.assertTold("WATCHDOG=1", "STATUS=1")
        self.clock.pump([0.5] * 16)
        self.assertTold(*["WATCHDOG=1"] * 4)

    def test_without_a_watchdog_there_are_none(self) -> None:
        self.start()
        self.clock.pump([1] * 100)
        self.assertTold("STATUS=1")

    def test_the_figures_are_told_every_few_seconds_and_when_asked_for(self) -> None:
        bulletin = self.start()
        self.counters = "2"
        self.clock.advance(4)
        self.assertTold("STATUS=1")
        self.clock.advance(1)
        self.assertTold("STATUS=2")
        self.counters = "3"
        bulletin.issue()
        self.assertTold("STATUS=3")

    def test_after_the_end_nothing_is_told(self) -> None:
        bulletin = self.start(WATCHDOG_USEC="4000000")
        self.manager.heard()
        bulletin.stop()
        bulletin.stop()
        self.clock.advance(100)
        self.assertTold()
        self.assertEqual(self.clock.getDelayedCalls(), [])
