"""The status page, in headless Chromium."""

from __future__ import annotations

import re
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.browser import another_site, chromium, console_errors
from tests.e2e.daemon import Answer, Daemon, free_port, request, running, tcp
from tests.e2e.programs import eventually

pytestmark = pytest.mark.timeout(120)

SECRET = "the secret of the tests of the status page"
GUARDED = (
    "[site]\ndemo = no\n[limits]\nreconnect_spread = 0s\n[auth]\nanonymous =\ncookie = session\nleeway = 0s\n"
    "[key:app]\nalgorithm = HS256\nsecret_file = {directory}/app.secret\n"
)

SCRIPT = "<script>window.intruded = 1</script>"
REVERSED = "\u202efdp.exe"
HOSTILE = [
    SCRIPT,
    '"><img src=x onerror="window.intruded = 1">',
    REVERSED,
    "قناة/الأخبار",
    "x" * 64,
    "日本語",
    "a b",
]
"""Names that somebody may choose."""


def token(user: str = "olga", lasts_s: float = 300, *, operator: bool = True) -> str:
    """Make one."""
    rights = {"publish": ["**"], "subscribe": ["**"], "operator": operator}
    return jwt.encode({"sub": user, "exp": time.time() + lasts_s, "pushd": rights}, SECRET, "HS256")


@contextmanager
def guarded(listeners: str = tcp("http")) -> Iterator[Daemon]:
    """Run a daemon that wants tokens."""
    with running(GUARDED, listeners=listeners, starts=False) as started:
        (started.directory / "app.secret").write_text(SECRET)
        (started.directory / "app.secret").chmod(0o600)
        started.start()
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with guarded() as started:
        yield started


def ask(daemon: Daemon, method: str, path: str, body: bytes | None = None) -> Answer:
    """Make a request that may do everything."""
    return request(daemon.http + path, method, body, {"Authorization": f"Bearer {token('backend')}"})


def publish(daemon: Daemon, channel: str, data: str = "x") -> None:
    """Publish an event."""
    assert ask(daemon, "POST", f"/channels/{quote(channel, safe='')}", data.encode()).status == 201


def subscribe(daemon: Daemon, user: str, *channels: str) -> ClientConnection:
    """Subscribe over a WebSocket."""
    query = "&".join(f"channel={quote(channel, safe='')}" for channel in channels)
    headers = {"Authorization": f"Bearer {token(user)}"}
    return connect(f"{daemon.ws}?{query}", additional_headers=headers, proxy=None)


class Page:
    """The status page, as somebody sees it."""

    def __init__(self, driver: Chrome, daemon: Daemon, path: str = "/status") -> None:
        """Open it, as somebody who was not here before."""
        self.driver = driver
        self.daemon = daemon
        driver.get("about:blank")
        driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        driver.get(f"{daemon.urls[0]}{path}")
        driver.execute_script("sessionStorage.clear()")
        driver.get(f"{daemon.urls[0]}{path}")

    def find(self, selector: str) -> WebElement:
        """Return an element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def shows(self, selector: str) -> bool:
        """Return whether an element can be seen."""
        return self.find(selector).is_displayed()

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(self.driver.execute_script("return document.querySelector(arguments[0]).innerText", selector))

    def sign_in(self, shown: str | None = None) -> None:
        """Show a token, that of an operator if no other is `shown`."""
        eventually(lambda: self.shows("#token"), "it asks for a token")
        self.find("#token").send_keys(token() if shown is None else shown)
        self.find("#sign-in button").click()

    def come_in(self) -> None:
        """Show a token, and wait for what it is shown for."""
        self.sign_in()
        self.wait()

    def wait(self) -> None:
        """Wait until it is live."""
        eventually(lambda: self.text("#state") == "Live" and self.shows("#status"), "it is live")

    def counters(self) -> dict[str, str]:
        """Return the value of each figure."""
        script = """return Object.fromEntries([...document.querySelectorAll(".figure")].map(
            (figure) => [figure.querySelector("dt").textContent, figure.querySelector(".value").textContent]))"""
        return dict(self.driver.execute_script(script))

    def rows(self, table: str) -> list[list[str]]:
        """Return the texts of the rows of a table."""
        script = """return [...document.querySelectorAll(`#${arguments[0]} tr`)].map(
            (row) => [...row.cells].map((cell) => cell.textContent))"""
        return list(self.driver.execute_script(script, table))

    def channels(self) -> list[str]:
        """Return the channels that are shown."""
        return [row[0] for row in self.rows("channels")]

    def users(self) -> list[str]:
        """Return the users of the connections that are listed."""
        return [row[2] for row in self.rows("connections")]

    def choose(self, channel: str) -> None:
        """Choose a channel of those that are shown."""
        eventually(lambda: channel in self.channels(), f"{channel} is shown")
        names = self.driver.find_elements(By.CSS_SELECTOR, "#channels .name")
        next(name for name in names if name.text == channel).click()

    def resize(self, width: int, height: int, scheme: str) -> None:
        """Have another screen."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def assert_right(self) -> None:
        """Nothing has gone wrong in it, but that it was refused, or had no connection to a daemon that stops."""
        said = console_errors(self.driver)
        known = re.compile(r"status of (401|403|503) |ERR_CONNECTION|ERR_INCOMPLETE")
        assert all(known.search(text) for text in said), said
        assert not self.shows("#problem"), self.text("#problem")
        assert self.driver.execute_script("return window.intruded") is None


@pytest.fixture
def page(browser: Chrome, daemon: Daemon) -> Iterator[Page]:
    """Open the page; at the end, see that nothing went wrong in it."""
    console_errors(browser)
    opened = Page(browser, daemon)
    yield opened
    opened.assert_right()
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get("about:blank")


class TestRights:
    """Who is shown anything."""

    def test_it_asks_for_a_token_and_shows_nothing_before(self, page: Page) -> None:
        eventually(lambda: page.shows("#sign-in"), "it asks for a token")
        assert not page.shows("#status")
        assert not page.shows("#refusal")
        assert page.driver.switch_to.active_element.get_attribute("id") == "token"

    def test_it_says_what_is_wrong_with_a_token(self, page: Page) -> None:
        for shown, why in (
            ("no token\n", "That is no token"),
            ("abc", "401"),
            (token(lasts_s=-10), "expired"),
            (token(operator=False), "403: no right to see the status"),
        ):
            page.sign_in(shown)
            eventually(lambda why=why: why in page.text("#refusal"), f"it says {why}")  # type: ignore[misc]
            assert not page.shows("#status")

    def test_a_token_is_in_no_address_and_no_log(self, page: Page) -> None:
        shown = token()
        page.sign_in(shown)
        page.wait()
        page.driver.refresh()
        page.wait()
        addresses = page.driver.execute_script(
            "return [location.href, ...performance.getEntriesByType('resource').map((entry) => entry.name)]"
        )
        assert len(addresses) > 5
        assert not [address for address in addresses if shown in address]
        assert not [address for address in addresses if not address.startswith(page.daemon.http)]
        assert shown not in page.daemon.log
        assert page.driver.execute_script("return localStorage.length") == 0
        assert not page.driver.get_cookies()

    def test_it_forgets_the_token(self, page: Page) -> None:
        page.come_in()
        page.find("#sign-out").click()
        eventually(lambda: page.shows("#sign-in"), "it asks for a token")
        assert page.driver.execute_script("return sessionStorage.length") == 0

    def test_when_the_token_expires_it_says_so_and_asks_again(self, page: Page) -> None:
        page.sign_in(token(lasts_s=5))
        page.wait()
        eventually(lambda: page.shows("#sign-in"), "it asks again", 20)
        assert "expired" in page.text("#refusal")
        page.come_in()

    def test_a_cookie_works_at_once(self, page: Page) -> None:
        page.driver.add_cookie({"name": "session", "value": token()})
        page.driver.refresh()
        page.wait()
        assert not page.shows("#sign-out")
        page.find("#channel").send_keys("by cookie")
        page.find("#publish button").click()
        eventually(lambda: "at offset 1" in page.text("#published"), "it is published")

    def test_where_everybody_is_an_operator_it_asks_for_nothing(self, browser: Chrome) -> None:
        with running(listeners=tcp("http")) as daemon:
            page = Page(browser, daemon)
            page.wait()
            assert "of any kind" in page.text("#figures")
            page.assert_right()
            browser.get("about:blank")


ATTACK = """
    const [url, connection, done] = arguments;
    const attempt = async (path, options) => {
        try { return (await fetch(url + path, { credentials: "include", ...options })).status; }
        catch (error) { return "refused"; }
    };
    (async () => done([
        await attempt("/channels/attack", { method: "POST", body: "x" }),
        await attempt("/channels/attack", { method: "POST", body: "x", mode: "no-cors" }),
        await attempt(`/connections/${connection}`, { method: "DELETE" }),
        await attempt("/connections"),
        await attempt("/status/events"),
    ]))();
"""


class TestAnotherSite:
    """What the pages of others can do with the cookie of an operator."""

    def test_they_neither_publish_nor_close_nor_see(self, page: Page, tmp_path: Path) -> None:
        page.driver.add_cookie({"name": "session", "value": token()})
        with subscribe(page.daemon, "victim", "news") as client, another_site(tmp_path) as origin:
            (state,) = ask(page.daemon, "GET", "/connections?user=victim").json()["connections"]
            page.driver.get(origin)
            assert page.driver.get_cookies(), "cookies do not know of ports"
            done = page.driver.execute_async_script(ATTACK, page.daemon.http, state["connection"])
            assert done == ["refused", 0, "refused", "refused", "refused"]
            assert ask(page.daemon, "GET", "/channels").json()["channels"][0]["channel"] == "news"
            assert ask(page.daemon, "GET", "/channels/attack").json()["retained"] == 0
            publish(page.daemon, "news", "it lives")
            assert "it lives" in str([client.recv(5), client.recv(5)])
        console_errors(page.driver)
        page.driver.get(f"{page.daemon.http}/status")


class TestFigures:
    """What it shows each second."""

    def test_they_move(self, page: Page) -> None:
        page.come_in()
        with subscribe(page.daemon, "ann", "news"), subscribe(page.daemon, "bob", "news"):
            eventually(lambda: page.counters()["Subscribers"] == "3", "all are counted")
            assert "sse 1, websocket 2" in page.text("#figures")
            for _ in range(20):
                publish(page.daemon, "news")
            eventually(lambda: page.rows("channels")[:1] and page.rows("channels")[0][0] == "news", "it is there")
            eventually(lambda: "20 since the start" in page.text("#figures"), "all were published")
            assert "40 since the start" in page.text("#figures")
            assert page.rows("channels")[0][2:4] == ["2", "20"]
            eventually(lambda: float(page.rows("channels")[0][1]) > 0, "it is busy")
            paths = page.driver.execute_script(
                "return [...document.querySelectorAll('.figure path')].map((path) => path.getAttribute('d'))"
            )
            assert all(path.count("L") >= 2 for path in paths[:2]), paths
        eventually(lambda: page.counters()["Subscribers"] == "1", "they have gone")
        eventually(lambda: float(page.rows("channels")[0][1]) == 0, "it is quiet", 20)

    def test_they_can_be_paused(self, page: Page) -> None:
        page.come_in()
        page.find("#pause").click()
        assert page.find("#pause").get_attribute("aria-pressed") == "true"
        shown = page.text("#status")
        publish(page.daemon, "news")
        time.sleep(2.5)
        assert page.text("#status") == shown
        page.find("#pause").click()
        assert page.channels() == ["news"]

    def test_an_empty_daemon_says_so(self, page: Page) -> None:
        page.come_in()
        assert page.shows("#no-channels")
        eventually(lambda: "(this page)" in str(page.rows("connections")), "it sees itself")
        assert not page.shows("#no-connections")

    def test_when_the_daemon_stops_it_says_so_and_comes_back(self, browser: Chrome) -> None:
        with guarded(tcp("http", free_port())) as daemon:
            page = Page(browser, daemon)
            page.come_in()
            daemon.stop()
            eventually(lambda: page.shows("#stale"), "it notices")
            assert "the server is going away" in page.text("#stale")
            assert "What you see is from" in page.text("#stale")
            eventually(lambda: "Reconnecting in" in page.text("#state"), "it tries again")
            daemon.start()
            page.wait()
            assert not page.shows("#stale")
            page.assert_right()
            browser.get("about:blank")


class TestChannels:
    """Channels, and what can be done with one."""

    def test_ten_are_shown_and_fifty_if_wanted(self, page: Page) -> None:
        page.come_in()
        for number in range(55):
            publish(page.daemon, f"channel/{number}")
        eventually(lambda: page.text("#more-channels") == "Show 50 of 55", "all are known")
        assert len(page.channels()) == 10
        page.find("#more-channels").click()
        assert len(page.channels()) == 50
        assert page.find("#more-channels").get_attribute("aria-expanded") == "true"
        page.find("#more-channels").click()
        assert len(page.channels()) == 10

    def test_the_one_that_is_chosen_can_be_published_to(self, page: Page) -> None:
        page.come_in()
        with subscribe(page.daemon, "ann", "news/today") as ann, subscribe(page.daemon, "bob", "other"):
            page.choose("news/today")
            eventually(lambda: page.users() == ["ann"], "who gets its events is listed")
            page.find("#event").send_keys("greeting")
            page.find("#data").clear()
            page.find("#data").send_keys("größer")
            page.find("#publish button").click()
            eventually(lambda: "at offset 1 to 1 subscriber." in page.text("#published"), "the answer is shown")
            received = str([ann.recv(5), ann.recv(5)])
            assert "größer" in received
            assert "greeting" in received

    def test_a_refusal_is_shown(self, page: Page) -> None:
        page.come_in()
        page.find("#channel").send_keys("news")
        page.find("#event").send_keys("pushd.join")
        page.find("#publish button").click()
        eventually(lambda: "Not published. 400" in page.text("#published"), "the answer is shown")
        assert [text for text in console_errors(page.driver) if "400" in text]

    def test_whatever_they_are_called_is_shown_as_text(self, page: Page) -> None:
        page.come_in()
        with ExitStack() as stack:
            for name in HOSTILE:
                stack.enter_context(subscribe(page.daemon, name, *HOSTILE))
                publish(page.daemon, name)
            page.find("#all").click()
            shown = [name.replace("\u202e", "U+202E") for name in HOSTILE]
            eventually(lambda: set(page.channels()) == set(shown), "the channels are shown")
            eventually(lambda: set(shown) <= set(page.users()), "the users are shown")
            for number, name in enumerate(HOSTILE):
                page.choose(shown[number])
                assert page.find("#by-channel").get_attribute("value") == name
                page.find("#publish button").click()
                eventually(lambda: "at offset 2" in page.text("#published"), f"{name!r} is published to")
                page.driver.execute_script("document.getElementById('published').textContent = ''")
        for element in ("script:not([type=module])", "main img"):
            assert not page.driver.find_elements(By.CSS_SELECTOR, element)


class TestConnections:
    """The list, and its end."""

    def test_they_come_in_pages(self, page: Page) -> None:
        with ExitStack() as stack:
            for number in range(30):
                stack.enter_context(subscribe(page.daemon, f"user {number}", "news"))
            page.come_in()
            eventually(lambda: len(page.users()) == 25, "a page is full")
            assert page.users() == [f"user {number}" for number in range(25)]
            page.find("#next").click()
            eventually(
                lambda: page.users() == [f"user {number}" for number in range(25, 30)] + ["olga"], "the rest"
            )
            assert not page.shows("#next")
            page.find("#first").click()
            eventually(lambda: len(page.users()) == 25, "the first page again")

    def test_they_can_be_filtered(self, page: Page) -> None:
        page.come_in()
        with subscribe(page.daemon, "ann", "news"), subscribe(page.daemon, "bob", "other"):
            page.find("#by-user").send_keys("bob", Keys.ENTER)
            eventually(lambda: page.users() == ["bob"], "only bob is listed")
            page.find("#all").click()
            eventually(lambda: sorted(page.users()) == ["ann", "bob", "olga"], "all are")
            page.find("#by-transport").send_keys("sse")
            page.find("#filter .primary").click()
            eventually(lambda: page.users() == ["olga"], "only this page is")
            page.find("#by-user").send_keys("nobody", Keys.ENTER)
            eventually(lambda: page.shows("#no-connections"), "it says that there is none")

    def test_one_is_closed_with_the_keyboard_after_a_question(self, page: Page) -> None:
        page.come_in()
        with subscribe(page.daemon, "ann", "news") as ann:
            eventually(lambda: "ann" in page.users(), "she is listed", 20)
            place = page.users().index("ann")
            button = page.driver.find_elements(By.CSS_SELECTOR, "#connections button")[place]
            page.driver.execute_script("arguments[0].focus()", button)
            active = page.driver.switch_to.active_element
            active.send_keys(Keys.ENTER)
            assert page.shows("#closing")
            assert "ann" in page.text("#closing-what")
            page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
            eventually(lambda: not page.shows("#closing"), "nothing was done")
            assert page.driver.switch_to.active_element == button
            button.send_keys(Keys.ENTER)
            page.driver.switch_to.active_element.send_keys(Keys.TAB)
            page.driver.switch_to.active_element.send_keys(Keys.ENTER)
            eventually(lambda: "Closed " in page.text("#listed"), "it says so")
            with pytest.raises(ConnectionClosed) as closed:
                for _ in range(3):
                    ann.recv(5)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.reason == "closed by an operator"
            assert "ann" not in page.users()
            assert page.driver.switch_to.active_element.get_attribute("id") == "connections"

    def test_who_looks_at_a_row_keeps_it(self, page: Page) -> None:
        """Rows that come and go elsewhere do not take the focus away."""
        page.come_in()
        with subscribe(page.daemon, "ann", "news"):
            eventually(lambda: "ann" in page.users(), "she is listed", 20)
            button = page.driver.find_elements(By.CSS_SELECTOR, "#connections button")[page.users().index("ann")]
            page.driver.execute_script("arguments[0].focus()", button)
            with subscribe(page.daemon, "bob", "news"):
                eventually(lambda: "bob" in page.users(), "somebody comes", 20)
            eventually(lambda: "bob" not in page.users(), "somebody goes", 20)
            assert page.driver.switch_to.active_element == button


def tree(driver: Chrome) -> list[tuple[str, str]]:
    """Return the roles and names of everything that a screen reader reads."""
    nodes: list[dict[str, Any]] = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    seen = [node for node in nodes if not node["ignored"]]
    return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in seen]


SIZES = {"wide": (1280, 900), "narrow": (320, 640)}


class TestLooks:
    """Pictures, for people, and what others than people who see make of it."""

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("size", SIZES)
    def test_nothing_is_cut_off(self, page: Page, size: str, scheme: str, tmp_path: Path) -> None:
        page.resize(*SIZES[size], scheme)
        eventually(lambda: page.shows("#sign-in"), "it asks for a token")
        self.picture(page, tmp_path / "sign-in.png")
        page.sign_in("abc")
        eventually(lambda: page.shows("#refusal"), "it says why not")
        self.picture(page, tmp_path / "refused.png")
        page.come_in()
        eventually(lambda: page.rows("connections"), "it sees itself")
        self.picture(page, tmp_path / "empty.png")
        with ExitStack() as stack:
            for number in range(30):
                names = [f"{HOSTILE[number % 7]}", "a/long/name/" + "segment-" * 25, f"channel/{number}"]
                stack.enter_context(subscribe(page.daemon, HOSTILE[number % 7], *names))
                publish(page.daemon, names[number % 3], "x" * 500)
            eventually(lambda: page.counters()["Subscribers"] == "31", "all are counted")
            page.find("#filter .primary").click()
            eventually(lambda: len(page.users()) == 25, "a page is full")
            self.picture(page, tmp_path / "busy.png")
            page.find("#more-channels").click()
            page.driver.find_elements(By.CSS_SELECTOR, "#connections button")[5].click()
            self.picture(page, tmp_path / "closing.png")
            page.find("#keep").click()
        page.daemon.stop()
        eventually(lambda: page.shows("#stale"), "it notices")
        self.picture(page, tmp_path / "disconnected.png")

    def picture(self, page: Page, path: Path) -> None:
        """Take one, and see that there is nothing beside it."""
        shot = page.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True}
        )
        path.write_bytes(b64decode(shot["data"]))
        overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.driver.execute_script(overflow) <= 0, path
        cut = """return [...document.querySelectorAll("main *, dialog *, form *, header *")].filter((one) =>
            !one.closest(".visually-hidden, thead, svg, select") && one.getClientRects().length
            && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 80))"""
        assert page.driver.execute_script(cut) == [], path

    @pytest.mark.parametrize("size", SIZES)
    def test_screen_readers_find_everything(self, page: Page, size: str) -> None:
        page.resize(*SIZES[size], "light")
        eventually(lambda: ("textbox", "Token") in tree(page.driver), "the field has its name")
        page.come_in()
        publish(page.daemon, "news")
        eventually(lambda: page.rows("connections") and page.rows("channels"), "there are rows")
        found = tree(page.driver)
        for wanted in (
            ("heading", "Channels"),
            ("region", "Connections"),
            ("table", "Channels"),
            ("table", "Connections"),
            ("columnheader", "Events/s"),
            ("textbox", "User"),
            ("button", "news"),
            ("button", "Pause"),
        ):
            assert wanted in found, wanted
        roles = [role for role, _ in found]
        assert roles.count("row") == 4
        assert roles.count("cell") == 5 + 8
        named = ("button", "textbox", "combobox", "link", "table", "region", "dialog", "columnheader")
        assert [role for role, name in found if role in named and not name] == []
        (close,) = [name for role, name in found if role == "button" and name.startswith("Close")]
        assert close == f"Close {page.rows('connections')[0][0].split(' ')[0]}"

    def test_everything_is_reached_with_the_keyboard(self, page: Page) -> None:
        page.come_in()
        publish(page.daemon, "news")
        eventually(lambda: page.rows("connections") and page.rows("channels"), "there are rows")
        page.driver.execute_script("document.activeElement.blur()")
        reached: set[str] = set()
        for _ in range(25):
            page.driver.switch_to.active_element.send_keys(Keys.TAB)
            active = page.driver.switch_to.active_element
            reached.add(active.get_attribute("id") or active.text)
        wanted = {"pause", "sign-out", "news", "channel", "event", "data", "by-user", "by-channel", "by-address",
                  "by-transport", "all", "Close", "Publish", "List"}  # fmt: skip
        assert wanted <= reached, wanted - reached

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_can_be_told_from_what_is_behind_it(self, page: Page, scheme: str) -> None:
        """A contrast of 4.5 (WCAG 2.2, 1.4.3)."""
        page.resize(*SIZES["wide"], scheme)
        page.come_in()
        publish(page.daemon, REVERSED)
        eventually(lambda: page.rows("connections") and page.rows("channels"), "there are rows")
        assert page.driver.execute_script(CONTRAST) == []


CONTRAST = """
    const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
    const linear = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const behind = (node) => {
        for (; node; node = node.parentElement) {
            const color = rgb(getComputedStyle(node).backgroundColor);
            if (color.length < 4 || color[3] > 0) return color;
        }
        return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const poor = [];
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !node.getClientRects().length) continue;
        const [a, b] = [rgb(getComputedStyle(node).color), behind(node)].map(light);
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) poor.push([walker.currentNode.data, contrast]);
    }
    return poor;
"""


class TestTls:
    """Over HTTP/2."""

    def test_it_works_too(self, browser: Chrome) -> None:
        with guarded(tcp("https", tls=True)) as daemon:
            browser.execute_cdp_cmd("Security.enable", {})
            browser.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": True})
            try:
                page = Page(browser, daemon, "/status/")
                page.come_in()
                script = "return performance.getEntriesByType('navigation')[0].nextHopProtocol"
                assert browser.execute_script(script) == "h2"
                eventually(lambda: page.users() == ["olga"], "connections are listed")
                page.assert_right()
            finally:
                browser.get("about:blank")
                browser.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": False})
                console_errors(browser)
