"""Who may do what, as one story: a daemon with all that guards it, an application, an issuer of keys, clients.

All the while somebody without rights tries to read and to write. At the end the application has been told
everything in order, and the log says why each was refused, and nothing that it should not.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from signal import SIGTERM
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.e2e.browser import chromium
from tests.e2e.daemon import Answer, twistd
from tests.e2e.guarded import PROXY, Intruder, World, serving_files, world
from tests.e2e.programs import eventually, node, program, talking_to

pytestmark = pytest.mark.timeout(150)


_USE_COOKIE = """
const [own, done] = arguments;
const posting = fetch(`${own}/channels/room%2Ft`, {method: "POST", body: "by cookie", credentials: "include"})
    .then((answer) => `published ${answer.status}`, () => "fetch failed");
const socket = new Promise((resolve) => {
    const one = new WebSocket(`${own.replace("http", "ws")}/ws?channel=room/t`);
    one.onopen = () => resolve("websocket");
    one.onerror = () => resolve("no websocket");
});
const source = new Promise((resolve) => {
    const one = new EventSource(`${own}/sse?channel=room/t`, {withCredentials: true});
    one.onopen = () => resolve("eventsource");
    one.onerror = () => resolve("no eventsource");
});
Promise.all([posting, socket, source]).then(done);
"""
"""Uses the daemon with the cookies that the browser has; answers what became of it."""


@pytest.fixture(scope="module")
def whole() -> Iterator[World]:
    """Have everything, and somebody who tries to get in all the time."""
    with TemporaryDirectory(prefix="pushd-") as directory, world(Path(directory)) as made:
        yield made


@pytest.fixture(autouse=True)
def _agreeable(whole: World) -> None:
    """Let the application allow everything at the start of each test."""
    if not whole.daemon.has_ended:
        whole.application.up()
        whole.application.rules()


def said(websocket: ClientConnection, **members: object) -> dict[str, Any]:
    """Return the next message that has `members`."""
    while True:
        message: dict[str, Any] = json.loads(websocket.recv(15))
        if all(message.get(name) == value for name, value in members.items()):
            return message


def say(websocket: ClientConnection, **members: object) -> dict[str, Any]:
    """Send a command; answer the answer."""
    websocket.send(json.dumps({**members, "ref": 1}))
    return said(websocket, ref=1)


def closed(whole: World, websocket: ClientConnection) -> tuple[int, str]:
    """Return the code and the reason with which the daemon closes it; the reason is remembered."""
    try:
        while True:
            websocket.recv(20)
    except ConnectionClosed as error:
        assert error.rcvd is not None
        whole.reasons.add(error.rcvd.reason)
        return error.rcvd.code, error.rcvd.reason


def lines_of(response: Any) -> Iterator[dict[str, Any]]:
    """Return the objects of a stream of NDJSON."""
    return (json.loads(line) for line in response.iter_lines() if line)


@contextmanager
def curl(*arguments: str) -> Iterator[Any]:
    """Run curl as long as the context lasts."""
    with talking_to([program("curl"), "-sSN", "--noproxy", "*", *arguments]) as running:
        yield running


def by_way_of(
    whole: World, forwarded: str, path: str, token: str, head: str = "", source: str = PROXY
) -> socket.socket:
    """Ask for a path from the address of a proxy, or another, for the client `forwarded`; answer the connection."""
    port = urlsplit(whole.daemon.http).port
    connection = socket.create_connection(("127.0.0.1", port or 0), 15, (source, 0))
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"X-Forwarded-For: {forwarded}\r\n{head}\r\n".encode()
    )
    return connection


def head_of(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return the status and the headers of the answer, and what comes with them."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        assert part, data
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    names = (field.partition(": ") for field in fields)
    return int(first.split()[1]), {name.lower(): value for name, _, value in names}, rest


def outcome(answer: Answer) -> tuple[int, str]:
    """Return the status of a refusal and its reason."""
    return answer.status, answer.json().get("detail", "")


class TestComing:
    """Users come with tokens."""

    def test_of_every_key_in_every_place_with_every_client(self, whole: World) -> None:
        rights: dict[str, Any] = {"subscribe": ["news"], "publish": ["news"]}
        tokens = {key: whole.token(f"ann-{key}", key=key, **rights) for key in ("app", "login", "id")}
        done = twistd(
            *("pushd", "--config", str(whole.daemon.config), "--token", "--user", "ann-minted"),
            *("--subscribe", "news", "--publish", "news"),
            directory=whole.daemon.directory,
        )
        assert done.returncode == 0, done
        tokens["minted"] = whole.used(done.stdout.strip())
        with ExitStack() as stack:
            url = f"{whole.daemon.http}/sse?channel=news"
            eventsource = stack.enter_context(
                node("eventsource.mjs", f"{url}&access_token={tokens['login']}", "message")
            )
            eventsource.until('"open"')
            ws = stack.enter_context(
                node("websocket.mjs", f"{whole.daemon.ws}?channel=news&access_token={tokens['id']}")
            )
            ws.until("subscribed")
            shown = stack.enter_context(curl("-H", f"Authorization: Bearer {tokens['minted']}", url))
            shown.until("retry")
            client = stack.enter_context(whole.http2(tokens["app"]))
            stream = stack.enter_context(client.stream("GET", "/stream?channel=news"))
            assert (stream.status_code, stream.http_version) == (200, "HTTP/2")
            cookie = {"Cookie": f"session={tokens['app']}"}
            same_page = stack.enter_context(
                whole.websocket("channel=news", None, origin="https://www.example.com", additional_headers=cookie)
            )
            said(same_page, type="subscribed")
            users = Counter(one["user"] for one in whole.connections(channel="news"))
            assert users == {"ann-login": 1, "ann-id": 1, "ann-minted": 1, "ann-app": 2}
            answer = client.post("/channels/news", content=b"to all of you")
            assert (answer.status_code, answer.json()["subscribers"]) == (201, 5)
            eventsource.until("to all of you")
            ws.until("to all of you")
            shown.until("to all of you")
            events = (line for line in lines_of(stream) if line["type"] == "event")
            assert next(events)["data"] == "to all of you"
            assert said(same_page, type="event")["data"] == "to all of you"

    def test_those_that_are_no_good_are_refused_and_the_log_says_why(self, whole: World) -> None:
        fine = whole.token("ann", subscribe=["news"])
        for token, why in (
            (
                None,
                "no right to subscribe to 'news': [auth] anonymous does not give subscribe for it; wanted a token",
            ),
            (whole.token("ann", subscribe=["news"], lasts_s=-60), "the token expired"),
            (whole.used(f"{fine[:-8]}AAAAAAAA"), "the signature is wrong; wanted one with key app (HS256)"),
            (whole.used("not.a.token"), "is not base64url"),
        ):
            status, detail = outcome(whole.ask("/sse?channel=news", token))
            assert (status, why in detail) == (401, True), detail
            assert whole.refused("channel=news", token) == (401, detail)
        status, detail = outcome(whole.ask("/sse?channel=other", fine))
        assert (status, detail) == (
            403,
            "no right to subscribe to 'other': the token of key app does not give subscribe for it",
        )

    def test_a_cookie_counts_only_for_pages_of_this_site(self, whole: World) -> None:
        cookie = {"Cookie": f"session={whole.token('ann', subscribe=['news'], publish=['news'])}"}
        for origin in ("https://evil.example", "null"):
            status, _ = whole.refused("channel=news", None, origin=origin, additional_headers=cookie)
            assert status == 403
        assert whole.refused("channel=news", None, additional_headers=cookie)[0] == 403
        assert whole.ask("/channels/news", None, "POST", b"x", **cookie).status == 403
        assert (
            whole.ask("/channels/news", None, "POST", b"x", Origin="https://www.example.com", **cookie).status
            == 201
        )

    def test_the_cookie_of_a_browser_is_of_no_use_to_pages_of_others(self, whole: World) -> None:
        token = whole.token("tina", subscribe=["room/t"], publish=["room/t"])
        own = whole.daemon.http.replace("127.0.0.1", "localhost")
        with (
            TemporaryDirectory() as directory,
            serving_files(Path(directory)) as evil,
            chromium() as browser,
        ):
            Path(directory, "index.html").write_text("<title>another page</title>")
            browser.get(f"{own}/")
            browser.add_cookie({"name": "session", "value": token, "path": "/"})
            assert browser.execute_async_script(_USE_COOKIE, own) == ["published 201", "websocket", "eventsource"]
            browser.get(f"{evil}/")  # of the same site, so that the cookie is sent
            assert browser.execute_async_script(_USE_COOKIE, own) == [
                "fetch failed",
                "no websocket",
                "no eventsource",
            ]
        history = whole.ask("/channels/room%2Ft/events", whole.backend()).json()["events"]
        assert [event["data"] for event in history if "event" not in event] == ["by cookie"]
        assert f"Origin '{evil}' is not this server's own" in whole.daemon.log

    def test_a_certificate_gives_what_it_gives(self, whole: World) -> None:
        url = next(url for url in whole.daemon.urls[1:] if url.startswith("https:") and url != whole.daemon.https)
        files = whole.machines.issue("alice").write(whole.daemon.directory, "alice")
        for path, options, expected in (
            ("/channels/machines%2F1", ["--cert", files[0], "--key", files[1]], "201"),
            ("/channels/room%2F1", ["--cert", files[0], "--key", files[1]], "403"),
            ("/channels/machines%2F1", [], "000"),
        ):
            command = [
                program("curl"),
                "-sSk",
                "--noproxy",
                "*",
                "-m",
                "20",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
            ]
            done = subprocess.run(
                [*command, "-d", "x", *options, url + path], capture_output=True, text=True, timeout=30
            )
            assert done.stdout == expected, done


class TestDeciding:
    """The application decides."""

    def test_who_may_connect_and_as_whom(self, whole: World) -> None:
        whole.application.rules(
            {"when": {"user": "mallory"}, "answer": {"allow": False, "reason": "you are banned\r\nuntil May"}},
            {"when": {"user": "late"}, "status": 429, "headers": {"Retry-After": "7"}},
            {"when": {"user": "unknown"}, "status": 401, "answer": {"reason": "log in again"}},
            {
                "when": {"hook": "before_connect", "user": "guest"},
                "answer": {
                    "user": "Ada",
                    "payload": {"name": "Ada L."},
                    "subscribe": ["granted/**"],
                    "publish": ["granted/1"],
                },
            },
        )
        everything: dict[str, Any] = {"subscribe": ["**"], "publish": ["**"]}
        banned = whole.token("mallory", **everything)
        assert outcome(whole.ask("/poll?channel=news", banned)) == (403, "you are banned until May")
        assert whole.refused("channel=news", banned) == (403, "you are banned until May")
        with whole.http2(banned) as client:
            assert client.get("/sse?channel=news").status_code == 403
        answer = whole.ask("/sse?channel=news", whole.token("late", **everything))
        assert (answer.status, answer.headers["retry-after"]) == (429, "7")
        assert outcome(whole.ask("/sse?channel=news", whole.token("unknown", **everything))) == (
            401,
            "log in again",
        )
        with whole.websocket("channel=granted/2", whole.token("guest")) as subscriber:
            said(subscriber, type="subscribed", channel="granted/2")
            (shown,) = whole.connections(user="Ada")
            assert shown["payload"] == {"name": "Ada L."}
            assert say(subscriber, type="publish", channel="granted/1", data="x")["type"] == "published"
            refused = say(subscriber, type="publish", channel="granted/2", data="x")
            assert (refused["status"], "[hooks] before_connect" in refused["detail"]) == (403, True)
            whole.details.append(refused["detail"])
        (question,) = [one for one in whole.application.questions if one["user"] == "guest"]
        assert question.keys() == {"hook", "connection", "transport", "address", "user", "payload"}

    def test_what_may_be_subscribed_to(self, whole: World) -> None:
        whole.application.rules(
            {
                "when": {"hook": "before_subscribe", "channel": "room/closed"},
                "answer": {"allow": False, "reason": "closed"},
            }
        )
        token = whole.token("bob", subscribe=["room/**"])
        with whole.websocket("channel=room/1", token) as bob:
            said(bob, type="subscribed")
            refused = say(bob, type="subscribe", channel="room/closed")
            assert (refused["status"], refused["detail"]) == (403, "closed")
            assert say(bob, type="subscribe", channel="room/2")["type"] == "subscribed"
            assert whole.connections(user="bob")[0]["channels"] == ["room/1", "room/2"]
        for transport in ("sse", "stream", "poll"):
            answer = whole.ask(f"/{transport}?channel=room/1&channel=room/closed", token)
            assert outcome(answer) == (403, "closed")

    def test_what_is_published(self, whole: World) -> None:
        whole.application.rules(
            {"when": {"data": "*spam*"}, "answer": {"allow": False, "reason": "no advertising"}},
            {"when": {"data": "damn*"}, "answer": {"data": "d**n", "event": "mended"}},
            {"when": {"data": "binary"}, "answer": {"data_base64": "/w=="}},
        )
        token = whole.token("carl", subscribe=["wall"], publish=["wall"])
        with whole.websocket("channel=wall", token) as carl:
            said(carl, type="subscribed")
            assert outcome(whole.publish("wall", "buy spam", token)) == (403, "no advertising")
            assert whole.publish("wall", "damn it", token).status == 201
            event = said(carl, type="event")
            assert (event["data"], event["event"]) == ("d**n", "mended")
            assert say(carl, type="publish", channel="wall", data="spam")["detail"] == "no advertising"
            drafts = [
                {"channel": "wall", "data": "one"},
                {"channel": "wall", "data": "spam"},
                {"channel": "elsewhere", "data": "two"},
                {"channel": "wall", "data": "damn"},
                {"channel": "wall", "data": "binary"},
            ]
            body = "".join(f"{json.dumps(draft)}\n" for draft in drafts).encode()
            answers = [json.loads(line) for line in whole.ask("/publish", token, "POST", body).body.splitlines()]
            statuses = [answer["error"]["status"] if "error" in answer else "ok" for answer in answers]
            assert statuses == ["ok", 403, 403, "ok", "ok"]
            got = [said(carl, type="event") for _ in range(3)]
            assert [event.get("data", event.get("data_base64")) for event in got] == ["one", "d**n", "/w=="]
        history = whole.ask("/channels/wall/events", whole.backend()).json()["events"]
        assert "spam" not in json.dumps(history)


class TestPresence:
    """Others see who comes and goes."""

    def test_joins_and_leaves_are_events_and_the_list_agrees(self, whole: World) -> None:
        whole.application.rules(
            {"when": {"hook": "before_connect", "user": "dora"}, "answer": {"payload": {"name": "Dora"}}}
        )
        rights: dict[str, Any] = {"subscribe": ["room/p"]}
        watcher, dora = whole.token("watcher", **rights), whole.token("dora", **rights)
        with whole.http2(watcher) as client, client.stream("GET", "/stream?channel=room/p") as stream:
            events = (line for line in lines_of(stream) if line["type"] == "event")
            assert json.loads(next(events)["data"])["user"] == "watcher"
            with whole.websocket("channel=room/p", dora):
                joined = next(events)
                (connection,) = whole.connections(user="dora")
                assert joined["event"] == "pushd.join"
                assert json.loads(joined["data"]) == {
                    "connection": connection["connection"],
                    "transport": "websocket",
                    "user": "dora",
                    "payload": {"name": "Dora"},
                }
                present = whole.ask("/channels/room%2Fp/presence", watcher).json()
                assert (present["count"], present["users"]) == (2, 2)
                assert [one["user"] for one in present["connections"]] == ["watcher", "dora"]
            left = next(events)
            assert (left["event"], left["data"]) == ("pushd.leave", joined["data"])
            assert whole.ask("/channels/room%2Fp/presence", watcher).json()["count"] == 1
        forged = whole.ask("/channels/room%2Fp?event=pushd.join", whole.backend(), "POST", b"{}")
        assert forged.status == 400
        assert whole.ask("/channels/room%2Fp/presence", whole.token("eve", subscribe=["room/q"])).status == 403

    def test_an_operator_sees_and_closes_connections(self, whole: World) -> None:
        token = whole.token("fred", subscribe=["room/f"])
        with whole.websocket("channel=room/f", token) as one, whole.websocket("channel=room/f", token) as other:
            found = whole.connections(user="fred", transport="websocket", channel="room/f")
            assert [shown["address"] for shown in found] == ["127.0.0.1"] * 2
            assert whole.ask("/connections?user=fred", token).status == 403
            answer = whole.ask(f"/connections/{found[0]['connection']}", whole.backend(), "DELETE")
            assert answer.status == 204
            assert closed(whole, one) == (1008, "closed by an operator")
            assert say(other, type="unsubscribe", channel="room/f")["type"] == "unsubscribed"
            assert whole.ask("/connections?user=fred", whole.backend(), "DELETE").json() == {"closed": 1}
            assert closed(whole, other) == (1008, "closed by an operator")
            eventually(lambda: not whole.connections(user="fred"), "they are gone")
            first = found[0]["connection"]
            told = ["connect", "subscribe", "unsubscribe", "disconnect"]
            eventually(lambda: whole.told(first) == told, "the application was told")


class TestExpiry:
    """A token lasts as long as it says."""

    def test_a_connection_ends_with_its_token_and_one_that_renews_stays(self, whole: World) -> None:
        short: dict[str, Any] = {"lasts_s": 3.0, "subscribe": ["room/x"]}
        with ExitStack() as stack:
            ending = stack.enter_context(whole.websocket("channel=room/x", whole.token("gina", **short)))
            staying = stack.enter_context(whole.websocket("channel=room/x", whole.token("hugo", **short)))
            client = stack.enter_context(whole.http2(whole.token("gina", **short)))
            stream = stack.enter_context(client.stream("GET", "/stream?channel=room/x"))
            refused = say(staying, type="renew", token=whole.token("gina", subscribe=["room/x"]))
            assert refused["status"] == 403
            whole.details.append(refused["detail"])
            assert say(staying, type="renew", token=whole.used("no.token.atall"))["status"] == 401
            assert say(staying, type="renew", token=whole.token("hugo", subscribe=["room/**"]))["type"] == "renewed"
            assert closed(whole, ending) == (1008, "the token has expired; come back with a new one")
            *_, last = lines_of(stream)
            assert last == {"type": "closed", "detail": "the token has expired; come back with a new one"}
            assert say(staying, type="subscribe", channel="room/y")["type"] == "subscribed"
            assert [one["user"] for one in whole.connections(channel="room/x")] == ["hugo"]


class TestApplicationDown:
    """What becomes of everybody while the application does not answer."""

    def test_nobody_new_is_let_in_and_what_was_to_be_told_is_told_later_in_order(self, whole: World) -> None:
        token = whole.token("iris", subscribe=["room/**"], publish=["room/d"])
        with whole.websocket("channel=room/d", token) as iris:
            said(iris, type="subscribed")
            (shown,) = whole.connections(user="iris")
            connection = shown["connection"]
            before = len(whole.daemon.log)
            whole.application.down()
            for _ in range(4):
                answer = whole.ask("/sse?channel=room/d", token)
                assert answer.status == 503
                assert 1 <= int(answer.headers["retry-after"]) <= 2
                assert whole.publish("room/d", "x", token).status == 503
                assert say(iris, type="subscribe", channel="room/d/2")["status"] == 503
            assert say(iris, type="unsubscribe", channel="room/d")["type"] == "unsubscribed"
            log = whole.daemon.log[before:]
            for path in ("ask", "ask-subscribe", "ask-publish"):
                address = f"{whole.application.url}/{path}"
                assert log.count(f"the hook {address} failed 3 times in a row; until it answers again, deny") == 1
        assert whole.told(connection) == ["connect", "subscribe"]
        whole.application.up()

        def lets_in() -> bool:
            try:
                with whole.websocket("channel=room/d", token):
                    return True
            except InvalidStatus:
                return False

        eventually(lets_in, "somebody is let in again")
        eventually(lambda: whole.publish("room/d", "x", token).status == 201, "publishing works again")
        everything = ["connect", "subscribe", "unsubscribe", "disconnect"]
        eventually(lambda: whole.told(connection) == everything, "the application was told", 40)
        log = whole.daemon.log[before:]
        for path in ("ask", "ask-subscribe", "ask-publish"):
            assert f"the hook {whole.application.url}/{path} answers again" in log
        # the application has been told before pushd has its answer
        again = f"the hook {whole.application.url}/told is told again"
        eventually(lambda: whole.daemon.log[before:].count(again) == 1, "the log says so")

    def test_an_application_that_hangs_is_not_waited_for_longer_than_it_may(self, whole: World) -> None:
        token = whole.token("iris", subscribe=["room/d"], publish=["room/d"])
        whole.application.rules({"when": {"hook": "before_publish"}, "fault": "hang"})
        began = time.monotonic()
        assert whole.publish("room/d", "x", token).status == 503
        assert 0.9 < time.monotonic() - began < 3
        assert "there was no answer within 1 s" in whole.daemon.log
        whole.application.rules()

    def test_with_when_down_allow_those_with_rights_go_on_and_what_is_too_much_to_tell_is_counted(self) -> None:
        hooks = "when_down = allow\nqueue = 200\n"  # of which a user has 20
        with TemporaryDirectory(prefix="pushd-") as directory, world(Path(directory), hooks) as other:
            application = other.application
            application.down()
            token = other.token("lena", subscribe=["room/**"], publish=["room/**"])
            with other.websocket("channel=room/1", token) as lena:
                said(lena, type="subscribed")
                assert say(lena, type="publish", channel="room/2", data="x")["type"] == "published"
                assert say(lena, type="publish", channel="news", data="x")["status"] == 403
                assert say(lena, type="subscribe", channel="news")["status"] == 403
            assert other.ask("/sse?channel=room/2", other.token("lena")).status == 403
            more = 50
            for _ in range(more):
                with other.websocket("channel=room/2", token) as lena:
                    said(lena, type="subscribed")
            full = "is not told everything: [hooks] queue or retry_for is over"
            assert other.daemon.log.count(full) == 1
            operator = other.token("boss", operator=True)
            metrics = other.ask("/metrics", operator).body.decode()
            (found,) = re.findall(r'hook="after",outcome="cancelled"\} ([0-9.]+)', metrics)
            cancelled = int(float(found))  # because the opposite happened
            assert cancelled >= 2 * more
            application.up()

            def told() -> int:
                counts: list[int] = [event.get("count", 1) for event in application.told]
                return cancelled + sum(counts)

            happened = 6 * (more + 1)  # connect, subscribe, occupied, unsubscribe, vacated, disconnect
            eventually(lambda: told() >= happened, "the application was told", 40)
            with other.websocket("channel=room/1", token):
                eventually(lambda: told() == happened + 3, "and goes on to be told")
            kinds = [event["event"] for event in application.told]
            assert kinds.count("dropped") == 1
            assert kinds[0] == "connect"
            after = len(kinds[kinds.index("dropped") + 1 :])
            assert 20 - 2 + 3 <= after <= 20 + 6 + 3, kinds  # the last may come late
            other.intruder.stop()
            assert other.intruder.successes == []
            assert other.daemon.stop() in (0, -SIGTERM)
            eventually(lambda: told() == happened + 6, "it was told that the last one has gone")


class TestLimits:
    """They are reached, answered, and end."""

    def test_connections_of_a_user(self, whole: World) -> None:
        token = whole.token("jane", subscribe=["room/l"])
        with ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(whole.websocket("channel=room/l", token))
            expected = "the user 'jane' has too many connected: [limits] connections_per_user is 4"
            answer = whole.ask("/sse?channel=room/l", token)
            assert outcome(answer) == (429, expected)
            assert answer.headers["retry-after"] == "10"
            assert whole.refused("channel=room/l", token) == (429, expected)
        eventually(lambda: not whole.connections(user="jane"), "they are gone")
        with whole.websocket("channel=room/l", token) as back:
            said(back, type="subscribed")

    def test_connections_of_an_address(self, whole: World) -> None:
        tokens = [whole.token(f"kai-{number}", subscribe=["room/l"]) for number in range(6)]
        with ExitStack() as stack:

            def come(address: str, number: int) -> int:
                connection = by_way_of(whole, address, "/sse?channel=room/l", tokens[number])
                return head_of(stack.enter_context(closing(connection)))[0]

            network = ("2001:db8::1", "2001:db8::2", "2001:db8::3:4", "2001:db8::5", "2001:db8::6", "2001:db8::7")
            assert [come(network[number], number) for number in range(6)] == [200] * 5 + [429]
            assert come("2001:db8:0:1::1", 5) == 200
            detail = "2001:db8::/64 has too many subscribers connected: [limits] connections_per_address is 5"
            eventually(lambda: detail in whole.daemon.log, "the log says why")
        eventually(lambda: not whole.connections(address="2001:db8::1"), "they are gone")
        with closing(by_way_of(whole, "2001:db8::7", "/sse?channel=room/l", tokens[5])) as back:
            assert head_of(back)[0] == 200

    def test_connects_in_a_second(self, whole: World) -> None:
        token = whole.token("lea", subscribe=["room/l"])
        statuses, waits = Counter[int](), set[str]()

        def come() -> int:
            with closing(by_way_of(whole, "203.0.113.50", "/stream?channel=nothing", token)) as connection:
                status, headers, _ = head_of(connection)
                statuses[status] += 1
                waits.add(headers.get("retry-after", ""))
                return status

        for _ in range(30):
            come()
        assert statuses[403] >= 10  # as many as may come at once, to a channel that the token does not reach
        assert statuses[429] >= 10
        assert waits == {"", "1"}
        time.sleep(1.1)
        assert come() == 403

    def test_events_in_a_second(self, whole: World) -> None:
        token = whole.token("mia", subscribe=["room/l"], publish=["room/l"])
        with whole.websocket("channel=room/l&format=raw", token) as raw:
            began = time.monotonic()
            answers = [whole.publish("room/l", "x", token) for _ in range(60)]
            took = time.monotonic() - began
            statuses = Counter(answer.status for answer in answers)
            assert 20 <= statuses[201] <= 21 + 10 * took
            assert statuses.keys() <= {201, 429}
            if took < 3:
                (detail,) = {answer.json()["detail"] for answer in answers if answer.status == 429}
                assert detail == "user mia publishes too often: see [limits] publish_rate"
            body = b'{"channel":"room/l","data":"y"}\n' * 100
            answer = whole.ask("/publish", token, "POST", body)
            kinds = Counter("error" in json.loads(line) for line in answer.body.splitlines())
            assert kinds[True] > 50
            for _ in range(50):
                with suppress(ConnectionClosed):
                    raw.send("z")
            assert closed(whole, raw) == (1013, "user mia publishes too often: see [limits] publish_rate")
        time.sleep(1.1)
        assert whole.publish("room/l", "x", token).status == 201

    def test_connections_in_all(self, whole: World) -> None:
        address = ("127.0.0.1", urlsplit(whole.daemon.http).port or 0)
        with ExitStack() as stack:
            for _ in range(130):
                connection = stack.enter_context(socket.create_connection(address, 15))
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            status, headers, _ = head_of(connection)
            assert (status, headers["retry-after"]) == (503, "10")
        eventually(lambda: whole.ask("/healthz").status == 200, "it serves again")
        assert "turned away 127.0.0.1:" in whole.daemon.log

    def test_a_client_that_is_too_slow(self, whole: World) -> None:
        token = whole.token("nora", subscribe=["room/slow"])
        with whole.websocket("channel=room/slow", token, max_queue=1, ping_interval=None) as nora:
            said(nora, type="subscribed")
            backend = whole.backend()
            batch = (json.dumps({"channel": "room/slow", "data": "x" * 60_000}) + "\n").encode() * 10
            for _ in range(50):  # by itself, each event would take long enough for the client's own pings to fail
                whole.ask("/publish", backend, "POST", batch)
                if not whole.connections(user="nora") or "1013 too slow" in whole.daemon.log:
                    break
            code, reason = closed(whole, nora)
            assert (code, reason) == (1013, "too slow for what is published; resume from the last id")
        with whole.websocket("channel=room/slow", token) as nora:
            assert said(nora, type="subscribed")["recovered"]

    def test_what_is_not_allowed_in_a_raw_websocket_ends_it(self, whole: World) -> None:
        with whole.websocket("channel=room/l&format=raw", whole.token("olaf", subscribe=["room/l"])) as olaf:
            olaf.send("x")
            code, reason = closed(whole, olaf)
            assert (code, "no right to publish to 'room/l'" in reason) == (1008, True)


class TestForgedAddresses:
    """Nobody is believed about where clients are but the proxy."""

    def addresses(self, whole: World, user: str) -> list[str]:
        """Return where the connections of a user are."""
        return [one["address"] for one in whole.connections(user=user)]

    def test_in_headers(self, whole: World) -> None:
        token = whole.token("pia", subscribe=["room/a"])
        for source, forwarded, expected in (
            ("127.0.0.1", "203.0.113.77", "127.0.0.1"),
            ("127.0.0.8", "203.0.113.77", "127.0.0.8"),
            (PROXY, "203.0.113.77", "203.0.113.77"),
            (PROXY, "198.51.100.1, 203.0.113.77", "203.0.113.77"),
            (PROXY, "203.0.113.77, 127.0.0.9", "203.0.113.77"),
        ):
            connection = by_way_of(
                whole, forwarded, "/sse?channel=room/a", token, "Forwarded: for=192.0.2.1\r\n", source=source
            )
            with closing(connection):
                assert head_of(connection)[0] == 200
                assert self.addresses(whole, "pia") == [expected], (source, forwarded)
            eventually(lambda: not self.addresses(whole, "pia"), "it is gone")
        with closing(by_way_of(whole, "nonsense", "/sse?channel=room/a", token)) as connection:
            assert head_of(connection)[0] == 400

    def test_in_the_proxy_protocol(self, whole: World) -> None:
        token = whole.token("quin", subscribe=["room/a"])
        header = b"PROXY TCP4 203.0.113.78 127.0.0.1 4711 443\r\n"
        get = (
            f"GET /sse?channel=room/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        plain, *_, proxied = [urlsplit(url).port or 0 for url in whole.daemon.urls]
        for port, source, expected in ((proxied, "127.0.0.1", b""), (plain, "127.0.0.1", b"HTTP/1.1 400 ")):
            with closing(socket.create_connection(("127.0.0.1", port), 15, (source, 0))) as connection:
                connection.sendall(header + get)
                data = b""
                with suppress(ConnectionError):
                    while part := connection.recv(65536):
                        data += part
                assert data.startswith(expected) and bool(data) == bool(expected), data
        eventually(lambda: "[proxies] trusted" in whole.daemon.log, "the log says why")
        with closing(socket.create_connection(("127.0.0.1", proxied), 15, (PROXY, 0))) as connection:
            connection.sendall(header + get)
            assert head_of(connection)[0] == 200
            assert self.addresses(whole, "quin") == ["203.0.113.78"]


class TestEnd:
    """When the daemon has stopped."""

    def test_the_application_was_told_all_and_the_log_says_why_and_no_secrets(self, whole: World) -> None:
        if whole.daemon.has_ended:
            pytest.fail("the daemon has ended before")
        token = whole.token("rosa", subscribe=["room/**"])
        with ExitStack() as stack:
            for number in range(3):
                rosa = stack.enter_context(whole.websocket(f"channel=room/{number}", token))
                said(rosa, type="subscribed")
            client = stack.enter_context(whole.http2(token))
            stream = stack.enter_context(client.stream("GET", "/stream?channel=room/1"))
            eventually(lambda: len(whole.connections(user="rosa")) == 4, "they are connected")
            events = whole.ask("/channels/room%2F1/events", whole.backend()).body
            assert Intruder.MARK.encode() not in events
            eventually(lambda: whole.intruder.rounds > 1, "the intruder has tried everything", 40)
            whole.intruder.stop()
            assert whole.intruder.successes == []
            whole.daemon.signal(SIGTERM)
            assert closed(whole, rosa)[0] == 1001
            *_, last = lines_of(stream)
            assert last["type"] == "closed"
        assert whole.daemon.wait() in (0, -SIGTERM)
        self.check_told(whole)
        assert {request["fault"] for request in whole.application.requests} == {None}
        self.check_log(whole)

    @staticmethod
    def check_told(whole: World) -> None:
        """Find everything in order, for each connection and channel, and exactly once."""
        told = whole.application.told
        assert len({event["id"] for event in told}) == len(told)
        assert not [event for event in told if event["event"] == "dropped"]
        connections = dict[str, list[dict[str, Any]]]()
        occupied = Counter[str]()
        for event in told:
            if event["event"] in ("occupied", "vacated"):
                occupied[event["channel"]] += 1 if event["event"] == "occupied" else -1
                assert 0 <= occupied[event["channel"]] <= 1, event
            else:
                connections.setdefault(event["connection"], []).append(event)
        assert connections
        for events in connections.values():
            kinds = [event["event"] for event in events]
            assert (kinds[0], kinds[-1]) == ("connect", "disconnect"), events
            assert kinds.count("connect") == kinds.count("disconnect") == 1, events
            assert events[-1]["reason"], events
            subscribed = Counter[str]()
            for event in events[1:-1]:
                subscribed[event["channel"]] += 1 if event["event"] == "subscribe" else -1
                assert 0 <= subscribed[event["channel"]] <= 1, events
            assert not +subscribed, events
        assert not +occupied
        reasons = {event["reason"] for event in told if event["event"] == "disconnect"}
        assert reasons >= whole.reasons, whole.reasons - reasons

    @staticmethod
    def check_log(whole: World) -> None:
        """Find each reason in the log, and no secret, no fault and nothing that Twisted had to report."""
        log = whole.daemon.log + whole.daemon.stderr
        for secret in whole.secrets:
            for part in (secret, *secret.split(".")[1:]):
                assert len(part) < 20 or part not in log, part
        assert "access_token" not in log
        assert "session=" not in log
        assert "websocket of 127.0.0.1:" in log
        left_out = sum(map(int, re.findall(r", and (\d+) more like this", log)))
        missing = {detail for detail in whole.details if detail not in log}
        assert len(missing) <= left_out, missing
        for what in ("fault in pushd", "Unhandled", "Traceback", "Exception", "Error: "):
            lines = [line for line in log.splitlines() if what in line and "no answer from the hook" not in line]
            lines = [line for line in lines if "could not be told" not in line]
            assert lines == [], what
