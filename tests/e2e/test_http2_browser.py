"""HTTP/2 with Chromium: many streams on one connection, and Early Hints."""

from __future__ import annotations

import json
import os
import re
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from selenium.webdriver import Chrome

from tests.e2e.browser import chromium, console_errors, network_log
from tests.e2e.daemon import Daemon, running
from tests.e2e.programs import eventually

pytestmark = pytest.mark.timeout(120)

LONG_AGO = 1_500_000_000
"""When the files of the site were changed: so long ago that a browser keeps them a while without asking again."""

LINKS = ["</app.css>; rel=preload; as=style", "</app.js>; rel=preload; as=script"]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A daemon with a site of its own."""
    with tempfile.TemporaryDirectory(prefix="pushd-site-") as path:
        for name, text in {
            "index.html": "<!doctype html><link rel=icon href=data:,><title>empty</title>",
            "page.html": '<!doctype html><link rel=icon href=data:,><link rel=stylesheet href="/app.css">'
            '<title>page</title><script src="/app.js"></script>',
            "app.css": "body { color: rgb(1, 2, 3); }",
            "app.js": "window.loaded = true;",
        }.items():
            (Path(path) / name).write_text(text)
            os.utime(Path(path) / name, (LONG_AGO, LONG_AGO))
        sections = (
            f"[site]\nroot = {path}\n[push:/page.html]\nresources = /app.css, /app.js\n[log]\nrequests = yes\n"
        )
        with running(sections) as started:
            yield started


@pytest.fixture(scope="module")
def browser(daemon: Daemon) -> Iterator[Chrome]:
    """Chromium, which trusts the daemon's certificate: it keeps nothing of a site that it does not trust."""
    certificate = x509.load_pem_x509_certificate(daemon.certificate.read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    trusted = b64encode(sha256(key).digest()).decode()
    with chromium(f"--ignore-certificate-errors-spki-list={trusted}", logs_network=True) as driver:
        yield driver


FOLLOW = """
    const channel = arguments[0];
    window.got = {};
    const take = (name, data) => (window.got[name] ??= []).push(data);
    const source = new EventSource(`/sse?channel=${channel}`);
    source.onmessage = ({ data }) => take("sse", data);
    source.addEventListener("pushd.closed", () => source.close());
    const follow = async (name) => {
        const response = await fetch(`/stream?channel=${channel}`);
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let text = ""; ; ) {
            const { value, done } = await reader.read();
            if (done) return;
            const parts = (text + value).split("\\n");
            text = parts.pop();
            for (const line of parts.filter(Boolean).map((part) => JSON.parse(part))) {
                if (line.type === "event") take(name, line.data);
            }
        }
    };
    const poll = async (name) => {
        for (let since = "latest"; ; ) {
            const response = await fetch(`/poll?channel=${channel}&since=${since}`, { cache: "no-store" });
            if (response.status !== 200) return;
            const { events, position } = await response.json();
            events.forEach(({ data }) => take(name, data));
            since = position;
        }
    };
    for (let number = 0; number < 7; number++) follow(`stream ${number}`);
    for (let number = 0; number < 3; number++) poll(`poll ${number}`);
"""
"""More than the six connections that a browser has for HTTP/1.1."""

FETCH = """
    const [path, options, done] = arguments;
    fetch(path, options).then(async (response) => done([response.status, await response.text()]));
"""

RESOURCES = """
    return performance.getEntriesByType("resource")
        .map((entry) => [new URL(entry.name).pathname, entry.nextHopProtocol, entry.initiatorType]);
"""


def fetch(browser: Chrome, path: str, **options: str) -> tuple[int, str]:
    """Let the page send a request; return the status and the body."""
    status, body = browser.execute_async_script(FETCH, path, options)
    return status, body


class TestStreams:
    def test_all_of_a_page_share_one_connection_and_get_every_event(self, browser: Chrome, daemon: Daemon) -> None:
        before = len(daemon.log)
        browser.get(f"{daemon.https}/")
        browser.execute_script(FOLLOW, "shared")
        eventually(lambda: daemon.has_subscribers("shared", 11), "all are subscribed")
        datas = [str(number) for number in range(40)]
        for data in datas[:20]:
            daemon.publish("shared", data)
        for data in datas[20:]:
            assert fetch(browser, "/channels/shared", method="POST", body=data)[0] == 201
        eventually(
            lambda: browser.execute_script("return Object.values(got)") == [datas] * 11, "each has got every event"
        )
        assert fetch(browser, "/channels/shared", method="DELETE")[0] == 204
        eventually(lambda: len(re.findall("200 GET /s", daemon.log[before:])) == 8, "the streams have ended")
        peers = re.findall(r"\d+ GET /(?:sse|stream|poll|) from (\S+),", daemon.log[before:])
        assert len(peers) > 10
        assert len(set(peers)) == 1
        eventually(
            lambda: [path for path, *_ in browser.execute_script(RESOURCES)].count("/stream") == 7, "all are listed"
        )
        assert {protocol for _, protocol, _ in browser.execute_script(RESOURCES)} == {"h2"}
        assert all("/poll" in error and "404" in error for error in console_errors(browser))

    def test_pushes_it_does_not_take_and_is_told(self, browser: Chrome, daemon: Daemon) -> None:
        browser.get(f"{daemon.https}/")
        status, body = fetch(browser, "/push?channel=news")
        assert status == 409
        assert "SETTINGS_ENABLE_PUSH" in json.loads(body)["detail"]


class TestEarlyHints:
    def test_what_a_page_needs_is_fetched_by_the_hints(self, browser: Chrome, daemon: Daemon) -> None:
        for _ in range(
            8
        ):  # an answer that is there at once can overtake Chromium, which then passes over the hints
            before = len(daemon.log)
            browser.execute_cdp_cmd("Network.clearBrowserCache", {})
            browser.get(f"{daemon.https}/page.html")
            seen = network_log(browser, "Network.responseReceivedEarlyHints")
            if seen:
                break
        assert [hints["headers"]["link"].split("\n") for hints in seen] == [LINKS]
        script = "return [getComputedStyle(document.body).color, window.loaded]"
        assert browser.execute_script(script) == ["rgb(1, 2, 3)", True]
        resources = browser.execute_script(RESOURCES)
        assert sorted(resources) == [["/app.css", "h2", "early-hints"], ["/app.js", "h2", "early-hints"]]
        asked = re.findall(r"(\d+ GET \S+)", daemon.log[before:])
        assert sorted(asked) == ["200 GET /app.css", "200 GET /app.js", "200 GET /page.html"]
