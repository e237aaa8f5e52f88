"""A daemon without memory refuses what it has none for, and lives."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from tests.e2e.daemon import Daemon, request, running, tcp

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not installed"),
]

CONFIG = "[channels]\nhistory_bytes = 1GiB\n[limits]\nevent_size = 1100KiB\n"
SIZE = 1 << 20
DATAS = {"escaped": b'"' * SIZE, "control": b"\x01" * SIZE, "binary": b"\xff" * SIZE}


@cache
def usual_size() -> int:
    """Return how much address space a daemon has that has just been started, in bytes."""
    with running(CONFIG, listeners=tcp("http")) as daemon:
        found = re.search(r"VmSize:\s+(\d+) kB", Path(f"/proc/{daemon.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024


def read_stream(daemon: Daemon, path: str) -> bytes:
    """Read a stream to its end, or as much as one event takes."""
    host, port = daemon.http.removeprefix("http://").split(":")
    received = b""
    with closing(socket.create_connection((host, int(port)), timeout=10)) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        while len(received) < SIZE and (data := client.recv(1 << 20)):
            received += data
    return received


def read_socket(daemon: Daemon, channel: str) -> None:
    """Read one event over a WebSocket, or the reason why it does not come."""
    url = daemon.http.replace("http", "ws") + f"/ws?channel={channel}&since=earliest"
    try:
        with connect(url, max_size=None, open_timeout=10) as client:
            while len(client.recv(timeout=10)) < SIZE:
                pass
    except ConnectionClosedError as error:
        assert error.rcvd is not None, error
        assert "not enough memory" in error.rcvd.reason
    except InvalidStatus as error:
        assert error.response.status_code == 503


@pytest.mark.parametrize("more_mib", [10, 20, 35])
def test_large_events_are_refused_and_the_daemon_lives(more_mib: int) -> None:
    limit = usual_size() + more_mib * 1024 * 1024
    with running(CONFIG, listeners=tcp("http"), started_by=("prlimit", f"--as={limit}")) as daemon:
        pid, refused = daemon.pid, 0
        for channel, data in DATAS.items():
            posted = request(f"{daemon.http}/channels/{channel}", "POST", data)
            assert posted.status in (201, 503), posted
            line = json.dumps({"channel": "batch", "data": data.decode("latin-1")[: SIZE // 2]})
            assert request(f"{daemon.http}/publish", "POST", line.encode()).status in (200, 503)
            for path in (f"/channels/{channel}/events?since=earliest", f"/poll?channel={channel}&since=earliest"):
                if posted.status == 201:
                    answer = request(daemon.http + path)
                    assert answer.status in (200, 503), answer
                    if answer.status == 503:
                        refused += 1
                        assert "not enough memory" in answer.json()["detail"]
                        assert int(answer.headers["retry-after"]) > 0
            if posted.status == 201:
                for kind in ("sse", "stream"):
                    received = read_stream(daemon, f"/{kind}?channel={channel}&since=earliest")
                    assert len(received) >= SIZE or b"not enough memory" in received, received[:500]
                read_socket(daemon, channel)
        assert daemon.publish("small", "it lives")["offset"] == 1
        assert daemon.get("/channels/small/events?since=earliest")["events"][0]["data"] == "it lives"
        os.kill(pid, 0)
        assert daemon.pid == pid
        if refused:
            assert "memory is short" in daemon.log
