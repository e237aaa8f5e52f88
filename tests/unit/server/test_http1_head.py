"""The head of an HTTP/1.1 request: read as twisted.web reads it, or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import HTTPChannel, Request
from twisted.web.http_headers import Headers

from pushd.bus.counters import Counters
from pushd.bus.turn import Turn
from pushd.errors import BadRequest
from pushd.server.access_log import RequestLog
from pushd.server.eventsource_retry import EventSourceRetry
from pushd.server.http1.connection import HTTP1
from pushd.server.http1.head import MAX_FIELDS, is_start, parse_head
from pushd.server.net.timers import TimerWheel
from pushd.server.net.turns import Turns
from pushd.server.request import Request as PushdRequest
from tests.rigs.builders import PATIENCE
from tests.rigs.effort import examples

CRLF = b"\r\n"


def head(*lines: bytes, start: bytes = b"GET / HTTP/1.1") -> bytes:
    """Write a head."""
    return CRLF.join((start, *lines))


class HeadCase(SynchronousTestCase):
    def assertRefused(self, block: bytes) -> None:
        error = self.assertRaises(BadRequest, parse_head, block)
        self.assertIn("not a valid HTTP/1.1 request", error.detail)

    def assertField(self, line: bytes, name: bytes, *values: bytes) -> None:
        self.assertEqual(parse_head(head(line)).fields.getRawHeaders(name), list(values))


class StartTests(HeadCase):
    """The first line (section 3)."""

    def test_method_target_and_version_are_taken_as_they_are(self) -> None:
        one = parse_head(b"gEt /a%2Fb?c=d#e HTTP/1.0")
        self.assertEqual((one.method, one.target, one.version), (b"gEt", b"/a%2Fb?c=d#e", b"HTTP/1.0"))
        self.assertEqual(list(one.fields.getAllRawHeaders()), [])

    def test_a_method_is_a_token(self) -> None:
        self.assertEqual(parse_head(b"!#$%&'*+-.^_`|~09azAZ / HTTP/1.1").method, b"!#$%&'*+-.^_`|~09azAZ")
        for method in (b"", b"G(T", b"G\tT", b"G\x00T", b"G:T", b'"GET"', b"GET,", b"\xc3\xbc", b"GET\r"):
            self.assertRefused(method + b" / HTTP/1.1")

    def test_a_target_is_printable_ascii(self) -> None:
        for target in (b"", b"/\x00", b"/\x1f", b"/\x7f", b"/\x80", b"/\xc3\xbc", b"/\t", b"/\n", b"/\r"):
            self.assertRefused(b"GET " + target + b" HTTP/1.1")

    def test_the_version_is_one_of_two(self) -> None:
        for version in (
            b"HTTP/2.0",
            b"HTTP/1.2",
            b"HTTP/0.9",
            b"http/1.1",
            b"HTTP/1.1 ",
            b"HTTP/1.10",
            b"HTTP/11",
            b"",
        ):
            self.assertRefused(b"GET / " + version)

    def test_there_is_one_space_between_them(self) -> None:
        for line in (
            b"GET",
            b"GET /",
            b"GET  / HTTP/1.1",
            b"GET /  HTTP/1.1",
            b" GET / HTTP/1.1",
            b"GET / a HTTP/1.1",
        ):
            self.assertRefused(line)
            self.assertFalse(is_start(line))
        self.assertTrue(is_start(b"GET / HTTP/1.1"))


class FieldTests(HeadCase):
    """The header fields (section 5)."""

    def test_names_differ_by_case_no_more_than_values_by_the_space_around_them(self) -> None:
        for line in (b"X-a: b", b"x-A:b", b"X-A: \t b \t ", b"x-a:\tb"):
            self.assertField(line, b"x-a", b"b")
        self.assertField(b"X:", b"x", b"")
        self.assertField(b"X: a: b\tc \xff", b"x", b"a: b\tc \xff")

    def test_a_name_that_is_there_twice_has_two_values(self) -> None:
        fields = parse_head(head(b"A: 1", b"B: 2", b"a: 3")).fields
        self.assertEqual(list(fields.getAllRawHeaders()), [(b"A", [b"1", b"3"]), (b"B", [b"2"])])

    def test_a_name_is_a_token_and_has_no_space_before_the_colon(self) -> None:
        for line in (
            b"Host : a",
            b"Host\t: a",
            b": a",
            b"a b: c",
            b"a\x00: b",
            b"\xc3\xbc: a",
            b"(a): b",
            b'"a": b',
        ):
            self.assertRefused(head(line))

    def test_a_line_has_a_colon(self) -> None:
        for line in (b"Host", b"GET / HTTP/1.1"):
            self.assertRefused(head(line))
            self.assertRefused(head(b"A: b", line, b"C: d"))
        self.assertRefused(head(b"A: b", b"", b"C: d"))

    def test_a_value_has_neither_nul_nor_half_a_line_end(self) -> None:
        for value in (b"a\x00b", b"a\rb", b"a\nb", b"\n", b"a\r", b"a\r\r", b"a\nB: c", b"a\n b", b"a\r b"):
            self.assertRefused(head(b"A: " + value))
            self.assertRefused(head(b"A: " + value, b"C: d"))

    def test_a_folded_value_is_refused(self) -> None:
        """Section 5.2: it means two things to two readers."""
        for fold in (b"\r\n ", b"\r\n\t", b"\r\n \t  ", b"\r\n \r\n\t"):
            for rest in (b"C: d", b"c", b"", b":", b"Transfer-Encoding: chunked"):
                self.assertRefused(head(b"A: b" + fold + rest, b"E: f"))
                self.assertRefused(head(b"A: b" + fold + rest))
        self.assertRefused(head(b" A: b"))
        self.assertRefused(head(b"\tA: b", b"C: d"))
        self.assertRefused(head(b"A", b" B: c"))

    def test_there_may_be_so_many(self) -> None:
        self.assertEqual(
            len(parse_head(head(*[b"A: b"] * MAX_FIELDS)).fields.getRawHeaders(b"a") or ()), MAX_FIELDS
        )
        self.assertRefused(head(*[b"A: b"] * (MAX_FIELDS + 1)))


class LengthTests(HeadCase):
    """How long the body is (section 6)."""

    def assertLength(self, length: int | None, *lines: bytes) -> None:
        self.assertEqual(parse_head(head(*lines)).length, length)

    def test_there_is_no_body_unless_a_field_says_so(self) -> None:
        self.assertLength(0)
        self.assertLength(0, b"Content-Type: a")

    def test_content_length_is_a_number(self) -> None:
        for text, length in ((b"0", 0), (b"5", 5), (b"007", 7), (b"9" * 18, 10**18 - 1)):
            self.assertLength(length, b"Content-Length: " + text)
        for text in (
            b"",
            b"-1",
            b"+5",
            b"0x5",
            b"5, 5",
            b"5,5",
            b"5 5",
            b"1_0",
            b"5.0",
            b"5e0",
            b"\xb2",
            b"9" * 19,
            b"9" * 9999,
        ):
            self.assertRefused(head(b"Content-Length: " + text))

    def test_chunked_is_the_only_coding(self) -> None:
        self.assertLength(None, b"Transfer-Encoding: chunked")
        self.assertLength(None, b"transfer-encoding:CHUNKED ")
        for coding in (
            b"",
            b"gzip",
            b"identity",
            b"gzip, chunked",
            b"chunked, chunked",
            b"chunked;a",
            b"xchunked",
            b"\x0bchunked",
        ):
            self.assertRefused(head(b"Transfer-Encoding: " + coding))

    def test_http_1_0_has_no_chunks(self) -> None:
        self.assertRefused(head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0"))

    def test_the_length_is_said_once(self) -> None:
        length, coding = b"Content-Length: 5", b"Transfer-Encoding: chunked"
        for lines in (
            (length, coding),
            (coding, length),
            (length, length),
            (length, b"content-length: 6"),
            (coding, coding),
            (coding, b"transfer-encoding: identity"),
            (b"Content-Length: 0", coding),
        ):
            self.assertRefused(head(*lines))
            self.assertRefused(head(lines[0], b"A: b", lines[1]))


class ConnectionTests(HeadCase):
    """What becomes of the connection (section 9.6), and ``Expect``."""

    def test_close_is_a_token_of_any_connection_field(self) -> None:
        for value in (b"close", b"TE, Close", b"te close", b"CLOSE,"):
            self.assertTrue(parse_head(head(b"Connection: " + value)).closes, value)
            self.assertTrue(parse_head(head(b"Connection: a", b"connection: " + value)).closes, value)
        for value in (b"", b"keep-alive", b"closed", b"x-close"):
            self.assertFalse(parse_head(head(b"Connection: " + value)).closes, value)
        self.assertFalse(parse_head(head()).closes)
        self.assertTrue(parse_head(head(b"Connection: keep-alive", start=b"GET / HTTP/1.0")).closes)

    def test_to_be_asked_is_expected_over_http_1_1(self) -> None:
        self.assertTrue(parse_head(head(b"Expect: 100-Continue")).expects_continue)
        self.assertFalse(parse_head(head(b"Expect: 200-ok")).expects_continue)
        self.assertFalse(parse_head(head()).expects_continue)
        self.assertFalse(parse_head(head(b"Expect: 100-continue", start=b"GET / HTTP/1.0")).expects_continue)


# ---- the same bytes to twisted.web's own connection and to pushd's


Taken = tuple[bytes, bytes, bytes, list[tuple[bytes, Sequence[bytes]]], bytes]


class Transport(StringTransport):
    def setTcpNoDelay(self, enabled: object) -> None:
        """Do nothing."""


def note(taken: list[Taken], request: Any, line: tuple[bytes, bytes, bytes]) -> None:
    """Record a complete request, and answer it."""
    request.content.seek(0)
    fields: Headers = request.requestHeaders
    taken.append((*line, list(fields.getAllRawHeaders()), request.content.read()))
    request.method, request.clientproto = b"GET", b"HTTP/1.1"
    request.setHeader(b"content-length", b"0")
    Request.finish(request)


def unwanted(delay_s: float, call: Callable[[], None]) -> None:
    """Fail: no request has to wait for the reactor while no time passes."""
    raise AssertionError("a request waits")


def taken_by(is_pushd: bool, segments: list[bytes]) -> list[Taken]:
    """Answer the requests that a connection takes from what comes in `segments`."""
    taken: list[Taken] = []

    class Noting(PushdRequest if is_pushd else Request):  # type: ignore[misc]
        def __init__(self, channel: Any, queued: object = None) -> None:
            Request.__init__(self, channel)

        def gotLength(self, length: int | None) -> None:
            self.content = BytesIO()

        def expect(self, *head: Any) -> None:
            self._most_bytes = 1 << 20
            decided: Callable[[None], None] = head[-1]
            decided(None)

        def write(self, data: bytes) -> None:
            Request.write(self, data)

        def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
            note(taken, self, (command, path, version))

    channel: Any = HTTP1(1 << 20, PATIENCE, TimerWheel(lambda: 0.0)) if is_pushd else HTTPChannel()
    log = RequestLog(False, lambda peer: False, lambda: 0.0)
    channel.site = SimpleNamespace(
        request_log=log,
        is_proxy=lambda peer: False,
        counters=Counters(),
        comeback=EventSourceRetry(lambda: 0.0),
        turns=Turns(unwanted, Turn(lambda: 0.0)),
    )
    channel.requestFactory = Noting
    channel.timeOut = None
    transport = Transport()
    channel.makeConnection(transport)
    for segment in segments:
        if not transport.disconnecting:
            channel.dataReceived(segment)
    return taken


REQUESTS = (
    b"GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\n\r\n",
    b"\r\nGET /b?c HTTP/1.1\r\nHost: a\r\nX: y z\r\n\r\n",
    b"POST /d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /e HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nA: b\r\n\r\n",
    b"GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"POST /g HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi",
)
PIECES = (
    CRLF, b"\n", b"\r", b"\x00", b" ", b"\t", b":", b",", b"0", b"5", b"f", b"a", b"\xff", b"\r\n\r\n", b"\r\n ",
    b"GET / HTTP/1.1\r\n", b"Host: b\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Connection: close\r\n", b"0\r\n\r\n",
    b"HTTP/1.0",
)  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Make what a client may send: requests, with here and there something put in, taken away or exchanged."""
    data = b"".join(draw(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        piece = draw(st.sampled_from(PIECES))
        gone = draw(st.sampled_from((0, 0, 1, 2, len(piece))))
        data = data[:place] + piece + data[place + gone :]
    return data


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut `data` at `places`."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


class SameTests(SynchronousTestCase):
    @examples(1000)
    @given(streams())
    @example(b"".join(REQUESTS))
    def test_what_is_taken_is_what_twisted_web_takes_and_no_more(self, data: bytes) -> None:
        ours, theirs = taken_by(True, [data]), taken_by(False, [data])
        self.assertEqual(ours, theirs[: len(ours)])

    @given(st.lists(st.sampled_from(REQUESTS[:4]), max_size=4), st.lists(st.integers(0, 1000)))
    def test_of_what_is_well_formed_everything_is_taken_however_it_comes(
        self, requests: list[bytes], places: list[int]
    ) -> None:
        data = b"".join(requests)
        theirs = taken_by(False, [data])
        self.assertEqual(len(theirs), len(requests))
        self.assertEqual(taken_by(True, cut(data, places)), theirs)

    @examples(300)
    @given(streams(), st.lists(st.integers(0, 1000)))
    def test_where_it_is_cut_makes_no_difference(self, data: bytes, places: list[int]) -> None:
        self.assertEqual(taken_by(True, cut(data, places)), taken_by(True, [data]))
