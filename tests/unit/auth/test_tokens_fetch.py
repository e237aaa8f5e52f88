"""Fetching a key set: what is sent, and which answers are documents."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from pushd.auth.tokens.fetch import MAX_ANSWER_BYTES, HttpsFetch
from pushd.errors import Unavailable
from tests.rigs.wire import Wire

URL = "http://issuer.example/keys.json"


class FetchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.fetch = HttpsFetch(self.reactor, timeout_s=2)

    def wire(self) -> Wire:
        """Let the connection that was asked for last be made."""
        self.reactor.advance(0)
        return Wire(self.reactor, self.reactor.tcpClients[-1][2])

    def failed(self, fetched: Deferred[bytes]) -> str:
        """Return why there is no document."""
        return str(self.failureResultOf(fetched, Unavailable).value)

    def test_the_body_of_a_get_is_the_document(self) -> None:
        fetched = self.fetch(URL)
        wire = self.wire()
        self.assertTrue(wire.value().startswith(b"GET /keys.json HTTP/1.1\r\n"))
        self.assertIn(b"application/jwk-set+json, application/json", wire.value())
        wire.answer(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"keys":[]}')
        self.assertEqual(self.successResultOf(fetched), b'{"keys":[]}')

    def test_https_begins_with_tls_for_the_host_of_the_url(self) -> None:
        self.fetch("https://issuer.example/keys.json")
        wire = self.wire()
        self.assertEqual(self.reactor.tcpClients[0][1], 443)
        self.assertTrue(wire.value().startswith(b"\x16\x03"), "no ClientHello (RFC 8446, section 5.1)")
        self.assertIn(b"issuer.example", wire.value())  # the server name (RFC 6066, section 3)
        self.assertNotIn(b"GET", wire.value())

    def test_any_other_status_is_no_document(self) -> None:
        for status, hint in ((204, ""), (404, ""), (500, ""), (302, " (redirects are not followed)")):
            fetched = self.fetch(URL)
            head = b"HTTP/1.1 %d So\r\nLocation: http://other.example/\r\nContent-Length: 0\r\n\r\n"
            self.wire().answer(head % status)
            self.assertEqual(self.failed(fetched), f"it was answered with status {status}{hint}; wanted 200")

    def test_a_failed_request_says_why(self) -> None:
        fetched = self.fetch(URL)
        self.wire().answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % 10**9)
        self.reactor.advance(2)
        self.assertEqual(self.failed(fetched), "there was no answer within 2 s")
        fetched = self.fetch(URL)
        wire = self.wire()
        wire.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % 10**9)
        wire.answer(b"x" * (MAX_ANSWER_BYTES + 1))
        self.assertEqual(self.failed(fetched), f"the answer has more than {MAX_ANSWER_BYTES} bytes")
