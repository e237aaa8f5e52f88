"""Measure pushd's store: a start with a million events, and 10,000 clients that resume after a restart.

Usage: python bench/store.py [--events N] [--clients N] [--history N] [--rounds N] [--only NAME]...

Three measurements, with the server on one core and the clients on another:

- A daemon restarts with events in 1,000 channels: the time until it answers, and its memory then.
- A daemon with a history in one channel is killed and restarted, and SSE clients resume from before that history,
  all at once: the time until the last client has the last event, and whether all received the same bytes. For
  comparison, the time if clients resume with no history and wait for the next event.
- One event to 100 channels, and 100 events to one channel each: the growth of the files.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from zlib import crc32

CORE, *OTHER_CORES = sorted(os.sched_getaffinity(0))
TIMEOUT_S = 120.0
CONFIG = """\
[pushd]
state_directory = {folder}/state
[listen:http]
endpoint = tcp:{port}:interface=127.0.0.1:backlog=10000
[channels]
history_size = 1000000
history_age = 1d
[limits]
heartbeat = 5m
"""


class Daemon:
    """pushd with a store, which can be killed and restarted."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.folder = folder
        (folder / "pushd.ini").write_text(CONFIG.format(folder=folder, port=self.port))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start the daemon; return the seconds until it answered a request."""
        twistd = Path(sys.executable).with_name("twistd")
        command = [str(twistd), "-n", "--pidfile=", "pushd", "--config", str(self.folder / "pushd.ini")]
        before = time.monotonic()
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                ["taskset", "--cpu-list", str(CORE), *command], stdout=log, stderr=log, cwd=self.folder
            )
        while True:
            try:
                self.ask("GET", "/healthz")
                return time.monotonic() - before
            except ConnectionRefusedError:
                if self.process.poll() is not None or time.monotonic() > before + TIMEOUT_S:
                    raise OSError((self.folder / "log").read_text()) from None
                time.sleep(0.002)

    def end(self, number: int = signal.SIGTERM) -> None:
        """Stop the daemon with a signal."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(TIMEOUT_S)

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request over a new connection; return the body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        connection.request(method, path, body)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        if response.status >= 300:
            raise OSError(answer)
        return answer

    def publish(self, lines: list[bytes]) -> None:
        """Publish events, each a line of JSON."""
        for at in range(0, len(lines), 1000):
            answers = self.ask("POST", "/publish", b"".join(lines[at : at + 1000])).splitlines()
            published = [one for one in answers if not one.startswith(b'{"summary"')]
            assert len(published) == len(lines[at : at + 1000]) and not any(b'"error"' in one for one in answers)

    def stored_bytes(self) -> int:
        """Return the size of the database and its write-ahead log, in bytes."""
        return sum((self.folder / "state" / name).stat().st_size for name in ("pushd.db", "pushd.db-wal"))

    def resident_bytes(self) -> int:
        """Return the resident memory, in bytes."""
        assert self.process is not None
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024


@contextmanager
def daemon() -> Iterator[Daemon]:
    """Yield a daemon with a folder of its own; kill it at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-store-") as folder:
        one = Daemon(Path(folder))
        try:
            yield one
        finally:
            if one.process is not None and one.process.poll() is None:
                one.end(signal.SIGKILL)


def line(channel: str, number: int) -> bytes:
    """Return an event of 100 bytes as a line of a batch."""
    return b'{"channel":"%s","data":"%0100d"}\n' % (channel.encode(), number)


def start_with(events: int, rounds: int) -> None:
    """Measure a start with this number of stored events."""
    with daemon() as one:
        one.start()
        empty = one.resident_bytes()
        before = time.monotonic()
        for at in range(0, events, 10_000):
            one.publish([line(f"c{n % 1000}", n) for n in range(at, min(at + 10_000, events))])
        print(f"published {events:,} events in 1,000 channels in {time.monotonic() - before:.0f} s")
        one.end(signal.SIGKILL)
        took = []
        for _ in range(rounds):
            took.append(one.start())
            resident = one.resident_bytes()
            retained = json.loads(one.ask("GET", "/channels/c1"))["retained"]
            assert retained == (events + 998) // 1000, retained
            one.end()
        size = sum(path.stat().st_size for path in (one.folder / "state").iterdir())
    with daemon() as other:
        without = []
        for _ in range(rounds):
            without.append(other.start())
            other.end()
    print(
        f"start with them: {statistics.median(took):.2f} s, without any {statistics.median(without):.2f} s; "
        f"{resident / 2**20:.0f} MB resident, {empty / 2**20:.0f} MB without any; {size / 2**20:.0f} MB on disk"
    )


class Clients:
    """SSE clients of one channel, all from the same position."""

    def __init__(self, one: Daemon, count: int, since: str) -> None:
        """Connect `count` clients, which resume from the position `since`."""
        self.epoll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.seen: dict[int, int] = {}
        self.checksums: dict[int, int] = {}
        self.ends: dict[int, bytes] = {}
        self.begun: dict[int, bytes] = {}  # the response head and the event pushd.open, which differ by client
        request = (
            f"GET /sse?channel=news HTTP/1.0\r\nHost: 127.0.0.1:{one.port}\r\nLast-Event-ID: {since}\r\n\r\n"
        ).encode()
        for _ in range(count):
            client = socket.socket()
            client.connect(("127.0.0.1", one.port))
            client.sendall(request)
            client.setblocking(False)
            self.sockets[client.fileno()] = client
            self.epoll.register(client.fileno(), select.EPOLLIN)

    def read(self, last: bytes) -> None:
        """Read until each client has an event with the data `last`."""
        waiting = set(self.sockets)
        deadline = time.monotonic() + TIMEOUT_S
        while waiting and time.monotonic() < deadline:
            for number, _ in self.epoll.poll(1.0):
                data = self.sockets[number].recv(1 << 20)
                assert data, "the daemon closed a connection"
                if number not in self.ends:
                    self.begun[number] = self.begun.get(number, b"") + data
                    _, blank, data = self.begun[number].partition(b"\n\n")
                    if not blank:
                        continue
                self.seen[number] = self.seen.get(number, 0) + data.count(b"\nid: ") + data.startswith(b"id: ")
                self.checksums[number] = crc32(data, self.checksums.get(number, 0))
                end = self.ends.get(number, b"")[-len(last) :] + data
                if last in end:
                    waiting.discard(number)
                self.ends[number] = end[-len(last) :]
        assert not waiting, f"{len(waiting)} clients did not get everything"

    def close(self) -> None:
        """Close all clients."""
        for client in self.sockets.values():
            client.close()
        self.epoll.close()


def come_back(one: Daemon, clients: int, since: str, last: bytes) -> float:
    """Connect all clients at once; return the seconds until each has the event `last`."""
    before = time.monotonic()
    back = Clients(one, clients, since)
    try:
        back.read(last)
        took = time.monotonic() - before
        assert len(set(back.checksums.values())) == 1, "not all clients got the same"
    finally:
        back.close()
    return took


def resume(clients: int, history: int, rounds: int) -> None:
    """Measure the time until all clients that resume after a crash have the whole history."""
    with daemon() as one:
        one.start()
        one.publish([line("news", 0)])
        begin = json.loads(one.ask("GET", "/channels/news"))["position"]
        one.publish([line("news", n) for n in range(1, history + 1)])
        resumed, plain = [], []
        for number in range(rounds):
            one.end(signal.SIGKILL)
            one.start()
            resumed.append(come_back(one, clients, begin, b"%0100d" % history))
            one.end(signal.SIGKILL)
            one.start()
            latest = json.loads(one.ask("GET", "/channels/news"))["position"]
            event = 10**9 + number
            before = time.monotonic()
            back = Clients(one, clients, latest)
            one.publish([line("news", event)])
            back.read(b"%0100d" % event)
            plain.append(time.monotonic() - before)
            back.close()
            one.ask("DELETE", "/channels/news")
            one.publish([line("news", 0)])
            begin = json.loads(one.ask("GET", "/channels/news"))["position"]
            one.publish([line("news", n) for n in range(1, history + 1)])
    print(
        f"{clients:,} clients come back for {history:,} events after kill -9: {statistics.median(resumed):.2f} s "
        f"until the last has all; for the next event only: {statistics.median(plain):.2f} s"
    )


def _names(length: int) -> list[str]:
    """Return the names of 100 channels."""
    return [f"m/{number:02}".ljust(length, "x") for number in range(100)]


def _grown_bytes(lines: list[bytes], events: int) -> int:
    """Publish `lines` in one request, `events` times; return the growth of the files, in bytes."""
    with daemon() as one:
        one.start()
        before = one.stored_bytes()
        for _ in range(events):
            one.publish(lines)
        return one.stored_bytes() - before


def many_channels(events: int) -> None:
    """Compare one event to 100 channels with 100 events, by size on disk."""
    for length in (4, 255):
        for given in (False, True):
            names = _names(length)
            member = ',"id":"order"' if given else ""
            together = f'{{"channels":{json.dumps(names)},"data":"{"x" * 100}"{member}}}\n'.encode()
            singly = [f'{{"channel":"{name}","data":"{"x" * 100}"{member}}}\n'.encode() for name in names]
            if given:  # the same id again would be a duplicate
                grown = _grown_bytes([together], 1), _grown_bytes(singly, 1)
            else:
                grown = _grown_bytes([together], events), _grown_bytes(singly, events)
            what = f"{1 if given else events} events to 100 channels{', with an id' if given else ''}"
            print(
                f"{what}, names of {length} bytes: {grown[0]:,} bytes; 100 times as many events: "
                f"{grown[1]:,} bytes; ratio {grown[0] / grown[1]:.2f}"
            )


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description="Measure pushd's store.")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--history", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", action="append", choices=("start", "resume", "channels"), help="measure only this"
    )
    options = parser.parse_args()
    os.sched_setaffinity(0, OTHER_CORES or [CORE])
    files = options.clients + 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, hard)))
    only = options.only or ("start", "resume", "channels")
    if "start" in only:
        start_with(options.events, options.rounds)
    if "resume" in only:
        resume(options.clients, options.history, options.rounds)
    if "channels" in only:
        many_channels(50)


if __name__ == "__main__":
    main()
