"""The bodies of requests: which are read at all, and how much of them is held, over every version of HTTP."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from pushd.bus.grants import Identity
from pushd.daemon.integrations import Integrations
from tests.rigs.connection import Connection
from tests.rigs.daemon import DaemonRig, DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient, Response
from tests.rigs.outsiders import Registry, a_user
from tests.rigs.websocket_client import WebSocketClient

MIB = 2**20
OPEN = "[site]\ndemo = no\n[auth]\nanonymous = subscribe\nanonymous_publish = open/**\norigins = https://page.example\n"
STRANGER = "198.51.100.7"

Fields = list[tuple[str, str]]


class Sender:
    """A request whose body comes in pieces."""

    response: Callable[[], Response | None]
    more: Callable[[bytes], None]
    finish: Callable[[bytes], None]
    connection: Connection


class Sender1(Sender):
    """The same over HTTP/1.1."""

    def __init__(self, rig: DaemonRig, method: str, target: str, length: int | None, fields: Fields) -> None:
        self.client = HttpClient(rig)
        self.connection = self.client.connection
        size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", size, *(f"{name}: {it}" for name, it in fields)]
        self.is_chunked = length is None
        self.client.send_raw(method, ("\r\n".join(lines) + "\r\n\r\n").encode())

    def more(self, data: bytes) -> None:
        """Send a part of the body."""
        self.connection.send(b"%x\r\n%b\r\n" % (len(data), data) if self.is_chunked else data)

    def finish(self, data: bytes) -> None:
        """Send the rest of a body with a length."""
        self.connection.send(data)

    def response(self) -> Response | None:
        """What the final answer is, if it has come."""
        answers = [one for one in self.client.responses if one.status != 100]
        return answers[0] if answers else None

    @property
    def was_asked(self) -> bool:
        """Whether the body was asked for."""
        return b"100 Continue" in self.connection.received


class Sender2(Sender):
    """The same over HTTP/2."""

    def __init__(self, rig: DaemonRig, method: str, target: str, length: int | None, fields: Fields) -> None:
        self.client = Http2Client(rig)
        self.connection = self.client.connection
        pseudo = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", target)]
        size = [] if length is None else [("content-length", str(length))]
        self.id = self.client.h2.get_next_available_stream_id()
        self.client.h2.send_headers(self.id, [*pseudo, *size, *((name.lower(), it) for name, it in fields)])
        self.client.flush()

    def more(self, data: bytes) -> None:
        """Send a part of the body, as far as the window goes."""
        self.client.responses  # noqa: B018  reads what has come
        while data and (room := self.client.h2.local_flow_control_window(self.id)) > 0:
            size = min(room, 16384)
            self.client.h2.send_data(self.id, data[:size])
            self.client.flush()
            data = data[size:]

    def finish(self, data: bytes) -> None:
        """Send the rest of the body, and end the stream."""
        self.client.h2.send_data(self.id, data, end_stream=True)
        self.client.flush()

    def response(self) -> Response | None:
        """What the final answer is, if it has come."""
        answers = self.client.responses
        return answers[0] if answers else None

    @property
    def was_asked(self) -> bool:
        """Whether the body was asked for."""
        self.client.responses  # noqa: B018
        return any(100 in interim for interim in self.client._interim.values())


class HeadRules(DaemonTests):
    """What is decided from the head of a request."""

    sender: type[Sender1] | type[Sender2] = Sender1
    config = f"{OPEN}[limits]\nevent_size = 1MiB\nbatch_size = 4MiB\n"

    def setUp(self) -> None:
        """Know a user."""
        self.world = Integrations(Registry({"a": a_user("ada")}))
        super().setUp()

    def begin(
        self, method: str, target: str, length: int | None = 1000, *fields: tuple[str, str]
    ) -> Sender1 | Sender2:
        """Send the head of a request."""
        one = self.sender(self.rig, method, target, length, list(fields))
        self.rig.turn()
        return one

    def answer(self, sender: Sender1 | Sender2) -> Response:
        """It is answered already."""
        response = sender.response()
        assert response is not None, "it waits for the body"
        return response

    def test_what_cannot_be_served_is_refused_before_its_body(self) -> None:
        for expect in ((), (("Expect", "100-continue"),)):
            for method, target, status in (
                ("POST", "/nowhere", 404),
                ("POST", "/channels/open%2Fa//nothing", 400),
                ("PUT", "/channels/open%2Fa", 405),
                ("POST", "/sse?channel=a", 405),
                ("POST", "/channels/closed", 401),
                ("POST", "/channels/open%2Fa?unknown=1", 400),
                ("DELETE", "/publish", 405),
            ):
                with self.subTest(f"{method} {target} {expect}"):
                    one = self.begin(method, target, 1000, *expect)
                    self.assertEqual(self.answer(one).status, status)
                    self.assertFalse(one.was_asked)
                    self.assertEqual(self.answer(one).header("content-type"), "application/problem+json")
                    self.assertEqual(self.rig.parts.ingress.bodies.used, 0)

    def test_by_its_token_or_its_page(self) -> None:
        for fields, status in (
            ([("Authorization", "Bearer forged")], 401),
            ([("Origin", "https://elsewhere.example")], 403),
        ):
            self.assertEqual(self.answer(self.begin("POST", "/channels/open%2Fa", 10, *fields)).status, status)
        refused = self.answer(self.begin("POST", "/channels/closed", 10, ("Origin", "https://page.example")))
        self.assertEqual(refused.header("access-control-allow-origin"), "https://page.example")
        self.assertEqual(refused.header("www-authenticate"), 'Bearer realm="pushd"')

    def test_who_may_publish_nowhere_sends_no_batch(self) -> None:
        self.start("[auth]\nanonymous = subscribe\n")
        self.assertEqual(self.answer(self.begin("POST", "/publish")).status, 401)

    def test_by_what_its_route_takes(self) -> None:
        for method, target, most in (
            ("POST", "/channels/open%2Fa", MIB),
            ("POST", "/publish", 4 * MIB),
            ("GET", "/channels", 16 * 1024),
            ("DELETE", "/channels/open%2Fa", 16 * 1024),
        ):
            with self.subTest(target):
                expect = ("Expect", "100-continue")
                one = self.begin(method, target, most, expect)
                self.assertIsNone(one.response())
                self.assertTrue(one.was_asked)
                too_large = self.begin(method, target, most + 1, expect)
                self.assertEqual(self.answer(too_large).status, 413)
                self.assertFalse(too_large.was_asked)
                unknown = self.begin(method, target, None)
                for _ in range(most // 60_000 + 1):
                    self.assertIsNone(unknown.response())
                    unknown.more(b"x" * 60_000)
                    self.rig.turn()
                self.assertEqual(self.answer(unknown).status, 413)

    def test_a_body_that_comes_later_is_published_once(self) -> None:
        one = self.begin("POST", "/channels/open%2Fa", 10, ("Origin", "https://page.example"))
        one.more(b"01234")
        self.assertEqual(self.rig.parts.ingress.bodies.used, 5)
        one.finish(b"56789")
        self.rig.turn()
        self.assertEqual(self.answer(one).status, 201)
        self.assertEqual(self.answer(one).all("vary"), ["origin"])
        self.assertEqual(self.rig.get("/channels/open%2Fa/events").json["events"][0]["data"], "0123456789")
        self.assertEqual(self.rig.parts.ingress.bodies.used, 0)

    def test_rights_that_end_while_a_body_comes_have_ended(self) -> None:
        one = self.begin("POST", "/channels/open%2Fa", 10)
        one.more(b"01234")
        self.rig.reload(self.config.replace("anonymous_publish = open/**\n", ""))
        one.finish(b"56789")
        self.rig.turn()
        self.assertEqual(self.answer(one).status, 401)

    def test_a_token_that_is_looked_up_delays_the_decision(self) -> None:
        waiting: Deferred[Identity] = Deferred()
        registry = Registry()
        registry.identify = lambda token: waiting  # type: ignore[method-assign,assignment,return-value]
        self.world = Integrations(registry)
        self.start(self.config)
        fields = ("Authorization", "Bearer later"), ("Expect", "100-continue")
        one = self.begin("POST", "/channels/closed", 10, *fields)
        self.assertIsNone(one.response())
        self.assertFalse(one.was_asked)
        waiting.callback(Identity(self.rig.parts.ingress.guard.anonymous.grants))
        self.rig.turn()
        self.assertEqual(self.answer(one).status, 401)
        self.assertFalse(one.was_asked)


class HeadOverHttp2Tests(HeadRules):
    """The same over HTTP/2."""

    sender = Sender2


class KeptConnectionTests(DaemonTests):
    """HTTP/1.1 goes on behind a short body that was refused by its head."""

    config = OPEN

    def test_it_does(self) -> None:
        one = Sender1(self.rig, "POST", "/nowhere", 10, [])
        self.rig.turn()
        one.more(b"0123456789")
        one.client.send("GET", "/channels")
        self.rig.turn()
        self.assertEqual([answer.status for answer in one.client.responses], [404, 200])
        self.assertEqual(self.rig.traces.alarms, 1)

    def test_a_long_one_ends_it(self) -> None:
        one = Sender1(self.rig, "POST", "/nowhere", 100_000, [])
        self.rig.turn()
        assert one.response() is not None
        self.assertEqual(one.client.response.header("connection"), "close")

    def test_a_body_that_does_not_come_ends_it_after_a_while(self) -> None:
        one = Sender1(self.rig, "POST", "/nowhere", 10, [])
        self.rig.wait(70)
        self.assertFalse(one.connection.is_open)
        self.assertEqual(len(one.client.responses), 1)


class HeldRules(DaemonTests):
    """How much is held."""

    sender: type[Sender1] | type[Sender2] = Sender1
    config = f"{OPEN}[limits]\nevent_size = 1MiB\nbatch_size = 1MiB\nbodies = 10MiB\n"

    def begin(self, address: str, size: int, length: int = MIB) -> Sender1 | Sender2:
        """Send a part of a body from an address."""
        self.rig.comes_from = address
        one = self.sender(self.rig, "POST", "/channels/open%2Fa", length, [])
        for _ in range(size // 30_000):
            one.more(b"x" * 30_000)
            self.rig.turn()
        one.more(b"x" * (size % 30_000))
        self.rig.turn()
        return one

    def test_one_address_holds_its_share_and_others_hold_theirs(self) -> None:
        first = self.begin(STRANGER, 900_000)
        second = self.begin(STRANGER, 400_000)
        refused = second.response()
        assert refused is not None
        self.assertEqual((refused.status, refused.header("retry-after")), (429, "10"))
        self.assertIn("[limits] bodies", refused.json["detail"])
        self.assertIsNone(first.response())
        self.assertIsNone(self.begin("203.0.113.9", 900_000).response())
        first.connection.disconnect()
        self.rig.turn()
        self.assertIsNone(self.begin(STRANGER, 900_000).response())

    def test_all_together_hold_no_more_than_there_may_be_and_short_ones_pass(self) -> None:
        many = [self.begin(f"203.0.113.{number}", 1_000_000) for number in range(1, 20)]
        self.assertLessEqual(self.rig.parts.ingress.bodies.used, 10 * MIB * 9 // 8)
        refused = [one.response() for one in many]
        statuses = [one.status for one in refused if one is not None]
        self.assertEqual((len(statuses), set(statuses)), (9, {503}))
        self.rig.comes_from = STRANGER
        short = self.begin(STRANGER, 999, length=1000)
        self.assertIsNone(short.response())
        if isinstance(short, Sender1):
            short.more(b"x")
            self.rig.turn()
            self.assertEqual(short.client.response.status, 201)
        for one in [*many, short]:
            one.connection.disconnect()
        self.rig.turn()
        self.assertEqual(self.rig.parts.ingress.bodies.used, 0)

    def test_a_body_that_is_too_slow_is_let_go(self) -> None:
        one = self.begin(STRANGER, 1000)
        self.rig.wait(70)
        answer = one.response()
        assert answer is not None
        self.assertEqual(answer.status, 408)
        self.assertEqual(self.rig.parts.ingress.bodies.used, 0)


class HeldOverHttp2Tests(HeldRules):
    """The same over HTTP/2."""

    sender = Sender2


class HeldBatchTests(DaemonTests):
    """A batch is held as long as it is being published."""

    config = f"{OPEN}[limits]\nbatch_size = 1MiB\n"

    def test_it_is(self) -> None:
        line = b'{"channel":"open/a","data":"x"}\n'
        size = 2000 * len(line)
        one = Sender1(self.rig, "POST", "/publish", size, [])
        one.more(line * 1999)
        one.more(line)
        self.assertEqual(one.client.responses, [])
        self.assertEqual(self.rig.parts.ingress.bodies.used, size)
        for _ in range(10):
            self.rig.turn()
        self.assertEqual(self.rig.parts.ingress.bodies.used, 0)


class MessageTests(DaemonTests):
    """Messages of WebSockets that come in parts."""

    config = f"{OPEN}[limits]\nevent_size = 1MiB\nbatch_size = 1MiB\nbodies = 10MiB\n"

    def test_they_count_and_one_too_many_ends_its_connection(self) -> None:
        self.rig.comes_from = STRANGER
        held = self.rig.parts.ingress.bodies
        head = b"\x81\xff" + (1_000_000).to_bytes(8) + bytes(4)
        one, other = (WebSocketClient(self.rig, "/ws") for _ in range(2))
        self.rig.turn()
        one.connection.send(head + b"x" * 900_000)
        self.rig.turn()
        self.assertEqual(held.used, 900_000)
        other.connection.send(head + b"x" * 400_000)
        self.rig.turn()
        self.assertEqual(held.used, 900_000)
        self.assertFalse(other.is_open)
        assert other.close is not None
        self.assertEqual(other.close[0], 1013)
        one.connection.send(b"x" * 100_000)
        self.rig.turn()
        self.assertEqual(held.used, 0)
        one.connection.send(head + b"x" * 1000)
        one.connection.disconnect()
        self.rig.turn()
        self.assertEqual(held.used, 0)
