"""Promises: responses that nobody asked for (RFC 9113, section 8.4)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, PushPromiseFrame, SettingsFrame

from pushd.server.http2.errors import Code
from pushd.server.http2.promises import MAX_PROMISED, Answer, Outcome
from pushd.server.http2.stream import Stream
from tests.rigs.http2_peer import HTTP2TestCase, Peer

ANSWER = Answer([(b"content-type", b"text/plain")], b"event")


class PromiseTestCase(HTTP2TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.told: list[tuple[int, Outcome]] = []

    def parent(
        self, peer: Peer | None = None, stream_id: int = 1, *, fields: Iterable[tuple[str, str]] = ()
    ) -> Stream:
        """Open a stream that waits for its response."""
        peer = peer or self.peer
        peer.get(stream_id, "/open", fields=fields)
        return peer.connection.streams[stream_id]

    def promise(self, parent: Stream, count: int = 1, answer: Answer | None = ANSWER) -> list[bool]:
        """Promise several, which are told of by their numbers."""
        begin = getattr(self, "_next", 0)
        self._next = begin + count
        return [
            parent.promise(b"/echo/%d" % n, partial(self._tell, n), answer) for n in range(begin, begin + count)
        ]

    def _tell(self, number: int, outcome: Outcome) -> None:
        self.told.append((number, outcome))

    def promised(self, peer: Peer | None = None) -> list[Any]:
        """Return the promises that the client has seen."""
        return (peer or self.peer).all_frames(PushPromiseFrame)


class PromiseTests(PromiseTestCase):
    def test_a_promise_of_a_page_is_answered_by_the_site(self) -> None:
        parent = self.parent()
        self.assertEqual(self.promise(parent, answer=None), [True])
        (frame,) = self.promised()
        self.assertEqual((frame.stream_id, frame.promised_stream_id), (1, 2))
        wanted = {":method": "GET", ":scheme": "http", ":authority": "localhost", ":path": "/echo/0"}
        self.assertEqual(frame.fields, wanted)
        self.assert_answers(2)
        self.assertEqual(self.peer.body(2), b"GET /echo/0")
        self.assertEqual(self.told, [(0, Outcome.FINISHED)])

    def test_a_response_can_be_given(self) -> None:
        self.promise(self.parent())
        self.assertEqual(self.peer.fields(2), {":status": "200", "content-type": "text/plain"})
        self.assertEqual(self.peer.body(2), b"event")
        self.assert_answers(2)

    def test_a_response_may_be_empty(self) -> None:
        self.promise(self.parent(), answer=Answer([], b""))
        self.assert_answers(2)

    def test_a_promise_comes_before_what_refers_to_it(self) -> None:
        parent = self.parent()
        self.pages.open.requests[0].write(b"see /echo/0")
        self.promise(parent)
        kinds = [(type(f), f.stream_id) for f in self.peer.frames() if f.stream_id]
        self.assertEqual(kinds[0], (PushPromiseFrame, 1))
        self.assertLess(kinds.index((PushPromiseFrame, 1)), kinds.index((DataFrame, 1)))

    def test_it_copies_the_fields_that_a_response_depends_on_and_no_others(self) -> None:
        copied = [("accept-encoding", "gzip"), ("user-agent", "x"), ("authorization", "y")]
        others = [
            ("range", "bytes=0-1"),
            ("if-none-match", '"1"'),
            ("referer", "z"),
            ("origin", "https://localhost"),
        ]
        parent = self.parent(fields=[*copied, ("cookie", "a=1"), ("cookie", "b=2"), *others])
        self.peer.get(3, "/headers")
        parent.promise(b"/headers", lambda outcome: None)
        (frame,) = self.promised()
        fields = {name: value for name, value in frame.fields.items() if name[0] != ":"}
        self.assertEqual(fields, dict([*copied, ("cookie", "a=1; b=2")]))
        for name in "accept-encoding", "cookie", "host":
            self.assertIn(name.encode(), self.peer.body(2))
        self.assertNotIn(b"referer", self.peer.body(2))

    def test_a_given_response_depends_on_none_of_them(self) -> None:
        self.promise(self.parent(fields=[("cookie", "a=1")]))
        self.assertNotIn("cookie", self.promised()[0].fields)

    def test_a_page_that_fails_is_told(self) -> None:
        parent = self.parent()
        parent.promise(b"/open", partial(self._tell, 0))
        self.peer.turn()
        self.pages.open.requests[1].loseConnection()
        self.assertEqual(self.told, [(0, Outcome.LOST)])
        self.assert_reset(2, Code.INTERNAL_ERROR)

    def test_a_parent_that_has_a_body_to_come_yet(self) -> None:
        self.peer.post(1, b"part", end=False)
        self.assertEqual(self.promise(self.peer.connection.streams[1]), [True])
        self.assert_answers(2)

    def test_a_pushed_response_waits_for_its_window(self) -> None:
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 2})
        self.promise(self.parent(peer))
        self.assertEqual(peer.body(2), b"ev")
        self.assertEqual(self.told, [])
        peer.open_window(2, 100)
        self.assertEqual(peer.body(2), b"event")
        self.assertEqual(self.told, [(0, Outcome.FINISHED)])

    def test_its_priority_can_be_changed(self) -> None:
        peer = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 2})
        self.promise(self.parent(peer))
        peer.send(b"\0\0\7\x10\0\0\0\0\0\0\0\0\2u=0")
        self.assertEqual(peer.connection.streams[2].urgency, 0)


class NoPromiseTests(PromiseTestCase):
    def test_not_to_a_client_that_does_not_take_pushes(self) -> None:
        peer = self.new_peer().begin({SettingsFrame.ENABLE_PUSH: 0})
        parent = self.parent(peer)
        self.assertFalse(parent.takes_promises)
        self.assertEqual(self.promise(parent), [False])
        self.assertEqual(self.promised(peer), [])
        peer.send(SettingsFrame(0, settings={SettingsFrame.ENABLE_PUSH: 1}))
        self.assertEqual(self.promise(parent), [True])

    def test_not_on_a_pushed_stream(self) -> None:
        self.parent().promise(b"/open", lambda outcome: None)
        self.peer.turn()
        self.assertEqual(self.promise(self.peer.connection.streams[2]), [False])

    def test_not_on_a_stream_that_has_ended(self) -> None:
        for end in (
            lambda: self.peer.reset(1),
            lambda: self.pages.open.requests[-1].finish(),
            lambda: self.peer.connection.streams[5].abort(),
        ):
            stream_id = 1 + 2 * len(self.pages.open.requests)
            parent = self.parent(stream_id=stream_id)
            end()
            self.peer.turn()
            self.assertEqual((parent.takes_promises, self.promise(parent)), (False, [False]))
        self.assert_alive()

    def test_not_while_the_transport_takes_nothing(self) -> None:
        parent = self.parent()
        self.peer.connection.pauseProducing()
        self.assertTrue(parent.takes_promises)
        self.assertEqual(self.promise(parent), [False])
        self.peer.connection.resumeProducing()
        self.assertEqual(self.promise(parent), [True])

    def test_not_when_the_connection_is_about_to_end(self) -> None:
        for end in lambda peer: peer.send(GoAwayFrame(0)), lambda peer: peer.connection.finish():
            peer = self.new_peer().begin()
            parent = self.parent(peer)
            end(peer)
            self.assertEqual(self.promise(parent), [False])

    def test_not_without_an_authority(self) -> None:
        self.peer.send(self.peer.block(1, [(":method", "GET"), (":scheme", "https"), (":path", "/open")]))
        self.assertEqual(self.promise(self.peer.connection.streams[1]), [False])


class BoundTests(PromiseTestCase):
    """Promises whose responses are not sent yet are counted."""

    def stalled(self, settings: dict[int, int] | None = None) -> Stream:
        """Open a stream on a connection whose responses cannot be sent."""
        self.other = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 0, **(settings or {})})
        return self.parent(self.other)

    def test_there_are_never_more_than_100(self) -> None:
        parent = self.stalled()
        self.assertEqual(sum(self.promise(parent, 150)), MAX_PROMISED)
        self.assertEqual(len(self.promised(self.other)), MAX_PROMISED)
        self.other.open_window(2, 100)
        self.assertEqual(sum(self.promise(parent, 10)), 1)

    def test_there_are_never_more_than_the_client_allows(self) -> None:
        """Less its own requests, which Node counts too."""
        for allowed, made in (0, 0), (1, 1), (2, 1), (10, 9):
            parent = self.stalled({SettingsFrame.MAX_CONCURRENT_STREAMS: allowed})
            self.assertEqual(sum(self.promise(parent, 20)), made)

    def test_pushes_do_not_count_as_requests(self) -> None:
        parent = self.stalled()
        self.promise(parent, 100)
        self.other.send(*(self.other.headers(n, "/open") for n in range(3, 501, 2)))
        self.assertEqual(len(self.other.connection.streams), 350)

    def test_who_waits_is_called_once_there_is_room(self) -> None:
        parent = self.stalled()
        calls: list[str] = []
        self.promise(parent, 100)
        parent.promises.wait(lambda: calls.append("first"))
        gone = lambda: calls.append("gone")  # noqa: E731
        parent.promises.wait(gone)
        parent.promises.stop_waiting(gone)
        self.other.turn()
        self.assertEqual(calls, [])
        for stream_id in 2, 4:
            self.other.reset(stream_id)
        self.assertEqual(calls, ["first"])


class OutcomeTests(PromiseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stalled = self.new_peer().begin({SettingsFrame.INITIAL_WINDOW_SIZE: 0})

    def test_a_push_that_is_refused_or_not_wanted(self) -> None:
        self.promise(self.parent(self.stalled), 4)
        codes = Code.REFUSED_STREAM, Code.CANCEL, Code.ENHANCE_YOUR_CALM, Code.NO_ERROR
        for number, code in enumerate(codes):
            self.stalled.reset(2 + 2 * number, code)
        outcomes = [outcome for _, outcome in self.told]
        self.assertEqual(outcomes, [Outcome.REFUSED, Outcome.CANCELLED, Outcome.REFUSED, Outcome.CANCELLED])
        self.assert_alive(self.stalled)

    def test_a_push_that_is_refused_after_its_end(self) -> None:
        self.promise(self.parent())
        self.peer.turn()
        self.peer.reset(2, Code.REFUSED_STREAM)
        self.peer.reset(2, Code.REFUSED_STREAM)
        self.assertEqual(self.told, [(0, Outcome.FINISHED), (0, Outcome.REFUSED)])
        self.assert_alive()

    def test_a_connection_that_ends(self) -> None:
        self.promise(self.parent(self.stalled), 2)
        self.stalled.lose()
        self.assertEqual(self.told, [(0, Outcome.LOST), (1, Outcome.LOST)])

    def test_a_push_that_the_client_takes_nothing_of(self) -> None:
        self.promise(self.parent(self.stalled))
        self.stalled.pass_time(40)
        self.assertEqual(self.told, [(0, Outcome.LOST)])

    def test_refusals_never_count_as_abuse(self) -> None:
        parent = self.parent()
        for at in range(1, 3001, 50):
            self.promise(parent, 50)
            self.peer.turn()
            for number in range(at, at + 50):
                self.peer.reset(2 * number, Code.REFUSED_STREAM if number % 2 else Code.CANCEL)
        self.assertEqual(sum(outcome is Outcome.REFUSED for _, outcome in self.told), 1500)
        self.assert_alive()

    def test_refusals_of_the_same_push_do(self) -> None:
        self.promise(self.parent(), 1)
        self.peer.turn()
        for _ in range(1100):
            self.peer.reset(2, Code.CANCEL)
        self.assert_ended(Code.ENHANCE_YOUR_CALM)


class ReservedTests(PromiseTestCase):
    """What a client may send on a stream that the server began: RST_STREAM, PRIORITY and WINDOW_UPDATE."""

    def test_headers(self) -> None:
        self.promise(self.parent())
        self.peer.turn()
        self.peer.get(2)
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_data(self) -> None:
        self.parent().promise(b"/open", lambda outcome: None)
        self.peer.data(2, b"x")
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_a_reset_of_what_was_not_promised(self) -> None:
        self.peer.reset(2)
        self.assert_ended(Code.PROTOCOL_ERROR)

    def test_no_informational_response(self) -> None:
        self.parent().promise(b"/open", lambda outcome: None)
        self.peer.turn()
        self.peer.connection.streams[2].inform(b"103", [(b"link", [b"</x>"])])
        self.assertEqual(self.peer.all_frames(HeadersFrame, 2), [])
        self.assert_alive()
