"""WebSocket over HTTP/2 with other people's clients: undici, and Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from selenium.webdriver import Chrome

from tests.e2e.browser import chromium, network_log
from tests.e2e.daemon import Daemon, request, running
from tests.e2e.programs import Program, eventually, node

pytestmark = pytest.mark.timeout(120)

ON = "[http2]\nwebsocket = yes\n[limits]\nheartbeat = 1s\n"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(ON, counts=True) as started:
        yield started


def connections(daemon: Daemon) -> int:
    """Return how many connections there are besides the one that asks."""
    return int(daemon.counts["connections"]) - 1


def undici(daemon: Daemon, *queries: str) -> AbstractContextManager[Program]:
    """Open WebSockets with undici over one connection."""
    uris = [f"{daemon.wss}?{query}" for query in queries]
    return node("websocket_h2.mjs", *uris, CA_PEM=daemon.certificate.read_text())


def say(client: Program, socket: int, **what: object) -> None:
    """Have one of the WebSockets do something."""
    client.say(json.dumps({"socket": socket, **what}))


def heard(client: Program, text: str) -> dict[str, Any]:
    """Return the next line with `text`, read; the data of a message are read too."""
    line: dict[str, Any] = json.loads(client.until(text))
    return {**line, **json.loads(line["data"])} if "data" in line else line


class TestUndici:
    def test_two_share_a_connection_and_talk(self, daemon: Daemon) -> None:
        with undici(daemon, "channel=one", "channel=two") as client:
            eventually(lambda: daemon.has_subscribers("two", 1), "both are subscribed")
            assert connections(daemon) == 1
            daemon.publish("one", "to the first")
            assert heard(client, "to the first")["socket"] == 0
            say(client, 0, send=json.dumps({"type": "publish", "channel": "two", "data": "x" * 500_000}))
            event = heard(client, "xxx")
            assert (event["socket"], event["type"], event["data"]) == (1, "event", "x" * 500_000)

    def test_the_end_of_one_is_not_that_of_the_other(self, daemon: Daemon) -> None:
        with undici(daemon, "channel=three", "channel=four") as client:
            eventually(lambda: daemon.has_subscribers("four", 1), "both are subscribed")
            assert request(f"{daemon.http}/channels/three", "DELETE").status == 204
            closed = heard(client, "closed")
            assert closed == {"socket": 0, "closed": 1000, "reason": "the channel was deleted", "wasClean": True}
            eventually(lambda: daemon.has_subscribers("three", 0), "the first is gone")
            daemon.publish("four", "still there")
            assert heard(client, "still there")["socket"] == 1
            say(client, 1, close=1000)
            assert heard(client, "closed") == {"socket": 1, "closed": 1000, "reason": "", "wasClean": True}
            assert client.process.wait(10) == 0
        eventually(lambda: connections(daemon) == 0, "the connection has ended")

    def test_it_is_told_when_the_daemon_stops(self) -> None:
        with running(ON, counts=True) as daemon, undici(daemon, "channel=news") as client:
            client.until("subscribed")
            daemon.stop()
            closed = heard(client, "closed")
            assert closed == {"socket": 0, "closed": 1001, "reason": "the server is going away", "wasClean": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium("--ignore-certificate-errors", logs_network=True) as driver:
        yield driver


OPEN = """
    const [channel, done] = arguments;
    const socket = new WebSocket(`wss://${location.host}/ws?format=raw&channel=${channel}`);
    window.messages = [];
    socket.onmessage = ({ data }) => window.messages.push(data);
    socket.onopen = () => { window.socket = socket; done("open"); };
    socket.onclose = ({ code, reason }) => { window.ended = [code, reason]; done("closed"); };
"""


def open_in(browser: Chrome, daemon: Daemon, channel: str) -> int:
    """Open a page, and from it a WebSocket; answer the status of the handshake."""
    network_log(browser, "")
    browser.get(f"{daemon.https}/healthz")
    assert browser.execute_async_script(OPEN, channel) == "open"
    eventually(lambda: daemon.has_subscribers(channel, 1), "the page is subscribed")
    (answered,) = network_log(browser, "Network.webSocketHandshakeResponseReceived")
    return int(answered["response"]["status"])


def messages(browser: Chrome) -> list[str]:
    """Return what the page has got."""
    return list(browser.execute_script("return window.messages"))


class TestChromium:
    def test_a_page_has_its_websocket_over_http_2(self, browser: Chrome, daemon: Daemon) -> None:
        assert open_in(browser, daemon, "pages") == 200
        daemon.publish("pages", "to the page")
        eventually(lambda: messages(browser) == ["to the page"], "the page has got it")
        browser.execute_script("window.socket.send('from the page ' + 'x'.repeat(300_000))")
        eventually(lambda: len(messages(browser)) == 2, "the page has got its own")
        assert messages(browser)[1] == "from the page " + "x" * 300_000
        assert request(f"{daemon.http}/channels/pages", "DELETE").status == 204
        eventually(lambda: browser.execute_script("return window.ended"), "the page is told")
        assert browser.execute_script("return window.ended") == [1000, "the channel was deleted"]
        assert browser.execute_async_script("fetch('/healthz').then(({ status }) => arguments[0](status))") == 200

    def test_without_the_switch_it_has_it_over_http_1_1(self, browser: Chrome) -> None:
        with running("", counts=True) as daemon:
            assert open_in(browser, daemon, "pages") == 101
