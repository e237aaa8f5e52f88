"""Other people's programs, as the tests run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from time import monotonic, sleep
from typing import NoReturn

import pytest

__all__ = ["CLIENTS", "Program", "eventually", "lacks", "node", "program", "talking_to"]

CLIENTS = Path(__file__).parent / "clients"
"""Where the programs are that use other people's packages."""

_DEBIAN_PACKAGES = {
    "apache2": "apache2-bin",
    "caddy": "caddy",
    "cc": "gcc",
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "curl": "curl",
    "h2load": "nghttp2-client",
    "haproxy": "haproxy",
    "logrotate": "logrotate",
    "make": "make",
    "nghttp": "nghttp2-client",
    "nginx": "nginx libnginx-mod-stream",
    "node": "nodejs",
    "npm": "npm",
    "openssl": "openssl",
    "slowhttptest": "slowhttptest",
    "systemd-analyze": "systemd",
    "systemd-sysusers": "systemd",
    "systemd-tmpfiles": "systemd",
    "taskset": "util-linux",
    "testssl": "testssl.sh",
    "unshare": "util-linux",
}


def program(name: str) -> str:
    """Return the path of a program.

    If it is missing the test is skipped; where the environment variable ``PUSHD_TEST_NO_SKIP`` is set, it fails.
    """
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        lacks(f"{name} is not installed; it is in the Debian package {_DEBIAN_PACKAGES[name]}")
    return path


def lacks(why: str) -> NoReturn:
    """Skip the test, because this machine lacks something; where ``PUSHD_TEST_NO_SKIP`` is set, fail."""
    if os.environ.get("PUSHD_TEST_NO_SKIP"):
        pytest.fail(why)
    pytest.skip(why)


def eventually(condition: Callable[[], object], what: str, timeout_s: float = 15) -> None:
    """Wait until `condition` answers something true; fail, saying `what` was waited for, if it does not."""
    deadline = monotonic() + timeout_s
    while not condition():
        if monotonic() > deadline:
            pytest.fail(f"waited {timeout_s} s in vain until {what}")
        sleep(0.02)


class Program:
    """A program that talks in lines, over its standard input and output."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Begin to listen to `process`."""
        self.process = process
        self._lines: Queue[str | None] = Queue()
        self.heard: list[str] = []
        """The lines that were read."""
        self._thread = Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def say(self, line: str) -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def finish(self) -> None:
        """End its input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def lines(self, timeout_s: float = 15) -> Iterator[str]:
        """Return its lines until it ends; fail if the next one does not come in `timeout_s`."""
        while True:
            try:
                line = self._lines.get(timeout=timeout_s)
            except Empty:
                heard = "\n".join(self.heard[-20:])
                pytest.fail(f"{self.process.args!r} said nothing for {timeout_s} s, after:\n{heard}")
            if line is None:
                return
            self.heard.append(line)
            yield line

    def line(self) -> str:
        """Return the next line."""
        for line in self.lines():
            return line
        heard = "\n".join(self.heard[-20:])
        pytest.fail(f"{self.process.args!r} ended with {self.process.wait(10)}, after:\n{heard}")

    def until(self, text: str) -> str:
        """Return the next line that has `text` in it."""
        while text not in (line := self.line()):
            pass
        return line

    def end(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait(10)
        self._thread.join(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


@contextmanager
def talking_to(
    arguments: Sequence[str], *, directory: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """Run a program as long as the context lasts; its errors come among its lines."""
    running = Program(
        subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=environment,
            text=True,
            encoding="utf-8",
        )
    )
    try:
        yield running
    finally:
        running.end()


@cache
def _npm_failure() -> str:
    """Install the packages unless they are there; return what went wrong, or nothing."""
    wanted = json.loads((CLIENTS / "package.json").read_text())["dependencies"]
    manifests = {name: CLIENTS / "node_modules" / name / "package.json" for name in wanted}
    if all(
        path.exists() and json.loads(path.read_text())["version"] == wanted[name]
        for name, path in manifests.items()
    ):
        return ""
    command = [program("npm"), "install", "--no-package-lock", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=CLIENTS, capture_output=True, text=True, timeout=100)
    return done.stderr if done.returncode else ""


def node(script: str, *arguments: str, **variables: str) -> AbstractContextManager[Program]:
    """Run one of the programs in ``clients/`` as long as the context lasts, with `variables` in its environment."""
    path = program("node")
    failure = _npm_failure()
    assert not failure, failure
    return talking_to([path, script, *arguments], directory=CLIENTS, environment={**os.environ, **variables})
