"""Measure the cost of many channels: ``python -m bench.many_channels --channels 1000000 --store sqlite``.

Fill a daemon with channels of one event, 5,000 in a request, and print the rate of each 100,000, in events per
second of the daemon's CPU time. Then read, list and restart.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

_LINES = 5000
_GROUP = 100_000


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


class Daemon:
    """A daemon with a directory of its own."""

    def __init__(self, directory: str, channels: int, store: str) -> None:
        self.port = _free_port()
        self._config = Path(directory) / "pushd.ini"
        self._config.write_text(
            f"[pushd]\nstate_directory = {directory}/state\nstore = {store}\n"
            f"[listen:http]\nendpoint = tcp:{self.port}:interface=127.0.0.1\n"
            f"[limits]\nchannels = {channels + 1000}\nread_rate = 0\n[channels]\nhistory_age = 1d\n"
        )
        self.start()

    def start(self) -> None:
        """Start the daemon; return when it answers."""
        began_s = time.perf_counter()
        command = [
            str(Path(sys.executable).with_name("twistd")),
            *("-n", "--pidfile=", "--logfile", os.devnull, "pushd", "--config", str(self._config)),
        ]
        self.process = subprocess.Popen(command)
        while True:
            try:
                if self.call("GET", "/readyz")[0] == 200:
                    break
            except OSError:
                time.sleep(0.02)
        self.started_s = time.perf_counter() - began_s

    def stop(self) -> None:
        """Stop the daemon."""
        self.process.terminate()
        self.process.wait()

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a request; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request(method, path, body)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, data

    @property
    def cpu_s(self) -> float:
        """Return the CPU time of all threads, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_kib(self) -> int:
        """Return the resident memory, in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


def timed(action: Callable[[], object]) -> float:
    """Return the duration of an action, in milliseconds."""
    began_s = time.perf_counter()
    action()
    return (time.perf_counter() - began_s) * 1000


def fill(daemon: Daemon, channels: int) -> list[float]:
    """Publish an event to each channel; return the rate of each 100,000."""
    rates, before_s = [], daemon.cpu_s
    for first in range(0, channels, _LINES):
        lines = (b'{"channel":"public/%d","data":"x"}\n' % number for number in range(first, first + _LINES))
        status, answer = daemon.call("POST", "/publish", b"".join(lines))
        assert status in (200, 207) and not answer.count(b'"error"'), answer[:200]
        if not (first + _LINES) % _GROUP:
            now_s = daemon.cpu_s
            rates.append(_GROUP / (now_s - before_s))
            before_s = now_s
            print(f"{first + _LINES:>9} channels: {rates[-1]:7.0f} events per CPU second", flush=True)
    return rates


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--channels", type=int, default=1_000_000)
    parser.add_argument("--store", choices=("memory", "sqlite"), default="sqlite")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        daemon = Daemon(directory, arguments.channels, arguments.store)
        try:
            empty_kib = daemon.resident_kib
            rates = fill(daemon, arguments.channels)
            print(f"the last 100,000 at {rates[-1] / rates[0]:.2f} of the rate of the first")
            print(f"{(daemon.resident_kib - empty_kib) * 1024 / arguments.channels:.0f} bytes of memory a channel")
            for path in "/poll?channel=**&since=earliest&limit=1", "/channels?after=public/5":
                took_ms = min(timed(partial(daemon.call, "GET", path)) for _ in range(5))
                print(f"GET {path}: {took_ms:.1f} ms")
            if arguments.store == "sqlite":
                daemon.stop()
                daemon.start()
                print(f"a start takes {daemon.started_s:.1f} s")
                print(f"{(daemon.resident_kib - empty_kib) * 1024 / arguments.channels:.0f} bytes a channel then")
        finally:
            daemon.stop()


if __name__ == "__main__":
    main()
