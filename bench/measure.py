"""One measurement: a fresh server on one core, the load client on another."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.cases import Case
from bench.servers import PEERS, Place, Running, Server, free_port, running

__all__ = ["Bench", "load_arguments"]

_CORES = sorted(os.sched_getaffinity(0))
_SERVER_CORE, _CLIENT_CORE = _CORES[0], _CORES[-1]
_TIMEOUT_S = 300.0
_STREAMS = 100


class Bench:
    """The programs and the certificate used by all measurements."""

    def __init__(self, built: Path, certificate: Path, key: Path) -> None:
        """Use the programs in `built`, and one certificate for all TLS."""
        self._built = built
        self._certificate = certificate
        self._key = key

    def measure(self, case: Case, peer: str) -> Mapping[str, Any]:
        """Measure a peer; return the results of the load client, or ``error`` with the reason."""
        return self.measure_server(case, PEERS[peer])

    def measure_server(self, case: Case, server: Server) -> Mapping[str, Any]:
        """Measure any server, as `measure` does."""
        try:
            with self._place() as place, running(server, place, _pinned(_SERVER_CORE)) as started:
                return self._load(case, server, started)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return {"error": str(error)}

    def check(self, peer: str) -> None:
        """Start a peer and stop it again; raise `OSError` if it does not run."""
        with self._place() as place, running(PEERS[peer], place, _pinned(_SERVER_CORE)):
            pass

    @contextmanager
    def _place(self) -> Iterator[Place]:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            yield Place(Path(folder), self._built, free_port(), free_port(), self._certificate, self._key)

    def _load(self, case: Case, server: Server, started: Running) -> Mapping[str, Any]:
        arguments = load_arguments(case, server, started.place)
        pids = ",".join(map(str, started.pids()))
        command = [*_pinned(_CLIENT_CORE), str(self._built / "load"), *arguments]
        command += [f"--pids={pids}", *(["--stay-awake"] if _SERVER_CORE != _CLIENT_CORE else []), case.mode]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        if done.returncode:
            raise OSError(done.stderr.strip() or f"the load client ended with {done.returncode}")
        said: Mapping[str, Any] = json.loads(done.stdout)
        return said


def _pinned(core: int) -> list[str]:
    return ["taskset", "--cpu-list", str(core)]


def load_arguments(case: Case, server: Server, place: Place) -> list[str]:
    """Return the options of the load client for a case."""
    arguments = [
        f"--port={place.tls_port if case.tls else place.port}",
        f"--subscribers={case.subscribers}",
        f"--window={min(case.subscribers, case.connecting)}",
        f"--stalled={case.stalled}",
        f"--in-flight={','.join(map(str, case.in_flight))}",
        f"--rate={case.rate}",
        f"--seconds={case.seconds}",
        f"--settle={case.settle_s}",
        f"--payload={case.payload_bytes}",
    ]
    if case.tls:
        arguments.append("--tls")
    if case.transport in server.paths and case.mode != "publish":
        arguments += [f"--kind={case.transport}", f"--path={server.paths[case.transport]}", f"--streams={_STREAMS}"]
    if case.mode != "connect":
        way = server.ways[case.way]
        arguments += [
            f"--publish-port={place.port}",
            f"--way={way.kind}",
            f"--publish-path={way.path}",
            f"--prefix={way.prefix}",
            f"--suffix={way.suffix}",
            f"--batch={case.batch}",
            f"--outstanding={case.outstanding}",
            f"--publishers={_publishers(case, way.kind)}",
        ]
    return arguments


def _publishers(case: Case, kind: str) -> int:
    """Return the number of publishing connections; on each, one POST at a time awaits its response."""
    if case.mode == "fanout" and kind == "post":
        return max(case.in_flight) + 1
    return case.publishers
