"""Tokens in cookies, which browsers send by themselves: only pages that may use them come through with one."""

from __future__ import annotations

from collections.abc import Iterable

from pushd.daemon.integrations import Integrations
from pushd.server.net import connection_info
from tests.rigs.daemon import DaemonRig, DaemonTests
from tests.rigs.http_client import Response
from tests.rigs.tunnel_client import WebSocketOverHttp2
from tests.rigs.vouching import FakeTokens, identity, logged
from tests.rigs.websocket_client import WebSocketClient, WebSocketTalk

LISTED = "https://app.example"
OWN = "http://localhost"
EVIL = "https://evil.example"
CONFIG = f"[site]\ndemo = no\n[auth]\nanonymous =\ncookie = session\norigins = {LISTED}\n"
COOKIE = ("Cookie", "session=victim")
METHODS = ("GET", "POST", "DELETE")


class CookieRules(DaemonTests):
    """Tests of a daemon that takes a token in the cookie ``session``."""

    config = CONFIG

    def start(self, config: str = "") -> None:
        """Override: with tokens."""
        everything = identity(publish=("**",), subscribe=("**",), operator=True, user="the victim")
        self.tokens = FakeTokens(victim=everything, other=identity(user="another"))
        self.world = Integrations(self.tokens)
        super().start(config)

    def ask(
        self, method: str, *headers: tuple[str, str], target: str = "/channels/a", host: str = "localhost"
    ) -> Response:
        """Return the response to a request with these headers."""
        return self.rig.request(method, target, headers=headers, host=host, body=b"x" if method == "POST" else b"")

    def assert_served(self, method: str, *headers: tuple[str, str]) -> Response:
        """A request with these headers has the rights of the token."""
        response = self.ask(method, *headers)
        self.assertIn(response.status, (200, 201, 204, 404), response)
        return response

    @property
    def published(self) -> int:
        """How many events there are."""
        return self.rig.parts.bus.log.sequence


class CookieTests(CookieRules):
    """Which requests may bring a token in a cookie."""

    def test_its_own_pages_and_listed_ones(self) -> None:
        for origin in (OWN, "https://localhost", LISTED, LISTED.upper()):
            for method in METHODS:
                with self.subTest(f"{method} {origin}"):
                    self.assert_served(method, COOKIE, ("Origin", origin))
        self.assertEqual(self.published, 4)

    def test_no_other_page(self) -> None:
        for config in (CONFIG, CONFIG.replace(LISTED, "*"), CONFIG.replace(LISTED, f"*, {LISTED}")):
            self.start(config)
            for origin in (EVIL, "null", "*", "http://app.example", f"{LISTED}:8443", f"{LISTED}.evil.example",
                           "http://localhost:81", "http://localhost.evil.example", ""):  # fmt: skip
                for method in (*METHODS, "HEAD"):
                    with self.subTest(f"{method} {origin}"):
                        response = self.ask(method, COOKIE, ("Origin", origin))
                        self.assertEqual(response.status, 403, response)
                        self.assertIsNone(response.header("access-control-allow-credentials"))
                        if method != "HEAD":
                            self.assert_problem(response, 403, field="Origin")
        self.assertEqual((self.published, self.tokens.shown), (0, []))

    def test_with_a_star_other_pages_are_served_without_it(self) -> None:
        self.start(CONFIG.replace(LISTED, "*").replace("anonymous =", "anonymous = subscribe"))
        response = self.assert_served("GET", ("Origin", EVIL))
        self.assertEqual(response.header("access-control-allow-origin"), EVIL)
        self.assertIsNone(response.header("access-control-allow-credentials"))
        refused = self.ask("GET", COOKIE, ("Origin", EVIL))
        self.assert_problem(refused, 403, field="Origin", says=f"[auth] origins = {EVIL}")

    def test_a_wildcard_lets_no_page_use_a_cookie(self) -> None:
        """A subdomain may be in the hands of somebody else, who may have its name lead here."""
        self.start(CONFIG.replace(LISTED, f"https://*.example.com, {LISTED}") + "hosts = *.example.com\n")
        self.assert_served("POST", COOKIE, ("Origin", LISTED))
        for origin in ("https://a.example.com", "https://evil.b.example.com"):
            self.assert_problem(self.ask("POST", COOKIE, ("Origin", origin)), 403, field="Origin", says="wildcard")
        for fields in (
            [("Origin", "https://evil.example.com")],
            [("Sec-Fetch-Site", "same-origin")],
            [],
        ):
            for method in ("GET", "POST") if fields and fields[0][0] == "Origin" else ("GET",):
                response = self.ask(method, COOKIE, *fields, host="evil.example.com")
                self.assert_problem(response, 403, field="Host", says="without a wildcard")
        self.assertEqual(self.published, 1)

    def test_with_a_star_other_cookies_do_not_matter(self) -> None:
        self.start(CONFIG.replace(LISTED, "*").replace("anonymous =", "anonymous = subscribe"))
        self.assert_served("GET", ("Cookie", "a=1; sessions=2; Session=3; xsession=4"), ("Origin", EVIL))
        self.assertEqual(self.tokens.shown, [])

    def test_what_changes_something_needs_an_origin(self) -> None:
        for method in ("POST", "DELETE"):
            for site in ((), (("Sec-Fetch-Site", "same-origin"),), (("Sec-Fetch-Site", "none"),)):
                with self.subTest(f"{method} {site}"):
                    self.assert_problem(self.ask(method, COOKIE, *site), 403, field="Origin", says="missing")
        self.assertEqual((self.published, self.tokens.shown), (0, []))

    def test_what_reads_needs_none_but_of_another_site(self) -> None:
        """A page is told nothing of such an answer, but it would count as the user's own."""
        for method in ("GET", "HEAD"):
            for site in (None, "same-origin", "none"):
                with self.subTest(f"{method} {site}"):
                    self.assert_served(method, COOKIE, *([] if site is None else [("Sec-Fetch-Site", site)]))
            for site in ("cross-site", "same-site", "Cross-Site", "unheard-of", ""):
                with self.subTest(f"{method} {site}"):
                    self.assertEqual(self.ask(method, COOKIE, ("Sec-Fetch-Site", site)).status, 403)

    def test_a_stream_for_another_page_is_not_begun(self) -> None:
        for path in ("/sse", "/stream", "/poll"):
            for headers in ([("Origin", EVIL)], [("Sec-Fetch-Site", "cross-site")], [("Origin", "null")]):
                with self.subTest(f"{path} {headers}"):
                    response = self.ask("GET", COOKIE, *headers, target=f"{path}?channel=a&since=earliest")
                    self.assertEqual(response.status, 403)
                    self.assertIsNone(response.header("access-control-allow-origin"))
        self.assertEqual(self.rig.traces.sessions, 0)

    def test_without_the_option_no_cookie_is_looked_at(self) -> None:
        self.start(CONFIG.replace("cookie = session\n", ""))
        self.assertEqual(self.ask("GET", COOKIE, ("Origin", LISTED)).status, 401)
        self.assertEqual(self.tokens.shown, [])

    def test_without_keys_no_cookie_is_looked_at(self) -> None:
        self.rig = DaemonRig(CONFIG, self.http)
        self.assertEqual(self.ask("GET", COOKIE, ("Origin", LISTED)).status, 403)

    def test_of_several_with_the_same_name_it_is_not_known_which_counts(self) -> None:
        for cookies in ([("Cookie", "session=victim; session=other")], [COOKIE, ("Cookie", "session=other")]):
            response = self.ask("GET", *cookies, ("Origin", LISTED))
            self.assert_problem(response, 400, field="Cookie", says="2 times")
        self.assertEqual(self.tokens.shown, [])
        self.assert_served("GET", ("Cookie", "session=victim; a=b; session=victim"), ("Origin", LISTED))

    def test_it_is_found_among_others_and_in_quotes(self) -> None:
        for value in (
            "session=victim",
            "a=b; session=victim; c=d",
            "a=b;session=victim",
            'session="victim"',
            " session=victim ",
            "session=victim;",
            "=;session=victim;=",
            "session; session=victim",
        ):
            with self.subTest(value):
                self.assert_served("GET", ("Cookie", value), ("Origin", LISTED))
        self.assertEqual(set(self.tokens.shown), {"victim"})

    def test_what_is_no_token_is_refused(self) -> None:
        for value in ("session=forged", "session=victim=", 'session="vic"tim"', "session=a b"):
            with self.subTest(value):
                response = self.ask("GET", ("Cookie", value), ("Origin", LISTED))
                self.assert_problem(response, 401)
                self.assertIn("invalid_token", response.header("www-authenticate") or "")

    def test_a_token_that_is_shown_wins(self) -> None:
        """What a page shows itself is no secret that the browser keeps: any page may show its own."""
        for target, headers in (
            ("/channels/a", [("Authorization", "Bearer other")]),
            ("/channels/a?access_token=other", []),
        ):
            for method in METHODS:
                with self.subTest(f"{method} {target}"):
                    response = self.ask(method, COOKIE, *headers, target=target)
                    self.assert_problem(response, 403, says="does not give")
        self.assertEqual(set(self.tokens.shown), {"other"})
        self.start(CONFIG.replace(LISTED, "*"))
        self.ask("GET", COOKIE, ("Origin", EVIL), ("Authorization", "Bearer other"))
        self.assertEqual(self.tokens.shown, ["other"])

    def test_the_refusal_is_logged(self) -> None:
        with logged() as lines:
            self.ask("POST", COOKIE)
        self.assertTrue(any("403 POST /channels/a from" in line and "requires an Origin" in line for line in lines))
        self.assertFalse(any("victim" in line for line in lines))


class CredentialsTests(CookieRules):
    """What a browser is told (Fetch, section 3.3)."""

    def test_a_listed_page_may_read_what_came_for_a_cookie(self) -> None:
        for method, headers in (("GET", [COOKIE]), ("GET", []), ("POST", [COOKIE]), ("OPTIONS", [])):
            response = self.ask(method, *headers, ("Origin", LISTED))
            self.assertEqual(response.header("access-control-allow-credentials"), "true")
            self.assertEqual(response.header("access-control-allow-origin"), LISTED)

    def test_no_other_may(self) -> None:
        for config in (CONFIG, CONFIG.replace(LISTED, "*"), CONFIG.replace("cookie = session\n", "")):
            self.start(config)
            for origin in (OWN, EVIL, "null", "*", *([] if "cookie" in config else [LISTED])):
                for method in ("GET", "OPTIONS"):
                    with self.subTest(f"{method} {origin}"):
                        response = self.ask(method, ("Origin", origin))
                        self.assertIsNone(response.header("access-control-allow-credentials"))

    def test_a_preflight_has_no_cookie_and_needs_none(self) -> None:
        response = self.ask(
            "OPTIONS", ("Origin", LISTED), ("Access-Control-Request-Method", "DELETE"), target="/channels/a"
        )
        self.assertEqual(response.status, 204)
        self.assertEqual(self.tokens.shown, [])


class SecureTests(CookieRules):
    """Behind TLS, a page that came without it is another's: whoever is on the way may have written it."""

    def test_its_own_pages_have_come_over_tls(self) -> None:
        self.patch(connection_info, "ISSLTransport", lambda transport, default: transport)
        for headers in ([COOKIE], []):
            response = self.ask("POST", *headers, ("Origin", "http://localhost"))
            self.assert_problem(response, 403, field="Origin")
        self.assert_served("POST", COOKIE, ("Origin", "https://localhost"))


class HijackingTests(CookieRules):
    """Cross-site WebSocket hijacking: the handshake of any page brings the user's cookies."""

    def connect(self, *fields: tuple[str, str], origin: str | None, target: str = "/ws?channel=a") -> WebSocketTalk:
        """Shake hands over HTTP/1.1."""
        return WebSocketClient(self.rig, target, origin=origin, fields=fields)

    def status(self, socket: WebSocketTalk) -> int:
        """Return what the handshake was answered."""
        assert isinstance(socket, WebSocketClient) and socket.handshake is not None
        return socket.handshake.status_code

    def assert_open(self, is_open: bool, socket: WebSocketTalk) -> None:
        """The WebSocket was opened, or refused with 403."""
        self.rig.turn()
        self.assertEqual(socket.is_open, is_open)
        if not is_open:
            self.assertEqual(self.status(socket), 403)

    def open_each(self, origins: Iterable[str | None], *, is_open: bool) -> None:
        """Open WebSockets of pages of these origins."""
        for origin in origins:
            for target in ("/ws", "/ws?channel=a", "/ws?channel=a&format=raw"):
                with self.subTest(f"{target} {origin}"):
                    socket = self.connect(COOKIE, origin=origin, target=target)
                    self.assert_open(is_open, socket)
                    socket.connection.disconnect()

    def test_a_page_of_another_origin_is_refused(self) -> None:
        for config in (CONFIG, CONFIG.replace(LISTED, "*"), CONFIG.replace("anonymous =", "anonymous = subscribe")):
            self.start(config)
            self.open_each((EVIL, "null", "http://localhost:81", "http://app.example"), is_open=False)
        self.assertEqual(self.tokens.shown, [])
        self.assertEqual(self.rig.traces.sessions, 0)

    def test_so_is_one_without_an_origin_whatever_else_it_says(self) -> None:
        self.open_each([None], is_open=False)
        socket = self.connect(COOKIE, ("Sec-Fetch-Site", "same-origin"), origin=None)
        self.assert_open(False, socket)
        self.assertEqual(self.tokens.shown, [])

    def test_its_own_pages_and_listed_ones_are_not(self) -> None:
        self.open_each((OWN, LISTED), is_open=True)
        self.assertEqual(set(self.tokens.shown), {"victim"})

    def test_without_a_cookie_no_origin_is_needed(self) -> None:
        self.assert_open(True, self.connect(origin=None, target="/ws?channel=a&access_token=victim"))
        self.assert_open(True, self.connect(("Authorization", "Bearer victim"), origin=None))

    def test_with_a_star_the_page_has_no_rights_but_those_of_anybody(self) -> None:
        self.start(CONFIG.replace(LISTED, "*").replace("anonymous =", "anonymous = subscribe"))
        socket = self.connect(origin=EVIL)
        self.assert_open(True, socket)
        socket.say(type="publish", channel="a", data="x")
        self.rig.turn()
        self.assertEqual(socket.json[-1]["status"], 401)


class HijackingOverHttp2Tests(HijackingTests):
    """The same on a stream."""

    def connect(self, *fields: tuple[str, str], origin: str | None, target: str = "/ws?channel=a") -> WebSocketTalk:
        """Override: over HTTP/2."""
        lower = [(name.lower(), value) for name, value in fields]
        return WebSocketOverHttp2(self.rig, target, origin=origin, fields=lower)

    def status(self, socket: WebSocketTalk) -> int:
        """Override."""
        response = socket.connection.response
        assert isinstance(response, Response)
        return response.status

    def test_cookies_in_several_fields_are_one_header(self) -> None:
        """RFC 9113, section 8.2.3."""
        socket = self.connect(("cookie", "a=b"), ("cookie", "session=victim"), ("cookie", "c=d"), origin=OWN)
        self.assert_open(True, socket)
