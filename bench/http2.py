"""Compare pushd's HTTP/2 with that of twisted.web, and server push with SSE.

Usage: python bench/http2.py [rounds]

Needs h2load, curl and node, and for twisted.web's HTTP/2 the package ``priority``. Prints medians and ratios of the
CPU time of the server, which depends little on other programs. For both servers: small requests per second, bytes
per second of a file of 50 MB, and the cost of one event to 99 event streams of one connection. For pushd: the cost
of one event to Node, by server push and by SSE. A server has one core, its clients the others.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hpack import Encoder

STREAMS = 99
EVENTS = 200
FILE_BYTES = 50_000_000
PUSHED = 2000
PACE_S = 0.002
BENCH = Path(__file__).parent
ROOT = BENCH.parent
CORE, *OTHER_CORES = sorted(os.sched_getaffinity(0))

TWISTED = """
import sys
from twisted.internet import reactor
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.static import File
from pushd import tls

open_requests = []

class Health(Resource):
    isLeaf = True
    def render_GET(self, request):
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        return b\'{"status":"ok","connections":10,"subscribers":0,"channels":0}\'

class Events(Resource):
    isLeaf = True
    def render_GET(self, request):
        request.setHeader(b"content-type", b"text/event-stream")
        request.write(b": hello\\n\\n")
        open_requests.append(request)
        return NOT_DONE_YET

class Publish(Resource):
    isLeaf = True
    def render_POST(self, request):
        block = b"id: 1\\ndata: " + request.content.read() + b"\\n\\n"
        for other in open_requests:
            other.write(block)
        return b"{}"

channels = Resource()
channels.putChild(b"news", Publish())
root = Resource()
for name, page in (b"healthz", Health()), (b"sse", Events()), (b"channels", channels):
    root.putChild(name, page)
root.putChild(b"file.bin", File(sys.argv[2] + "/file.bin"))
site = Site(root)
assert b"h2" in site.acceptableProtocols(), "twisted.web needs the package priority for HTTP/2"
options = tls.load(*tls.self_signed(sys.argv[2] + "/state"))
reactor.listenTCP(int(sys.argv[1]), TLSMemoryBIOFactory(options, False, site), interface="127.0.0.1")
reactor.run()
"""

CONFIG = """
[pushd]
state_directory = {folder}/state
[listen:https]
endpoint = tcp:{port}:interface=127.0.0.1
tls = yes
[site]
root = {folder}
[log]
level = warn
"""


class Server:
    """A running server."""

    def __init__(self, command: list[str], port: int) -> None:
        self.port = port
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        self._process = subprocess.Popen(
            ["taskset", "-c", str(CORE), *command],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(100):
            time.sleep(0.1)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
        raise SystemExit(f"no server at port {port}: {command}")

    def cpu_s(self) -> float:
        """Return the CPU time of the process, in seconds; ``/proc/PID/stat`` has only steps of 10 ms."""
        clock = ctypes.c_int()
        error = ctypes.CDLL(None).clock_getcpuclockid(self._process.pid, ctypes.byref(clock))
        assert not error, os.strerror(error)
        return time.clock_gettime(clock.value)

    def stop(self) -> None:
        """Stop the server."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


def requests_per_s(server: Server) -> float:
    """Return how many small requests it serves per second of CPU time, ten at once on each of ten connections."""
    before = server.cpu_s()
    command = ["h2load", "-n", "20000", "-c", "10", "-m", "10", f"https://127.0.0.1:{server.port}/healthz"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "20000 succeeded" in out and "protocol: h2" in out, out
    return 20000 / (server.cpu_s() - before)


def bytes_per_s(server: Server) -> float:
    """Return how many bytes of a file of 50 MB it serves per second of CPU time."""
    before = server.cpu_s()
    wanted = "%{http_version} %{http_code} %{size_download}"
    url = f"https://127.0.0.1:{server.port}/file.bin"
    command = ["curl", "-sk", "--http2", "-o", "/dev/null", "-w", wanted, url]
    out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.split()
    assert out == ["2", "200", str(FILE_BYTES)], out
    return FILE_BYTES / (server.cpu_s() - before)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def connect(port: int) -> ssl.SSLSocket:
    """Open an HTTP/2 connection with the largest flow-control windows."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    link = context.wrap_socket(socket.create_connection(("127.0.0.1", port)))
    assert link.selected_alpn_protocol() == "h2"
    window = (2**31 - 1 - 65535).to_bytes(4, "big")
    link.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, b"\0\4" + (2**30).to_bytes(4, "big"))
        + frame(4, 1, 0, b"")
        + frame(8, 0, 0, window)
    )
    return link


class Publisher:
    """A publisher with an HTTP/2 connection of its own."""

    def __init__(self, port: int) -> None:
        self._link = connect(port)
        self._encoder = Encoder()
        self._pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", f"127.0.0.1:{port}")]
        self._stream_id = 1

    def publish(self, channel: str) -> str:
        """Publish 100 bytes and wait for the response; return the event id, or "" without one."""
        stream_id = self._stream_id
        self._stream_id += 2
        block = self._encoder.encode([*self._pseudo, (":path", f"/channels/{channel}"), ("content-length", "100")])
        self._link.sendall(frame(1, 4, stream_id, block) + frame(0, 1, stream_id, b"x" * 100))
        answer = b""
        while b"\0" not in answer or not _ended(answer, stream_id):
            answer += self._link.recv(65536)
        found = re.search(rb'"id":"([^"]+)"', answer)
        return found[1].decode() if found is not None else ""

    def close(self) -> None:
        """Close the connection."""
        self._link.close()


def cpu_per_event_s(server: Server) -> float:
    """Return the CPU time of one event to 99 event streams of one connection, without that of publishing."""

    def publish(wait: Callable[[int], None]) -> float:
        before = server.cpu_s()
        for n in range(EVENTS):
            publisher.publish("news")
            wait(n + 1)
        return server.cpu_s() - before

    publisher = Publisher(server.port)
    alone = publish(lambda n: None)
    link = connect(server.port)
    encoder = Encoder()
    pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", f"127.0.0.1:{server.port}")]
    for n in range(STREAMS):
        block = encoder.encode([*pseudo, (":path", "/sse?channel=news")])
        link.sendall(frame(1, 5, 2 * n + 1, block))
    got = 0
    marker = b"data: " + b"x" * 100
    tail = b""

    def wait(n: int) -> None:
        nonlocal got, tail
        while got < n * STREAMS:
            data = tail + link.recv(262144)
            got += data.count(marker)
            cut = data.rfind(marker)
            tail = data[cut + len(marker) :] if cut >= 0 else data
            tail = tail[-200:]

    time.sleep(1)
    together = publish(wait)
    link.close()
    publisher.close()
    return (together - alone) / EVENTS


def _ended(answer: bytes, stream_id: int) -> bool:
    """Return whether the received bytes contain the last DATA frame of a stream.

    This searches for END_STREAM and the stream id, and parses no frames.
    """
    return b"\0\1" + stream_id.to_bytes(4, "big") in answer


def cpu_of_deliveries_s(server: Server) -> dict[str, float]:
    """Return the CPU time of one event to a Node client, by SSE and by server push, without that of publishing.

    Both use one connection, a hundred events in turn, so that other programs disturb both alike. The pauses between
    events make each a write of its own.
    """
    publisher = Publisher(server.port)
    published: dict[str, list[str]] = {"nobody": [], "sse": [], "push": []}
    taken = dict.fromkeys(published, 0.0)
    command = ["node", str(BENCH / "subscriber.mjs"), f"https://127.0.0.1:{server.port}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        assert node.stdout.readline() == "open\n"
        for _ in range(PUSHED // 100):
            for channel, ids in published.items():
                before, begin = server.cpu_s(), time.monotonic()
                for n in range(100):
                    time.sleep(max(0.0, begin + n * PACE_S - time.monotonic()))
                    ids.append(publisher.publish(channel))
                time.sleep(10 * PACE_S)
                taken[channel] += server.cpu_s() - before
        time.sleep(1)  # for late and duplicate events
        came = json.loads(node.communicate(timeout=10)[0])
    publisher.close()
    for way in "sse", "push":
        assert came[way] == published[way], f"{len(came[way])} came by {way}, or not in order"
    return {way: (taken[way] - taken["nobody"]) / PUSHED for way in ("sse", "push")}


def main() -> None:
    """Measure, and print the results."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    os.sched_setaffinity(0, OTHER_CORES or [CORE])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "file.bin").write_bytes(os.urandom(FILE_BYTES))
        Path(folder, "twisted_site.py").write_text(TWISTED)
        Path(folder, "pushd.ini").write_text(CONFIG.format(folder=folder, port=28443))
        twistd = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "pushd", "--config"]
        commands = {
            "pushd": ([*twistd, f"{folder}/pushd.ini"], 28443),
            "twisted.web": ([sys.executable, f"{folder}/twisted_site.py", "28444", folder], 28444),
        }
        measures = {"requests/s": requests_per_s, "50 MB, B/s": bytes_per_s, "CPU s/event": cpu_per_event_s}
        found: dict[str, dict[str, list[float]]] = {m: {name: [] for name in commands} for m in measures}
        delivered: dict[str, list[float]] = {"push": [], "sse": []}
        for _ in range(rounds):
            for name, (command, port) in commands.items():
                server = Server(command, port)
                try:
                    for measure, take in measures.items():
                        found[measure][name].append(take(server))
                    if name == "pushd":
                        for way, cpu_s in cpu_of_deliveries_s(server).items():
                            delivered[way].append(cpu_s)
                finally:
                    server.stop()
        for measure, values in {**found, "CPU s/delivery": delivered}.items():
            medians = {name: statistics.median(numbers) for name, numbers in values.items()}
            first, second = medians.values()
            print(
                f"{measure:15}"
                + "".join(f"{name} {m:.6g}   " for name, m in medians.items())
                + f"ratio {first / second:.3g}"
            )


if __name__ == "__main__":
    main()
