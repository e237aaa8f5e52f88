"""The real daemon: the built wheel, in a virtual environment of its own, run by twistd."""

from __future__ import annotations

import atexit
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.e2e.programs import eventually
from tests.e2e.turns import SCRIPT, Turns

__all__ = [
    "REPOSITORY",
    "Answer",
    "Daemon",
    "bin_directory",
    "environment",
    "free_port",
    "installed",
    "new_venv",
    "pip",
    "request",
    "running",
    "source",
    "tcp",
    "twistd",
    "wheel",
]

REPOSITORY = Path(__file__).resolve().parents[2]
"""Where pushd is developed."""

_SOURCE = ("LICENSE", "README.rst", "pyproject.toml", "setup.cfg", "pushd", "twisted")
_NOT_SOURCE = shutil.ignore_patterns("__pycache__", "dropin.cache")
_GREETING = re.compile(
    r"<6>pushd listens at (.*)\n"  # in the journal nothing comes after it
    r"|\] pushd listens at (.*)\n(?:.*\n)*?.*(?:    curl .*-d 'hello' |nobody may .*publish).*\n"
)
_INSTALL_TIMEOUT_S = 300
_STOP_TIMEOUT_S = 20


# What is built and installed, once for all tests


@cache
def _scratch() -> Path:
    """Make the directory of what all tests use, which goes when Python does."""
    path = Path(tempfile.mkdtemp(prefix="pushd-e2e-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def source(directory: Path) -> Path:
    """Copy what pushd is built from, so that the build leaves nothing behind, nor finds anything left over."""
    for name in _SOURCE:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, directory / name, ignore=_NOT_SOURCE)
        else:
            directory.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, directory)
    (directory / "tests").mkdir()
    shutil.copy(REPOSITORY / "tests" / "__init__.py", directory / "tests")
    return directory


def new_venv(directory: Path) -> Path:
    """Make a virtual environment with nothing in it; return where its programs are."""
    venv.create(directory, system_site_packages=False, with_pip=False, symlinks=True)
    return directory / "bin"


def pip(*arguments: str, into: Path | None = None) -> None:
    """Run pip, for the environment whose programs are at `into`; fail the test if it fails."""
    target = () if into is None else ("--python", str(into / "python"))
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *target, *arguments]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def _build() -> Path:
    pip("wheel", "--no-deps", "--wheel-dir", str(_scratch() / "wheel"), str(source(_scratch() / "source")))
    (built,) = (_scratch() / "wheel").glob("pushd-*.whl")
    return built


def _install() -> Path:
    programs = new_venv(_scratch() / "venv")
    pip("install", str(wheel()), into=programs)
    return programs


@cache
def _outcome(step: str) -> Path | str:
    """Build or install once, also if it fails: answer why, instead of a path."""
    try:
        return {"build": _build, "install": _install}[step]()
    except (AssertionError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        return str(error)


def _path(step: str) -> Path:
    outcome = _outcome(step)
    if isinstance(outcome, str):
        pytest.fail(f"could not {step} pushd: {outcome}")
    return outcome


def wheel() -> Path:
    """Return the path of the wheel."""
    return _path("build")


def bin_directory() -> Path:
    """Return where the programs are of the environment that the wheel is installed in."""
    return _path("install")


def installed(name: str) -> str:
    """Return the path of one of them."""
    return str(bin_directory() / name)


# What is run


def environment(directory: Path, **variables: str) -> dict[str, str]:
    """Return the variables of a user whose home is below `directory`, and `variables`."""
    return {"PATH": os.environ["PATH"], "HOME": str(directory / "home"), "LANG": "C.UTF-8", **variables}


def twistd(
    *arguments: str, directory: Path, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run twistd in `directory` when it is to end by itself, and answer how it did."""
    return subprocess.run(
        [installed("twistd"), *arguments],
        cwd=directory,
        env=environment(directory, **(variables or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )


def tcp(name: str, port: int = 0, *, tls: bool = False) -> str:
    """Return the section of a listener on the loopback interface; port 0 is any that is free."""
    return f"[listen:{name}]\nendpoint = tcp:{port}:interface=127.0.0.1\ntls = {'yes' if tls else 'no'}\n"


def free_port() -> int:
    """Return a port that is free and stays so: the system gives out those below 32768 only when asked for."""
    for port in random.sample(range(20000, 32000), 100):
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.fail("found no free port between 20000 and 32000")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an HTTP request."""

    status: int
    """Its code."""

    headers: Mapping[str, str]
    """Its headers, by their names in lower case."""

    body: bytes
    """Its body."""

    def json(self) -> Any:
        """Return the body, which is JSON."""
        return json.loads(self.body)


def request(
    url: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Make one HTTP request over a connection of its own."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    with closing(HTTPConnection(parts.netloc, timeout=15)) as connection:
        connection.request(method, target, body, {"Connection": "close", **(headers or {})})
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())


class Daemon:
    """One daemon, which can be started again after it was stopped."""

    def __init__(
        self,
        directory: Path,
        config: str,
        variables: Mapping[str, str] | None = None,
        started_by: Sequence[str] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        """Prepare a daemon in `directory`, with the configuration `config`.

        In it, ``{directory}`` stands for the directory. Its command comes after `started_by`, a command that
        becomes what its arguments say. It gets `descriptors` beside the standard ones.
        """
        self.directory = directory
        self.config = directory / "pushd.ini"
        self.socket = directory / "pushd.sock"
        self.certificate = directory / "state" / "self-signed.crt"
        self.urls: list[str] = []
        self.log_path = directory / "log"
        self._stderr = directory / "stderr"
        self.variables = dict(variables or {})
        self.options: tuple[str, ...] = ()
        """More options of twistd."""
        self.turns: Turns | None = None
        """How long its turns are, if that is measured."""
        self._started_by = started_by
        self._descriptors = descriptors
        self._process: subprocess.Popen[bytes] | None = None
        self._elsewhere = directory / "elsewhere"
        self._elsewhere.mkdir(exist_ok=True)
        self.write_config(config)

    def write_config(self, config: str) -> None:
        """Write the configuration that the next start is with."""
        self.config.write_text(config.replace("{directory}", str(self.directory)), "utf-8")

    @property
    def log(self) -> str:
        """What it has logged since it was first started."""
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def logged(self, text: str) -> int:
        """Count how often `text` was to be logged: the lines with it, and those like them that were left out."""
        lines = [line for line in self.log.splitlines() if text in line]
        left_out = (re.search(r", and (\d+) more like this$", line) for line in lines)
        return len(lines) + sum(int(match[1]) for match in left_out if match is not None)

    @property
    def stderr(self) -> str:
        """What it wrote elsewhere."""
        return self._stderr.read_text("utf-8", "replace") if self._stderr.exists() else ""

    def launch(self) -> None:
        """Start it, and do not wait."""
        self.urls = []
        measured = () if self.turns is None else (installed("python"), str(SCRIPT), str(self.turns.path))
        twistd = [
            *(measured or (installed("twistd"),)),
            "-n",
            "--pidfile=",
            *self.options,
            "pushd",
            "--config",
            str(self.config),
        ]
        with open(self.log_path, "ab") as log, open(self._stderr, "ab") as stderr:
            self._process = subprocess.Popen(
                [*self._started_by, *twistd],
                cwd=self._elsewhere,
                env=environment(self.directory, **self.variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=stderr,
                pass_fds=self._descriptors,
            )

    def start(self) -> None:
        """Start it, and wait until it says that it listens."""
        before = len(self.log)
        self.launch()
        eventually(lambda: self.has_ended or _GREETING.search(self.log, before), "the daemon listens", 30)
        greeting = _GREETING.search(self.log, before)
        assert greeting is not None, f"the daemon ended:\n{self.stderr}{self.log}"
        self.urls = (greeting[1] or greeting[2]).split(" and ")

    @property
    def has_ended(self) -> bool:
        """Whether it does not run."""
        return self._process is None or self._process.poll() is not None

    def wait(self, timeout_s: float = _STOP_TIMEOUT_S) -> int:
        """Return its exit status, once it has ended."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self) -> int:
        """Ask it to end, and answer its exit status."""
        assert self._process is not None
        self._process.send_signal(SIGTERM)
        return self.wait()

    @property
    def pid(self) -> int:
        """The number of its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """How much memory it has."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self) -> None:
        """End it, whatever it does."""
        if self._process is None or self.has_ended:
            return
        self._process.send_signal(SIGTERM)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self._process.send_signal(SIGKILL)
            self.wait()

    def _url(self, scheme: str) -> str:
        return next(url for url in self.urls if url.startswith(f"{scheme}://"))

    @property
    def http(self) -> str:
        """Where it can be reached without TLS."""
        return self._url("http")

    @property
    def https(self) -> str:
        """Where it can be reached with TLS."""
        return self._url("https")

    @property
    def ws(self) -> str:
        """Where its WebSockets are."""
        return f"{self.http.replace('http:', 'ws:')}/ws"

    @property
    def wss(self) -> str:
        """Where they are with TLS."""
        return f"{self.https.replace('https:', 'wss:')}/ws"

    def publish(self, channel: str, data: str, query: str = "") -> dict[str, Any]:
        """Publish an event, and answer what the daemon says of it."""
        answer = request(f"{self.http}/channels/{quote(channel, safe='')}{query}", "POST", data.encode())
        assert answer.status == 201, answer
        published: dict[str, Any] = answer.json()
        return published

    def get(self, path: str) -> Any:
        """Return a JSON document of it."""
        answer = request(self.http + path)
        assert answer.status == 200, answer
        return answer.json()

    @property
    def counts(self) -> dict[str, int]:
        """How many connections (with the one that asks), subscribers and channels there are."""
        authorizer = HTTPConnection("localhost", timeout=15)
        authorizer.sock = socket.socket(socket.AF_UNIX)
        with closing(authorizer):
            authorizer.sock.connect(str(self.socket.with_name("counts.sock")))
            authorizer.request("GET", "/healthz")
            counted = dict(json.loads(authorizer.getresponse().read()))
        counted["connections"] += 1  # those for operations do not count among the others
        return counted

    def has_subscribers(self, channel: str, count: int) -> bool:
        """Return whether so many are subscribed to a channel."""
        return bool(self.get(f"/channels/{quote(channel, safe='')}")["subscribers"] == count)


_LISTENERS = (
    tcp("http") + tcp("https", tls=True) + "[listen:unix]\nendpoint = unix:{directory}/pushd.sock:lockfile=0\n"
)


@contextmanager
def running(
    sections: str = "",
    *,
    listeners: str = _LISTENERS,
    state: str = "state_directory = {directory}/state\nstop_timeout = 5s\n",
    variables: Mapping[str, str] | None = None,
    starts: bool = True,
    started_by: Sequence[str] = (),
    descriptors: Sequence[int] = (),
    measures_turns: bool = False,
    counts: bool = False,
) -> Iterator[Daemon]:
    """Run a daemon as long as the context lasts, in a directory of its own.

    `sections` come after the listeners, which are HTTP, HTTPS and a Unix socket, and `state` is the section
    ``[pushd]``. The name of the directory is short, because that of a Unix socket has to be. If `measures_turns`,
    ``turns`` of the daemon says how long its turns are; with `counts`, its ``counts`` are what it shows operators.
    """
    if counts:
        listeners += "[listen:counts]\nendpoint = unix:{directory}/counts.sock\nserves = operations\n"
    bin_directory()
    with tempfile.TemporaryDirectory(prefix="pushd-") as path:
        daemon = Daemon(
            Path(path), f"[pushd]\n{state}\n{listeners}\n{sections}", variables, started_by, descriptors
        )
        if measures_turns:
            daemon.turns = Turns(Path(path) / "turns")
        try:
            if starts:
                daemon.start()
            yield daemon
        except BaseException:
            print(f"--- stderr\n{daemon.stderr}\n--- log\n{daemon.log[-8000:]}")
            raise
        finally:
            daemon.end()
