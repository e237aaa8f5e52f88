"""What pages can do with the cookie of somebody who looks at them, in headless Chromium.

Cookies know no ports: a page at another port of the same machine is of another origin, and its requests bring the
cookie all the same, whatever its ``SameSite`` is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import Any

import jwt
import pytest
from selenium.webdriver import Chrome

from tests.e2e.browser import another_site, chromium, console_errors
from tests.e2e.daemon import Daemon, request, running, tcp
from tests.e2e.programs import eventually

pytestmark = pytest.mark.timeout(120)

SECRET = "a secret that has at least 32 bytes"
SECTIONS = f"""
[auth]
anonymous =
cookie = session
origins = {{origins}}
[key:test]
algorithm = HS256
secret = {SECRET}
[channels:secret]
presence = subscribers
"""

ATTEMPTS = """
    const [url, token, pauseMs, done] = arguments;
    const channel = `${url}/channels/secret`;
    const result = {};
    const attempt = async (name, action) => {
        const late = new Promise((resolve) => setTimeout(resolve, 4000, "nothing"));
        try { result[name] = await Promise.race([action(), late]); } catch (error) { result[name] = "refused"; }
    };
    const pause = () => new Promise((resolve) => setTimeout(resolve, pauseMs));
    const cookie = { credentials: "include" };
    const shown = { credentials: "omit", headers: { Authorization: `Bearer ${token}` } };
    const status = async (target, options) => (await fetch(target, options)).status;
    const read = async (target, options) => (await fetch(target, options)).json();
    const kind = async (target, options) => (await fetch(target, { ...cookie, ...options, mode: "no-cors" })).type;
    const hear = (source, listen) => new Promise((resolve, reject) => {
        source.onerror = reject;
        listen(resolve);
    });
    (async () => {
        await attempt("read", async () => (await read(`${channel}/events?limit=1`, cookie)).events[0].data);
        await attempt("blind read", () => kind(`${channel}/events`, {}));
        await attempt("state", () => status(channel, cookie));
        await pause();
        await attempt("post", () => status(channel, { ...cookie, method: "POST", body: "by a cookie" }));
        await attempt("blind post", () => kind(channel, { method: "POST", body: "by a cookie" }));
        await attempt("poll", () => status(`${url}/poll?channel=secret&since=earliest`, cookie));
        await attempt("stream", () => status(`${url}/stream?channel=secret`, cookie));
        await attempt("sse", () => {
            const source = new EventSource(`${url}/sse?channel=secret&since=earliest`, { withCredentials: true });
            return hear(source, (resolve) => { source.onmessage = (event) => resolve(event.data); });
        });
        await pause();
        await attempt("ws", () => {
            const socket = new WebSocket(`${url.replace("http", "ws")}/ws?channel=secret&since=earliest`);
            return hear(socket, (resolve) => {
                socket.onmessage = (event) => {
                    const message = JSON.parse(event.data);
                    if (message.type === "event") resolve(message.data);
                };
            });
        });
        await attempt("ws publish", () => {
            const socket = new WebSocket(`${url.replace("http", "ws")}/ws?format=raw&channel=secret`);
            return hear(socket, (resolve) => {
                socket.onopen = () => socket.send("by a cookie, over WebSocket");
                socket.onmessage = (event) => resolve(event.data);
            });
        });
        await attempt("own token", () => status(`${channel}/events?limit=5`, shown));
        await attempt("delete", () => status(channel, { ...cookie, method: "DELETE" }));
        done(result);
    })();
"""

EVERYTHING = {
    "read": "the secret",
    "blind read": "opaque",
    "state": 200,
    "post": 201,
    "blind post": "opaque",
    "poll": 200,
    "stream": 200,
    "sse": "the secret",
    "ws": "the secret",
    "ws publish": "by a cookie, over WebSocket",
    "own token": 200,
    "delete": 204,
}
"""What a page can do that may use the cookie; a page of another origin sees nothing of what it asks for blindly."""

LINES_APART_MS = 2500
"""After how long a refusal has a line of its own: that of the second before may be the number of those left out."""

REFUSALS = {
    "": ("is not this server's own", 11),
    "*": ("a token in a cookie from a page of", 8),
    "https://app.example": ("is not this server's own", 11),
}
"""Why a page of another origin is refused, by what lets in pages, and how often at least; one names no origin."""

NOTHING = dict.fromkeys(EVERYTHING, "refused") | {"blind read": "opaque", "blind post": "opaque"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver


def token(**rights: object) -> str:
    """Make a token."""
    return jwt.encode({"sub": "the victim", "exp": int(time()) + 600, "pushd": rights}, SECRET, "HS256")


ROOT = token(publish=["**"], subscribe=["**"], operator=True)
READER = token(subscribe=["secret"])


def ask(daemon: Daemon, path: str, method: str = "GET", body: bytes | None = None) -> Any:
    """Ask the daemon with every right; answer the JSON."""
    answer = request(f"{daemon.http}{path}", method, body, {"Authorization": f"Bearer {ROOT}"})
    assert answer.status in (200, 201), answer
    return answer.json()


@contextmanager
def victim(browser: Chrome, origins: str) -> Iterator[Daemon]:
    """Run a daemon, for which the browser has a cookie that gives every right."""
    with running(SECTIONS.format(origins=origins), listeners=tcp("http")) as daemon:
        ask(daemon, "/channels/secret", "POST", b"the secret")
        browser.get(f"{daemon.http}/healthz")
        browser.add_cookie({"name": "session", "value": ROOT, "sameSite": "Lax"})
        try:
            yield daemon
            assert ROOT not in daemon.log
            assert READER not in daemon.log
        finally:
            browser.delete_all_cookies()
            browser.get("about:blank")
            console_errors(browser)


def attempts(browser: Chrome, page: str, daemon: Daemon, pause_ms: int = 0) -> Mapping[str, object]:
    """Let a page try all requests, with a pause before publishing and before the first WebSocket."""
    browser.get(page)
    result: dict[str, object] = browser.execute_async_script(ATTEMPTS, daemon.http, READER, pause_ms)
    browser.get("about:blank")
    return result


def datas(daemon: Daemon) -> list[str]:
    """Return what is in the channel."""
    return [event["data"] for event in ask(daemon, "/channels/secret/events")["events"]]


@pytest.mark.parametrize("origins", ["", "*", "https://app.example"])
def test_a_page_of_another_origin_can_do_nothing(browser: Chrome, origins: str, tmp_path: Path) -> None:
    with another_site(tmp_path) as evil, victim(browser, origins) as daemon:
        wanted = NOTHING | ({"own token": 200} if origins == "*" else {})
        assert attempts(browser, evil, daemon, LINES_APART_MS) == wanted
        assert datas(daemon) == ["the secret"]
        assert ask(daemon, "/connections")["connections"] == []
        detail, count = REFUSALS[origins]
        eventually(lambda: daemon.logged(detail) >= count, f"{count} refusals are written or counted")
        assert "a token in a cookie requires an Origin, which is missing from a request that is" in daemon.log
        assert "403 GET /channels/secret/events" in daemon.log
        assert "403 POST /channels/secret" in daemon.log
        assert "403 GET /ws" in daemon.log


def test_a_listed_page_can_do_what_the_token_gives(browser: Chrome, tmp_path: Path) -> None:
    with another_site(tmp_path) as listed, victim(browser, listed) as daemon:
        result = attempts(browser, listed, daemon)
        assert result == EVERYTHING
        assert datas(daemon) == []
        assert " 403 " not in daemon.log.replace("403 GET /channels/secret/events", "")  # what was read blindly


def test_its_own_page_can_too(browser: Chrome) -> None:
    with victim(browser, "") as daemon:
        result = attempts(browser, daemon.http, daemon)
        assert result == EVERYTHING | {"blind read": "basic", "blind post": "basic"}
        assert " 403 " not in daemon.log


def test_with_other_rights_it_can_do_what_these_give(browser: Chrome) -> None:
    with victim(browser, "") as daemon:
        browser.add_cookie({"name": "session", "value": READER, "sameSite": "Lax"})
        result = attempts(browser, daemon.http, daemon)
        assert json.dumps(result) != json.dumps(EVERYTHING)
        assert (result["read"], result["sse"], result["ws"]) == ("the secret",) * 3
        assert (result["post"], result["delete"]) == (403, 403)
        eventually(lambda: "no right to publish to 'secret'" in daemon.log, "it says so")
        assert datas(daemon) == ["the secret"]
