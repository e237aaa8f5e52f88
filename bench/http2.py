"""Measure pushd's HTTP/2 against that of twisted.web, one after the other, on this machine.

Usage: python bench/http2.py [rounds]

Needs h2load and curl, and for twisted.web's HTTP/2 the package ``priority``. Prints medians and ratios: requests
per second of a small resource, the server's CPU time for one event to 99 event streams of one connection, and
the throughput of a file of 50 MB.
"""

from __future__ import annotations

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
ROOT = Path(__file__).parent.parent

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
    """A server that runs until it is told to stop."""

    def __init__(self, command: list[str], port: int) -> None:
        self.port = port
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(100):
            time.sleep(0.1)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
        raise SystemExit(f"no server at port {port}: {command}")

    def cpu_s(self) -> float:
        """Answer how much CPU time it has taken, in seconds."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


def requests_per_s(server: Server) -> float:
    """Measure small requests, ten at once on each of ten connections."""
    command = ["h2load", "-n", "20000", "-c", "10", "-m", "10", f"https://127.0.0.1:{server.port}/healthz"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "20000 succeeded" in out and "protocol: h2" in out, out
    found = re.search(r"([\d.]+) req/s", out)
    assert found is not None
    return float(found[1])


def bytes_per_s(server: Server) -> float:
    """Measure a file of 50 MB."""
    wanted = "%{http_version} %{http_code} %{size_download} %{speed_download}"
    url = f"https://127.0.0.1:{server.port}/file.bin"
    command = ["curl", "-sk", "--http2", "-o", "/dev/null", "-w", wanted, url]
    out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.split()
    assert out[:3] == ["2", "200", str(FILE_BYTES)], out
    return float(out[3])


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Make a frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def connect(port: int) -> ssl.SSLSocket:
    """Begin HTTP/2 with windows that never close."""
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


def cpu_per_event_s(server: Server) -> float:
    """Measure the CPU time of one event to 99 event streams of a connection, less that of publishing it to none."""

    def publish(link: ssl.SSLSocket, first: int, wait: Callable[[int], None]) -> float:
        pseudo = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", f"127.0.0.1:{server.port}"),
            (":path", "/channels/news"),
        ]
        encoder, before = Encoder(), server.cpu_s()
        for n in range(EVENTS):
            stream_id = first + 2 * n
            block = encoder.encode([*pseudo, ("content-length", "100")])
            link.sendall(frame(1, 4, stream_id, block) + frame(0, 1, stream_id, b"x" * 100))
            answer = b""
            while b"\0" not in answer or not _ended(answer, stream_id):
                answer += link.recv(65536)
            wait(n + 1)
        return server.cpu_s() - before

    publisher = connect(server.port)
    alone = publish(publisher, 1, lambda n: None)
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
    together = publish(publisher, 1 + 2 * EVENTS, wait)
    link.close()
    publisher.close()
    return (together - alone) / EVENTS


def _ended(answer: bytes, stream_id: int) -> bool:
    """Tell whether the end of a stream is in what came, roughly: END_STREAM on its DATA."""
    return b"\0\1" + stream_id.to_bytes(4, "big") in answer


def main() -> None:
    """Run."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
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
        for _ in range(rounds):
            for name, (command, port) in commands.items():
                server = Server(command, port)
                try:
                    for measure, take in measures.items():
                        found[measure][name].append(take(server))
                finally:
                    server.stop()
        for measure, values in found.items():
            medians = {name: statistics.median(numbers) for name, numbers in values.items()}
            ratio = medians["pushd"] / medians["twisted.web"]
            print(
                f"{measure:14}"
                + "".join(f"{name} {m:.6g}   " for name, m in medians.items())
                + f"ratio {ratio:.3g}"
            )


if __name__ == "__main__":
    main()
