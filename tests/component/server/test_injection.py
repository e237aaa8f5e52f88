"""What comes from outside and goes into a header, a path or a line of a stream stays in its place."""

from __future__ import annotations

import json
from typing import cast
from urllib.parse import quote, unquote

from twisted.logger import ILogObserver, formatEvent, globalLogPublisher

from tests.rigs.daemon import DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient, Response, json_lines, stream_lines
from tests.rigs.sse_client import EventStream
from tests.rigs.websocket_client import WebSocketClient

BREAKS = ("\r\n", "\n", "\r", "\0", "\x0b", "\x0c", "\x1b", "\x7f", "\x85", "\u2028", "\u2029")
"""What ends a line for somebody, or something else."""

INJECTED = "Injected: yes"

HARMLESS = frozenset({"\u2028", "\u2029"})
"""What ends a line in JavaScript's eyes only, and may be in names that pushd does not make lines of."""


def nasty(line_break: str) -> str:
    """Make a value that would be two lines."""
    return f"a{line_break}{INJECTED}"


class InjectionRules(DaemonTests):
    """The rules."""

    def setUp(self) -> None:
        """Write down what is logged: it has lines, too."""
        super().setUp()
        self.logged: list[str] = []
        observer = cast(ILogObserver, lambda event: self.logged.append(formatEvent(event)))
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def tearDown(self) -> None:
        """See that each line of the log is one."""
        self.assertEqual([line for line in self.logged if len(line.splitlines()) > 1 or "\0" in line], [])
        super().tearDown()

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Response:
        """Make a request; whatever is in it, the answer has no field that we invented, nor a second answer."""
        client = self.rig.client()
        client.send(method, target, headers={name.replace("_", "-"): it for name, it in headers.items()}, body=body)
        self.rig.turn()
        response = client.response
        self.assertEqual([name for name, _ in response.headers if "injected" in name], [])
        for name, value in response.headers:
            self.assertEqual(set(value) & {"\r", "\n", "\0"}, set(), name)
        client.connection.disconnect()
        return response

    def test_in_the_query(self) -> None:
        for method, target in (
            ("POST", "/channels/news?event={}"),
            ("POST", "/channels/news?id={}"),
            ("POST", "/channels/news?{}=x"),
            ("GET", "/sse?channel={}"),
            ("GET", "/stream?channel=**.{}"),
            ("GET", "/poll?channel={}&since=earliest"),
            ("GET", "/push?channel={}"),
            ("GET", "/sse?channel=news&{}=x"),
            ("GET", "/channels/news/events?limit={}"),
            ("GET", "/ws?format={}"),
        ):
            for line_break in BREAKS:
                with self.subTest((method, target, line_break)):
                    response = self.ask(method, target.format(quote(nasty(line_break))), b"x" * (method == "POST"))
                    if response.status not in (400, 426, 505):
                        self.assertIn(line_break, HARMLESS, response)

    def test_a_position_that_is_nasty_is_unknown_or_refused(self) -> None:
        for line_break in BREAKS:
            for target in (
                "/sse?channel=news&since={}",
                "/stream?channel=news&since={}",
                "/poll?channel=news&since={}",
            ):
                with self.subTest((target, line_break)):
                    response = self.ask("GET", target.format(quote(nasty(line_break))))
                    if response.status != 200:
                        self.assertEqual(response.status, 400)
                    elif target.startswith("/sse"):
                        events = EventStream(response.body).events
                        self.assertLessEqual({event.type for event in events}, {"pushd.gap"})
                        self.assertNotIn(b"\n" + INJECTED.encode(), response.body)
                    else:
                        self.assertNotIn(b"\n" + INJECTED.encode(), response.body)
                        json_lines(response.body)

    def test_in_the_path(self) -> None:
        for method, target in (
            ("POST", "/channels/{}"),
            ("GET", "/channels/{}"),
            ("DELETE", "/channels/{}"),
            ("GET", "/channels/{}/events"),
            ("GET", "/channels/news/events/{}"),
            ("GET", "/{}"),
            ("GET", "/channels/news/{}"),
        ):
            for line_break in BREAKS:
                with self.subTest((method, target, line_break)):
                    response = self.ask(
                        method, target.format(quote(nasty(line_break), safe="")), b"x" * (method == "POST")
                    )
                    if response.status not in (400, 404):
                        self.assertIn(line_break, HARMLESS, response)

    def test_what_may_be_in_a_name_or_an_id_comes_back_as_it_was(self) -> None:
        for text in (
            "a b",
            "a/b",
            "a%0d%0aInjected: yes",
            "<script>",
            "ü",
            '"quoted"',
            "a?b#c",
            "..",
            "a\\b",
            "a;b,c",
        ):
            with self.subTest(text):
                response = self.ask("POST", f"/channels/{quote(text, safe='')}?{'id=' + quote(text)}", b"data")
                self.assertEqual(response.status, 201, response.body)
                location = response.header("location") or ""
                self.assertTrue(location.isascii())
                self.assertEqual(
                    [unquote(it) for it in location.split("/")], ["", "channels", text, "events", text]
                )
                event = self.ask("GET", location)
                self.assertEqual((event.status, event.body), (200, b"data"))
                self.assertEqual((event.header("event-id") or "").encode("latin-1").decode(), text)
                self.assertEqual(event.header("content-type"), "text/plain; charset=utf-8")

    def test_data_cannot_end_its_event(self) -> None:
        data = "a\n\nevent: injected\nid: injected\ndata: b\r\rretry: 1\r\n\r\n:x\u2028y\0z"
        self.rig.publish("news", data.encode())
        stream = EventStream(self.ask("GET", "/sse?channel=news&since=earliest").body)
        (event,) = stream.events
        self.assertEqual(event.data, data.replace("\r\n", "\n").replace("\r", "\n"))
        self.assertEqual((event.type, stream.comments), ("message", []))
        (line,) = stream_lines(self.ask("GET", "/stream?channel=news&since=earliest").body)
        self.assertEqual(line["data"], data)


class Http1InjectionTests(InjectionRules):
    """Over HTTP/1.1."""

    def test_raw_in_a_header(self) -> None:
        """A whole line end makes two lines of it, each for itself; a half of one makes none."""
        for name in ("Event-Type", "Event-ID", "Last-Event-ID", "Origin", "Host", "Content-Type", "Cookie", "X"):
            for line_break in ("\n", "\r", "\0"):
                with self.subTest((name, line_break)):
                    client = HttpClient(self.rig)
                    client.send("POST", "/channels/news", headers={name: nasty(line_break)}, body=b"x")
                    self.rig.turn()
                    self.assert_problem(client.response, 400, says="not a valid HTTP/1.1 request")

    def test_percent_encoded_in_a_header_it_is_text(self) -> None:
        for name in ("Event-Type", "Event-ID"):
            response = self.ask("POST", "/channels/news", b"x", **{name: "a%0d%0aInjected: yes"})
            self.assertEqual(response.status, 201)
            location = response.header("location") or ""
            event = self.ask("GET", location)
            self.assertEqual(event.header(name.lower()), "a%0d%0aInjected: yes")
        for name in ("Origin", "Host"):
            client = HttpClient(self.rig)
            client.send(
                "POST", "/channels/news", headers={name: "http://a%0d%0aInjected: yes"}, body=b"x", host=None
            )
            self.rig.turn()
            self.assertIn(client.response.status, (400, 403))

    def test_an_origin_that_is_any_is_never_more_than_one(self) -> None:
        self.start("[auth]\norigins = *\nanonymous = publish, subscribe\n")
        for origin in (
            "http://a b",
            "http://a\tb",
            "http://a, http://b",
            "http://ä",
            "javascript:alert(1)",
            "*",
            "",
        ):
            with self.subTest(origin):
                response = self.ask("GET", "/channels", Origin=origin)
                self.assertIsNone(response.header("access-control-allow-origin"))
                self.assertEqual(response.status, 403)

    def test_a_message_in_which_anything_is_nasty_is_refused(self) -> None:
        client = WebSocketClient(self.rig, "/ws")
        self.rig.turn()
        client.say(type="subscribe", channel="news", ref=nasty("\r\n"))
        client.say(type="subscribe", channel=nasty("\r\n"), ref="\u2028")
        client.say(type="publish", channel="news", data="x", event=nasty("\n"))
        client.say(type="publish", channel="news", data="x", id=nasty("\r"))
        client.send(json.dumps({"type": nasty("\r\n")}))
        self.rig.turn()
        self.assertEqual([(it["type"], it["status"]) for it in client.json], [("error", 400)] * 5)
        self.assertTrue(client.is_open)

    def test_a_batch_has_an_answer_for_each_line_whatever_is_in_them(self) -> None:
        answers = self.rig.publish_many(
            {"channel": nasty("\n"), "data": "x"},
            {"channel": "news", "data": "x", "event": nasty("\r")},
            {"channel": "news", "data": "x", "id": nasty("\r\n")},
            {"channel": "news", "data": nasty("\n\n")},
        )
        self.assertEqual([it.get("error", {}).get("status") for it in answers], [400, 400, 400, None])


class Http2InjectionTests(InjectionRules):
    """Over HTTP/2, where nothing ends a line, and everything could be in a value."""

    http = Http2Client


del InjectionRules  # which has no tests of its own
