"""HTTP/2 with other people's clients: pages and what goes with them, and events that are pushed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, request, running
from tests.e2e.programs import Program, eventually, program, talking_to

pytestmark = pytest.mark.timeout(120)

EVENTS = Path(__file__).parent / "clients" / "h2_events.mjs"
ASSETS = ["/demo.css", "/demo.js", "/feeds.js"]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as started:
        yield started


def run(name: str, *arguments: str) -> str:
    """Run a program to its end, and answer what it says."""
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def publish(daemon: Daemon, channel: str, count: int) -> None:
    """Publish numbered events, many at a time."""
    for begin in range(0, count, 500):
        drafts = ({"channel": channel, "data": f"{number} {'x' * 50}"} for number in range(begin, begin + 500))
        body = "".join(json.dumps(draft) + "\n" for draft in drafts).encode()
        assert request(f"{daemon.http}/publish", "POST", body).status == 200


def follow(client: Program, count: int) -> list[int]:
    """Answer the numbers of `count` events."""
    return [int(client.until("event ").split()[4]) for _ in range(count)]


class TestPages:
    def test_curl_gets_hints_and_the_page(self, daemon: Daemon) -> None:
        said = run("curl", "-ski", "--noproxy", "*", "--http2", f"{daemon.https}/")
        assert re.findall(r"(?m)^HTTP/2 (\d+)", said) == ["103", "200"]
        assert re.findall(r"(?m)^link: <(.*?)>", said) == ASSETS * 2

    def test_nghttp_is_promised_the_assets_before_the_page(self, daemon: Daemon) -> None:
        said = run("nghttp", "-nv", "--color", f"{daemon.https}/")
        said = re.sub(r"\x1b\[[0-9;]*m", "", said)
        frames = re.findall(r"recv (?:\(stream_id=\d+\) )?(:path: \S+|PUSH_PROMISE|DATA)", said)
        assert [frame[7:] for frame in frames if frame.startswith(":path")] == ASSETS
        assert frames.index("DATA") > max(at for at, frame in enumerate(frames) if frame == "PUSH_PROMISE")
        assert said.count(":status: 200") == 4

    def test_nghttp_without_push_gets_hints(self, daemon: Daemon) -> None:
        said = run("nghttp", "-nv", "--no-push", f"{daemon.https}/")
        assert "PUSH_PROMISE" not in said
        assert said.index(":status: 103") < said.index(":status: 200")
        assert re.findall(r" link: <(.*?)>", said) == ASSETS * 2

    def test_h2load_has_no_failure(self, daemon: Daemon) -> None:
        said = run("h2load", "-n", "2000", "-c", "5", "-m", "10", f"{daemon.https}/healthz")
        assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in said, said


class TestEvents:
    def test_node_gets_2000_pushed_events_in_order(self, daemon: Daemon) -> None:
        with talking_to([program("node"), str(EVENTS), "many", daemon.https]) as client:
            client.until("status 200")
            publish(daemon, "many", 2000)
            assert follow(client, 2000) == list(range(2000))
        eventually(lambda: daemon.has_subscribers("many", 0), "the client is gone")

    def test_node_that_refuses_every_third_gets_them_all(self, daemon: Daemon) -> None:
        with talking_to([program("node"), str(EVENTS), "refused", daemon.https, "refuse"]) as client:
            client.until("status 200")
            publish(daemon, "refused", 2000)
            assert sorted(follow(client, 2000)) == list(range(2000))

    def test_node_with_push_off_is_told(self, daemon: Daemon) -> None:
        with talking_to([program("node"), str(EVENTS), "news", daemon.https, "off"]) as client:
            assert client.until("status") == "status 409"
            assert "SETTINGS_ENABLE_PUSH" in client.until("said")

    def test_over_http_1_1_it_is_said_what_is_needed(self, daemon: Daemon) -> None:
        answer = request(f"{daemon.http}/push?channel=news")
        assert (answer.status, answer.json()["status"]) == (505, 505)
        assert "HTTP/2" in answer.json()["detail"]
