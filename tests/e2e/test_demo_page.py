"""The demo page, in headless Chromium."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.e2e.browser import another_site, chromium, console_errors
from tests.e2e.daemon import Daemon, free_port, request, running, tcp, twistd
from tests.e2e.programs import eventually, program

pytestmark = pytest.mark.timeout(120)

PANES = ("ws", "sse")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(listeners=tcp("http")) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver


class Page:
    """The demo page, as somebody sees it."""

    def __init__(self, driver: Chrome, daemon: Daemon, channel: str, *, connects: bool = True) -> None:
        """Open it at `channel` and, if it `connects` by itself, wait until both panes have."""
        self.driver = driver
        self.daemon = daemon
        self.channel = channel
        console_errors(driver)
        driver.get(f"{daemon.urls[0]}/?channel={channel}")
        if connects:
            self.wait_for("open")

    def find(self, selector: str) -> WebElement:
        """Return an element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Return the text of an element, whether it is in view or not."""
        return str(self.driver.execute_script("return document.querySelector(arguments[0]).innerText", selector))

    def states(self) -> list[str]:
        """Return the states of the panes."""
        script = "return arguments[0].map((name) => document.getElementById(`${name}-state`).dataset.state)"
        return list(self.driver.execute_script(script, PANES))

    def wait_for(self, state: str) -> None:
        """Wait until both panes are in `state`."""
        eventually(lambda: self.states() == [state] * 2, f"both panes are {state}", 30)

    def events(self, pane: str) -> list[dict[str, Any]]:
        """Return what a pane shows, oldest first: id, data, and whether it is marked as replayed."""
        script = """
            const items = document.querySelectorAll(`#${arguments[0]}-events > li.event`);
            return [...items].reverse().map((item) => ({
                id: item.dataset.id,
                data: item.querySelector(".data").textContent,
                replayed: item.dataset.replayed !== undefined,
                tags: [...item.querySelectorAll(".tag")].map((tag) => tag.textContent),
            }))"""
        return list(self.driver.execute_script(script, pane))

    def datas(self, pane: str) -> list[str]:
        """Return the data of what a pane shows, oldest first."""
        return [event["data"] for event in self.events(pane)]

    def wait_for_datas(self, *datas: str) -> None:
        """Wait until both panes show exactly these."""
        self.wait_in_both(lambda pane: self.datas(pane) == list(datas), f"it shows {datas}")

    def wait_in_both(self, condition: Callable[[str], object], what: str) -> None:
        """Wait until `condition` is true of both panes."""
        for pane in PANES:
            eventually(partial(condition, pane), f"{what} in {pane}", 30)

    def notices(self, pane: str) -> list[str]:
        """Return what a pane says besides events, newest first."""
        script = (
            "return [...document.querySelectorAll(`#${arguments[0]}-events > .notice`)].map((it) => it.innerText)"
        )
        return list(self.driver.execute_script(script, pane))

    def publish(self, data: str, *, way: str = "http", event: str = "") -> None:
        """Fill in the form, and send it."""
        for selector, text in (("#data", data), ("#event", event)):
            field = self.find(selector)
            field.clear()
            field.send_keys(text)
        self.find(f"input[name=way][value={way}]").click()
        self.find("#publish button.primary").click()


@pytest.fixture
def page(browser: Chrome, daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Open the page at a channel of the test's own; at the end, see that nothing went wrong in it."""
    opened = Page(browser, daemon, re.sub(r"\W+", "-", request.node.name).strip("-"))
    yield opened
    assert console_errors(browser) == []
    assert not opened.find("#problem").is_displayed()
    browser.get("about:blank")


def curl(daemon: Daemon, channel: str, data: str) -> None:
    """Publish with curl."""
    url = f"{daemon.http}/channels/{channel}"
    command = [program("curl"), "-sS", "--fail", "--noproxy", "*", "--max-time", "20", "-d", data, url]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


INTRUSION = """
    const [done] = arguments;
    const violated = new Set();
    document.addEventListener("securitypolicyviolation", (event) => violated.add(event.effectiveDirective));
    const add = (name, attributes) => document.body.append(Object.assign(document.createElement(name), attributes));
    add("script", { textContent: "window.intruded = 1" });
    add("script", { src: "http://127.0.0.1:9/x.js" });
    add("img", { src: "http://127.0.0.1:9/x.png" });
    add("iframe", { src: "/" });
    document.body.insertAdjacentHTML("beforeend", `<p style="color: red" onclick="window.intruded = 1">x</p>`);
    document.body.lastElementChild.click();
    fetch("http://127.0.0.1:9/").catch(() => 0);
    setTimeout(() => done([...violated].sort()), 500);
"""


class TestPage:
    """What can be done with it."""

    def test_what_curl_publishes_shows_in_both_panes(self, page: Page) -> None:
        curl(page.daemon, page.channel, "from curl")
        curl(page.daemon, page.channel, "<b>bold</b> & größer")
        page.wait_for_datas("from curl", "<b>bold</b> & größer")
        assert [event["replayed"] for event in page.events("ws")] == [False, False]

    @pytest.mark.parametrize("way", ["http", "ws"])
    def test_the_form_publishes(self, page: Page, way: str) -> None:
        page.publish("typed here", way=way)
        page.wait_for_datas("typed here")
        eventually(lambda: page.text("#publish-answer").startswith("Published "), "the answer shows")
        assert page.events("ws")[0]["id"] in page.text("#publish-answer")
        assert "at offset 1" in page.text("#publish-answer")

    @pytest.mark.parametrize("way", ["http", "ws"])
    def test_the_form_publishes_with_a_type(self, page: Page, way: str) -> None:
        page.publish("typed", way=way, event="greeting")
        page.wait_for_datas("typed")
        assert [page.events(pane)[0]["tags"] for pane in PANES] == [["greeting"], ["greeting"]]

    @pytest.mark.parametrize("way", ["http", "ws"])
    def test_a_refusal_is_shown(self, browser: Chrome, way: str) -> None:
        with running("[limits]\nevent_size = 1KiB\n", listeners=tcp("http")) as daemon:
            page = Page(browser, daemon, "demo")
            page.publish("x" * 1025, way=way)
            eventually(lambda: "Not published. 413" in page.text("#publish-answer"), "the answer says why")
            assert page.datas("ws") == []
            browser.get("about:blank")
            console_errors(browser)

    @pytest.mark.parametrize("pane", PANES)
    def test_what_a_pane_missed_is_replayed_once(self, page: Page, pane: str) -> None:
        curl(page.daemon, page.channel, "before")
        page.wait_for_datas("before")
        page.find(f"#{pane}-toggle").click()
        eventually(lambda: page.daemon.has_subscribers(page.channel, 1), "the pane is gone")
        for data in ("missed", "missed too"):
            curl(page.daemon, page.channel, data)
        page.find(f"#{pane}-toggle").click()
        page.wait_for("open")
        eventually(lambda: page.daemon.has_subscribers(page.channel, 2), "the pane is back")
        eventually(lambda: any("recovered" in notice for notice in page.notices(pane)), "it says so")
        curl(page.daemon, page.channel, "live")
        page.wait_for_datas("before", "missed", "missed too", "live")
        assert [event["replayed"] for event in page.events(pane)] == [False, True, True, False]

    def test_the_clock_moves(self, page: Page) -> None:
        page.find("#clock").click()
        page.wait_in_both(lambda pane: len(set(page.datas(pane))) >= 2, "the clock moves")
        times = page.datas("ws")
        assert times == sorted(times)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", times[0])

    def test_another_channel_can_be_followed(self, page: Page) -> None:
        curl(page.daemon, page.channel, "here")
        page.wait_for_datas("here")
        field = page.find("#channel")
        field.clear()
        field.send_keys("another")
        page.find("#subscribe").click()
        eventually(lambda: page.daemon.has_subscribers(page.channel, 0), "it has left the first")
        eventually(lambda: page.daemon.has_subscribers("another", 2), "it follows the other")
        page.wait_for("open")
        curl(page.daemon, page.channel, "unheard")
        curl(page.daemon, "another", "there")
        page.wait_for_datas("there")

    def test_after_a_restart_it_comes_back_and_has_lost_nothing(self, browser: Chrome) -> None:
        port = free_port()
        with running("[limits]\nreconnect_spread = 0s\n", listeners=tcp("http", port)) as daemon:
            page = Page(browser, daemon, "demo")
            curl(daemon, "demo", "before")
            page.wait_for_datas("before")
            daemon.stop()
            eventually(lambda: "open" not in page.states(), "both panes notice")
            daemon.start()
            page.wait_for("open")
            eventually(lambda: daemon.has_subscribers("demo", 2), "both panes are back")
            curl(daemon, "demo", "after")
            page.wait_for_datas("before", "after")
            page.wait_in_both(lambda pane: "position lost" not in str(page.notices(pane)), "nothing was lost")
            browser.get("about:blank")
            console_errors(browser)

    def test_after_a_restart_it_comes_back_and_says_that_the_position_was_lost(self, browser: Chrome) -> None:
        port, state = free_port(), "state_directory = {directory}/state\nstore = memory\n"
        with running("[limits]\nreconnect_spread = 0s\n", listeners=tcp("http", port), state=state) as daemon:
            page = Page(browser, daemon, "demo")
            curl(daemon, "demo", "before")
            page.wait_for_datas("before")
            assert console_errors(browser) == []
            daemon.stop()
            eventually(lambda: "open" not in page.states(), "both panes notice")
            daemon.start()
            page.wait_for("open")
            eventually(lambda: daemon.has_subscribers("demo", 2), "both panes are back")
            page.wait_in_both(lambda pane: "position lost" in str(page.notices(pane)), "the position was lost")
            curl(daemon, "demo", "after")
            page.wait_for_datas("before", "after")
            assert not page.find("#problem").is_displayed()
            browser.get("about:blank")
            assert all("ERR_CONNECTION" in text or "WebSocket" in text for text in console_errors(browser))

    def test_what_is_not_its_own_does_not_run_in_it(self, page: Page) -> None:
        """Its Content-Security-Policy, as the browser understands it; the page itself never breaks it."""
        violated = page.driver.execute_async_script(INTRUSION)
        assert violated == [
            "connect-src",
            "frame-src",
            "img-src",
            "script-src-attr",
            "script-src-elem",
            "style-src-attr",
        ]
        assert page.driver.execute_script("return window.intruded") is None
        said = console_errors(page.driver)
        assert said
        assert all("Content Security Policy" in text for text in said), said

    def test_nobody_puts_it_into_a_frame(self, browser: Chrome, daemon: Daemon, tmp_path: Path) -> None:
        with another_site(tmp_path) as origin:
            (tmp_path / "frame.html").write_text(f"<!doctype html><iframe src='{daemon.http}/'></iframe>")
            browser.get(f"{origin}/frame.html")
            eventually(lambda: "frame-ancestors" in str(console_errors(browser)), "the browser refuses")
            browser.get("about:blank")

    def test_with_a_token_it_does_what_the_token_allows(self, browser: Chrome) -> None:
        key = f"[key:app]\nalgorithm = HS256\nsecret = {'s' * 32}\n[auth]\nanonymous =\n"
        with running(key, listeners=tcp("http")) as daemon:
            arguments = ("--token", "--publish", "**", "--subscribe", "**")
            made = twistd("pushd", "--config", str(daemon.config), *arguments, directory=daemon.directory)
            page = Page(browser, daemon, "secret", connects=False)
            page.find("#token").send_keys(made.stdout.strip())
            page.find("#subscribe").click()
            page.wait_for("open")
            page.publish("over http")
            page.publish("over ws", way="ws")
            page.wait_for_datas("over http", "over ws")
            assert page.find("#curl").text.startswith('curl -H "Authorization: Bearer $TOKEN" --data-raw ')
            browser.get("about:blank")
            console_errors(browser)  # of the requests before there was a token

    def test_https_works_too(self, browser: Chrome) -> None:
        with running(listeners=tcp("https", tls=True)) as daemon:
            browser.execute_cdp_cmd("Security.enable", {})
            browser.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": True})
            try:
                page = Page(browser, daemon, "tls")
                page.publish("in secret", way="ws")
                page.wait_for_datas("in secret")
                assert page.find("#curl").text.startswith("curl -k --data-raw 'in secret' ")
            finally:
                browser.get("about:blank")
                browser.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": False})
                console_errors(browser)


ATTACK = """
    const [url, pauseMs, done] = arguments;
    const target = `${url}/channels/attack`;
    const result = {};
    const attempt = async (name, action) => {
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
        try { result[name] = await action(); } catch (error) { result[name] = "refused"; }
    };
    (async () => {
        await attempt("post", async () => (await fetch(target, { method: "POST", body: "x" })).status);
        await attempt("blind post", async () => {
            return (await fetch(target, { method: "POST", body: "x", mode: "no-cors" })).type;
        });
        await attempt("preflighted", async () => {
            return (await fetch(target, { method: "POST", body: "x", headers: { "Event-Type": "t" } })).status;
        });
        await attempt("delete", async () => (await fetch(target, { method: "DELETE" })).status);
        await attempt("read", async () => (await fetch(`${url}/channels`)).status);
        await attempt("sse", () => new Promise((resolve, reject) => {
            const source = new EventSource(`${url}/sse?channel=attack`);
            source.onopen = () => resolve("open");
            source.onerror = () => { source.close(); reject(); };
        }));
        await attempt("ws", () => new Promise((resolve, reject) => {
            const socket = new WebSocket(`${url.replace("http", "ws")}/ws?channel=attack`);
            socket.onopen = () => resolve("open");
            socket.onerror = reject;
        }));
        done(result);
    })();
"""


LINES_APART_MS = 1200
"""After how long a refusal has a line of its own."""


class TestAnotherOrigin:
    """What a web page can do to the daemon on the machine of somebody who looks at it."""

    def test_its_pages_can_neither_publish_nor_listen(
        self, browser: Chrome, daemon: Daemon, tmp_path: Path
    ) -> None:
        daemon.publish("attack", "mine")
        with another_site(tmp_path) as origin:
            browser.get(origin)
            result = browser.execute_async_script(ATTACK, daemon.http, LINES_APART_MS)
            browser.get("about:blank")
        assert result.pop("blind post") == "opaque"  # which is sent, and its answer hidden
        assert set(result.values()) == {"refused"}, result
        state = daemon.get("/channels/attack")
        assert (state["latest"]["offset"], state["subscribers"]) == (1, 0)
        advice = f"to allow its pages: [auth] origins = {origin}"
        for asked in ("POST /channels/attack", "OPTIONS /channels/attack", "GET /sse", "GET /ws"):
            assert re.search(rf"403 {asked} from .*{re.escape(advice)} \([0-9a-f]{{16}}\)\n", daemon.log), asked
        eventually(lambda: daemon.logged(advice) >= 7, "each refusal is written or counted")
        console_errors(browser)

    def test_what_the_advice_says_lets_them_in(self, browser: Chrome, tmp_path: Path) -> None:
        with (
            another_site(tmp_path) as origin,
            running(f"[auth]\norigins = {origin}\n", listeners=tcp("http")) as daemon,
        ):
            browser.get(origin)
            result = browser.execute_async_script(ATTACK, daemon.http, 0)
            browser.get("about:blank")
        assert result == {
            "post": 201,
            "blind post": "opaque",
            "preflighted": 201,
            "delete": 204,
            "read": 200,
            "sse": "open",
            "ws": "open",
        }
        console_errors(browser)

    def test_another_name_for_this_machine_is_refused(self, daemon: Daemon) -> None:
        """As after DNS rebinding."""
        host = f"rebound.example:{urlsplit(daemon.http).port}"
        answer = request(f"{daemon.http}/channels/attack", "POST", b"x", {"Host": host, "Origin": f"http://{host}"})
        assert answer.status == 403
        assert "[auth] hosts = rebound.example" in daemon.log


SIZES = {"wide": (1280, 900), "narrow": (390, 844)}


class TestLooks:
    """Pictures, for people."""

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("size", SIZES)
    def test_nothing_is_cut_off(self, page: Page, size: str, scheme: str, tmp_path: Path) -> None:
        driver = page.driver
        width, height = SIZES[size]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "narrow"}
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        try:
            page.publish("a first event")
            page.publish('{"temperature": 21.5, "place": "the roof"}', way="ws", event="reading")
            curl(page.daemon, page.channel, "a word that does not end: " + "0123456789" * 30)
            curl(page.daemon, page.channel, "\n".join(f"line {number}" for number in range(20)))
            page.wait_in_both(lambda pane: len(page.events(pane)) == 4, "all shows")
            for pane in PANES:
                page.find(f"#{pane}-toggle").click()
            page.wait_for("closed")
            curl(page.daemon, page.channel, "while nobody looked")
            for pane in PANES:
                page.find(f"#{pane}-toggle").click()
            page.wait_for("open")
            page.wait_in_both(lambda pane: len(page.events(pane)) == 5, "all shows")
            page.wait_in_both(lambda pane: "recovered" in str(page.notices(pane)), "it says that nothing is lost")
            driver.execute_script("scrollTo(0, 0)")
            (tmp_path / f"{size}-{scheme}.png").write_bytes(driver.get_screenshot_as_png())
            overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert driver.execute_script(overflow) <= 0
        finally:
            driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
