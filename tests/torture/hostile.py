"""How an honest client fares beside hostile ones: ``python -m tests.torture.hostile [--seconds N]``.

600 clients send half of a body and then nothing, from 60 addresses, and 2,000 connections never complete the head
of a request. Beside them, one client publishes short events, each a request of its own, and polls; the time of each
answer is taken. Ends with 1 if the 99th percentile is more than the limit.
"""

from __future__ import annotations

import argparse
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import perf_counter, sleep

from tests.e2e.daemon import Daemon, request, running

LIMIT_MS = 50
"""The longest 99th percentile of an honest client."""

BODIES = 600
HALF_OPEN = 2000
ADDRESSES = 60

CONFIG = """
[listen:proxied]
endpoint = unix:{directory}/proxied
proxy_protocol = yes
[proxies]
trusted = unix
[auth]
anonymous = publish, subscribe
[limits]
connections = 10000
"""

HEADS = {
    "half of 2 MiB": (b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2097152\r\n\r\n", 2**20 + 10),
    "not allowed": (b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2097152\r\n\r\n", 2**20 + 10),
}


def connect(path: Path, number: int) -> socket.socket:
    """Open a connection that comes from an address of its own."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    client.connect(str(path))
    address = f"203.0.{number // 250}.{number % 250 + 1}"
    client.sendall(f"PROXY TCP4 {address} 127.0.0.1 4711 80\r\n".encode())
    return client


def send_some(client: socket.socket, data: bytes) -> None:
    """Send what the daemon takes; it refuses and closes what is too much."""
    with suppress(OSError):
        client.sendall(data)


@contextmanager
def hostile(daemon: Daemon) -> Iterator[None]:
    """Connect all hostile clients."""
    path = daemon.directory / "proxied"
    with ExitStack() as stack:
        for number in range(HALF_OPEN):
            client = stack.enter_context(connect(path, number % ADDRESSES))
            send_some(client, b"GET /sse?channel=a HTTP/1.1\r\nHost: loc" if number % 2 else b"G")
        heads = list(HEADS.values())
        for number in range(BODIES):
            head, size = heads[number % len(heads)]
            client = stack.enter_context(connect(path, number % ADDRESSES))
            send_some(client, head + bytes(size))
        yield


def honest(daemon: Daemon, seconds: float) -> list[float]:
    """Publish and poll for some time; return how long each answer took, in milliseconds."""
    took = []
    end = perf_counter() + seconds
    while perf_counter() < end:
        for method, path, body in (
            ("POST", "/channels/honest", b"hello"),
            ("GET", "/poll?channel=honest&since=earliest&limit=1", None),
        ):
            began = perf_counter()
            answer = request(f"{daemon.http}{path}", method, body)
            took.append((perf_counter() - began) * 1000)
            assert answer.status in (200, 201), answer
        sleep(0.002)
    return sorted(took)


def counters(daemon: Daemon) -> tuple[int, float]:
    """Return how many files the daemon has open, and its resident memory in MiB."""
    files = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
    pages = int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1])
    return files, pages * resource.getpagesize() / 2**20


def show(name: str, took: list[float], daemon: Daemon) -> float:
    """Print what it was like; return the 99th percentile."""
    p99 = took[len(took) * 99 // 100]
    files, memory = counters(daemon)
    print(
        f"{name:<24} {len(took):>6} answers  p50 {took[len(took) // 2]:6.2f} ms  p99 {p99:6.2f} ms"
        f"  most {took[-1]:6.2f} ms  files {files:>5}  memory {memory:6.1f} MiB"
    )
    return p99


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    seconds = parser.parse_args().seconds
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with running(CONFIG, measures_turns=True) as daemon:
        assert daemon.turns is not None
        show("alone", honest(daemon, seconds), daemon)
        with hostile(daemon):
            daemon.turns.reset()
            p99 = show("beside hostile clients", honest(daemon, seconds), daemon)
            print(f"longest turn {daemon.turns.longest_ms:.1f} ms of CPU time")
        show("after they have gone", honest(daemon, seconds), daemon)
    return int(p99 > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
