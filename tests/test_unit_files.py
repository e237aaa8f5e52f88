"""What ``make install-systemd`` installs: right for systemd, hardened, and the daemon works in it."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP

import pytest
from websockets.sync.client import connect

from tests.e2e.daemon import REPOSITORY, bin_directory, installed, tcp
from tests.e2e.programs import eventually, program, talking_to
from tests.e2e.systemd import supervised
from tests.e2e.test_stop import STOPPED

pytestmark = pytest.mark.timeout(120)

SYSTEM = Path("usr/local/lib/systemd/system")
SERVICES = ("pushd.service", "pushd@.service")
SOCKETS = ("pushd.socket", "pushd-https.socket", "pushd@.socket")
MAX_EXPOSURE = 1.6

_CONFINE = """
import ctypes, os, sys

KILL, ALLOW, ERRNO, EQUAL = 0x80000000, 0x7FFF0000, 0x00050000, 4
EAFNOSUPPORT, FAMILIES = 97, (1, 2, 10)


class Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
context = ctypes.c_void_p(library.seccomp_init(KILL))
for name in open(sys.argv[1]).read().split():
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        continue
    if name == "socket":
        for family in range(64):
            action = ALLOW if family in FAMILIES else ERRNO | EAFNOSUPPORT
            only = Comparison(0, EQUAL, family, 0)
            assert library.seccomp_rule_add_array(context, action, number, 1, ctypes.byref(only)) == 0
    else:
        assert library.seccomp_rule_add(context, ALLOW, number, 0) == 0, name
assert library.seccomp_load(context) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes a program that is killed for any system call but those in a file, and has sockets of few families."""


def make(target: str, *variables: str) -> subprocess.CompletedProcess[str]:
    """Run make for the repository."""
    return subprocess.run(
        [program("make"), "-C", str(REPOSITORY), target, *variables], capture_output=True, text=True, timeout=60
    )


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of systemd."""
    return subprocess.run([program(name), *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture(name="root")
def installed_root(tmp_path: Path) -> Path:
    """Install everything below a directory, for the pushd that all tests use."""
    done = make("install-systemd", f"DESTDIR={tmp_path}", f"PREFIX={bin_directory().parent}")
    assert done.returncode == 0, done
    return tmp_path


def settings(path: Path) -> list[tuple[str, str]]:
    """Return what a unit sets, in order."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] not in "#["]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def exposure(path: Path) -> float:
    """Return what systemd says of a unit: from 0, nothing could happen, to 10; it must not be above the most."""
    threshold = f"--threshold={MAX_EXPOSURE * 10:.0f}"
    done = run("systemd-analyze", "security", "--offline=true", threshold, "--no-pager", str(path))
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done
    assert done.returncode == 0, found[0]
    return float(found[1])


class TestFiles:
    """What systemd says of them."""

    def test_systemd_finds_nothing_wrong_with_any_of_them(self, root: Path) -> None:
        done = run("systemd-analyze", "verify", *(str(root / SYSTEM / name) for name in SERVICES + SOCKETS))
        assert done.returncode == 0, done
        assert "pushd" not in done.stdout + done.stderr, done

    @pytest.mark.parametrize("name", SERVICES)
    def test_the_exposure_is_low(self, name: str, root: Path) -> None:
        assert exposure(root / SYSTEM / name) <= MAX_EXPOSURE

    def test_without_its_capability_it_is_lower(self, root: Path) -> None:
        unit = root / SYSTEM / "pushd.service"
        before, text = exposure(unit), (REPOSITORY / "docs" / "systemd.rst").read_text()
        dropin = re.search(r"::\n\n((?: {4}.*\n)*    PrivateUsers=yes\n)", text)
        assert dropin is not None
        unit.write_text(unit.read_text() + textwrap.dedent(dropin[1]))
        assert exposure(unit) < before

    def test_a_service_of_which_there_are_several_is_as_the_one(self) -> None:
        one, several = (settings(REPOSITORY / "etc" / "systemd" / name) for name in SERVICES)
        own = {"Description", "ExecStart", "StateDirectory", "RuntimeDirectory"}
        assert [name for name, _ in one] == [name for name, _ in several]
        for (name, value), (_, other) in zip(one, several, strict=True):
            assert ("%i" in other) == (name in own), name
            assert (value == other) == (name not in own), name

    def test_each_socket_has_a_name_of_its_own_for_its_service(self) -> None:
        names = [dict(settings(REPOSITORY / "etc" / "systemd" / name))["FileDescriptorName"] for name in SOCKETS]
        assert names == ["http", "https", "http"]

    def test_what_is_hardened_is_explained(self) -> None:
        text = (REPOSITORY / "docs" / "systemd.rst").read_text()
        for name, _ in settings(REPOSITORY / "etc" / "systemd" / "pushd.service"):
            assert name in ("Description", "WantedBy") or f"``{name}" in text, name
        assert "``MemoryDenyWriteExecute" in text

    def test_the_user_and_the_directories_are_made(self, root: Path) -> None:
        assert run("systemd-sysusers", f"--root={root}").returncode == 0
        (user,) = [line.split(":") for line in (root / "etc" / "passwd").read_text().splitlines()]
        assert (user[0], user[5], user[6]) == ("pushd", "/var/lib/pushd", "/usr/sbin/nologin")
        if os.geteuid() == 0:  # who else cannot give a directory to a group
            done = run("systemd-tmpfiles", f"--root={root}", "--create")
            assert (done.returncode, done.stderr) == (0, ""), done
            status = (root / "etc/pushd/private").stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o750, 0, int(user[3]))


class TestInstallation:
    """Where they go, and what stays."""

    def test_the_command_is_that_of_the_installed_twistd(self, root: Path) -> None:
        for name in SERVICES:
            (command,) = [value for key, value in settings(root / SYSTEM / name) if key == "ExecStart"]
            assert command.split()[0] == installed("twistd")
            assert "/opt/pushd" not in (root / SYSTEM / name).read_text()

    def test_everything_can_be_read_by_everybody_and_goes_again_without_the_configuration(self, root: Path) -> None:
        files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
        local = "usr/local/lib"
        assert set(files) == {
            *(f"{SYSTEM}/{name}" for name in SERVICES + SOCKETS),
            f"{local}/sysusers.d/pushd.conf",
            f"{local}/tmpfiles.d/pushd.conf",
            "etc/pushd/pushd.ini",
        }
        assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o644}
        assert make("uninstall-systemd", f"DESTDIR={root}").returncode == 0
        assert [path for path in root.rglob("*") if path.is_file()] == [root / "etc/pushd/pushd.ini"]

    def test_a_configuration_that_is_there_stays(self, root: Path) -> None:
        path = root / "etc/pushd/pushd.ini"
        path.write_text("[pushd]\n")
        assert make("install-systemd", f"DESTDIR={root}").returncode == 0
        assert path.read_text() == "[pushd]\n"

    def test_without_an_installed_pushd_nothing_is_installed(self, tmp_path: Path) -> None:
        done = make("install-systemd", f"PREFIX={tmp_path}", f"LIBDIR={tmp_path}/lib")
        assert done.returncode != 0
        assert f"there is no {tmp_path}/bin/twistd" in done.stdout
        assert list(tmp_path.iterdir()) == []

    def test_the_configuration_that_is_installed_is_fine(self, root: Path) -> None:
        done = subprocess.run(
            [installed("twistd"), "pushd", "--check", "--config", str(root / "etc/pushd/pushd.ini")],
            env={"STATE_DIRECTORY": str(root / "state")},
            cwd=root,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (done.returncode, done.stderr) == (0, ""), done


def system_calls() -> set[str]:
    """Return the system calls that the unit allows, as systemd counts them."""
    sets: dict[str, list[str]] = {}
    for line in run("systemd-analyze", "syscall-filter", "--no-pager").stdout.splitlines():
        if line.startswith("@"):
            sets[line.strip()] = current = []
        elif line.strip() and not line.strip().startswith("#"):
            current.append(line.strip())

    def members(name: str) -> Iterator[str]:
        if not name.startswith("@"):
            yield name
        for member in sets.get(name, []):
            yield from members(member)

    allowed = set(members("@default"))
    for name, value in settings(REPOSITORY / "etc" / "systemd" / "pushd.service"):
        if name == "SystemCallFilter":
            found = {call for group in value.lstrip("~").split() for call in members(group)}
            allowed = allowed - found if value.startswith("~") else allowed | found
    return allowed


class TestConfinement:
    """The daemon needs no more than the unit gives it."""

    @pytest.fixture(name="confined")
    def launcher(self, tmp_path: Path) -> list[str]:
        """Return the command that confines what comes after it to the system calls of the unit."""
        program("systemd-analyze")  # libseccomp comes with it
        path = tmp_path / "calls"
        as_root = (
            {"fchown"} if os.geteuid() == 0 else set()
        )  # SQLite does so as root only, which the service is not
        path.write_text("\n".join(system_calls() | as_root))
        return [sys.executable, "-c", _CONFINE, str(path)]

    def test_whoever_needs_more_is_killed(self, confined: list[str]) -> None:
        """The filter works: without this, the next test would prove nothing."""
        for code, status in (("pass", 0), ("import os; os.setuid(0)", -31), ("import os; os.nice(1)", -31)):
            done = subprocess.run([*confined, sys.executable, "-c", code], capture_output=True, timeout=30)
            assert done.returncode == status, (code, done)
        code = "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"
        done = subprocess.run([*confined, sys.executable, "-c", code], capture_output=True, timeout=30)
        assert b"Address family not supported" in done.stderr

    def test_the_daemon_needs_no_other_system_calls(self, confined: list[str]) -> None:
        unix = "[listen:unix]\nendpoint = unix:{directory}/pushd.sock:lockfile=0\n"
        listeners = tcp("http") + tcp("https", tls=True) + unix
        hooks = "[hooks]\nafter = http://localhost:1/\nsecret = " + "whsec_" + "A" * 44 + "\n"
        with supervised(hooks, listeners=listeners, watchdog_s=1, through=confined) as (daemon, systemd):
            curl = [program("curl"), "-sSk", "--http2", "--max-time", "20"]
            body = daemon.directory / "body"
            body.write_text("\n".join(json.dumps({"channel": "b", "data": "x" * 50_000}) for _ in range(15)))
            with (
                talking_to([*curl, "-N", f"{daemon.https}/sse?channel=a"]) as sse,
                connect(f"{daemon.ws}?channel=a", proxy=None) as websocket,
            ):
                eventually(lambda: daemon.has_subscribers("a", 2), "they are subscribed")
                daemon.publish("a", "hello")
                assert "subscribed" in str(websocket.recv(10))
                assert "hello" in str(websocket.recv(10))
                assert sse.until("data: hello")
                for more_curl in (
                    ["--data-binary", f"@{body}", f"{daemon.http}/publish"],
                    ["--unix-socket", str(daemon.socket), "http://localhost/"],
                    [f"{daemon.http}/channels/a/events?since=earliest"],
                    ["-X", "DELETE", f"{daemon.http}/channels/b"],
                ):
                    done = subprocess.run([*curl, "-f", *more_curl], capture_output=True, timeout=30)
                    assert done.returncode == 0, done
                daemon.signal(SIGHUP)
                systemd.wait_for("READY", "RELOADING", "READY")
            assert daemon.stop() in STOPPED
            daemon.start()
            assert daemon.get("/channels/a")["retained"] == 1
            assert daemon.stop() in STOPPED
