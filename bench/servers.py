"""The measured servers: how to start, subscribe to and publish to each."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PEERS", "Place", "Running", "Server", "Way", "free_port", "running", "start_pushd"]

_HERE = Path(__file__).parent
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 20.0

_PUSHD = """\
[pushd]
state_directory = {folder}/state
STORE
stop_timeout = 1s
[listen:http]
endpoint = tcp:{port}:interface=127.0.0.1
[listen:https]
endpoint = tcp:{tls_port}:interface=127.0.0.1
tls = yes
certificate = {certificate}
key = {key}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """The folder, ports and certificate of one server."""

    folder: Path
    """The folder of this server alone."""

    built: Path
    """The folder of the compiled programs."""

    port: int
    """The port without TLS, on 127.0.0.1."""

    tls_port: int
    """The port with TLS, on 127.0.0.1."""

    certificate: Path
    """The certificate, the same for all servers."""

    key: Path
    """The private key of the certificate."""

    def fill(self, text: str) -> str:
        """Return `text` with the fields in braces replaced."""
        return text.format(
            folder=self.folder,
            port=self.port,
            tls_port=self.tls_port,
            certificate=self.certificate,
            key=self.key,
        )


@dataclass(frozen=True, slots=True)
class Way:
    """A way of publishing."""

    kind: str
    """``websocket``, ``post`` or ``line``."""

    path: str
    """The path of the request."""

    prefix: str = ""
    """The text before the data in a message."""

    suffix: str = ""
    """The text after the data in a message."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that can be measured."""

    title: str
    """The name in the report."""

    start: Callable[[Place], Sequence[str]]
    """Writes the configuration; returns the command."""

    paths: Mapping[str, str]
    """The paths to subscribe at, by transport."""

    ways: Mapping[str, Way]
    """The ways to publish, by name."""


def start_pushd(store: str, sections: str = "") -> Callable[[Place], Sequence[str]]:
    """Return a function that starts pushd with these lines about its store and these further sections."""

    def start(place: Place) -> list[str]:
        config = place.folder / "pushd.ini"
        config.write_text(place.fill(_PUSHD.replace("STORE", store)) + sections)
        twistd = Path(sys.executable).with_name("twistd")
        return [str(twistd), "-n", "--pidfile=", "pushd", "--config", str(config)]

    return start


def _start_nchan(place: Place) -> list[str]:
    config = place.folder / "nginx.conf"
    config.write_text(place.fill((_HERE / "peers" / "nginx.conf").read_text()))
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") or "nginx"
    return [nginx, "-e", "stderr", "-p", str(place.folder), "-c", str(config)]


def _start_floor(place: Place) -> list[str]:
    return [str(place.built / "floor"), str(place.port)]


def _start_twisted(place: Place) -> list[str]:
    return [sys.executable, str(_HERE / "peers" / "twisted_post.py"), str(place.port)]


def _arguments(place: Place) -> list[str]:
    return [str(place.port), str(place.tls_port), str(place.certificate), str(place.key)]


def _script(name: str) -> Callable[[Place], Sequence[str]]:
    program = "node" if name.endswith(".mjs") else sys.executable
    return lambda place: [program, str(_HERE / "peers" / name), *_arguments(place)]


_PUSHD_MESSAGE = Way("websocket", "/ws", '{"type":"publish","channel":"bench","data":"', '"}')
_MESSAGE = Way("websocket", "/publish")
_POST = Way("post", "/publish")
_HTTP_PATHS = {"websocket": "/ws", "sse": "/sse"}


def _pushd(title: str, store: str) -> Server:
    return Server(
        title,
        start_pushd(store),
        {"websocket": "/ws?channel=bench", "sse": "/sse?channel=bench", "http2": "/sse?channel=bench"},
        {
            "own": _PUSHD_MESSAGE,
            "websocket": _PUSHD_MESSAGE,
            "post": Way("post", "/channels/bench"),
            "batch": Way("post", "/publish", '{"channel":"bench","data":"', '"}'),
        },
    )


PEERS: Mapping[str, Server] = {
    "pushd": _pushd("pushd", "store = memory"),
    "pushd-store": _pushd("pushd with its store", "store = sqlite"),
    "pushd-power": _pushd("pushd with its store, durability = power", "durability = power"),
    "floor": Server("bare C `send()` loop", _start_floor, _HTTP_PATHS, {"own": Way("line", "/publish")}),
    "nchan": Server(
        "nchan (nginx)",
        _start_nchan,
        {"websocket": "/subscribe", "sse": "/subscribe", "http2": "/subscribe"},
        {"own": _POST, "post": _POST},
    ),
    "ws": Server("ws (Node)", _script("ws.mjs"), _HTTP_PATHS, {"own": _MESSAGE, "post": _POST}),
    "websockets": Server(
        "websockets (asyncio)", _script("websockets_server.py"), {"websocket": "/ws"}, {"own": _MESSAGE}
    ),
    "aiohttp": Server(
        "aiohttp (asyncio)", _script("aiohttp_server.py"), _HTTP_PATHS, {"own": _MESSAGE, "post": _POST}
    ),
    "twisted.web": Server("twisted.web, a plain resource", _start_twisted, {}, {"post": _POST}),
}
"""All servers, by their names in cases and results."""


class Running:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], place: Place) -> None:
        """Take over a started process."""
        self._process = process
        self.place = place

    def pids(self) -> list[int]:
        """Return the ids of its process and of all descendants."""
        found = [self._process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found.extend(int(child) for child in children.read_text().split())
        return found

    def wait_until_open(self) -> None:
        """Wait until the server listens; raise `OSError` if it does not."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.place.port)) == 0:
                    return
            time.sleep(0.05)
        log = (self.place.folder / "log").read_text(errors="replace")
        raise OSError(f"the server does not run: {self._process.args!r}\n{log[-2000:]}")

    def end(self) -> None:
        """Stop the server, with SIGKILL if it does not stop by itself."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def running(server: Server, place: Place, pinned: Sequence[str]) -> Iterator[Running]:
    """Run a server within the context; `pinned` is the beginning of its command."""
    command = [*pinned, *server.start(place)]
    with open(place.folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=place.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    one = Running(process, place)
    try:
        one.wait_until_open()
        yield one
    finally:
        one.end()


def free_port() -> int:
    """Return a free port outside the ephemeral range, which starts at 32768 on Linux."""
    for port in random.sample(range(20000, 32000), 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port between 20000 and 32000 is free")
