"""HTTP/2 with other people's clients: pages and what goes with them, and events that are pushed."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager

import httpx
import pytest

from tests.e2e.daemon import Daemon, request, running
from tests.e2e.programs import CLIENTS, Program, eventually, node, program, talking_to

pytestmark = pytest.mark.timeout(120)

ASSETS = ["/base.css", "/demo.css", "/demo.js", "/feeds.js"]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as started:
        yield started


def run(name: str, *arguments: str) -> str:
    """Run a program to its end, and answer what it says."""
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def node_http2(script: str, *arguments: str, **variables: str) -> AbstractContextManager[Program]:
    """Run one of the clients that use nothing but Node's own ``http2``."""
    return talking_to([program("node"), str(CLIENTS / script), *arguments], environment={**os.environ, **variables})


def publish(daemon: Daemon, channel: str, count: int) -> None:
    """Publish numbered events, many at a time."""
    for begin in range(0, count, 500):
        drafts = ({"channel": channel, "data": f"{number} {'x' * 50}"} for number in range(begin, begin + 500))
        body = "".join(json.dumps(draft) + "\n" for draft in drafts).encode()
        assert request(f"{daemon.http}/publish", "POST", body).status in (200, 207)


def follow(client: Program, count: int) -> list[int]:
    """Return the numbers of `count` events."""
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
        assert said.count(":status: 200") == 1 + len(ASSETS)

    def test_nghttp_without_push_gets_hints(self, daemon: Daemon) -> None:
        said = run("nghttp", "-nv", "--no-push", f"{daemon.https}/")
        assert "PUSH_PROMISE" not in said
        assert said.index(":status: 103") < said.index(":status: 200")
        assert re.findall(r" link: <(.*?)>", said) == ASSETS * 2

    def test_h2load_has_no_failure(self, daemon: Daemon) -> None:
        said = run("h2load", "-n", "2000", "-c", "5", "-m", "10", f"{daemon.https}/healthz")
        assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in said, said

    def test_node_gets_the_assets_before_the_end_of_the_page(self, daemon: Daemon) -> None:
        sizes = [len(request(daemon.http + asset).body) for asset in ASSETS]
        with node_http2("h2_page.mjs", f"{daemon.https}/", CA_PEM=daemon.certificate.read_text()) as client:
            said = list(client.lines())
        page = said[: said.index("end")]
        assert page[: len(ASSETS)] == [f"promised {asset}" for asset in ASSETS]
        assert "status 200 " in page
        pushed = [f"pushed {asset} 200 {size}" for asset, size in zip(ASSETS, sizes, strict=True)]
        assert sorted(line for line in said if line.startswith("pushed")) == sorted(pushed)

    def test_node_without_push_gets_the_same_list_in_hints(self, daemon: Daemon) -> None:
        with node_http2("h2_page.mjs", f"{daemon.https}/", "off", CA_PEM=daemon.certificate.read_text()) as client:
            said = list(client.lines())
        assert [line.split()[:2] for line in said] == [["informed", "103"], ["status", "200"], ["end"]]
        for line in said[:2]:
            assert re.findall("<(.*?)>", line) == ASSETS


class TestClients:
    """A stream, and the publishing of what comes on it."""

    def test_curl_follows_and_publishes(self, daemon: Daemon) -> None:
        common = ("-sS", "--noproxy", "*", "--http2", "--cacert", str(daemon.certificate), "--max-time", "30")
        with talking_to([program("curl"), "-N", "-i", *common, f"{daemon.https}/sse?channel=curl"]) as stream:
            assert stream.line().strip() == "HTTP/2 200"
            stream.until("data: {")
            answer = run("curl", *common, "-w", "%{http_version}", "-d", "hello", f"{daemon.https}/channels/curl")
            published, version = answer.split("\n")
            assert (json.loads(published)["subscribers"], version) == (1, "2")
            assert stream.until("data: ") == "data: hello"

    def test_httpx_follows_publishes_polls_and_reads_the_history(self, daemon: Daemon) -> None:
        trusted = ssl.create_default_context(cafile=str(daemon.certificate))
        client = httpx.Client(base_url=daemon.https, http2=True, verify=trusted, trust_env=False, timeout=15)
        datas = [str(number) for number in range(50)]
        with client, client.stream("GET", "/sse?channel=httpx") as stream:
            assert (stream.status_code, stream.http_version) == (200, "HTTP/2")
            lines = (line for line in stream.iter_lines() if line.startswith("data: "))
            assert next(lines).startswith("data: {")
            for data in datas:
                answer = client.post("/channels/httpx", content=data)
                assert (answer.status_code, answer.http_version) == (201, "HTTP/2")
                assert answer.json()["subscribers"] == 1
                assert next(lines) == f"data: {data}"
            poll = client.get("/poll?channel=httpx&since=earliest&limit=30").json()
            rest = client.get("/poll", params={"channel": "httpx", "since": poll["position"]}).json()
            history = client.get("/channels/httpx/events").json()
            for events in (poll["events"] + rest["events"], history["events"]):
                assert [event["data"] for event in events] == datas

    def test_undici_follows_and_publishes(self, daemon: Daemon) -> None:
        """It has a connection of its own for requests that it may not repeat."""
        datas = [str(number) for number in range(50)]
        with node("h2_fetch.mjs", daemon.https, "undici", CA_PEM=daemon.certificate.read_text()) as client:
            client.until("status 200 text/event-stream")
            client.until("event {")
            for data in datas:
                client.say(data)
            assert [client.until("event ") for _ in datas] == [f"event {data}" for data in datas]
            client.finish()
            said = [*client.heard, *client.lines()]
            assert client.process.wait(10) == 0
        assert {line for line in said if line.startswith("connected")} == {"connected h2"}
        published = [line for line in said if line.startswith("published")]
        assert published == [f"published 201 {offset}" for offset in range(1, 51)]
        assert said[-1] == "over AbortError"


class TestEvents:
    def test_node_gets_2000_pushed_events_in_order(self, daemon: Daemon) -> None:
        with node_http2("h2_events.mjs", "many", daemon.https) as client:
            client.until("status 200")
            publish(daemon, "many", 2000)
            assert follow(client, 2000) == list(range(2000))
        eventually(lambda: daemon.has_subscribers("many", 0), "the client is gone")

    def test_node_that_refuses_every_third_gets_them_all(self, daemon: Daemon) -> None:
        with node_http2("h2_events.mjs", "refused", daemon.https, "refuse") as client:
            client.until("status 200")
            publish(daemon, "refused", 2000)
            assert sorted(follow(client, 2000)) == list(range(2000))

    def test_node_with_push_off_is_told(self, daemon: Daemon) -> None:
        with node_http2("h2_events.mjs", "news", daemon.https, "off") as client:
            assert client.until("status") == "status 409"
            problem = json.loads(client.until("said").removeprefix("said "))
            assert problem["status"] == 409
            assert "SETTINGS_ENABLE_PUSH" in problem["detail"]

    def test_over_http_1_1_it_is_said_what_is_needed(self, daemon: Daemon) -> None:
        answer = request(f"{daemon.http}/push?channel=news")
        assert (answer.status, answer.json()["status"]) == (505, 505)
        assert "HTTP/2" in answer.json()["detail"]
