"""The HTTP/1.1 connection: limits, malformed requests, pipelining, and its end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.web.http import HTTPChannel, _ChunkedTransferDecoder, _MalformedChunkedDataError
from twisted.web.server import Site

from pushd.server.http1.connection import HTTP1
from pushd.server.request import Request
from tests.rigs.daemon import DaemonTests
from tests.rigs.http_client import HttpClient

LINGER_S = 5
"""How long a client whose request was refused may be silent before the connection is closed."""

LINGER_BYTES = 8 * 1024 * 1024
"""How much of what it still sends is thrown away."""


class HttpTests(DaemonTests):
    """Tests of connections that take bodies of up to a kibibyte."""

    config = "[limits]\nevent_size = 1KiB\nbatch_size = 1KiB\nrequest_timeout = 60s\n"

    def sent(self, data: bytes, method: str = "POST") -> HttpClient:
        """Send `data` on a new connection."""
        client = HttpClient(self.rig)
        client.send_raw(method, data)
        self.rig.turn()
        return client

    def assert_refused(self, client: HttpClient, status: int, says: str = "") -> None:
        """The only answer is a problem, the rest is thrown away, and then the connection closes."""
        self.rig.turn()
        response = client.response
        self.assert_problem(response, status, field="data" if status == 413 else None, says=says)
        self.assertEqual(response.header("connection"), "close")
        self.assertTrue(client.connection.is_open, "a client that still sends would be reset")
        client.connection.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10)
        client.connection.send(b"x" * 100_000)
        self.rig.turn()
        self.assertEqual(len(client.responses), 1)
        self.rig.wait(LINGER_S + 1)
        self.assertFalse(client.connection.is_open)
        self.assertEqual(len(client.responses), 1)
        self.assertEqual(self.rig.delayed, [])
        self.assertEqual(len(self.rig.parts.site.connections), 0)

    def retained(self) -> int:
        """How many events ``news`` has."""
        retained: int = self.rig.get("/channels/news").json["retained"]
        return retained


class BodyTests(HttpTests):
    """Bodies."""

    def test_a_body_at_the_limit_is_taken(self) -> None:
        self.rig.publish("news", b"x" * 1024)
        self.assertEqual(self.retained(), 1)

    def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(self) -> None:
        client = self.sent(b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1025\r\n\r\n")
        self.assert_refused(client, 413, "1024")

    def test_a_body_that_is_too_large_is_refused_however_it_comes(self) -> None:
        head = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        self.assert_refused(self.sent(head + b"x" * 100_000), 413)
        client = self.sent(head)
        for _ in range(10):
            client.connection.send(b"x" * 10_000)
        self.assert_refused(client, 413)
        self.assertEqual(self.retained(), 0)

    def test_a_body_that_is_too_large_is_not_asked_for(self) -> None:
        head = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1025\r\n"
        client = self.sent(head + b"Expect: 100-continue\r\n\r\n")
        self.assertEqual(client.response.interim, [])
        self.assert_refused(client, 413)

    def test_a_body_that_fits_is_asked_for(self) -> None:
        client = self.sent(
            b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        self.assertEqual(client.connection.received, b"HTTP/1.1 100 Continue\r\n\r\n")
        client.connection.send(b"abc")
        self.rig.turn()
        self.assertEqual((client.response.interim, client.response.status), ([100], 201))

    def test_chunks_that_become_too_large_are_refused(self) -> None:
        head = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"200\r\n" + b"x" * 512 + b"\r\n"
        self.assert_refused(self.sent(head + chunk * 3 + b"0\r\n\r\n"), 413)
        client = self.sent(head)
        client.connection.send(chunk)
        client.connection.send(chunk)
        self.rig.turn()
        self.assertEqual(client.responses, [])
        client.connection.send(b"1\r\nx\r\n")
        self.assert_refused(client, 413)
        self.assertEqual(self.retained(), 0)

    def test_a_refused_body_in_chunks_is_not_published_in_part(self) -> None:
        head = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.sent(head + (b"200\r\n" + b"x" * 512 + b"\r\n") * 3 + b"0\r\n\r\n")
        self.assertEqual(self.retained(), 0)

    def test_chunks_at_the_limit_are_taken(self) -> None:
        head = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        client = self.sent(head + (b"200\r\n" + b"x" * 512 + b"\r\n") * 2 + b"0\r\n\r\n")
        self.assertEqual(client.response.status, 201)

    def test_one_huge_chunk_is_refused_before_all_of_it_came(self) -> None:
        head = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.assert_refused(self.sent(head + b"fffffff\r\n" + b"x" * 2000), 413)

    def test_a_client_that_sends_on_for_ever_is_cut(self) -> None:
        client = self.sent(b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n")
        for _ in range(LINGER_BYTES // 2**20 + 1):
            client.connection.send(b"x" * 2**20)
        self.rig.turn()
        self.assertFalse(client.connection.is_open)

    def test_a_long_body_comes_whole_however_it_comes(self) -> None:
        self.rig = type(self.rig)("[limits]\nevent_size = 3MiB\n")
        data = bytes(range(256)) * 256 * 40
        head = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\n"
        for head_end, body in (
            (b"Content-Length: %d\r\n\r\n" % len(data), data),
            (b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)),
        ):
            whole = head + head_end + body
            client = HttpClient(self.rig)
            client.methods = ["POST"]
            for place in range(0, len(whole), 65536):
                client.connection.send(whole[place : place + 65536])
            self.rig.turn()
            self.assertEqual(self.rig.get(client.response.header("location") or "").body, data)

    def test_a_client_that_goes_within_its_body_leaves_nothing(self) -> None:
        client = self.sent(b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
        client.connection.disconnect()
        self.assertEqual(self.retained(), 0)
        self.assertEqual(len(self.rig.parts.site.connections), 0)
        self.rig.turn()
        self.assertEqual(self.rig.delayed, [])


class MalformedTests(HttpTests):
    """What is not HTTP, or means two things."""

    def test_a_malformed_head_is_refused(self) -> None:
        for head in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
            b"GET\r\n\r\n",
            b"GET /healthz\r\n\r\n",
            b"GET  HTTP/1.1\r\n\r\n",
            b"GET /healthz FTP/1.1\r\n\r\n",
            b"GET /healthz HTTP/1.1 x\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost localhost\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\n: x\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\nY: b\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX\xc3\xbc: b\r\n\r\n",
        ):
            with self.subTest(head):
                self.assert_refused(self.sent(head, "GET"), 400, "not a valid HTTP/1.1 request")

    def test_a_head_that_is_too_large_is_refused(self) -> None:
        line = b"X: " + b"x" * 1000 + b"\r\n"
        self.assert_refused(self.sent(b"GET /healthz HTTP/1.1\r\n" + line * 20, "GET"), 400, "16 KiB")
        self.assert_refused(self.sent(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", "GET"), 400, "16 KiB")
        self.assert_refused(self.sent(b"GET /healthz HTTP/1.1\r\n" + b"X: x\r\n" * 501 + b"\r\n", "GET"), 400)

    def test_a_line_without_an_end_is_refused(self) -> None:
        client = self.sent(b"GET /", "GET")
        for _ in range(40):
            client.connection.send(b"x" * 1000)
        self.assert_refused(client, 400)

    def test_a_body_with_two_lengths_is_refused(self) -> None:
        for lengths in (
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            b"Content-Length: 5\r\nContent-Length: 6\r\n",
            b"Content-Length: 5\r\nContent-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ):
            with self.subTest(lengths):
                body = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
                head = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\n" + lengths + b"\r\n"
                self.assert_refused(self.sent(head + body), 400)
        self.assertEqual(self.retained(), 0)

    def test_a_length_that_is_none_is_refused(self) -> None:
        for length in (b"-1", b"+5", b"0x5", b"5, 5", b"", b"1_0", b"5.0", b"\xb2", b"five"):
            with self.subTest(length):
                head = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + length + b"\r\n\r\n"
                self.assert_refused(self.sent(head + b"hello"), 400)

    def test_a_transfer_coding_that_is_not_known_is_refused(self) -> None:
        for coding in (b"gzip", b"gzip, chunked", b"chunked, chunked", b"xchunked", b"chunked;a=b", b"\x0bchunked"):
            with self.subTest(coding):
                head = (
                    b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: " + coding + b"\r\n\r\n"
                )
                self.assert_refused(self.sent(head + b"5\r\nhello\r\n0\r\n\r\n"), 400)

    def test_a_folded_line_is_refused_and_smuggles_nothing(self) -> None:
        for fold in (b" ", b"\t", b"  "):
            client = self.sent(
                b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nX: a\r\n"
                + fold
                + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
            )
            self.assert_refused(client, 400, "not a valid HTTP/1.1 request")
        self.assertEqual(self.retained(), 0)

    def test_chunks_that_are_malformed_are_refused(self) -> None:
        for chunks in (
            b"x\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"1_0\r\nhellohellohello!\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloworld\r\n0\r\n\r\n",
            b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
            b"f" * 2000 + b"\r\n",
        ):
            with self.subTest(chunks):
                head = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                self.assert_refused(self.sent(head + chunks), 400)
        self.assertEqual(self.retained(), 0)

    def test_trailers_that_are_none_or_would_change_the_request_are_refused(self) -> None:
        head = (
            b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
        )
        for trailer in (
            b"Content-Length: 5",
            b"transfer-encoding: chunked",
            b"Host: elsewhere",
            b"Authorization: Bearer x",
            b"Cookie: a=b",
            b"A: b\r\nConnection: close",
            b"no colon",
            b"A : b",
            b"A: b\r\n folded",
            b"A: b\nB: c",
            b"A: b\rB: c",
            b"A: b\n\nGET /smuggled HTTP/1.1\nHost: localhost\n",
            b"A: \x00",
        ):
            with self.subTest(trailer):
                self.assert_refused(self.sent(head + trailer + b"\r\n\r\n"), 400)
        self.assertEqual(self.retained(), 0)
        client = self.sent(head + b"A: b\r\nEvent-Type: c\r\n\r\n")
        self.assertEqual(client.response.status, 201)
        (event,) = self.rig.get("/channels/news/events").json["events"]
        self.assertNotIn("event", event, "a trailer is not a header")

    def test_a_target_is_a_path_or_a_url_of_the_host(self) -> None:
        def ask(target: bytes, method: bytes = b"GET", host: bytes = b"localhost") -> HttpClient:
            return self.sent(method + b" " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", method.decode())

        for target in (
            b"xhealthz",
            b"localhost:80",
            b"localhost/healthz",
            b"*",
            b"ftp://localhost/healthz",
            b"http:///healthz",
            b"http://",
        ):
            with self.subTest(target):
                self.assert_refused(ask(target), 400, "neither a path nor an http URL")
        for method in (b"CONNECT", b"GET"):
            self.assert_refused(ask(b"localhost:443", method), 400, "neither a path")
        for target in (b"http://elsewhere/healthz", b"http://localhost:81/healthz", b"http://a@localhost/healthz"):
            with self.subTest(target):
                self.assert_refused(ask(target), 400, "Host is not that of the target")
        for target in (b"http://localhost/healthz", b"HTTP://localhost/healthz", b"https://localhost/healthz"):
            self.assertEqual(ask(target).response.status, 200)
        self.assertEqual(ask(b"http://localhost?a", b"HEAD").response.status, 200)
        self.assertEqual(ask(b"http://evil/channels", host=b"evil").response.status, 403, "the gate sees the same")
        self.assertEqual(ask(b"*", b"OPTIONS").response.status, 200)

    def test_a_refused_request_is_answered_once_however_many_faults_follow(self) -> None:
        client = self.sent(
            b"GET /healthz HTTP/1.1\r\nbad\r\nContent-Length: x\r\nTransfer-Encoding: y\r\n\r\n", "GET"
        )
        self.assert_refused(client, 400)

    def test_a_malformed_request_behind_another_is_refused_after_its_answer(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/healthz")
        client.send_raw("GET", b"nonsense\r\n\r\n")
        self.rig.turn()
        self.assertEqual([response.status for response in client.responses], [200, 400])


class ConnectionTests(HttpTests):
    """Connections that live on."""

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        client = HttpClient(self.rig)
        client.methods = ["POST", "GET", "POST", "GET"]
        post = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"
        get = b"GET /channels/news HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.connection.send(post + get + post + get)
        self.rig.turn()
        self.assertEqual([response.status for response in client.responses], [201, 200, 201, 200])
        self.assertEqual([client.responses[place].json["retained"] for place in (1, 3)], [1, 2])

    def test_a_pipelined_request_waits_for_the_answer_before(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/poll?channel=news")
        client.send("POST", "/channels/other", body=b"x")
        self.rig.turn()
        self.assertEqual(client.responses, [])
        self.rig.publish("news")
        self.rig.turn()
        self.assertEqual([response.status for response in client.responses], [200, 201])

    def test_what_waits_behind_a_stream_that_is_closed_is_not_begun(self) -> None:
        stream = b"GET /stream?channel=news HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client = self.sent(stream + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answered = sum(self.rig.parts.site.counters.answered.values())
        self.rig.publish("news", b"x")
        self.rig.request("DELETE", "/channels/news")
        self.rig.turn()
        self.assertFalse(client.connection.is_open)
        (response,) = client.responses
        self.assertTrue(response.is_complete)
        self.assertIn(b"deleted", response.body)
        # the publish, the deletion and the stream
        self.assertEqual(sum(self.rig.parts.site.counters.answered.values()) - answered, 3)

    def test_a_client_that_pipelines_without_end_is_not_read(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/poll?channel=news")
        for _ in range(40):
            client.connection.send(b"x" * 1000)
        self.assertFalse(client.connection.is_read)

    def test_a_request_may_come_byte_by_byte(self) -> None:
        client = HttpClient(self.rig)
        client.methods = ["POST"]
        head = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        for byte in head + b"3\r\nabc\r\n0\r\n\r\n":
            client.connection.send(bytes([byte]))
        self.rig.turn()
        self.assertEqual(client.response.status, 201)

    def test_connection_close_closes_after_the_answer(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/healthz", headers={"Connection": "close"})
        self.rig.turn()
        self.assertTrue(client.response.is_complete)
        self.assertEqual(client.response.header("connection"), "close")
        self.assertFalse(client.connection.is_open)

    def test_http_1_0_closes_after_the_answer(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/healthz", version="1.0")
        self.rig.turn()
        self.assertEqual(client.response.status, 200)
        self.assertFalse(client.connection.is_open)

    def test_a_connection_without_a_request_is_closed_after_the_time_out(self) -> None:
        for request in (b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            with self.subTest(request):
                client = HttpClient(self.rig)
                client.methods.append("GET")
                client.connection.send(request)
                self.rig.wait(59)
                self.assertTrue(client.connection.is_open)
                self.rig.wait(2)
                self.assertFalse(client.connection.is_open)
                self.assertEqual(len(client.responses), bool(request), "there is nothing to be answered")
        self.assertEqual(self.rig.delayed, [])
        self.assertEqual(self.rig.traces.alarms, 0)

    def test_after_an_answer_the_time_out_begins_anew(self) -> None:
        client = HttpClient(self.rig)
        for _ in range(3):
            self.rig.wait(50)
            client.send("GET", "/healthz")
        self.rig.turn()
        self.assertEqual(len(client.responses), 3)
        self.rig.wait(61)
        self.assertFalse(client.connection.is_open)

    def test_a_stream_is_not_cut_by_the_time_out(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/sse?channel=news")
        self.rig.wait(200)
        self.assertTrue(client.connection.is_open)

    def test_a_connection_that_is_timed_out_twice_leaves_no_time_out_behind(self) -> None:
        client = HttpClient(self.rig)
        client.connection.stop_reading()
        client.send("GET", "/demo.js")
        self.rig.turn()
        (connection,) = cast("Iterable[HTTP1]", self.rig.parts.site.connections)
        connection.timeoutConnection()
        connection.timeoutConnection()
        client.connection.disconnect()
        self.rig.turn()
        self.assertEqual(self.rig.delayed, [], "it would abort a connection that is gone")

    def test_an_idle_connection_is_closed_a_second_after_the_daemon_stops(self) -> None:
        idle, used = HttpClient(self.rig), HttpClient(self.rig)
        used.send("GET", "/healthz")
        stopped = self.rig.stop()
        self.rig.turn()
        self.assertNoResult(stopped)
        self.rig.wait(1)
        self.successResultOf(stopped)
        self.assertEqual((idle.connection.is_open, used.connection.is_open), (False, False))
        self.assertTrue(used.response.is_complete)

    def test_a_request_at_hand_is_answered_when_the_daemon_stops(self) -> None:
        client = self.sent(b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\na")
        stopped = self.rig.stop()
        self.rig.turn()
        self.assertNoResult(stopped)
        client.connection.send(b"bc")
        self.rig.turn()
        self.assertEqual((client.response.status, client.response.header("connection")), (201, "close"))
        self.assertFalse(client.connection.is_open)
        self.successResultOf(stopped)

    def test_a_request_on_its_way_when_the_daemon_stops_is_answered_and_the_last(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/healthz")
        stopped = self.rig.stop()
        self.rig.reactor.advance(0.9)
        client.connection.send(b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\na")
        self.rig.wait(2)
        self.assertNoResult(stopped)
        client.methods.append("POST")
        client.connection.send(b"bcGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.rig.turn()
        self.assertEqual([it.status for it in client.responses], [200, 201])
        self.assertEqual([it.header("connection") for it in client.responses], [None, "close"])
        self.assertFalse(client.connection.is_open)
        self.successResultOf(stopped)

    def test_nobody_can_subscribe_any_more_when_the_daemon_stops(self) -> None:
        before = self.rig.traces
        for path in ("/sse", "/stream", "/poll", "/ws"):
            client = HttpClient(self.rig)
            self.rig.stop()
            self.rig.turn()
            key = {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "13"}
            upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", **key} if path == "/ws" else {}
            client.send("GET", f"{path}?channel=news", headers=upgrade)
            self.rig.turn()
            self.assert_problem(client.response, 503, says="the server is going away")
            self.assertRegex(client.response.header("retry-after") or "", "^[1-9]$")
            self.assertFalse(client.connection.is_open)
            self.assertEqual(self.rig.traces.subscribers, before.subscribers)
            self.start()

    def test_a_head_that_is_not_whole_is_no_request_when_the_daemon_stops(self) -> None:
        client = self.sent(b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\n")
        stopped = self.rig.stop()
        self.rig.wait(1)
        self.successResultOf(stopped)
        self.assertEqual((client.connection.received, client.connection.is_open), (b"", False))

    def test_a_client_that_never_ends_its_request_does_not_hold_up_the_stop(self) -> None:
        client = self.sent(b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\na")
        stopped = self.rig.stop()
        self.rig.wait(6)
        self.successResultOf(stopped)
        self.assertFalse(client.connection.is_open)


class SlowTests(HttpTests):
    """Requests that come drop by drop."""

    config = "[limits]\nhead_timeout = 10s\nrequest_timeout = 60s\nbody_rate = 100\n"

    POST = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\n"

    def drip(self, client: HttpClient, byte: bytes, most_s: int) -> int:
        """Send `byte` each second as long as the daemon listens; answer for how many seconds it did."""
        for second in range(most_s):
            if client.connection.received or not client.connection.is_open:
                return second
            client.connection.send(byte)
            self.rig.wait(1)
        return most_s

    def test_a_head_that_drips_is_answered_408(self) -> None:
        for start in (b"G", b"\r\n", b"GET /healthz HTTP/1.1\r\nX: "):
            with self.subTest(start):
                client = HttpClient(self.rig)
                self.rig.wait(40)  # which does not count
                client.send_raw("GET", start)
                self.assertIn(self.drip(client, b"x" if len(start) > 2 else b"", 20), (10, 11, 12))
                self.assert_refused(client, 408, "the head was not complete within 10 s")

    def test_so_is_one_behind_a_request_that_was_answered(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/healthz")
        self.rig.wait(30)
        client.send_raw("GET", b"GET /")
        self.rig.wait(9)
        self.assertEqual(len(client.responses), 1)
        self.rig.wait(3)
        self.assertEqual([one.status for one in client.responses], [200, 408])

    def test_heads_that_come_one_after_the_other_have_their_time_each(self) -> None:
        """Whatever comes, there is always a part of a head."""
        client = HttpClient(self.rig)
        get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.connection.send(get[:20])
        for _ in range(10):
            self.rig.wait(8)
            client.send_raw("GET", get[20:] + get[:20])
        self.rig.turn()
        self.assertEqual([one.status for one in client.responses], [200] * 10)

    def test_a_head_that_waits_for_the_answer_before_has_its_time_after_it(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/poll?channel=news")
        client.connection.send(b"GET /healthz HTTP/1.1\r\n")
        self.rig.wait(15)
        self.rig.publish("news")
        self.rig.wait(8)
        client.send_raw("GET", b"Host: localhost\r\n\r\n")
        self.rig.turn()
        self.assertEqual([one.status for one in client.responses], [200, 200])

    def test_a_body_that_drips_is_answered_408(self) -> None:
        for head_end, byte in (
            (b"Content-Length: 1000\r\n\r\n", b"x"),
            (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
            (b"Transfer-Encoding: chunked\r\n\r\n1", b"0"),
            (b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"x"),
        ):
            with self.subTest(head_end):
                client = HttpClient(self.rig)
                client.send_raw("POST", self.POST + head_end)
                self.assertIn(self.drip(client, byte, 90), (60, 61, 62, 63))
                self.assert_refused(client, 408, "see [limits]")
        self.assertEqual(self.retained(), 0)

    def test_a_body_that_stops_is_answered_408(self) -> None:
        client = self.sent(self.POST + b"Content-Length: 2000\r\n\r\n" + b"x" * 1000)
        self.rig.wait(69)
        self.assertEqual(client.responses, [])
        self.rig.wait(3)
        self.assert_refused(client, 408, "only 1000 bytes of the body arrived within 70 s")

    def test_a_body_that_comes_as_fast_as_it_has_to_is_taken(self) -> None:
        client = self.sent(self.POST + b"Content-Length: 20000\r\n\r\n")
        for _ in range(199):
            client.connection.send(b"x" * 100)
            self.rig.wait(1)
        self.assertEqual(client.responses, [])
        client.connection.send(b"x" * 100)
        self.rig.turn()
        self.assertEqual(client.response.status, 201)

    def test_bodies_that_come_one_after_the_other_have_their_time_each(self) -> None:
        client = HttpClient(self.rig)
        post = self.POST + b"Content-Length: 4\r\n\r\nabcd"
        client.connection.send(post[:-2])
        for _ in range(5):
            self.rig.wait(50)
            client.send_raw("POST", post[-2:] + post[:-2])
        self.rig.turn()
        self.assertEqual([one.status for one in client.responses], [201] * 5)

    def test_a_client_that_does_not_read_its_answers_has_not_sent_half_a_head(self) -> None:
        self.rig.publish("large", b"x" * 100_000)
        client = HttpClient(self.rig)
        client.connection.stop_reading()
        client.connection.send(b"GET /channels/large/events HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        self.rig.wait(30)
        self.assertTrue(client.connection.is_open)
        client.connection.start_reading()
        self.rig.turn()
        client.methods = ["GET"] * 3
        self.assertEqual([one.status for one in client.responses], [200] * 3)

    def test_what_is_refused_is_in_the_log_with_the_peer(self) -> None:
        said: list[str] = []
        observer = cast(ILogObserver, lambda event: said.append(formatEvent(event)))
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.sent(b"GET /", "GET")
        self.rig.wait(12)
        line = next(one for one in said if "refused a request" in one)
        self.assertRegex(line, r"refused a request from 127\.0\.0\.1:\d+: the head was not complete within 10 s")


class WriteTests(HttpTests):
    """What is sent when."""

    POST = b"POST /channels/news HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"

    def assert_writes(self, client: HttpClient, *methods: str, count: int = 1) -> None:
        """The responses to `methods` went out in `count` pieces, within the turn in which the requests came."""
        client.methods = list(methods)
        self.assertEqual(len(client.written), len(methods))
        self.assertEqual(len(client.connection.writes), count, client.connection.writes)

    def test_an_answer_is_one_write(self) -> None:
        for method, target in (
            ("GET", "/healthz"),
            ("HEAD", "/channels"),
            ("OPTIONS", "/channels"),
            ("DELETE", "/channels/none"),
            ("GET", "/nothing"),
            ("GET", "/channels?limit=x"),
        ):
            with self.subTest(f"{method} {target}"):
                client = HttpClient(self.rig)
                client.send(method, target)
                self.assert_writes(client, method)
                self.assertTrue(client.written[0].is_complete)

    def test_a_published_event_is_answered_in_one_write_however_it_comes(self) -> None:
        client = HttpClient(self.rig)
        client.connection.send(self.POST[:20])
        client.connection.send(self.POST[20:-1])
        self.assertEqual(client.connection.writes, [])
        client.connection.send(self.POST[-1:])
        self.assert_writes(client, "POST")

    def test_the_answers_to_what_came_together_go_together_and_in_order(self) -> None:
        client = HttpClient(self.rig)
        client.connection.send(self.POST + b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n" + self.POST)
        self.assert_writes(client, "POST", "GET", "POST")
        self.assertEqual([one.status for one in client.written], [201, 404, 201])

    def test_what_is_refused_is_answered_behind_what_is_not(self) -> None:
        client = HttpClient(self.rig)
        client.connection.send(self.POST + b"nonsense\r\n\r\n")
        self.assert_writes(client, "POST", "GET")
        self.assertEqual([one.status for one in client.written], [201, 400])

    def test_large_answers_are_not_joined_without_end(self) -> None:
        self.rig = type(self.rig)()
        self.rig.publish("large", b"x" * 50_000)
        client = HttpClient(self.rig)
        get = b"GET /channels/large/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.connection.send(get * 5)
        self.rig.turn()
        self.assert_writes(client, *["GET"] * 5, count=3)
        self.assertLess(max(map(len, client.connection.writes)), 120_000)

    def test_requests_wait_for_a_client_that_does_not_take_their_answers(self) -> None:
        self.rig = type(self.rig)()
        self.rig.publish("large", b"x" * 100_000)
        client = HttpClient(self.rig)
        client.connection.stop_reading()
        get = b"GET /channels/large/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.connection.send(get * 100 + self.POST)
        self.assertLess(sum(map(len, client.connection.writes)), 300_000)
        self.assertEqual(self.retained(), 0)
        client.connection.start_reading()
        for _ in range(100):
            self.rig.turn()
        client.methods = ["GET"] * 100 + ["POST"]
        self.assertEqual([one.is_complete for one in client.responses], [True] * 101)
        self.assertEqual(self.retained(), 1)

    def test_an_answer_that_had_to_wait_is_one_write_too(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/poll?channel=news")
        self.assertEqual(client.connection.writes, [])
        self.rig.publish("news")
        self.rig.turn()
        self.assert_writes(client, "GET")

    def test_so_is_one_without_a_body(self) -> None:
        client = HttpClient(self.rig)
        client.send("GET", "/poll?channel=news")
        self.rig.wait(31)
        self.assert_writes(client, "GET")
        self.assertEqual(client.written[0].status, 204)

    def test_the_head_of_a_stream_goes_out_at_once_behind_the_answers_before_it(self) -> None:
        client = HttpClient(self.rig)
        client.connection.send(self.POST + b"GET /stream?channel=news HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assert_writes(client, "POST", "GET")
        self.rig.publish("news", b"first")
        self.rig.turn()
        self.assertIn(b"first", client.written[1].body)

    def test_a_body_is_asked_for_behind_the_answer_before(self) -> None:
        client = HttpClient(self.rig)
        head, _, body = self.POST.partition(b"\r\n\r\n")
        client.connection.send(self.POST + head + b"\r\nExpect: 100-continue\r\n\r\n")
        client.methods = ["POST", "POST"]
        self.assertEqual(len(client.connection.writes), 1)
        self.assertTrue(client.connection.writes[0].endswith(b"}\nHTTP/1.1 100 Continue\r\n\r\n"))
        client.connection.send(body)
        self.assert_writes(client, "POST", "POST", count=2)

    def test_what_closes_the_connection_is_sent_before(self) -> None:
        for version, header in (("1.1", {"Connection": "close"}), ("1.0", {})):
            with self.subTest(version):
                client = HttpClient(self.rig)
                client.send("GET", "/healthz", headers=header, version=version)
                self.assert_writes(client, "GET")
                self.rig.turn()
                self.assertFalse(client.connection.is_open)
                self.assertTrue(client.response.is_complete)

    def test_a_client_that_does_not_read_is_not_read(self) -> None:
        self.rig = type(self.rig)()
        self.rig.publish("large", b"x" * 100_000)
        client = HttpClient(self.rig)
        client.connection.stop_reading()
        get = b"GET /channels/large/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.connection.send(get * 3)
        self.assertFalse(client.connection.is_read)
        client.connection.start_reading()
        client.methods = ["GET"] * 3
        self.rig.turn()
        self.rig.turn()
        self.assertEqual([one.is_complete for one in client.responses], [True] * 3)
        self.assertTrue(client.connection.is_read)


class FaultTests(HttpTests):
    """A resource that raises what it should not."""

    def after_a_fault(self, method: str) -> HttpClient:
        """Request the state of a channel, which raises, and then another resource; return the client."""

        def fault(*args: object) -> None:
            raise RuntimeError("secret")

        self.patch(self.rig.parts.bus, "showing", fault)
        client = HttpClient(self.rig)
        client.send(method, "/channels/news")
        client.send("GET", "/healthz")
        self.rig.turn()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(client.responses[1].status, 200, "the connection lives on")
        return client

    def test_a_fault_is_a_problem_that_tells_nothing_and_is_logged(self) -> None:
        client = self.after_a_fault("GET")
        self.assert_problem(client.responses[0], 500, says="see its log")
        self.assertNotIn(b"secret", client.connection.received)
        self.assertNotIn(b"Traceback", client.connection.received)

    def test_a_fault_in_a_head_request_has_no_body(self) -> None:
        client = self.after_a_fault("HEAD")
        self.assertEqual([response.status for response in client.responses], [500, 200])

    def test_the_requests_are_pushd_s(self) -> None:
        site: Site = self.rig.parts.site
        self.assertIs(site.requestFactory, Request)


class TwistedTests(DaemonTests):
    """The undocumented behaviour of twisted.web that `pushd.server.http1.connection` relies on."""

    def test_a_channel_refers_to_the_producer_of_its_answer_by_this_name(self) -> None:
        self.assertIsNone(HTTPChannel._requestProducer)

    def test_the_connection_has_the_names(self) -> None:
        connection: Any = HTTPChannel()
        connection.callLater, connection.timeOut = self.rig.reactor.callLater, 60
        transport = StringTransport()
        connection.transport = transport
        connection._networkProducer = transport
        self.assertEqual((connection._handlingRequest, connection._waitingForTransport), (False, False))
        self.assertIsNone(connection._abortingCall)
        connection.pauseProducing()
        self.assertTrue(connection._waitingForTransport)
        self.assertEqual(transport.producerState, "paused")
        connection.resumeProducing()
        self.assertFalse(connection._waitingForTransport)
        self.assertEqual(transport.producerState, "producing")
        connection._handlingRequest = True
        connection.pauseProducing()
        self.assertEqual(transport.producerState, "producing", "the client is heard, should it go")

    def test_the_decoder_of_chunks_has_them(self) -> None:
        parts: list[bytes] = []
        decoder = _ChunkedTransferDecoder(parts.append, parts.append)
        for data in b"3\r\nab", b"c\r\n0\r\n\r\nrest":
            decoder.dataReceived(data)
        self.assertEqual(parts, [b"ab", b"c", b"rest"])
        decoder = _ChunkedTransferDecoder(parts.append, parts.append)
        decoder.dataReceived(b"0\r\nA: b\r\nC:d\r\n\r\n")
        self.assertEqual(decoder._trailerHeaders, [b"A: b", b"C:d"])
        decoder = _ChunkedTransferDecoder(parts.append, parts.append)
        self.assertRaises(_MalformedChunkedDataError, decoder.dataReceived, b"x\r\n")
