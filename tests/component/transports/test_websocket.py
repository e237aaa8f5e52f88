"""What is particular to WebSocket: the handshake, the frames, the JSON commands and the raw format."""

from __future__ import annotations

import gc
import json
from unittest.mock import patch

from websockets.frames import Frame, Opcode

from pushd.bus.memory_headroom import memory
from pushd.bus.replaying import Done
from pushd.bus.work import Work, drain
from pushd.server.http1.connection import HTTP1
from pushd.server.request import Request
from pushd.transports.websocket.reading import Reading
from tests.rigs.daemon import STARTED, DaemonTests
from tests.rigs.http_client import HttpClient, Response
from tests.rigs.websocket_client import WebSocketClient, WebSocketTalk
from tests.rigs.websocket_frames import ACCEPT, HANDSHAKE, frame, frames


class WebSocketTests(DaemonTests):
    """Tests of ``/ws``."""

    config = "[limits]\nevent_size = 64KiB\nheartbeat = 20s\nping_timeout = 10s\n"

    def connect(self, target: str, *, then: bytes = b"", origin: str | None = None) -> WebSocketTalk:
        """Ask for a WebSocket."""
        return WebSocketClient(self.rig, target, then=then, origin=origin)

    def open(self, target: str = "/ws") -> WebSocketTalk:
        """Open a WebSocket."""
        client = self.connect(target)
        self.rig.turn()
        self.assertTrue(client.is_open)
        return client

    def assert_closed(self, client: WebSocketTalk, code: int, says: str = "") -> None:
        """The daemon closed the WebSocket with `code` and a reason; nothing came after it, and nothing is left."""
        self.rig.turn()
        assert client.close is not None, client.messages
        self.assertEqual(client.close[0], code, client.close)
        self.assertIn(says, client.close[1])
        self.assertFalse(client.connection.is_open)
        opcodes = [opcode for opcode, _ in frames(client.connection.received)]
        self.assertEqual(opcodes.index(8), len(opcodes) - 1, "the close frame is the last one")
        traces = self.rig.traces
        self.assertEqual((traces.subscribers, traces.sessions, traces.alarms), (0, 0, 0))


class HandshakeTests(WebSocketTests):
    """The handshake: RFC 6455, section 4.2."""

    def handshake(self, method: str = "GET", target: str = "/ws", **changes: str | None) -> Response:
        """Return the response to a handshake with some headers changed."""
        headers = dict(HANDSHAKE)
        for name, value in changes.items():
            del headers[name.replace("_", "-")]
            if value is not None:
                headers[name.replace("_", "-")] = value
        client = HttpClient(self.rig)
        client.send(method, target, headers=headers)
        self.rig.turn()
        return client.response

    def test_the_answer_accepts_the_key(self) -> None:
        response = self.handshake()
        self.assertEqual(response.status, 101)
        self.assertEqual(response.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        self.assertEqual((response.header("upgrade") or "").lower(), "websocket")
        self.assertEqual((response.header("connection") or "").lower(), "upgrade")

    def test_no_subprotocol_and_no_extension_is_chosen(self) -> None:
        client = HttpClient(self.rig)
        offers = {
            "Sec-WebSocket-Protocol": "chat, superchat",
            "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
        }
        client.send("GET", "/ws", headers={**HANDSHAKE, **offers})
        self.rig.turn()
        self.assertEqual(client.response.status, 101)
        self.assertEqual([name for name, _ in client.response.headers if name.startswith("sec-")], [ACCEPT])

    def test_a_subprotocol_that_is_offered_twice_is_refused(self) -> None:
        for fields in ([("Sec-WebSocket-Protocol", "a, b, a")], [("Sec-WebSocket-Protocol", "a")] * 2):
            client = HttpClient(self.rig)
            client.send("GET", "/ws", headers=[*HANDSHAKE.items(), *fields])
            self.rig.turn()
            self.assert_problem(client.response, 400, field="Sec-WebSocket-Protocol", says="once")

    def test_a_fragment_is_refused(self) -> None:
        self.assert_problem(self.handshake(target="/ws?channel=news#part"), 400, says="fragment")

    def test_with_head_it_is_refused(self) -> None:
        response = self.handshake(method="HEAD")
        self.assertEqual((response.status, response.body), (400, b""))

    def test_over_http_1_0_it_is_refused(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/ws", headers=HANDSHAKE, version="1.0")
        self.rig.turn()
        self.assert_problem(client.response, 400, says="HTTP/1.1")

    def test_an_unknown_parameter_is_refused(self) -> None:
        self.assert_problem(self.handshake(target="/ws?chanel=news"), 400, field="chanel", says="unknown")

    def test_a_header_that_is_folded_is_refused(self) -> None:
        client = HttpClient(self.rig)
        folded = {**HANDSHAKE, "Connection": "keep-alive,\r\n Upgrade"}
        client.send("GET", "/ws", headers=folded)
        self.rig.turn()
        self.assert_problem(client.response, 400, says="not a valid HTTP/1.1 request")

    def test_of_the_request_nothing_is_kept(self) -> None:
        before = [it for it in gc.get_objects() if isinstance(it, Request | HTTP1)]
        client = self.open("/ws?channel=news")
        kept = [it for it in gc.get_objects() if isinstance(it, Request | HTTP1)]
        self.assertEqual([it for it in kept if it not in before], [])
        self.assertEqual(len(self.rig.parts.site.connections), 1)
        client.connection.disconnect()
        self.assertEqual(len(self.rig.parts.site.connections), 0)

    def test_a_plain_request_is_told_to_upgrade(self) -> None:
        response = self.rig.get("/ws")
        self.assert_problem(response, 426, says="Upgrade: websocket")
        self.assertEqual(response.header("upgrade"), "websocket")

    def test_another_upgrade_is_told_to_upgrade(self) -> None:
        self.assert_problem(self.handshake(Upgrade="h2c"), 426)

    def test_upgrade_is_a_list_in_any_case(self) -> None:
        self.assertEqual(self.handshake(Upgrade="WebSocket").status, 101)
        self.assertEqual(self.handshake(Connection="keep-alive, Upgrade").status, 101)

    def test_another_version_is_told_which_one_is_spoken(self) -> None:
        response = self.handshake(Sec_WebSocket_Version="8")
        self.assertIn(response.status, (400, 426))
        self.assertEqual(response.header("sec-websocket-version"), "13")

    def test_a_handshake_that_is_wrong_is_refused_and_leaves_nothing(self) -> None:
        for changes in (
            {"Sec_WebSocket_Version": None},
            {"Sec_WebSocket_Version": "x"},
            {"Sec_WebSocket_Key": None},
            {"Sec_WebSocket_Key": "short"},
            {"Sec_WebSocket_Key": "!" * 24},
            {"Connection": "keep-alive"},
            {"Connection": None},
        ):
            with self.subTest(changes):
                self.start(self.config)
                before = self.rig.traces
                response = self.handshake(target="/ws?channel=news", **changes)
                self.assertIn(response.status, (400, 426), response)
                self.rig.wait(12)
                self.assert_no_traces(before)  # the connection is closed as well

    def test_what_a_wrong_handshake_is_answered_with_is_a_problem_document(self) -> None:
        self.assert_problem(self.handshake(Sec_WebSocket_Key=None), 400, says="Key", field="Sec-WebSocket-Key")

    def test_a_connection_whose_handshake_was_refused_is_closed(self) -> None:
        for changes in ({"Upgrade": None}, {"Sec_WebSocket_Version": "8"}, {"Sec_WebSocket_Key": None}):
            for target in ("/ws", "/ws?format=x", "/ws?channel=a&since=", "/ws?unknown=1"):
                client = HttpClient(self.rig)
                headers = {
                    name: value for name, value in HANDSHAKE.items() if name.replace("-", "_") not in changes
                }
                client.send("GET", target, headers=headers)
                self.rig.turn()
                self.assertGreaterEqual(client.response.status, 400)
                self.assertEqual((client.response.header("connection") or "").lower(), "close")
                self.assertTrue(client.response.is_complete)
                self.rig.wait(1)
                self.assertFalse(client.connection.is_open)

    def test_other_methods_are_refused(self) -> None:
        response = self.handshake(method="POST")
        self.assert_problem(response, 405)
        self.assertEqual(response.header("allow"), "GET, HEAD, OPTIONS")

    def test_an_unknown_format_is_refused(self) -> None:
        self.assert_problem(self.handshake(target="/ws?format=xml"), 400, field="format", says="json or raw")
        self.assert_problem(self.handshake(target="/ws?format="), 400, field="format", says="json or raw")

    def test_from_a_foreign_page_it_is_refused(self) -> None:
        client = WebSocketClient(self.rig, "/ws", origin="http://evil.example")
        self.rig.turn()
        assert client.handshake is not None
        self.assertEqual(client.handshake.status_code, 403)

    def test_what_came_in_the_same_segment_as_the_handshake_is_taken(self) -> None:
        message = b'{"type":"subscribe","channel":"news"}'
        client = self.connect("/ws", then=frame(message) + frame(message[:10], fin=False))
        client.connection.send(frame(message[10:], 0))
        self.rig.turn()
        self.assertEqual([it["type"] for it in client.json], ["subscribed", "subscribed"])

    def test_a_fault_in_what_came_with_the_handshake_ends_the_connection(self) -> None:
        self.addCleanup(memory.look)
        for error, logged in ((ZeroDivisionError(), 1), (MemoryError(), 0)):
            with patch.object(Reading, "dataReceived", side_effect=error):
                client = self.connect("/ws?channel=news", then=frame(b"{}"))
                self.rig.turn()
            self.assertFalse(client.connection.is_open)
            self.assertEqual(len(self.flushLoggedErrors()), logged)
            self.assertEqual(memory.is_short, not logged)
            self.assertEqual(self.rig.traces.sessions, 0)

    def test_a_frame_may_come_byte_by_byte(self) -> None:
        client = self.open()
        for byte in frame(b'{"type":"subscribe","channel":"news"}', mask=b"abcd"):
            client.connection.send(bytes([byte]))
        self.rig.turn()
        self.assertEqual(client.json[0]["type"], "subscribed")

    def test_a_handshake_behind_another_request_is_taken(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/healthz")
        client.send("GET", "/ws", headers=HANDSHAKE)
        self.rig.turn()
        self.assertEqual([response.status for response in client.responses], [200, 101])

    def test_the_request_time_out_does_not_end_a_websocket(self) -> None:
        client = self.open()
        self.rig.wait(300)
        self.assertTrue(client.is_open)
        self.assertEqual(self.rig.delayed, [])


class CommandTests(WebSocketTests):
    """JSON messages from the client, and their answers."""

    def ask(self, client: WebSocketTalk, **message: object) -> dict[str, object]:
        """Return what the daemon says to a message."""
        count = len(client.messages)
        client.say(**message)
        self.rig.turn()
        answers = client.json[count:]
        self.assertEqual(len(answers), 1, answers)
        return answers[0]

    def assert_error(
        self, client: WebSocketTalk, message: str | bytes, status: int = 400, **members: object
    ) -> None:
        """The message is answered with an error that has these members, and the socket stays open."""
        count = len(client.messages)
        client.send(message)
        self.rig.turn()
        (answer,) = client.json[count:]
        self.assertEqual((answer["type"], answer["status"]), ("error", status), answer)
        self.assertGreater(len(answer["detail"]), 10)
        for name, value in members.items():
            self.assertEqual(answer.get(name), value, answer)
        self.assertTrue(client.is_open)

    def test_subscribe_is_answered_with_the_position(self) -> None:
        event_id = self.rig.publish("news")
        answer = self.ask(self.open(), type="subscribe", channel="news")
        self.assertEqual(answer, {"type": "subscribed", "channel": "news", "position": event_id, "recovered": True})

    def test_the_answer_to_a_subscription_comes_before_its_events(self) -> None:
        self.rig.publish("news")
        client = self.open()
        client.say(type="subscribe", channel="news", since="earliest")
        self.rig.publish("news")
        self.rig.turn()
        self.assertEqual([it["type"] for it in client.json], ["subscribed", "event", "event"])

    def test_channels_in_the_query_are_answered_like_commands(self) -> None:
        client = self.open("/ws?channel=a&channel=b/*")
        self.assertEqual(
            [(it["type"], it["channel"]) for it in client.json], [("subscribed", "a"), ("subscribed", "b/*")]
        )

    def test_an_event_comes_with_everything_about_it(self) -> None:
        client = self.open("/ws?channel=news")
        event_id = self.rig.publish("news", "ü".encode(), event="note")
        self.rig.turn()
        wanted = {
            "type": "event",
            "id": event_id,
            "channel": "news",
            "offset": 1,
            "data": "ü",
            "event": "note",
            "time": STARTED,
        }
        self.assertEqual(client.json[1], wanted)

    def test_every_answer_echoes_the_ref(self) -> None:
        client = self.open()
        for ref in ("a", "ü \U0001f600", "x" * 255, 0, -7, 2**53 - 1, ""):
            with self.subTest(ref):
                self.assertEqual(self.ask(client, type="subscribe", channel="news", ref=ref)["ref"], ref)
                self.assertEqual(self.ask(client, type="unsubscribe", channel="news", ref=ref)["ref"], ref)
                self.assertEqual(self.ask(client, type="publish", channel="x", data="", ref=ref)["ref"], ref)
                self.assertEqual(self.ask(client, type="nonsense", ref=ref)["ref"], ref)

    def test_without_a_ref_there_is_none_in_the_answer(self) -> None:
        client = self.open()
        self.assertNotIn("ref", self.ask(client, type="subscribe", channel="news"))
        self.assertNotIn("ref", self.ask(client, type="subscribe", channel="news", ref=None))

    def test_a_ref_that_cannot_be_is_refused(self) -> None:
        client = self.open()
        for ref in ('"%s"' % ("x" * 256), "true", "1.5", "[]", "{}", "9007199254740992", '"a\\nb"', '"\\ud800"'):
            with self.subTest(ref):
                message = f'{{"type":"subscribe","channel":"news","ref":{ref}}}'
                self.assert_error(client, message, field="ref", ref=None)
        self.assertEqual(self.rig.traces.channels, 0)

    def test_while_a_replay_is_filtered_only_who_subscribes_again_waits(self) -> None:
        works: list[tuple[Work[None], Done]] = []
        for name in ("a/1", "b/1", "a/2", "b/2"):
            self.rig.publish(name, b"old")
        self.patch(self.rig.parts.bus, "do_later", lambda work, is_gone, caller, done: works.append((work, done)))
        client = self.open("/ws?channel=a/*&channel=b/*&since=earliest")
        commands = (
            {"type": "unsubscribe", "channel": "a/*", "ref": 1},
            {"type": "publish", "channel": "a/1", "data": "unheard", "ref": 2},
            {"type": "subscribe", "channel": "a/*", "ref": 3},
            {"type": "publish", "channel": "a/1", "data": "new", "ref": 4},
        )
        for command in commands:
            client.send(json.dumps(command))
        self.rig.turn()
        self.assertEqual([it.get("ref") for it in client.json], [None, None, 1, 2])
        while works:
            work, done = works.pop()
            drain(work)
            done(None)
            self.rig.turn()
        events = [(it["channel"], it["data"]) for it in client.json if it["type"] == "event"]
        self.assertEqual(events, [("b/1", "old"), ("b/2", "old"), ("a/1", "new")])
        self.assertEqual([it["ref"] for it in client.json if "ref" in it], [1, 2, 3, 4])

    def test_unsubscribe_ends_the_events_of_that_channel_only(self) -> None:
        client = self.open("/ws?channel=a&channel=b")
        answer = self.ask(client, type="unsubscribe", channel="a")
        self.assertEqual(answer, {"type": "unsubscribed", "channel": "a"})
        self.rig.publish("a", b"no")
        self.rig.publish("b", b"yes")
        self.rig.turn()
        self.assertEqual([it["data"] for it in client.json if it["type"] == "event"], ["yes"])
        self.assertEqual(self.rig.get("/channels/a").json["subscribers"], 0)

    def test_unsubscribe_from_what_was_not_subscribed_to_is_an_error(self) -> None:
        client = self.open("/ws?channel=a")
        self.assert_error(client, '{"type":"unsubscribe","channel":"b"}', 404, field="channel")
        self.assert_error(client, '{"type":"unsubscribe","channel":"*"}', 404, field="channel")

    def test_subscribe_again_after_unsubscribe_gets_each_event_once(self) -> None:
        client = self.open("/ws?channel=a")
        self.ask(client, type="unsubscribe", channel="a")
        event_id = self.rig.publish("a", b"one")
        self.ask(client, type="subscribe", channel="a", since=event_id)
        self.rig.publish("a", b"two")
        self.rig.turn()
        self.assertEqual([it["data"] for it in client.json if it["type"] == "event"], ["two"])

    def test_publish_is_answered_with_id_and_offset(self) -> None:
        client = self.open("/ws?channel=news")
        client.say(type="publish", channel="news", data="ü", event="note", id="mine", ref=1)
        self.rig.turn()
        said = {it["type"]: it for it in client.json[1:]}
        self.assertEqual(said["published"], {"type": "published", "id": "mine", "offset": 1, "ref": 1})
        self.assertEqual(
            (said["event"]["id"], said["event"]["data"], said["event"]["event"]), ("mine", "ü", "note")
        )

    def test_publish_takes_base64_and_several_channels(self) -> None:
        client = self.open()
        self.assertEqual(
            self.ask(client, type="publish", channels=["a", "b"], data_base64="/wA=")["type"], "published"
        )
        for channel in "ab":
            (event,) = self.rig.get(f"/channels/{channel}/events").json["events"]
            self.assertEqual(event["data_base64"], "/wA=")

    def test_publish_again_is_a_duplicate_and_of_another_event_refused(self) -> None:
        self.rig.publish("a", b"x", id="mine")
        client = self.open()
        again = self.ask(client, type="publish", channel="a", data="x", id="mine", ref=1)
        self.assertEqual(again, {"type": "published", "id": "mine", "offset": 1, "duplicate": True, "ref": 1})
        self.assert_error(client, '{"type":"publish","channel":"a","data":"","id":"mine"}', 422, field="id")
        new = self.ask(client, type="publish", channel="b", data="", id="mine", ref=2)
        self.assertEqual(new, {"type": "published", "id": "mine", "offset": 1, "ref": 2})

    def test_publish_to_too_many_channels_is_refused(self) -> None:
        self.start("[limits]\nchannels_per_event = 2\n")
        client = self.open()
        message = '{"type":"publish","channels":["a","b","c"],"data":""}'
        self.assert_error(client, message, 400, field="channels")
        self.assertEqual(self.ask(client, type="publish", channels=["a", "b"], data="")["type"], "published")

    def test_an_id_in_the_query_is_looked_up_in_all_of_its_channels(self) -> None:
        self.rig.publish("a", b"1", id="mine")
        self.rig.publish("b", b"2")
        client = self.open("/ws?channel=b&channel=a&since=mine")
        self.rig.turn()
        said = [one for one in client.json if one["type"] == "subscribed"]
        self.assertEqual([(one["channel"], one["recovered"]) for one in said], [("b", True), ("a", True)])
        self.assertEqual([one["data"] for one in client.json if one["type"] == "event"], ["2"])

    def test_an_id_is_known_to_those_who_subscribe_to_its_channel_and_to_nobody_else(self) -> None:
        self.start("[auth]\nanonymous = publish\nanonymous_subscribe = a, b, c/**\n")
        self.rig.publish("a", b"1", id="mine")
        for channel in ("secret", "a/b"):
            self.rig.publish(channel, b"1", id="theirs")
        client = self.open()
        for event_id, recovered in (("mine", True), ("theirs", False), ("nobody's", False)):
            for channel in ("b", "c/**", "a"):
                client.say(type="subscribe", channel=channel, since=event_id)
                self.rig.turn()
                answer = [one for one in client.json if one["type"] == "subscribed"][-1]
                self.assertEqual((answer["channel"], answer["recovered"]), (channel, recovered))

    def test_publish_of_the_largest_event_is_taken_and_of_a_larger_one_refused(self) -> None:
        client = self.open()
        self.assertEqual(self.ask(client, type="publish", channel="a", data="x" * 65536)["type"], "published")
        self.assert_error(
            client, json.dumps({"type": "publish", "channel": "a", "data": "x" * 65537}), 413, field="data"
        )

    def test_without_the_right_to_publish_it_is_refused(self) -> None:
        self.rig = type(self.rig)("[auth]\nanonymous = subscribe\n")
        client = self.open("/ws?channel=a")
        self.assert_error(client, '{"type":"publish","channel":"a","data":"x","ref":1}', 403, ref=1)

    def test_without_the_right_to_subscribe_it_is_refused_but_may_publish(self) -> None:
        self.rig = type(self.rig)("[auth]\nanonymous = publish\n")
        client = self.open()
        self.assert_error(client, '{"type":"subscribe","channel":"a"}', 403)
        self.assertEqual(self.ask(client, type="publish", channel="a", data="x")["type"], "published")

    def test_whatever_is_wrong_is_an_error_that_leaves_the_socket_open(self) -> None:
        client = self.open()
        for message, field in (
            ("", None),
            ("{", None),
            ("null", None),
            ("[]", None),
            ("1", None),
            ('"subscribe"', None),
            ("NaN", None),
            ('{"type":NaN}', None),
            ("{}", "type"),
            ('{"type":1}', "type"),
            ('{"type":null}', "type"),
            ('{"type":"Subscribe"}', "type"),
            ('{"type":"event","channel":"a"}', "type"),
            ('{"type":"subscribe"}', "channel"),
            ('{"type":"subscribe","channel":1}', "channel"),
            ('{"type":"subscribe","channel":null}', "channel"),
            ('{"type":"subscribe","channel":["a"]}', "channel"),
            ('{"type":"subscribe","channel":""}', "channel"),
            ('{"type":"subscribe","channel":"a\\u0000b"}', "channel"),
            ('{"type":"subscribe","channel":"\\ud800"}', "channel"),
            ('{"type":"subscribe","channel":"a","since":1}', "since"),
            ('{"type":"subscribe","channel":"a","since":""}', "since"),
            ('{"type":"subscribe","channel":"a","data":""}', "data"),
            ('{"type":"unsubscribe","channel":"a","since":"latest"}', "since"),
            ('{"type":"unsubscribe","channel":{}}', "channel"),
            ('{"type":"publish","data":""}', "channel"),
            ('{"type":"publish","channel":"a"}', "data"),
            ('{"type":"publish","channel":"a","data":1}', "data"),
            ('{"type":"publish","channel":"a","data":null}', "data"),
            ('{"type":"publish","channel":"a","data":"\\udfff"}', "data"),
            ('{"type":"publish","channel":"a","data":"","data_base64":""}', "data"),
            ('{"type":"publish","channel":"a","data_base64":"x"}', "data_base64"),
            ('{"type":"publish","channel":"a","data_base64":"ü"}', "data_base64"),
            ('{"type":"publish","channel":"a","data_base64":"\\ud800"}', "data_base64"),
            ('{"type":"publish","channel":"*","data":""}', "channel"),
            ('{"type":"publish","channel":"a","channels":["b"],"data":""}', "channel"),
            ('{"type":"publish","channels":[],"data":""}', "channels"),
            ('{"type":"publish","channels":"a","data":""}', "channels"),
            ('{"type":"publish","channels":[1],"data":""}', "channels"),
            ('{"type":"publish","channel":"a","data":"","event":"a\\nb"}', "event"),
            ('{"type":"publish","channel":"a","data":"","event":""}', "event"),
            ('{"type":"publish","channel":"a","data":"","event":"\\ud800"}', "event"),
            ('{"type":"publish","channel":"a","data":"","id":"latest"}', "id"),
            ('{"type":"publish","channel":"a","data":"","id":"\\ud800"}', "id"),
            ('{"type":"publish","channel":"a","data":"","offset":1}', "offset"),
            ('{"type":"publish","channel":"a","data":"","\\ud800":1}', "\ufffd"),
        ):
            with self.subTest(message):
                if field == "\ufffd":
                    self.assert_error(client, message)
                else:
                    self.assert_error(client, message, field=field)
        self.assertEqual(self.rig.traces.channels, 0)
        self.assertEqual(self.ask(client, type="subscribe", channel="a")["type"], "subscribed")

    def test_deep_nesting_is_an_error(self) -> None:
        client = self.open()
        self.assert_error(client, "[" * 60_000)
        self.assert_error(client, '{"type":' * 9_000)
        self.assert_error(client, '{"type":"subscribe","channel":' + "[" * 20_000 + "]" * 20_000 + "}")

    def test_huge_numbers_are_an_error(self) -> None:
        self.assert_error(self.open(), '{"type":' + "9" * 50_000 + "}")

    def test_a_binary_message_is_an_error(self) -> None:
        self.assert_error(self.open(), b'{"type":"subscribe","channel":"a"}')
        self.assert_error(self.open(), b"\xff")

    def test_an_error_carries_the_ref_of_its_message(self) -> None:
        self.assert_error(self.open(), '{"type":"subscribe","channel":"","ref":7}', ref=7)

    def test_when_the_channel_is_deleted_the_socket_is_closed(self) -> None:
        client = self.open("/ws?channel=news")
        self.rig.publish("news")
        self.rig.request("DELETE", "/channels/news")
        self.assert_closed(client, 1000, "deleted")

    def test_when_the_daemon_stops_the_socket_is_closed(self) -> None:
        client = self.open("/ws?channel=news")
        self.rig.stop()
        self.assert_closed(client, 1001, "going away")

    def test_a_socket_without_subscriptions_is_closed_when_the_daemon_stops(self) -> None:
        client = self.open()
        self.rig.stop()
        self.assert_closed(client, 1001)

    def test_a_slow_reader_is_closed_with_1013(self) -> None:
        client = self.open("/ws?channel=news")
        client.connection.stop_reading()
        for _ in range(40):
            self.rig.publish("news", b"x" * 60_000)
            self.rig.turn()
        client.connection.start_reading()
        self.assert_closed(client, 1013, "too slow")


class RawTests(WebSocketTests):
    """The bare data both ways."""

    def test_text_comes_as_text_and_everything_else_as_bytes(self) -> None:
        client = self.open("/ws?format=raw&channel=news")
        self.rig.publish_each("news", "ü\n".encode(), b"\xff", b"")
        self.rig.turn()
        self.assertEqual(client.messages, ["ü\n", b"\xff", ""])

    def test_a_message_is_published_to_the_channel(self) -> None:
        client = self.open("/ws?format=raw&channel=news")
        client.send("ü")
        client.send(b"\x00")
        client.send(b"text as bytes")
        self.rig.turn()
        self.assertEqual(client.messages, ["ü", b"\x00", b"text as bytes"])
        events = self.rig.get("/channels/news/events").json["events"]
        self.assertEqual([event["offset"] for event in events], [1, 2, 3])

    def test_with_several_channels_or_a_pattern_publishing_closes_the_socket(self) -> None:
        for channels in ("channel=a&channel=b", "channel=*"):
            with self.subTest(channels):
                client = self.open(f"/ws?format=raw&{channels}")
                client.send("x")
                self.assert_closed(client, 1008, "exactly one channel")

    def test_without_the_right_to_publish_the_socket_is_closed(self) -> None:
        self.rig = type(self.rig)("[auth]\nanonymous = subscribe\n")
        client = self.open("/ws?format=raw&channel=news")
        client.send("x")
        self.assert_closed(client, 1008, "no right to publish")

    def test_a_lost_position_closes_the_socket_before_anything_comes(self) -> None:
        self.rig.publish("news")
        client = self.connect("/ws?format=raw&channel=news&since=lost")
        self.rig.turn()
        self.assertEqual(client.messages, [])
        self.assert_closed(client, 1008, "lost")

    def test_a_message_over_the_limit_closes_the_socket(self) -> None:
        client = self.open("/ws?format=raw&channel=news")
        client.send("x" * 65536)
        self.rig.turn()
        self.assertTrue(client.is_open)
        client.send("x" * 65537)
        self.assert_closed(client, 1009)
        self.assertEqual(self.rig.get("/channels/news").json["retained"], 1)


class SizeTests(WebSocketTests):
    """What HTTP takes, a WebSocket takes, however its JSON is written."""

    def test_an_event_of_the_largest_size_is_taken_however_it_is_escaped(self) -> None:
        for data in ("x" * 65536, "\u0431" * 32768, '"' * 65536, "\n" * 65536):
            for escape in (False, True):
                client = self.open()
                text = json.dumps(
                    {"type": "publish", "channel": "news", "data": data, "ref": 1}, ensure_ascii=escape
                )
                if escape and data[0] == "x":
                    text = text.replace("x", "\\u0078")
                client.send(text)
                self.rig.turn()
                self.assertEqual(client.json[-1]["type"], "published", (data[:3], client.json[-1]))

    def test_more_than_that_is_an_error_and_the_socket_stays_open(self) -> None:
        client = self.open()
        client.say(type="publish", channel="news", data="\u0431" * 40_000)
        self.rig.turn()
        self.assertEqual((client.json[-1]["type"], client.json[-1]["status"]), ("error", 413))
        self.assertTrue(client.is_open)

    def test_text_of_control_characters_is_refused_where_its_json_would_be_too_long(self) -> None:
        self.start("[limits]\nevent_size = 1000KiB\n[site]\ndemo = no\n")
        client = self.open()
        client.say(type="publish", channel="news", data="\x01" * 200_000)
        self.rig.turn()
        self.assertEqual(client.json[-1]["status"], 413)
        raw = self.open("/ws?channel=news&format=raw")
        raw.send("\x01" * 200_000)
        self.assert_closed_with(raw, 1008)
        self.assertEqual(self.rig.request("POST", "/channels/news", body=b"\x01" * 200_000).status, 413)

    def assert_closed_with(self, client: WebSocketTalk, code: int) -> None:
        """The daemon closed one of several."""
        self.rig.turn()
        assert client.close is not None
        self.assertEqual(client.close[0], code)


class FrameTests(WebSocketTests):
    """Frames from the client that are not as they should be: RFC 6455, sections 5 and 7."""

    def assert_fails(self, code: int, *segments: bytes) -> None:
        """The daemon answers `segments` with a close frame."""
        client = self.open("/ws?channel=news")
        for segment in segments:
            client.connection.send(segment)
        self.rig.publish("news", b"must not come after the close frame")
        self.assert_closed(client, code)

    def test_text_that_is_not_utf_8_closes_with_1007(self) -> None:
        for data in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b'{"type":"\xc0\x80"}'):
            with self.subTest(data):
                self.assert_fails(1007, frame(data))

    def test_text_that_is_cut_within_a_character_is_whole_in_the_end(self) -> None:
        client = self.open()
        message = '{"type":"subscribe","channel":"ü"}'.encode()
        place = message.index(b"\xc3") + 1
        client.connection.send(frame(message[:place], fin=False))
        client.connection.send(frame(message[place:], 0))
        self.rig.turn()
        self.assertEqual(client.json[0]["channel"], "ü")

    def test_a_message_that_is_too_big_closes_with_1009(self) -> None:
        self.assert_fails(1009, frame(b"x" * 600_000))

    def test_a_frame_that_says_it_is_too_big_closes_with_1009_before_it_comes(self) -> None:
        self.assert_fails(1009, b"\x81\xff" + (2**62).to_bytes(8, "big") + b"\0\0\0\0")

    def test_a_message_that_is_too_big_in_fragments_closes_with_1009(self) -> None:
        self.assert_fails(1009, frame(b"x" * 60_000, fin=False), *[frame(b"x" * 60_000, 0, fin=False)] * 9)

    def test_what_breaks_the_protocol_closes_with_1002(self) -> None:
        for name, segment in {
            "not masked": b"\x81\x01a",
            "a reserved bit": frame(b"a", first=0x40),
            "a reserved opcode": frame(b"a", 3),
            "a reserved control opcode": frame(b"a", 11),
            "a fragmented ping": frame(b"a", 9, fin=False),
            "a long ping": frame(b"a" * 126, 9),
            "a continuation of nothing": frame(b"a", 0),
            "a message within a message": frame(b"a", fin=False) + frame(b"a"),
            "a length written too long": b"\x81\xfe\x00\x01\0\0\0\0a",
            "a length with the highest bit": b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0",
        }.items():
            with self.subTest(name):
                self.assert_fails(1002, segment)

    def test_a_close_frame_that_is_wrong_ends_the_connection(self) -> None:
        for data in (b"\x03", (1005).to_bytes(2, "big"), (999).to_bytes(2, "big"), b"\x03\xe8\xff"):
            with self.subTest(data):
                client = self.open("/ws?channel=news")
                client.connection.send(frame(data, 8))
                self.rig.turn()
                self.assertFalse(client.connection.is_open)
                self.assertEqual((self.rig.traces.sessions, self.rig.traces.alarms), (0, 0))

    def test_a_client_that_takes_nothing_gets_no_pongs_that_would_pile_up(self) -> None:
        client = self.open("/ws?channel=news")
        client.connection.stop_reading()
        self.rig.publish("news", b"x" * 60_000)
        self.rig.publish("news", b"x" * 60_000)
        self.rig.turn()
        for _ in range(1000):
            client.connection.send(frame(b"p" * 100, 9))
            self.rig.turn()
        client.connection.start_reading()
        self.rig.turn()
        self.assertLess(len([opcode for opcode, _ in frames(client.connection.received) if opcode == 10]), 10)

    def test_a_message_in_too_many_frames_closes_with_1009(self) -> None:
        self.assert_fails(1009, frame(b"", 1, fin=False), frame(b"", 0, fin=False) * 4100)

    def test_a_ping_is_answered_with_its_data(self) -> None:
        client = self.open()
        client.protocol.send_ping(b"are you there?")
        client.flush()
        self.rig.turn()
        self.assertEqual(client.pongs, [b"are you there?"])

    def test_a_ping_within_a_message_is_answered_at_once(self) -> None:
        client = self.open()
        client.connection.send(frame(b'{"type":', fin=False) + frame(b"now", 9))
        self.rig.turn()
        self.assertEqual(client.pongs, [b"now"])

    def test_a_pong_that_nobody_asked_for_is_ignored(self) -> None:
        client = self.open()
        client.connection.send(frame(b"x", 10))
        self.rig.turn()
        self.assertTrue(client.is_open)

    def test_a_close_frame_is_answered_and_nothing_comes_after_it(self) -> None:
        client = self.open("/ws?channel=news")
        self.rig.publish("news", b"one")
        client.protocol.send_close(1000, "bye")
        client.flush()
        self.rig.publish("news", b"two")
        self.assert_closed(client, 1000)

    def test_a_close_frame_without_a_code_is_answered(self) -> None:
        client = self.open("/ws?channel=news")
        client.connection.send(frame(b"", 8))
        self.rig.turn()
        self.assertIsNotNone(client.protocol.close_rcvd)
        self.assertFalse(client.connection.is_open)

    def test_what_comes_after_a_close_frame_is_ignored(self) -> None:
        client = self.open("/ws?channel=news")
        client.connection.send(
            frame((1000).to_bytes(2, "big"), 8) + frame(b'{"type":"publish","channel":"x","data":""}')
        )
        client.connection.send(frame(b'{"type":"publish","channel":"x","data":""}'))
        self.assert_closed(client, 1000)
        self.assertEqual(self.rig.get("/channels/x").json["retained"], 0)

    def test_commands_that_cross_the_close_frame_of_the_daemon_harm_nothing(self) -> None:
        for command in ("subscribe", "unsubscribe", "nonsense"):
            with self.subTest(command):
                client = self.open("/ws?channel=news")
                client.connection.stop_reading()
                self.rig.publish("news")
                self.rig.request("DELETE", "/channels/news")
                client.connection.send(frame(b'{"type":"%s","channel":"x"}' % command.encode()))
                client.connection.start_reading()
                self.assert_closed(client, 1000, "deleted")

    def test_a_paused_client_that_closes_is_let_go_when_it_reads_again(self) -> None:
        client = self.open("/ws?channel=news")
        client.connection.stop_reading()
        self.rig.publish("news")
        client.connection.send(frame((1000).to_bytes(2, "big"), 8))
        client.connection.start_reading()
        self.rig.turn()
        self.assertIsNotNone(client.close)
        self.assertFalse(client.connection.is_open)

    def test_a_client_that_does_not_answer_the_close_frame_is_aborted(self) -> None:
        client = self.open("/ws?channel=news")
        client.answers_pings = False
        self.rig.publish("news")
        self.rig.request("DELETE", "/channels/news")
        self.rig.wait(12)
        self.assert_closed(client, 1000)

    def test_a_frame_may_be_of_any_length_class(self) -> None:
        client = self.open("/ws?format=raw&channel=news")
        sizes = (0, 1, 125, 126, 127, 65535, 65536)
        for size in sizes:
            client.connection.send(Frame(Opcode.BINARY, b"x" * size).serialize(mask=True))
        self.rig.turn()
        self.assertEqual([len(message) for message in client.messages], list(sizes))


class SlowTests(WebSocketTests):
    """Messages that come drop by drop."""

    config = "[limits]\nevent_size = 64KiB\nrequest_timeout = 60s\nbody_rate = 100\nheartbeat = 1h\n"

    MESSAGE = frame(b'{"type":"publish","channel":"news","data":"hello"}')

    def drip(self, client: WebSocketTalk, data: bytes, each: int, most_s: int) -> int:
        """Send `each` bytes of `data` each second while it is open; answer for how many seconds it was."""
        for second in range(most_s):
            if client.close is not None:
                return second
            client.connection.send(data[second * each : (second + 1) * each])
            self.rig.wait(1)
        return most_s

    def test_a_message_that_is_not_completed_ends_the_connection(self) -> None:
        for start in (b"\x81", self.MESSAGE[:4], self.MESSAGE[:-1], frame(b"a", fin=False), frame(b"ping", 9)[:-1]):
            with self.subTest(start):
                self.start(self.config)
                client = self.open()
                self.rig.wait(100)  # which does not count
                client.connection.send(start)
                self.rig.wait(59)
                self.assertTrue(client.is_open)
                self.rig.wait(4)
                self.assert_closed(client, 1008, f"only {len(start)} bytes of a message arrived within 6")

    def test_so_does_one_that_drips(self) -> None:
        client = self.open()
        self.assertIn(self.drip(client, frame(b"x" * 5000), 10, 90), range(60, 70))
        self.assert_closed(client, 1008, "see [limits]")

    def test_so_does_one_in_frames_without_end(self) -> None:
        client = self.open()
        parts = frame(b"x", fin=False) + frame(b"x", 0, fin=False) * 100
        self.assertIn(self.drip(client, parts, 7, 90), range(60, 70))
        self.assert_closed(client, 1008, "see [limits]")

    def test_pings_within_it_do_not_help(self) -> None:
        client = self.open()
        client.connection.send(frame(b"x", fin=False))
        for _ in range(64):
            if client.connection.is_open:
                client.connection.send(frame(b"", 9))
            self.rig.wait(1)
        self.assert_closed(client, 1008, "see [limits]")

    def test_one_that_comes_as_fast_as_it_has_to_is_taken(self) -> None:
        client = self.open("/ws?channel=news&format=raw")
        self.assertEqual(self.drip(client, frame(b"x" * 20_000), 100, 201), 201)
        self.assertEqual(client.messages, ["x" * 20_000])

    def test_messages_that_come_one_after_the_other_have_their_time_each(self) -> None:
        """Whenever it is looked, a part of one is there."""
        client = self.open("/ws?channel=news")
        client.connection.send(self.MESSAGE[:9])
        for _ in range(10):
            self.rig.wait(50)
            client.connection.send(self.MESSAGE[9:] + self.MESSAGE[:9])
        self.rig.turn()
        self.assertTrue(client.is_open)
        self.assertEqual([one["type"] for one in client.json].count("event"), 10)

    def test_after_a_part_a_whole_one_is_in_time(self) -> None:
        client = self.open("/ws?channel=news")
        client.connection.send(self.MESSAGE[:9])
        client.connection.send(self.MESSAGE[9:])
        for _ in range(100):
            self.rig.wait(2)
            client.connection.send(self.MESSAGE)
        self.assertTrue(client.is_open)
        client.connection.disconnect()
        self.assertEqual(self.rig.traces.alarms, 0)


class PingTests(WebSocketTests):
    """Pings from the daemon, on the wheel."""

    def test_a_client_is_pinged_at_each_heartbeat(self) -> None:
        client = self.open()
        self.rig.wait(19)
        self.assertEqual(len(client.pings), 0)
        self.rig.wait(2)
        self.assertEqual(len(client.pings), 1)
        self.rig.wait(100)
        self.assertGreaterEqual(len(client.pings), 3)
        self.assertTrue(client.is_open)

    def test_a_client_that_answers_nothing_is_dropped(self) -> None:
        client = self.open("/ws?channel=news")
        client.answers_pings = False
        self.rig.wait(29)
        self.assertTrue(client.connection.is_open)
        self.rig.wait(1)
        self.assertFalse(client.connection.is_open)
        self.assertTrue(client.connection.was_aborted)
        self.assertEqual((self.rig.traces.sessions, self.rig.traces.alarms), (0, 0))

    def test_a_client_that_sends_anything_is_alive(self) -> None:
        client = self.open("/ws?channel=news")
        client.answers_pings = False
        for _ in range(30):
            self.rig.wait(5)
            client.say(type="nonsense")
        self.assertTrue(client.connection.is_open)

    def test_a_client_that_is_being_closed_is_not_pinged(self) -> None:
        self.rig = type(self.rig)("[limits]\nheartbeat = 2s\nping_timeout = 2s\n")
        client = self.open("/ws?channel=news")
        client.answers_pings = False
        self.rig.publish("news")
        self.rig.request("DELETE", "/channels/news")
        self.rig.wait(5)
        self.assertEqual([opcode for opcode, _ in frames(client.connection.received)][-1], 8)
