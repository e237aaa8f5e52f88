"""An ``EventSource`` of headless Chromium outlives an outage of the application."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome

from tests.e2e.browser import another_site, chromium
from tests.e2e.daemon import Daemon, running
from tests.e2e.hook_server import HookServer, hook_server
from tests.e2e.programs import eventually

pytestmark = pytest.mark.timeout(120)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CONFIG = """
[auth]
anonymous = publish, subscribe, operator
origins = {origin}
[limits]
retry = 500ms
reconnect_spread = 0s
[hooks]
before_subscribe = {url}/ask
secret = {secret}
timeout = 1s
breaker_failures = 1
breaker_pause = 500ms
"""

FOLLOW = """
    const [url] = arguments;
    const seen = window.seen = { states: [], datas: [], closed: [] };
    const source = window.source = new EventSource(url);
    source.onopen = (event) => { if (!(event instanceof MessageEvent)) seen.states.push("open"); };
    source.onerror = () => seen.states.push(source.readyState);
    source.onmessage = (event) => seen.datas.push(event.data);
    source.addEventListener("pushd.closed", (event) => seen.closed.push(JSON.parse(event.data)));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def application() -> Iterator[HookServer]:
    with hook_server(SECRET) as server:
        yield server


@pytest.fixture
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with another_site(tmp_path_factory.mktemp("site")) as url:
        yield url


@pytest.fixture
def daemon(application: HookServer, page: str) -> Iterator[Daemon]:
    application.up()
    application.rules()
    with running(CONFIG.format(url=application.url, secret=SECRET, origin=page)) as running_daemon:
        yield running_daemon


def seen(browser: Chrome) -> dict[str, Any]:
    """Return what the page has seen."""
    found: dict[str, Any] = browser.execute_script("return window.seen")
    return found


class TestOutage:
    @pytest.mark.parametrize("is_own", [True, False])
    def test_it_comes_back_when_the_application_does(
        self, browser: Chrome, application: HookServer, daemon: Daemon, page: str, is_own: bool
    ) -> None:
        browser.get(daemon.urls[0] if is_own else page)
        browser.execute_script(FOLLOW, f"{daemon.urls[0]}/sse?channel=a")
        eventually(lambda: daemon.has_subscribers("a", 1), "it is subscribed")
        application.down()
        self.cut(daemon)
        eventually(lambda: len(seen(browser)["closed"]) >= 3, "it was closed, and refused twice")
        daemon.publish("a", "meanwhile")
        assert {closed.get("status") for closed in seen(browser)["closed"][1:]} == {503}
        assert browser.execute_script("return window.source.readyState") != 2
        application.up()
        eventually(lambda: daemon.has_subscribers("a", 1), "it is back")
        daemon.publish("a", "afterwards")
        eventually(lambda: seen(browser)["datas"] == ["meanwhile", "afterwards"], "it has missed nothing")
        assert 2 not in seen(browser)["states"]
        browser.execute_script("window.source.close()")

    def test_what_is_final_ends_it(
        self, browser: Chrome, application: HookServer, daemon: Daemon, page: str
    ) -> None:
        application.rules({"when": {}, "status": 403})
        browser.get(page)
        browser.execute_script(FOLLOW, f"{daemon.urls[0]}/sse?channel=a")
        eventually(lambda: seen(browser)["states"] == [2], "it has given up")

    def cut(self, daemon: Daemon) -> None:
        """Close all subscribers."""
        connection = HTTPConnection(urlsplit(daemon.urls[0]).netloc, timeout=10)
        connection.request("DELETE", "/connections?transport=sse")
        assert json.loads(connection.getresponse().read())["closed"] >= 1
        connection.close()
        ends = monotonic() + 5
        while daemon.has_subscribers("a", 1) and monotonic() < ends:
            sleep(0.05)
