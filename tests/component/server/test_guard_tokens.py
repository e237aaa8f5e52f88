"""Tokens at the gate: where one may be, what is answered to whom, and requests that wait for what one means."""

from __future__ import annotations

import gc
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hyperframe.frame import HeadersFrame
from hypothesis import given
from hypothesis import strategies as st

from pushd.daemon.integrations import Integrations
from pushd.errors import Unauthorized, Unavailable
from tests.rigs.daemon import DaemonRig, DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient, Response
from tests.rigs.tunnel_client import StreamConnection, TunnelClient, WebSocketOverHttp2
from tests.rigs.vouching import FakeTokens, identity, logged
from tests.rigs.websocket_client import WebSocketClient, WebSocketTalk
from tests.rigs.websocket_frames import frame

CONFIG = "[site]\ndemo = no\n[auth]\nanonymous =\nanonymous_subscribe = public\norigins = https://a.example\n"
REALM = 'Bearer realm="pushd"'
TOKEN = "c2VjcmV0.dG9rZW4.c2lnbmF0dXJl"
"""The token of these tests."""

HANDSHAKE = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
REQUESTS: tuple[tuple[str, str], ...] = (
    ("GET", "/channels"),
    ("GET", "/channels/secret"),
    ("POST", "/channels/secret"),
    ("DELETE", "/channels/secret"),
    ("GET", "/channels/secret/events"),
    ("HEAD", "/channels/secret/events"),
    ("GET", "/channels/secret/events/one"),
    ("HEAD", "/channels/secret/events/one"),
    ("GET", "/channels/secret/presence"),
    ("GET", "/sse?channel=secret"),
    ("HEAD", "/sse?channel=secret"),
    ("GET", "/sse?channel=public&channel=secret"),
    ("GET", "/stream?channel=secret"),
    ("HEAD", "/stream?channel=secret"),
    ("GET", "/poll?channel=secret&since=earliest"),
    ("HEAD", "/poll?channel=secret&since=earliest"),
    ("GET", "/connections"),
    ("GET", "/connections/x-1"),
    ("DELETE", "/connections/x-1"),
    ("DELETE", "/connections?user=alice"),
)
"""What needs rights."""


def bearer(token: str = TOKEN) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


def challenge(response: Response) -> str | None:
    return response.header("www-authenticate")


class TokenRules(DaemonTests):
    """Tests of a daemon that knows a few tokens."""

    config = CONFIG

    def start(self, config: str = "") -> None:
        """Override: with tokens, one of which gives every right."""
        self.tokens = FakeTokens(
            **{
                TOKEN: identity(publish=("**",), subscribe=("**",), operator=True),
                "reader": identity(subscribe=("secret",)),
                "nobody": identity(),
            }
        )
        self.world = Integrations(self.tokens)
        super().start(config)
        self.ask("POST", "/channels/secret?id=one", bearer(), body=b"the secret")
        self.tokens.shown.clear()

    def ask(self, method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> Response:
        """Return the response to a request with these headers."""
        return self.rig.request(method, target, headers=headers, body=body)


class PlaceTests(TokenRules):
    """Where a token may be."""

    def test_in_authorization_the_scheme_in_any_case(self) -> None:
        for value in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN}"):
            with self.subTest(value):
                self.assertEqual(self.ask("GET", "/channels/secret", ("Authorization", value)).status, 200)

    def test_in_the_query(self) -> None:
        for query in (f"access_token={TOKEN}", f"access%5Ftoken={TOKEN.replace('.', '%2E')}"):
            with self.subTest(query):
                self.assertEqual(self.ask("GET", f"/channels/secret?{query}").status, 200)
        self.assertEqual(self.tokens.shown, [TOKEN, TOKEN])

    def test_in_one_place_only_and_once(self) -> None:
        both = self.ask("GET", f"/channels/secret?access_token={TOKEN}", bearer())
        self.assert_problem(both, 400, says="expected one")
        twice = self.ask("GET", f"/channels/secret?access_token={TOKEN}&access_token={TOKEN}")
        self.assert_problem(twice, 400, field="access_token", says="2 times")
        headers = self.ask("GET", "/channels/secret", bearer(), bearer())
        self.assert_problem(headers, 400, field="Authorization", says="2 times")
        self.assertEqual(self.tokens.shown, [])

    def test_another_form_of_authorization_is_none(self) -> None:
        for value in ("Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "Bearer a b", "Bearer a,b", f"Bearer{TOKEN}", "",
                      TOKEN, f'Bearer "{TOKEN}"', "Bearer ä", "Bearer ="):  # fmt: skip
            with self.subTest(value):
                response = self.ask("GET", "/channels/public", ("Authorization", value))
                self.assert_problem(response, 401, says="Bearer TOKEN")
                self.assertEqual(challenge(response), REALM)
                self.assertNotIn(TOKEN.encode(), response.body)
        self.assertEqual(self.tokens.shown, [])

    def test_an_empty_one_in_the_query_is_a_wrong_one(self) -> None:
        response = self.ask("GET", "/channels/public?access_token=")
        self.assert_problem(response, 401, says="nobody has signed it")

    def test_bytes_that_are_no_text_are_a_wrong_one(self) -> None:
        response = self.ask("GET", "/channels/public?access_token=%FF%FE")
        self.assert_problem(response, 401, says="nobody has signed it")

    def test_without_keys_none_is_looked_at(self) -> None:
        self.rig = DaemonRig(CONFIG, self.http)
        self.assertEqual(self.ask("GET", "/channels/public", bearer("garbage")).status, 200)
        refused = self.ask("GET", "/channels/secret", bearer())
        self.assert_problem(refused, 403, says="[auth] anonymous")
        self.assertIsNone(challenge(refused))


class AnswerTests(TokenRules):
    """What is answered to who has no right."""

    def test_401_without_a_token_where_one_would_help(self) -> None:
        for method, target in REQUESTS:
            with self.subTest(f"{method} {target}"):
                response = self.ask(method, target)
                self.assertEqual(response.status, 401, response)
                self.assertEqual(challenge(response), REALM)
                if method != "HEAD":
                    self.assert_problem(response, 401, says="wanted a token")

    def test_403_with_one_that_does_not_reach(self) -> None:
        for method, target in REQUESTS:
            with self.subTest(f"{method} {target}"):
                response = self.ask(method, target, bearer("nobody"))
                self.assertEqual(response.status, 403, response)
                self.assertIsNone(challenge(response))
                if method != "HEAD":
                    self.assert_problem(response, 403, says="the token of the test does not give")

    def test_401_with_a_wrong_one_also_for_what_anybody_may(self) -> None:
        for method, target in (*REQUESTS, ("GET", "/channels/public"), ("GET", "/sse?channel=public")):
            with self.subTest(f"{method} {target}"):
                response = self.ask(method, target, bearer("forged"))
                self.assertEqual(response.status, 401, response)
                self.assertEqual(
                    challenge(response), f'{REALM}, error="invalid_token", error_description="nobody has signed it"'
                )

    def test_in_a_batch_each_line_is_answered_for_itself(self) -> None:
        body = b'{"channel":"a","data":"x"}\n{"channel":"b","data":"x"}\n'
        self.tokens.known["writer"] = identity(publish=("b",))
        self.assertEqual(self.ask("POST", "/publish", body=body).status, 401, "refused as a whole")
        for headers, statuses in (([bearer("writer")], [403, None]),):
            response = self.ask("POST", "/publish", *headers, body=body)
            self.assertEqual(response.status, 207)
            lines = [json.loads(line) for line in response.body.splitlines()]
            self.assertEqual([line.get("error", {}).get("status") for line in lines], statuses)
        self.assertEqual(self.ask("POST", "/publish", bearer("forged"), body=body).status, 401)

    def test_what_a_token_gives_is_given(self) -> None:
        self.assertEqual(self.ask("GET", "/channels/secret/events/one", bearer("reader")).body, b"the secret")
        self.assertEqual(self.ask("GET", "/channels/secret/events/one", bearer()).body, b"the secret")

    def test_with_a_token_the_rights_of_anybody_do_not_count(self) -> None:
        self.assertEqual(self.ask("GET", "/channels/public").status, 200)
        self.assertEqual(self.ask("GET", "/channels/public", bearer("reader")).status, 403)

    def test_the_challenge_is_a_quoted_string_whatever_is_wrong(self) -> None:
        @given(st.text() | st.sampled_from(('"', "\\", '\\"', "\r\nX-Evil: 1", "é", "\0", "\x7f", "'")))
        def check(detail: str) -> None:
            self.tokens.known["wrong"] = Unauthorized(detail, is_token_wrong=True)
            value = challenge(self.ask("GET", "/channels/public", bearer("wrong"))) or ""
            parts = re.fullmatch(r'Bearer realm="pushd", error="invalid_token", error_description="(.*)"', value)
            self.assertRegex("-" if parts is None else parts[1], r"\A[\x20\x21\x23-\x5b\x5d-\x7e]*\Z")
            self.assertIsNotNone(parts)

        check()

    def test_503_when_it_cannot_be_told(self) -> None:
        self.tokens.known["unknown"] = Unavailable("the keys cannot be had", retry_s=2.5)
        response = self.ask("GET", "/channels/public", bearer("unknown"))
        self.assert_problem(response, 503, says="the keys")
        self.assertEqual(response.header("retry-after"), "3")

    def test_a_fault_is_a_500_and_logged_once(self) -> None:
        self.tokens.known["bad"] = ZeroDivisionError("in the test")
        with logged() as lines:
            response = self.ask("GET", "/channels/public", bearer("bad"))
        self.assert_problem(response, 500, says="fault")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertNotIn("bad'", "".join(lines))

    def test_a_refused_origin_is_told_before_any_token_is_looked_at(self) -> None:
        response = self.ask("GET", "/channels/secret", bearer(), ("Origin", "https://evil.example"))
        self.assert_problem(response, 403, field="Origin")
        self.assertEqual(self.tokens.shown, [])

    def test_a_listed_page_can_read_why_it_was_refused(self) -> None:
        for headers in ((), (bearer("forged"),)):
            response = self.ask("GET", "/channels/secret", *headers, ("Origin", "https://a.example"))
            self.assertEqual(response.status, 401)
            self.assertEqual(response.header("access-control-allow-origin"), "https://a.example")
            self.assertIn("www-authenticate", response.header("access-control-expose-headers") or "")

    def test_every_refusal_says_why_in_the_log(self) -> None:
        for headers, status, why in (
            ((), 401, "no right to subscribe to 'secret': [auth] anonymous does not give subscribe"),
            ((bearer("forged"),), 401, "nobody has signed it"),
            ((bearer("nobody"),), 403, "no right to subscribe to 'secret': the token of the test does not give"),
            ((("Authorization", "Basic eA=="),), 401, "Authorization is not of the form Bearer TOKEN"),
        ):
            for path in ("/sse", "/poll"):
                with self.subTest(f"{path} {why}"), logged() as lines:
                    self.ask("GET", f"{path}?channel=secret", *headers)
                (line,) = (line for line in lines if line.startswith("pushd.server.web.resource "))
                self.assertRegex(
                    line.split("\n")[0],
                    rf"^pushd.server.web.resource {status} GET {path} from 127\.0\.0\.1:\d+: {re.escape(why)}",
                )
                self.assertIn("'log_level': <LogLevel=info>", line)


class PreflightTests(TokenRules):
    """A browser asks before it shows a token (Fetch, section 4.8)."""

    def test_it_needs_none_whatever_the_query(self) -> None:
        for target in (
            "/channels/secret",
            "/channels/secret?event=x",
            "/sse?channel=secret&since=earliest",
            "/poll?channel=secret",
            "/publish",
            "/channels/secret/events?limit=3",
            "/connections",
        ):
            for asked in ("authorization", "authorization,content-type,last-event-id"):
                with self.subTest(target):
                    response = self.ask(
                        "OPTIONS",
                        target,
                        ("Origin", "https://a.example"),
                        ("Access-Control-Request-Method", "GET"),
                        ("Access-Control-Request-Headers", asked),
                    )
                    self.assertEqual(response.status, 204, response)
                    taken = (response.header("access-control-allow-headers") or "").split(", ")
                    self.assertLessEqual(set(asked.split(",")), set(taken))
        self.assertEqual(self.tokens.shown, [])

    def test_a_token_that_comes_with_it_is_not_looked_at(self) -> None:
        self.tokens.is_slow = True
        response = self.ask("OPTIONS", "/channels/secret", bearer("forged"))
        self.assertEqual(response.status, 204)
        self.assertEqual(self.tokens.shown, [])


class SecrecyTests(TokenRules):
    """A token is written to no log, and into no answer."""

    config = f"{CONFIG}cookie = session\n[log]\nrequests = yes\nlevel = debug\n"

    def assert_unlogged(self, lines: Sequence[str]) -> None:
        """The token is in none of what was logged."""
        self.assertGreater(len(lines), 0)
        self.assertEqual([line for line in lines if TOKEN in line], [])

    def assert_unsaid(self, responses: Sequence[Response]) -> None:
        """The token is in none of the answers."""
        self.assertEqual([response for response in responses if TOKEN in repr(response)], [])

    def test_wherever_it_was(self) -> None:
        places: list[tuple[str, tuple[tuple[str, str], ...]]] = [
            ("", (bearer(),)),
            (f"access_token={TOKEN}", ()),
            (f"access_token={TOKEN}", (bearer(),)),
            (f"access_token={TOKEN}&access_token=", ()),
            ("", (bearer(), bearer())),
            ("", (bearer(f"{TOKEN} {TOKEN}"),)),
            ("", (("Authorization", f"Basic {TOKEN}"),)),
            ("", (("Cookie", f"session={TOKEN}"),)),
            ("", (("Cookie", f"session={TOKEN}; session=x{TOKEN}"),)),
            ("", (("Cookie", f"session={TOKEN}"), ("Origin", "https://a.example"))),
        ]
        more = [("GET", target) for target in ("/healthz", "/nothing", "/ws", "/channels/%00", "/push?channel=a")]
        more += [("PUT", "/channels/secret"), ("OPTIONS", "/channels/secret")]
        good = self.tokens.known[TOKEN]
        for known in (good, identity(), Unauthorized("no", is_token_wrong=True), ZeroDivisionError()):
            self.tokens.known[TOKEN] = known
            for is_slow in (False, True):
                with logged() as lines:
                    for query, headers in places:
                        for method, target in (*REQUESTS, *more):
                            self.tokens.is_slow = is_slow
                            target = f"{target}{'&' if '?' in target else '?'}{query}" if query else target
                            client = self.rig.client()
                            client.send(method, target, headers=headers)
                            self.tokens.answer()
                            self.rig.turn()
                            if "poll" not in target:  # which may wait
                                self.assertEqual(len(client.written), 1, (method, target))
                            self.assert_unsaid(client.written)
                            client.connection.disconnect()
                    gc.collect()  # what was not handled is logged then
                self.assert_unlogged(lines)
                self.flushLoggedErrors(ZeroDivisionError)

    def test_in_heads_that_cannot_be_read(self) -> None:
        with logged() as lines:
            for line in (f"Authorization : Bearer {TOKEN}", f"Authorization: Bearer {TOKEN}\0", f"Bearer {TOKEN}",
                         f"Authorization: a\r\n {TOKEN}", f"Content-Length: {TOKEN}",
                         f"Transfer-Encoding: {TOKEN}"):  # fmt: skip
                client = HttpClient(self.rig)
                client.send_raw("GET", f"GET /channels HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n".encode())
                self.rig.turn()
                self.assert_unsaid(client.responses)
            client = HttpClient(self.rig)
            client.send_raw("GET", f"GET /channels?access_token={TOKEN} \x01 HTTP/9\r\n\r\n".encode())
            self.rig.turn()
            self.assert_unsaid(client.responses)
        self.assert_unlogged(lines)

    def test_in_heads_over_http2_that_cannot_be_read(self) -> None:
        host, malformed = ("host", "localhost"), 0
        cases: list[tuple[str, list[tuple[str, str]]]] = [
            (f"channels?access_token={TOKEN}", []),
            (f"/channels?access_token={TOKEN} ", []),
            (f"/channels?access_token={TOKEN}\0", []),
            ("/channels", [("authorization", f"Bearer {TOKEN}\n")]),
            ("/channels", [("authorization", f" {TOKEN}")]),
            ("/channels", [("cookie", f"session={TOKEN}\r")]),
            ("/channels", [("Authorization", f"Bearer {TOKEN}")]),
            ("/channels", [("te", TOKEN)]),
            ("/channels", [host, ("authorization", f"{TOKEN}\x7f")]),
            ("/channels", [("content-length", "x"), bearer()]),
        ]
        for path, fields in cases:
            with self.subTest(f"{path} {fields}"), logged() as lines:
                client = Http2Client(self.rig)
                pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
                block = client.h2.encoder.encode([*pseudo, *fields])
                client.connection.on_data = lambda: None  # h2 knows nothing of this stream
                headers = HeadersFrame(1, data=block, flags=["END_HEADERS", "END_STREAM"])
                client.connection.send(headers.serialize())
                self.rig.turn()
                self.assertNotIn(TOKEN.encode(), client.connection.received)
            self.assert_unlogged(lines)
            malformed += "malformed request" in "".join(lines)
        self.assertGreater(malformed, 6)

    def test_that_a_websocket_shows(self) -> None:
        for known in (self.tokens.known[TOKEN], Unauthorized("no", is_token_wrong=True), identity(user="bob")):
            with logged() as lines:
                self.tokens.known[TOKEN], before = identity(subscribe=("secret",)), known
                socket = WebSocketClient(self.rig, f"/ws?channel=secret&access_token={TOKEN}")
                self.rig.turn()
                self.tokens.known[TOKEN] = before
                socket.say(type="renew", token=TOKEN)
                socket.say(type="renew", token=TOKEN, ref={})
                socket.say(type="renew", token=[TOKEN])
                socket.say(type="renew", token=TOKEN, more=TOKEN)
                socket.say(type="publish", channel="secret", data="x", token=TOKEN)
                socket.send(f'{{"type":"renew","token":"{TOKEN}"')
                self.rig.turn()
                socket.send(b"\xff" + TOKEN.encode())
                self.rig.turn()
                socket.connection.send(frame(TOKEN.encode(), 3))  # no such opcode
                self.rig.turn()
            self.assertGreater(len(socket.messages), 6)
            self.assertNotIn(TOKEN, repr(socket.messages))
            self.assert_unlogged(lines)

    def test_on_the_way_into_a_directory(self) -> None:
        with tempfile.TemporaryDirectory() as root, logged() as lines:
            (Path(root) / "docs").mkdir()
            (Path(root) / "docs" / "index.html").write_text("here")
            self.start(f"[site]\nroot = {root}\n[log]\nrequests = yes\n")
            for query, kept in (
                (f"access_token={TOKEN}", ""),
                (f"a=1&access%5ftoken={TOKEN}&b=2", "?a=1&b=2"),
                ("a=1&b=%20", "?a=1&b=%20"),
            ):
                response = self.ask("GET", f"/docs?{query}")
                self.assertEqual(response.status, 302)
                self.assertRegex(response.header("location") or "", rf"/docs/{re.escape(kept)}$")
                self.assert_unsaid([response])
        self.assert_unlogged(lines)


class WaitingRules(TokenRules):
    """Tests of requests that wait until it is known what their token means."""

    config = f"{CONFIG}cookie = session\n[limits]\nrequest_timeout = 5s\n"

    def send(self, method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> HttpClient:
        """Make a request that waits."""
        self.tokens.is_slow = True
        client = self.rig.client()
        client.send(method, target, headers=headers, body=body)
        self.rig.turn()
        assert len(self.tokens) == 1
        return client  # type: ignore[return-value]


class WaitingTests(WaitingRules):
    """The same over HTTP/1.1 and HTTP/2."""

    def test_nothing_is_answered_meanwhile_and_then_it_is(self) -> None:
        client = self.send("GET", "/channels/secret/events/one", bearer())
        self.rig.wait(20)
        self.assertEqual(client.responses, [])
        self.tokens.answer()
        self.rig.turn()
        self.assertEqual((client.response.status, client.response.body), (200, b"the secret"))
        self.assertTrue(client.response.is_complete)

    def test_the_answer_is_the_same_as_at_once(self) -> None:
        extra = (("POST", "/channels/secret?id=two"), ("POST", "/publish"), ("GET", "/channels/secret?x=1"),
                 ("PUT", "/channels/secret"), ("GET", "/ws"), ("GET", "/channels/%2A"), ("HEAD", "/channels/%2A"),
                 ("GET", "/channels/secret/events/none"), ("GET", "/push?channel=secret"))  # fmt: skip
        for event in ("one", "two"):
            self.rig.request("POST", f"/channels/secret?id={event}", headers=dict([bearer(TOKEN)]), body=b"x")
        for token in (TOKEN, "reader", "nobody", "forged"):
            for method, target in (*REQUESTS, *extra):
                if (method, target) == ("DELETE", "/channels/secret") and token == TOKEN:
                    continue
                with self.subTest(f"{method} {target} with {token}"):
                    answers = []
                    for is_slow in (False, True):
                        client = self.rig.client()
                        self.tokens.is_slow = is_slow
                        client.send(method, target, headers=[bearer(token)], body=b"x" if method == "POST" else b"")
                        self.rig.turn()
                        self.tokens.answer()
                        self.rig.turn()
                        (response,) = client.responses
                        answers.append(response)
                        client.connection.disconnect()
                    quick, slow = answers
                    self.assertEqual(quick.status, slow.status)
                    self.assertEqual({name for name, _ in quick.headers}, {name for name, _ in slow.headers})
                    self.assertEqual(quick.header("content-length"), slow.header("content-length"))
                    self.assertEqual(quick.is_complete, slow.is_complete)

    def test_a_body_waits_too(self) -> None:
        client = self.send("POST", "/channels/secret?id=big", bearer(), body=b"x" * 200_000)
        self.tokens.answer()
        self.rig.turn()
        self.assertEqual(client.response.status, 201)
        self.assertEqual(len(self.ask("GET", "/channels/secret/events/big", bearer()).body), 200_000)

    def test_a_client_that_goes_away_meanwhile_leaves_nothing(self) -> None:
        before, connections = self.rig.traces, len(self.rig.parts.site.connections)
        requests = (*REQUESTS, ("GET", "/channels/%2A"), ("PUT", "/publish"))
        for known in (self.tokens.known[TOKEN], identity(), Unauthorized("no"), Unavailable("no")):
            self.tokens.known[TOKEN] = known
            with logged() as lines:
                for method, target in requests:
                    with self.subTest(f"{method} {target} {known}"):
                        client = self.send(method, target, bearer())
                        client.connection.disconnect()
                        self.rig.turn()
                        self.tokens.answer()
                        self.rig.turn()
                        self.assert_no_traces(before)
                        self.assertEqual(len(self.rig.parts.site.connections), connections)
                gc.collect()
            self.assertEqual([line for line in lines if "fault" in line or "Unhandled" in line], [])

    def test_a_client_that_goes_away_before_a_fault(self) -> None:
        self.tokens.known[TOKEN] = ZeroDivisionError()
        client = self.send("GET", "/channels/secret", bearer())
        client.connection.disconnect()
        self.tokens.answer()
        self.rig.turn()
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_a_fault_in_the_middle_is_a_500_and_logged_once(self) -> None:
        self.tokens.known[TOKEN] = ZeroDivisionError()
        client = self.send("GET", "/channels/secret", bearer())
        self.tokens.answer()
        self.rig.turn()
        gc.collect()
        self.assert_problem(client.response, 500, says="fault")
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        client.send("GET", "/channels/public")
        self.rig.turn()
        self.assertEqual(client.responses[1].status, 200)

    def test_while_the_daemon_stops_it_is_still_answered(self) -> None:
        for target, status in (
            ("/channels/secret", 200),
            ("/sse?channel=secret", 503),
            ("/poll?channel=secret", 503),
        ):
            with self.subTest(target):
                self.start(self.config)
                client = self.send("GET", target, bearer())
                stopped = self.rig.stop()
                self.rig.wait(1)
                self.assertFalse(stopped.called)
                self.tokens.answer()
                self.rig.turn()
                self.assertEqual(client.response.status, status)
                self.rig.wait(3)
                self.assertTrue(stopped.called)
                self.assertFalse(client.connection.is_open)

    def test_the_daemon_does_not_wait_for_ever(self) -> None:
        self.send("GET", "/sse?channel=secret", bearer())
        stopped = self.rig.stop()
        self.rig.wait(60)
        self.assertTrue(stopped.called)
        self.tokens.answer()
        self.rig.turn()
        gc.collect()


class PipelineTests(WaitingRules):
    """Requests behind one that waits, over HTTP/1.1."""

    http = HttpClient

    def test_they_are_answered_in_their_order(self) -> None:
        client = self.send("GET", "/channels/secret", bearer())
        client.send("GET", "/channels/public")
        client.send("POST", "/channels/secret", headers=[bearer()], body=b"x" * 40_000)
        client.send("HEAD", "/channels/public")
        client.send("GET", "/channels/public/events")
        self.rig.wait(1)
        self.assertEqual((client.responses, len(self.tokens)), ([], 1))
        self.tokens.answer(quick=False)
        self.rig.turn()
        self.assertEqual([response.status for response in client.responses], [200, 200])
        self.assertEqual(len(self.tokens), 1)
        self.tokens.answer()
        self.rig.turn()
        self.assertEqual([response.status for response in client.responses], [200, 200, 201, 200, 200])
        self.assertTrue(client.connection.is_open)

    def test_they_are_not_read_without_bound(self) -> None:
        client = self.send("GET", "/channels/secret", bearer())
        for _ in range(100):
            client.connection.send(b"x" * 1000)
        self.rig.turn()
        self.assertFalse(client.connection.is_read)

    def test_no_time_out_runs_meanwhile(self) -> None:
        client = self.send("GET", "/channels/secret", bearer())
        self.rig.wait(30)
        self.assertTrue(client.connection.is_open)
        self.tokens.answer()
        self.rig.wait(4)
        self.assertTrue(client.connection.is_open)
        self.rig.wait(3)
        self.assertFalse(client.connection.is_open)


class StreamTests(TokenRules):
    """Other streams of a connection over HTTP/2 do not wait."""

    http = Http2Client

    def test_they_are_answered_meanwhile(self) -> None:
        client = self.rig.client()
        self.tokens.is_slow = True
        client.send("GET", "/channels/secret", headers=[bearer()])
        client.send("GET", "/channels/public")
        self.rig.turn()
        (first,) = client.responses
        self.assertEqual((first.status, first.json["channel"]), (200, "public"))
        self.tokens.answer()
        self.rig.turn()
        self.assertEqual([response.json["channel"] for response in client.responses], ["secret", "public"])


class UpgradeRules(TokenRules):
    """WebSockets whose handshake is answered later."""

    config = f"{CONFIG}[limits]\nrequest_timeout = 5s\nheartbeat = 20s\nping_timeout = 10s\n"

    def open(self, then: bytes = b"", channel: str = "secret") -> WebSocketTalk:
        """Send a handshake that waits, and `then`."""
        self.tokens.is_slow = True
        socket = self.connect(f"/ws?channel={channel}&access_token={TOKEN}", then)
        self.rig.turn()
        self.assertEqual(len(self.tokens), 1)
        self.assertFalse(socket.is_open)
        return socket

    def connect(self, target: str, then: bytes) -> WebSocketTalk:
        """Send a handshake."""
        raise NotImplementedError


class UpgradeTests(UpgradeRules):
    """The same over HTTP/1.1 and HTTP/2."""

    def connect(self, target: str, then: bytes) -> WebSocketTalk:
        """Override: over HTTP/1.1."""
        return WebSocketClient(self.rig, target, then=then)

    def say(self, **message: object) -> bytes:
        return frame(json.dumps(message).encode())

    def test_it_is_opened_when_the_answer_is_there(self) -> None:
        socket = self.open()
        self.rig.wait(30)
        self.assertTrue(socket.connection.is_open)
        self.tokens.answer()
        self.rig.turn()
        self.assertTrue(socket.is_open)
        self.assertEqual([message["type"] for message in socket.json], ["subscribed"])
        self.ask("POST", "/channels/secret", bearer(), body=b"x")
        self.rig.turn()
        self.assertEqual(socket.json[-1]["data"], "x")
        socket.say(type="publish", channel="a", data="y", ref=1)
        self.rig.turn()
        self.assertEqual(socket.json[-1]["ref"], 1)

    def test_what_has_come_before_it_is_taken_then(self) -> None:
        socket = self.open(self.say(type="publish", channel="secret", data="1", ref=1))
        socket.connection.send(self.say(type="publish", channel="secret", data="2", ref=2)[:7])
        socket.connection.send(self.say(type="publish", channel="secret", data="2", ref=2)[7:])
        self.rig.wait(7)
        self.tokens.answer()
        self.rig.turn()
        self.assertEqual([message["type"] for message in socket.json][:1], ["subscribed"])
        self.assertEqual([m["ref"] for m in socket.json if m["type"] == "published"], [1, 2])
        self.assertEqual([m["data"] for m in socket.json if m["type"] == "event"], ["1", "2"])

    def test_much_that_has_come_before_it_is_not_read_without_bound_and_then_taken(self) -> None:
        socket = self.open()
        for number in range(300):
            socket.connection.send(self.say(type="publish", channel="secret", data="x" * 1000, ref=number))
        self.rig.wait(1)
        self.assert_bounded(socket)
        self.tokens.answer()
        self.rig.turn()
        self.rig.wait(1)
        self.assertEqual([m["ref"] for m in socket.json if m["type"] == "published"], list(range(300)))

    def assert_bounded(self, socket: WebSocketTalk) -> None:
        """The daemon has stopped to take what is sent."""
        self.assertFalse(socket.connection.is_read)

    def test_a_client_that_goes_away_meanwhile_leaves_nothing(self) -> None:
        before = self.rig.traces
        for known in (self.tokens.known[TOKEN], identity(), Unauthorized("no")):
            self.tokens.known[TOKEN] = known
            socket = self.open(self.say(type="publish", channel="x", data="1"))
            socket.connection.disconnect()
            self.rig.turn()
            self.tokens.answer()
            self.rig.turn()
            self.assert_no_traces(before)
        self.assertIsNone(self.rig.parts.bus.log.get("x"))

    def test_a_refusal_comes_later_too(self) -> None:
        for known, status in ((identity(), 403), (Unauthorized("no"), 401), (Unavailable("no"), 503)):
            self.tokens.known[TOKEN] = known
            socket = self.open(self.say(type="publish", channel="x", data="1"))
            self.tokens.answer()
            self.rig.turn()
            self.assertFalse(socket.is_open)
            self.assert_refused(socket, status)
        self.assertIsNone(self.rig.parts.bus.log.get("x"))

    def assert_refused(self, socket: WebSocketTalk, status: int) -> None:
        """The handshake was answered so."""
        assert isinstance(socket, WebSocketClient) and socket.handshake is not None
        self.assertEqual(socket.handshake.status_code, status)

    def test_a_fault_is_a_500_and_logged_once(self) -> None:
        self.tokens.known[TOKEN] = ZeroDivisionError()
        socket = self.open()
        self.tokens.answer()
        self.rig.turn()
        gc.collect()
        self.assert_refused(socket, 500)
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_while_the_daemon_stops_it_is_refused(self) -> None:
        socket = self.open()
        stopped = self.rig.stop()
        self.rig.wait(1)
        self.tokens.answer()
        self.rig.turn()
        self.assert_refused(socket, 503)
        self.rig.wait(5)
        self.assertTrue(stopped.called)

    def test_a_close_frame_that_came_before_it_is_answered(self) -> None:
        socket = self.open(frame(b"\x03\xe8", 8))
        self.tokens.answer()
        self.rig.turn()
        self.assertEqual(socket.close, (1000, ""))
        self.rig.wait(1)
        self.assertFalse(socket.connection.is_open)
        self.assertEqual(self.rig.traces.sessions, 0)

    def test_garbage_that_came_before_it_ends_it(self) -> None:
        socket = self.open(b"\xff" * 10)
        self.tokens.answer()
        self.rig.turn()
        assert socket.close is not None
        self.assertEqual(socket.close[0], 1002)
        self.rig.wait(15)
        self.assertFalse(socket.connection.is_open)
        self.assertEqual(self.rig.traces.sessions, 0)


class UpgradeOverHttp2Tests(UpgradeTests):
    """On a stream."""

    def connect(self, target: str, then: bytes) -> WebSocketTalk:
        """Override: over HTTP/2."""
        return WebSocketOverHttp2(self.rig, target, then=then)

    def assert_bounded(self, socket: WebSocketTalk) -> None:
        """Override: the window is not opened."""
        self.assertGreater(socket.connection.unsent, 200_000)

    def assert_refused(self, socket: WebSocketTalk, status: int) -> None:
        """Override."""
        response = socket.connection.response
        assert isinstance(response, Response)
        self.assertEqual(response.status, status)
        self.assertTrue(response.is_complete)

    def test_an_end_that_came_before_it_ends_it(self) -> None:
        socket = self.open(self.say(type="publish", channel="secret", data="1", ref=1))
        assert isinstance(socket.connection, StreamConnection)
        socket.connection.send_end()
        self.rig.turn()
        self.tokens.answer()
        self.rig.wait(1)
        page = self.ask("GET", "/channels/secret/events", bearer()).json
        self.assertEqual([event["data"] for event in page["events"]], ["the secret", "1"])
        self.assertFalse(socket.connection.is_open)
        self.assertEqual(self.rig.traces.sessions, 0)

    def test_other_streams_go_on_meanwhile(self) -> None:
        client = TunnelClient(self.rig)
        self.tokens.is_slow = True
        slow = WebSocketOverHttp2(self.rig, f"/ws?channel=secret&access_token={TOKEN}", client=client)
        other = WebSocketOverHttp2(self.rig, "/ws?channel=public", client=client)
        self.rig.turn()
        self.assertEqual((slow.is_open, other.is_open), (False, True))
        slow.connection.reset()
        self.tokens.answer()
        self.rig.turn()
        self.assertTrue(other.is_open)
        self.assertEqual(self.rig.traces.sessions, 1)
        self.assertEqual(list(client.connection.protocol.streams), [other.connection.stream_id])
