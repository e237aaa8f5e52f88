"""Publishing over HTTP."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from twisted.logger import capturedLogs, formatEvent

from pushd.api import publish
from pushd.bus.event import Draft
from pushd.bus.publisher import DirectPublisher
from pushd.errors import Refused
from pushd.wire.messages import parse_object
from tests.rigs.daemon import DaemonTests
from tests.rigs.http_client import Client, Response, batch_replies, stream_lines


class PublishOneTestCase(DaemonTests):
    """Tests of publishing one event."""

    config = "[limits]\nevent_size = 1KiB\nbatch_size = 8KiB\n"

    def post(self, target: str, body: bytes = b"x", **headers: str) -> Response:
        """Publish."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.rig.request("POST", target, headers=fields, body=body)

    def events(self, channel: str = "news") -> list[dict[str, Any]]:
        """What the channel keeps."""
        events: list[dict[str, Any]] = self.rig.get(f"/channels/{channel}/events").json["events"]
        return events


class PublishOneTests(PublishOneTestCase):
    """``POST /channels/{channel}``."""

    def test_the_answer_says_where_the_event_is_and_who_got_it(self) -> None:
        subscriber = self.rig.client()
        subscriber.send("GET", "/sse?channel=news")
        response = self.post("/channels/news", b"hello")
        self.assertEqual(response.status, 201)
        event_id = response.json["id"]
        self.assertEqual(response.json, {"id": event_id, "channel": "news", "offset": 1, "subscribers": 1})
        self.assertEqual(response.header("location"), f"/channels/news/events/{event_id}")
        self.assertEqual(self.rig.get(response.header("location") or "").body, b"hello")

    def test_the_location_of_any_name_and_id_leads_to_the_event(self) -> None:
        response = self.post("/channels/a%2Fb%2E%25%20%C3%BC?id=1%2F2%3F%C3%BC", b"hello")
        self.assertEqual(response.json["channel"], "a/b.% ü")
        self.assertEqual(response.json["id"], "1/2?ü")
        location = response.header("location") or ""
        self.assertTrue(location.isascii())
        self.assertEqual(self.rig.get(location).body, b"hello")

    def test_the_body_is_the_data_whatever_its_content_type(self) -> None:
        for kind in (
            "text/plain",
            "application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
        ):
            with self.subTest(kind):
                self.post("/channels/news", b"a=1&event=x", Content_Type=kind)
                event = self.events()[-1]
                self.assertEqual(event["data"], "a=1&event=x")
                self.assertNotIn("event", event)

    def test_an_empty_body_is_an_event(self) -> None:
        self.assertEqual(self.post("/channels/news", b"").status, 201)
        self.assertEqual(self.events()[0]["data"], "")

    def test_id_and_event_come_in_the_query_or_in_headers(self) -> None:
        self.post("/channels/news?id=one&event=note")
        self.post("/channels/news", Event_ID="two", Event_Type="note")
        self.post("/channels/news?id=three", Event_Type="note")
        self.assertEqual([event["id"] for event in self.events()], ["one", "two", "three"])
        self.assertEqual([event["event"] for event in self.events()], ["note"] * 3)

    def test_id_and_event_must_be_there_once(self) -> None:
        for name, header in (("id", "Event-ID"), ("event", "Event-Type")):
            with self.subTest(name):
                for target, headers in (
                    (f"/channels/news?{name}=a", [(header, "a")]),
                    (f"/channels/news?{name}=a&{name}=a", []),
                    ("/channels/news", [(header, "a"), (header, "a")]),
                ):
                    response = self.rig.request("POST", target, headers=headers, body=b"x")
                    self.assert_problem(response, 400, field=name)
        self.assertEqual(self.rig.traces.channels, 0)

    def test_an_id_or_type_that_cannot_be_is_refused_by_its_name(self) -> None:
        for value in ("", "a%0Ab", "a%00b", "%C2%85", "x" * 256):
            with self.subTest(value):
                self.assert_problem(self.post(f"/channels/news?id={value}"), 400, field="id")
                self.assert_problem(self.post(f"/channels/news?event={value}"), 400, field="event")
        for value in ("latest", "earliest", "0123456789-1"):
            self.assert_problem(self.post(f"/channels/news?id={value}"), 400, field="id")
        self.assert_problem(self.post("/channels/news?id=%FF"), 400, field="id", says="UTF-8")
        self.assert_problem(self.post("/channels/news?event=%FF"), 400, field="event", says="UTF-8")
        self.assertEqual(self.rig.traces.channels, 0)

    def test_the_same_event_again_changes_nothing_and_is_answered_as_a_duplicate(self) -> None:
        first = self.post("/channels/news?id=mine", b"one")
        self.assertIsNone(first.header("idempotent-replayed"))
        for _ in range(2):
            again = self.post("/channels/news", b"one", Event_ID="mine")
            self.assertEqual((again.status, again.header("location")), (200, first.header("location")))
            self.assertEqual(again.header("idempotent-replayed"), "true")
            self.assertEqual(again.json, {**first.json, "subscribers": 0, "duplicate": True})
        self.assertEqual([event["data"] for event in self.events()], ["one"])

    def test_the_path_has_the_name_with_literal_slashes(self) -> None:
        for path, name in (
            ("chat/room-1", "chat/room-1"),
            ("chat%2Froom-1/x", "chat/room-1/x"),
            ("news/x/events", "news/x/events"),
            ("a/b/c/d%20e", "a/b/c/d e"),
        ):
            response = self.post(f"/channels/{path}?event=note", b"x")
            self.assertEqual((response.status, response.json["channel"]), (201, name))
            self.assertEqual(self.rig.get(response.header("location") or "").body, b"x")
        self.assert_problem(self.rig.get("/channels/chat/room-1"), 404, says="as %2F, or put the name")
        for method in ("GET", "DELETE", "PUT"):
            self.assertEqual(self.rig.request(method, "/channels/chat/room-1").status, 404)
        for below in ("events", "presence", "events/x"):
            self.assert_problem(self.post(f"/channels/news/{below}"), 405)

    def test_a_path_that_proxies_rewrite_is_refused(self) -> None:
        for path in ("a//b", "a/", "a/./b", "a/../b", "/a", "a/..", "a/%2E%2E/b", "a/*", "a/%00", "a/%FF"):
            response = self.post(f"/channels/{path}")
            self.assertEqual(response.status, 400, path)
            self.assertEqual(response.json["field"], "channel")
        self.assert_problem(self.post("/channels/a//b"), 400, field="channel", says="/publish?channel=NAME")
        self.assertEqual(self.rig.traces.channels, 0)

    def test_an_idempotency_key_is_the_id_if_there_is_no_other(self) -> None:
        for value, event_id in (
            ('"8e03978e-40d5"', "8e03978e-40d5"),
            ("8e03978e-40d6", "8e03978e-40d6"),
            (r'"a \"b\" \\ c"', r'a "b" \ c'),
            ("x" * 255, "x" * 255),
        ):
            first = self.post("/channels/news", b"one", Idempotency_Key=value)
            again = self.post("/publish?channel=news", b"one", Idempotency_Key=value)
            self.assertEqual((first.status, first.json["id"]), (201, event_id))
            self.assertEqual((again.status, again.header("idempotent-replayed")), (200, "true"))
            self.assertEqual(self.post("/channels/news", b"two", Idempotency_Key=value).status, 422)
        self.assertEqual(self.post("/channels/news?id=mine", Idempotency_Key='"key"').json["id"], "mine")
        self.assertEqual(self.post("/channels/news", Event_ID="ours", Idempotency_Key="!,").json["id"], "ours")

    def test_an_idempotency_key_that_is_none_is_refused(self) -> None:
        for value in ('"a', 'a"b', "a b", "a, b", "", '"a\\b"', '"a";b=1', "\xe4", "(", "x" * 256, '""', "latest"):
            response = self.post("/channels/news", Idempotency_Key=value)
            self.assertEqual(response.status, 201 if value == "(" else 400, value)
        response = self.rig.request("POST", "/channels/news", headers=[("Idempotency-Key", "a")] * 2, body=b"x")
        self.assert_problem(response, 400, field="Idempotency-Key", says="expected one, in double quotes")

    def test_another_event_with_the_same_id_is_refused(self) -> None:
        self.post("/channels/news?id=mine", b"one")
        for query, data in (("", b"two"), ("&event=note", b"one"), ("", b""), ("", b"\xff")):
            refused = self.post(f"/channels/news?id=mine{query}", data)
            self.assert_problem(refused, 422, field="id", says="id 'mine' was published before with other data")
        self.assertEqual([event["data"] for event in self.events()], ["one"])

    def test_an_id_of_another_channel_is_free(self) -> None:
        self.post("/channels/theirs?id=mine", b"one")
        first = self.post("/channels/news?id=mine", b"two")
        self.assertEqual((first.status, first.header("location")), (201, "/channels/news/events/mine"))
        self.assertEqual(self.rig.get("/channels/news/events/mine").body, b"two")
        self.assertEqual(self.rig.get("/channels/theirs/events/mine").body, b"one")

    def test_data_over_the_limit_is_refused(self) -> None:
        self.assertEqual(self.post("/channels/news", b"x" * 1024).status, 201)
        self.assert_problem(self.post("/channels/news", b"x" * 1025), 413, field="data", says="1024")
        self.assertEqual(len(self.events()), 1)

    def test_a_name_that_cannot_be_is_refused(self) -> None:
        for name in ("a%00b", "%0A", "*", "news%2F*", "a.**", "x" * 256, "%FF"):
            with self.subTest(name):
                self.assert_problem(self.post(f"/channels/{name}"), 400, field="channel")
        self.assertEqual(self.rig.traces.channels, 0)

    def test_without_the_right_to_publish_it_is_refused(self) -> None:
        self.start("[auth]\nanonymous = subscribe\n")
        self.assert_problem(self.post("/channels/news"), 403, says="publish")

    def test_a_channel_more_than_the_daemon_may_have_is_refused(self) -> None:
        self.start("[limits]\nchannels = 1\n")
        self.post("/channels/a")
        self.assert_problem(self.post("/channels/b"), 503)


class Http1Tests(PublishOneTestCase):
    """What is so over HTTP/1.1 only."""

    def test_a_body_in_chunks_is_an_event(self) -> None:
        self.assertEqual(
            self.post("/channels/news", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", Transfer_Encoding="chunked").status,
            201,
        )
        self.assertEqual(self.events()[0]["data"], "abcde")


class PublishManyTests(DaemonTests):
    """``POST /publish``."""

    config = "[limits]\nevent_size = 1KiB\nbatch_size = 8KiB\nchannels = 5\n"

    def post(self, *lines: bytes) -> list[dict[str, Any]]:
        """Publish lines; return what was said of each."""
        response = self.rig.request("POST", "/publish", body=b"\n".join(lines))
        if response.status < 300:
            self.assertEqual(response.header("content-type"), "application/x-ndjson")
        return batch_replies(response)

    def datas(self, channel: str) -> list[str]:
        """The data of what the channel keeps."""
        return [event["data"] for event in self.rig.get(f"/channels/{channel}/events").json["events"]]

    def test_each_line_is_answered_in_order(self) -> None:
        first, second = self.post(
            b'{"channel":"a","data":"1"}', b'{"channel":"b","data":"2","id":"mine","event":"e"}'
        )
        self.assertEqual((first["channel"], first["offset"], first["subscribers"]), ("a", 1, 0))
        self.assertEqual(second, {"id": "mine", "channel": "b", "offset": 1, "subscribers": 0})

    def test_wrong_lines_change_nothing_and_do_not_stop_the_others(self) -> None:
        answers = self.post(
            b'{"channel":"a","data":"1"}',
            b"not json",
            b'{"channel":"a"}',
            b'{"channel":"a","data":"\xff"}',
            b'{"channel":"a","data":"' + b"x" * 1025 + b'"}',
            b"[" * 3000,
            b'{"channel":"a","data":"2"}',
        )
        self.assertEqual(
            [
                answer.get("offset") or (answer["error"]["status"], answer["error"].get("field"))
                for answer in answers
            ],
            [1, (400, None), (400, "data"), (400, None), (413, "data"), (400, None), 2],
        )
        self.assertEqual(self.datas("a"), ["1", "2"])

    def test_each_error_names_its_field(self) -> None:
        for line, field in (
            (b'{"data":"x"}', "channel"),
            (b'{"channel":"a","channels":["a"],"data":"x"}', "channel"),
            (b'{"channel":1,"data":"x"}', "channel"),
            (b'{"channel":"","data":"x"}', "channel"),
            (b'{"channel":"*","data":"x"}', "channel"),
            (b'{"channel":"\\ud800","data":"x"}', "channel"),
            (b'{"channels":"a","data":"x"}', "channels"),
            (b'{"channels":[],"data":"x"}', "channels"),
            (b'{"channels":["a",null],"data":"x"}', "channels"),
            (b'{"channels":["a",""],"data":"x"}', "channel"),
            (b'{"channel":"a"}', "data"),
            (b'{"channel":"a","data":{}}', "data"),
            (b'{"channel":"a","data":"\\udc00"}', "data"),
            (b'{"channel":"a","data":"x","data_base64":""}', "data"),
            (b'{"channel":"a","data_base64":"*"}', "data_base64"),
            (b'{"channel":"a","data_base64":1}', "data_base64"),
            (b'{"channel":"a","data":"x","id":1}', "id"),
            (b'{"channel":"a","data":"x","id":""}', "id"),
            (b'{"channel":"a","data":"x","event":true}', "event"),
            (b'{"channel":"a","data":"x","event":"a\\rb"}', "event"),
            (b'{"channel":"a","data":"x","type":"publish"}', "type"),
            (b'{"channel":"a","data":"x","ref":1}', "ref"),
        ):
            with self.subTest(line):
                (answer,) = self.post(line)
                self.assertEqual((answer["error"]["status"], answer["error"]["field"]), (400, field))
                self.assertGreater(len(answer["error"]["detail"]), 10)
        self.assertEqual(self.rig.traces.channels, 0)

    def test_an_unknown_field_of_any_name_is_an_error_of_its_line(self) -> None:
        answers = self.post(b'{"channel":"a","data":"1","\\ud800":1}', b'{"channel":"a","data":"2"}')
        self.assertEqual(answers[0]["error"]["status"], 400)
        self.assertEqual(answers[1]["offset"], 1)

    def test_an_event_of_several_channels_is_answered_for_the_first(self) -> None:
        (answer,) = self.post(b'{"channels":["b","a","b"],"data":"x"}')
        self.assertEqual(answer["channel"], "b")
        self.assertEqual((self.datas("a"), self.datas("b")), (["x"], ["x"]))

    def test_an_id_of_another_event_or_a_missing_channel_is_an_error_of_its_line(self) -> None:
        answers = self.post(
            b'{"channel":"a","data":"x","id":"mine"}',
            b'{"channel":"a","data":"y","id":"mine"}',
            b'{"channel":"a","data":"x","id":"mine"}',
            b'{"channel":"b","data":"x","id":"mine"}',
            b'{"channels":["c","d","e","f","g"],"data":"x"}',
            b'{"channel":"b","data":"x"}',
        )
        statuses = [answer.get("error", {}).get("status") for answer in answers]
        self.assertEqual(statuses, [None, 422, None, None, 503, None])
        self.assertEqual(answers[1]["error"]["field"], "id")
        self.assertEqual(answers[2], {**answers[0], "duplicate": True})
        self.assertNotIn("duplicate", answers[3])

    def test_an_event_for_too_many_channels_is_refused_before_anybody_looks_at_their_names(self) -> None:
        self.start("[limits]\nchannels_per_event = 3\n")
        each: list[object] = ["a", "b", "a"]
        for names, status in (
            (each, None),
            (["a", "a", "a", "a"], 400),
            ([*each, 4], 400),
            (["", *each], 400),
            (["x"] * 1000, 400),
        ):
            line = json.dumps({"channels": names, "data": "x"}).encode()
            with self.subTest(names=names[:5]), patch("pushd.bus.event.check_name") as looked:
                (answer,) = self.post(line)
                self.assertEqual(answer.get("error", {}).get("status"), status)
                if status is not None:
                    self.assertEqual(answer["error"]["field"], "channels")
                    self.assertIn("[limits] channels_per_event is 3", answer["error"]["detail"])
                    self.assertEqual(looked.call_count, 0)

    def test_empty_lines_and_line_ends_of_either_kind_are_passed_over(self) -> None:
        line = b'{"channel":"a","data":"x"}'
        self.assertEqual(len(self.post(b"", line + b"\r", b"  ", b"\r", line, b"")), 2)

    def test_a_body_without_lines_is_refused(self) -> None:
        for body in (b"", b"\n\n", b" \r\n"):
            self.assert_problem(self.rig.request("POST", "/publish", body=body), 400, says="NDJSON")

    def test_a_body_over_the_limit_is_refused_as_a_whole(self) -> None:
        line = b'{"channel":"a","data":"x"}\n'
        client = self.rig.client()
        client.send("POST", "/publish", body=line * 400)
        self.rig.turn()
        self.assert_problem(client.response, 413, says="8192")
        self.assertEqual(self.rig.traces.channels, 0)

    def test_without_any_right_to_publish_it_is_refused_before_a_line_is_read(self) -> None:
        self.start("[auth]\nanonymous =\n")
        for body in (b'{"channel":"a","data":"x"}', b"[\n" * 1000):
            self.assert_problem(self.rig.request("POST", "/publish", body=body), 403, says="no right to publish")

    def test_many_wrong_lines_in_a_row_end_the_batch(self) -> None:
        answers = self.post(b"[\n" * 1000)
        self.assertEqual(len(answers), 101)
        self.assertEqual({one["error"]["status"] for one in answers}, {400})
        self.assertIn("100 lines in a row", answers[-1]["error"]["detail"])

    def test_many_that_are_not_in_a_row_do_not(self) -> None:
        line = b'{"channel":"a","data":"x"}\n'
        answers = self.post((b"[\n" * 99 + line) * 2)
        self.assertEqual([place for place, one in enumerate(answers) if "id" in one], [99, 199])
        self.assertEqual(len(answers), 200)

    def test_as_many_wrong_lines_as_end_a_batch_and_no_more_are_answered_each(self) -> None:
        self.assertEqual(len(self.post(b"[\n" * 100)), 100)

    def test_events_for_many_channels_are_published_a_few_in_each_turn(self) -> None:
        self.start("[limits]\nchannels = 1000\n")
        line = json.dumps({"channels": [f"m/{number}" for number in range(100)], "data": "x"}).encode() + b"\n"
        published: list[int] = []
        publish_all = self.rig.parts.ingress.publisher.publish_all

        def noting(drafts: Sequence[Draft], *more: Any) -> None:
            published.append(sum(len(draft.channels) for draft in drafts))
            publish_all(drafts, *more)

        self.patch(self.rig.parts.ingress.publisher, "publish_all", noting)
        client = self.rig.client()
        client.send("POST", "/publish", body=line * 23)
        while not client.responses or not client.response.is_complete:
            self.rig.turn()
        self.assertEqual([answer["offset"] for answer in batch_replies(client.response)], list(range(1, 24)))
        self.assertEqual(published, [200] * 11 + [100])

    def test_a_line_that_is_too_long_for_any_event_is_not_parsed(self) -> None:
        self.start("[limits]\nevent_size = 1KiB\n")
        read: list[int] = []

        def noting(line: bytes, *most: Any) -> dict[str, Any]:
            read.append(len(line))
            return parse_object(line, *most)

        self.patch(publish, "parse_object", noting)
        line = b'{"channel":"a","data":"x"}\n'
        client = self.rig.client()
        client.send("POST", "/publish", body=b"[" * 500_000 + b"\n" + line)
        self.rig.turn()
        answers = batch_replies(client.response)
        self.assertEqual([one.get("error", {}).get("status") for one in answers], [413, None])
        self.assertEqual(read, [len(line) - 1])

    def test_that_lines_were_refused_is_logged_once_with_the_first_reason(self) -> None:
        with capturedLogs() as logged:
            self.rig.publish_many({"channel": "a", "data": "1"}, {"channel": "a"}, {"data": "3"})
        lines = [formatEvent(event) for event in logged if event["log_namespace"] == "pushd.api.publish"]
        (line,) = lines
        self.assertIn("refused 2 of 3 lines of a batch from 127.0.0.1:", line)
        self.assertIn("the first of them: 400 expected one of data", line)
        with capturedLogs() as logged:
            self.rig.publish_many({"channel": "a", "data": "1"})
        self.assertEqual([event for event in logged if event["log_namespace"] == "pushd.api.publish"], [])

    def test_json_is_answered_as_it_came(self) -> None:
        text = '\u0000\u001f"\\/ü\u2028\U0001f600'
        self.post(json.dumps({"channel": "a", "data": text}).encode())
        self.assertEqual(self.datas("a"), [text])

    def test_other_methods_are_refused(self) -> None:
        response = self.rig.get("/publish")
        self.assert_problem(response, 405)
        self.assertEqual(response.header("allow"), "OPTIONS, POST")

    def test_head_is_refused_as_get_is(self) -> None:
        self.assertEqual(self.rig.request("HEAD", "/publish").status, 405)


class LongBatchTests(DaemonTests):
    """``POST /publish`` with more than fits into one turn of the reactor."""

    config = "[limits]\noutbox = 64KiB\n[channels]\nhistory_size = 5000\n"

    def send(self, count: int) -> Client:
        """Begin a batch."""
        client = self.rig.client()
        body = b"".join(b'{"channel":"news","data":"%04d"}\n' % number for number in range(count))
        client.send("POST", "/publish", body=body)
        return client

    def retained(self) -> int:
        retained: int = self.rig.get("/channels/news").json["retained"]
        return retained

    def test_it_takes_several_turns_and_every_line_is_answered_in_order(self) -> None:
        client = self.send(1000)
        self.assertLess(self.retained(), 1000)
        for _ in range(10):
            self.rig.turn()
        answers = batch_replies(client.response)
        self.assertEqual([one["offset"] for one in answers], list(range(1, 1001)))

    def test_large_lines_make_a_turn_shorter(self) -> None:
        client = self.rig.client()
        line = json.dumps({"channel": "news", "data": "x" * 300_000}).encode() + b"\n"
        counts, publish_all = [], DirectPublisher.publish_all

        def counted(direct: DirectPublisher, drafts: Sequence[Draft], *more: Any) -> None:
            counts.append(len(drafts))
            publish_all(direct, drafts, *more)

        with patch.object(DirectPublisher, "publish_all", counted):
            self.rig.reload(self.config)
            client.send("POST", "/publish", body=line * 4)
            self.assertEqual(counts, [])  # the turn that received the end of a large body has enough to do
            for _ in range(5):
                self.rig.turn()
        self.assertEqual(counts, [1] * 4)
        self.assertEqual(len(batch_replies(client.response)), 4)

    def test_refused_lines_leave_nothing_to_the_garbage_collector(self) -> None:
        def refusals() -> int:
            return sum(isinstance(one, Refused) for one in gc.get_objects())

        client = self.rig.client()
        gc.collect()
        before = refusals()  # other tests keep theirs
        gc.disable()
        try:
            client.send("POST", "/publish", body=b'{"channel":"news","data":"x"}\n[\n' * 300)
            for _ in range(10):
                self.rig.turn()
            left = refusals() - before
        finally:
            gc.enable()
        self.assertEqual(len(batch_replies(client.response)), 600)
        self.assertLess(left, 10)

    def test_all_batches_together_have_one_budget_for_each_turn(self) -> None:
        now = 0.0

        def seconds() -> float:
            nonlocal now
            now += 0.0001
            return now

        wheel = self.rig.parts.sessions.wheel
        self.patch(wheel, "seconds", seconds)
        self.patch(wheel.reactor_turn, "seconds", seconds)
        self.rig.reload(self.config)
        clients = [self.send(100) for _ in range(20)]
        self.assertLess(self.retained(), 400)
        for _ in range(100):
            self.rig.turn()
        for client in clients:
            self.assertEqual(len(batch_replies(client.response)), 100)

    def test_millions_of_lines_take_no_more_memory_than_the_body(self) -> None:
        self.start("[auth]\nanonymous =\n")
        for body in (b"\n" * (2**20 - 1) + b"1", b"1\n" * 2**19):
            client = self.rig.client()
            tracemalloc.start()
            client.send("POST", "/publish", body=body)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertLess(peak, 8 * len(body))

    def test_a_turn_ends_when_its_time_is_used_up(self) -> None:
        clock = iter(range(10**6))
        self.patch(self.rig.parts.sessions.wheel, "seconds", lambda: next(clock) / 500)  # 2 ms for each look
        self.rig.reload(self.config)
        client = self.send(100)
        self.assertEqual(self.retained(), 8)
        for _ in range(10):
            self.rig.turn()
        self.assertEqual([one["offset"] for one in batch_replies(client.response)], list(range(1, 101)))

    def test_white_space_only_is_refused_after_some_turns(self) -> None:
        client = self.rig.client()
        client.send("POST", "/publish", body=b"\n" * 2**20)
        self.assertEqual(client.written, [])
        for _ in range(10):
            self.rig.turn()
        self.assert_problem(client.response, 400, says="NDJSON")

    def test_empty_lines_take_turns_too_and_what_is_behind_them_is_published(self) -> None:
        client = self.rig.client()
        line = b'{"channel":"news","data":"x"}'
        client.send("POST", "/publish", body=b" \r\n" * 100_000 + line + b"\n" * 300_000 + line + b"\n")
        self.assertEqual(self.retained(), 0)
        for _ in range(5):
            self.rig.turn()
        self.assertEqual([one["offset"] for one in batch_replies(client.response)], [1, 2])

    def test_a_subscriber_that_takes_what_comes_gets_all_of_it(self) -> None:
        subscriber = self.rig.client()
        subscriber.send("GET", "/stream?channel=news")
        self.rig.turn()
        self.send(5000)
        for _ in range(40):
            self.rig.turn()
        self.assertEqual(len(stream_lines(subscriber.response.body)), 5000)
        self.assertTrue(subscriber.connection.is_open)

    def test_a_client_that_does_not_take_its_answers_has_to_wait(self) -> None:
        client = self.send(5000)
        client.connection.stop_reading()
        for _ in range(40):
            self.rig.turn()
        before = self.retained()
        self.assertLess(before, 5000)
        client.connection.start_reading()
        for _ in range(40):
            self.rig.turn()
        self.assertEqual(self.retained(), 5000)

    def test_of_a_client_that_has_gone_nothing_more_is_published(self) -> None:
        client = self.send(3000)
        client.connection.disconnect()
        for _ in range(20):
            self.rig.turn()
        self.assertLess(self.retained(), 3000)

    def test_of_a_client_that_goes_before_the_first_answer_nothing_is_published(self) -> None:
        client = self.rig.client()
        client.send("POST", "/publish", body=b" \r\n" * 100_000 + b'{"channel":"news","data":"x"}\n')
        client.connection.disconnect()
        for _ in range(10):
            self.rig.turn()
        self.assertEqual(self.retained(), 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_later_turn_without_memory_answers_503(self) -> None:
        client = self.rig.client()
        client.send("POST", "/publish", body=b" \r\n" * 100_000 + b'{"channel":"news","data":"x"}\n')

        def no_memory(*arguments: object) -> None:
            raise MemoryError

        self.patch(publish, "parse_object", no_memory)
        for _ in range(10):
            self.rig.turn()
        self.assert_problem(client.response, 503, says="memory")
        self.assertIn("retry-after", dict(client.response.headers))


class BatchStatusTests(DaemonTests):
    """The status of a batch: `batch_replies` holds it against the replies, too."""

    config = "[limits]\nevent_size = 1KiB\nbatch_size = 64KiB\n"
    good, wrong, large = b'{"channel":"a","data":"1"}', b"nonsense", b'{"channel":"a","data":"%s"}' % (b"x" * 1025)
    mine, other = b'{"channel":"a","data":"1","id":"mine"}', b'{"channel":"a","data":"2","id":"mine"}'

    def post(self, *lines: bytes) -> Response:
        response = self.rig.request("POST", "/publish", body=b"\n".join(lines))
        batch_replies(response)
        return response

    def test_all_are_published_or_were_before(self) -> None:
        self.assertEqual(self.post(self.good, self.mine).status, 200)
        response = self.post(self.mine, self.mine)
        self.assertEqual((response.status, response.header("publish-refused")), (200, None))

    def test_some_are_refused(self) -> None:
        for lines, refused in (((self.good, self.wrong), 1), ((self.mine, self.other, self.large, b""), 2)):
            response = self.post(*lines)
            self.assertEqual((response.status, response.header("publish-refused")), (207, str(refused)))

    def test_the_only_line_is_refused_as_an_event_by_itself(self) -> None:
        self.post(self.mine)
        for line, status in ((self.wrong, 400), (self.large, 413), (self.other, 422)):
            for body in ((line,), (b"", line, b"\r", b"")):
                response = self.post(*body)
                self.assertEqual((response.status, response.json["status"]), (status, status))
                self.assertIsNone(response.header("publish-refused"))

    def test_all_are_refused_with_one_status(self) -> None:
        self.post(self.mine)
        for line, status in ((self.wrong, 400), (self.large, 413), (self.other, 422)):
            response = self.post(line, line)
            self.assertEqual((response.status, response.header("publish-refused")), (status, "2"))
            self.assertEqual(response.header("content-type"), "application/x-ndjson")
            self.assertIsNotNone(response.header("x-request-id"))

    def test_all_are_refused_for_several_reasons(self) -> None:
        self.assertEqual(self.post(self.wrong, self.large).status, 422)

    def test_a_refusal_for_lack_of_a_right_is_that_of_an_event_by_itself(self) -> None:
        self.start("[auth]\nanonymous =\nanonymous_publish = b\n")
        one, both = self.rig.request("POST", "/channels/a", body=b"x"), self.post(self.good, self.good)
        self.assertEqual((both.status, both.all("www-authenticate")), (one.status, one.all("www-authenticate")))
        self.assertIn(both.status, (401, 403))

    def test_a_batch_of_several_turns_has_a_summary(self) -> None:
        replies = self.rig.publish_many(*({"channel": "a", "data": str(n % 7)} for n in range(1200)))
        self.assertEqual(len(replies), 1200)
