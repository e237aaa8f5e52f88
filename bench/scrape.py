"""Measure how long a scrape of a running daemon takes, with idle subscribers.

Usage: python -m bench.scrape HOST PORT OPERATIONS_PORT SUBSCRIBERS

The daemon has a listener at PORT and one for operations at OPERATIONS_PORT. Both must be allowed to open as many
files.
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
    """Return how long it took, in milliseconds, and what came."""
    began = time.perf_counter()
    connection = HTTPConnection(host, port, timeout=20)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return (time.perf_counter() - began) * 1000, text


def value(text: str, name: str) -> float:
    """Return a figure without labels, or with them as they are written."""
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).rpartition(" ")[2])


def measure(host: str, port: int) -> str:
    """Scrape some times, and say how it went."""
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
            client.recv(1)  # they do not wait to be accepted all at once
    for client in clients:
        client.recv(1)
    there = value(scrape(host, operations)[1], 'pushd_subscribers{transport="sse"}')
    print(f"{there:.0f} subscribers: {measure(host, operations)}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
