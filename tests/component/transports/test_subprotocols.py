"""Subprotocols of WebSocket: ``pushd.v1`` is selected, and ``pushd.token.TOKEN`` is the token of the client."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from pushd import __version__
from pushd.daemon.integrations import Integrations
from tests.rigs.daemon import DaemonTests
from tests.rigs.http_client import HttpClient, Response
from tests.rigs.tunnel_client import StreamConnection, TunnelClient, WebSocketOverHttp2
from tests.rigs.vouching import FakeTokens, identity, logged
from tests.rigs.websocket_client import WebSocketClient, WebSocketTalk
from tests.rigs.websocket_frames import HANDSHAKE

CONFIG = """
[site]
demo = no
[auth]
anonymous =
anonymous_subscribe = public
cookie = session
origins = https://a.example
[log]
requests = yes
"""
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl-_"
OFFER = ("pushd.v1", f"pushd.token.{TOKEN}")

Fields = Iterable[tuple[str, str]]


class SubprotocolTests(DaemonTests):
    """Over HTTP/1.1."""

    config = CONFIG

    def start(self, config: str = "") -> None:
        """Override: with one known token, that of ann."""
        self.tokens = FakeTokens(
            **{TOKEN: identity(publish=("secret",), subscribe=("secret", "public"), user="ann")}
        )
        self.world = Integrations(self.tokens)
        super().start(config)

    def connect(self, target: str, subprotocols: Sequence[str], fields: Fields = ()) -> WebSocketTalk:
        """Ask for a WebSocket."""
        return WebSocketClient(self.rig, target, subprotocols=subprotocols, fields=fields)

    def answer(self, fields: Fields, target: str = "/ws") -> Response:
        """Return the response to a handshake with these further fields, as they are."""
        client = HttpClient(self.rig)
        client.send("GET", target, headers=[*HANDSHAKE.items(), *fields])
        self.rig.turn()
        return client.response

    accepted = 101

    def offer(self, *values: str, target: str = "/ws") -> Response:
        """Return the response to an offer of subprotocols, a header line for each of `values`."""
        return self.answer([("Sec-WebSocket-Protocol", value) for value in values], target)

    def assert_selects(self, selected: str | None, *values: str, target: str = "/ws") -> None:
        """The handshake is accepted, with this subprotocol."""
        response = self.offer(*values, target=target)
        self.assertEqual((response.status, response.header("sec-websocket-protocol")), (self.accepted, selected))

    def test_pushd_v1_is_selected_wherever_it_is_in_the_offer(self) -> None:
        for values in (
            ("pushd.v1",),
            (f"pushd.v1, pushd.token.{TOKEN}",),
            (f"pushd.token.{TOKEN},pushd.v1",),
            ("chat, pushd.v1 , superchat",),
            ("chat", "pushd.v1"),
            (" , pushd.v1,, ,",),
        ):
            with self.subTest(values):
                self.assert_selects("pushd.v1", *values)
                self.assert_selects("pushd.v1", *values, target="/ws?channel=public&format=raw")

    def messages(self, client: WebSocketTalk) -> list[dict[str, Any]]:
        """Return what has come, as JSON."""
        self.rig.turn()
        return [json.loads(message) for message in client.messages]

    def test_a_client_of_pushd_v1_is_greeted_before_all_else(self) -> None:
        for offer, expires in ((("pushd.v1",), None), (OFFER, None)):
            client = self.connect("/ws?channel=public&since=earliest", offer)
            hello, subscribed = self.messages(client)
            self.assertEqual(subscribed["type"], "subscribed")
            self.assertEqual(hello.pop("expires", None), expires)
            limits = {"event_size": 1000 << 10, "subscriptions": 100}
            self.assertGreater(hello["limits"].pop("message_size"), 6000 << 10)
            *_, session = self.rig.parts.sessions
            self.assertEqual(
                hello,
                {
                    "type": "hello",
                    "connection": session.caller.id,
                    "version": __version__,
                    "heartbeat": 20,
                    "limits": limits,
                },
            )

    def test_the_greeting_says_when_the_rights_end(self) -> None:
        until = self.rig.now() + 60
        self.tokens.known[TOKEN] = identity(subscribe=("public",), user="ann", expires_at=until)
        (hello,) = self.messages(self.connect("/ws", OFFER))
        self.assertEqual(hello["expires"], until)

    def test_a_client_of_pushd_v1_gets_a_ping_that_a_page_can_see(self) -> None:
        client = self.connect("/ws?channel=public", ("pushd.v1",))
        before = len(self.messages(client))
        for count in (1, 2):
            self.rig.wait(21)
            self.assertEqual([one["type"] for one in self.messages(client)[before:]], ["ping"] * count)
        self.rig.wait(10)
        client.say(type="subscribe", channel="public")
        self.rig.wait(11)
        self.assertEqual([one["type"] for one in self.messages(client)[before:]], ["ping", "ping", "subscribed"])
        self.assertEqual(len(client.pings), 3)
        self.rig.wait(21)
        self.assertEqual([one["type"] for one in self.messages(client)[before + 3 :]], ["ping"])

    def test_other_clients_get_neither_greeting_nor_ping(self) -> None:
        for target, offer in (("/ws", ()), ("/ws", ("chat",)), ("/ws?channel=public&format=raw", ("pushd.v1",))):
            client = self.connect(target, offer)
            self.rig.wait(45)
            self.rig.turn()
            self.assertEqual(client.messages, [], target)

    def test_nothing_else_is_selected(self) -> None:
        for values in (
            ("chat, superchat",),
            ("PUSHD.V1",),
            ("pushd.v1.0",),
            ("pushd.v2",),
            ("pushd.token",),
            ("",),
        ):
            with self.subTest(values):
                self.assert_selects(None, *values)
        self.assert_selects(None)

    def test_the_token_gives_the_rights_that_it_gives_in_authorization(self) -> None:
        for target in ("/ws?channel=secret", "/ws?channel=secret&format=raw"):
            with self.subTest(target):
                client = self.connect(target, OFFER)
                self.rig.turn()
                self.assertTrue(client.is_open)
                (session,) = self.rig.parts.sessions
                self.assertEqual(session.caller.user, "ann")
                client.connection.disconnect()
        self.assertEqual(self.tokens.shown, [TOKEN, TOKEN])

    def test_a_token_that_is_wrong_is_refused_as_in_authorization(self) -> None:
        for token in ("forged", "", "a" * 8193, "a" * 12000):
            with self.subTest(token[:20]):
                response = self.offer(f"pushd.v1, pushd.token.{token}", target="/ws?channel=public")
                self.assert_problem(response, 401)
                self.assertIn('error="invalid_token"', response.header("www-authenticate") or "")
                self.assertNotIn("aaaa", response.body.decode())

    def test_a_token_without_pushd_v1_is_refused_with_the_reason(self) -> None:
        for values in (
            (f"pushd.token.{TOKEN}",),
            (f"pushd.token.{TOKEN}, chat",),
            ("chat", f"pushd.token.{TOKEN}"),
        ):
            with self.subTest(values):
                response = self.offer(*values, target="/ws?channel=secret")
                self.assert_problem(response, 400, field="Sec-WebSocket-Protocol", says="without pushd.v1")
                self.assertNotIn(TOKEN, response.body.decode())

    def test_a_token_in_two_places_is_refused(self) -> None:
        offer = ("Sec-WebSocket-Protocol", ", ".join(OFFER))
        twice, offers = "Sec-WebSocket-Protocol", f"pushd.v1, pushd.token.{TOKEN}, pushd.token."
        for fields, target, field in (
            ([offer, ("Authorization", f"Bearer {TOKEN}")], "/ws?channel=secret", None),
            ([offer], f"/ws?channel=secret&access_token={TOKEN}", None),
            ([offer, (twice, "pushd.token.other")], "/ws?channel=secret", twice),
            ([(twice, offers)], "/ws", twice),
        ):
            with self.subTest(fields):
                response = self.answer(fields, target)
                self.assert_problem(response, 400, field=field, says="expected one")
                self.assertNotIn(TOKEN, response.body.decode())
        self.assertEqual(self.tokens.shown, [])

    def test_a_cookie_that_the_browser_adds_is_no_second_place(self) -> None:
        fields = [("Cookie", "session=of-somebody-else"), ("Origin", "https://a.example")]
        client = self.connect("/ws?channel=secret", OFFER, fields)
        self.rig.turn()
        self.assertTrue(client.is_open)
        self.assertEqual(self.tokens.shown, [TOKEN])

    def test_a_page_of_another_origin_is_refused_with_a_token_too(self) -> None:
        response = self.answer([("Sec-WebSocket-Protocol", ", ".join(OFFER)), ("Origin", "https://evil.example")])
        self.assert_problem(response, 403, field="Origin")
        self.assertEqual(self.tokens.shown, [])

    def test_the_token_is_never_logged(self) -> None:
        with logged() as lines:
            for values in ((", ".join(OFFER),), (f"pushd.token.{TOKEN}",), (f"pushd.v1, pushd.token.{TOKEN}x",)):
                self.offer(*values, target="/ws?channel=secret")
            client = self.connect("/ws?channel=secret", OFFER)
            self.rig.turn()
            client.say(type="publish", channel="public", data="x")
            self.rig.turn()
            client.connection.disconnect()
            self.rig.wait(3)
        text = "\n".join(lines)
        self.assertIn("/ws", text)
        for part in (*TOKEN.split("."), "pushd.token"):
            self.assertNotIn(part, text)

    def test_an_offer_that_is_none_is_refused(self) -> None:
        for value in ("pushd.v1, a b", 'pushd.v1, "x"', "pushd.v1; q=1", "pushd.v1, a/b", "pushd.v1, é", "a\tb"):
            with self.subTest(value):
                self.assert_problem(self.offer(value), 400, field="Sec-WebSocket-Protocol", says="not a name")

    def test_hundreds_of_subprotocols_are_one_offer(self) -> None:
        names = [f"p{number}" for number in range(900)]
        self.assert_selects("pushd.v1", ", ".join([*names, "pushd.v1"]))
        self.assert_selects(None, ", ".join(names))
        twice = self.offer(", ".join(["pushd.v1"] * 900))
        self.assert_problem(twice, 400, field="Sec-WebSocket-Protocol", says="once")
        tokens = self.offer(", ".join(["pushd.v1", *(f"pushd.token.{number}" for number in range(500))]))
        self.assert_problem(tokens, 400, field="Sec-WebSocket-Protocol", says="500 tokens")

    def test_the_header_is_ignored_where_there_is_no_websocket(self) -> None:
        response = self.rig.request(
            "GET", "/history?channel=secret", headers=[("Sec-WebSocket-Protocol", ", ".join(OFFER))]
        )
        self.assertEqual(response.status, 401)
        self.assertEqual(self.tokens.shown, [])

    def test_without_keys_the_token_is_not_looked_at(self) -> None:
        self.world = Integrations(None)
        DaemonTests.start(self, "[site]\ndemo = no\n")
        self.assert_selects("pushd.v1", ", ".join(OFFER), target="/ws?channel=news")


class SubprotocolOverHttp2Tests(SubprotocolTests):
    """Over HTTP/2."""

    accepted = 200

    def connect(self, target: str, subprotocols: Sequence[str], fields: Fields = ()) -> WebSocketTalk:
        """Override: on a stream."""
        lower = [(name.lower(), value) for name, value in fields]
        return WebSocketOverHttp2(self.rig, target, subprotocols=subprotocols, fields=lower)

    def answer(self, fields: Fields, target: str = "/ws") -> Response:
        """Override: on a stream."""
        lower = [(name.lower(), value) for name, value in fields]
        asked = StreamConnection(TunnelClient(self.rig), target, [("sec-websocket-version", "13"), *lower])
        self.rig.turn()
        assert asked.response is not None
        return asked.response
