"""The pid file: whose it is, and when it is stale."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import TestCase, skipUnless

from hypothesis import given
from hypothesis import strategies as st

from pushd.daemon.pid_file import PidFile
from pushd.errors import StartFailed


class PidFileCase(TestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.path = self.directory / "twistd.pid"
        self.proc = self.directory / "proc"

    def take(self) -> PidFile:
        """Take the file, and release it at the end of the test."""
        taken = PidFile(str(self.path))
        self.addCleanup(taken.remove)
        return taken

    def state(self) -> tuple[int, ...]:
        """Return what changes when the file is replaced or written."""
        found = os.lstat(self.path)
        return found.st_ino, found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns

    def assertRefused(self, *says: str) -> None:
        """Check that the file is not taken, stays as it was, and why."""
        found = self.state()
        with self.assertRaises(StartFailed) as refused:
            PidFile(str(self.path))
        for part in (str(self.path), *says):
            self.assertIn(part, str(refused.exception))
        self.assertEqual(self.state(), found)

    def process(self, *arguments: str) -> int:
        """Start a process that waits, with `arguments`; return its number."""
        script = "import sys; print(flush=True); sys.stdin.read()"
        command = [sys.executable, "-c", script, *arguments]
        started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(started.wait)
        assert started.stdin is not None
        assert started.stdout is not None
        self.addCleanup(started.stdin.close)
        self.addCleanup(started.stdout.close)
        started.stdout.readline()  # before its exec(2) is over, its command line is empty
        return started.pid


class LifeTests(PidFileCase):
    def test_it_has_the_number_while_the_daemon_lives_and_goes_with_it(self) -> None:
        taken = PidFile(str(self.path))
        self.assertEqual(self.path.read_text(), "")
        taken.write()
        self.assertEqual(self.path.read_text(), f"{os.getpid()}\n")
        taken.remove()
        taken.remove()
        self.assertFalse(self.path.exists())

    def test_the_lock_decides_whatever_number_is_in_it(self) -> None:
        self.take().write()
        for text in (f"{os.getpid()}\n", "1\n", "99999999\n", "", "nonsense"):
            self.path.write_text(text)
            self.assertRefused("another pushd", "--pidfile=FILE")

    def test_a_child_that_lives_on_keeps_the_lock_as_the_daemon_in_the_background_does(self) -> None:
        taken = PidFile(str(self.path))
        script = "import sys; sys.stdin.read()"
        holder = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, pass_fds=[taken._file], text=True
        )
        os.close(taken._file)
        self.assertRefused("another pushd")
        holder.communicate("")
        self.take()

    def test_a_file_that_another_one_has_replaced_stays(self) -> None:
        taken = PidFile(str(self.path))
        taken.write()
        self.path.unlink()
        self.take().write()
        taken.remove()
        self.assertEqual(self.path.read_text(), f"{os.getpid()}\n")
        self.assertRefused("another pushd")

    def test_where_it_cannot_be_removed_it_is_stale(self) -> None:
        taken = self.take()
        taken.write()
        moved = self.directory / "moved"
        self.directory.joinpath("twistd.pid").rename(moved)
        self.path.symlink_to("nowhere")
        taken.remove()
        self.assertEqual(os.readlink(self.path), "nowhere")


class StaleTests(PidFileCase):
    def test_what_a_killed_pushd_leaves_is_stale_whoever_has_its_number_now(self) -> None:
        for pid in (1, os.getpid(), self.process("twistd", "-n", "pushd"), 99999999):
            self.path.write_text(f"{pid}\n")
            PidFile(str(self.path)).remove()
            self.assertFalse(self.path.exists())

    def test_so_is_an_empty_one(self) -> None:
        self.path.touch()
        self.take()

    def test_what_twistd_itself_has_written_is_stale_if_no_twistd_has_its_number(self) -> None:
        for pid in (os.getpid(), self.process("sleep"), 99999999):
            self.path.write_text(f"{pid}")
            PidFile(str(self.path)).remove()
            self.assertFalse(self.path.exists())

    def test_and_otherwise_it_is_not(self) -> None:
        for arguments in (("/usr/bin/twistd", "-n", "web"), ("-m", "twisted", "web")):
            pid = self.process(*arguments)
            self.path.write_text(f"{pid}")
            self.assertRefused(f"another twistd, process {pid}, ")

    def test_if_the_system_does_not_say_it_is_not(self) -> None:
        self.path.write_text("99999999")
        with self.assertRaises(StartFailed):
            PidFile(str(self.path), str(self.directory / "no-proc"))

    def test_a_lock_of_a_daemon_that_removes_it_meanwhile_is_not_kept(self) -> None:
        """The file that was opened is not at the path any more when the lock is taken."""
        real = fcntl.flock
        removed: list[int] = []

        def flock(file: int, how: int) -> None:
            if not removed:
                removed.append(file)
                self.path.unlink()
            real(file, how)

        fcntl.flock = flock  # type: ignore[assignment]
        self.addCleanup(setattr, fcntl, "flock", real)
        self.take().write()
        self.assertEqual(self.path.read_text(), f"{os.getpid()}\n")
        self.assertRefused("another pushd")


class ForeignTests(PidFileCase):
    def test_a_symbolic_link_is_not_followed(self) -> None:
        target = self.directory / "important"
        for text in (None, "", "1\n"):
            if text is not None:
                target.write_text(text)
            self.path.unlink(missing_ok=True)
            self.path.symlink_to(target)
            self.assertRefused("it is a symbolic link")
            self.assertEqual(target.read_text() if text is not None else None, text)

    @given(st.binary(min_size=1, max_size=60).filter(lambda data: not data.strip().isdigit()))
    def test_a_file_with_something_else_stays(self, data: bytes) -> None:
        self.path.write_bytes(data)
        self.assertRefused("has something else than the number of a process")
        self.assertEqual(self.path.read_bytes(), data)

    def test_a_long_number_is_no_pid(self) -> None:
        self.path.write_text("1" * 33)
        self.assertRefused("has something else")

    def test_what_is_no_file_stays(self) -> None:
        os.mkfifo(self.path)
        self.assertRefused("not a regular file")
        self.path.unlink()
        self.path.mkdir()
        self.assertRefused("Is a directory")
        self.path.rmdir()
        with closing(socket.socket(socket.AF_UNIX)) as bound:
            bound.bind(str(self.path))
            self.assertRefused("cannot be used")

    @skipUnless(os.geteuid() == 0, "only root can give files away")
    def test_the_file_of_another_user_stays(self) -> None:
        self.path.write_text("1\n")
        os.chown(self.path, 4711, -1)
        self.assertRefused("belongs to another user, number 4711")

    def test_a_directory_that_is_missing_is_said(self) -> None:
        with self.assertRaisesRegex(StartFailed, "No such file or directory; use another: twistd --pidfile=FILE"):
            PidFile(str(self.directory / "nowhere" / "x.pid"))
