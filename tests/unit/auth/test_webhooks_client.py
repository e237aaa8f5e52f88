"""Posting to the application: what is sent, and what becomes of answers that are not as they should be."""

from __future__ import annotations

import gzip
import re
from base64 import b64encode
from time import time

from OpenSSL import SSL
from standardwebhooks import Webhook
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pushd.auth.webhooks.answers import Answer, NoAnswer
from pushd.auth.webhooks.client import MAX_ANSWER_BYTES, WebhookClient
from pushd.auth.webhooks.signing import Signer
from tests.rigs.application import SECRET
from tests.rigs.wire import Wire

URL = "http://app.example:9000/hook?key=hidden"
OTHER_SECRET = "whsec_" + b64encode(b"another" * 5).decode()
NOW = 1_700_000_000.5
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class PostTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.poster = WebhookClient(self.reactor, Signer(SECRET), timeout_s=2, now=lambda: NOW)

    def post(self, url: str = URL, body: bytes = b'{"hook":"x"}') -> Deferred[Answer]:
        return Deferred.fromCoroutine(self.poster(url, "m-1", body))

    def wire(self, number: int = -1) -> Wire:
        """Let a connection be made, the last that was asked for unless another one is wanted."""
        self.reactor.advance(0)
        return Wire(self.reactor, self.reactor.tcpClients[number][2])

    def answered(self, data: bytes) -> Answer:
        """Return what is made of the bytes that come back over a connection of their own."""
        posted = self.post()
        wire = self.wire()
        wire.answer(data)
        wire.end()
        return self.successResultOf(posted)

    def failed(self, posted: Deferred[Answer]) -> str:
        """Return why there is no answer."""
        return str(self.failureResultOf(posted, NoAnswer).value)


class RequestTests(PostTests):
    def test_it_is_a_signed_post_of_json(self) -> None:
        self.post()
        head, _, body = self.wire().value().partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        self.assertEqual(line, "POST /hook?key=hidden HTTP/1.1")
        self.assertEqual(body, b'{"hook":"x"}')
        self.assertEqual(headers["host"], "app.example:9000")
        self.assertEqual(headers["content-type"], "application/json")
        self.assertEqual(headers["content-length"], "12")
        self.assertEqual(headers["user-agent"], "pushd")
        self.assertEqual(headers["accept-encoding"], "identity")
        self.assertEqual((headers["webhook-id"], headers["webhook-timestamp"]), ("m-1", "1700000000"))
        with_time = {**headers, **Signer(SECRET).headers("m-1", NOW, body)}
        self.assertEqual(headers, with_time)

    def test_standard_webhooks_verifies_what_comes_over_the_wire(self) -> None:
        self.poster = WebhookClient(self.reactor, Signer(SECRET), timeout_s=2, now=time)
        self.post(body=b'{"a":1}')
        head, _, body = self.wire().value().partition(b"\r\n\r\n")
        headers = dict(field.split(": ", 1) for field in head.decode().split("\r\n")[1:])
        self.assertEqual(Webhook(SECRET).verify(body, headers), {"a": 1})

    def test_after_a_reload_the_new_secret_signs(self) -> None:
        self.poster.sign_by(Signer(OTHER_SECRET))
        self.post()
        head, _, body = self.wire().value().partition(b"\r\n\r\n")
        (signature,) = re.findall(rb"(?i)webhook-signature: (.*)\r\n", head)
        self.assertEqual(signature.decode(), Signer(OTHER_SECRET).headers("m-1", NOW, body)["webhook-signature"])
        self.assertNotEqual(signature.decode(), Signer(SECRET).headers("m-1", NOW, body)["webhook-signature"])

    def test_a_connection_is_used_again_for_a_while(self) -> None:
        posted = self.post()
        wire = self.wire()
        wire.answer(OK)
        self.successResultOf(posted)
        posted = self.post()
        self.reactor.advance(0)
        self.assertIn(b"POST /hook", wire.value())
        wire.answer(OK)
        self.successResultOf(posted)
        self.assertEqual(len(self.reactor.tcpClients), 1)
        self.reactor.advance(4)
        self.assertTrue(wire.disconnecting)

    def test_cookies_are_not_kept(self) -> None:
        self.answered(b"HTTP/1.1 204 No Content\r\nSet-Cookie: a=b\r\nConnection: close\r\n\r\n")
        self.post()
        self.assertNotIn(b"ookie", self.wire().value())

    def test_closing_closes_what_is_kept(self) -> None:
        posted = self.post()
        wire = self.wire()
        wire.answer(OK)
        self.successResultOf(posted)
        closed = Deferred.fromCoroutine(self.poster.close())
        self.assertTrue(wire.disconnecting)
        wire.end()
        self.successResultOf(closed)

    def test_nothing_is_logged(self) -> None:
        with capturedLogs() as events:
            self.answered(OK)
        self.assertEqual([formatEvent(event) for event in events], [])


class AnswerTests(PostTests):
    def test_status_body_and_retry_after(self) -> None:
        self.assertEqual(self.answered(OK), Answer(200, b"{}"))
        for value, retry_s in (
            (b"7", 7.0),
            (b"Tue, 14 Nov 2023 22:13:30 GMT", 9.5),
            (b"Tue, 14 Nov 2023 22:13:10 GMT", 0.0),
            *((b"", None), (b"-1", None), (b"1.5", None), (b"soon", None), (b"9" * 400, None)),
            (b"Tue, 99 Nov 9999999 22:13:10 GMT", None),
        ):
            head = b"HTTP/1.1 429 No\r\nContent-Length: 0\r\nRetry-After: %b\r\n\r\n" % value
            self.assertEqual(self.answered(head), Answer(429, b"", retry_s), value)

    def test_a_chunked_body_and_one_that_ends_with_the_connection(self) -> None:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
        self.assertEqual(self.answered(chunked).body, b"{}")
        posted = self.post()
        wire = self.wire()
        wire.answer(b"HTTP/1.0 200 OK\r\n\r\n{}")
        wire.end()
        self.assertEqual(self.successResultOf(posted).body, b"{}")

    def test_a_redirect_is_not_followed(self) -> None:
        for status in (301, 302, 303, 307, 308):
            head = (
                b"HTTP/1.1 %d Over there\r\nLocation: http://other.example/\r\nContent-Length: 0\r\n\r\n" % status
            )
            self.assertEqual(self.answered(head).status, status)
        self.assertEqual({client[0] for client in self.reactor.tcpClients}, {"127.0.0.1"})


class HostileTests(PostTests):
    def test_a_body_may_have_64_KiB_and_no_more(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
        for size in (MAX_ANSWER_BYTES + 1, 10**12):
            posted = self.post()
            wire = self.wire()
            wire.answer(head % size)
            wire.answer(b"x" * (MAX_ANSWER_BYTES + 1))
            self.assertEqual(self.failed(posted), "the answer has more than 65536 bytes")
            self.assertTrue(wire.was_aborted or size == MAX_ANSWER_BYTES + 1)
            wire.end()
        largest = self.answered(head % MAX_ANSWER_BYTES + b"x" * MAX_ANSWER_BYTES)
        self.assertEqual(len(largest.body), MAX_ANSWER_BYTES)

    def test_one_that_never_ends_is_cut_off(self) -> None:
        posted = self.post()
        wire = self.wire()
        wire.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            if wire.was_aborted:
                break
            wire.answer(b"400\r\n" + b"x" * 1024 + b"\r\n")
        self.assertEqual(self.failed(posted), "the answer has more than 65536 bytes")

    def test_the_time_holds_for_all_of_it(self) -> None:
        """A byte now and then does not make it longer."""
        for stage in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"):
            posted = self.post()
            wire = self.wire()
            wire.answer(stage)
            self.reactor.advance(1.9)
            wire.answer(b"x")
            self.assertNoResult(posted)
            self.reactor.advance(0.1)
            self.assertEqual(self.failed(posted), "there was no answer within 2 s")
            self.assertTrue(wire.was_aborted)
            self.reactor.advance(0)

    def test_a_connection_that_is_not_made_in_time_is_given_up(self) -> None:
        posted = self.post()
        self.reactor.advance(2)
        self.assertEqual(self.failed(posted), "there was no answer within 2 s")
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)

    def test_one_that_is_cancelled_ends_its_connection(self) -> None:
        for stage in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"):
            posted = self.post()
            wire = self.wire()
            wire.answer(stage)
            posted.cancel()
            self.failureResultOf(posted, CancelledError)
            self.assertTrue(wire.was_aborted)

    def test_nothing_compressed_is_unpacked(self) -> None:
        bomb = gzip.compress(b" " * 10_000_000)
        for coding in (b"gzip", b"identity, gzip", b"br"):
            posted = self.post()
            wire = self.wire()
            wire.answer(b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: 99999\r\n\r\n" % coding)
            if not wire.was_aborted:
                wire.answer(bomb)
            self.assertIn("content coding", self.failed(posted))
            self.assertTrue(wire.was_aborted)

    def test_a_compressed_answer_that_came_whole_is_refused_too(self) -> None:
        for end in (b"Content-Length: 2\r\n\r\n{}", b"Content-Length: 0\r\n\r\n"):
            posted = self.post()
            self.wire().answer(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n" + end)
            self.assertIn("content coding", self.failed(posted))

    def test_more_of_a_body_that_is_too_large_changes_nothing(self) -> None:
        """Over TLS, data that was received already follows the end of the connection."""
        posted = self.post()
        wire = self.wire()
        wire.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(2):
            wire.answer(b"x" * (MAX_ANSWER_BYTES + 1))
        self.assertEqual(self.failed(posted), "the answer has more than 65536 bytes")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_fault_of_tls_is_named_and_not_tried_again(self) -> None:
        posted = self.post()
        self.wire().end(SSL.Error([("SSL routines", "", "certificate verify failed")]))
        self.assertEqual(self.failed(posted), "TLS failed: certificate verify failed")
        self.reactor.advance(0)
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_one_that_ends_in_the_middle_is_no_answer(self) -> None:
        for start in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        ):
            posted = self.post()
            wire = self.wire()
            wire.answer(start)
            wire.end(ConnectionLost())
            self.assertIn("Connection", self.failed(posted))
            self.assertEqual(len(self.reactor.tcpClients), 1)
            self.setUp()

    def test_nothing_without_a_length_is_no_answer(self) -> None:
        """Which may be one that was cut off, and would count as leave."""
        posted = self.post()
        wire = self.wire()
        wire.answer(b"HTTP/1.0 200 OK\r\n\r\n")
        wire.end()
        self.assertEqual(self.failed(posted), "the answer has neither a body nor a length")

    def test_what_is_not_http_is_no_answer(self) -> None:
        for data in (
            b"SSH-2.0-OpenSSH\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        ):
            posted = self.post()
            self.wire().answer(data)
            self.reactor.advance(2)
            self.failed(posted)
        self.flushLoggedErrors()


class AgainTests(PostTests):
    def test_a_connection_that_ends_without_any_answer_is_tried_once_more_on_a_new_one(self) -> None:
        earlier = [self.post(), self.post()]
        wires = [self.wire(0), self.wire(1)]
        for wire in wires:
            wire.answer(OK)
        for posted in earlier:
            self.successResultOf(posted)
        posted = self.post()
        self.reactor.advance(0)
        (kept,) = (wire for wire in wires if wire.value())
        kept.end()
        new = self.wire()
        self.assertEqual(len(self.reactor.tcpClients), 3)
        self.assertEqual(new.value().replace(b"Connection: close\r\n", b""), kept.value())
        new.answer(OK)
        self.assertEqual(self.successResultOf(posted).body, b"{}")

    def test_and_not_twice(self) -> None:
        posted = self.post()
        self.wire().end()
        self.wire().end(ConnectionLost())
        self.assertIn("Connection", self.failed(posted))
        self.assertEqual(len(self.reactor.tcpClients), 2)

    def test_nor_if_there_is_nobody(self) -> None:
        posted = self.post()
        self.reactor.advance(0)
        [client] = self.reactor.tcpClients
        client[2].clientConnectionFailed(self.reactor.connectors[0], Failure(ConnectionRefusedError()))
        self.reactor.advance(1)
        self.assertIn("ConnectionRefusedError", self.failed(posted))
        self.assertEqual(len(self.reactor.tcpClients), 1)
