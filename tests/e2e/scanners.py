"""Other people's scanners: what they are told to do, and what they find."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.e2e.daemon import REPOSITORY, Daemon, environment, request
from tests.e2e.openapi import document
from tests.e2e.programs import program

__all__ = [
    "SECONDS_PER_MODULE",
    "Finding",
    "SlowAttack",
    "ending_streams",
    "scanner",
    "slowhttptest",
    "sslyze",
    "testssl",
    "unexplained",
    "wapiti",
]

SECONDS_PER_MODULE = float(os.environ.get("PUSHD_SCAN_SECONDS", "8"))
"""How long one module of wapiti may take at most."""

_MODULES = (
    "backup", "buster", "cookieflags", "crlf", "csp", "csrf", "exec", "file", "htaccess", "http_headers", "methods",
    "permanentxss", "redirect", "shellshock", "sql", "timesql", "upload", "xss",
)  # fmt: skip
"""Those of wapiti that make sense here; docs/scans.rst says why the others do not."""

_TESTSSL = ("-p", "-s", "-f", "-P", "-S", "-h", "-U", "-g", "--color", "0", "--warnings", "off", "--nodns", "none")
"""What it looks at: all but the ciphers one by one, and the clients that it simulates."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a scanner complains of."""

    what: str
    """What it calls it."""

    where: str
    """The request, or the part of TLS."""

    detail: str
    """What it says of it."""

    def __str__(self) -> str:
        """Write all of it, as the explanations of false alarms have to match it."""
        return f"{self.what}: {self.where}: {self.detail}"


def unexplained(findings: Sequence[Finding], explained: Mapping[str, str]) -> list[str]:
    """Return what was found but for false alarms: `explained` has expressions that match them, and why they are.

    All of it is printed.
    """
    rest = []
    for text in map(str, findings):
        reasons = [why for alarm, why in explained.items() if re.fullmatch(alarm, text)]
        print(f"{text}\n    (a false alarm: {reasons[0]})" if reasons else f"FOUND: {text}")
        if not reasons:
            rest.append(text)
    return rest


def scanner(package: str, name: str) -> str:
    """Return the path of a program that ``make scanners`` installs; without it skip, or fail, as `program` does."""
    path = REPOSITORY / "build" / "scanners" / package / "bin" / name
    if path.exists():
        return str(path)
    why = f"{name} is not installed; make scanners does that"
    if os.environ.get("PUSHD_TEST_NO_SKIP"):
        pytest.fail(why)
    pytest.skip(why)


def _run(command: Sequence[str], directory: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=directory,
        env=environment(directory),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
    )


# wapiti


@contextmanager
def ending_streams(daemon: Daemon, operator: Mapping[str, str]) -> Iterator[None]:
    """End every stream and poll as soon as it has begun: scanners wait for the end of a body."""
    enough = Event()

    def end() -> None:
        while not enough.wait(0.02):
            for transport in ("sse", "stream", "poll"):
                with suppress(OSError):
                    request(f"{daemon.http}/connections?transport={transport}", "DELETE", headers=operator)

    thread = Thread(target=end, daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join(30)


def wapiti(
    url: str, directory: Path, *, modules: Sequence[str] = _MODULES, token: str | None = None
) -> list[Finding]:
    """Let wapiti crawl from `url`, call the whole interface, and attack what it finds, with all `modules`."""
    interface, report = directory / "interface.json", directory / "wapiti.json"
    interface.write_text(json.dumps(document()), "utf-8")
    command = [scanner("wapiti", "wapiti"), "-u", f"{url}/", "--swagger", str(interface), "--scope", "domain"]
    command += ["-m", ",".join(modules), "-f", "json", "-o", str(report), "--flush-session", "--verify-ssl", "0"]
    command += ["--max-scan-time", "30", "--max-attack-time", str(SECONDS_PER_MODULE), "-t", "3", "-d", "5"]
    command += ["--store-session", str(directory / "session"), "--store-config", str(directory / "config")]
    command += ["--no-bugreport", "--endpoint", url, "--dns-endpoint", "localhost"]  # nothing goes to its makers
    if token is not None:
        command += ["-H", f"Authorization: Bearer {token}"]
    done = _run(command, directory, 60 + (len(modules) + 2) * (SECONDS_PER_MODULE + 5))
    assert done.returncode == 0, done.stdout + done.stderr
    for module in modules:
        assert f"Launching module {module}\n" in done.stdout, done.stdout
    skipped = re.findall(r"(\d+) requests were skipped due to network issues", done.stdout)
    assert sum(map(int, skipped)) == 0, done.stdout + done.stderr
    said = json.loads(report.read_text())
    return [
        Finding(
            f"{one['module']}: {name}", f"{one['method']} {one['path']} {one['parameter']}".strip(), one["info"]
        )
        for kind in ("vulnerabilities", "anomalies")
        for name, ones in said[kind].items()
        for one in ones
    ]


# TLS


def sslyze(place: str, directory: Path, authority: str) -> tuple[str, dict[str, Any]]:
    """Let sslyze examine `place`, a host and port, also against Mozilla's "intermediate".

    Answers what it says of that, and all that it has found.
    """
    report = directory / "sslyze.json"
    command = [scanner("sslyze", "sslyze"), place, "--mozilla_config=intermediate", "--json_out", str(report)]
    command += ["--certinfo", "--certinfo_ca_file", authority, "--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1"]
    command += ["--tlsv1_2", "--tlsv1_3", "--heartbleed", "--openssl_ccs", "--robot", "--reneg", "--compression"]
    command += ["--resum", "--early_data", "--elliptic_curves", "--fallback", "--http_headers"]
    done = _run(command, directory, 120)
    (server,) = json.loads(report.read_text())["server_scan_results"]
    assert server["scan_status"] == "COMPLETED", done.stdout + done.stderr
    return done.stdout.partition("COMPLIANCE AGAINST")[2], server["scan_result"]


def testssl(place: str, directory: Path, authority: str) -> list[Finding]:
    """Let testssl.sh examine `place`; return its findings other than OK."""
    report = directory / "testssl.json"
    command = [program("testssl"), *_TESTSSL, "--quiet", "--add-ca", authority, "--jsonfile", str(report), place]
    done = _run(command, directory, 240)
    said = json.loads(report.read_text())
    ids = {one["id"] for one in said}
    assert {"TLS1_3", "cipherlist_NULL", "heartbleed", "LUCKY13", "RC4"} <= ids, done.stdout + done.stderr
    fine = {"OK", "INFO"}
    return [
        Finding(one["severity"], one["id"], " ".join(one["finding"].split()))
        for one in said
        if one["severity"] not in fine
    ]


testssl.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for one of its own


# Slow clients


@dataclass(frozen=True, slots=True)
class SlowAttack:
    """What became of an attack by slowhttptest."""

    end: str
    """How it says that it ended."""

    available: tuple[bool, ...]
    """Whether the service was available, at each second."""

    connected: int
    """How many of the connections there were, at most."""


def slowhttptest(mode: str, url: str, *options: str, directory: Path, seconds: int) -> SlowAttack:
    """Attack `url` in one of the modes of slowhttptest, with 200 connections."""
    stem = directory / f"slow-{mode}"
    command = [program("slowhttptest"), f"-{mode}", "-u", url, *options, "-c", "200", "-r", "200"]
    command += ["-l", str(seconds), "-p", "3", "-g", "-o", str(stem), "-v", "1"]
    done = _run(command, directory, seconds + 60)
    end = re.search("Exit status: (.*)", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.stdout))
    assert end is not None, done.stdout + done.stderr
    with open(f"{stem}.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return SlowAttack(
        end[1].strip(),
        tuple(int(row["Service Available"]) > 0 for row in rows),
        max(int(row["Connected"]) for row in rows),
    )
