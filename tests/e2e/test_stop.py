"""The end of the daemon, with a store: who is told what, and what is there after the next start."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGTERM
from stat import S_IMODE
from threading import Thread
from time import monotonic
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.e2e.daemon import Daemon, free_port, request, running, tcp, twistd
from tests.e2e.programs import eventually, program, talking_to

pytestmark = pytest.mark.timeout(90)

STOPPED = (0, -SIGTERM)
"""The exit status of a daemon that was told to stop: twistd ends by the signal, once everything is done."""

STATE = "state_directory = {directory}/state\nstop_timeout = 5s\n"

STALLED_DISK = """
#include <fcntl.h>
#include <unistd.h>
static int stall(void) {
    if (access(getenv_path(), F_OK) == 0) close(creat(getenv_seen(), 0600));
    while (access(getenv_path(), F_OK) == 0) usleep(10000);
    return 0;
}
int fsync(int fd) { (void)fd; return stall(); }
int fdatasync(int fd) { (void)fd; return stall(); }
"""
"""Stands before the C library: nothing gets to the disk while a file exists. Another tells that it stalls."""


_SETTINGS, _PING, _GOAWAY = 4, 6, 7
"""Types of HTTP/2 frames (RFC 9113, section 6)."""


def connected(url: str) -> socket.socket:
    """Open a connection to the daemon at `url`."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), 15)


def everything(client: socket.socket) -> bytes:
    """Return what comes until the connection ends."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def kept(daemon: Daemon, channel: str) -> list[str]:
    """Return the data of everything that a channel has."""
    found: list[str] = []
    since = "earliest"
    while True:
        page = daemon.get(f"/channels/{channel}/events?limit=1000&since={since}")
        if not page["events"]:
            return found
        found += [event["data"] for event in page["events"]]
        since = page["position"]


class Publisher(Thread):
    """Publishes over one connection as fast as it is answered, until it is not."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        super().__init__(daemon=True)
        self._netloc = urlsplit(daemon.http).netloc
        self.prefix = f"{name} "
        """What its data begins with."""
        self.acknowledged: list[str] = []
        """What was answered with 201."""
        self.others: list[int] = []
        """Other answers."""

    def run(self) -> None:
        """Override: publish."""
        number = 0
        with closing(HTTPConnection(self._netloc, timeout=15)) as connection:
            while True:
                number += 1
                try:
                    connection.request("POST", "/channels/load", f"{self.prefix}{number}")
                    answer = connection.getresponse()
                    answer.read()
                except (OSError, HTTPException):
                    return
                if answer.status == 201:
                    self.acknowledged.append(f"{self.prefix}{number}")
                else:
                    self.others.append(answer.status)


class TestTelling:
    """Everybody is told in their own way."""

    def test_curl_and_nghttp_and_websockets_under_load(self) -> None:
        curl, nghttp = program("curl"), program("nghttp")
        sections = "[limits]\nretry = 2s\nreconnect_spread = 6s\n[channels]\nhistory_size = 100000\n"
        with running(sections, state=STATE) as daemon:
            publishers = [Publisher(daemon, f"p{number}") for number in range(4)]
            query = "channel=quiet"
            with (
                talking_to([curl, "-sSN", f"{daemon.http}/sse?{query}"]) as sse,
                talking_to([curl, "-sSNk", "--http2", f"{daemon.https}/sse?{query}"]) as sse2,
                talking_to([curl, "-sSN", f"{daemon.http}/stream?{query}"]) as stream,
                talking_to([curl, "-sSi", f"{daemon.http}/poll?{query}"]) as poll,
                talking_to([nghttp, "-v", "--no-verify-peer", f"{daemon.https}/push?{query}"]) as push,
                connect(f"{daemon.ws}?{query}", proxy=None) as websocket,
            ):
                eventually(lambda: daemon.has_subscribers("quiet", 6), "all are subscribed")
                for publisher in publishers:
                    publisher.start()
                eventually(lambda: all(it.acknowledged for it in publishers), "they publish")
                began = monotonic()
                daemon.signal(SIGTERM)
                retries = []
                for client in (sse, sse2):
                    text = "\n".join(client.lines())
                    found = re.search(r"retry: (\d+)\nevent: pushd.closed\ndata: .*going away", text)
                    assert found is not None, text
                    retries.append(int(found[1]))
                assert all(2000 <= retry <= 8000 for retry in retries)
                assert retries[0] != retries[1]
                last = json.loads([line for line in stream.lines() if line][-1])
                assert (last["type"], 2 <= last["retry_after"] <= 8) == ("closed", True)
                answer = "\n".join(poll.lines())
                assert answer.startswith("HTTP/1.1 503 ")
                assert re.search(r"\nRetry-After: [2-8]\n", answer)
                said = "\n".join(push.lines())
                assert re.search(r'{"type":"closed",.*,"retry_after":[2-8]', said), said
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        websocket.recv(15)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1001
                assert daemon.wait() in STOPPED
                assert monotonic() - began < 5
            for publisher in publishers:
                publisher.join(15)
                assert set(publisher.others) <= {503}
            epoch = self.assert_all_there(daemon, publishers)
            assert daemon.stop() in STOPPED
            assert self.assert_all_there(daemon, publishers) == epoch
            assert "Traceback" not in daemon.log
            assert "not the one that was left" not in daemon.log
            assert "the store is closed" in daemon.log

    @staticmethod
    def assert_all_there(daemon: Daemon, publishers: list[Publisher]) -> str:
        """Start again: everything acknowledged is there, in order; answer the epoch."""
        daemon.start()
        found = kept(daemon, "load")
        for publisher in publishers:
            name = publisher.prefix
            assert [data for data in found if data.startswith(name)][: len(publisher.acknowledged)] == (
                publisher.acknowledged
            )
        position: str = daemon.get("/channels/load")["position"]
        return position.partition("-")[0]

    def test_an_http2_connection_gets_goaway(self) -> None:
        with running(state=STATE, listeners=tcp("https", tls=True)) as daemon:
            context = ssl._create_unverified_context()
            context.set_alpn_protocols(["h2"])
            goaways, data = [], b""
            with context.wrap_socket(connected(daemon.https)) as connection:
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0)))
                data += connection.recv(65536)
                daemon.signal(SIGTERM)
                while more := connection.recv(65536):
                    data += more
                    while len(data) >= 9 and len(data) >= 9 + (size := int.from_bytes(data[:3])):
                        kind, payload, rest = data[3], data[9 : 9 + size], data[9 + size :]
                        if kind == _PING:
                            connection.sendall(data[:4] + b"\x01" + data[5 : 9 + size])
                        elif kind == _GOAWAY:
                            goaways.append((int.from_bytes(payload[:4]), int.from_bytes(payload[4:8])))
                        data = rest
            assert goaways[0] == (2**31 - 1, 0), "at first whatever is on its way is still taken"
            assert set(goaways[1:]) == {(0, 0)}
            assert daemon.wait() in STOPPED

    def test_a_thousand_clients_and_a_slow_one_are_gone_in_time(self) -> None:
        with running("[limits]\noutbox = 64MiB\n", state=STATE, listeners=tcp("http")) as daemon:
            clients = [connected(daemon.http) for _ in range(1000)]
            slow = socket.socket()
            try:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.connect(clients[0].getpeername())
                slow.sendall(b"GET /sse?channel=big HTTP/1.1\r\nHost: localhost\r\n\r\n")
                for client in clients:
                    client.sendall(b"GET /sse?channel=c HTTP/1.1\r\nHost: localhost\r\n\r\n")
                eventually(lambda: daemon.has_subscribers("c", 1000), "all are subscribed")
                eventually(lambda: daemon.has_subscribers("big", 1), "the slow one is, too")
                for _ in range(16):
                    daemon.publish("big", "x" * 1_000_000)
                began = monotonic()
                daemon.signal(SIGTERM)
                assert daemon.wait() in STOPPED
                assert 4.5 < monotonic() - began < 8
                texts = [everything(client) for client in clients]
                retries = {int(re.findall(rb"retry: (\d+)\nevent: pushd.closed", text)[0]) for text in texts}
                assert len(retries) > 500
                assert max(retries) - min(retries) > 4000
            finally:
                for client in (*clients, slow):
                    client.close()
            assert "aborting 1 connections" in daemon.log


class TestOrder:
    """What is acknowledged, and what holds up the stop."""

    def test_a_request_on_an_idle_connection_is_answered_and_told_to_be_the_last(self) -> None:
        with running(state=STATE, listeners=tcp("http")) as daemon:
            with closing(HTTPConnection(urlsplit(daemon.http).netloc, timeout=15)) as connection:
                connection.request("GET", "/healthz")
                connection.getresponse().read()
                daemon.signal(SIGTERM)
                eventually(lambda: "stopping; " in daemon.log, "it stops")
                connection.request("POST", "/channels/c", "late")
                answer = connection.getresponse()
                assert (answer.status, answer.getheader("Connection")) == (201, "close")
            assert daemon.wait() in STOPPED
            daemon.start()
            assert kept(daemon, "c") == ["late"]

    def test_a_second_sigterm_ends_the_waiting(self) -> None:
        with running(state="state_directory = {directory}/state\nstop_timeout = 60s\n", counts=True) as daemon:
            with closing(connected(daemon.http)) as client:
                client.sendall(b"POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhel")
                eventually(lambda: daemon.counts["connections"] == 2, "the request has begun")
                daemon.publish("c", "kept")
                daemon.signal(SIGTERM)
                eventually(lambda: "stopping; " in daemon.log, "it stops")
                assert not daemon.has_ended
                daemon.signal(SIGTERM)
                assert daemon.wait() in STOPPED
            assert "aborting 1 connections: pushd was told to stop again" in daemon.log
            assert "the store is closed" in daemon.log
            assert "Traceback" not in daemon.log + daemon.stderr
            daemon.start()
            assert kept(daemon, "c") == ["kept"]

    def test_a_disk_that_stalls_does_not_hold_up_the_stop_for_ever(self, tmp_path: Path) -> None:
        stalled, seen, library = tmp_path / "stalled", tmp_path / "seen", tmp_path / "stall.so"
        code = STALLED_DISK.replace("getenv_path()", json.dumps(str(stalled)))
        code = code.replace("getenv_seen()", json.dumps(str(seen)))
        arguments = [program("cc"), "-shared", "-fPIC", "-xc", "-", "-o", str(library)]
        subprocess.run(arguments, input=code, text=True, check=True, timeout=60)
        state = "state_directory = {directory}/state\ndurability = power\nstop_timeout = 1s\n"
        with running(
            state=state, listeners=tcp("http"), variables={"LD_PRELOAD": str(library)}, counts=True
        ) as daemon:
            daemon.publish("c", "before")
            stalled.touch()
            with closing(connected(daemon.http)) as under_way, closing(connected(daemon.http)) as waiting:
                post = b"POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
                under_way.sendall(post)
                eventually(seen.exists, "its transaction is being committed")
                eventually(lambda: daemon.counts["connections"] == 3, "both are connected")
                waiting.sendall(post)
                began = monotonic()
                daemon.signal(SIGTERM)
                assert waiting.recv(65536).startswith(b"HTTP/1.1 503 ")
                assert daemon.wait() in STOPPED
                assert 10 < monotonic() - began < 15
            assert "the store did not answer for 10.0 s" in daemon.log
            stalled.unlink()
            daemon.start()
            assert kept(daemon, "c")[0] == "before"
            assert "not the one that was left" not in daemon.log

    def test_a_socket_whose_file_is_gone_does_not_hold_up_the_stop(self) -> None:
        with running(state=STATE) as daemon:
            daemon.socket.unlink()
            began = monotonic()
            assert daemon.stop() in STOPPED
            assert monotonic() - began < 5
            assert "pushd.sock:lockfile=0: another program has removed or replaced the socket" in daemon.log
            assert "the store is closed" in daemon.log

    def test_a_reload_leaves_the_store_as_it_is(self) -> None:
        with running(state=STATE) as daemon:
            daemon.publish("c", "one")
            daemon.signal(SIGHUP)
            eventually(lambda: "reloaded the configuration" in daemon.log, "it has reloaded")
            daemon.publish("c", "two")
            assert kept(daemon, "c") == ["one", "two"]
            assert daemon.stop() in STOPPED
            daemon.start()
            assert kept(daemon, "c") == ["one", "two"]


class TestFiles:
    """What is in the state directory."""

    def test_nobody_else_can_read_it(self) -> None:
        with running(state=STATE) as daemon:
            daemon.publish("c", "secret")
            state = daemon.directory / "state"
            assert S_IMODE(state.stat().st_mode) == 0o700
            modes = {path.name: S_IMODE(path.stat().st_mode) for path in state.glob("pushd.db*")}
            assert modes == dict.fromkeys(("pushd.db", "pushd.db-wal", "pushd.db-shm"), 0o600)
            assert daemon.stop() in STOPPED
            assert sorted(path.name for path in state.glob("pushd.*")) == [
                *("pushd.db", "pushd.lock", "pushd.mark", "pushd.seal")
            ]
            assert S_IMODE((state / "pushd.mark").stat().st_mode) == 0o600

    def test_a_copy_made_while_it_runs_can_be_put_back_and_is_known_as_one(self, tmp_path: Path) -> None:
        with running(state=STATE) as daemon:
            daemon.publish("c", "one")
            state, copy = daemon.directory / "state", tmp_path / "copy.db"
            with closing(sqlite3.connect(state / "pushd.db")) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
            lost = daemon.publish("c", "two")["id"]
            assert daemon.stop() in STOPPED
            (state / "pushd.db").write_bytes(copy.read_bytes())
            daemon.start()
            assert "the store is not the one that was left: it is an older copy" in daemon.log
            assert kept(daemon, "c") == ["one"]
            page = daemon.get(f"/channels/c/events?since={lost}")
            assert (page["recovered"], [event["data"] for event in page["events"]]) == (False, ["one"])


@contextmanager
def in_background(directory: Path) -> Iterator[int]:
    """Run a daemon in the background, and answer the number of its process."""
    done = twistd("--pidfile=d.pid", "--logfile=d.log", "pushd", "--config", "pushd.ini", directory=directory)
    assert (done.returncode, done.stderr) == (0, "")
    pid = int((directory / "d.pid").read_text())
    stat = Path(f"/proc/{pid}/stat")
    try:
        yield pid
        os.kill(pid, SIGTERM)
        eventually(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX", "it ended")
    except BaseException:
        os.kill(pid, SIGKILL)
        raise


def test_in_the_background_the_store_is_that_of_the_process_that_stays(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/channels/c"
    config = f"[pushd]\nstate_directory = {tmp_path}/state\ndurability = power\n{tcp('http', port)}"
    (tmp_path / "pushd.ini").write_text(config)
    with in_background(tmp_path) as pid:
        assert (tmp_path / "state" / "pushd.lock").read_text() == f"{pid}\n"
        assert request(url, "POST", b"one").status == 201
        second = twistd("-n", "--pidfile=", "pushd", "--config", "pushd.ini", directory=tmp_path)
        assert second.returncode == 1
    with in_background(tmp_path):
        events = request(f"{url}/events").json()["events"]
        assert [event["data"] for event in events] == ["one"]
    log = (tmp_path / "d.log").read_text()
    assert log.count("the store is closed") == 2
    assert "Traceback" not in log
    assert "not the one that was left" not in log
