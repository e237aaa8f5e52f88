"""The daemon does what ``docs/openapi.yaml`` says: schemathesis calls all of it, rightly and wrongly."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.e2e.daemon import REPOSITORY, Daemon, request, running, tcp
from tests.e2e.programs import eventually
from tests.rigs.openapi import description, operations
from tests.rigs.tokens import SECRET, token

pytestmark = pytest.mark.timeout(400)

LIMITS = "[limits]\npoll_timeout = 1s\n[log]\nrequests = yes\n"
GUARDED = f"{LIMITS}[auth]\nanonymous =\n[key:test]\nalgorithm = HS256\nsecret = {SECRET}\n"
EVERYTHING = token({"sub": "tester", "pushd": {"publish": ["**"], "subscribe": ["**"], "operator": True}})
TEST_CASES = 800
"""How many there are at least."""

UNSEEN = {("subscribePush", 200)}
"""Successes that are not seen: schemathesis does not speak HTTP/2."""


@contextmanager
def serving(url: str) -> Iterator[None]:
    """Give each subscriber an event, text or not, and end its stream, unless its channel begins with ``held-``."""
    rights, enough = {"Authorization": f"Bearer {EVERYTHING}"}, Event()

    def serve(connection: Mapping[str, Any], data: bytes) -> None:
        for channel in connection["channels"]:
            request(f"{url}/channels/{quote(channel, safe='')}", "POST", data, rights)
        if connection["transport"] != "poll":
            request(f"{url}/connections/{connection['connection']}", "DELETE", headers=rights)

    def go_on() -> None:
        count = 0
        while not enough.wait(0.02):
            with suppress(OSError):
                for connection in request(f"{url}/connections?limit=1000", headers=rights).json()["connections"]:
                    if not connection["channels"][:1] or not connection["channels"][0].startswith("held-"):
                        count += 1
                        serve(connection, b"\xff" if count % 2 else b"hello")

    thread = Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join(30)


def schemathesis(
    url: str, described: Mapping[str, Any], directory: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """Let schemathesis test the server at `url` against a description."""
    document = directory / "openapi.json"
    document.write_text(json.dumps(described), "utf-8")
    command = [sys.executable, "-m", "schemathesis.cli"]
    command += ["--config-file", f"{Path(__file__).parent}/schemathesis.toml"]
    command += ["run", str(document), "--url", url, "--no-color", *options]
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TOKEN": EVERYTHING}
    done = subprocess.run(
        command, cwd=directory, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )
    print(done.stdout + done.stderr)
    return done


@contextmanager
def held(config: str) -> Iterator[Daemon]:
    """Run a daemon; see afterwards that nothing is wrong with it, and that all that is described was called."""
    with running(config, listeners=tcp("http"), counts=True) as daemon:
        with serving(daemon.http):
            yield daemon
        for token in ({}, {"Authorization": f"Bearer {EVERYTHING}"}):  # right and wrong lines in one body are rare
            request(f"{daemon.http}/publish", "POST", b'{"channel":"mixed","data":"x"}\nwrong\n', token)
        assert not daemon.has_ended
        eventually(lambda: daemon.counts["connections"] == 1, "nobody is connected", 30)
        fault = re.search(r"(?m)^.*(Traceback|Unhandled|fault in pushd|dropped )", daemon.log)
        assert fault is None, daemon.log[fault.start() : fault.end() + 3000] if fault else ""
        assert daemon.stderr == ""
        wanted = {(one.name, status) for one in operations() for status in one.statuses if status < 400}
        assert wanted - answered(daemon) == UNSEEN


def answered(daemon: Daemon) -> set[tuple[str, int]]:
    """Return which operations the daemon has answered with what, by its log."""
    answers = set(re.findall(r"(?m)\b([1-5]\d\d) ([A-Z]+) (/\S*) from .*, \d+ bytes in", daemon.log))
    patterns = [(one, re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(one.path)))) for one in operations()]
    return {
        (operation.name, int(status))
        for status, method, path in answers
        for operation, pattern in patterns
        if operation.method == method and pattern.fullmatch(path)
    }


def assert_finds_nothing(done: subprocess.CompletedProcess[str]) -> None:
    """See that schemathesis did all that it can, and found nothing."""
    assert done.returncode == 0
    assert f"Tested: {len(list(operations()))}\n" in done.stdout
    for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}\n" in done.stdout
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated is not None and int(generated[1]) >= TEST_CASES


class TestSchemathesis:
    """All checks of schemathesis."""

    def test_with_a_token_it_finds_nothing(self, tmp_path: Path) -> None:
        described = deepcopy(description())
        described["security"].remove({})  # nobody may do anything without a token
        with held(GUARDED) as daemon:
            assert_finds_nothing(schemathesis(daemon.http, described, tmp_path))
            answer = request(f"{daemon.http}/publish", "POST", b'{"channel":"a","data":"b"}\n')
            assert answer.json()["status"] == 401, "a client that may publish to no channel is refused as a whole"

    def test_without_a_token_where_none_is_needed_it_finds_nothing(self, tmp_path: Path) -> None:
        with held(LIMITS) as daemon:
            assert_finds_nothing(schemathesis(daemon.http, description(), tmp_path))

    def test_it_does_find_what_is_wrong(self, tmp_path: Path) -> None:
        described = deepcopy(description())
        channel = described["paths"]["/channels/{channel}"]
        del channel["delete"]
        del channel["post"]["responses"]["201"]
        channel["get"]["responses"]["200"]["headers"] = {"X-Missing": {"required": True, "schema": {}}}
        described["components"]["schemas"]["ChannelState"]["properties"]["retained"] = {"type": "string"}
        described["security"].remove({})
        only = ("--phases", "examples,coverage", "--include-path", "/channels/{channel}")
        with running(LIMITS, listeners=tcp("http")) as daemon:
            done = schemathesis(daemon.http, described, tmp_path, *only)
        assert done.returncode == 1
        found = set(re.findall(r"(?m)^- ST\d+ (.*)$", done.stdout))
        assert found >= {
            "API accepts requests without authentication",
            "Allow header mismatch",
            "Missing required response headers",
            "Response violates schema",
            "Undocumented status code",
            "Wrong response to undeclared method",
        }


class TestOverHttp2:
    """What is described and can be seen over HTTP/2 only."""

    def test_push_refuses_clients_that_take_no_pushes(self) -> None:
        with running() as daemon, httpx.Client(http2=True, verify=False) as client:
            answer = client.get(f"{daemon.https}/push?channel=news")
        assert answer.http_version == "HTTP/2"
        assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
