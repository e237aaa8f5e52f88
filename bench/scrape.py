"""Measure the duration of a metrics scrape, with idle subscribers.

Usage: python -m bench.scrape HOST PORT OPERATIONS_PORT SUBSCRIBERS

The daemon has a listener at PORT and an admin listener at OPERATIONS_PORT. The daemon and this program need an
open-file limit above SUBSCRIBERS.
"""

from __future__ import annotations

import socket
import sys
import time
from http.client import HTTPConnection
from statistics import median

__all__ = ["main"]

_SCRAPES = 20
_CHANNELS = 100
_AT_ONCE = 200


def scrape(host: str, port: int) -> tuple[float, str]:
    """Scrape the metrics; return the duration in milliseconds, and the body."""
    began = time.perf_counter()
    connection = HTTPConnection(host, port, timeout=20)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return (time.perf_counter() - began) * 1000, text


def value(text: str, name: str) -> float:
    """Return the value of a metric; `name` includes its labels, as in the body."""
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).rpartition(" ")[2])


def measure(host: str, port: int) -> str:
    """Scrape repeatedly; return the shortest and the median duration, and the CPU time."""
    cpu = "process_cpu_seconds_total"
    _, before = scrape(host, port)
    times = [scrape(host, port)[0] for _ in range(_SCRAPES)]
    _, after = scrape(host, port)
    each_ms = (value(after, cpu) - value(before, cpu)) / (_SCRAPES + 1) * 1000
    return f"shortest {min(times):.1f} ms, median {median(times):.1f} ms, processor time {each_ms:.1f} ms each"


def main(host: str, port: int, operations: int, count: int) -> None:
    """Measure without subscribers, and with `count` of them."""
    print(f"0 subscribers: {measure(host, operations)}")
    clients = []
    for number in range(count):
        client = socket.create_connection((host, port), 20)
        channel = f"idle{number % _CHANNELS}"
        client.sendall(f"GET /sse?channel={channel} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        clients.append(client)
        if number % _AT_ONCE == 0:
            client.recv(1)  # the listen queue does not overflow
    for client in clients:
        client.recv(1)
    there = value(scrape(host, operations)[1], 'pushd_subscribers{transport="sse"}')
    print(f"{there:.0f} subscribers: {measure(host, operations)}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
