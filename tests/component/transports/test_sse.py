"""What is particular to Server-Sent Events."""

from __future__ import annotations

import gc
import json

from twisted.web.http_headers import Headers

from tests.rigs.daemon import DaemonTests, query
from tests.rigs.http_client import Client, HttpClient
from tests.rigs.sse_client import EventStream


class SseTestCase(DaemonTests):
    """Tests of event streams."""

    config = "[limits]\nretry = 2500ms\nheartbeat = 20s\n[channels:short]\nhistory_age = 1s\n"

    def open(self, *channels: str, since: str | None = None, last_event_id: str | None = None) -> Client:
        """Open an event stream."""
        client = self.rig.client()
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        client.send("GET", f"/sse?{query(channel=channels, since=since)}", headers=headers)
        self.rig.turn()
        return client

    def stream(self, client: Client) -> EventStream:
        """Read what has come."""
        return EventStream(client.response.body)

    def datas(self, client: Client) -> list[str]:
        """The data of every event, also of pushd's own."""
        return [event.data for event in self.stream(client).events]


class SseTests(SseTestCase):
    """``GET /sse``, as an ``EventSource`` sees it."""

    # The head

    def test_the_head_says_that_it_is_a_stream_that_nobody_may_keep_or_buffer(self) -> None:
        response = self.open("news").response
        self.assertEqual(response.status, 200)
        self.assertEqual(response.header("content-type"), "text/event-stream")
        self.assertEqual(response.header("cache-control"), "no-store, no-transform")
        self.assertEqual(response.header("x-accel-buffering"), "no")
        self.assertEqual(response.header("x-content-type-options"), "nosniff")
        self.assertIsNone(response.header("content-length"))
        self.assertFalse(response.is_complete)

    def test_head_is_answered_with_the_head_only(self) -> None:
        client = self.rig.client()
        before = self.rig.traces
        client.send("HEAD", "/sse?channel=news")
        self.rig.turn()
        self.assertEqual(client.response.status, 200)
        self.assertIsNone(client.response.header("connection"))
        self.assertEqual(client.response.header("content-type"), "text/event-stream")
        self.assert_no_traces(before)
        client.send("GET", "/channels/news")
        self.rig.turn()
        self.assertEqual(client.responses[1].status, 200, "the connection goes on")

    def test_other_methods_are_refused(self) -> None:
        for method in ("POST", "PUT", "DELETE"):
            response = self.rig.request(method, "/sse?channel=news")
            self.assert_problem(response, 405)
            self.assertEqual(response.header("allow"), "GET, HEAD, OPTIONS")

    # The format

    def test_json_tells_the_channel_and_has_no_event_line(self) -> None:
        client = self.rig.client()
        client.send("GET", "/sse?channel=a/**&format=json")
        plain = self.open("a/1")
        for channel, data in (("a/1", "one"), ("a/2", "two")):
            self.rig.request("POST", f"/channels/{channel.replace('/', '%2F')}?event=greeting", body=data.encode())
        self.rig.turn()
        events = self.stream(client).events
        self.assertEqual([event.type for event in events], ["message", "message"])
        told = [json.loads(event.data) for event in events]
        self.assertEqual(
            [(one["channel"], one["data"], one["offset"]) for one in told], [("a/1", "one", 1), ("a/2", "two", 1)]
        )
        self.assertEqual([one["event"] for one in told], ["greeting"] * 2)
        self.assertIn(b"data: one\n", plain.response.body)
        self.assertEqual(client.response.body.count(b"event: "), 1)

    def test_another_format_is_refused(self) -> None:
        for text in ("raw", "JSON", "%FF", "json&format=json"):
            for method in ("GET", "HEAD"):
                self.assertEqual(self.rig.request(method, f"/sse?channel=a&format={text}").status, 400, text)
        response = self.rig.get("/sse?channel=a&format=raw")
        self.assert_problem(response, 400, field="format", says="format is 'raw'; expected data or json")
        for text in ("data", "json", ""):
            self.assertEqual(self.rig.request("HEAD", f"/sse?channel=a&format={text}").status, 200)

    # The beginning of the body

    def test_the_body_begins_with_the_retry_time_and_an_event_that_has_the_position(self) -> None:
        event_id = self.rig.publish("news")
        client = self.open("news")
        (subscriber,) = self.rig.parts.sessions
        data = f'{{"position":"{event_id}","recovered":true,"heartbeat":20,"connection":"{subscriber.caller.id}"}}'
        self.assertEqual(
            client.response.body, f"retry: 2500\nid: {event_id}\nevent: pushd.open\ndata: {data}\n\n".encode()
        )

    def test_the_first_event_says_whether_the_position_was_lost(self) -> None:
        self.rig.publish("news")
        for since, recovered in (("lost", False), ("earliest", True), ("latest", True)):
            opened = self.stream(self.open("news", since=since)).opened
            self.assertEqual(opened and opened["recovered"], recovered)

    def test_the_position_is_there_before_any_event(self) -> None:
        stream = self.stream(self.open("news"))
        self.assertEqual(stream.events, [])
        self.assertRegex(stream.last_event_id, "^[0-9a-z]{10}-0$")
        self.assertEqual(stream.retry_ms, 2500)

    # Events

    def test_an_event_has_its_id_its_type_and_its_data(self) -> None:
        client = self.open("news")
        before = len(client.response.body)
        event_id = self.rig.publish("news", b"a\nb", event="note")
        self.rig.turn()
        self.assertEqual(
            client.response.body[before:], f"id: {event_id}\nevent: note\ndata: a\ndata: b\n\n".encode()
        )
        (event,) = self.stream(client).events
        self.assertEqual((event.type, event.data, event.last_event_id), ("note", "a\nb", event_id))

    def test_an_event_without_a_type_is_a_message(self) -> None:
        client = self.open("news")
        self.rig.publish("news")
        self.rig.turn()
        self.assertEqual([event.type for event in self.stream(client).events], ["message"])

    def test_types_in_any_script_come_as_they_are(self) -> None:
        client = self.open("news")
        self.rig.publish("news", event=" 漢字:")
        self.rig.turn()
        (event,) = self.stream(client).events
        self.assertEqual(event.type, " 漢字:")

    def test_the_id_is_the_position_whatever_id_the_publisher_gave(self) -> None:
        """Some clients accept ASCII ids only, and a position stays valid when its event is dropped."""
        client = self.open("news", "other")
        before = len(client.response.body)
        self.rig.publish("news", b"x", id="ü: 1")
        self.rig.turn()
        position = self.rig.get("/channels/news").json["position"]
        self.assertEqual(client.response.body[before:], f"id: {position}\ndata: x\n\n".encode())
        self.rig.request("DELETE", "/channels/news")
        self.rig.publish("other", b"later")
        self.assertEqual(self.datas(self.open("other", last_event_id=position)), ["later"])

    def test_every_line_break_begins_a_new_line_of_data(self) -> None:
        client = self.open("news")
        self.rig.publish("news", b"a\r\nb\rc\nd\n\n\revent: x")
        self.rig.turn()
        (event,) = self.stream(client).events
        self.assertEqual((event.type, event.data), ("message", "a\nb\nc\nd\n\n\nevent: x"))

    def test_data_cannot_end_the_event_and_begin_another(self) -> None:
        client = self.open("news")
        self.rig.publish("news", b"\n\nevent: forged\nid: forged\ndata: x\n\n")
        self.rig.publish("news", b"\r\rid: forged\rdata: x\r\r")
        self.rig.turn()
        stream = self.stream(client)
        self.assertEqual(len(stream.events), 2)
        self.assertNotEqual(stream.last_event_id, "forged")

    def test_binary_data_comes_as_a_json_object(self) -> None:
        client = self.open("news")
        self.rig.publish("news", b"\xff\x00")
        self.rig.turn()
        self.assertEqual(json.loads(self.datas(client)[0]), {"data_base64": "/wA="})

    # Positions

    def test_last_event_id_wins_over_since(self) -> None:
        ids = self.rig.publish_each("news", b"one", b"two", b"three")
        self.assertEqual(self.datas(self.open("news", since=ids[0], last_event_id=ids[1])), ["three"])
        self.assertEqual(self.datas(self.open("news", since="earliest", last_event_id=ids[2])), [])

    def test_an_alias_in_the_query_is_the_header_of_who_cannot_send_it(self) -> None:
        ids = self.rig.publish_each("news", b"one", b"two", b"three")
        for name in ("lastEventId", "lastEventID", "last-event-id", "Last-Event-ID"):
            with self.subTest(name):
                for more, header, datas in (
                    ("", None, ["three"]),
                    ("&since=earliest", None, ["three"]),
                    (f"&since={ids[2]}", None, ["three"]),
                    ("", ids[0], ["two", "three"]),
                ):
                    client = self.rig.client()
                    headers = {} if header is None else {"Last-Event-ID": header}
                    client.send("GET", f"/sse?channel=news&{name}={ids[1]}{more}", headers=headers)
                    self.rig.turn()
                    self.assertEqual(self.datas(client), datas)
                client = self.rig.client()
                client.send("GET", f"/sse?channel=news&{name}=&since={ids[1]}")
                self.rig.turn()
                self.assertEqual(self.datas(client), ["three"], "an empty one is none")

    def test_aliases_are_for_event_streams_and_there_is_one(self) -> None:
        twice = self.rig.get("/sse?channel=news&lastEventId=a&Last-Event-ID=b")
        self.assert_problem(twice, 400, field="lastEventId", says="2 times")
        self.assert_problem(self.rig.get("/sse?channel=news&lastEventId=%FF"), 400, field="lastEventId")
        self.assert_problem(self.rig.get("/sse?channel=news&lastEventId=a&since="), 400, field="since")
        self.assert_problem(self.rig.get("/stream?channel=news&lastEventId=a"), 400, field="lastEventId")

    def test_a_header_in_latin_1_is_read_as_that(self) -> None:
        self.rig.publish("news", b"one", id="\u00fc/1")
        self.rig.publish("news", b"two")
        client = HttpClient(self.rig)
        client.send_raw(
            "GET", b"GET /sse?channel=news HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: \xfc/1\r\n\r\n"
        )
        self.rig.turn()
        self.assertEqual(self.datas(client), ["two"])

    def test_an_empty_last_event_id_is_none(self) -> None:
        ids = self.rig.publish_each("news", b"one", b"two")
        self.assertEqual(self.datas(self.open("news", since=ids[0], last_event_id="")), ["two"])

    def test_last_event_id_may_be_in_any_script(self) -> None:
        self.rig.publish("news", b"one", id="ü/1")
        self.rig.publish("news", b"two")
        self.assertEqual(self.datas(self.open("news", last_event_id="ü/1")), ["two"])

    def test_the_first_block_resumes_a_client_that_got_no_event(self) -> None:
        client = self.open("news")
        position = self.stream(client).last_event_id
        client.connection.disconnect()
        self.rig.publish("news", b"while away")
        self.assertEqual(self.datas(self.open("news", last_event_id=position)), ["while away"])

    def test_a_lost_position_is_told_once_before_the_first_event(self) -> None:
        self.rig.publish("news", b"one")
        stream = self.stream(self.open("news", last_event_id="lost\\ü"))
        gap, event = stream.events
        self.assertEqual((gap.type, json.loads(gap.data)), ("pushd.gap", {"since": "lost\\ü"}))
        self.assertEqual(event.data, "one")

    def test_the_gap_sets_the_position_to_where_the_stream_begins(self) -> None:
        self.rig.publish("news", b"one")
        client = self.open("news", last_event_id="lost")
        gap, event = self.stream(client).events
        again = self.stream(self.open("news", last_event_id=gap.last_event_id))
        self.assertEqual([it.data for it in again.events], [event.data])

    # Heartbeats

    def test_an_idle_client_hears_a_comment(self) -> None:
        client = self.open("news")
        self.rig.wait(19)
        self.assertEqual(self.stream(client).comments, [])
        self.rig.wait(1 + 20 * 2)
        stream = self.stream(client)
        self.assertEqual(stream.comments, ["", "", ""])
        self.assertTrue(client.response.body.endswith(b"\n\n:\n:\n:\n"), "no empty line: see StreamFormat")
        self.assertEqual(stream.events, [])

    def test_a_client_that_hears_enough_hears_no_comment(self) -> None:
        client = self.open("news")
        for _ in range(50):
            self.rig.publish("news")
            self.rig.wait(2)
        self.assertEqual(self.stream(client).comments, [])

    def test_an_event_puts_the_next_heartbeat_off(self) -> None:
        client = self.open("news")
        self.rig.wait(5)
        self.rig.publish("news")
        self.rig.wait(19)
        self.assertEqual(self.stream(client).comments, [])
        self.rig.wait(1)
        self.assertEqual(self.stream(client).comments, [""])

    def test_a_client_that_takes_nothing_is_not_written_to_again_and_again(self) -> None:
        client = self.open("news")
        client.connection.stop_reading()
        writes = len(client.connection.writes)
        self.rig.wait(200)
        self.assertEqual(len(client.connection.writes), writes)

    # The end

    def test_the_end_is_an_event_with_the_reason_and_a_complete_body(self) -> None:
        client = self.open("news")
        self.rig.publish("news")
        self.rig.turn()
        self.rig.request("DELETE", "/channels/news")
        self.rig.turn()
        event = self.stream(client).events[-1]
        self.assertEqual(
            (event.type, json.loads(event.data)), ("pushd.closed", {"detail": "the channel was deleted"})
        )
        self.assertTrue(client.response.is_complete)

    def test_at_a_stop_each_client_is_told_another_time_to_come_back(self) -> None:
        self.start("[limits]\nretry = 2500ms\nreconnect_spread = 4s\n")
        chances = iter((0.0, 0.25, 0.9999))
        clients = {self.open("news") for _ in range(3)}
        self.rig.chance = lambda: next(chances)
        self.rig.stop()
        self.rig.wait(1)
        streams = [self.stream(client) for client in clients]
        self.assertEqual({stream.retry_ms for stream in streams}, {2500, 3500, 6499})
        for stream, client in zip(streams, clients, strict=True):
            (event,) = stream.events
            detail = {"detail": "the server is going away"}
            self.assertEqual((event.type, json.loads(event.data)), ("pushd.closed", detail))
            self.assertTrue(client.response.is_complete)

    def test_who_is_closed_for_another_reason_comes_back_as_soon_as_ever(self) -> None:
        client = self.open("news")
        self.rig.request("DELETE", "/channels/news")
        self.rig.turn()
        self.assertEqual(self.stream(client).retry_ms, 2500)


class Http1Tests(SseTestCase):
    """What is so over HTTP/1 only, where a stream has a connection to itself."""

    def test_with_the_stream_the_connection_ends_and_the_head_says_so(self) -> None:
        client = self.open("news")
        self.assertEqual(client.response.header("connection"), "close")
        self.rig.publish("news")
        self.rig.request("DELETE", "/channels/news")
        self.rig.turn()
        self.assertTrue(client.response.is_complete)
        self.assertFalse(client.connection.is_open)

    def test_of_the_heads_of_request_and_response_nothing_is_kept(self) -> None:
        def kept() -> int:
            fields = [it for it in gc.get_objects() if isinstance(it, Headers)]
            return sum(it.hasHeader("x-of-the-test") or it.hasHeader("x-accel-buffering") for it in fields)

        gc.collect()
        before, client = kept(), HttpClient(self.rig)
        client.send("GET", "/sse?channel=news", headers={"X-Of-The-Test": "1"})
        self.assertEqual(kept(), before)
        self.rig.publish("news", b"one")
        self.rig.request("DELETE", "/channels/news")
        self.rig.turn()
        self.assertEqual(self.datas(client)[:1], ["one"])

    def test_over_http_1_0_the_stream_lasts_until_the_connection_ends(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/sse?channel=news", version="1.0")
        self.rig.publish("news", b"one")
        self.rig.turn()
        self.assertIsNone(client.response.header("transfer-encoding"))
        self.assertEqual(self.datas(client), ["one"])
        self.assertTrue(client.connection.is_open)

    def test_a_since_that_is_wrong_is_refused_also_where_last_event_id_wins(self) -> None:
        response = self.rig.request("GET", "/sse?channel=a&since=", headers={"Last-Event-ID": "x"})
        self.assert_problem(response, 400, field="since")

    def test_what_the_client_sends_on_is_not_served_before_the_end(self) -> None:
        client = self.open("news")
        client.send("GET", "/healthz")
        self.rig.turn()
        self.assertEqual(len(client.responses), 1)
