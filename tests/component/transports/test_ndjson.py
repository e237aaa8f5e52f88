"""What is particular to the NDJSON stream."""

from __future__ import annotations

from tests.rigs.daemon import STARTED, DaemonTests, query
from tests.rigs.http_client import Client, json_lines, stream_lines


class StreamTests(DaemonTests):
    """``GET /stream``."""

    config = "[limits]\nheartbeat = 20s\n"

    def open(self, *channels: str, since: str | None = None) -> Client:
        """Open a stream."""
        client = self.rig.client()
        client.send("GET", f"/stream?{query(channel=channels, since=since)}")
        self.rig.turn()
        return client

    def test_the_head_says_that_it_is_a_stream_that_nobody_may_keep_or_buffer(self) -> None:
        response = self.open("news").response
        self.assertEqual(response.status, 200)
        self.assertEqual(response.header("content-type"), "application/x-ndjson")
        self.assertEqual(response.header("cache-control"), "no-store, no-transform")
        self.assertEqual(response.header("x-accel-buffering"), "no")
        self.assertFalse(response.is_complete)

    def test_the_first_line_comes_at_once_and_says_where_it_begins(self) -> None:
        event_id = self.rig.publish("news")
        (line,) = json_lines(self.open("news").response.body)
        self.assertEqual(line, {"type": "open", "position": event_id, "recovered": True})
        (line, _, _) = json_lines(self.open("news", since="lost").response.body)
        self.assertEqual((line["type"], line["recovered"]), ("open", False))

    def test_the_head_tells_the_position(self) -> None:
        event_id = self.rig.publish("news")
        self.assertEqual(self.open("news").response.header("event-position"), event_id)

    def test_an_event_is_a_line_with_everything_about_it(self) -> None:
        self.rig.wait(3)
        client = self.open("news")
        event_id = self.rig.publish("news", 'ü\n"'.encode(), event="note")
        self.rig.turn()
        (line,) = stream_lines(client.response.body)
        wanted = {
            "type": "event",
            "id": event_id,
            "channel": "news",
            "offset": 1,
            "data": 'ü\n"',
            "event": "note",
            "time": STARTED + 3,
        }
        self.assertEqual(line, wanted)

    def test_binary_data_is_base64(self) -> None:
        client = self.open("news")
        self.rig.publish("news", b"\xff\x00")
        self.rig.turn()
        (line,) = stream_lines(client.response.body)
        self.assertEqual(line["data_base64"], "/wA=")
        self.assertNotIn("data", line)

    def test_each_event_is_one_line_whatever_its_data(self) -> None:
        client = self.open("news")
        self.rig.publish_each("news", b"a\nb\r\nc", "\u2028\u0085".encode(), b"")
        self.rig.turn()
        self.assertEqual(client.response.body.count(b"\n"), 4)
        self.assertEqual(
            [line["data"] for line in stream_lines(client.response.body)], ["a\nb\r\nc", "\u2028\u0085", ""]
        )

    def test_a_lost_position_is_the_next_line(self) -> None:
        self.rig.publish("news", b"one")
        gap, event = stream_lines(self.open("news", since="lost").response.body)
        self.assertEqual(gap, {"type": "gap", "since": "lost"})
        self.assertEqual(event["data"], "one")

    def test_an_idle_client_gets_an_empty_line(self) -> None:
        client = self.open("news")
        before = len(client.response.body)
        self.rig.wait(19)
        self.assertEqual(client.response.body[before:], b"")
        self.rig.wait(1)
        self.assertEqual(client.response.body[before:], b"\n")
        self.rig.publish("news", b"one")
        self.rig.wait(15)
        self.assertEqual(len(stream_lines(client.response.body)), 1)
        self.assertEqual(client.response.body.count(b"\n"), 3)

    def test_head_is_answered_with_the_head_only(self) -> None:
        before = self.rig.traces
        response = self.rig.request("HEAD", "/stream?channel=news")
        self.assertEqual((response.status, response.body), (200, b""))
        self.assertEqual(response.header("content-type"), "application/x-ndjson")
        self.assert_no_traces(before)

    def test_the_end_is_a_line_with_the_reason_and_a_complete_body(self) -> None:
        client = self.open("news")
        self.rig.publish("news")
        self.rig.request("DELETE", "/channels/news")
        self.rig.turn()
        self.assertEqual(
            stream_lines(client.response.body)[-1], {"type": "closed", "detail": "the channel was deleted"}
        )
        self.assertTrue(client.response.is_complete)

    def test_at_a_stop_the_last_line_says_when_to_come_back(self) -> None:
        self.start("[limits]\nretry = 2s\nreconnect_spread = 10s\n")
        client = self.open("news")
        self.rig.chance = lambda: 0.12345
        self.rig.stop()
        self.rig.turn()
        last = {"type": "closed", "detail": "the server is going away", "retry_after": 3.235}
        self.assertEqual(stream_lines(client.response.body), [last])

    def test_other_methods_are_refused(self) -> None:
        response = self.rig.request("POST", "/stream?channel=news")
        self.assert_problem(response, 405, says="POST")
        self.assertEqual(response.header("allow"), "GET, HEAD, OPTIONS")
