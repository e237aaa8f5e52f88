"""Channels over HTTP: the list, one channel, its history, and a single event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from pushd.daemon.integrations import Integrations
from pushd.errors import Forbidden
from tests.rigs.daemon import STARTED, DaemonTests, query
from tests.rigs.outsiders import Answers, Ask, Later

NAMES = (
    "a/b",
    "a.b",
    "a%b",
    "a%2Fb",
    "ü",
    "漢字",
    " ",
    "a b",
    "..",
    ".",
    "a?b#c",
    "a+b",
    "a;b=c",
    "events",
    "\u00a0",
)


class ChannelTests(DaemonTests):
    """``/channels/{channel}``."""

    def test_the_state_tells_what_there_is(self) -> None:
        subscriber = self.rig.client()
        subscriber.send("GET", "/sse?channel=news")
        first, second = self.rig.publish("news", id="first"), self.rig.publish("news")
        position = self.rig.publish("other")
        wanted = {
            "channel": "news",
            "subscribers": 1,
            "retained": 2,
            "oldest": {"id": first, "offset": 1},
            "latest": {"id": second, "offset": 2},
            "position": position,
        }
        response = self.rig.get("/channels/news")
        self.assertEqual((response.status, response.json), (200, wanted))

    def test_a_channel_that_nobody_has_used_is_empty(self) -> None:
        state = self.rig.get("/channels/new").json
        self.assertEqual(
            (state["retained"], state["oldest"], state["latest"], state["subscribers"]), (0, None, None, 0)
        )
        self.assertEqual(self.rig.traces.channels, 0)

    def test_a_subscriber_by_a_pattern_counts(self) -> None:
        subscriber = self.rig.client()
        subscriber.send("GET", "/sse?channel=news/*")
        self.assertEqual(self.rig.get("/channels/news%2Fsport").json["subscribers"], 1)

    def test_every_name_has_its_own_path(self) -> None:
        for name in NAMES:
            with self.subTest(name):
                self.rig.publish(name, name.encode())
                path = f"/channels/{quote(name, safe='')}"
                self.assertEqual(self.rig.get(path).json["channel"], name)
                (event,) = self.rig.get(f"{path}/events").json["events"]
                self.assertEqual((event["channel"], event["data"]), (name, name))
        self.assertEqual(self.rig.traces.channels, len(NAMES))

    def test_a_name_is_not_split_at_an_escaped_slash(self) -> None:
        self.rig.publish("a/events")
        self.assertEqual(self.rig.get("/channels/a/events").json["events"], [])
        self.assertEqual(self.rig.get("/channels/a%2Fevents").json["retained"], 1)

    def test_a_name_that_cannot_be_is_refused_whatever_is_asked(self) -> None:
        for name in ("%00", "a%0D", "*", "a%2F**", "x" * 256, "%C3", "%E2%80%A8"):
            for below in ("", "/events", "/events/x"):
                with self.subTest(name + below):
                    self.assert_problem(self.rig.get(f"/channels/{name}{below}"), 400, field="channel")

    def test_delete_forgets_the_history(self) -> None:
        self.rig.publish_each("news", b"one", b"two")
        response = self.rig.request("DELETE", "/channels/news")
        self.assertEqual((response.status, response.body), (204, b""))
        self.assertEqual(self.rig.get("/channels/news/events").json["events"], [])
        self.rig.publish("news", b"three")
        (event,) = self.rig.get("/channels/news/events").json["events"]
        self.assertEqual(event["offset"], 3)

    def test_delete_of_what_is_not_there_is_not_found(self) -> None:
        self.assert_problem(self.rig.request("DELETE", "/channels/news"), 404, field="channel")

    def test_without_the_right_to_subscribe_nothing_can_be_read(self) -> None:
        self.start("[auth]\nanonymous = publish\n")
        event_id = self.rig.publish("news")
        for path in ("", "?prefix=a", "/news", "/news/events", f"/news/events/{event_id}"):
            with self.subTest(path):
                self.assert_problem(self.rig.get(f"/channels{path}"), 403)

    def test_without_the_right_to_publish_nothing_can_be_deleted(self) -> None:
        self.start("[auth]\nanonymous = subscribe\n")
        self.assert_problem(self.rig.request("DELETE", "/channels/news"), 403)

    def test_other_methods_are_refused(self) -> None:
        event_id = self.rig.publish("news")
        for path, allowed in (
            ("/channels", "DELETE, GET, HEAD, OPTIONS"),
            ("/channels/news", "DELETE, GET, HEAD, OPTIONS, POST"),
            ("/channels/news/events", "GET, HEAD, OPTIONS"),
            (f"/channels/news/events/{event_id}", "GET, HEAD, OPTIONS"),
        ):
            for method in ("PUT", "PATCH", "FOO"):
                with self.subTest(f"{method} {path}"):
                    response = self.rig.request(method, path)
                    self.assert_problem(response, 405, says=method)
                    self.assertEqual(response.header("allow"), allowed)

    def test_there_is_nothing_else_below(self) -> None:
        self.rig.publish("news")
        for path in ("/channels/news/", "/channels/news/other", "/channels/a/b"):
            with self.subTest(path):
                self.assert_problem(self.rig.get(path), 404)


class ChannelListTests(DaemonTests):
    """``GET /channels``."""

    config = "[site]\ndemo = no\n"

    def list(self, **parameters: str | int) -> tuple[list[str], str | None]:
        """Return the names on a page and the name to go on after."""
        response = self.rig.get(f"/channels?{query(**parameters)}")
        self.assertEqual(response.status, 200, response)
        return [state["channel"] for state in response.json["channels"]], response.json["next"]

    def test_without_channels_it_is_empty(self) -> None:
        self.assertEqual(self.list(), ([], None))

    def test_an_item_is_the_state_of_its_channel(self) -> None:
        self.rig.publish("news")
        (item,) = self.rig.get("/channels").json["channels"]
        self.assertEqual(item, self.rig.get("/channels/news").json)

    def test_pages_lead_through_everything_in_the_order_of_the_names(self) -> None:
        names = sorted([*NAMES, *(f"n{number}" for number in range(20))])
        for name in names:
            self.rig.publish(name)
        for limit in (1, 7, len(names) - 1, len(names), 1000):
            with self.subTest(limit):
                got, following = self.list(limit=limit)
                while following is not None:
                    page, following = self.list(limit=limit, after=following)
                    self.assertTrue(0 < len(page) <= limit)
                    got += page
                self.assertEqual(got, names)

    def test_the_last_page_has_no_next(self) -> None:
        for name in "abcd":
            self.rig.publish(name)
        self.assertEqual(self.list(limit=2), (["a", "b"], "b"))
        self.assertEqual(self.list(limit=2, after="b"), (["c", "d"], None))
        self.assertEqual(self.list(limit=2, after="d"), ([], None))

    def test_the_default_limit_is_100(self) -> None:
        for number in range(101):
            self.rig.publish(f"{number:03}")
        names, following = self.list()
        self.assertEqual((len(names), following), (100, "099"))

    def test_a_prefix_leaves_out_the_others(self) -> None:
        for name in ("a", "ab", "b", "ä/x", "ä/y"):
            self.rig.publish(name)
        self.assertEqual(self.list(prefix="a")[0], ["a", "ab"])
        self.assertEqual(self.list(prefix="ä/", limit=1), (["ä/x"], "ä/x"))
        self.assertEqual(self.list(prefix="ä/", after="ä/x"), (["ä/y"], None))

    def test_wrong_parameters_are_refused_by_their_names(self) -> None:
        for text, field in (
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=", "limit"),
            ("prefix=%FF", "prefix"),
            ("after=%FF", "after"),
            ("prefix=a&prefix=b", "prefix"),
            ("after=a&after=b", "after"),
        ):
            with self.subTest(text):
                self.assert_problem(self.rig.get(f"/channels?{text}"), 400, field=field)


class HistoryTests(DaemonTests):
    """``GET /channels/{channel}/events``."""

    config = "[channels:short]\nhistory_age = 10s\n"

    def page(self, **parameters: str | int) -> dict[str, Any]:
        """Return a page of the history of ``news``."""
        response = self.rig.get(f"/channels/news/events?{query(**parameters)}")
        self.assertEqual(response.status, 200, response)
        self.assertEqual(response.header("cache-control"), "no-store")
        page: dict[str, Any] = response.json
        return page

    def test_an_event_has_everything_about_it(self) -> None:
        event_id = self.rig.publish("news", "ü".encode(), event="note")
        (event,) = self.page()["events"]
        wanted = {"id": event_id, "channel": "news", "offset": 1, "data": "ü", "event": "note", "time": STARTED}
        self.assertEqual(event, wanted)

    def test_binary_data_is_base64(self) -> None:
        self.rig.publish("news", b"\xff")
        (event,) = self.page()["events"]
        self.assertEqual((event["data_base64"], "data" in event), ("/w==", False))

    def test_pages_lead_through_everything_oldest_first(self) -> None:
        for number in range(20):
            self.rig.publish("news", b"%d" % number, id=None if number % 3 else f"given/{number}")
            self.rig.publish("other")
        for limit in (1, 3, 19, 20, 1000):
            with self.subTest(limit):
                got: list[str] = []
                page = self.page(limit=limit)
                while page["events"]:
                    self.assertLessEqual(len(page["events"]), limit)
                    self.assertIs(page["recovered"], True)
                    got += [event["data"] for event in page["events"]]
                    page = self.page(limit=limit, since=page["position"])
                self.assertEqual(got, [str(number) for number in range(20)])

    def test_a_page_has_a_mebibyte_of_data_at_most_or_one_event(self) -> None:
        self.start("[limits]\nevent_size = 1MiB\n")
        sizes = [400_000, 400_000, 400_000, 1024 * 1024, 1, 1024 * 1024 - 1, 1]
        for size in sizes:
            self.rig.publish("news", b"x" * size)
        got: list[list[int]] = []
        since = "earliest"
        while len(got) < len(sizes):
            client = self.rig.client()
            client.send("GET", f"/channels/news/events?{query(since=since)}")
            while not (client.responses and client.response.is_complete):
                self.rig.turn()
            page = client.response.json
            if not page["events"]:
                break
            got.append([len(event["data"]) for event in page["events"]])
            since = page["position"]
        self.assertEqual(got, [sizes[:2], sizes[2:3], sizes[3:4], sizes[4:6], sizes[6:]])

    def test_it_begins_after_any_id(self) -> None:
        ids = self.rig.publish_each("news", b"1", b"2", b"3")
        self.assertEqual([event["data"] for event in self.page(since=ids[0])["events"]], ["2", "3"])
        self.assertEqual(self.page(since=ids[2])["events"], [])
        self.assertEqual(self.page(since="latest")["events"], [])

    def test_the_default_limit_is_100(self) -> None:
        self.start("[channels]\nhistory_size = 200\n")
        ids = self.rig.publish_each("news", *[b"x"] * 150)
        page = self.page()
        self.assertEqual((len(page["events"]), page["position"]), (100, ids[99]))

    def test_a_lost_position_is_told_with_everything_that_is_there(self) -> None:
        self.rig.publish("news", b"1")
        page = self.page(since="lost")
        self.assertIs(page["recovered"], False)
        self.assertEqual(len(page["events"]), 1)

    def test_what_expired_is_not_there_and_is_told(self) -> None:
        position = self.rig.publish("short")
        self.rig.publish("short")
        self.rig.wait(11)
        page = self.rig.get(f"/channels/short/events?since={position}").json
        self.assertEqual((page["events"], page["recovered"]), ([], False))

    def test_wrong_parameters_are_refused_by_their_names(self) -> None:
        for text, field in (
            ("limit=x", "limit"),
            ("since=", "since"),
            ("since=%FF", "since"),
            ("since=a&since=b", "since"),
        ):
            with self.subTest(text):
                self.assert_problem(self.rig.get(f"/channels/news/events?{text}"), 400, field=field)


class EventTests(DaemonTests):
    """``GET /channels/{channel}/events/{id}``."""

    def test_the_data_is_the_body(self) -> None:
        event_id = self.rig.publish("news", b"<script>\r\n", event="nöte")
        response = self.rig.get(f"/channels/news/events/{event_id}")
        self.assertEqual((response.status, response.body), (200, b"<script>\r\n"))
        self.assertEqual(response.header("content-type"), "text/plain; charset=utf-8")
        self.assertEqual(response.header("x-content-type-options"), "nosniff")
        self.assertEqual(response.header("event-id"), event_id)
        self.assertEqual((response.header("event-type") or "").encode("latin-1").decode(), "nöte")

    def test_binary_data_is_bytes(self) -> None:
        event_id = self.rig.publish("news", b"\xff\x00")
        response = self.rig.get(f"/channels/news/events/{event_id}")
        self.assertEqual(
            (response.body, response.header("content-type")), (b"\xff\x00", "application/octet-stream")
        )
        self.assertIsNone(response.header("event-type"))

    def test_empty_data_is_an_empty_body(self) -> None:
        response = self.rig.get(f"/channels/news/events/{self.rig.publish('news', b'')}")
        self.assertEqual((response.status, response.body), (200, b""))

    def test_an_id_of_any_form_has_its_path(self) -> None:
        for event_id in ("a/b", "a%b", "ü", "..", ".", "a?b#c", "urn:uuid:1", "a b", "+"):
            with self.subTest(event_id):
                self.rig.publish("news", event_id.encode(), id=event_id)
                response = self.rig.get(f"/channels/news/events/{quote(event_id, safe='')}")
                self.assertEqual((response.status, response.body), (200, event_id.encode()))

    def test_what_is_not_there_is_not_found(self) -> None:
        other = self.rig.publish("other")
        self.rig.publish("news")
        for path in ("news/events/none", f"news/events/{other}", f"nowhere/events/{other}", "news/events/%FF"):
            with self.subTest(path):
                status = 400 if "%FF" in path else 404
                response = self.rig.get(f"/channels/{path}")
                self.assert_problem(response, status, field="channel" if "nowhere" in path else "id")

    def test_an_unescaped_slash_in_an_id_is_not_found(self) -> None:
        self.rig.publish("news", id="a")
        response = self.rig.get("/channels/news/events/a/b")
        self.assertEqual(response.status, 404, response)

    def test_head_has_the_headers_of_get(self) -> None:
        path = f"/channels/news/events/{self.rig.publish('news', b'hello')}"
        got, head = self.rig.get(path), self.rig.request("HEAD", path)
        self.assertEqual(head.body, b"")
        self.assertEqual(head.header("content-length"), "5")
        self.assertEqual(got.header("content-type"), head.header("content-type"))


class AskedTests(DaemonTests):
    """The application, which is asked who may subscribe, is asked who may read as well."""

    config = "[site]\ndemo = no\n"

    def begin(self, decide: Callable[[Ask], object] = lambda ask: None) -> Answers:
        """Start a daemon with events in two channels."""
        answers = Answers(decide, asks_connect=True, asks_subscribe=True)
        self.world = Integrations(None, answers, None)
        self.start(self.config)
        for channel in "secret", "news":
            self.rig.publish(channel, b"hello", id=f"{channel}-1")
        return answers

    def test_what_it_refuses_is_not_read(self) -> None:
        self.begin(lambda ask: Forbidden("not for you") if ask.what == "secret" else None)
        for method in ("GET", "HEAD"):
            for status, channel in ((403, "secret"), (200, "news")):
                for path in (f"/channels/{channel}/events", f"/channels/{channel}/events/{channel}-1"):
                    self.assertEqual(self.rig.request(method, path).status, status, path)
        for status, channels in ((403, ["news", "secret"]), (200, ["news"])):
            for path in ("/poll", "/sse", "/stream"):
                response = self.rig.request("HEAD", f"{path}?{query(channel=channels, since='earliest')}")
                self.assertEqual((response.status, response.body), (status, b""), path)

    def test_it_is_asked_as_if_somebody_subscribed_who_is_not_connected(self) -> None:
        answers = self.begin()
        self.rig.get("/channels/news/events")
        self.rig.get("/channels/news/events?since=latest")
        self.rig.get("/channels/news/events/news-1")
        self.rig.request("HEAD", "/poll?channel=a&channel=b")
        self.rig.request("OPTIONS", "/channels/news/events")
        self.rig.get("/channels/news")
        self.assertEqual(
            [(ask.what, ask.since) for ask in answers.asked],
            [("news", "earliest"), ("news", "latest"), ("news", "news-1"), ("a", "latest"), ("b", "latest")],
        )
        self.assertEqual(
            {(ask.kind, ask.caller.id, ask.caller.transport.name) for ask in answers.asked},
            {("subscribe", None, "http")},
        )

    def test_it_is_not_asked_about_what_is_not_allowed_anyway(self) -> None:
        self.config += "[auth]\nanonymous = publish\n"
        answers = self.begin()
        for method, path in (("GET", "/channels/news/events"), ("HEAD", "/poll?channel=news")):
            self.assertEqual(self.rig.request(method, path).status, 403)
        self.assertEqual(answers.asked, [])

    def test_its_answer_is_waited_for(self) -> None:
        answers = self.begin(lambda ask: Later)
        client = self.rig.client()
        client.send("GET", "/channels/news/events")
        self.rig.turn()
        self.assertEqual(client.responses, [])
        answers.asked[0].answered.callback(None)
        self.rig.turn()
        self.assertEqual([event["id"] for event in client.response.json["events"]], ["news-1"])
