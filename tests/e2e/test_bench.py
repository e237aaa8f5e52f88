"""The benchmark suite measures the real daemon, and its load client sees when a server makes mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from socket import create_server, socket
from threading import Thread
from typing import Any

import pytest

from bench import guarded
from bench.cases import CASES, Case
from bench.machine import build, certificate
from bench.measure import Bench
from tests.e2e.programs import program

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parent.parent.parent
_HEADER = Path("/usr/include/openssl/ssl.h")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("cc", "openssl", "taskset"):
        program(name)
    if not _HEADER.exists():
        why = f"{_HEADER} is missing; it is in the Debian package libssl-dev"
        if os.environ.get("PUSHD_TEST_NO_SKIP"):
            pytest.fail(why)
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("bench")
    build(folder)
    return folder


def tiny(name: str) -> Case:
    """Make a case so small that it takes a second."""
    (case,) = (case for case in CASES if case.name == name)
    return replace(case, subscribers=200 if case.transport == "http2" else 20, seconds=0.2, settle_s=0.1)


@pytest.mark.parametrize("peer", ["pushd", "floor"])
@pytest.mark.parametrize("name", ["websocket-1000", "sse-1000"])
def test_fan_out_is_measured(name: str, peer: str, built: Path) -> None:
    result = Bench(built, *certificate(built)).measure(tiny(name), peer)
    assert [level["in_flight"] for level in result["levels"]] == [1, 16], result
    for level in result["levels"]:
        assert level["deliveries"] == 20 * level["events"] > 0
        assert level["faults"] == 0
        assert 0 < level["latency_us"]["p50"] <= level["latency_us"]["p99"] <= level["latency_us"]["max"]
        assert level["last_us"]["p50"] >= level["latency_us"]["p50"]
        assert 0 < level["cpu_us_per_delivery"] < 1e6 * level["seconds"] / level["deliveries"] * 1.1


@pytest.mark.parametrize("name", ["websocket-tls-1000", "http2-1000"])
def test_fan_out_over_tls_is_measured(name: str, built: Path) -> None:
    result = Bench(built, *certificate(built)).measure(tiny(name), "pushd")
    assert [level["faults"] for level in result["levels"]] == [0, 0], result


def test_connecting_and_publishing_are_measured(built: Path) -> None:
    bench = Bench(built, *certificate(built))
    several = replace(tiny("connect-websocket"), subscribers=500)  # /proc counts in hundredths of a second
    connected = bench.measure(several, "pushd")["connect"]
    assert (connected["connections"], connected["cpu_us_per_connection"] > 0) == (500, True)
    for name in ("publish-post", "publish-batch", "publish-websocket"):
        published = bench.measure(tiny(name), "pushd")["publish"]
        assert (published["faults"], published["events"] > 0) == (0, True), name


def test_a_server_that_does_not_start_is_an_error(built: Path) -> None:
    nowhere = built / "nowhere"
    result = Bench(built, nowhere, nowhere).measure(tiny("websocket-1000"), "pushd")
    assert "nowhere" in result["error"]


@contextmanager
def stream_that_says(times: int, answer: bytes) -> Iterator[int]:
    """Serve one event stream and one publisher: each event is sent so many `times`, each POST answered so."""

    def serve(listener: socket) -> None:
        stream, _ = listener.accept()
        stream.recv(4096)
        stream.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        publisher, _ = listener.accept()
        with stream, publisher, suppress(ConnectionResetError):  # which is how the client ends
            while body := publisher.recv(4096).rpartition(b"\r\n\r\n")[2]:
                stream.sendall(times * (b"data: " + body + b"\n\n"))
                publisher.sendall(answer + b"\r\nContent-Length: 0\r\n\r\n")

    with closing(create_server(("127.0.0.1", 0))) as listener:
        thread = Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def load(built: Path, port: int) -> Any:
    """Run the load client on its own."""
    options = [
        "--kind=sse",
        "--way=post",
        "--subscribers=1",
        "--warm-up=0",
        "--seconds=0.05",
        f"--pids={os.getpid()}",
    ]
    command = [str(built / "load"), f"--port={port}", *options, "fanout"]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)


def test_events_that_come_once_are_no_faults(built: Path) -> None:
    with stream_that_says(1, b"HTTP/1.1 200 OK") as port:
        (level,) = load(built, port)["levels"]
    assert (level["deliveries"], level["faults"]) == (level["events"], 0)


def test_events_that_come_twice_are_faults(built: Path) -> None:
    with stream_that_says(2, b"HTTP/1.1 200 OK") as port:
        (level,) = load(built, port)["levels"]
    assert level["faults"] > 0


def test_the_store_is_measured() -> None:
    program("taskset")
    command = [sys.executable, "bench/store.py", "--events=5000", "--clients=20", "--history=50", "--rounds=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "start with them: " in done.stdout
    assert "20 clients come back for 50 events" in done.stdout


def test_what_guards_is_measured(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program("taskset")
    program("node")
    bench = Bench(built, *certificate(built))
    with guarded.application() as port:
        for server in guarded.servers(port):
            result = bench.measure_server(tiny("publish-websocket"), server)
            assert result["publish"]["events"] > 0, server.title
            assert result["publish"]["faults"] == 0, server.title
    guarded.judge_tokens()
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} >= {
        "HS256",
        "RS256",
        "ES256",
        "EdDSA",
    }
