"""The log of the real daemon, as each who reads it gets it."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from signal import SIGTERM
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.e2e.daemon import Daemon, environment, free_port, installed, request, running, tcp
from tests.e2e.documents import named
from tests.e2e.programs import eventually, program

pytestmark = pytest.mark.timeout(90)

REQUESTS = 300
BYTES = sum(100 * (number % 50) for number in range(REQUESTS))
"""How much data is published."""

LAST = b"that was the last"


def answers(url: str) -> bool:
    """Return whether the daemon is there."""
    try:
        return request(f"{url}/healthz").status == 200
    except OSError:
        return False


def read_to_the_last(lines: Iterable[bytes]) -> int:
    """Read what is published until the last comes; return how much that was."""
    size = 0
    for line in lines:
        size += len(line)
        if LAST in line:
            break
    return size


def messages(websocket: ClientConnection) -> Iterator[bytes]:
    """Return each message that comes within a time."""
    while True:
        yield websocket.recv(15, decode=False)


def be_hostile(url: str, https: str) -> None:
    """Try to have lines that look as if the daemon had made them."""
    parts = urlsplit(url)
    for target in ("/nothing%0a<0>forged", "/sse?channel=%0d%0a<0>forged", "/channels/%E2%80%A8<0>forged"):
        assert request(url + target, headers={"X-Request-ID": "a <0>forged"}).status in (400, 404)
    with httpx.Client(http1=False, http2=True, verify=False, trust_env=False) as client:
        for _ in range(2):
            answer = client.get(f"{https}/over2%0a<0>forged", headers={"X-Request-ID": "<0>forged"})
            assert (answer.http_version, answer.status_code) == ("HTTP/2", 404)
            assert answer.headers["x-request-id"] == answer.json()["request_id"]
    for line in (b"GET /\x1b[31m HTTP/1.1\r\n\r\n", b"\x80\x81\r\n\r\n", b"GET /a\n<0>forged HTTP/1.1\r\n\r\n"):
        with closing(socket.create_connection((parts.hostname or "", parts.port or 0), 15)) as raw:
            raw.sendall(line)
            assert raw.recv(1000).startswith(b"HTTP/1.1 400 ")


def check_lines(daemon: Daemon) -> list[str]:
    """Find nothing in the log that somebody else has made to a line; answer all lines."""
    text = daemon.log_path.read_bytes().decode("ascii")
    assert re.findall(r"[^\n -~]", text) == []
    assert "forged" in text
    assert daemon.stderr == ""
    lines = text.splitlines()
    assert not [line for line in lines if line.startswith(("<0>", "forged"))]
    return lines


def be_busy(url: str, https: str) -> None:
    """Do what makes lines: requests, good and bad, streams, WebSockets, and bytes that are nothing."""
    parts = urlsplit(url)
    with ExitStack() as stack:
        readers = stack.enter_context(ThreadPoolExecutor(3))
        reading: list[Future[int]] = []
        for path in ("/sse", "/stream"):
            stream = stack.enter_context(closing(HTTPConnection(parts.netloc, timeout=15)))
            stream.request("GET", f"{path}?channel=news")
            reading.append(readers.submit(read_to_the_last, stream.getresponse()))
        websocket = stack.enter_context(connect(f"ws://{parts.netloc}/ws?channel=news", proxy=None))
        reading.append(readers.submit(read_to_the_last, messages(websocket)))

        def publish(number: int) -> int:
            return request(f"{url}/channels/news", "POST", b"x" * 100 * (number % 50)).status

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(publish, range(REQUESTS))) == {201}
        request(f"{url}/channels/news", "POST", LAST)
        assert all(each.result(30) > BYTES for each in reading)
        websocket.send('{"type":"nonsense"}')
        be_hostile(url, https)


def test_as_json_each_line_is_an_object_that_says_what_was_done() -> None:
    port, https = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    config = "[log]\nformat = json\nrequests = yes\nlevel = debug\n"
    listeners = tcp("http", port) + tcp("https", https, tls=True)
    with running(config, listeners=listeners, starts=False) as daemon:
        daemon.launch()
        eventually(lambda: answers(url), "it serves")
        be_busy(url, f"https://127.0.0.1:{https}")
        assert daemon.stop() == -SIGTERM
        found = [json.loads(line) for line in check_lines(daemon)]
    for event in found:
        assert {"time", "level", "logger", "message"} <= event.keys()
        assert re.fullmatch(r"[-0-9]{10}T[:0-9]{8}\.\d{6}\+00:00", event["time"])
        assert "traceback" not in event, event
    assert any("starting up" in event["message"] for event in found), "what came before the log began is there"
    assert Counter(event["level"] for event in found).keys() <= {"debug", "info"}
    requests = [event for event in found if event["logger"] == "pushd.requests"]
    published = [event for event in requests if event["method"] == "POST"]
    assert [event["status"] for event in requests if event["path"].startswith("/over2")] == [404, 404]
    assert {(event["status"], event["path"]) for event in published} == {(201, "/channels/news")}
    assert len(published) == REQUESTS + 1
    assert len({event["request_id"] for event in requests}) == len(requests)
    assert sorted(event["path"] for event in requests if event["path"] in ("/sse", "/stream", "/ws")) == [
        "/sse",  # that has a wrong channel
        "/sse",
        "/stream",
        "/ws",
    ]
    streams = [event for event in requests if event["status"] in (101, 200) and event["path"] != "/healthz"]
    assert len(streams) == 3
    assert all(event["bytes"] > BYTES and event["duration_ms"] > 0 for event in streams), streams
    ends = [event for event in found if event["logger"] == "pushd.sessions"]
    assert sorted(event["transport"] for event in ends) == ["sse", "stream", "websocket"]
    assert {event["reason"] for event in ends} == {"the client has gone"}
    assert all(event["bytes"] > BYTES and event["duration_s"] > 0 for event in ends), ends


def test_production_logs_have_each_listener_once_and_no_commands_to_try() -> None:
    """In JSON, and in the journal."""
    for config, variables in (("format = json", {}), ("format = auto", {"JOURNAL_STREAM": ""})):
        with running(f"[log]\n{config}\n", listeners=tcp("http", free_port()), starts=False) as daemon:
            if variables:
                daemon.log_path.touch()
                status = daemon.log_path.stat()
                daemon.variables["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
            daemon.launch()
            eventually(lambda d=daemon: "pushd listens at" in d.log, "it listens")  # type: ignore[misc]
            assert daemon.stop() == -SIGTERM
            assert daemon.log.count("pushd listens at http://127.0.0.1:") == 1
            for text in ("curl", "browser", " starting on "):
                assert text not in daemon.log, daemon.log


def logged(url: str, directory: Path, name: str) -> None:
    """Make the daemon log a line with `name`, and wait until a file has the line."""
    request(f"{url}/{name}")
    eventually(lambda: any(name in path.read_text() for path in directory.glob("pushd.log*")), f"{name} is logged")


@pytest.mark.parametrize("way", ["as documented", "copytruncate", "nocreate and SIGHUP"])
def test_logrotate_loses_no_line(way: str, tmp_path: Path) -> None:
    logrotate = program("logrotate")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    logs = tmp_path / "logs"
    logs.mkdir()
    text = named("operating", "logrotate").replace("pushd pushd", "root root")
    text = text.replace("/var/log/pushd", str(logs)).replace("/run/pushd", str(tmp_path))
    text = text.replace("delaycompress", "nocompress").replace("    compress\n", "")
    if way == "copytruncate":
        text = re.sub(r"create .*|postrotate(?s:.*)endscript", "copytruncate", text)
    elif way == "nocreate and SIGHUP":
        text = re.sub(r"create .*", "nocreate", text).replace("USR1", "HUP")
    (tmp_path / "logrotate.conf").write_text(text)
    (tmp_path / "logrotate.conf").chmod(0o644)
    (tmp_path / "pushd.ini").write_text(f"[pushd]\nstate_directory = {tmp_path}/state\n{tcp('http', port)}")
    command = [installed("twistd"), "-n", f"--pidfile={tmp_path}/twistd.pid", f"--logfile={logs}/pushd.log"]
    process = subprocess.Popen(
        [*command, "pushd", "--config", "pushd.ini"],
        cwd=tmp_path, env=environment(tmp_path), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: answers(url), "it serves")
        for number in range(4):
            logged(url, logs, f"line-{number}")
            rotate = [logrotate, "--force", "--state", str(tmp_path / "status"), str(tmp_path / "logrotate.conf")]
            done = subprocess.run(rotate, capture_output=True, text=True, timeout=30)
            assert (done.returncode, done.stderr) == (0, ""), done
            assert (logs / "pushd.log.1").read_text().count(f"404 GET /line-{number} ") == 1
            eventually(lambda: way == "copytruncate" or (logs / "pushd.log").exists(), "it has another file")
        logged(url, logs, "the-last")
        assert "the-last" in (logs / "pushd.log").read_text()
        assert sorted(os.listdir(logs)) == ["pushd.log", *(f"pushd.log.{n}" for n in range(1, 5))]
        assert not [path for path in logs.iterdir() if b"\0" in path.read_bytes()]
    finally:
        process.terminate()
        process.wait(20)


def test_under_the_journal_each_line_has_a_priority_and_no_time() -> None:
    listeners = tcp("http") + tcp("https", tls=True)
    with running("[log]\nrequests = yes\n", listeners=listeners, starts=False) as daemon:
        daemon.log_path.touch()
        status = daemon.log_path.stat()
        daemon.variables["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
        daemon.start()
        be_busy(daemon.http, daemon.https)
        assert daemon.stop() == -SIGTERM
        lines = check_lines(daemon)
    assert all(re.match("<[0-7]>", line) for line in lines), lines
    assert f"<6>pushd listens at {daemon.http} and {daemon.https}" in lines
    assert not [line for line in lines if re.match(r"<\d>\d{4}-", line) or "[pushd" in line]
    assert [line for line in lines if re.match(r"<6>201 POST /channels/news from 127\.0\.0\.1:\d+, ", line)]
    assert [line for line in lines if re.match(r"<6>websocket of 127\.0\.0\.1:\d+ ended after ", line)]


def test_another_journal_is_not_ours() -> None:
    with running(listeners=tcp("http"), variables={"JOURNAL_STREAM": "1:1"}) as daemon:
        assert re.search(r"^\S+ \[pushd.daemon.service#info\] pushd listens at ", daemon.log, re.MULTILINE)


@pytest.mark.parametrize("logger", [(), ("--logger=pushd.log.observer",)])
@pytest.mark.parametrize("wants_colours", [True, False])
def test_on_a_terminal_it_has_colours_unless_they_are_not_wanted(
    wants_colours: bool, logger: tuple[str, ...], tmp_path: Path
) -> None:
    config = tmp_path / "pushd.ini"
    config.write_text(f"[pushd]\nstate_directory = {tmp_path}/state\n{tcp('http')}")
    variables = {"TERM": "xterm"} if wants_colours else {"TERM": "xterm", "NO_COLOR": "1"}
    ours, theirs = pty.openpty()
    command = [installed("twistd"), "-n", "--pidfile=", *logger, "pushd", "--config", str(config)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path, **variables), stdin=subprocess.DEVNULL, stdout=theirs
    )
    os.close(theirs)
    try:
        shown = b""
        while b"pushd listens at" not in shown:
            shown += os.read(ours, 4096)
    finally:
        process.terminate()
        process.wait(20)
        os.close(ours)
    assert (b"\x1b[2m" in shown) == wants_colours


def test_the_observer_that_is_named_obeys_the_configuration() -> None:
    port = free_port()
    with running("[log]\nformat = json\n", listeners=tcp("http", port), starts=False) as daemon:
        daemon.options = ("--logger=pushd.log.observer",)
        daemon.launch()
        eventually(lambda: answers(f"http://127.0.0.1:{port}"), "it serves")
        assert daemon.stop() == -SIGTERM
        assert "pushd.daemon.service" in {json.loads(line)["logger"] for line in daemon.log.splitlines()}
