"""The log of requests, what requests are called, and how the end of each subscriber is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher

from pushd.daemon.integrations import Integrations
from tests.rigs.daemon import DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient, json_lines
from tests.rigs.tunnel_client import WebSocketOverHttp2
from tests.rigs.vouching import FakeTokens, identity
from tests.rigs.websocket_client import WebSocketClient

PROXY = IPv4Address("TCP", "10.0.0.1", 40000)
STRANGER = IPv4Address("TCP", "192.0.2.1", 40000)
_PROXIES = "[proxies]\ntrusted = 10.0.0.1\n[auth]\nanonymous = publish, subscribe, operator\n"


class LogRules(DaemonTests):
    """What is there to look at the log with."""

    def setUp(self) -> None:
        super().setUp()
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def lines(self, namespace: str) -> list[str]:
        """Return what was logged by a part of the daemon."""
        return [formatEvent(event) for event in self.events if event["log_namespace"] == namespace]

    def requests(self) -> list[LogEvent]:
        """Return what was logged of requests, each once."""
        return [event for event in self.events if event["log_namespace"] == "pushd.requests"]

    def only_request(self) -> LogEvent:
        """Return what was logged of the only one."""
        (event,) = self.requests()
        return event

    def ends(self) -> list[str]:
        """Return what was logged of the ends of subscribers."""
        return self.lines("pushd.sessions")


class OverHttp1Tests(LogRules):
    """With ``[log] requests``, over HTTP/1.1."""

    config = "[log]\nrequests = yes\n"

    def start(self, config: str = "") -> None:
        """Override: with somebody who has a token."""
        self.world = Integrations(FakeTokens(hers=identity(publish=("**",), subscribe=("**",))))
        super().start(config)

    def assert_logged(self, **fields: object) -> LogEvent:
        """One request was logged, with these fields and what each has."""
        event = self.only_request()
        self.assertEqual({name: event.get(name) for name in fields}, fields)
        self.assertGreaterEqual(event["duration_ms"], 0)
        self.assertTrue(event["request_id"])
        return event

    def test_a_request_is_one_line(self) -> None:
        client = self.rig.client()
        client.send("POST", "/channels/news?id=secret", body=b"hello")
        self.rig.turn()
        event = self.assert_logged(
            status=201, method="POST", path="/channels/news", bytes=len(client.response.body)
        )
        self.assertEqual(client.response.header("x-request-id"), event["request_id"])
        self.assertRegex(
            formatEvent(event),
            r"\A201 POST /channels/news from 127\.0\.0\.1:\d+, \d+ bytes in 0\.0 ms, [0-9a-f]{16}\Z",
        )
        self.assertEqual(len(self.events), 1)

    def test_each_has_its_own_id(self) -> None:
        for _ in range(3):
            self.rig.get("/channels")
        self.assertEqual(len({event["request_id"] for event in self.requests()}), 3)

    def test_a_refusal_is_one_line_with_the_reason(self) -> None:
        response = self.rig.get("/sse?channel=")
        self.assert_problem(response, 400, field="channel")
        event = self.assert_logged(status=400, path="/sse", detail=response.json["detail"])
        self.assertEqual(response.json["request_id"], event["request_id"])
        self.assertTrue(formatEvent(event).endswith(f"{event['request_id']}: {response.json['detail']}"))
        self.assertEqual(len(self.events), 1)

    def test_a_stream_is_logged_at_its_end_with_all_its_bytes(self) -> None:
        for path in ("/sse", "/stream"):
            self.events.clear()
            client = self.rig.client()
            client.send("GET", f"{path}?channel=news")
            self.rig.turn()
            for data in (b"one", b"x" * 1000, b"three"):
                self.rig.publish("news", data)
                self.rig.turn()
            self.rig.wait(3)
            self.events.clear()
            body = self.body_bytes(client)
            client.connection.disconnect()
            self.rig.turn()
            event = self.assert_logged(status=200, method="GET", path=path, bytes=body, duration_ms=3000.0)
            self.assertNotIn("detail", event)

    def test_a_stream_that_the_daemon_ends_has_what_it_said_last(self) -> None:
        client = self.rig.client()
        client.send("GET", "/stream?channel=news")
        self.rig.publish("news")
        self.rig.turn()
        self.rig.request("DELETE", "/channels/news")
        self.rig.turn()
        self.assertEqual(json_lines(client.response.body)[-1]["type"], "closed")
        (event,) = [event for event in self.requests() if event["path"] == "/stream"]
        self.assertEqual(event["bytes"], self.body_bytes(client))

    def test_a_client_that_does_not_wait_for_the_answer_is_logged_too(self) -> None:
        client = self.rig.client()
        client.send("GET", "/poll?channel=news")
        self.rig.turn()
        self.assertEqual(self.requests(), [])
        client.connection.disconnect()
        self.rig.turn()
        self.assert_logged(status=499, path="/poll", bytes=0)

    def test_the_user_is_named_if_there_is_one(self) -> None:
        self.rig.get("/channels")
        self.assertNotIn("user", self.only_request())

        self.events.clear()
        client = self.rig.client()
        client.send("POST", "/channels/news", headers={"Authorization": "Bearer hers"}, body=b"x")
        self.rig.turn()
        event = self.assert_logged(status=201, user="alice")
        self.assertRegex(formatEvent(event), r" from 127\.0\.0\.1:\d+ as alice, \d+ bytes in ")

    def test_one_that_is_refused_before_it_is_read_is_one_line_too(self) -> None:
        client = self.rig.client()
        size = str(2**40)
        client.send("POST", "/channels/news?id=secret", headers={"Content-Length": size}, body=b"x")
        self.rig.turn()
        self.assert_problem(client.response, 413, field="data")
        client.connection.disconnect()
        self.assert_logged(
            status=413,
            method="POST",
            path="/channels/news",
            bytes=len(client.response.body),
            detail=client.response.json["detail"],
            request_id=client.response.json["request_id"],
        )
        self.assertEqual(len(self.events), 1)

    def test_one_whose_body_does_not_come_is_one_too(self) -> None:
        client = self.rig.client()
        self.send_some(client)
        self.rig.wait(100)
        self.assert_problem(client.response, 408)
        client.connection.disconnect()
        self.assert_logged(status=408, path="/channels/news", request_id=client.response.json["request_id"])
        self.assertEqual(len(self.events), 1)

    def test_nothing_is_told_twice_over_a_connection_of_several_requests(self) -> None:
        client = HttpClient(self.rig)
        for _ in range(2):
            client.send("GET", "/channels")
            self.rig.turn()
        client.connection.disconnect()
        self.rig.turn()
        self.assertEqual([event["status"] for event in self.requests()], [200, 200])

    def send_some(self, client: Any) -> None:
        """Send a request and not all of its body."""
        client.send("POST", "/channels/news", headers={"Content-Length": "5"}, body=b"x")

    def body_bytes(self, client: Any) -> int:
        """Return how long the body was, with the frames of its chunks."""
        return len(client.connection.received.partition(b"\r\n\r\n")[2])

    def test_a_websocket_is_logged_at_its_end(self) -> None:
        client = WebSocketClient(self.rig, "/ws?channel=news&format=raw")
        self.rig.publish("news", b"x" * 100)
        self.rig.turn()
        self.rig.wait(2)
        self.assertEqual([event["path"] for event in self.requests()], ["/channels/news"])
        self.events.clear()
        client.connection.disconnect()
        self.rig.turn()
        event = self.assert_logged(status=101, method="GET", path="/ws", bytes=102, duration_ms=2000.0)
        assert client.handshake is not None
        self.assertEqual(client.handshake.headers["X-Request-ID"], event["request_id"])


class OverHttp2Tests(OverHttp1Tests):
    """Over HTTP/2."""

    http = Http2Client

    def send_some(self, client: Any) -> None:
        """Override: the stream is not ended."""
        pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost")]
        client.h2.send_headers(1, [*pseudo, (":path", "/channels/news"), ("content-length", "5")])
        client.h2.send_data(1, b"x")
        client.flush()

    def test_a_websocket_is_logged_at_its_end(self) -> None:
        """Override: it is a stream."""
        client = WebSocketOverHttp2(self.rig, "/ws?channel=news&format=raw")
        self.rig.publish("news", b"x" * 100)
        self.rig.turn()
        self.rig.wait(2)
        self.events.clear()
        client.connection.client.connection.disconnect()
        self.rig.turn()
        event = self.assert_logged(status=101, method="CONNECT", path="/ws", bytes=102, duration_ms=2000.0)
        assert client.connection.response is not None
        self.assertEqual(client.connection.response.header("x-request-id"), event["request_id"])

    def body_bytes(self, client: Any) -> int:
        """Override: there are no chunks."""
        return len(client.response.body)


class RefusalTests(LogRules):
    """Without ``[log] requests``."""

    def test_what_is_served_is_not_logged(self) -> None:
        response = self.rig.get("/channels")
        self.assertEqual((response.status, response.header("x-request-id"), self.events), (200, None, []))

    def test_a_refusal_is_logged_with_the_id_that_the_client_sees(self) -> None:
        response = self.rig.get("/nothing")
        self.assert_problem(response, 404)
        (line,) = self.lines("pushd.server.web.resource")
        self.assertTrue(line.endswith(f": {response.json['detail']} ({response.json['request_id']})"), line)

    def test_so_is_one_that_is_not_read(self) -> None:
        client = HttpClient(self.rig)
        client.send_raw("GET", b"nonsense\r\n\r\n")
        self.rig.turn()
        self.assert_problem(client.response, 400)
        (line,) = self.lines("pushd.server.access_log")
        self.assertTrue(line.endswith(f"({client.response.json['request_id']})"), line)

    def test_and_over_http_2(self) -> None:
        client = Http2Client(self.rig)
        client.send("POST", "/publish", headers={"Content-Length": str(2**40)}, body=b"x")
        self.rig.turn()
        response = client.response
        self.assert_problem(response, 413)
        self.assertTrue(self.lines("pushd.server.access_log")[-1].endswith(f"({response.json['request_id']})"))

    def test_a_fault_has_an_id_too(self) -> None:
        self.patch(self.rig.parts.bus, "listing", None)
        response = self.rig.get("/channels")
        self.assert_problem(response, 500)
        (line,) = self.lines("pushd.server.request.Request")
        self.assertEqual(line, f"a fault in pushd while it served /channels ({response.json['request_id']})")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class IdTests(LogRules):
    """What a proxy calls a request."""

    config = _PROXIES + "[log]\nrequests = yes\n"

    def id_of(self, peer: IPv4Address, headers: Sequence[tuple[str, str]]) -> str:
        """Return what a request from `peer` is called."""
        self.events.clear()
        client = HttpClient(self.rig, peer=peer)
        client.send("GET", "/channels", headers=headers)
        self.rig.turn()
        request_id: str = self.only_request()["request_id"]
        self.assertEqual(client.response.header("x-request-id"), request_id)
        return request_id

    def test_it_is_taken_from_one_that_is_trusted(self) -> None:
        for name in ("abc", "7f" * 16, "urn:uuid:0e/+=@~", "x" * 128):
            self.assertEqual(self.id_of(PROXY, [("X-Request-ID", name)]), name)

    def test_and_from_nobody_else(self) -> None:
        self.assertRegex(self.id_of(STRANGER, [("X-Request-ID", "abc")]), r"\A[0-9a-f]{16}\Z")

    def test_what_could_be_anything_else_is_not(self) -> None:
        for name in ("", "a b", "x" * 129, "a{peer}", "a,b", "caf\xe9"):
            self.assertRegex(self.id_of(PROXY, [("X-Request-ID", name)]), r"\A[0-9a-f]{16}\Z")
        self.assertRegex(self.id_of(PROXY, [("X-Request-ID", "a"), ("X-Request-ID", "b")]), r"\A[0-9a-f]{16}\Z")

    def test_it_is_in_the_answer_if_that_is_a_problem_also_if_nothing_is_logged(self) -> None:
        self.start(_PROXIES)
        client = HttpClient(self.rig, peer=PROXY)
        client.send("GET", "/nothing", headers={"X-Request-ID": "abc"})
        self.rig.turn()
        self.assert_problem(client.response, 404)
        self.assertEqual(client.response.json["request_id"], "abc")


class EndTests(LogRules):
    """The end of each subscriber is one line."""

    def assert_end(self, transport: str, why: str, duration: str = "0.0") -> LogEvent:
        """There was one."""
        (line,) = self.ends()
        self.assertRegex(line, rf"\A{transport} of 127\.0\.0\.1:\d+ ended after {duration} s and \d+ bytes: ")
        (event,) = [event for event in self.events if event["log_namespace"] == "pushd.sessions"]
        self.assertTrue(line.endswith(f" and {event['bytes']} bytes: {why}"), line)
        self.assertEqual((event["transport"], event["reason"]), (transport, why))
        self.assertEqual([one for one in self.events if "ended after" not in formatEvent(one)], [])
        return event

    def test_the_client_goes(self) -> None:
        for transport in ("sse", "stream"):
            self.events.clear()
            client = self.rig.client()
            client.send("GET", f"/{transport}?channel=news")
            self.rig.wait(7)
            client.connection.disconnect()
            event = self.assert_end(transport, "the client has gone", "7.0")
            self.assertRegex(event["connection"], r"-\d+\Z")

    def test_the_user_is_named_if_there_is_one(self) -> None:
        self.world = Integrations(FakeTokens(hers=identity(subscribe=("**",))))
        self.start()
        self.events.clear()
        client = HttpClient(self.rig)
        client.send("GET", "/sse?channel=news", headers={"Authorization": "Bearer hers"})
        self.rig.turn()
        client.connection.disconnect()
        (line,) = self.ends()
        self.assertRegex(line, r"\Asse of 127\.0\.0\.1:\d+ as alice ended after 0\.0 s and \d+ bytes: ")

    def test_how_much_was_sent_does_not_depend_on_the_company(self) -> None:
        client = WebSocketClient(self.rig, "/ws?channel=news&format=raw")
        self.rig.publish("news", b"x" * 100)
        self.rig.turn()
        others = [WebSocketClient(self.rig, "/ws?channel=news&format=raw") for _ in range(3)]
        self.rig.publish("news", b"x" * 100)
        self.rig.turn()
        self.events.clear()
        for one in (client, *others):
            one.connection.disconnect()
        sent = [event["bytes"] for event in self.events if event["log_namespace"] == "pushd.sessions"]
        self.assertEqual(sent, [204, 102, 102, 102])

    def test_a_websocket_that_the_client_closes(self) -> None:
        client = WebSocketClient(self.rig, "/ws?channel=news")
        self.rig.turn()
        client.protocol.send_close(1000, "bye")
        client.flush()
        self.rig.turn()
        self.assert_end("websocket", "the client has gone")

    def test_a_websocket_that_breaks_the_protocol(self) -> None:
        client = WebSocketClient(self.rig, "/ws?channel=news", then=b"\xff\xff\xff\xff")
        self.rig.turn()
        client.connection.disconnect()
        ends = self.ends()
        self.assertEqual(len(ends), 1)
        self.assertIn(" bytes: 1002 RSV = 7", ends[0])

    def test_a_websocket_that_is_silent(self) -> None:
        self.start("[limits]\nheartbeat = 10s\nping_timeout = 5s\n")
        self.events.clear()
        client = WebSocketClient(self.rig, "/ws?channel=news")
        client.connection.on_data = lambda: None
        self.rig.wait(30)
        self.assertFalse(client.connection.is_open)
        self.assert_end("websocket", "no answer to a ping", r"1\d\.0")

    def test_a_channel_that_is_deleted(self) -> None:
        client = WebSocketClient(self.rig, "/ws?channel=news&format=raw")
        self.rig.publish("news")
        self.rig.request("DELETE", "/channels/news")
        self.rig.turn()
        self.assertIsNotNone(client.close)
        self.assert_end("websocket", "the channel was deleted")

    def test_an_operator_closes_it(self) -> None:
        client = self.rig.client()
        client.send("GET", "/sse?channel=news")
        self.rig.request("DELETE", "/connections?channel=news")
        self.rig.turn()
        self.assert_end("sse", "closed by an operator")

    def test_the_daemon_stops(self) -> None:
        client = self.rig.client()
        client.send("GET", "/stream?channel=news")
        self.events.clear()
        self.rig.stop()
        self.rig.wait(1)
        (line,) = self.ends()
        self.assertRegex(line, r" ended after 0\.0 s and \d+ bytes: the server is going away\Z")

    def test_a_push_stream(self) -> None:
        client = Http2Client(self.rig)
        client.send("GET", "/push?channel=news")
        self.rig.turn()
        self.rig.publish("news", b"x" * 50)
        self.rig.turn()
        client.connection.disconnect()
        event = self.assert_end("push", "the client has gone")
        self.assertEqual(event["bytes"], len(client.response.body) + 50)

    def test_a_poll_is_a_request_and_has_none(self) -> None:
        client = self.rig.client()
        client.send("GET", "/poll?channel=news")
        self.rig.publish("news")
        self.rig.turn()
        self.assertEqual((client.response.status, self.ends()), (200, []))


class ManyEndsTests(LogRules):
    def test_of_many_that_end_together_a_few_are_logged_in_each_turn_and_all_in_the_end(self) -> None:
        clients = [HttpClient(self.rig) for _ in range(50)]
        for client in clients:
            client.send("GET", "/sse?channel=news")
        self.rig.turn()
        for client in clients:
            client.connection.disconnect()
        self.assertEqual(self.ended(), 20)
        self.rig.turn()
        self.assertEqual(self.ended(), 50)

    def ended(self) -> int:
        """Count the lines of ends."""
        return sum(" ended after " in line for line in self.lines("pushd.sessions"))
